//! Being a daemon, shown on real processes. Forking, changing the user and rewriting the arguments
//! cannot be done inside the test program, so each test starts this program again in a role: the
//! ignored tests named `role_…`, which do nothing unless `STATSD_TEST_DIR` says where to report.
//!
//! What needs root says so when it is skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, exit};
use std::time::{Duration, Instant};

use statsd::config::{LogConfig, Severity, Title};
use statsd::process::child;
use statsd::process::detach::Detach;
use statsd::process::notify::Manager;
use statsd::process::pidfile::PidFile;
use statsd::process::user::Identity;
use statsd::process::{harden, title};
use statsd::{log, stdout, sys};

const DEADLINE: Duration = Duration::from_secs(20);

/// A directory for one test, open to every user, with a copy of this program in it.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let name = format!("statsd-process-{name}-{}", std::process::id());
        let dir = Dir(std::env::temp_dir().join(name));
        fs::create_dir(&dir.0).unwrap();
        fs::set_permissions(&dir.0, fs::Permissions::from_mode(0o777)).unwrap();
        dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// This program in another role.
    fn role(&self, role: &str) -> Command {
        self.role_of(&std::env::current_exe().unwrap(), role)
    }

    /// As `role`, from a copy that every user may run.
    fn copied_role(&self, role: &str) -> Command {
        let program = self.path("program");
        // Not by ourselves: a child that another test starts meanwhile would have the file open for
        // writing, and a program that is being written cannot be started.
        let copied = Command::new("cp")
            .arg(std::env::current_exe().unwrap())
            .arg(&program)
            .status();
        assert!(copied.unwrap().success());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        self.role_of(&program, role)
    }

    fn role_of(&self, program: &Path, role: &str) -> Command {
        let mut command = Command::new(program);
        command.args(role_arguments(role));
        command.env("STATSD_TEST_DIR", &self.0);
        command
    }

    /// The report of a role, once it is there.
    fn report(&self, name: &str) -> String {
        wait_for(name, || fs::read_to_string(self.path(name)).ok())
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A role that runs beside the test, and ends with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn role_arguments(role: &str) -> [&str; 4] {
    ["--ignored", "--exact", "--nocapture", role]
}

fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "no {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Whether this is root; if not, says what is not shown.
fn root(what: &str) -> bool {
    let root = sys::effective_uid() == 0;
    if !root {
        eprintln!("skipped: {what} needs root");
    }
    root
}

// Inside a role.

/// Where to report, when this is a role.
fn role_dir() -> Option<PathBuf> {
    std::env::var_os("STATSD_TEST_DIR").map(PathBuf::from)
}

/// Writes a report that is whole as soon as it is there.
fn report(dir: &Path, name: &str, text: &str) {
    let part = dir.join(format!("{name}.part"));
    fs::write(&part, text).unwrap();
    fs::rename(&part, dir.join(name)).unwrap();
}

/// A field of this thread's `/proc/…/status`.
fn status(field: &str) -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{field}:")));
    line.unwrap()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

fn descriptor(fd: u32) -> String {
    let target = fs::read_link(format!("/proc/self/fd/{fd}"));
    target.map_or("closed".to_string(), |path| path.display().to_string())
}

fn wait_for_end_of_input() {
    let _ = std::io::stdin().read(&mut [0]);
}

// Detaching.

#[test]
#[ignore = "a role"]
fn role_detach() {
    let Some(dir) = role_dir() else { return };
    let ready = match Detach::start().unwrap() {
        Detach::Starter(code) => exit(i32::from(code)),
        Detach::Daemon(ready) => ready,
    };
    let pid = std::process::id();
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let (session, terminal) = (fields[3], fields[4]);
    let cwd = std::env::current_dir().unwrap();
    let umask = status("Umask");
    let facts = format!("{pid} {session} {terminal} {} {umask}", cwd.display());
    report(&dir, "before", &facts);
    match std::env::var("OUTCOME").unwrap().as_str() {
        "ready" => {
            log::init(&log_config(false), false);
            log::info!("still on the terminal");
            ready.notify(0);
            log::info!("nobody sees this");
            let streams = [0, 1, 2].map(descriptor).join(" ");
            report(&dir, "streams", &streams);
            wait_for("stop", || dir.join("stop").exists().then_some(()));
            exit(0);
        }
        "failed" => {
            eprintln!("cannot bind 127.0.0.1:1");
            ready.notify(7);
            exit(7);
        }
        _ => exit(5),
    }
}

#[test]
fn a_detached_daemon_has_left_everything_behind() {
    let dir = Dir::new("detach");
    let mut command = dir.role("role_detach");
    command.env("OUTCOME", "ready").stdin(Stdio::null());
    // This waits for the end of both streams: the daemon must let go of them while it lives.
    let output = command.output().unwrap();
    let facts = dir.report("before");
    let [pid, session, terminal, cwd, umask] = facts.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{facts}")
    };
    assert!(alive(pid));
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("still on the terminal") && !text.contains("nobody"),
        "{text}"
    );
    assert_ne!(
        session, pid,
        "leads its session, and so could get a terminal"
    );
    assert!(!alive(session), "the one in the middle is still there");
    assert_eq!((terminal, cwd, umask), ("0", "/", "0022"));
    assert_eq!(dir.report("streams"), "/dev/null /dev/null /dev/null");
    fs::write(dir.path("stop"), "").unwrap();
    wait_for("end of the daemon", || (!alive(pid)).then_some(()));
}

