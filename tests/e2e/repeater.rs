//! The repeater backend: each packet goes on as it came, and a dead target hurts nobody.

use crate::common::daemon::Daemon;
use crate::common::graphite::Graphite;
use crate::common::{DEADLINE, Dir, LOCAL, accept, has_ipv6, listener, skipped, udp_socket};
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};

/// Raw packets: ends kept, several lines kept, bad lines kept, bytes that are no text kept.
const PACKETS: [&[u8]; 5] = [
    b"a:1|c",
    b"a:1|c\nb:2|ms\n",
    b"nonsense",
    b"\n\n",
    b"x:\xff\xfe|s",
];

/// What a dead target is owed is waited for at the end, but not for long.
const SOON: &str = "shutdownTimeout: 300";

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 65536];
    let length = loop {
        match socket.recv(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => break other.expect("the packet must arrive"),
        }
    };
    buffer[..length].to_vec()
}

/// A port that refuses: bound and closed would let others take it, bound and not listening does not.
fn dead_tcp() -> (socket2::Socket, u16) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

fn config(protocol: &str, targets: &[(IpAddr, u16)], more: &str) -> String {
    let targets: Vec<_> = targets
        .iter()
        .map(|(host, port)| format!("{{ host: '{host}', port: {port} }}"))
        .collect();
    let list = targets.join(", ");
    format!("{{ {LOCAL}, {more}, repeater: [{list}], repeaterProtocol: '{protocol}' }}")
}

fn udp_targets(protocol: &str, loopback: IpAddr) {
    let dir = Dir::new();
    let (one, two) = (udp_socket(loopback), udp_socket(loopback));
    let ports = [&one, &two].map(|socket| (loopback, socket.local_addr().unwrap().port()));
    let config = config(protocol, &ports, "backends: ['./backends/repeater']");
    let mut daemon = Daemon::start(&dir, &config);
    let sender = udp_socket(Ipv4Addr::LOCALHOST);
    for packet in PACKETS {
        sender.send_to(packet, daemon.address("udp")).unwrap();
        assert_eq!(receive(&one), packet);
        assert_eq!(receive(&two), packet);
    }
    daemon.stop();
}

#[test]
fn udp4() {
    udp_targets("udp4", Ipv4Addr::LOCALHOST.into());
}

#[test]
fn udp6() {
    if !has_ipv6() {
        return skipped("no IPv6 on loopback");
    }
    udp_targets("udp6", Ipv6Addr::LOCALHOST.into());
}

#[test]
fn tcp_ends_each_packet_with_a_line_end() {
    let dir = Dir::new();
    let listener = listener();
    let port = listener.local_addr().unwrap().port();
    let target = (Ipv4Addr::LOCALHOST.into(), port);
    let mut daemon = Daemon::start(&dir, &config("tcp", &[target], "backends: ['repeater']"));
    daemon.send("a:1|c");
    let mut stream = accept(&listener);
    expect(&mut stream, b"a:1|c\n");
    daemon.send("a:1|c\nb:2|ms");
    expect(&mut stream, b"a:1|c\nb:2|ms\n");
    // The original adds one to these too; no statsd can tell.
    daemon.send("with its own end:1|c\n");
    daemon.send("next:1|c");
    expect(&mut stream, b"with its own end:1|c\nnext:1|c\n");
    daemon.stop();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"", "nothing more");
}

fn expect(stream: &mut TcpStream, wanted: &[u8]) {
    let mut bytes = vec![0; wanted.len()];
    stream
        .read_exact(&mut bytes)
        .expect("the packet must arrive");
    assert_eq!(bytes, wanted);
}

#[test]
fn a_dead_udp_target_stops_nothing() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let live = udp_socket(Ipv4Addr::LOCALHOST);
    // Closed at once. The kernel answers with "port unreachable", which the next send gets to see.
    let dead = udp_socket(Ipv4Addr::LOCALHOST).local_addr().unwrap().port();
    let local = Ipv4Addr::LOCALHOST.into();
    let targets = [(local, dead), (local, live.local_addr().unwrap().port())];
    let more = format!("flushInterval: 100, {}", graphite.config());
    let more = more.replace("backends: [", "backends: ['repeater', ");
    let mut daemon = Daemon::start(&dir, &config("udp4", &targets, &more));
    for _ in 0..50 {
        daemon.send("a:1|c");
        assert_eq!(receive(&live), b"a:1|c");
    }
    graphite.wait_sum("stats_counts.a", 50.0);
    daemon.stop();
}

#[test]
fn a_dead_tcp_target_stops_nothing() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let listener = listener();
    let (_dead, port) = dead_tcp();
    let local = Ipv4Addr::LOCALHOST.into();
    let targets = [
        (local, port),
        (local, listener.local_addr().unwrap().port()),
    ];
    let more = format!("flushInterval: 100, {SOON}, {}", graphite.config());
    let more = more.replace("backends: [", "backends: ['repeater', ");
    let mut daemon = Daemon::start(&dir, &config("tcp", &targets, &more));
    daemon.send("a:1|c");
    let mut stream = accept(&listener);
    expect(&mut stream, b"a:1|c\n");
    for _ in 0..49 {
        daemon.send("a:1|c");
        expect(&mut stream, b"a:1|c\n");
    }
    graphite.wait_sum("stats_counts.a", 50.0);
    daemon.stop();
}

#[test]
fn a_tcp_target_that_never_reads_stops_nothing() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    // Listening, so that the kernel accepts; nobody ever reads.
    let listener = listener();
    let target = (
        Ipv4Addr::LOCALHOST.into(),
        listener.local_addr().unwrap().port(),
    );
    let more = format!(
        "flushInterval: 100, {SOON}, repeaterBufferBytes: 65536, {},
         servers: [{{ server: 'tcp', address: '127.0.0.1', port: 0 }}]",
        graphite.config()
    );
    let more = more.replace("backends: [", "backends: ['repeater', ");
    let mut daemon = Daemon::start(&dir, &config("tcp", &[target], &more));
    // 12 MB, far more than kernel and buffer hold.
    let lines = "a.name.of.some.length.for.the.repeater:1|c\n".repeat(10_000);
    for _ in 0..30 {
        daemon.send_tcp(&lines);
    }
    graphite.wait_sum(
        "stats_counts.a.name.of.some.length.for.the.repeater",
        300_000.0,
    );
    daemon.stop();
}

#[test]
fn a_tcp_target_that_comes_late_gets_what_follows() {
    let dir = Dir::new();
    let (socket, port) = dead_tcp();
    let target = (Ipv4Addr::LOCALHOST.into(), port);
    let more = "flushInterval: 3600000, backends: ['repeater']";
    let mut daemon = Daemon::start(&dir, &config("tcp", &[target], more));
    daemon.send("early:1|c");
    daemon.wait_received(1);
    socket.listen(16).unwrap();
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true).unwrap();
    let mut count = 1;
    let mut stream = crate::common::wait_until("a connection", || {
        daemon.send("late:1|c");
        count += 1;
        daemon.wait_received(count);
        listener.accept().ok().map(|(stream, _)| stream)
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    daemon.stop();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("late:1|c\n"), "{text:?}");
}
