//! The system runs out of disk, syslogd comes and goes, config files are replaced and lost, an
//! interface goes away.

use crate::common::daemon::{Daemon, command, finish};
use crate::common::graphite::Graphite;
use crate::common::inject::{Call, Faults};
use crate::common::{DEADLINE, Dir, LOCAL, NEVER, wait_until};
use crate::tools::{
    in_namespace, log_lines, must, said_once, start_with_faults, stat, ticks, wait_stored,
};
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// The `keyFlush` log on a full disk: said once, and once when there is room again; metrics go on.
#[test]
fn a_full_disk_under_the_key_log() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    symlink("/dev/full", dir.path("keys.log")).unwrap();
    let config = format!(
        "{{ {LOCAL}, flushInterval: 200, keyFlush: {{ interval: 50, percent: 100, log: 'keys.log' }}, {} }}",
        graphite.config()
    );
    let mut daemon = Daemon::start(&dir, &config);
    daemon.send("a:1|c");
    daemon.wait_line("keyFlush: cannot write");
    let mut sent = 1.0;
    for _ in 0..5 {
        daemon.send("a:1|c");
        sent += 1.0;
        wait_stored_sum(&graphite, sent);
    }
    said_once(&daemon, "keyFlush: ");
    fs::remove_file(dir.path("keys.log")).unwrap();
    wait_until("the key in the log", || {
        daemon.send("b:1|c");
        dir.read("keys.log").contains("key=b").then_some(())
    });
    daemon.wait_line("again");
    assert_eq!(log_lines(&daemon, "keyFlush: "), 2);
    daemon.stop();
}

#[track_caller]
fn wait_stored_sum(graphite: &Graphite, sent: f64) {
    graphite.wait_sum("stats_counts.a", sent);
}

/// A state file on a full disk: said once, the old file stays.
#[test]
fn a_full_disk_under_the_state_file() {
    in_namespace(&["--mount"], "system::role_full_disk");
}

#[test]
#[ignore = "runs in a namespace"]
fn role_full_disk() {
    let dir = Dir::new();
    let disk = dir.text_path("disk");
    must(&format!(
        "mkdir {disk} && mount -t tmpfs -o size=256k none {disk}"
    ));
    let config = format!(
        "{{ {LOCAL}, {NEVER}, backends: [], stateFile: 'disk/state',
            servers: [{{ server: 'tcp', address: '127.0.0.1', port: 0 }}] }}"
    );
    let mut daemon = Daemon::start(&dir, &config);
    daemon.send_tcp("small:1|g\n");
    daemon.wait_received(1);
    daemon.stop();
    let before = fs::read(dir.path("disk/state")).unwrap();
    let mut daemon = Daemon::start(&dir, &config);
    let line = |n| format!("a.gauge.with.a.name.that.takes.room.{n}:1|g\n");
    daemon.send_tcp(&(0..20_000).map(line).collect::<String>());
    daemon.wait_received(20_000);
    daemon.stop();
    said_once(&daemon, "cannot write the state file");
    // No longer than the clock's digits apart: what the first turn wrote of the same gauge.
    let after = fs::read(dir.path("disk/state")).unwrap();
    assert_eq!(after.len(), before.len(), "the old file stays");
    let third = Daemon::start(&dir, &config);
    third.wait_line("1 gauges");
    drop(third);
    must(&format!("umount {disk}"));
}

/// No syslogd at the start, then one, then another in its place: lines wait, none is lost, nobody is
/// held up.
#[test]
fn syslogd_comes_late_and_again() {
    in_namespace(&["--mount"], "system::role_syslogd");
}

