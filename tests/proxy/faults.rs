//! Nodes that fail: their names move, nobody else's, and come back.

use super::*;
use crate::inject::{ALWAYS, Call};

/// Every way to fail, one after the other, with seven nodes.
#[test]
fn a_node_that_fails_loses_its_names_until_it_is_back() {
    let nodes = nodes(7);
    let all: Vec<&Node> = nodes.iter().collect();
    let others: Vec<&Node> = nodes
        .iter()
        .enumerate()
        .filter(|(n, _)| *n != 3)
        .map(|(_, n)| n)
        .collect();
    let program = Program::start(&all, "checkInterval: 200");
    let lines = lines(2000, 500);
    let before = owned(&nodes, &all, &lines);
    let without = owned(&nodes, &others, &lines);
    for mode in [Mode::Down, Mode::Hangs, Mode::Resets, Mode::Gone] {
        let what = format!("{mode:?}");
        nodes[3].set(mode);
        program.wait_until_live(6);
        nodes.iter().for_each(Node::forget);
        send(&program, &lines, 10);
        expect(&nodes, &without);
        assert!(without[3].is_empty() && !before[3].is_empty());
        if mode == Mode::Hangs {
            // Each check gives up and closes, so that they do not pile up.
            let asked = nodes[3].asked();
            wait_for("more checks", || {
                (nodes[3].asked() > asked + 4).then_some(())
            });
            assert!(
                nodes[3].open_connections() <= 2,
                "{}",
                nodes[3].open_connections()
            );
        }
        nodes[3].set(Mode::Up);
        program.wait_until_live(7);
        nodes.iter().for_each(Node::forget);
        send(&program, &lines, 10);
        expect(&nodes, &before);
        let removed = program.log();
        let removed: Vec<&String> = removed
            .iter()
            .filter(|l| l.contains("Removing node"))
            .collect();
        let reason = match mode {
            Mode::Down => "it says health: down",
            Mode::Hangs => "it does not answer in time",
            _ => "its admin port: Connection re",
        };
        assert!(
            removed.last().unwrap().contains(reason),
            "{what}: {removed:?}"
        );
    }
    let removed = program
        .log()
        .iter()
        .filter(|l| l.contains("Removing node"))
        .count();
    let added = program
        .log()
        .iter()
        .filter(|l| l.contains("Adding node"))
        .count();
    assert_eq!((removed, added), (4, 4), "{:?}", program.log());
    wait_for("the checks to be closed", || {
        nodes
            .iter()
            .all(|node| node.open_connections() <= 1)
            .then_some(())
    });
}

/// Without waiting for the next check: a datagram that comes back is reason enough.
#[test]
fn a_node_that_is_gone_is_noticed_at_the_first_refusal() {
    let nodes = nodes(2);
    let all: Vec<&Node> = nodes.iter().collect();
    let program = Program::start(&all, "checkInterval: 600000");
    wait_for("the first check", || (nodes[0].asked() > 0).then_some(()));
    nodes[0].set(Mode::Gone);
    let line = lines(100, 100)
        .into_iter()
        .find(|line| !owned(&nodes, &all, std::slice::from_ref(line))[0].is_empty());
    let line = line.unwrap();
    let socket = program.udp();
    let mut sent = 0;
    wait_for("the node to be noticed", || {
        socket.send(line.as_bytes()).unwrap();
        sent += 1;
        std::thread::sleep(Duration::from_millis(10));
        (program.live().len() == 1).then_some(())
    });
    // What had been sent to it is counted, what came later went to the other one.
    let refused = program.node_figure(&nodes[0], "refused");
    assert!(refused > 0);
    wait_for("the rest of the lines", || {
        (nodes[1].lines().len() as u64 + refused == sent).then_some(())
    });
}

#[test]
fn without_any_node_lines_are_lost_counted_and_told_once() {
    let nodes = nodes(2);
    let all: Vec<&Node> = nodes.iter().collect();
    let program = Program::start(&all, "checkInterval: 100");
    nodes.iter().for_each(|node| node.set(Mode::Down));
    program.wait_until_live(0);
    let lines = lines(500, 50);
    send(&program, &lines, 5);
    wait_for("the lines to be counted", || {
        (program.figure("lost") == 500).then_some(())
    });
    nodes.iter().for_each(|node| node.set(Mode::Up));
    program.wait_until_live(2);
    send(&program, &lines, 5);
    expect(&nodes, &owned(&nodes, &all, &lines));
    let log = program.log();
    let count = |text: &str| log.iter().filter(|line| line.contains(text)).count();
    assert_eq!(count("No backend statsd nodes available"), 1, "{log:?}");
    assert_eq!(
        count("lines reach a node again; 500 were lost"),
        1,
        "{log:?}"
    );
}

