//! Reload: on SIGHUP and when the file changes. What can change does so without losing a count,
//! what cannot is named, and a broken file changes nothing.

use crate::common::daemon::Daemon;
use crate::common::graphite::{Flush, Graphite, by_name};
use crate::common::{Dir, LOCAL, NEVER, wait_until};
use crate::config_errors::names_a_place;

const FILE: &str = "statsd.js";

/// A config with this threshold list and flushes of 100 ms.
fn config(graphite: &Graphite, threshold: &str, more: &str) -> String {
    let graphite = graphite.config();
    format!("{{ {LOCAL}, flushInterval: 100, {graphite}, percentThreshold: {threshold}, {more} }}")
}

/// Sends a timer until a flush has `wanted`, one of each of its values counted in `sent`.
fn send_until(daemon: &Daemon, graphite: &Graphite, sent: &mut f64, wanted: &str) {
    let from = graphite.flushes().len();
    wait_until(wanted, || {
        daemon.send("t:5|ms\nc:1|c");
        *sent += 1.0;
        let flushes = graphite.flushes();
        has(&flushes[from..], wanted).then_some(())
    });
}

fn has(flushes: &[Flush], name: &str) -> bool {
    flushes.iter().flatten().any(|point| point.name == name)
}

/// Starts with threshold 90, changes it to 50 by `change`, and accounts for everything sent.
fn check_change(more: &str, change: impl FnOnce(&Dir, &Daemon, &str)) {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let mut daemon = Daemon::start(&dir, &config(&graphite, "90", more));
    let mut sent = 0.0;
    daemon.send("g:42|g");
    send_until(&daemon, &graphite, &mut sent, "stats.timers.t.upper_90");
    change(&dir, &daemon, &config(&graphite, "[50, 99.9]", more));
    send_until(&daemon, &graphite, &mut sent, "stats.timers.t.upper_50");
    graphite.wait_sum("stats_counts.c", sent);
    daemon.stop();
    assert_eq!(graphite.sum("stats_counts.c"), sent);
    assert_eq!(graphite.sum("stats.timers.t.count"), sent);
    let flushes = graphite.flushes();
    let last = by_name(flushes.last().unwrap());
    assert_eq!(last["stats.gauges.g"], "42", "gauges live on");
    let new = flushes
        .iter()
        .position(|flush| has(std::slice::from_ref(flush), "stats.timers.t.upper_50"));
    let after = &flushes[new.unwrap()..];
    assert!(has(after, "stats.timers.t.upper_99_9"));
    assert!(
        !has(after, "stats.timers.t.upper_90"),
        "the old list is gone"
    );
}

#[test]
fn by_sighup() {
    check_change("automaticConfigReload: false", |dir, daemon, config| {
        dir.write(FILE, config);
        daemon.signal("HUP");
    });
}

#[test]
fn by_writing_the_file_in_place() {
    check_change("", |dir, _, config| {
        dir.write(FILE, config);
    });
}

#[test]
fn by_renaming_over_the_file() {
    check_change("", |dir, _, config| dir.replace(FILE, config));
}

#[test]
fn again_and_again_by_rename() {
    // The watch must follow the name, not the file that is gone.
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let mut daemon = Daemon::start(&dir, &config(&graphite, "90", ""));
    let mut sent = 0.0;
    for threshold in ["10", "20", "30"] {
        dir.replace(FILE, &config(&graphite, threshold, ""));
        let name = format!("stats.timers.t.upper_{threshold}");
        send_until(&daemon, &graphite, &mut sent, &name);
    }
    graphite.wait_sum("stats_counts.c", sent);
    daemon.stop();
}

#[test]
fn not_by_itself_when_told_so() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let off = "automaticConfigReload: false";
    let mut daemon = Daemon::start(&dir, &config(&graphite, "90", off));
    dir.write(FILE, &config(&graphite, "50", off));
    dir.replace(FILE, &config(&graphite, "50", off));
    let mut sent = 0.0;
    let from = graphite.flushes().len();
    // Two seconds of flushes.
    while graphite.flushes().len() < from + 20 {
        let flushes = graphite.flushes().len();
        daemon.send("t:5|ms\nc:1|c");
        sent += 1.0;
        graphite.wait_flushes(flushes + 1);
    }
    assert!(!has(&graphite.flushes(), "stats.timers.t.upper_50"));
    daemon.signal("HUP");
    send_until(&daemon, &graphite, &mut sent, "stats.timers.t.upper_50");
    daemon.stop();
    assert_eq!(graphite.sum("stats_counts.c"), sent);
}

