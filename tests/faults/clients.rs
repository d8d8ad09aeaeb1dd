//! Clients that break off, hang half-open, or take all descriptors.

use crate::common::daemon::{Daemon, STATSD};
use crate::common::graphite::Graphite;
use crate::common::{Dir, LOCAL, NEVER, reset, wait_until};
use crate::tools::{BOTH, log_lines, ticks, wait_stored};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::Duration;

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Resets on every kind of socket, many times: nothing is left of them and nobody else notices.
#[test]
fn resets_leave_nothing_behind() {
    let dir = Dir::new();
    let mut daemon = Daemon::start(
        &dir,
        &format!("{{ {LOCAL}, {NEVER}, backends: [], {BOTH} }}"),
    );
    let mut stays = daemon.tcp();
    stays.write_all(b"stays:1|c\n").unwrap();
    daemon.wait_received(1);
    let before = descriptors(daemon.pid());
    for round in 0..200 {
        let mut client = daemon.tcp();
        client.write_all(b"half a li").unwrap();
        reset(client);
        let mut console = TcpStream::connect(daemon.address("admin")).unwrap();
        console.write_all(b"counters\nstats\n").unwrap();
        if round % 2 == 0 {
            reset(console);
        }
    }
    wait_until("the last of them to go", || {
        (descriptors(daemon.pid()) <= before).then_some(())
    });
    stays.write_all(b"stays:1|c\n").unwrap();
    daemon.wait_received(2);
    assert_eq!(daemon.console().counter("stays"), Some(2.0));
    daemon.assert_running();
}

/// A client that has closed its side for writing: its lines count, and a console still answers it.
#[test]
fn half_open_connections_are_served_and_closed() {
    let dir = Dir::new();
    let daemon = Daemon::start(
        &dir,
        &format!("{{ {LOCAL}, {NEVER}, backends: [], {BOTH} }}"),
    );
    let mut client = daemon.tcp();
    client.write_all(b"a:1|c\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    assert_eq!(
        client.read(&mut [0; 16]).unwrap(),
        0,
        "closed from the other side too"
    );
    daemon.wait_received(1);
    let mut console = daemon.console();
    console.send("health");
    let mut stream = TcpStream::connect(daemon.address("admin")).unwrap();
    stream.write_all(b"counters").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(
        reply.contains("\"a\": 1") && reply.ends_with("END\n\n"),
        "{reply}"
    );
}

/// Out of descriptors: said once, who is connected is served, and it ends when descriptors come back.
/// Graphite gets its due late, but gets it.
#[test]
fn out_of_descriptors() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!(
        "{{ {LOCAL}, flushInterval: 1000, {BOTH}, {} }}",
        graphite.config()
    );
    let path = dir.write("statsd.js", &config);
    let mut command = Command::new("sh");
    let script = format!("ulimit -n 24; exec {STATSD} {}", path.display());
    command.args(["-c", &script]);
    let mut daemon = Daemon::launch(command);
    let mut console = daemon.console();
    console.ask("health", "\n");
    let clients: Vec<TcpStream> = (0..40).map(|_| daemon.tcp()).collect();
    daemon.wait_line("cannot accept connections for now");
    // Flushes are due, and cannot go out.
    for _ in 0..10 {
        daemon.send("a:1|c");
    }
    daemon.wait_line("flushes are kept");
    let (before, start) = (ticks(&daemon), std::time::Instant::now());
    while start.elapsed() < Duration::from_secs(2) {
        assert!(console.ask("health", "\n").starts_with("health"));
        std::thread::sleep(Duration::from_millis(50));
    }
    // Clock ticks of 10 ms: it waits, and does not ask again and again.
    let spent = ticks(&daemon) - before;
    assert!(spent < 20.0, "{spent} of 200 ticks");
    assert_eq!(
        log_lines(&daemon, "tcp 127.0.0.1"),
        2,
        "the ready line, and once"
    );
    drop(clients);
    daemon.wait_line("accepting connections again");
    daemon.send_tcp("b:1|c\n");
    wait_stored(&graphite, "stats_counts.a", 10.0);
    wait_stored(&graphite, "stats_counts.b", 1.0);
    daemon.stop();
}

/// Signals all the while: calls that they interrupt are made again, and no line is lost or doubled.
#[test]
fn interrupted_by_signals() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!(
        "{{ {LOCAL}, flushInterval: 100, {BOTH}, {} }}",
        graphite.config()
    );
    let mut daemon = Daemon::start(&dir, &config);
    let mut stream = daemon.tcp();
    let lines = "a:1|c\n".repeat(500);
    for _ in 0..100 {
        stream.write_all(lines.as_bytes()).unwrap();
        daemon.signal("HUP");
        daemon.signal("CHLD");
        daemon.signal("WINCH");
        assert!(daemon.console().ask("health", "\n").starts_with("health"));
    }
    graphite.wait_sum("stats_counts.a", 50_000.0);
    daemon.stop();
    assert_eq!(graphite.sum("stats_counts.a"), 50_000.0);
}
