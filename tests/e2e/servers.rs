//! Each kind of server: udp on IPv4, IPv6 and both, tcp, unix stream sockets, several at once.

use crate::common::daemon::{Daemon, command, finish};
use crate::common::graphite::Graphite;
use crate::common::{Dir, LOCAL, NEVER, has_ipv6, reset, skipped, udp_socket, wait_until};
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

const TCP: &str = "server: './servers/tcp'";

#[test]
fn udp_ipv4() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!("{{ {LOCAL}, flushInterval: 100, {} }}", graphite.config());
    let mut daemon = Daemon::start(&dir, &config);
    for _ in 0..50 {
        daemon.send("a:1|c\nb:2|c\n");
    }
    graphite.wait_sum("stats_counts.a", 50.0);
    graphite.wait_sum("stats_counts.b", 100.0);
    daemon.stop();
    assert_eq!(graphite.sum("stats_counts.a"), 50.0);
    assert_eq!(graphite.sum("stats_counts.statsd.packets_received"), 50.0);
    assert_eq!(graphite.sum("stats_counts.statsd.metrics_received"), 100.0);
}

#[test]
fn udp_ipv6() {
    if !has_ipv6() {
        return skipped("no IPv6 on loopback");
    }
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!(
        "{{ address: '::1', address_ipv6: true, port: 0, mgmt_address: '::1', mgmt_port: 0,
            {NEVER}, {} }}",
        graphite.config()
    );
    let mut daemon = Daemon::start(&dir, &config);
    assert_eq!(daemon.address("udp").ip(), Ipv6Addr::LOCALHOST);
    assert_eq!(daemon.address("admin").ip(), Ipv6Addr::LOCALHOST);
    daemon.send("a:1|c");
    daemon.wait_received(1);
    daemon.stop();
    assert_eq!(graphite.sum("stats_counts.a"), 1.0);
}

#[test]
fn udp_dual_stack() {
    if !has_ipv6() {
        return skipped("no IPv6 on loopback");
    }
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!(
        "{{ address_ipv6: true, port: 0, mgmt_address: '127.0.0.1', mgmt_port: 0, {NEVER}, {} }}",
        graphite.config()
    );
    let mut daemon = Daemon::start(&dir, &config);
    let port = daemon.address("udp").port();
    let four = udp_socket(Ipv4Addr::LOCALHOST);
    let six = udp_socket(Ipv6Addr::LOCALHOST);
    four.send_to(b"a:1|c", (Ipv4Addr::LOCALHOST, port)).unwrap();
    six.send_to(b"a:2|c", (Ipv6Addr::LOCALHOST, port)).unwrap();
    daemon.wait_received(2);
    daemon.stop();
    assert_eq!(graphite.sum("stats_counts.a"), 3.0);
}

#[test]
fn udp_without_an_address_is_every_ipv4_address() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!(
        "{{ port: 0, mgmt_address: '127.0.0.1', mgmt_port: 0, {NEVER}, {} }}",
        graphite.config()
    );
    let mut daemon = Daemon::start(&dir, &config);
    let port = daemon.address("udp").port();
    let socket = udp_socket(Ipv4Addr::UNSPECIFIED);
    // All of 127.0.0.0/8 is this machine.
    socket
        .send_to(b"a:1|c", (Ipv4Addr::new(127, 0, 0, 2), port))
        .unwrap();
    daemon.wait_received(1);
    daemon.stop();
    assert_eq!(graphite.sum("stats_counts.a"), 1.0);
}

#[test]
fn tcp_lines_over_segment_ends() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!("{{ {LOCAL}, {TCP}, {NEVER}, {} }}", graphite.config());
    let mut daemon = Daemon::start(&dir, &config);
    let mut stream = daemon.tcp();
    stream.write_all(b"a:1|c\nb:2").unwrap();
    // The first line must count before the second is whole.
    daemon.wait_received(1);
    stream.write_all(b"0|").unwrap();
    stream.write_all(b"c\nc:3|c").unwrap();
    daemon.wait_received(2);
    stream.write_all(b"\n").unwrap();
    daemon.wait_received(3);
    // What has no end when the client goes is no line, as in the original.
    stream.write_all(b"d:1|c\nd:1|c").unwrap();
    drop(stream);
    daemon.wait_received(4);
    daemon.stop();
    let sums = ["a", "b", "c", "d"].map(|name| graphite.sum(&format!("stats_counts.{name}")));
    assert_eq!(sums, [1.0, 20.0, 3.0, 1.0]);
}