#[test]
fn the_starter_exits_with_the_outcome() {
    for (outcome, code, message) in [
        ("failed", 7, "cannot bind 127.0.0.1:1"),
        ("died", 3, "ended before it was ready"),
    ] {
        let dir = Dir::new(outcome);
        let output = dir
            .role("role_detach")
            .env("OUTCOME", outcome)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(message), "{text}");
    }
}

// The pidfile.

#[test]
#[ignore = "a role"]
fn role_pidfile() {
    let Some(dir) = role_dir() else { return };
    match PidFile::create(&dir.join("pid"), None) {
        Ok(_pidfile) => wait_for_end_of_input(),
        Err(failure) => {
            eprintln!("{failure}");
            exit(3);
        }
    }
}

#[test]
fn a_second_daemon_is_refused_until_the_first_is_gone() {
    let dir = Dir::new("pidfile");
    let start = || {
        let mut command = dir.role("role_pidfile");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let running = Running(command.spawn().unwrap());
        let line = format!("{}\n", running.0.id());
        wait_for("pidfile", || {
            (fs::read_to_string(dir.path("pid")).ok()? == line).then_some(())
        });
        running
    };
    let first = start();
    let mode = fs::metadata(dir.path("pid")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o644, 0, "others may write it");

    let second = dir
        .role("role_pidfile")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(3));
    let text = String::from_utf8_lossy(&second.stderr);
    let expected = format!("already running as process {}", first.0.id());
    assert!(text.contains(&expected), "{text}");

    drop(first); // killed, so the file stays
    assert!(dir.path("pid").exists());
    let mut third = start();
    drop(third.0.stdin.take());
    assert!(third.0.wait().unwrap().success());
    assert!(!dir.path("pid").exists(), "left behind by a clean end");
}

// User and group.

#[test]
#[ignore = "a role"]
fn role_user() {
    let Some(dir) = role_dir() else { return };
    let group = std::env::var("GROUP").ok();
    let user = std::env::var("USER_NAME").ok();
    let pidfile = PidFile::create(&dir.join("pid"), None).unwrap();
    let identity = Identity::find(user.as_deref(), group.as_deref())
        .unwrap()
        .unwrap();
    if let Err(failure) = identity.assume() {
        report(&dir, "user", &failure.to_string());
        return;
    }
    let facts = ["Uid", "Gid", "Groups", "CapEff", "CapPrm", "NoNewPrivs"].map(status);
    drop(pidfile);
    report(&dir, "user", &facts.join("|"));
}

/// What the role said, and what is left of its pidfile.
fn become_user(name: &str, change: impl FnOnce(Command) -> Command) -> (String, Option<String>) {
    let dir = Dir::new(name);
    let output = change(dir.copied_role("role_user")).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    (dir.report("user"), fs::read_to_string(dir.path("pid")).ok())
}

#[test]
fn root_becomes_a_user_for_good() {
    if !root("changing the user") {
        return;
    }
    const NONE: &str = "0000000000000000";
    let (facts, pidfile) = become_user("user", |mut command| {
        command.env("USER_NAME", "65534").env("GROUP", "4242");
        command
    });
    let all = "65534 65534 65534 65534|4242 4242 4242 4242|4242";
    assert_eq!(facts, format!("{all}|{NONE}|{NONE}|1"));
    assert_eq!(
        pidfile, None,
        "the directory is open to all, so it could be removed"
    );

    let (facts, _) = become_user("group", |mut command| {
        command.env("GROUP", "4242");
        command
    });
    assert!(
        facts.starts_with("0 0 0 0|4242 4242 4242 4242|4242|"),
        "{facts}"
    );
}

