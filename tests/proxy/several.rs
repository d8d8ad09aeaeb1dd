//! `forkCount`: several processes on the same ports.

use super::*;
use std::collections::HashSet;

const SERVERS: &str = "forkCount: 3, checkInterval: 500, servers: [
    { server: 'udp', address: '127.0.0.1', port: 0 },
    { server: 'tcp', address: '127.0.0.1', port: 0 },
    { server: 'tcp', socket: 'lines.sock' }]";

/// The processes that answer on the console.
fn processes(program: &Program) -> HashSet<u64> {
    (0..60).map(|_| program.figure("process")).collect()
}

fn all_lines(nodes: &[Node]) -> usize {
    nodes.iter().map(|node| node.lines().len()).sum()
}

#[test]
fn several_processes_share_the_work() {
    let nodes = nodes(3);
    let all: Vec<&Node> = nodes.iter().collect();
    let mut program = Program::start(&all, SERVERS);
    let children = wait_for("three children", || {
        let children = program.children();
        (children.len() == 3).then_some(children)
    });
    wait_for("all three on the console", || {
        (processes(&program).len() == 3).then_some(())
    });
    // Many sockets, so that each process gets some.
    let lines = lines(50, 50);
    for _ in 0..30 {
        send(&program, &lines, 5);
    }
    wait_for("lines over udp", || {
        (all_lines(&nodes) == 1500).then_some(())
    });
    let text = lines.join("\n") + "\n";
    for _ in 0..10 {
        program.tcp().write_all(text.as_bytes()).unwrap();
        program.unix().write_all(text.as_bytes()).unwrap();
    }
    wait_for("lines over tcp and unix", || {
        (all_lines(&nodes) == 2500).then_some(())
    });
    for (node, expected) in nodes.iter().zip(owned(&nodes, &all, &lines)) {
        let found: HashSet<String> = node.lines().into_iter().collect();
        assert_eq!(found, expected.into_iter().collect());
    }
    program.signal(libc::SIGTERM);
    assert_eq!(program.wait(), Some(0));
    for pid in children {
        assert!(
            !std::path::Path::new(&format!("/proc/{pid}")).exists(),
            "{pid} is left"
        );
    }
    assert!(!program.directory.join("lines.sock").exists());
}

#[test]
fn a_process_that_dies_is_replaced_and_no_line_is_lost() {
    let nodes = nodes(2);
    let all: Vec<&Node> = nodes.iter().collect();
    let program = Program::start(&all, SERVERS);
    wait_for("three processes", || {
        (processes(&program).len() == 3).then_some(())
    });
    let before = program.children();
    statsd::sys::send_signal(before[1], libc::SIGKILL).unwrap();
    // What comes in meanwhile waits in the sockets that the parent has kept.
    let lines = lines(50, 50);
    for _ in 0..30 {
        send(&program, &lines, 5);
        program
            .unix()
            .write_all((lines.join("\n") + "\n").as_bytes())
            .unwrap();
    }
    wait_for("all lines", || (all_lines(&nodes) == 3000).then_some(()));
    let after = wait_for("a new process", || {
        let after = program.children();
        (after.len() == 3 && after != before).then_some(after)
    });
    assert!(after.contains(&before[0]) && after.contains(&before[2]));
    assert!(program.logged("died").contains("SIGKILL"));
    // One that is told to end is replaced too, and leaves the socket's file alone.
    statsd::sys::send_signal(after[0], libc::SIGTERM).unwrap();
    wait_for("another new process", || {
        let now = program.children();
        (now.len() == 3 && !now.contains(&after[0])).then_some(())
    });
    program
        .unix()
        .write_all((lines.join("\n") + "\n").as_bytes())
        .unwrap();
    wait_for("more lines", || (all_lines(&nodes) == 3050).then_some(()));
}

#[test]
fn health_is_shared() {
    let nodes = nodes(1);
    let program = Program::start(&[&nodes[0]], SERVERS);
    wait_for("three processes", || {
        (processes(&program).len() == 3).then_some(())
    });
    let says = |expected: &str| (0..40).all(|_| program.admin("health") == expected);
    assert_eq!(program.admin("health down"), "health: down\n");
    wait_for("down everywhere", || says("health: down\n").then_some(()));
    // A new process hears of it too.
    let before = program.children();
    statsd::sys::send_signal(before[2], libc::SIGKILL).unwrap();
    wait_for("a new process", || {
        let now = processes(&program);
        (now.len() == 3 && !now.contains(&(before[2] as u64))).then_some(())
    });
    assert!(says("health: down\n"));
    assert_eq!(program.admin("health up"), "health: up\n");
    wait_for("up everywhere", || says("health: up\n").then_some(()));
}

#[test]
fn a_reload_reaches_all() {
    let nodes = nodes(2);
    let all: Vec<&Node> = nodes.iter().collect();
    let program = Program::start(&all[..1], SERVERS);
    wait_for("three processes", || {
        (processes(&program).len() == 3).then_some(())
    });
    program.rewrite_config(&all, SERVERS);
    program.signal(libc::SIGHUP);
    wait_for("both nodes everywhere", || {
        (0..40).all(|_| program.live().len() == 2).then_some(())
    });
}

/// Killed without a chance to tell them: they notice, finish and end.
#[test]
fn children_end_when_their_parent_is_gone() {
    let nodes = nodes(1);
    let mut program = Program::start(&[&nodes[0]], SERVERS);
    let children = wait_for("three children", || {
        let children = program.children();
        (children.len() == 3).then_some(children)
    });
    program.signal(libc::SIGKILL);
    assert_eq!(program.wait(), None);
    let alive = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    wait_for("the children to end", || {
        (!children.iter().any(alive)).then_some(())
    });
}

/// Detached, with a pidfile: that of the parent, and gone at the end.
#[test]
fn as_a_daemon() {
    let nodes = nodes(1);
    let directory = program::directory();
    let config = format!(
        "{{ nodes: [{}], host: '127.0.0.1', port: 0, mgmt_address: '127.0.0.1', mgmt_port: 0, forkCount: 2 }}",
        nodes[0].entry()
    );
    std::fs::write(directory.join("c.js"), config).unwrap();
    let status = program::command()
        .args(["-d", "-p", "proxy.pid", "c.js"])
        .current_dir(&directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
    let pidfile = directory.join("proxy.pid");
    let pid: i32 = std::fs::read_to_string(&pidfile)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let children = format!("/proc/{pid}/task/{pid}/children");
    wait_for("two children", || {
        let children = std::fs::read_to_string(&children).unwrap();
        (children.split_whitespace().count() == 2).then_some(())
    });
    statsd::sys::send_signal(pid, libc::SIGTERM).unwrap();
    wait_for("the end", || (!pidfile.exists()).then_some(()));
    std::fs::remove_dir_all(directory).unwrap();
}