#[test]
fn tcp_many_clients() {
    const CLIENTS: u64 = 200;
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!("{{ {LOCAL}, {TCP}, {NEVER}, {} }}", graphite.config());
    let mut daemon = Daemon::start(&dir, &config);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| daemon.tcp()).collect();
    // All at once in the middle of a line, each with its own name and a common one.
    for (index, client) in clients.iter_mut().enumerate() {
        client
            .write_all(format!("all:1|c\nown{index}:1|c\nal").as_bytes())
            .unwrap();
    }
    daemon.wait_received(2 * CLIENTS);
    for client in clients.iter_mut().rev() {
        client.write_all(b"l:10|c\n").unwrap();
    }
    daemon.wait_received(3 * CLIENTS);
    drop(clients);
    daemon.stop();
    assert_eq!(graphite.sum("stats_counts.all"), 11.0 * CLIENTS as f64);
    for index in 0..CLIENTS {
        assert_eq!(
            graphite.sum(&format!("stats_counts.own{index}")),
            1.0,
            "client {index}"
        );
    }
    assert_eq!(graphite.sum("stats_counts.statsd.bad_lines_seen"), 0.0);
}

#[test]
fn tcp_carries_much_at_once() {
    const LINES: u64 = 100_000;
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!("{{ {LOCAL}, {TCP}, {NEVER}, {} }}", graphite.config());
    let mut daemon = Daemon::start(&dir, &config);
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let mut stream = daemon.tcp();
            let lines = (0..LINES / 4).map(|line| format!("n{}:1|c\n", (line + writer) % 100));
            let text: String = lines.collect();
            thread::spawn(move || stream.write_all(text.as_bytes()).unwrap())
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    daemon.wait_received(LINES);
    daemon.stop();
    for name in 0..100 {
        assert_eq!(
            graphite.sum(&format!("stats_counts.n{name}")),
            LINES as f64 / 100.0
        );
    }
}

#[test]
fn unix_socket_with_its_mode_and_gone_at_the_end() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let path = dir.path("statsd.sock");
    // In octal as text, the way that JSON5 can say it too.
    let socket = format!("{TCP}, socket: '{}', socket_mod: '0620'", path.display());
    let config = format!("{{ {LOCAL}, {socket}, {NEVER}, {} }}", graphite.config());
    let mut daemon = Daemon::start(&dir, &config);
    assert_eq!(daemon.socket_path(), path);
    let metadata = fs::metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o620);
    let mut one = UnixStream::connect(&path).unwrap();
    let mut two = UnixStream::connect(&path).unwrap();
    one.write_all(b"a:1|c\nb:").unwrap();
    two.write_all(b"a:2|c\n").unwrap();
    one.write_all(b"4|c\n").unwrap();
    daemon.wait_received(3);
    daemon.stop();
    assert_eq!(graphite.sum("stats_counts.a"), 3.0);
    assert_eq!(graphite.sum("stats_counts.b"), 4.0);
    assert!(!path.exists(), "the socket's file must go with the daemon");
}

#[test]
fn unix_socket_mode_as_a_number() {
    let dir = Dir::new();
    let path = dir.path("s");
    // 0o600, decimal, as the original's config would have it after evaluation.
    let socket = format!("{TCP}, socket: '{}', socket_mod: 384", path.display());
    let mut daemon = Daemon::start(&dir, &format!("{{ {LOCAL}, {socket}, backends: [] }}"));
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    daemon.stop();
}

