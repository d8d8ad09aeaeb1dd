//! The process: signals, pidfile, detaching, title, user, options and exit codes (SPEC 1).

use crate::common::daemon::{Daemon, Finished, STATSD, command, finish};
use crate::common::graphite::Graphite;
use crate::common::inject::{ALWAYS, Call, Faults};
use crate::common::{
    Dir, LOCAL, NEVER, alive, arguments, signal, skipped, status_field, udp_socket, wait_until,
};
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::process::{self, Command};

fn quiet(dir: &Dir) -> String {
    dir.write(
        "statsd.js",
        &format!("{{ {LOCAL}, {NEVER}, backends: [] }}"),
    );
    dir.text_path("statsd.js")
}

fn run(args: &[&str]) -> Finished {
    finish(command(args))
}

fn delivers_the_last_interval(name: &str) {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!(
        "{{ {LOCAL}, {NEVER}, {},
            servers: [{{ server: 'udp', address: '127.0.0.1', port: 0 }},
                      {{ server: 'tcp', address: '127.0.0.1', port: 0 }}] }}",
        graphite.config()
    );
    let mut daemon = Daemon::start(&dir, &config);
    let mut stream = daemon.tcp();
    stream.write_all(b"hello:1|c\n").unwrap();
    daemon.wait_received(1);
    // It cannot read these before it gets the signal.
    daemon.signal("STOP");
    wait_until("a standstill", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
        stat.contains(") T ").then_some(())
    });
    let sender = udp_socket(Ipv4Addr::LOCALHOST);
    for _ in 0..100 {
        sender.send_to(b"a:1|c", daemon.address("udp")).unwrap();
    }
    stream.write_all("b:1|c\n".repeat(500).as_bytes()).unwrap();
    let mut late = daemon.tcp();
    late.write_all(b"late:1|c\n").unwrap();
    daemon.signal(name);
    daemon.signal("CONT");
    assert_eq!(daemon.wait_end(), Some(0));
    assert_eq!(graphite.flushes().len(), 1);
    assert_eq!(graphite.sum("stats_counts.hello"), 1.0);
    assert_eq!(
        graphite.sum("stats_counts.a"),
        100.0,
        "datagrams in the kernel's queue"
    );
    assert_eq!(
        graphite.sum("stats_counts.b"),
        500.0,
        "bytes in the kernel's queue"
    );
    assert_eq!(
        graphite.sum("stats_counts.late"),
        1.0,
        "of a client that waits to be accepted"
    );
}

#[test]
fn sigterm_delivers_the_last_interval() {
    delivers_the_last_interval("TERM");
}

#[test]
fn sigint_delivers_the_last_interval() {
    delivers_the_last_interval("INT");
}

#[test]
fn pidfile_is_written_and_goes_with_the_daemon() {
    let dir = Dir::new();
    let pidfile = dir.text_path("pid");
    let mut daemon = Daemon::launch(command(&["-p", &pidfile, &quiet(&dir)]));
    assert_eq!(dir.read("pid").trim(), daemon.pid().to_string());
    daemon.stop();
    assert!(!dir.path("pid").exists());
}

#[test]
fn pidfile_refuses_a_second_instance() {
    let dir = Dir::new();
    let pidfile = dir.text_path("pid");
    let config = quiet(&dir);
    let mut daemon = Daemon::launch(command(&["--pidfile", &pidfile, &config]));
    let pid = daemon.pid().to_string();
    for options in [&["-p"][..], &["-d", "-p"]] {
        let second = run(&[options, &[&pidfile, &config]].concat());
        second.expect(3);
        assert!(
            second.stderr.contains(&pid),
            "it must name the owner: {}",
            second.stderr
        );
        assert!(
            second.stderr.contains(&pidfile),
            "and the file: {}",
            second.stderr
        );
        assert_eq!(
            dir.read("pid").trim(),
            pid,
            "the first one's file stays as it is"
        );
    }
    assert_eq!(daemon.console().ask("health", "\n"), "health: up\n");
    daemon.stop();
    let mut third = Daemon::launch(command(&["-p", &pidfile, &config]));
    third.stop();
}

