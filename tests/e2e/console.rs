//! The console backend: a line that says when, then one JSON object, a flush.

use crate::common::daemon::{Daemon, STATSD};
use crate::common::{Dir, LOCAL, NEVER, signal, skipped, wait_until};
use crate::process::Detached;
use std::process::Command;

const CONSOLE: &str = "backends: ['./backends/console']";

#[test]
fn each_flush_is_one_json_object() {
    let dir = Dir::new();
    let mut daemon = Daemon::start(&dir, &format!("{{ {LOCAL}, {NEVER}, {CONSOLE} }}"));
    daemon.send("c:3|c\nt:10|ms\nt:30|ms\ng:-7.5|g\ns:b|s\ns:a \"q\"|s\ntagged;k=v:1|c");
    daemon.wait_received(7);
    daemon.stop();
    let flushes = daemon.wait_flushes(1);
    assert_eq!(flushes.len(), 1);
    let flush = &flushes[0];
    assert_eq!(flush.at("counters").at("c").number(), Some(3.0));
    assert_eq!(flush.at("counters").at("tagged;k=v").number(), Some(1.0));
    assert_eq!(
        flush.at("counters").at("statsd.metrics_received").number(),
        Some(7.0)
    );
    assert_eq!(
        flush.at("counter_rates").at("c").number(),
        Some(3.0 / 3600.0)
    );
    assert_eq!(flush.at("gauges").at("g").number(), Some(-7.5));
    let values: Vec<_> = flush
        .at("timers")
        .at("t")
        .items()
        .iter()
        .map(|v| v.number())
        .collect();
    assert_eq!(values, [Some(10.0), Some(30.0)]);
    let data = flush.at("timer_data").at("t");
    assert_eq!(data.at("mean").number(), Some(20.0));
    assert_eq!(data.at("upper_90").number(), Some(30.0));
    let mut members: Vec<_> = flush
        .at("sets")
        .at("s")
        .items()
        .iter()
        .map(|v| v.text())
        .collect();
    members.sort_unstable();
    assert_eq!(members, [Some("a \"q\""), Some("b")]);
    assert_eq!(flush.at("pctThreshold").items()[0].number(), Some(90.0));
}

#[test]
fn counts_are_right_over_many_flushes() {
    let dir = Dir::new();
    let mut daemon = Daemon::start(
        &dir,
        &format!("{{ {LOCAL}, flushInterval: 100, {CONSOLE} }}"),
    );
    for sent in 1..=10 {
        daemon.send("c:1|c");
        daemon.wait_flushes(sent);
    }
    daemon.stop();
    let flushes = daemon.console_flushes();
    let counts = flushes
        .iter()
        .filter_map(|flush| flush.at("counters").get("c"));
    assert_eq!(counts.filter_map(|count| count.number()).sum::<f64>(), 10.0);
    let dates: Vec<_> = daemon
        .stdout()
        .into_iter()
        .filter(|line| line.contains("Flushing stats at"))
        .collect();
    assert_eq!(dates.len(), flushes.len(), "one such line for each object");
    assert!(dates[0].contains("20"), "it says when: {}", dates[0]);
}

#[test]
fn no_colour_where_stdout_is_no_terminal() {
    let dir = Dir::new();
    let config = format!("{{ {LOCAL}, {NEVER}, {CONSOLE}, console: {{ prettyprint: true }} }}");
    let mut daemon = Daemon::start(&dir, &config);
    daemon.send("c:3|c\nt:10|ms\ng:1|g\ns:b|s");
    daemon.wait_received(4);
    daemon.stop();
    assert!(
        !daemon.lines().iter().any(|line| line.contains('\x1b')),
        "colour codes"
    );
    let flush = &daemon.wait_flushes(1)[0];
    assert_eq!(flush.at("counters").at("c").number(), Some(3.0));
}

#[test]
fn prettyprint_is_in_colour_on_a_terminal() {
    let dir = Dir::new();
    let config =
        format!("{{ {LOCAL}, flushInterval: 100, {CONSOLE}, console: {{ prettyprint: true }} }}");
    let (file, pidfile) = (dir.write("statsd.js", &config), dir.text_path("pid"));
    // It runs a command on a terminal of its own, and hands on what comes out of it.
    let mut script = Command::new("script");
    let line = format!("{STATSD} -p {pidfile} {}", file.display());
    script.args(["-qec", &line, "/dev/null"]);
    if Command::new("script").arg("--version").output().is_err() {
        return skipped("no script(1) here");
    }
    let mut terminal = Daemon::launch(script);
    let daemon = Detached::from_pidfile(&dir);
    let coloured = "\x1b[36m\"counters\"\x1b[39m: {";
    terminal.wait_line(coloured);
    terminal.wait_line("\"statsd.bad_lines_seen\"\x1b[39m: \x1b[33m0\x1b[39m,");
    signal(daemon.0, "TERM");
    assert_eq!(terminal.wait_end(), Some(0));
}

/// More than a pipe holds: the end waits until the reader has all of the last flush.
#[test]
fn the_last_flush_is_whole_however_slowly_it_is_read() {
    let dir = Dir::new();
    let (config, pidfile) = (
        format!("{{ {LOCAL}, {NEVER}, {CONSOLE} }}"),
        dir.text_path("pid"),
    );
    let file = dir.write("statsd.js", &config);
    // Its reader begins when it is told to.
    let go = dir.text_path("go");
    let mut shell = Command::new("sh");
    let until_up =
        "while read -r l; do echo \"$l\"; case $l in *'server is up'*) break;; esac; done";
    let reader = format!("{until_up}; until [ -e '{go}' ]; do sleep 0.05; done; cat");
    let line = format!(
        "'{STATSD}' -p '{pidfile}' '{}' | {{ {reader}; }}",
        file.display()
    );
    shell.args(["-c", &line]);
    let mut daemon = Daemon::launch(shell);
    let names: Vec<String> = (0..4000)
        .map(|n| format!("a.rather.long.name.{n}:1|c"))
        .collect();
    names
        .chunks(100)
        .for_each(|lines| daemon.send(&lines.join("\n")));
    daemon.wait_received(4000);
    let process = Detached::from_pidfile(&dir);
    signal(process.0, "TERM");
    // It is still there when it has had more turns than the flush takes.
    let mut console = daemon.console();
    wait_until("the beginning of the end", || {
        (console.ask("health", "\n") == "health: down\n").then_some(())
    });
    (0..50).for_each(|_| drop(console.ask("health", "\n")));
    dir.write("go", "");
    assert_eq!(daemon.wait_end(), Some(0));
    let flush = &daemon.wait_flushes(1)[0];
    let last = flush.at("counter_rates").get("a.rather.long.name.3999");
    assert!(last.is_some());
}
