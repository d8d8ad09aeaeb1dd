//! The real proxy between real sockets: every line at its owner, nodes that fail in every way, reload,
//! several processes, the end. The nodes are this program's own threads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod faults;
#[path = "../common/inject.rs"]
mod inject;
mod node;
mod program;
mod several;

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use node::{Mode, Node};
use program::Program;
use statsd::ring::Ring;

const DEADLINE: Duration = Duration::from_secs(20);

/// The outcome of a condition, once there is one.
fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn nodes(count: usize) -> Vec<Node> {
    (0..count).map(|_| Node::start()).collect()
}

/// What each of the nodes should have got of these lines, if only those that are `alive` are there.
fn owned(nodes: &[Node], alive: &[&Node], lines: &[String]) -> Vec<Vec<String>> {
    let number = |node: &Node| nodes.iter().position(|n| n.port == node.port).unwrap() as u32;
    let ring = Ring::new(alive.iter().map(|node| (number(node), node.name())));
    let mut owned = vec![Vec::new(); nodes.len()];
    for line in lines {
        let name = line.split(':').next().unwrap();
        let owner = ring.owner(name.as_bytes()).unwrap();
        owned[owner as usize].push(line.clone());
    }
    owned
}

/// Lines of many names, numbered.
fn lines(count: usize, names: usize) -> Vec<String> {
    let line = |n| format!("prod.web{}.requests:{n}|c", n % names);
    (0..count).map(line).collect()
}

