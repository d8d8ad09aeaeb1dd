//! What it takes: one thread, little memory, a small binary. The figures hold for the release
//! build alone, so `cargo test --release --test e2e footprint` is what shows them.

use crate::common::daemon::{Daemon, STATSD};
use crate::common::graphite::Graphite;
use crate::common::{Dir, LOCAL, NEVER, skipped, status_field};
use std::fs;

/// Resident at idle.
const RESIDENT_KIB: u64 = 3 * 1024;

/// The binary, stripped.
const BINARY_BYTES: u64 = 2_000_000;

#[test]
fn one_thread() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    // A name and not an address, so that the look-up is in it too.
    let keys = graphite
        .config()
        .replace("graphiteHost: '127.0.0.1'", "graphiteHost: 'localhost'");
    let mut daemon = Daemon::start(&dir, &format!("{{ {LOCAL}, flushInterval: 100, {keys} }}"));
    for sent in 1..=5 {
        daemon.send("a:1|c");
        graphite.wait_sum("stats_counts.a", f64::from(sent));
        assert_eq!(status_field(daemon.pid(), "Threads:"), 1);
    }
    daemon.stop();
}

#[test]
fn little_memory_when_idle() {
    if cfg!(debug_assertions) {
        return skipped("the figure is for the release build");
    }
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!("{{ {LOCAL}, flushInterval: 100, {} }}", graphite.config());
    let mut daemon = Daemon::start(&dir, &config);
    graphite.wait_flushes(3);
    let resident = status_field(daemon.pid(), "VmRSS:");
    println!("resident when idle: {resident} KiB");
    assert!(
        resident <= RESIDENT_KIB,
        "{resident} KiB resident when idle"
    );
    daemon.stop();
}

#[test]
fn buffers_are_allocated_once() {
    let dir = Dir::new();
    let config = format!("{{ {LOCAL}, {NEVER}, server: 'tcp', backends: [] }}");
    let mut daemon = Daemon::start(&dir, &config);
    let lines = "a:1|c\n".repeat(20_000);
    daemon.send_tcp(&lines);
    daemon.wait_received(20_000);
    let before = status_field(daemon.pid(), "VmRSS:");
    for round in 2..=20 {
        daemon.send_tcp(&lines);
        daemon.wait_received(round * 20_000);
    }
    let after = status_field(daemon.pid(), "VmRSS:");
    assert!(
        after <= before + 256,
        "{before} KiB after 20,000 lines, {after} KiB after 400,000"
    );
    daemon.stop();
}

#[test]
fn small_binary() {
    if cfg!(debug_assertions) {
        return skipped("the figure is for the release build");
    }
    let size = fs::metadata(STATSD).unwrap().len();
    println!("binary: {size} bytes");
    assert!(size < BINARY_BYTES, "{size} bytes");
}
