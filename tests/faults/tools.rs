//! What the tests of faults share.

use crate::common::daemon::{Daemon, STATSD, command};
use crate::common::graphite::Graphite;
use crate::common::inject::{Call, Faults};
use crate::common::{DEADLINE, Dir, LOCAL, NEVER, skipped, wait_until};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Keys for a server of each kind.
pub const BOTH: &str = "servers: [{ server: 'udp', address: '127.0.0.1', port: 0 },
    { server: 'tcp', address: '127.0.0.1', port: 0 }]";

/// That of [`NEVER`]: so long that only [`Faults::pass`] brings a flush about.
pub const INTERVAL: Duration = Duration::from_secs(3600);

/// A daemon that flushes to this Graphite when the test makes an [`INTERVAL`] pass; `keys` for more of
/// its config.
#[track_caller]
pub fn start_by_hand(dir: &Dir, graphite: &Graphite, keys: &str) -> (Daemon, Faults) {
    let config = format!("{{ {LOCAL}, {NEVER}, {}, {keys} }}", graphite.config());
    start_with_faults(dir, &config)
}

/// Ticks of processor time that it has taken, 10 ms each.
pub fn ticks(daemon: &Daemon) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let (_, rest) = text.rsplit_once(')').unwrap();
    let fields: Vec<f64> = rest.split_whitespace().flat_map(str::parse).collect();
    // utime and stime: fields 14 and 15, behind pid, name and state.
    fields[10] + fields[11]
}

/// A daemon whose clocks and calls the test has in hand.
#[track_caller]
pub fn start_with_faults(dir: &Dir, config: &str) -> (Daemon, Faults) {
    let faults = Faults::new(dir.root());
    dir.write("statsd.js", config);
    let mut command = faults.with(command(&["statsd.js"]));
    command.current_dir(dir.root());
    (Daemon::launch(command), faults)
}

/// Waits until a call has failed so many times since the start.
#[track_caller]
pub fn wait_failed(faults: &Faults, call: Call, count: u64) {
    wait_until(&format!("{call:?} to fail {count} times"), || {
        (faults.failed(call) >= count).then_some(())
    });
}

/// What Graphite has stored of a name: one value for each timestamp, the last one written.
pub fn stored(graphite: &Graphite, name: &str) -> BTreeMap<u64, f64> {
    let flushes = graphite.flushes();
    let points = flushes.iter().flatten().filter(|point| point.name == name);
    points
        .map(|point| (point.timestamp, point.value.parse().unwrap()))
        .collect()
}

/// Waits until the sum over all timestamps has come to `expected`; beyond it is a failure.
#[track_caller]
pub fn wait_stored(graphite: &Graphite, name: &str, expected: f64) -> BTreeMap<u64, f64> {
    let end = Instant::now() + DEADLINE;
    loop {
        let stored = stored(graphite, name);
        let sum: f64 = stored.values().sum();
        assert!(sum <= expected, "{name}: {sum} of {expected}: {stored:?}");
        if sum == expected {
            return stored;
        }
        assert!(
            Instant::now() < end,
            "{name}: only {sum} of {expected}: {stored:?}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

/// A figure of the console's `stats`.
#[track_caller]
pub fn stat(daemon: &Daemon, name: &str) -> f64 {
    let stats = daemon.console().ask("stats", "END\n\n");
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let text = line.unwrap_or_else(|| panic!("no {name} in {stats}"));
    text.parse().unwrap()
}

/// Waits until a figure of `stats` is as wanted.
#[track_caller]
pub fn wait_stat(daemon: &Daemon, name: &str, wanted: impl Fn(f64) -> bool) -> f64 {
    let end = Instant::now() + DEADLINE;
    loop {
        let value = stat(daemon, name);
        if wanted(value) {
            return value;
        }
        assert!(Instant::now() < end, "{name} stays at {value}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The lines of the log so far that contain the text.
pub fn log_lines(daemon: &Daemon, text: &str) -> usize {
    let lines = daemon.lines();
    lines.iter().filter(|line| line.contains(text)).count()
}

/// Waits until the log has the text, and fails if it has it more than once.
#[track_caller]
pub fn said_once(daemon: &Daemon, text: &str) {
    daemon.wait_line(text);
    assert_eq!(log_lines(daemon, text), 1, "{text}");
}

/// The console's answer and how long it took.
#[track_caller]
pub fn answer_time(daemon: &Daemon) -> Duration {
    let asked = Instant::now();
    let answer = daemon.console().ask("health", "\n");
    assert!(answer.starts_with("health: "), "{answer}");
    asked.elapsed()
}

pub fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Runs one of this program's ignored tests in namespaces of its own (`--net`, `--mount`). `false` where
/// that is not possible, after saying so.
#[track_caller]
pub fn in_namespace(kinds: &[&str], test: &str) -> bool {
    let possible = Command::new("unshare").args(kinds).arg("true").output();
    if !is_root() || !possible.is_ok_and(|output| output.status.success()) {
        skipped(&format!("{test} needs root and unshare {kinds:?}"));
        return false;
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(kinds)
        .arg(program)
        .args(["--ignored", "--exact", "--nocapture", test])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "in {kinds:?}:\n{text}");
    assert!(text.contains("1 passed"), "no test {test}:\n{text}");
    true
}

/// Runs a command that must succeed.
#[track_caller]
pub fn must(command: &str) {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
}

/// A copy of the program that every user may run. Made by another process: as long as one of ours had it
/// open for writing, a test beside this one could fork, and the copy would be busy.
#[track_caller]
pub fn program_for_all(dir: &Dir) -> PathBuf {
    let program = dir.text_path("statsd");
    must(&format!("cp {STATSD} {program} && chmod 755 {program}"));
    PathBuf::from(program)
}