/// Broken files, and what the log must then say beside the file's name: the line, or what is wrong.
const BROKEN: [(&str, Option<&str>); 4] = [
    ("{ percentThreshold: [50], flushInterval: 100", None),
    ("", None),
    ("{ percentThreshold: 'many' }", Some("percentThreshold")),
    (
        "{ percentThreshold: 50, backends: ['grafite'] }",
        Some("grafite"),
    ),
];

/// Waits for the line about a broken file.
fn wait_complaint(daemon: &Daemon, lines: usize, named: Option<&str>) {
    wait_until("a line that says what is wrong with the file", || {
        daemon
            .lines()
            .into_iter()
            .skip(lines)
            .find(|line| match named {
                Some(named) => line.contains(FILE) && line.contains(named),
                None => names_a_place(line, FILE),
            })
    });
}

#[test]
fn a_broken_file_changes_nothing_and_is_logged() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let mut daemon = Daemon::start(
        &dir,
        &config(&graphite, "90", "automaticConfigReload: false"),
    );
    let mut sent = 0.0;
    for (text, named) in BROKEN {
        let lines = daemon.lines().len();
        dir.write(FILE, text);
        daemon.signal("HUP");
        wait_complaint(&daemon, lines, named);
        let flushes = graphite.flushes().len();
        send_until(&daemon, &graphite, &mut sent, "stats.timers.t.upper_90");
        assert!(
            !has(&graphite.flushes()[flushes..], "stats.timers.t.upper_50"),
            "{text}"
        );
    }
    let lines = daemon.lines().len();
    std::fs::remove_file(dir.path(FILE)).unwrap();
    daemon.signal("HUP");
    daemon.wait_line_after(lines, FILE);
    daemon.assert_running();
    // And a good one is taken again.
    dir.write(FILE, &config(&graphite, "50", ""));
    daemon.signal("HUP");
    send_until(&daemon, &graphite, &mut sent, "stats.timers.t.upper_50");
    graphite.wait_sum("stats_counts.c", sent);
    daemon.stop();
}

/// A pipe in the file's place, by itself and on SIGHUP: the daemon does not wait for a writer.
#[test]
fn a_pipe_in_the_place_of_the_file_holds_up_nothing() {
    let dir = Dir::new();
    let text = format!("{{ {LOCAL}, {NEVER}, backends: [] }}");
    let mut daemon = Daemon::start(&dir, &text);
    let path = dir.path(FILE);
    std::fs::remove_file(&path).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let refused = |lines: usize| {
        let line = daemon.wait_line_after(lines, "not a regular file");
        assert!(line.contains(FILE), "{line}");
        let count = daemon.lines().len();
        assert!(daemon.console().ask("health", "\n").starts_with("health"));
        count
    };
    let lines = refused(0);
    daemon.signal("HUP");
    let lines = refused(lines);
    // A good file is taken again.
    dir.replace(FILE, &text);
    daemon.wait_line_after(lines, "reloaded");
    daemon.stop();
}

/// At the start a pipe will do.
#[test]
fn a_start_from_a_pipe() {
    let dir = Dir::new();
    dir.write("whole.js", &format!("{{ {LOCAL}, {NEVER}, backends: [] }}"));
    let path = dir.text_path("pipe");
    let mut command = std::process::Command::new("sh");
    let program = crate::common::daemon::STATSD;
    let script = format!("mkfifo {path}; cat whole.js > {path} & exec {program} {path}");
    command.args(["-c", &script]).current_dir(dir.root());
    Daemon::launch(command).stop();
}

#[test]
fn a_file_broken_by_its_editor_is_logged_and_read_again_when_mended() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let mut daemon = Daemon::start(&dir, &config(&graphite, "90", ""));
    let mut sent = 0.0;
    let lines = daemon.lines().len();
    dir.write(FILE, "{ percentThreshold: ");
    wait_complaint(&daemon, lines, None);
    send_until(&daemon, &graphite, &mut sent, "stats.timers.t.upper_90");
    dir.write(FILE, &config(&graphite, "50", ""));
    send_until(&daemon, &graphite, &mut sent, "stats.timers.t.upper_50");
    graphite.wait_sum("stats_counts.c", sent);
    daemon.stop();
}

#[test]
fn a_key_that_needs_a_restart_is_named() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let mut daemon = Daemon::start(&dir, &config(&graphite, "90", ""));
    let port = daemon.address("udp").port();
    let lines = daemon.lines().len();
    // Another free port, so that nothing else could be wrong with it.
    let free = crate::common::udp_socket(std::net::Ipv4Addr::LOCALHOST)
        .local_addr()
        .unwrap()
        .port();
    let changed = config(&graphite, "50", "").replacen("port: 0", &format!("port: {free}"), 1);
    dir.write(FILE, &changed);
    daemon.signal("HUP");
    let line = daemon.wait_line_after(lines, "restart");
    assert!(line.contains("port"), "it must name the key: {line}");
    // The rest of the change is live, and the old port serves.
    let mut sent = 0.0;
    send_until(&daemon, &graphite, &mut sent, "stats.timers.t.upper_50");
    assert_eq!(daemon.address("udp").port(), port);
    daemon.stop();
}

