//! Bad input: counted, logged a little, harmless to all else. What killed the original is in it.

use crate::common::daemon::Daemon;
use crate::common::graphite::Graphite;
use crate::common::{Dir, LOCAL, NEVER, udp_socket};
use std::net::Ipv4Addr;

#[test]
fn a_bad_line_is_counted_logged_and_harms_nothing_else() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!("{{ {LOCAL}, {NEVER}, {} }}", graphite.config());
    let mut daemon = Daemon::start(&dir, &config);
    daemon.send("a:1|c\nnonsense\nb:x|c\na:2|c\nt:-1|ms\nc:1|c:bad|c:2|c");
    daemon.wait_received(6);
    let line = daemon.wait_line("in msg \"nonsense\"");
    assert!(line.contains("Bad line: "), "{line}");
    daemon.wait_line("in msg \"b:x|c\"");
    assert_eq!(daemon.console().counter("statsd.bad_lines_seen"), Some(4.0));
    daemon.stop();
    assert_eq!(graphite.sum("stats_counts.a"), 3.0);
    assert_eq!(graphite.sum("stats_counts.c"), 3.0);
    assert_eq!(graphite.sum("stats_counts.statsd.bad_lines_seen"), 4.0);
    assert!(graphite.values("stats_counts.b").is_empty());
    assert!(graphite.values("stats.timers.t.count").is_empty());
}

#[test]
fn a_flood_of_bad_lines_is_logged_a_little() {
    const BAD: u64 = 10_000;
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!(
        "{{ {LOCAL}, server: 'tcp', {NEVER}, {} }}",
        graphite.config()
    );
    let mut daemon = Daemon::start(&dir, &config);
    let mut text = String::new();
    for line in 0..BAD {
        text += &format!("bad{line}:x|c\n");
        if line % 10 == 0 {
            text += "good:1|c\n";
        }
    }
    daemon.send_tcp(&text);
    daemon.wait_received(BAD + BAD / 10);
    assert_eq!(
        daemon.console().counter("statsd.bad_lines_seen"),
        Some(BAD as f64)
    );
    daemon.stop();
    assert_eq!(graphite.sum("stats_counts.good"), BAD as f64 / 10.0);
    let logged = daemon
        .lines()
        .iter()
        .filter(|line| line.contains("Bad line"))
        .count();
    assert!(
        (1..=100).contains(&logged),
        "{logged} lines about {BAD} bad ones"
    );
}

#[test]
fn what_killed_the_original() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!("{{ {LOCAL}, {NEVER}, {} }}", graphite.config());
    let mut daemon = Daemon::start(&dir, &config);
    let bad = [
        "a:1|c|@+1",
        "a:1|c|@Infinity",
        "a:1|c|@0",
        "a:1e400|c",
        "a:0x10|c",
        "$:1|c",
        ":1|c",
    ];
    let good = [
        "__proto__:1|ms",
        "constructor:1|ms",
        "hasOwnProperty:1|s",
        "toString:1|g",
    ];
    for packet in bad.iter().chain(&good) {
        daemon.send(packet);
    }
    daemon.wait_received((bad.len() + good.len()) as u64);
    daemon.assert_running();
    daemon.stop();
    assert_eq!(
        graphite.sum("stats_counts.statsd.bad_lines_seen"),
        bad.len() as f64
    );
    assert!(graphite.values("stats_counts.a").is_empty());
    assert_eq!(graphite.sum("stats.timers.__proto__.count"), 1.0);
    assert_eq!(graphite.sum("stats.timers.constructor.count"), 1.0);
    assert_eq!(graphite.sum("stats.sets.hasOwnProperty.count"), 1.0);
    assert_eq!(graphite.sum("stats.gauges.toString"), 1.0);
}

#[test]
fn a_sum_that_overflows_is_not_sent() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!("{{ {LOCAL}, {NEVER}, {} }}", graphite.config());
    let mut daemon = Daemon::start(&dir, &config);
    daemon.send("big:1e308|c\nbig:1e308|c\nt:1e308|ms\nt:1e308|ms\ng:1e308|g\ng:+1e308|g\nok:1|c");
    daemon.wait_received(7);
    daemon.console().json("counters");
    daemon.console().json("gauges");
    daemon.stop();
    // The fake refuses what is not finite; the rest must be there.
    assert_eq!(graphite.sum("stats_counts.ok"), 1.0);
    assert!(graphite.values("stats_counts.big").is_empty());
    assert!(graphite.values("stats.timers.t.sum").is_empty());
    assert_eq!(graphite.sum("stats.timers.t.upper"), 1e308);
}

#[test]
fn bytes_that_are_no_text() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!(
        "{{ {LOCAL}, {NEVER}, dumpMessages: true, {} }}",
        graphite.config()
    );
    let mut daemon = Daemon::start(&dir, &config);
    let sender = udp_socket(Ipv4Addr::LOCALHOST);
    let packets: [&[u8]; 5] = [
        b"a\xff\xfe:1|c",
        b"\x00\x01\x02\x03",
        b"s:\xc3\x28\xf0|s",
        b"b:1|c\xff",
        b"\x1b[2Jred\x07:x|c",
    ];
    for packet in packets {
        sender.send_to(packet, daemon.address("udp")).unwrap();
    }
    daemon.wait_received(packets.len() as u64);
    daemon.console().json("counters");
    daemon.stop();
    assert_eq!(
        graphite.sum("stats_counts.a"),
        1.0,
        "what is no letter is dropped from a name"
    );
    assert_eq!(graphite.sum("stats.sets.s.count"), 1.0);
    let raw = daemon
        .lines()
        .into_iter()
        .find(|line| line.contains(['\x1b', '\x07', '\0']));
    assert_eq!(
        raw, None,
        "a log line must not carry a sender's control characters"
    );
}