#[test]
fn pidfile_that_is_stale_is_no_obstacle() {
    let dir = Dir::new();
    let pidfile = dir.text_path("pid");
    // Dead, garbage, empty, longer than ours; and alive but somebody else, as after a reboot.
    let own = process::id().to_string();
    for stale in [
        "4194304999\n",
        "not a number\n",
        "",
        &"9".repeat(200),
        own.as_str(),
    ] {
        dir.write("pid", stale);
        let mut daemon = Daemon::launch(command(&["-p", &pidfile, &quiet(&dir)]));
        assert_eq!(
            dir.read("pid").trim(),
            daemon.pid().to_string(),
            "after {stale:?}"
        );
        daemon.stop();
    }
}

#[test]
fn pidfile_of_a_daemon_that_was_killed() {
    let dir = Dir::new();
    let pidfile = dir.text_path("pid");
    let mut daemon = Daemon::launch(command(&["-p", &pidfile, &quiet(&dir)]));
    daemon.signal("KILL");
    assert_eq!(daemon.wait_end(), None);
    assert!(dir.path("pid").exists(), "nobody was there to remove it");
    let mut next = Daemon::launch(command(&["-p", &pidfile, &quiet(&dir)]));
    next.stop();
}

#[test]
fn pidfile_that_cannot_be_written() {
    let dir = Dir::new();
    let pidfile = dir.text_path("missing/pid");
    let finished = run(&["-p", &pidfile, &quiet(&dir)]);
    finished.expect(3);
    assert!(finished.stderr.contains(&pidfile), "{}", finished.stderr);
}

/// A detached daemon, known by its pidfile alone.
pub struct Detached(pub u32);

impl Detached {
    pub fn from_pidfile(dir: &Dir) -> Detached {
        Detached(
            dir.read("pid")
                .trim()
                .parse()
                .expect("a process id in the pidfile"),
        )
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        if alive(self.0) {
            signal(self.0, "KILL");
        }
    }
}

#[test]
fn detach_once_it_is_up() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let text = |threshold: u32| {
        format!(
            "{{ server: 'tcp', socket: 'sock', mgmt_address: '127.0.0.1', mgmt_port: 0,
                flushInterval: 100, percentThreshold: {threshold}, automaticConfigReload: false,
                {} }}",
            graphite.config()
        )
        .replace("'sock'", &format!("'{}'", dir.text_path("sock")))
    };
    dir.write("statsd.js", &text(90));
    // Relative paths: the daemon leaves the directory, and must still find its files.
    let mut start = command(&["-d", "-p", "pid", "statsd.js"]);
    start.current_dir(dir.root());
    let parent = finish(start);
    parent.expect(0);
    let daemon = Detached::from_pidfile(&dir);

    assert!(alive(daemon.0), "up when the parent ends");
    let link = |fd: u32| fs::read_link(format!("/proc/{}/fd/{fd}", daemon.0)).unwrap();
    for fd in 0..3 {
        assert_eq!(link(fd).to_str(), Some("/dev/null"), "descriptor {fd}");
    }
    let stat = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let after = text.rsplit_once(") ").unwrap().1.to_owned();
        after.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    // After the name: state, parent, group, session, terminal.
    let (ours, its) = (stat(process::id()), stat(daemon.0));
    assert_ne!(its[3], ours[3], "a session of its own");
    assert_eq!(its[4], "0", "no terminal");
    assert_eq!(
        fs::read_link(format!("/proc/{}/cwd", daemon.0))
            .unwrap()
            .to_str(),
        Some("/")
    );

    let mut client = UnixStream::connect(dir.path("sock")).unwrap();
    client.write_all(b"t:1|ms\n").unwrap();
    graphite.wait_name("stats.timers.t.upper_90");
    dir.write("statsd.js", &text(50));
    signal(daemon.0, "HUP");
    wait_until("the new threshold", || {
        client.write_all(b"t:1|ms\n").unwrap();
        graphite.values("stats.timers.t.upper_50").first().copied()
    });
    signal(daemon.0, "TERM");
    wait_until("the daemon's end", || (!alive(daemon.0)).then_some(()));
    assert!(!dir.path("pid").exists());
    assert!(!dir.path("sock").exists());
}

