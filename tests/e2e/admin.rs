//! The admin console over its socket: framing, JSON, slow clients, who may change things. The
//! recorded replies to each command are in `vectors`.

use crate::common::console::Console;
use crate::common::daemon::Daemon;
use crate::common::graphite::Graphite;
use crate::common::{DEADLINE, Dir, LOCAL, NEVER, has_ipv6, outside_address, skipped, wait_until};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

fn start(dir: &Dir) -> Daemon {
    Daemon::start(
        dir,
        &format!("{{ {LOCAL}, {NEVER}, backends: ['graphite'] }}"),
    )
}

#[test]
fn commands_pipelined_in_one_segment() {
    let dir = Dir::new();
    let mut daemon = start(&dir);
    let mut console = daemon.console();
    console.send("health down\nhealth\nhealth up\nnonsense\ndelgauges x\nquit\nhealth\n");
    let reply = console.read_to_close();
    let expected = "health: down\nhealth: down\nhealth: up\nERROR\nmetric x not found\nEND\n\n";
    assert_eq!(reply, expected, "in order, and nothing after quit");
    daemon.stop();
}

#[test]
fn a_command_split_over_segments() {
    let dir = Dir::new();
    let mut daemon = start(&dir);
    let (mut split, mut other) = (daemon.console(), daemon.console());
    for part in ["he", "alth", " do", "wn\r", "\nhea"] {
        split.send(part);
        // Another client's answer shows that the daemon has been round its loop.
        assert!(other.ask("health", "\n").starts_with("health: "));
    }
    assert_eq!(split.read_until("\n"), "health: down\n");
    split.send("lth\nquit\n");
    assert_eq!(
        split.read_to_close(),
        "health: down\n",
        "the rest made one more command"
    );
    daemon.stop();
}

#[test]
fn a_client_that_half_closes_gets_all_its_replies() {
    // `printf 'stats\nhealth' | nc -N`: the last command may lack its line end.
    let dir = Dir::new();
    let mut daemon = start(&dir);
    let stream = TcpStream::connect(daemon.address("admin")).unwrap();
    let half = stream.try_clone().unwrap();
    let mut console = Console::over(stream);
    console.send(&"stats\ncounters\n".repeat(20));
    console.send("health");
    half.shutdown(Shutdown::Write).unwrap();
    let replies = console.read_to_close();
    assert_eq!(replies.matches("uptime: ").count(), 20);
    assert_eq!(replies.matches("END\n\n").count(), 40);
    assert!(replies.ends_with("END\n\nhealth: up\n"), "{replies}");
    daemon.stop();
}

#[test]
fn the_console_answers_down_while_the_daemon_ends() {
    let (dir, mut graphite) = (Dir::new(), Graphite::absent(false));
    let config = format!("{{ {LOCAL}, {NEVER}, {} }}", graphite.config());
    let mut daemon = Daemon::start(&dir, &config);
    let mut console = daemon.console();
    assert_eq!(console.ask("health", "\n"), "health: up\n");
    // Nobody takes the last flush yet, so the end has to wait.
    daemon.signal("TERM");
    wait_until("the end to begin", || {
        (console.ask("health", "\n") == "health: down\n").then_some(())
    });
    assert_eq!(daemon.console().ask("health", "\n"), "health: down\n");
    graphite.up();
    assert_eq!(daemon.wait_end(), Some(0));
    assert_eq!(graphite.flushes().len(), 1);
}

#[test]
fn counters_timers_and_gauges_are_json_one_name_a_line() {
    let dir = Dir::new();
    let mut daemon = start(&dir);
    daemon.send("c:1.5|c\nc;a=b:2|c\nt:3|ms\nt:1|ms\nu:2|ms|@0.1\ng:-4|g");
    daemon.wait_received(6);
    let mut console = daemon.console();

    let counters = console.json("counters");
    assert_eq!(counters.at("c").number(), Some(1.5));
    assert_eq!(counters.at("c;a=b").number(), Some(2.0));
    assert_eq!(counters.at("statsd.metrics_received").number(), Some(6.0));
    assert_eq!(counters.at("statsd.bad_lines_seen").number(), Some(0.0));

    let timers = console.json("timers");
    let values: Vec<_> = timers
        .at("t")
        .items()
        .iter()
        .filter_map(|v| v.number())
        .collect();
    assert_eq!(values.iter().sum::<f64>(), 4.0, "{timers}");
    assert_eq!(timers.at("u").items().len(), 1, "{timers}");
    assert_eq!(console.json("gauges").at("g").number(), Some(-4.0));

    let text = console.ask("counters", "END\n\n");
    for name in ["\"c\"", "\"c;a=b\"", "\"statsd.metrics_received\""] {
        assert_eq!(
            text.lines().filter(|line| line.contains(name)).count(),
            1,
            "{text}"
        );
    }
    let crowded = text.lines().find(|line| line.matches("\":").count() > 1);
    assert_eq!(crowded, None, "one name a line");
    daemon.stop();
}