/// All checks at once: six that hang do not keep the seventh from being asked.
#[test]
fn nodes_that_hang_do_not_hold_up_the_others() {
    let nodes = nodes(7);
    let all: Vec<&Node> = nodes.iter().collect();
    nodes[..6].iter().for_each(|node| node.set(Mode::Hangs));
    let program = Program::start(&all, "checkInterval: 300");
    program.wait_until_live(1);
    let asked = nodes[6].asked();
    let start = Instant::now();
    wait_for("ten more checks", || {
        (nodes[6].asked() >= asked + 10).then_some(())
    });
    assert!(
        start.elapsed() < Duration::from_secs(6),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(program.live(), [nodes[6].name()]);
}

/// The system has no room for datagrams, one by one or in blocks: lines wait, in their order, and it is
/// said once each way.
#[test]
fn without_room_in_the_system_lines_wait() {
    let nodes = nodes(2);
    let all: Vec<&Node> = nodes.iter().collect();
    let (program, faults) = Program::start_with_faults(&all, "checkInterval: 200");
    let lines = lines(6000, 500);
    let owned = owned(&nodes, &all, &lines);
    for errno in [libc::ENOBUFS, libc::ENOMEM] {
        let before = faults.failed(Call::Sendmsg);
        for call in [Call::Sendmsg, Call::Sendmmsg] {
            faults.fail(call, errno, ALWAYS);
        }
        send(&program, &lines, 10);
        wait_for("failures", || {
            (faults.failed(Call::Sendmsg) > before + 5).then_some(())
        });
        program.logged("the system has no room for datagrams");
        let waits = || nodes.iter().map(|node| node.lines().len()).sum::<usize>();
        assert_eq!(waits(), 0);
        for call in [Call::Sendmsg, Call::Sendmmsg] {
            faults.heal(call);
        }
        expect(&nodes, &owned);
        nodes.iter().for_each(Node::forget);
    }
    // Well for ten seconds and more.
    faults.pass(Duration::from_secs(11));
    for node in &nodes {
        program.logged(&format!("node {}: the system has room", node.name()));
        let (drops, refused) = (
            program.node_figure(node, "drops"),
            program.node_figure(node, "refused"),
        );
        assert_eq!((drops, refused), (0, 0));
    }
    let log = program.log();
    let said = log.iter().filter(|line| line.contains("no room")).count();
    assert_eq!(said, 2, "once for each node: {log:?}");
}

/// More datagrams than the kernel keeps while the proxy does not run.
fn overflow(program: &Program) {
    let socket = program.udp();
    program.signal(libc::SIGSTOP);
    for _ in 0..100 {
        socket.send(&[b'x'; 20_000]).unwrap();
    }
    program.signal(libc::SIGCONT);
}

/// With nothing that wakes it but that.
const QUIET: &str = "receiveBuffer: 4096, checkInterval: 600000, automaticConfigReload: false";

#[test]
fn datagrams_that_the_kernel_drops_are_told_of_though_nobody_asks() {
    let nodes = nodes(1);
    let program = Program::start(&[&nodes[0]], QUIET);
    // It has just looked.
    assert_eq!(program.figure("udp_drops"), 0);
    overflow(&program);
    program.logged("the kernel dropped ");
}

#[test]
fn datagrams_that_the_kernel_drops_are_told_of_once_each_way() {
    let nodes = nodes(1);
    let (program, faults) = Program::start_with_faults(&[&nodes[0]], QUIET);
    let said = |text: &str| program.log().iter().filter(|l| l.contains(text)).count();
    for round in 1..=2 {
        overflow(&program);
        wait_for("the word of drops", || {
            (said("the kernel dropped ") == round).then_some(())
        });
        // Soon after it is the same trouble still.
        let dropped = program.figure("udp_drops");
        overflow(&program);
        wait_for("more of them", || {
            (program.figure("udp_drops") > dropped).then_some(())
        });
        // It looks again, and there are none.
        faults.pass(Duration::from_secs(2));
        for _ in 0..2 {
            program.figure("udp_drops");
        }
        assert_eq!(said("no more datagrams dropped"), round - 1);
        faults.pass(Duration::from_secs(11));
        wait_for("the word that it is over", || {
            (said("no more datagrams dropped") == round).then_some(())
        });
    }
    assert_eq!(said("the kernel dropped "), 2);
}