/// Sends lines, so many a datagram, slowly enough for everyone's buffers.
fn send(program: &Program, lines: &[String], per_datagram: usize) {
    let socket = program.udp();
    for (number, lines) in lines.chunks(per_datagram).enumerate() {
        socket.send(lines.join("\n").as_bytes()).unwrap();
        if number % 50 == 49 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Waits until the nodes have as many lines as they should, then compares.
fn expect(nodes: &[Node], expected: &[Vec<String>]) {
    let total = |lists: &[Vec<String>]| lists.iter().map(Vec::len).sum::<usize>();
    let found = || nodes.iter().map(Node::lines).collect::<Vec<_>>();
    let wanted = total(expected);
    wait_for(&format!("{wanted} lines"), || {
        (total(&found()) >= wanted).then_some(())
    });
    for (node, (found, expected)) in nodes.iter().zip(found().iter().zip(expected)) {
        let name = node.name();
        assert_eq!(found.len(), expected.len(), "lines at {name}");
        assert!(
            found == expected,
            "other lines, or another order, at {name}"
        );
    }
}

#[test]
fn every_line_at_its_owner() {
    let nodes = nodes(7);
    let all: Vec<&Node> = nodes.iter().collect();
    let program = Program::start(&all, "");
    let lines = lines(6000, 500);
    for per_datagram in [1, 7, 50] {
        send(&program, &lines, per_datagram);
        expect(&nodes, &owned(&nodes, &all, &lines));
        let sizes = nodes.iter().flat_map(Node::datagrams);
        assert!(sizes.max().unwrap() <= 1432);
        nodes.iter().for_each(Node::forget);
    }
    assert_eq!(program.figure("lines"), 3 * 6000);
    assert_eq!(program.figure("lost"), 0);
    let sent: u64 = nodes.iter().map(|n| program.node_figure(n, "lines")).sum();
    assert_eq!(sent, 3 * 6000);
}

#[test]
fn lines_over_tcp_and_a_unix_socket() {
    let nodes = nodes(3);
    let all: Vec<&Node> = nodes.iter().collect();
    let keys = "servers: [{ server: './servers/tcp', address: '127.0.0.1', port: 0 },
        { server: 'tcp', socket: 'lines.sock' },
        { server: 'udp', address: '127.0.0.1', port: 0 }]";
    let program = Program::start(&all, keys);
    let lines = lines(3000, 100);
    let text = lines.join("\n") + "\n";
    let mut tcp = program.tcp();
    // In odd pieces: a line ends where its end comes.
    for piece in text.as_bytes().chunks(1001) {
        tcp.write_all(piece).unwrap();
    }
    expect(&nodes, &owned(&nodes, &all, &lines));
    nodes.iter().for_each(Node::forget);
    let mut unix = program.unix();
    unix.write_all(text.as_bytes()).unwrap();
    expect(&nodes, &owned(&nodes, &all, &lines));
    nodes.iter().for_each(Node::forget);
    send(&program, &lines, 10);
    expect(&nodes, &owned(&nodes, &all, &lines));
}

#[test]
fn datagrams_are_packed_up_to_the_limit() {
    let nodes = nodes(1);
    let program = Program::start(&[&nodes[0]], "maxDatagram: 64");
    let long = format!("long:{}|c", "1".repeat(200));
    let packet: Vec<&str> = vec!["a:1|c"; 30];
    let packet = format!("{}\n{long}\n{}", packet.join("\n"), packet.join("\n"));
    program.udp().send(packet.as_bytes()).unwrap();
    wait_for("61 lines", || (nodes[0].lines().len() == 61).then_some(()));
    // 10 lines of 5 bytes and 9 line ends are 59 bytes, one more would be 65.
    assert_eq!(nodes[0].datagrams(), [59, 59, 59, 207, 59, 59, 59]);
    assert_eq!(nodes[0].lines()[30], long);
}

#[test]
fn nodes_by_name_and_on_ipv6() {
    let nodes = [
        Node::at("127.0.0.1", "localhost"),
        Node::at("::1", "::1"),
        Node::start(),
    ];
    let all: Vec<&Node> = nodes.iter().collect();
    let program = Program::start(&all, "checkInterval: 300");
    // From the first line on, even if the name is not looked up yet.
    let lines = lines(600, 60);
    send(&program, &lines, 3);
    expect(&nodes, &owned(&nodes, &all, &lines));
    nodes[0].set(Mode::Down);
    program.wait_until_live(2);
    nodes[0].set(Mode::Up);
    program.wait_until_live(3);
    nodes.iter().for_each(Node::forget);
    send(&program, &lines, 3);
    expect(&nodes, &owned(&nodes, &all, &lines));
}

#[test]
fn the_console() {
    let nodes = nodes(2);
    let program = Program::start(&[&nodes[0], &nodes[1]], "title: 'my proxy'");
    assert_eq!(
        program.admin("help"),
        "Commands: config, health, status, quit\n\n"
    );
    assert_eq!(program.admin("stats"), "ERROR\n");
    assert_eq!(program.admin("health"), "health: up\n");
    assert_eq!(program.admin("health DOWN"), "health: down\n");
    assert_eq!(
        program.admin("health\nhealth up"),
        "health: down\nhealth: up\n"
    );
    let config = program.admin("config");
    assert!(
        config.starts_with('\n') && config.contains("\ntitle: my proxy\n"),
        "{config}"
    );
    let status = program.admin("status");
    let names = format!("nodes: {} {} ", nodes[0].name(), nodes[1].name());
    let mut status = status.lines();
    assert!(status.next().unwrap().starts_with("uptime: "));
    assert_eq!(status.next().unwrap(), names);
}

#[test]
fn a_console_that_does_not_read() {
    let nodes = nodes(1);
    let note = "x".repeat(20_000);
    let keys = format!("mgmtBufferBytes: 4096, note: '{note}'");
    let program = Program::start(&[&nodes[0]], &keys);
    let mut deaf = program.console();
    deaf.write_all("config\n".repeat(2000).as_bytes()).unwrap();
    wait_for("it to stall", || {
        (program.figure("stalled_consoles") == 1).then_some(())
    });
    assert_eq!(program.admin("health"), "health: up\n");
    deaf.write_all(b"quit\n").unwrap();
    let mut replies = String::new();
    deaf.read_to_string(&mut replies).unwrap();
    assert_eq!(replies.matches(&note).count(), 2000);
    program.logged("no client is stalled any more");
    assert_eq!(program.figure("stalled_consoles"), 1);
    let log = program.log();
    let said = log.iter().filter(|line| line.contains("does not read: "));
    assert_eq!(said.count(), 1, "{log:?}");
}

#[test]
fn own_counters_go_through_the_ring() {
    let nodes = nodes(3);
    let all: Vec<&Node> = nodes.iter().collect();
    let program = Program::start(&all, "proxyStats: 100, prefixStats: 'mine'");
    send(&program, &lines(100, 10), 10);
    let sum = |name: &str| -> u64 {
        let start = format!("mine.proxy.{name}:");
        let lines = nodes.iter().flat_map(Node::lines);
        lines
            .filter_map(|l| {
                l.strip_prefix(&start)?
                    .strip_suffix("|c")?
                    .parse::<u64>()
                    .ok()
            })
            .sum()
    };
    // Each has a node of its own, which may be the later one to have read it.
    for (name, expected) in [("lines", 100), ("packets", 10)] {
        wait_for(name, || (sum(name) == expected).then_some(()));
    }
    let node = nodes[1].name().replace(['.', ':'], "_");
    wait_for("a node's counter", || {
        (sum(&format!("node.{node}.datagrams")) > 0).then_some(())
    });
}

/// The end tells of what came since the last time, and of what is read at the very end.
#[test]
fn the_end_tells_the_own_counters() {
    let nodes = nodes(3);
    let all: Vec<&Node> = nodes.iter().collect();
    let keys = "proxyStats: 3600000, maxLineBytes: 100, maxTcpClients: 1,
        servers: [{ server: 'udp', address: '127.0.0.1', port: 0 },
            { server: 'tcp', address: '127.0.0.1', port: 0 }]";
    let mut program = Program::start(&all, keys);
    let mut client = program.tcp();
    client.write_all(b"a:1|c\n").unwrap();
    wait_for("a line", || (program.figure("lines") == 1).then_some(()));
    let _refused = program.tcp();
    wait_for("a refusal", || {
        (program.figure("refused_clients") == 1).then_some(())
    });
    program.signal(libc::SIGSTOP);
    program.signal(libc::SIGTERM);
    send(&program, &lines(100, 50), 10);
    client.write_all("x".repeat(200).as_bytes()).unwrap();
    client.write_all(b"\nb:1|c\n").unwrap();
    program.signal(libc::SIGCONT);
    assert_eq!(program.wait(), Some(0));
    let told = |name: &str| -> Vec<String> {
        let start = format!("statsd.proxy.{name}:");
        let lines = nodes.iter().flat_map(Node::lines);
        let values = lines.filter_map(|line| Some(line.strip_prefix(&start)?.to_string()));
        values.collect()
    };
    let node_lines = || -> Vec<String> {
        let name = |node: &Node| node.name().replace(['.', ':'], "_");
        let names = nodes
            .iter()
            .map(|node| format!("node.{}.lines", name(node)));
        names.flat_map(|name| told(&name)).collect()
    };
    wait_for("the counters", || {
        (told("refused_clients").len() == 1 && node_lines().len() == 3).then_some(())
    });
    assert_eq!(told("lines"), ["102|c"]);
    assert_eq!(told("long_lines"), ["1|c"]);
    assert_eq!(told("refused_clients"), ["1|c"]);
    let count = |value: &String| value.trim_end_matches("|c").parse::<u64>().unwrap();
    assert_eq!(node_lines().iter().map(count).sum::<u64>(), 102);
}

/// Over streams, however they come; what is around them is taken.
#[test]
fn long_lines_are_passed_over() {
    let nodes = nodes(1);
    let keys = "maxLineBytes: 100, servers: [{ server: 'tcp', address: '127.0.0.1', port: 0 }]";
    let program = Program::start(&[&nodes[0]], keys);
    let mut client = program.tcp();
    let (long, fits) = ("x".repeat(200), format!("{}:1|c", "y".repeat(96)));
    let (start, mut sent) = (Instant::now(), 0);
    // Longer than between two looks at the figures.
    while start.elapsed() < Duration::from_millis(2500) {
        client
            .write_all(format!("{long}\n{fits}\n").as_bytes())
            .unwrap();
        sent += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    wait_for("the lines", || {
        (program.figure("long_lines") == sent).then_some(())
    });
    program.logged("below maxLineBytes again");
    let said = |text: &str| program.log().iter().filter(|l| l.contains(text)).count();
    assert_eq!(said("over maxLineBytes: "), 1);
    assert_eq!(nodes[0].lines(), vec![fits; sent as usize]);
}

#[test]
fn the_end_loses_nothing() {
    let nodes = nodes(3);
    let all: Vec<&Node> = nodes.iter().collect();
    let mut program = Program::start(&all, "");
    let lines = lines(3000, 100);
    let socket = program.udp();
    for lines in lines.chunks(10) {
        socket.send(lines.join("\n").as_bytes()).unwrap();
    }
    program.signal(libc::SIGTERM);
    assert_eq!(program.wait(), Some(0));
    expect(&nodes, &owned(&nodes, &all, &lines));
}

#[test]
fn a_reload_adds_and_removes_nodes_without_losing_a_line() {
    let nodes = nodes(4);
    let all: Vec<&Node> = nodes.iter().collect();
    // A node has so long to answer, on a busy machine too: what it got while it counts as down is lost.
    let keys = "checkInterval: 1000";
    let program = Program::start(&all[..2], keys);
    let lines = lines(20_000, 400);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(&program, &lines, 2));
        let rings = [&all[..], &all[1..], &all[2..3], &all[..3]];
        for (nodes, count) in rings.iter().zip([4, 3, 1, 3]) {
            program.rewrite_config(nodes, keys);
            program.signal(libc::SIGHUP);
            program.wait_until_live(count);
        }
        sender.join().unwrap();
    });
    let found = || nodes.iter().flat_map(Node::lines).collect::<Vec<_>>();
    wait_for("all lines", || (found().len() >= lines.len()).then_some(()));
    let (mut found, mut sent) = (found(), lines.clone());
    found.sort();
    sent.sort();
    assert!(found == sent, "some are missing or came twice");
    nodes.iter().for_each(Node::forget);
    send(&program, &lines[..1000], 5);
    expect(&nodes, &owned(&nodes, &all[..3], &lines[..1000]));
}

