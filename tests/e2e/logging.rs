//! What it writes: `dumpMessages`, `debug`, `keyFlush`, the ready line.

use crate::common::daemon::{Daemon, command};
use crate::common::graphite::Graphite;
use crate::common::{Dir, LOCAL, NEVER, wait_until};

#[test]
fn dump_messages_logs_each_line() {
    let dir = Dir::new();
    let quiet = format!("{LOCAL}, {NEVER}, backends: []");
    let mut daemon = Daemon::start(&dir, &format!("{{ {quiet}, dumpMessages: true }}"));
    daemon.send("a.b:1|c|@0.5|#k:v\nsecond:2|ms\n");
    daemon.wait_received(2);
    daemon.wait_line("a.b:1|c|@0.5|#k:v");
    daemon.wait_line("second:2|ms");
    daemon.stop();
    let both = daemon
        .lines()
        .into_iter()
        .find(|line| line.contains("a.b") && line.contains("second"));
    assert_eq!(both, None, "a line each");

    let mut daemon = Daemon::start(&dir, &format!("{{ {quiet} }}"));
    daemon.send("a.b:1|c");
    daemon.wait_received(1);
    daemon.stop();
    assert_eq!(daemon.line_with("a.b:1|c"), None, "only when told so");
}

#[test]
fn debug_says_more() {
    let log = |options: &[&str], keys: &str| {
        let (dir, graphite) = (Dir::new(), Graphite::text());
        let config = format!("{{ {LOCAL}, {NEVER}, {} {keys} }}", graphite.config());
        let mut daemon = Daemon::start_with(&dir, options, &config);
        daemon.stop();
        daemon.lines().join("\n")
    };
    // The original says so of each flush. The daemon's own three counters and no gauge.
    let flush = "numStats 3";
    assert!(!log(&[], "").contains(flush));
    for (options, keys) in [
        (&[][..], ", debug: true"),
        (&["-v"], ""),
        (&["--verbose"], ""),
    ] {
        let log = log(options, keys);
        assert!(log.contains(flush), "{options:?} {keys}: {log}");
        assert!(log.contains("DEBUG"), "{options:?} {keys}: {log}");
    }
}

#[test]
fn without_debug_it_is_quiet() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!("{{ {LOCAL}, flushInterval: 100, {} }}", graphite.config());
    let mut daemon = Daemon::start(&dir, &config);
    let before = daemon.lines().len();
    daemon.send("a:1|c");
    daemon.console().ask("health", "\n");
    graphite.wait_flushes(5);
    assert_eq!(daemon.lines().len(), before, "{:#?}", daemon.lines());
    daemon.stop();
    assert!(before <= 3, "{:#?}", daemon.lines());
}

/// The name and count of a line of `keyFlush`, which begins with a date.
fn parse(line: &str) -> Option<(String, u64)> {
    let (date, rest) = line.split_once(" count=")?;
    let (count, name) = rest.split_once(" key=")?;
    assert!(date.len() >= 10, "a date first: {line}");
    Some((name.to_owned(), count.parse().unwrap()))
}

#[test]
fn key_flush_to_a_file() {
    let dir = Dir::new();
    dir.write("keys.log", "what was there\n");
    let log = dir.text_path("keys.log");
    let config = format!(
        "{{ {LOCAL}, {NEVER}, backends: [], keyFlush: {{ interval: 100, log: '{log}' }} }}"
    );
    let mut daemon = Daemon::start(&dir, &config);
    // One datagram is one turn, so its names fall into one interval.
    daemon.send("often:1|c\noften:1|ms\nonce:1|c\noften:1|g\ntwice:1|c\ntwi ce:1|c\ntwice:1|c");
    let found = wait_until("the names", || {
        let found: Vec<_> = dir.read("keys.log").lines().filter_map(parse).collect();
        (found.len() >= 4).then_some(found)
    });
    let named = |name: &str, count| (name.to_owned(), count);
    assert_eq!(
        found[..2],
        [named("often", 3), named("twice", 2)],
        "the most frequent first"
    );
    let mut rest = found[2..].to_vec();
    rest.sort();
    assert_eq!(rest, [named("once", 1), named("twi_ce", 1)]);
    daemon.send("often:1|c");
    wait_until("the next interval", || {
        let last = dir.read("keys.log").lines().filter_map(parse).nth(4);
        last.map(|last| assert_eq!(last, named("often", 1), "counts start anew"))
    });
    daemon.stop();
    assert!(
        dir.read("keys.log").starts_with("what was there\n"),
        "appended"
    );
}