#[test]
fn a_way_back_to_root_is_noticed() {
    if !root("changing the user") {
        return;
    }
    if Command::new("setpriv").arg("--version").output().is_err() {
        eprintln!("skipped: there is no setpriv");
        return;
    }
    let (facts, _) = become_user("way-back", |command| {
        // Capabilities stay when the user changes.
        let mut outer = Command::new("setpriv");
        outer.args(["--securebits", "+no_setuid_fixup"]);
        outer.arg(command.get_program()).args(command.get_args());
        outer.envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        outer.env("USER_NAME", "65534").env("GROUP", "65534");
        outer
    });
    assert!(facts.contains("can be undone"), "{facts}");
}

#[test]
fn others_than_root_cannot_change_the_user() {
    let (facts, _) = become_user("not-root", |mut command| {
        if sys::effective_uid() == 0 {
            command.uid(65534).gid(65534);
        }
        command.env("USER_NAME", "root");
        command
    });
    assert!(facts.contains("only root can switch user"), "{facts}");
}

#[test]
fn being_the_user_already_is_fine() {
    let (facts, _) = become_user("already", |mut command| {
        if sys::effective_uid() == 0 {
            command.uid(65534).gid(65534);
        }
        // The effective one is the second of four.
        let gid = status("Gid").split(' ').nth(1).unwrap().parse().unwrap();
        let id = |id| if id == 0 { 65534 } else { id };
        command.env("USER_NAME", id(sys::effective_uid()).to_string());
        command.env("GROUP", id(gid).to_string());
        command
    });
    assert!(facts.ends_with("|1"), "{facts}");
}

// The title.

#[test]
#[ignore = "a role"]
fn role_title() {
    let Some(dir) = role_dir() else { return };
    let wanted = match std::env::var("TITLE") {
        Err(_) => Title::CommandLine,
        Ok(text) if text == "false" => Title::Leave,
        Ok(text) => Title::Text(text),
    };
    title::prepare();
    title::set(&wanted, "statsd");
    // Twice, as a reload does.
    title::set(&wanted, "statsd");
    let variables: HashMap<String, String> = std::env::vars().collect();
    let short = fs::read_to_string("/proc/thread-self/comm").unwrap();
    report(
        &dir,
        "title",
        &format!("{}|{short}", variables["LAST_VARIABLE"]),
    );
    wait_for_end_of_input();
}

#[test]
fn the_title_is_what_ps_shows() {
    let long = "a title that is a good deal longer than the arguments of this program ".repeat(5);
    let dir = Dir::new("title");
    let arguments = role_arguments("role_title").join(" ");
    let program = std::env::current_exe().unwrap();
    let unchanged = format!("{} {arguments}", program.display());
    for (wanted, shown) in [
        (None, format!("statsd {arguments}")),
        (Some("false"), unchanged),
        (Some("short"), "short".to_string()),
        (Some("two\nlines"), "twolines".to_string()),
        (Some(long.as_str()), long.clone()),
    ] {
        let mut command = dir.role("role_title");
        command
            .env("FILLER", "x".repeat(1000))
            .env("LAST_VARIABLE", "is still there");
        command.envs(wanted.map(|title| ("TITLE", title)));
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut running = Running(command.spawn().unwrap());
        let short = match wanted {
            None | Some("false") => "role_title", // as it was
            Some(_) => &shown[..shown.len().min(15)],
        };
        assert_eq!(dir.report("title"), format!("is still there|{short}\n"));
        let pid = running.0.id().to_string();
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let line = String::from_utf8(line).unwrap();
        assert_eq!(line.trim_end_matches('\0').replace('\0', " "), shown);
        if let Ok(ps) = Command::new("ps")
            .args(["-ww", "-o", "args=", "-p", &pid])
            .output()
        {
            assert_eq!(
                String::from_utf8_lossy(&ps.stdout).trim_end(),
                shown.trim_end()
            );
        }
        drop(running.0.stdin.take());
        assert!(running.0.wait().unwrap().success());
        fs::remove_file(dir.path("title")).unwrap();
    }
}

// What was inherited.