#[test]
fn empty_tables_are_json_too() {
    let dir = Dir::new();
    let mut daemon = start(&dir);
    let mut console = daemon.console();
    assert!(console.json("timers").members().is_empty());
    assert!(console.json("gauges").members().is_empty());
    daemon.stop();
}

#[test]
fn config_lists_the_file() {
    let dir = Dir::new();
    let config = format!(
        "{{ {LOCAL}, {NEVER}, prefixStats: 'me', graphite: {{ legacyNamespace: false }},
            backends: [], deleteIdleStats: true, myBackend: {{ key: 'value' }} }}"
    );
    let mut daemon = Daemon::start(&dir, &config);
    let mut console = daemon.console();
    console.send("config\nquit\n");
    let reply = console.read_to_close();
    assert!(reply.starts_with('\n'), "an empty line first: {reply:?}");
    let expected = [
        "flushInterval: 3600000",
        "prefixStats: me",
        "graphite > legacyNamespace: false",
        "deleteIdleStats: true",
        "myBackend > key: value",
    ];
    for line in expected {
        assert!(
            reply.lines().any(|found| found == line),
            "{line} in {reply}"
        );
    }
    daemon.stop();
}

#[test]
fn stats_has_the_originals_lines_first() {
    let dir = Dir::new();
    let mut daemon = start(&dir);
    daemon.send("bad line\nworse:x|c\na:1|c");
    daemon.wait_received(3);
    let mut console = daemon.console();
    let reply = console.ask("stats", "END\n\n");
    let lines: Vec<_> = reply.lines().collect();
    assert!(lines[0].starts_with("uptime: "), "{reply}");
    assert!(lines[1].starts_with("messages.last_msg_seen: "), "{reply}");
    assert_eq!(lines[2], "messages.bad_lines_seen: 2");
    for line in &lines[..lines.len() - 2] {
        let (_, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?}"));
        assert!(value.parse::<f64>().is_ok(), "{line:?}");
    }
    assert_eq!(console.ask("health", "\n"), "health: up\n");
    daemon.stop();
}

#[test]
fn health_is_seen_by_all_and_deletion_is_for_good() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!("{{ {LOCAL}, {NEVER}, {} }}", graphite.config());
    let mut daemon = Daemon::start(&dir, &config);
    daemon.send("gone:1|c\nkept:1|c\ngone:2|g\nkept:2|g\ngone:3|ms\nkept:3|ms");
    daemon.wait_received(6);
    let mut console = daemon.console();
    assert_eq!(console.ask("health down", "\n"), "health: down\n");
    assert_eq!(daemon.console().ask("health", "\n"), "health: down\n");
    for command in ["delcounters", "delgauges", "deltimers"] {
        let reply = console.ask(&format!("{command} gone"), "END\n\n");
        assert_eq!(reply, "deleted: gone\nEND\n\n", "{command}");
    }
    daemon.stop();
    let flush = &graphite.flushes()[0];
    let left: Vec<_> = flush
        .iter()
        .filter(|point| point.name.contains("gone"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let kept = [
        "stats_counts.kept",
        "stats.gauges.kept",
        "stats.timers.kept.sum",
    ];
    assert_eq!(kept.map(|name| graphite.sum(name)), [1.0, 2.0, 3.0]);
}

#[test]
fn a_client_that_never_reads_holds_up_nobody() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!(
        "{{ {LOCAL}, flushInterval: 200, server: 'tcp', mgmtBufferBytes: 65536, {} }}",
        graphite.config()
    );
    let mut daemon = Daemon::start(&dir, &config);
    let lines: String = (0..5000)
        .map(|n| format!("a.rather.long.name.{n}:1|c\n"))
        .collect();
    daemon.send_tcp(&lines);
    let mut console = daemon.console();
    wait_until("the names", || console.counter("a.rather.long.name.4999"));

    // Each reply is some 150 kB; nobody reads them. Cut off or kept waiting are both fine.
    let mut deaf = TcpStream::connect(daemon.address("admin")).unwrap();
    deaf.set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    for _ in 0..200 {
        if deaf.write_all(b"counters\n").is_err() {
            break;
        }
    }
    let flushes = graphite.flushes().len();
    for _ in 0..10 {
        let asked = Instant::now();
        assert_eq!(console.ask("health", "\n"), "health: up\n");
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(2), "the console took {took:?}");
    }
    graphite.wait_flushes(flushes + 2);
    let resident = crate::common::status_field(daemon.pid(), "VmRSS:");
    assert!(
        resident < 32 * 1024,
        "{resident} kB resident, 30 MB of replies were asked for"
    );
    drop(deaf);
    daemon.stop();
}