#[test]
fn key_flush_of_a_part_to_stdout() {
    let dir = Dir::new();
    let config =
        format!("{{ {LOCAL}, {NEVER}, backends: [], keyFlush: {{ interval: 100, percent: 50 }} }}");
    let mut daemon = Daemon::start(&dir, &config);
    daemon.send("a:1|c\na:1|c\na:1|c\nb:1|c\nb:1|c\nc:1|c\nd:1|c");
    daemon.wait_line(" key=b");
    daemon.stop();
    let found: Vec<_> = daemon
        .stdout()
        .iter()
        .filter_map(|line| parse(line))
        .collect();
    assert_eq!(
        found,
        [("a".to_owned(), 3), ("b".to_owned(), 2)],
        "half of four names"
    );
}

const NAMES: usize = 100_000;

/// A daemon that has counted [`NAMES`] names and begins to report them: a reload of `keyFlush` forgets
/// none.
fn report_many(dir: &Dir, log: &str) -> Daemon {
    let config = |interval| {
        format!(
            "{{ {LOCAL}, {NEVER}, backends: [], keyFlush: {{ interval: {interval}, {log} }},
                servers: [{{ server: 'tcp', address: '127.0.0.1', port: 0 }}] }}"
        )
    };
    let daemon = Daemon::start(dir, &config(3_600_000));
    let lines: String = (0..NAMES).map(|n| format!("name.{n}:1|c\n")).collect();
    daemon.send_tcp(&lines);
    daemon.wait_received(NAMES as u64);
    dir.replace("statsd.js", &config(1));
    daemon.signal("HUP");
    daemon
}

/// The names in the order they came in, as all are as frequent.
#[track_caller]
fn all_names(lines: impl Iterator<Item = String>) {
    let found: Vec<_> = lines.filter_map(|line| parse(&line)).collect();
    assert_eq!(found.len(), NAMES);
    let expected = (0..NAMES).map(|n| (format!("name.{n}"), 1));
    assert!(expected.eq(found));
}

/// A report of many names takes many turns; the end waits for it.
#[test]
fn key_flush_of_many_names_is_completed_at_the_end() {
    let dir = Dir::new();
    let mut daemon = report_many(&dir, "log: 'keys.log'");
    wait_until("the first names", || {
        (!dir.read("keys.log").is_empty()).then_some(())
    });
    daemon.stop();
    all_names(dir.read("keys.log").lines().map(str::to_owned));
    assert_eq!(daemon.line_with("keyFlush"), None, "nothing went wrong");
}

/// More than can wait for standard output goes out as fast as it is read.
#[test]
fn key_flush_of_many_names_to_stdout_waits_for_the_reader() {
    let dir = Dir::new();
    let mut daemon = report_many(&dir, "percent: 100");
    daemon.wait_line(&format!(" key=name.{}", NAMES - 1));
    daemon.stop();
    all_names(daemon.stdout().into_iter());
    assert_eq!(daemon.line_with("lost"), None);
}

#[test]
fn the_ready_line_is_on_stdout_alone_and_once() {
    let dir = Dir::new();
    let path = dir.write(
        "statsd.js",
        &format!("{{ {LOCAL}, {NEVER}, backends: [] }}"),
    );
    let mut daemon = Daemon::launch(command(&[path.to_str().unwrap()]));
    daemon.stop();
    let ready = |lines: Vec<String>| lines.iter().filter(|l| l.contains("server is up")).count();
    assert_eq!((ready(daemon.stdout()), ready(daemon.lines())), (1, 1));
}