#[test]
#[ignore = "a role"]
fn role_inherit() {
    let Some(dir) = role_dir() else { return };
    let manager = Manager::from_environment();
    harden::at_start(manager.handed_over);
    let mut facts = vec![format!("0: {}", descriptor(0))];
    facts.extend([5, 7, 30].map(|fd| format!("{fd}: {}", descriptor(fd))));
    for socket in &manager.sockets {
        let mut text = String::new();
        let mut file = File::from(socket.try_clone().unwrap());
        file.read_to_string(&mut text).unwrap();
        facts.push(format!("socket: {text}"));
    }
    facts.push(format!("watchdog: {:?}", manager.watchdog));
    facts.push(format!("blocked: {}", status("SigBlk")));
    facts.push(format!("umask: {}", status("Umask")));
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let core = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"))
        .unwrap();
    facts.push(format!(
        "core: {}",
        core.split_whitespace().take(2).collect::<String>()
    ));
    let prefixes = ["LISTEN_", "NOTIFY_", "WATCHDOG_", "LD_", "RES_", "KEPT"];
    let mut kept: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
    kept.retain(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
    facts.push(format!("variables: {}", kept.join(" ")));
    manager.notifier.ready("up").unwrap();
    report(&dir, "inherited", &facts.join("\n"));
}

#[test]
fn what_was_meant_to_be_handed_over_is_kept_and_the_rest_dealt_with() {
    let dir = Dir::new("inherit");
    fs::write(dir.path("three"), "the first").unwrap();
    fs::write(dir.path("four"), "the second").unwrap();
    let name = format!("statsd-inherit-{}", std::process::id());
    let manager = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = UnixDatagram::bind_addr(&manager).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();

    let script = "umask 077; cd \"$STATSD_TEST_DIR\" && exec <&- 3<three 4<four 5<three 7<three && \
                  LISTEN_PID=$$ exec env --block-signal=TERM \"$@\"";
    let role = dir.role("role_inherit");
    let mut command = Command::new("sh");
    command
        .args(["-c", script, "sh"])
        .arg(role.get_program())
        .args(role.get_args());
    command.env("STATSD_TEST_DIR", &dir.0);
    command
        .env("LISTEN_FDS", "2")
        .env("LISTEN_FDNAMES", "udp:tcp");
    command
        .env("NOTIFY_SOCKET", format!("@{name}"))
        .env("WATCHDOG_USEC", "3000000");
    command
        .env("LD_BIND_NOW", "1")
        .env("RES_OPTIONS", "timeout:1")
        .env("KEPT", "1");
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let root = sys::effective_uid() == 0;
    let mut expected = vec!["0: /dev/null", "5: closed", "7: closed", "30: closed"];
    expected.extend([
        "socket: the first",
        "socket: the second",
        "watchdog: Some(3s)",
    ]);
    expected.extend(["blocked: 0000000000000000", "umask: 0022"]);
    let report = dir.report("inherited");
    let facts: Vec<&str> = report.lines().collect();
    assert_eq!(facts[..9], expected);
    if root {
        assert_eq!(facts[9..], ["core: 00", "variables: KEPT"]);
    } else {
        assert!(facts[10].contains("KEPT") && !facts[10].contains("LISTEN_"));
        eprintln!("skipped: dropping dangerous variables and core dumps needs root");
    }
    let mut message = [0; 100];
    let length = manager.recv(&mut message).unwrap();
    assert_eq!(&message[..length], b"READY=1\nSTATUS=up\n");
}

// Children.

#[test]
#[ignore = "a role"]
fn role_child() {
    if role_dir().is_some() {
        println!("answer");
        std::thread::sleep(DEADLINE * 2);
    }
}

#[test]
#[ignore = "a role"]
fn role_child_parent() {
    let Some(dir) = role_dir() else { return };
    if sys::effective_uid() == 0 {
        harden::at_start(0);
        Identity::find(Some("65534"), Some("65534"))
            .unwrap()
            .unwrap()
            .assume()
            .unwrap();
    }
    // An upgrade replaces the program.
    fs::remove_file(dir.join("program")).unwrap();
    let mut child = child::Child::spawn_self(&role_arguments("role_child")).unwrap();
    let pid = child.id().unwrap().to_string();
    let mut text = Vec::new();
    wait_for("answer", || {
        let mut buffer = [0; 256];
        match child.read(&mut buffer) {
            Ok(count) => text.extend_from_slice(&buffer[..count]),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        String::from_utf8_lossy(&text)
            .contains("answer")
            .then_some(())
    });
    assert!(alive(&pid));
    let start = Instant::now();
    drop(child);
    assert!(start.elapsed() < DEADLINE, "waited for it");
    wait_for("end of the child", || {
        child::reap();
        (!Path::new("/proc").join(&pid).exists()).then_some(())
    });
    report(&dir, "child", "ended and reaped");
}

#[test]
fn a_child_is_our_own_program_and_ends_when_dropped() {
    let dir = Dir::new("child");
    let output = dir.copied_role("role_child_parent").output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert_eq!(dir.report("child"), "ended and reaped");
}

// The log.

fn log_config(syslog: bool) -> LogConfig {
    LogConfig {
        syslog,
        application: "tag".to_string(),
        level: Severity::Notice,
    }
}

#[test]
#[ignore = "a role"]
fn role_syslog() {
    let Some(dir) = role_dir() else { return };
    log::init_at(&log_config(true), false, &dir.join("log"));
    log::plain!("plain");
    log::debug!("not shown");
    log::set_debug(true);
    log::debug!("shown");
    if let sys::Fork::Parent(pid) = sys::fork().unwrap() {
        sys::wait_for(pid).unwrap();
        log::error!("parent");
        report(&dir, "pids", &format!("{} {pid}", std::process::id()));
    } else {
        log::info!("child says {}", log::Bytes(b"a\nb\xff"));
        sys::exit_now(0);
    }
}

#[test]
fn syslog_lines_have_the_pid_of_who_speaks() {
    let dir = Dir::new("syslog");
    let server = UnixDatagram::bind(dir.path("log")).unwrap();
    server.set_read_timeout(Some(DEADLINE)).unwrap();
    assert!(dir.role("role_syslog").output().unwrap().status.success());
    let pids = dir.report("pids");
    let (parent, child) = pids.split_once(' ').unwrap();
    // 128 is LOCAL0; plain lines have the configured level, notice (5).
    for (priority, pid, text) in [
        (133, parent, "plain"),
        (135, parent, "shown"),
        (134, child, "child says a\\nb\\xff"),
        (131, parent, "parent"),
    ] {
        let mut line = [0; 1000];
        let length = server.recv(&mut line).unwrap();
        let line = String::from_utf8_lossy(&line[..length]);
        assert!(line.starts_with(&format!("<{priority}>")), "{line}");
        assert!(line.ends_with(&format!(" tag[{pid}]: {text}")), "{line}");
    }
}

#[test]
#[ignore = "a role"]
fn role_stdout() {
    let Some(dir) = role_dir() else { return };
    log::warning!("before the config");
    log::init(&log_config(false), false);
    for number in 0..30_000 {
        log::info!("{number:0>80}");
    }
    report(&dir, "logged", "all");
    wait_for("reader", || {
        log::flush(Instant::now());
        (stdout::wants_write().is_none()).then_some(())
    });
    log::flush(Instant::now());
    report(&dir, "out", "all");
}

#[test]
fn a_log_that_nobody_reads_holds_up_nothing() {
    let dir = Dir::new("stdout");
    let mut command = dir.role("role_stdout");
    command
        .stdout(Stdio::piped())
        .stderr(File::create(dir.path("stderr")).unwrap());
    let mut running = Running(command.spawn().unwrap());
    assert_eq!(dir.report("logged"), "all");
    let mut text = String::new();
    running
        .0
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(running.0.wait().unwrap().success());
    let logged = text
        .lines()
        .filter(|line| line.contains(" - INFO: 000"))
        .count();
    assert!(logged > 1000 && logged < 30_000, "{logged}");
    let lost = format!("for a while; lost: {}\n", 30_000 - logged);
    assert_eq!(text.matches(&lost).count(), 1, "{lost}");
    let stderr = fs::read_to_string(dir.path("stderr")).unwrap();
    assert!(stderr.contains("warning: before the config\n"), "{stderr}");
}

#[test]
fn a_missing_syslogd_is_mentioned_and_not_waited_for() {
    let dir = Dir::new("no-syslogd");
    let output = dir.role("role_syslog").output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("warning: no syslogd at "), "{text}");
}

#[test]
#[ignore = "a role"]
fn role_full_disk() {
    let Some(dir) = role_dir() else { return };
    harden::at_start(0);
    log::init(&log_config(false), false);
    for number in 0..1000 {
        log::info!("{number:0>80}");
        log::flush(Instant::now());
    }
    let mut file = OpenOptions::new()
        .append(true)
        .open(dir.join("report"))
        .unwrap();
    file.write_all(b"alive").unwrap();
}

#[test]
fn a_file_that_reaches_its_limit_does_not_kill() {
    let dir = Dir::new("limit");
    fs::write(dir.path("report"), "").unwrap();
    let role = dir.role("role_full_disk");
    let mut command = Command::new("sh");
    // Blocks of 512 bytes: the log of 100,000 bytes does not fit.
    command.args([
        "-c",
        "ulimit -f 16; exec \"$@\" >\"$STATSD_TEST_DIR/log\"",
        "sh",
    ]);
    command
        .arg(role.get_program())
        .args(role.get_args())
        .env("STATSD_TEST_DIR", &dir.0);
    let output = command.output().unwrap();
    assert_eq!(fs::read_to_string(dir.path("report")).unwrap(), "alive");
    drop(output);
}