/// Without /dev/null (a bare chroot) too: the starter says that it is up, and nobody waits for its output.
#[test]
fn detach_without_dev_null() {
    let dir = Dir::new();
    let faults = Faults::new(dir.root());
    faults.fail(Call::OpenNull, libc::ENOENT, ALWAYS);
    let path = quiet(&dir);
    let mut start = faults.with(command(&["-d", "-p", "pid", &path]));
    start.current_dir(dir.root());
    let parent = finish(start);
    let daemon = Detached::from_pidfile(&dir);
    parent.expect(0);
    assert!(faults.failed(Call::OpenNull) > 0);
    assert!(alive(daemon.0));
    assert!(parent.stdout.contains("server is up"), "{}", parent.text());
    signal(daemon.0, "TERM");
    wait_until("its end", || (!alive(daemon.0)).then_some(()));
}

#[test]
fn detach_tells_of_a_failure() {
    let dir = Dir::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let config = format!(
        "{{ address: '127.0.0.1', port: 0, mgmt_address: '127.0.0.1', mgmt_port: {},
            backends: [] }}",
        address.port()
    );
    dir.write("statsd.js", &config);
    let parent = run(&[
        "-d",
        "-p",
        &dir.text_path("pid"),
        &dir.text_path("statsd.js"),
    ]);
    parent.expect(3);
    assert!(
        parent.stderr.contains(&address.to_string()),
        "{}",
        parent.stderr
    );
    assert_eq!(dir.read("pid").trim(), "", "nobody is up");
    dir.write("statsd.js", "{ port: 'x' }");
    run(&["-d", &dir.text_path("statsd.js")]).expect(2);
}

#[test]
fn a_taken_port_is_named() {
    let dir = Dir::new();
    let udp_owner = udp_socket(Ipv4Addr::LOCALHOST);
    let tcp_owner = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (udp, tcp) = (
        udp_owner.local_addr().unwrap(),
        tcp_owner.local_addr().unwrap(),
    );
    let mgmt = "mgmt_address: '127.0.0.1', mgmt_port: 0";
    let server = |kind, port| format!("server: '{kind}', address: '127.0.0.1', port: {port}");
    for (keys, address) in [
        (format!("{}, {mgmt}", server("udp", udp.port())), udp),
        (format!("{}, {mgmt}", server("tcp", tcp.port())), tcp),
        (
            LOCAL.replace("mgmt_port: 0", &format!("mgmt_port: {}", tcp.port())),
            tcp,
        ),
    ] {
        dir.write("statsd.js", &format!("{{ {keys}, backends: [] }}"));
        let finished = run(&[&dir.text_path("statsd.js")]);
        finished.expect(3);
        assert!(
            finished.stderr.contains(&address.to_string()),
            "{}",
            finished.stderr
        );
        assert!(!finished.text().contains("server is up"));
    }
}

#[test]
fn title_by_default_is_the_command_line() {
    let dir = Dir::new();
    let config = quiet(&dir);
    let mut daemon = Daemon::launch(command(&[&config]));
    assert_eq!(arguments(daemon.pid()), format!("statsd {config}"));
    daemon.stop();
}

#[test]
fn title_as_configured() {
    let dir = Dir::new();
    for title in ["my metrics", "m", &"long ".repeat(20)] {
        let config = format!("{{ {LOCAL}, {NEVER}, backends: [], title: '{title}' }}");
        let mut daemon = Daemon::start(&dir, &config);
        let found = arguments(daemon.pid());
        // Room is what the arguments and the environment had; more is cut, not spilled.
        assert!(
            !found.is_empty() && title.trim_end().starts_with(&found),
            "{found:?}"
        );
        assert!(title.len() > 20 || found == title, "{found:?}");
        daemon.stop();
    }
}

#[test]
fn title_false_leaves_it_alone() {
    let dir = Dir::new();
    let config = format!("{{ {LOCAL}, {NEVER}, backends: [], title: false }}");
    let mut daemon = Daemon::start(&dir, &config);
    assert_eq!(
        arguments(daemon.pid()),
        format!("{STATSD} {}", dir.text_path("statsd.js"))
    );
    daemon.stop();
}

