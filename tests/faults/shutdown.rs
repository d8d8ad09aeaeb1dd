//! The end: bounded in time whatever Graphite does, and honest about what is lost.

use crate::common::daemon::Daemon;
use crate::common::graphite::{Graphite, Mode};
use crate::common::inject::{ALWAYS, Call};
use crate::common::{Dir, LOCAL, NEVER};
use crate::tools::{log_lines, start_with_faults, wait_failed, wait_stat, wait_stored};
use std::io::Write;
use std::time::{Duration, Instant};

/// A Graphite that takes connections and nothing more.
fn stalled() -> Graphite {
    let mut graphite = Graphite::absent(false);
    graphite.set_window(4096);
    graphite.up();
    graphite.set_mode(Mode::Stall);
    graphite
}

fn start(dir: &Dir, graphite: &Graphite, more: &str, timeout: u32) -> Daemon {
    let config = format!(
        "{{ {LOCAL}, {NEVER}, shutdownTimeout: {timeout}, {more} {},
            servers: [{{ server: 'tcp', address: '127.0.0.1', port: 0 }}] }}",
        graphite.config()
    );
    let daemon = Daemon::start(dir, &config);
    let line = |n| format!("some.quite.long.name.number.{n}:1|c\n");
    daemon.send_tcp(&(0..30_000).map(line).collect::<String>());
    daemon.send_tcp("a:5|c\n");
    daemon.wait_received(30_001);
    daemon
}

/// Asks for the end, which comes with 0, not before the time-out and not long after.
fn stop(daemon: &mut Daemon) {
    let start = Instant::now();
    daemon.stop();
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(1400), "gave up at {took:?}");
    assert!(took < Duration::from_millis(4500), "hung on for {took:?}");
}

fn bytes_in(line: &str) -> usize {
    let words: Vec<&str> = line.split(' ').collect();
    let at = words.iter().position(|word| *word == "bytes").unwrap();
    words[at - 1].parse().unwrap()
}

#[test]
fn a_stalled_graphite_does_not_hold_up_the_end() {
    let (dir, graphite) = (Dir::new(), stalled());
    let mut daemon = start(&dir, &graphite, "", 1500);
    stop(&mut daemon);
    let line = daemon.wait_line("could not be delivered within shutdownTimeout and are lost");
    // Two lines a name of some 40 bytes.
    assert!(bytes_in(&line) > 2_000_000, "{line}");
}

#[test]
fn a_dead_graphite_does_not_hold_up_the_end() {
    let (dir, graphite) = (Dir::new(), Graphite::absent(false));
    let mut daemon = start(&dir, &graphite, "", 1500);
    stop(&mut daemon);
    let line = daemon.wait_line("could not be delivered within shutdownTimeout and are lost");
    assert!(bytes_in(&line) > 2_000_000, "{line}");
}

/// With a state file the last flush outlives the outage and the restart, under its own timestamp.
#[test]
fn what_the_end_could_not_deliver_the_next_start_does() {
    let (dir, graphite) = (Dir::new(), stalled());
    let mut daemon = start(&dir, &graphite, "stateFile: 'state',", 1500);
    stop(&mut daemon);
    let line = daemon.wait_line("the state file keeps them");
    assert!(bytes_in(&line) > 2_000_000, "{line}");
    assert_eq!(log_lines(&daemon, "are lost"), 0);
    graphite.set_mode(Mode::Take);
    graphite.release();
    let config = dir.read("statsd.js");
    let mut next = Daemon::start(&dir, &config);
    let stored = wait_stored(&graphite, "stats_counts.a", 5.0);
    assert_eq!(stored.len(), 1);
    next.stop();
    // Delivered, and so not kept once more.
    graphite.set_mode(Mode::Take);
    let flushes = graphite.flushes().len();
    let mut last = Daemon::start(&dir, &config);
    last.stop();
    assert_eq!(graphite.flushes().len(), flushes + 1, "its own flush alone");
}

