//! Who may change things at the console, seen from an address that is not loopback; and what is left of
//! root. More of it is in `tests/e2e/admin.rs`, `tests/e2e/process.rs` and `tests/process.rs`.

use crate::common::Dir;
use crate::common::console::Console;
use crate::common::daemon::Daemon;
use crate::common::{NEVER, skipped, wait_until};
use crate::tools::{in_namespace, is_root, log_lines, must, program_for_all};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

const REFUSED: &str =
    "ERROR: not allowed from here; use loopback, or add this address to mgmt_allow\n";

/// Reading from anywhere, changing from loopback and from where `mgmt_allow` says; a refusal is one
/// clear line there and one in the log.
#[test]
fn mgmt_allow_from_elsewhere() {
    in_namespace(&["--net"], "access::role_elsewhere");
}

#[test]
#[ignore = "runs in a namespace"]
fn role_elsewhere() {
    must(
        "ip link set lo up && ip addr add 192.0.2.1/32 dev lo && ip addr add 198.51.100.1/32 dev lo",
    );
    let dir = Dir::new();
    let config = |allow: &str| {
        format!(
            "{{ address: '127.0.0.1', port: 0, mgmt_port: 0, {NEVER}, backends: [], mgmt_allow: [{allow}] }}"
        )
    };
    let mut daemon = Daemon::start(&dir, &config("'198.51.100.0/24'"));
    let port = daemon.address("admin").port();
    let from = |ip: &str| {
        let to: SocketAddr = format!("{ip}:{port}").parse().unwrap();
        // Connecting to one's own address comes from that address.
        let stream = TcpStream::connect(to).unwrap();
        assert_eq!(stream.local_addr().unwrap().ip(), to.ip());
        Console::over(stream)
    };
    daemon.send("a:1|c\nt:1|ms\ng:1|g");
    daemon.wait_received(3);
    let mut elsewhere = from("192.0.2.1");
    for command in [
        "delcounters a",
        "deltimers t",
        "delgauges g",
        "delgauges *",
        "health down",
    ] {
        assert_eq!(elsewhere.ask(command, "\n"), REFUSED, "{command}");
    }
    for (command, shown) in [
        ("counters", "\"a\""),
        ("timers", "\"t\""),
        ("gauges", "\"g\""),
    ] {
        assert!(
            elsewhere.ask(command, "END\n\n").contains(shown),
            "{command}"
        );
    }
    assert_eq!(elsewhere.ask("health", "\n"), "health: up\n");
    wait_until("each refusal to be logged", || {
        let refusals = log_lines(&daemon, "from 192.0.2.1, which is not in mgmt_allow");
        (refusals == 5).then_some(())
    });
    let mut allowed = from("198.51.100.1");
    assert!(
        allowed
            .ask("delcounters a", "END\n\n")
            .contains("deleted: a")
    );
    assert!(
        from("127.0.0.1")
            .ask("deltimers t", "END\n\n")
            .contains("deleted: t")
    );
    // A reload holds for who is connected already.
    dir.replace("statsd.js", &config("'192.0.2.0/24'"));
    daemon.signal("HUP");
    daemon.wait_line("reloaded");
    assert!(
        elsewhere
            .ask("delgauges g", "END\n\n")
            .contains("deleted: g")
    );
    assert_eq!(allowed.ask("delgauges g", "\n"), REFUSED);
    daemon.stop();
}

/// The daemon itself, started as root with what root has: afterwards it is another for good, its memory
/// does not land in a file, and what it was handed is gone.
#[test]
fn root_is_left_for_good() {
    if !is_root() {
        return skipped("leaving root takes root");
    }
    let dir = Dir::new();
    program_for_all(&dir);
    let text = format!(
        "{{ address: '127.0.0.1', port: 1, mgmt_address: '127.0.0.1', mgmt_port: 0, {NEVER}, backends: [] }}"
    );
    // A port that takes root, so that binding comes first and leaving root after it. Each run of the tests
    // looks from a place of its own on.
    let first = std::process::id() as u16 % 1023;
    let port = (0..1023)
        .map(|n| 1 + (first + n) % 1023)
        .find(|port| std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok());
    let config = text.replace("port: 1,", &format!("port: {},", port.unwrap()));
    dir.write("statsd.js", &config);
    dir.write("secret", "root's");
    let mut command = Command::new("sh");
    let script = "umask 0; exec 7<secret 8<secret; LD_LIBRARY_PATH=/nowhere exec ./statsd -u nobody statsd.js";
    command.args(["-c", script]).current_dir(dir.root());
    let mut daemon = Daemon::launch(command);
    // What is queued before it is ready is read by who it has become; and it is read.
    daemon.send("a:1|c");
    daemon.wait_received(1);
    let proc = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", daemon.pid())).unwrap();
    let status = proc("status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(field("Uid:"), "65534 65534 65534 65534");
    assert_eq!(field("Gid:"), "65534 65534 65534 65534");
    assert_eq!(field("Groups:"), "65534");
    for set in ["CapEff:", "CapPrm:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(&field(set), 16).unwrap(), 0, "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1", "no set-uid program leads back");
    assert_eq!(field("Umask:"), "0022");
    let limits = proc("limits");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let files = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
    let links = files.map(|entry| fs::read_link(entry.unwrap().path()).unwrap());
    assert!(!links.into_iter().any(|link| link.ends_with("secret")));
    daemon.stop();
}