#[test]
fn test_config_binds_nothing() {
    let dir = Dir::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let socket = dir.text_path("sock");
    let config = format!(
        "{{ servers: [{{ server: 'tcp', address: '127.0.0.1', port: {port} }},
                      {{ server: 'tcp', socket: '{socket}' }}],
            mgmt_address: '127.0.0.1', mgmt_port: {port} }}"
    );
    dir.write("statsd.js", &config);
    for option in ["-t", "--test-config"] {
        run(&[
            option,
            "-p",
            &dir.text_path("pid"),
            &dir.text_path("statsd.js"),
        ])
        .expect(0);
        assert!(!dir.path("sock").exists() && !dir.path("pid").exists());
    }
    // The same without the option does try.
    run(&[&dir.text_path("statsd.js")]).expect(3);
    dir.write("statsd.js", "{ flushInterval: 'soon' }");
    let finished = run(&["-t", &dir.text_path("statsd.js")]);
    finished.expect(2);
    assert!(
        finished.text().contains("flushInterval"),
        "{}",
        finished.text()
    );
}

#[test]
fn version_and_help() {
    for option in ["-V", "--version"] {
        let finished = run(&[option]);
        finished.expect(0);
        assert_eq!(
            finished.stdout.trim(),
            concat!("statsd ", env!("CARGO_PKG_VERSION"))
        );
    }
    for option in ["-h", "--help"] {
        let finished = run(&[option]);
        finished.expect(0);
        let options = [
            "-t, --test-config",
            "-d, --daemon",
            "-p, --pidfile",
            "-u, --user",
            "-g, --group",
            "-v, --verbose",
            "-V, --version",
            "-h, --help",
        ];
        for option in options {
            assert!(
                finished.stdout.contains(option),
                "{option} in {}",
                finished.stdout
            );
        }
    }
}

#[test]
fn wrong_usage_ends_with_1() {
    let dir = Dir::new();
    let config = quiet(&dir);
    for (args, named) in [
        (&["--nonsense", &config][..], "nonsense"),
        (&["-x", &config], "x"),
        (&["-p"], "p"),
        (&[&config, "another.js"], "another.js"),
    ] {
        let finished = run(args);
        finished.expect(1);
        assert!(
            finished.stderr.contains(named),
            "{named} in {}",
            finished.stderr
        );
        assert_eq!(finished.stdout, "", "errors are no output");
    }
}

#[test]
fn user_and_group() {
    if status_field(process::id(), "Uid:") != 0 {
        return skipped("not root");
    }
    let dir = Dir::new();
    let config = quiet(&dir);
    let nobody = |args: &[&str]| {
        let output = Command::new("id")
            .args(args)
            .arg("nobody")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let mut daemon = Daemon::launch(command(&["-u", "nobody", &config]));
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let ids = |field: &str| {
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace()
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ids("Uid:"),
        vec![nobody(&["-u"]); 4],
        "real, effective, saved, file system"
    );
    assert_eq!(ids("Gid:"), vec![nobody(&["-g"]); 4]);
    let groups = nobody(&["-G"]);
    let mut expected: Vec<_> = groups.split(' ').collect();
    let mut found = ids("Groups:");
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected, "its supplementary groups, not root's");
    daemon.stop();
}

#[test]
fn without_a_config_it_shows_something() {
    // The built-in ports are fixed, so in a network of its own.
    let probe = Command::new("unshare").args(["-n", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        return skipped("no right to make a network namespace");
    }
    let mut start = Command::new("unshare");
    // Into the namespace, then exec: the process id stays.
    start.args(["-n", STATSD]);
    let mut daemon = Daemon::launch(start);
    let names: Vec<_> = daemon
        .addresses
        .iter()
        .map(|(kind, _)| kind.as_str())
        .collect();
    assert_eq!(names, ["udp", "admin"]);
    assert!(
        daemon.addresses[0].1.ends_with(":8125"),
        "{:?}",
        daemon.addresses
    );
    assert!(
        daemon.addresses[1].1.ends_with(":8126"),
        "{:?}",
        daemon.addresses
    );
    daemon.signal("INT");
    assert_eq!(daemon.wait_end(), Some(0));
    assert_eq!(daemon.wait_flushes(1).len(), 1, "the console backend");
}