#[test]
#[ignore = "runs in a namespace"]
fn role_syslogd() {
    let dir = Dir::new();
    // Everything of /dev that is needed, and no log.
    let dev = dir.text_path("dev");
    must(&format!(
        "mkdir {dev} && cp -a /dev/null /dev/urandom {dev} && mount --rbind {dev} /dev"
    ));
    let config = format!(
        "{{ {LOCAL}, {NEVER}, backends: [], dumpMessages: true, log: {{ backend: 'syslog', application: 'sd' }} }}"
    );
    dir.write("statsd.js", &config);
    // Its ready line goes to syslog, so its ports are looked for by what it has bound.
    let mut child = command(&["statsd.js"]);
    child.current_dir(dir.root());
    let mut child = child.spawn().unwrap();
    let log = |number: u32| {
        let _ = fs::remove_file(dir.path("dev/log"));
        let socket = UnixDatagram::bind(dir.path("dev/log")).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        (number, socket)
    };
    let read = |(number, socket): &(u32, UnixDatagram), wanted: &str| {
        loop {
            let mut line = [0; 8192];
            let length = socket.recv(&mut line).unwrap_or_else(|error| {
                panic!("syslogd {number} heard nothing of {wanted}: {error}")
            });
            let line = String::from_utf8_lossy(&line[..length]).into_owned();
            assert!(line.contains("sd[") || line.contains("sd: "), "{line}");
            if line.contains(wanted) {
                return line;
            }
        }
    };
    wait_until("it to be up without a syslogd", || {
        open_sockets(child.id()).first().cloned()
    });
    let first = log(1);
    let ready = read(&first, "server is up");
    let (_, address) = ready.split_once("udp ").unwrap();
    let address = address.split(',').next().unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.send_to(b"one:1|c", address).unwrap();
    read(&first, "one:1|c");
    // Restarted: the old socket is gone, lines wait for the new one.
    drop(first);
    sender.send_to(b"two:1|c", address).unwrap();
    let (_, admin) = ready.split_once("admin ").unwrap();
    let admin = admin.trim_matches(['\0', '\n', ' ']).parse().unwrap();
    let mut console = crate::common::console::Console::connect(admin);
    wait_until("it to have been taken", || console.counter("two"));
    let second = log(2);
    sender.send_to(b"three:1|c", address).unwrap();
    read(&second, "two:1|c");
    read(&second, "three:1|c");
    crate::common::signal(child.id(), "TERM");
    assert!(child.wait().unwrap().success());
    must("umount -l /dev");
}

/// A panic, here for want of a clock that can be read, is told in the log with its place, and on standard
/// error.
#[test]
fn a_panic_is_logged() {
    let dir = Dir::new();
    let (mut daemon, faults) =
        start_with_faults(&dir, &format!("{{ {LOCAL}, {NEVER}, backends: [] }}"));
    faults.fail(Call::Clock, libc::EINVAL, 1);
    assert_ne!(daemon.wait_end(), Some(0));
    let stdout = daemon.stdout();
    let told: Vec<_> = stdout.iter().filter(|l| l.contains("panicked")).collect();
    assert_eq!(told.len(), 1, "{stdout:?}");
    assert!(
        told[0].contains(" - ERROR: ") && told[0].contains(".rs:"),
        "{told:?}"
    );
    assert!(told[0].contains("Invalid argument"), "{told:?}");
    assert_eq!(log_lines(&daemon, "panicked"), 2, "on standard error too");
}

/// Detached, syslog is the only place where it can be told.
#[test]
fn a_panic_reaches_syslog() {
    in_namespace(&["--mount"], "system::role_panic");
}

#[test]
#[ignore = "runs in a namespace"]
fn role_panic() {
    let dir = Dir::new();
    let dev = dir.text_path("dev");
    must(&format!(
        "mkdir {dev} && cp -a /dev/null /dev/urandom {dev} && mount --rbind {dev} /dev"
    ));
    let syslogd = UnixDatagram::bind(dir.path("dev/log")).unwrap();
    syslogd.set_read_timeout(Some(DEADLINE)).unwrap();
    let heard = |wanted: &str| loop {
        let mut line = [0; 8192];
        let length = syslogd.recv(&mut line).expect(wanted);
        let line = String::from_utf8_lossy(&line[..length]).into_owned();
        if line.contains(wanted) {
            return line;
        }
    };
    let faults = Faults::new(dir.root());
    let config = format!("{{ {LOCAL}, {NEVER}, backends: [], log: {{ backend: 'syslog' }} }}");
    dir.write("statsd.js", &config);
    let mut command = faults.with(command(&["-d", "-p", "pid", "statsd.js"]));
    command.current_dir(dir.root());
    finish(command).expect(0);
    heard("server is up");
    faults.fail(Call::Clock, libc::EINVAL, 1);
    let line = heard("panicked at ");
    assert!(
        line.contains(".rs:") && line.contains("please report"),
        "{line}"
    );
    must("umount -l /dev");
}