#[test]
fn graphite_moves_house() {
    let (dir, old, new) = (Dir::new(), Graphite::text(), Graphite::pickle());
    let mut daemon = Daemon::start(&dir, &config(&old, "90", ""));
    daemon.send("c:1|c");
    old.wait_sum("stats_counts.c", 1.0);
    dir.write(FILE, &config(&new, "90", ""));
    daemon.signal("HUP");
    new.wait_flushes(1);
    daemon.send("c:2|c");
    new.wait_sum("stats_counts.c", 2.0);
    daemon.stop();
    assert_eq!(old.sum("stats_counts.c"), 1.0);
    assert_eq!(new.sum("stats_counts.c"), 2.0);
}

#[test]
fn the_interval_changes() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let slow = config(&graphite, "90", "").replace("flushInterval: 100", "flushInterval: 3600000");
    let mut daemon = Daemon::start(&dir, &slow);
    daemon.send("c:1|c");
    daemon.wait_received(1);
    dir.write(FILE, &config(&graphite, "90", ""));
    daemon.signal("HUP");
    graphite.wait_flushes(3);
    daemon.stop();
    assert_eq!(graphite.sum("stats_counts.c"), 1.0);
}

#[test]
fn most_keys_change_live() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let base = format!("{LOCAL}, {NEVER}, automaticConfigReload: false");
    let before = format!("{{ {base}, {} }}", graphite.config());
    let mut daemon = Daemon::start(&dir, &before);
    daemon.send("a b:1|c\nt:5|ms\nt:15|ms\ng:1|g");
    daemon.wait_received(4);
    assert_eq!(daemon.line_with("a b:1|c"), None);

    let both = graphite
        .config()
        .replace("backends: [", "backends: ['console', ");
    dir.write(
        FILE,
        &format!(
            "{{ {base}, {both}, dumpMessages: true, debug: true, flush_counts: false,
            prefixStats: 'me', keyNameSanitize: false, histogram: [{{ metric: 't', bins: [10] }}],
            calculatedTimerMetrics: ['upper_percent', 'histogram', 'count'],
            percentThreshold: 50, keyFlush: {{ interval: 100 }}, mgmtIdleTimeout: 100,
            graphite: {{ legacyNamespace: false, globalPrefix: 'top', globalSuffix: 'x' }} }}"
        ),
    );
    let mut silent = daemon.console();
    daemon.signal("HUP");
    daemon.wait_line("reloaded");
    assert_eq!(silent.read_to_close(), "", "mgmtIdleTimeout");
    daemon.send("a/b:1|c\nt:25|ms\ng:+1|g");
    daemon.wait_line("a/b:1|c");
    daemon.wait_line("count=1 key=a/b");
    daemon.stop();
    daemon.wait_line("numStats");
    assert_eq!(daemon.wait_flushes(1).len(), 1, "the console backend");
    assert_eq!(daemon.line_with("restart"), None);

    let flush = &by_name(&graphite.flushes()[0]);
    for (name, value) in [
        // Before and after the reload alike: nothing is lost, in whichever name it was counted.
        ("top.counters.a_b.rate.x", "0.0002777777777777778"),
        ("top.counters.a-b.rate.x", "0.0002777777777777778"),
        (
            "top.counters.statsd.metrics_received.rate.x",
            "0.0011111111111111111",
        ),
        (
            "top.counters.me.metrics_received.rate.x",
            "0.0008333333333333334",
        ),
        ("top.gauges.g.x", "2"),
        ("top.timers.t.count.x", "3"),
        ("top.timers.t.upper_50.x", "15"),
        ("top.timers.t.histogram.bin_10.x", "1"),
        ("top.me.numStats.x", "10"),
    ] {
        assert_eq!(
            flush.get(name).map(String::as_str),
            Some(value),
            "{name} in {flush:#?}"
        );
    }
    let unwanted = ["top.counters.a_b.count.x", "top.timers.t.sum.x"];
    assert!(!unwanted.iter().any(|name| flush.contains_key(*name)));
}

#[test]
fn verbose_outlives_a_reload() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!("{{ {LOCAL}, {NEVER}, {} }}", graphite.config());
    let mut daemon = Daemon::start_with(&dir, &["-v"], &config);
    daemon.signal("HUP");
    daemon.wait_line("reloaded");
    daemon.stop();
    daemon.wait_line("numStats");
}