/// A second signal, and Graphite is not waited for any longer.
#[test]
fn a_second_signal_ends_the_wait_for_a_dead_graphite() {
    let (dir, mut graphite) = (Dir::new(), Graphite::absent(false));
    let mut daemon = start(&dir, &graphite, "stateFile: 'state',", 600_000);
    let cut_short = |daemon: &mut Daemon, signal: &str| {
        daemon.signal("TERM");
        daemon.wait_line("stopping");
        daemon.signal(signal);
        assert_eq!(daemon.wait_end(), Some(0));
    };
    cut_short(&mut daemon, "TERM");
    let line = daemon.wait_line("until the second signal; the state file keeps them");
    assert!(bytes_in(&line) > 2_000_000, "{line}");
    // Without a state file it is lost, and said so.
    let other = Dir::new();
    let mut lossy = start(&other, &graphite, "", 600_000);
    cut_short(&mut lossy, "INT");
    let line = lossy.wait_line("until the second signal and are lost");
    assert!(bytes_in(&line) > 2_000_000, "{line}");
    graphite.up();
    let mut next = Daemon::start(&dir, &dir.read("statsd.js"));
    wait_stored(&graphite, "stats_counts.a", 5.0);
    next.stop();
}

/// Some send each signal twice; what Graphite takes at once it gets all the same.
#[test]
fn two_signals_at_once_lose_nothing() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    // So slow that the second one comes in the midst of it.
    graphite.set_mode(Mode::Trickle {
        bytes: 65536,
        pause: Duration::from_millis(2),
    });
    let mut daemon = start(&dir, &graphite, "", 600_000);
    daemon.signal("TERM");
    daemon.wait_line("stopping");
    daemon.signal("TERM");
    assert_eq!(daemon.wait_end(), Some(0));
    wait_stored(&graphite, "stats_counts.a", 5.0);
    assert_eq!(log_lines(&daemon, "could not be"), 0);
}

/// Clients that came, sent and left, and that nobody had time to accept before the end was asked for.
#[test]
fn what_waits_to_be_accepted_counts_too() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!(
        "{{ {LOCAL}, {NEVER}, {},
            servers: [{{ server: 'tcp', address: '127.0.0.1', port: 0 }}] }}",
        graphite.config()
    );
    let mut daemon = Daemon::start(&dir, &config);
    daemon.signal("STOP");
    for _ in 0..100 {
        daemon.send_tcp("a:1|c\na:2|c\n");
    }
    daemon.signal("TERM");
    daemon.signal("CONT");
    assert_eq!(daemon.wait_end(), Some(0));
    wait_stored(&graphite, "stats_counts.a", 300.0);
}

/// Short of memory at the very end: what is queued is asked for again.
#[test]
fn no_room_to_receive_at_the_end() {
    for errno in [libc::ENOBUFS, libc::ENOMEM, libc::EINTR] {
        let (dir, graphite) = (Dir::new(), Graphite::text());
        let config = format!(
            "{{ {LOCAL}, {NEVER}, shutdownTimeout: 60000, {} }}",
            graphite.config()
        );
        let (mut daemon, faults) = start_with_faults(&dir, &config);
        faults.fail(Call::Recvmmsg, libc::ENOBUFS, ALWAYS);
        (0..10).for_each(|_| daemon.send("a:1|c"));
        daemon.signal("TERM");
        daemon.wait_line("stopping");
        let failed = faults.failed(Call::Recvmmsg);
        faults.fail(Call::Recvmmsg, errno, 3);
        wait_failed(&faults, Call::Recvmmsg, failed + 3);
        assert_eq!(daemon.wait_end(), Some(0));
        wait_stored(&graphite, "stats_counts.a", 10.0);
    }
}

/// The last flush has the figures of all that was read and refused, to the very end.
#[test]
fn the_last_flush_tells_of_the_last_reading() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!(
        "{{ {LOCAL}, {NEVER}, maxLineBytes: 100, maxTcpClients: 1, {},
            servers: [{{ server: 'tcp', address: '127.0.0.1', port: 0 }}] }}",
        graphite.config()
    );
    let mut daemon = Daemon::start(&dir, &config);
    let mut client = daemon.tcp();
    client.write_all(b"a:1|c\n").unwrap();
    daemon.wait_received(1);
    let _refused = daemon.tcp();
    wait_stat(&daemon, "server.refused_clients", |count| count == 1.0);
    daemon.signal("STOP");
    let long = "x".repeat(200);
    client
        .write_all(format!("{long}\na:1|c\n{long}").as_bytes())
        .unwrap();
    daemon.signal("TERM");
    daemon.signal("CONT");
    assert_eq!(daemon.wait_end(), Some(0));
    wait_stored(&graphite, "stats_counts.a", 2.0);
    for (name, value) in [
        ("stats_counts.statsd.metrics_received", 4.0),
        ("stats_counts.statsd.bad_lines_seen", 2.0),
        ("stats.statsd.server.refused_clients", 1.0),
        ("stats.statsd.server.clients", 0.0),
    ] {
        assert_eq!(graphite.sum(name), value, "{name}");
    }
}
