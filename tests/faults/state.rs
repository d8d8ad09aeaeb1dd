//! `stateFile` on the real binary. What is in it, and how it is read, is in the crate's own tests.

use crate::common::daemon::{Daemon, STATSD, command};
use crate::common::inject::{ALWAYS, Call, Faults};
use crate::common::{Dir, LOCAL, NEVER, alive, signal, skipped, wait_until};
use crate::tools::{
    is_root, log_lines, program_for_all, said_once, start_with_faults, wait_failed,
};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

const NOBODY: u32 = 65534;

fn config() -> String {
    format!("{{ {LOCAL}, {NEVER}, backends: [], stateFile: 'state' }}")
}

/// Tells one file from the one that took its place.
fn mark(path: &Path) -> (u64, i64, i64) {
    let file = fs::metadata(path).unwrap();
    (file.ino(), file.mtime(), file.mtime_nsec())
}

#[track_caller]
fn gauge(daemon: &Daemon, name: &str) -> Option<f64> {
    daemon.console().json("gauges").get(name)?.number()
}

#[test]
fn gauges_survive_a_restart() {
    let dir = Dir::new();
    let mut daemon = Daemon::start(&dir, &config());
    daemon.send("g:7.5|g\ng;k=v:-0.125|g\nc:1|c");
    daemon.wait_received(3);
    daemon.stop();
    let mut next = Daemon::start(&dir, &config());
    next.wait_line("2 gauges");
    assert_eq!(gauge(&next, "g"), Some(7.5));
    next.send("g:+0.5|g");
    next.wait_received(1);
    assert_eq!(gauge(&next, "g"), Some(8.0));
    next.stop();
    let last = Daemon::start(&dir, &config());
    assert_eq!(gauge(&last, "g"), Some(8.0));
    assert_eq!(gauge(&last, "g;k=v"), Some(-0.125));
}

/// Killed, it has what the file held when it was last written in slices, and nothing half.
#[test]
fn a_kill_leaves_a_whole_file() {
    let dir = Dir::new();
    let mut daemon = Daemon::start(&dir, &config());
    let lines: String = (0..100).map(|n| format!("gauge.{n}:{n}|g\n")).collect();
    daemon.send(&lines);
    daemon.wait_received(100);
    daemon.stop();
    let before = mark(&dir.path("state"));
    // A start writes it once; so the file is another one, made by the loop and its child.
    let mut killed = Daemon::start(&dir, &config());
    wait_until("the file to be replaced", || {
        (mark(&dir.path("state")) != before).then_some(())
    });
    killed.signal("KILL");
    killed.wait_end();
    let mut last = Daemon::start(&dir, &config());
    last.wait_line("100 gauges");
    assert_eq!(gauge(&last, "gauge.99"), Some(99.0));
    last.stop();
    assert!(!dir.path("state.new").exists());
}

/// A minute after it was written it is written again, while the daemon runs: killed, that is what the next
/// start has.
#[test]
fn a_kill_costs_a_minute_at_most() {
    let dir = Dir::new();
    let (mut daemon, faults) = start_with_faults(&dir, &config());
    let written = || dir.path("state").exists().then(|| mark(&dir.path("state")));
    let first = wait_until("the first file", written);
    daemon.send("g:7.5|g");
    daemon.wait_received(1);
    faults.pass(MINUTE - Duration::from_secs(30));
    assert_eq!(gauge(&daemon, "g"), Some(7.5));
    assert_eq!(written(), Some(first), "too early");
    faults.pass(Duration::from_secs(30));
    wait_until("another file", || (written() != Some(first)).then_some(()));
    daemon.signal("KILL");
    daemon.wait_end();
    let mut next = Daemon::start(&dir, &config());
    assert_eq!(gauge(&next, "g"), Some(7.5));
    next.stop();
}