#[test]
fn a_line_without_end_is_bounded() {
    let dir = Dir::new();
    let mut daemon = start(&dir);
    let mut stream = TcpStream::connect(daemon.address("admin")).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    let before = crate::common::status_field(daemon.pid(), "VmRSS:");
    // Refused with an error or by a close, but not kept.
    for _ in 0..16 {
        if stream.write_all(&[b'x'; 1 << 20]).is_err() {
            break;
        }
    }
    assert_eq!(daemon.console().ask("health", "\n"), "health: up\n");
    let after = crate::common::status_field(daemon.pid(), "VmRSS:");
    assert!(
        after < before + 4096,
        "{before} kB before, {after} kB after"
    );
    daemon.stop();
}

/// Asks over a connection to that address, whose other end then has the same address.
fn ask_over(ip: IpAddr, port: u16, command: &str, end: &str) -> String {
    let stream = TcpStream::connect_timeout(&SocketAddr::new(ip, port), DEADLINE).unwrap();
    assert_eq!(stream.local_addr().unwrap().ip(), ip);
    Console::over(stream).ask(command, end)
}

#[test]
fn every_loopback_address_may_change_things() {
    let dir = Dir::new();
    // No mgmt_address: every address, both families, as the original.
    let config =
        format!("{{ address: '127.0.0.1', port: 0, mgmt_port: 0, {NEVER}, backends: [] }}");
    let mut daemon = Daemon::start(&dir, &config);
    let port = daemon.address("admin").port();
    let mut loopbacks: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into()];
    if has_ipv6() {
        loopbacks.push(Ipv6Addr::LOCALHOST.into());
    }
    for ip in loopbacks {
        assert_eq!(
            ask_over(ip, port, "health down", "\n"),
            "health: down\n",
            "{ip}"
        );
        assert_eq!(
            ask_over(ip, port, "health up", "\n"),
            "health: up\n",
            "{ip}"
        );
        let reply = ask_over(ip, port, "delcounters nope", "END\n\n");
        assert_eq!(reply, "metric nope not found\nEND\n\n", "{ip}");
    }
    daemon.stop();
}

#[test]
fn from_elsewhere_reading_only() {
    let Some(ip) = outside_address() else {
        return skipped("no address but loopback");
    };
    let dir = Dir::new();
    let config =
        format!("{{ address: '127.0.0.1', port: 0, mgmt_port: 0, {NEVER}, backends: [] }}");
    let mut daemon = Daemon::start(&dir, &config);
    let port = daemon.address("admin").port();
    daemon.send("a:1|c\ng:1|g\nt:1|ms");
    daemon.wait_received(3);
    for command in ["delcounters a", "delgauges g", "deltimers t", "health down"] {
        let reply = ask_over(ip, port, command, "\n");
        let refused = !reply.starts_with("deleted") && reply != "health: down\n";
        assert!(
            refused && reply.trim().len() > 5,
            "{command}: one clear line, not {reply:?}"
        );
        daemon.wait_line(&ip.to_string());
    }
    assert!(ask_over(ip, port, "counters", "END\n\n").contains("\"a\""));
    assert_eq!(ask_over(ip, port, "health", "\n"), "health: up\n");
    let mut console = daemon.console();
    assert_eq!(console.counter("a"), Some(1.0));
    assert_eq!(console.json("gauges").at("g").number(), Some(1.0));
    assert_eq!(console.json("timers").at("t").items().len(), 1);
    daemon.stop();
}

#[test]
fn mgmt_allow_lets_a_network_change_things() {
    let Some(ip) = outside_address() else {
        return skipped("no address but loopback");
    };
    let dir = Dir::new();
    let config = format!(
        "{{ address: '127.0.0.1', port: 0, mgmt_port: 0, {NEVER}, backends: [],
            mgmt_allow: ['192.0.2.0/24', '{ip}'] }}"
    );
    let mut daemon = Daemon::start(&dir, &config);
    let port = daemon.address("admin").port();
    assert_eq!(ask_over(ip, port, "health down", "\n"), "health: down\n");
    let reply = ask_over(ip, port, "delcounters nope", "END\n\n");
    assert_eq!(reply, "metric nope not found\nEND\n\n");
    daemon.stop();
}