#[test]
fn a_reload_of_a_broken_config_changes_nothing() {
    let nodes = nodes(2);
    let all: Vec<&Node> = nodes.iter().collect();
    let program = Program::start(&all, "");
    std::fs::write(program.directory.join("config.js"), "{ nodes: [] }").unwrap();
    program.signal(libc::SIGHUP);
    program.logged("the config is not reloaded");
    let lines = lines(100, 10);
    send(&program, &lines, 5);
    expect(&nodes, &owned(&nodes, &all, &lines));
}

#[test]
fn a_node_that_is_added_gets_lines_once_it_answers() {
    let nodes = nodes(2);
    let program = Program::start(&[&nodes[0]], "checkInterval: 100");
    nodes[1].set(Mode::Down);
    program.rewrite_config(&[&nodes[0], &nodes[1]], "checkInterval: 100");
    program.signal(libc::SIGHUP);
    wait_for("a check of the new node", || {
        (nodes[1].asked() > 0).then_some(())
    });
    assert_eq!(program.live(), [nodes[0].name()]);
    nodes[1].set(Mode::Up);
    program.wait_until_live(2);
}

#[test]
fn noise_harms_nobody() {
    let nodes = nodes(2);
    let all: Vec<&Node> = nodes.iter().collect();
    let keys = "servers: [{ server: 'udp', address: '127.0.0.1', port: 0 },
        { server: 'tcp', address: '127.0.0.1', port: 0 }]";
    let program = Program::start(&all, keys);
    let mut seed = 7u64;
    let mut byte = || {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 56) as u8
    };
    let socket = program.udp();
    for length in (0..3000).chain([20_000, 65_507]) {
        let bytes: Vec<u8> = (0..length).map(|_| byte()).collect();
        // A full buffer on our side is no matter.
        let _ = socket.send(&bytes);
        if length % 100 == 0 {
            let mut tcp = program.tcp();
            let _ = tcp.write_all(&bytes);
            let reset = socket2::SockRef::from(&tcp);
            reset.set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
    wait_for("the noise to be over", || {
        let before = program.figure("lines");
        std::thread::sleep(Duration::from_millis(50));
        (before > 1000 && program.figure("lines") == before).then_some(())
    });
    std::thread::sleep(Duration::from_millis(50));
    nodes.iter().for_each(Node::forget);
    let lines = lines(100, 10);
    send(&program, &lines, 5);
    expect(&nodes, &owned(&nodes, &all, &lines));
}

#[test]
fn exit_codes() {
    let directory = program::directory();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let node = "nodes: [{ host: '127.0.0.1', port: 1, adminport: 2 }]";
    let listen = "host: '127.0.0.1', port: 0, mgmt_address: '127.0.0.1'";
    for (arguments, config, code, message) in [
        (&["--nonsense"][..], "{}".to_string(), 1, "unknown option"),
        (&[], "{}".to_string(), 1, "CONFIG is missing"),
        (&["c.js"], "{".to_string(), 2, "c.js"),
        (&["-t", "c.js"], "{ nodes: 3 }".to_string(), 2, "nodes"),
        (&["-t", "c.js"], format!("{{ {node} }}"), 0, ""),
        (
            &["c.js"],
            format!("{{ {node}, {listen}, mgmt_port: {port} }}"),
            3,
            "cannot listen on admin",
        ),
        (
            &["c.js"],
            format!("{{ {node}, {listen}, mgmt_port: {port}, forkCount: 2 }}"),
            3,
            "cannot listen on admin",
        ),
    ] {
        std::fs::write(directory.join("c.js"), &config).unwrap();
        let output = program::command()
            .args(arguments)
            .current_dir(&directory)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{config}: {errors}");
        assert!(errors.contains(message), "{config}: {errors}");
    }
    std::fs::remove_dir_all(directory).unwrap();
}