/// Whatever fails on the way to a new file, the old one stays, whole; it is said once, and once when it
/// works again.
#[test]
fn a_fault_in_writing_leaves_the_old_file() {
    for (call, errno) in [
        (Call::Write, libc::ENOSPC),
        (Call::Fsync, libc::EIO),
        (Call::Rename, libc::EIO),
    ] {
        let dir = Dir::new();
        let faults = Faults::new(dir.root());
        let (mut program, own) = (PathBuf::from(STATSD), dir.path("own"));
        fs::create_dir(&own).unwrap();
        if is_root() {
            // Or its child would be without the faults.
            program = program_for_all(&dir);
            std::os::unix::fs::chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let path = dir.write("statsd.js", &config().replace("'state'", "'own/state'"));
        let mut command = faults.with(Command::new(program));
        command.arg(path).current_dir(dir.root());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut daemon = Daemon::launch(command);
        let state = dir.path("own/state");
        let first = wait_until("the first file", || state.exists().then(|| mark(&state)));
        let whole = fs::read(&state).unwrap();
        daemon.send("g:7.5|g");
        daemon.wait_received(1);
        faults.fail(call, errno, ALWAYS);
        for time in 1..=2 {
            faults.pass(MINUTE);
            wait_failed(&faults, call, time);
            daemon.wait_line("cannot write the state file");
            assert_eq!(mark(&state), first, "{call:?}");
            assert_eq!(fs::read(&state).unwrap(), whole, "{call:?}");
        }
        assert_eq!(gauge(&daemon, "g"), Some(7.5));
        said_once(&daemon, "the state file");
        faults.heal(call);
        faults.pass(MINUTE);
        daemon.wait_line("writing the state file");
        assert_ne!(mark(&state), first, "{call:?}");
        assert_eq!(log_lines(&daemon, "state file"), 3, "{call:?}");
        daemon.stop();
    }
}

#[test]
fn a_damaged_file_is_set_aside() {
    let dir = Dir::new();
    let mut daemon = Daemon::start(&dir, &config());
    daemon.send("g:7.5|g");
    daemon.wait_received(1);
    daemon.stop();
    let mut bytes = fs::read(dir.path("state")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(dir.path("state"), &bytes).unwrap();
    let mut next = Daemon::start(&dir, &config());
    next.wait_line("is damaged");
    assert_eq!(gauge(&next, "g"), None);
    next.stop();
    assert_eq!(fs::read(dir.path("state.damaged")).unwrap(), bytes);
    let last = Daemon::start(&dir, &config());
    last.wait_line("0 gauges");
}

#[test]
fn a_file_that_is_too_old_is_not_read() {
    let dir = Dir::new();
    let config = config().replace("stateFile", "stateMaxAge: 1, stateFile");
    let mut daemon = Daemon::start(&dir, &config);
    daemon.send("g:7.5|g");
    daemon.wait_received(1);
    daemon.stop();
    // Older than a millisecond by the clock's next second.
    wait_until("it to be too old", || {
        let mut next = Daemon::start(&dir, &config);
        let found = gauge(&next, "g");
        next.signal("KILL");
        next.wait_end();
        found.is_none().then_some(())
    });
}

/// Written and read by the user who stays, detached and from a directory that is its own.
#[test]
fn as_another_user_and_detached() {
    if !is_root() {
        return skipped("changing the user takes root");
    }
    let dir = Dir::new();
    fs::create_dir(dir.path("own")).unwrap();
    std::os::unix::fs::chown(dir.path("own"), Some(NOBODY), Some(NOBODY)).unwrap();
    let program = program_for_all(&dir);
    let config = config().replace("'state'", "'own/state'");
    let path = dir.write("statsd.js", &config);
    let start = |options: &[&str]| {
        let mut command = Command::new(&program);
        command.args(options).args(["-u", "nobody"]).arg(&path);
        command.current_dir(dir.root());
        command
    };
    let mut daemon = Daemon::launch(start(&[]));
    daemon.send("g:7.5|g");
    daemon.wait_received(1);
    daemon.stop();
    let file = fs::metadata(dir.path("own/state")).unwrap();
    assert_eq!((file.uid(), file.mode() & 0o777), (NOBODY, 0o600));
    let mut next = Daemon::launch(start(&[]));
    assert_eq!(gauge(&next, "g"), Some(7.5));
    next.stop();
    let before = mark(&dir.path("own/state"));
    // Detached, from `/`, the path is still the one that was meant.
    let status = start(&["-d", "-p", dir.text_path("pid").as_str()]).status();
    assert!(status.unwrap().success());
    let pid: u32 = dir.read("pid").trim().parse().unwrap();
    wait_until("the file to be replaced", || {
        (mark(&dir.path("own/state")) != before).then_some(())
    });
    signal(pid, "TERM");
    wait_until("its end", || (!alive(pid)).then_some(()));
    let mut last = Daemon::launch(command(&[path.to_str().unwrap()]));
    last.stop();
}
