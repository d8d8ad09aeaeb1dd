//! The graphite backend against the fake: both protocols, both namespaces, own stats, timestamps,
//! and that a flush under way stops nothing else.

use crate::common::daemon::Daemon;
use crate::common::graphite::{Graphite, Mode, by_name};
use crate::common::{Dir, LOCAL, NEVER, wait_until};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One of each type, tagged and not.
const PACKET: &str = "c:3|c\nt:10|ms\nt:20|ms\ng:7.5|g\ns:u|s\ns:v|s\nc;k=v:2|c|@0.5";

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Sends [`PACKET`] and checks the one flush, which has the interval of [`NEVER`]: an hour.
fn check_flush(graphite: &Graphite, namespace: &str, expected: &[(&str, &str)]) {
    let dir = Dir::new();
    let config = format!("{{ {LOCAL}, {NEVER}, {namespace} {} }}", graphite.config());
    let mut daemon = Daemon::start(&dir, &config);
    let before = now();
    daemon.send(PACKET);
    daemon.wait_received(7);
    daemon.stop();
    let flushes = graphite.flushes();
    assert_eq!(flushes.len(), 1, "one flush in one connection");
    for point in &flushes[0] {
        assert!((before..=now() + 1).contains(&point.timestamp), "{point:?}");
    }
    let found = by_name(&flushes[0]);
    for (name, value) in expected {
        assert_eq!(
            found.get(*name).map(String::as_str),
            Some(*value),
            "{name} in {found:#?}"
        );
    }
}

const LEGACY: &[(&str, &str)] = &[
    ("stats_counts.c", "3"),
    ("stats.c", "0.0008333333333333334"),
    ("stats_counts.c;k=v", "4"),
    ("stats.timers.t.upper_90", "20"),
    ("stats.timers.t.mean", "15"),
    ("stats.timers.t.count", "2"),
    ("stats.gauges.g", "7.5"),
    ("stats.sets.s.count", "2"),
    ("statsd.numStats", "8"),
    ("stats_counts.statsd.packets_received", "1"),
];

const NEW: &[(&str, &str)] = &[
    ("top.n.c.count.web1", "3"),
    ("top.n.c.rate.web1", "0.0008333333333333334"),
    ("top.n.c.count.web1;k=v", "4"),
    ("top.timers.t.upper_90.web1", "20"),
    ("top.gauges.g.web1", "7.5"),
    ("top.sets.s.count.web1", "2"),
    ("top.statsd.numStats.web1", "8"),
];

const NEW_KEYS: &str = "graphite: { legacyNamespace: false, globalPrefix: 'top',
    prefixCounter: 'n', globalSuffix: 'web1' },";

#[test]
fn text_in_the_legacy_namespace() {
    check_flush(&Graphite::text(), "", LEGACY);
}

#[test]
fn text_in_the_new_namespace() {
    check_flush(&Graphite::text(), NEW_KEYS, NEW);
}

#[test]
fn pickle_in_the_legacy_namespace() {
    check_flush(&Graphite::pickle(), "", LEGACY);
}

#[test]
fn pickle_in_the_new_namespace() {
    check_flush(&Graphite::pickle(), NEW_KEYS, NEW);
}

#[test]
fn no_count_is_lost_or_doubled_over_many_flushes() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!("{{ {LOCAL}, flushInterval: 100, {} }}", graphite.config());
    let mut daemon = Daemon::start(&dir, &config);
    let mut sent = 0.0;
    while graphite.flushes().len() < 10 {
        daemon.send("a:1|c\nt:1|ms");
        sent += 1.0;
        graphite.wait_sum("stats_counts.a", sent);
    }
    daemon.stop();
    assert_eq!(graphite.sum("stats_counts.a"), sent);
    assert_eq!(graphite.sum("stats.timers.t.count"), sent);
    assert_eq!(
        graphite.sum("stats_counts.statsd.metrics_received"),
        2.0 * sent
    );
}

#[test]
fn flushes_keep_to_the_interval() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!("{{ {LOCAL}, flushInterval: 200, {} }}", graphite.config());
    let start = Instant::now();
    let mut daemon = Daemon::start(&dir, &config);
    graphite.wait_flushes(10);
    // A busy machine makes it slower, nothing makes it faster.
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(1900),
        "10 flushes of 200 ms in {took:?}"
    );
    let flushes = graphite.flushes();
    assert!(!by_name(&flushes[0]).contains_key("stats.gauges.statsd.timestamp_lag"));
    assert!(by_name(&flushes[1]).contains_key("stats.gauges.statsd.timestamp_lag"));
    daemon.stop();
}

#[test]
fn own_stats_tell_of_the_last_flush() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!("{{ {LOCAL}, flushInterval: 100, {} }}", graphite.config());
    let mut daemon = Daemon::start(&dir, &config);
    let flushes = graphite.wait_flushes(3);
    let (first, third) = (by_name(&flushes[0]), by_name(&flushes[2]));
    let own = |name: &str| format!("stats.statsd.graphiteStats.{name}");
    for name in [
        "calculationtime",
        "last_exception",
        "last_flush",
        "flush_time",
        "flush_length",
    ] {
        assert!(first.contains_key(&own(name)), "{name} in {first:#?}");
    }
    assert!(first.contains_key("stats.statsd.processing_time"));
    let length: f64 = third[&own("flush_length")].parse().unwrap();
    assert!(length > 100.0, "bytes of the flush before: {length}");
    let last: u64 = third[&own("last_flush")].parse().unwrap();
    assert!(now().abs_diff(last) <= 60, "{last} is not just now");
    daemon.stop();
}

#[test]
fn without_a_host_flushes_go_nowhere_and_all_else_works() {
    let dir = Dir::new();
    let mut daemon = Daemon::start(&dir, &format!("{{ {LOCAL}, flushInterval: 100 }}"));
    daemon.send("g:1|g");
    let mut console = daemon.console();
    wait_until("the gauge", || console.json("gauges").get("g").cloned());
    // The gauge that marks the second flush.
    wait_until("two flushes", || {
        console.json("gauges").get("statsd.timestamp_lag").cloned()
    });
    daemon.stop();
}

#[test]
fn console_and_input_go_on_while_a_flush_is_under_way() {
    const NAMES: u64 = 30_000;
    let (dir, mut graphite) = (Dir::new(), Graphite::absent(false));
    graphite.set_window(4096);
    graphite.up();
    graphite.set_mode(Mode::Stall);
    let config = format!(
        "{{ {LOCAL}, flushInterval: 500, {},
            servers: [{{ server: 'tcp', address: '127.0.0.1', port: 0 }}] }}",
        graphite.config()
    );
    let mut daemon = Daemon::start(&dir, &config);
    let lines: String = (0..NAMES)
        .map(|n| format!("some.quite.long.name.number.{n}:1|c\n"))
        .collect();
    daemon.send_tcp(&lines);
    wait_until("a flush under way", || (graphite.open() > 0).then_some(()));
    let mut console = daemon.console();
    for _ in 0..20 {
        let asked = Instant::now();
        assert_eq!(console.ask("health", "\n"), "health: up\n");
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(2), "the console took {took:?}");
    }
    daemon.send_tcp("during:1|c\n");
    graphite.set_mode(Mode::Take);
    graphite.release();
    graphite.wait_sum("stats_counts.during", 1.0);
    daemon.assert_running();
}