#[test]
fn unix_socket_that_is_stale_is_no_obstacle() {
    let dir = Dir::new();
    let path = dir.path("s");
    // Closing a listener leaves its file behind, as a crash does.
    drop(UnixListener::bind(&path).unwrap());
    let socket = format!("{TCP}, socket: '{}'", path.display());
    let config = format!("{{ {LOCAL}, {socket}, {NEVER}, backends: [] }}");
    let mut daemon = Daemon::start(&dir, &config);
    UnixStream::connect(&path)
        .unwrap()
        .write_all(b"a:1|c\n")
        .unwrap();
    daemon.wait_received(1);

    // A live one is: its clients would be cut off silently.
    let mut second = command(&[]);
    second.arg(dir.write("second.js", &config));
    let finished = finish(second);
    finished.expect(3);
    assert!(
        finished.stderr.contains(path.to_str().unwrap()),
        "{}",
        finished.stderr
    );
    UnixStream::connect(&path)
        .unwrap()
        .write_all(b"a:1|c\n")
        .unwrap();
    daemon.wait_received(2);
    daemon.stop();
}

#[test]
fn unix_socket_path_with_a_file_of_someone_else() {
    let dir = Dir::new();
    let path = dir.write("precious", "data");
    let socket = format!("{TCP}, socket: '{}'", path.display());
    let config = dir.write(
        "statsd.js",
        &format!("{{ {LOCAL}, {socket}, backends: [] }}"),
    );
    finish(command(&[config.to_str().unwrap()])).expect(3);
    assert_eq!(dir.read("precious"), "data");
}

#[test]
fn several_servers_at_once() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let path = dir.path("s");
    let config = format!(
        "{{
            servers: [
                {{ server: './servers/udp', address: '127.0.0.1', port: 0 }},
                {{ server: 'tcp', address: '127.0.0.1', port: 0 }},
                {{ server: './servers/tcp', socket: '{}' }},
                {{ server: 'udp', address: '127.0.0.2', port: 0 }},
            ],
            mgmt_address: '127.0.0.1', mgmt_port: 0, {NEVER}, {} }}",
        path.display(),
        graphite.config()
    );
    let mut daemon = Daemon::start(&dir, &config);
    let kinds: Vec<_> = daemon
        .addresses
        .iter()
        .map(|(kind, _)| kind.as_str())
        .collect();
    assert_eq!(
        kinds,
        ["udp", "tcp", "unix", "udp", "admin"],
        "in the order of the config"
    );
    daemon.send("a:1|c");
    daemon.send_tcp("a:2|c\n");
    UnixStream::connect(&path)
        .unwrap()
        .write_all(b"a:4|c\n")
        .unwrap();
    let second: SocketAddr = daemon.addresses[3].1.parse().unwrap();
    udp_socket(Ipv4Addr::LOCALHOST)
        .send_to(b"a:8|c", second)
        .unwrap();
    daemon.wait_received(4);
    daemon.stop();
    assert_eq!(graphite.sum("stats_counts.a"), 15.0);
}

#[test]
fn a_clients_reset_ends_that_connection_alone() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!("{{ {LOCAL}, {TCP}, {NEVER}, {} }}", graphite.config());
    let mut daemon = Daemon::start(&dir, &config);
    let mut steady = daemon.tcp();
    steady.write_all(b"steady:1|c\nsteady:1").unwrap();
    for _ in 0..5 {
        let mut rude = daemon.tcp();
        rude.write_all(b"rude:1|c\nrude:").unwrap();
        reset(rude);
        let mut rude = TcpStream::connect(daemon.address("admin")).unwrap();
        rude.write_all(b"counters\ncoun").unwrap();
        reset(rude);
    }
    steady.write_all(b"|c\n").unwrap();
    wait_until("the steady client's second line", || {
        (daemon.console().counter("steady")? == 2.0).then_some(())
    });
    daemon.assert_running();
    daemon.stop();
    assert_eq!(graphite.sum("stats_counts.steady"), 2.0);
    assert_eq!(graphite.sum("stats_counts.statsd.bad_lines_seen"), 0.0);
}