/// The descriptors of a process that are sockets.
fn open_sockets(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let links = entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    links
        .map(|link| link.to_string_lossy().into_owned())
        .filter(|link| link.starts_with("socket:"))
        .collect()
}

/// The config file goes, comes back half, comes back whole: the running config stays until there is a
/// good one.
#[test]
fn a_config_that_is_deleted_then_half_then_whole() {
    let dir = Dir::new();
    let config =
        |prefix: &str| format!("{{ {LOCAL}, {NEVER}, backends: [], prefixStats: '{prefix}' }}");
    let mut daemon = Daemon::start(&dir, &config("one"));
    let reload = |daemon: &Daemon, text: &str| {
        let before = daemon.lines().len();
        daemon.signal("HUP");
        daemon.wait_line_after(before, text)
    };
    fs::remove_file(dir.path("statsd.js")).unwrap();
    reload(&daemon, "is not reloaded");
    let whole = config("two");
    dir.write("statsd.js", &whole[..whole.len() - 12]);
    reload(&daemon, "is not reloaded");
    daemon.send("a:1|c");
    daemon.wait_received(1);
    let own = |name: &str| daemon.console().counter(name).is_some();
    assert!(own("one.metrics_received") && !own("two.metrics_received"));
    dir.replace("statsd.js", &whole);
    reload(&daemon, "reloaded");
    assert!(own("two.metrics_received"));
    assert_eq!(
        daemon.console().counter("a"),
        Some(1.0),
        "nothing is lost by it"
    );
    daemon.stop();
}

/// The interface that a server is bound to goes away and comes back: the daemon stays, and so does what
/// is bound elsewhere; nothing spins.
#[test]
fn an_interface_that_goes_away() {
    in_namespace(&["--net"], "system::role_interface");
}

#[test]
#[ignore = "runs in a namespace"]
fn role_interface() {
    let up =
        "ip link add gone type veth && ip addr add 192.0.2.1/24 dev gone && ip link set gone up";
    must("ip link set lo up");
    must(up);
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!(
        "{{ {LOCAL}, flushInterval: 500, {},
            servers: [{{ server: 'udp', address: '192.0.2.1', port: 0 }},
                      {{ server: 'tcp', address: '192.0.2.1', port: 0 }},
                      {{ server: 'udp', address: '127.0.0.1', port: 0 }}] }}",
        graphite.config()
    );
    let mut daemon = Daemon::start(&dir, &config);
    let port = |index: usize| {
        let (_, address) = &daemon.addresses[index];
        address.clone()
    };
    let (outer, inner) = (port(0), port(2));
    let sender = UdpSocket::bind("0.0.0.0:0").unwrap();
    let tcp = daemon.tcp();
    sender.send_to(b"a:1|c", &outer).unwrap();
    wait_stored(&graphite, "stats_counts.a", 1.0);
    must("ip link del gone");
    let _ = sender.send_to(b"a:1|c", &outer);
    sender.send_to(b"b:1|c", &inner).unwrap();
    wait_stored(&graphite, "stats_counts.b", 1.0);
    let (before, flushes) = (ticks(&daemon), graphite.flushes().len());
    wait_until("two flushes more", || {
        (graphite.flushes().len() >= flushes + 2).then_some(())
    });
    assert!(ticks(&daemon) - before < 50.0, "it spins");
    must(up);
    sender.send_to(b"c:1|c", &outer).unwrap();
    wait_stored(&graphite, "stats_counts.c", 1.0);
    drop(tcp);
    assert_eq!(stat(&daemon, "server.missed_flushes"), 0.0);
    daemon.stop();
}
