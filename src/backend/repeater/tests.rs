//! The repeater against real sockets on loopback, on the real loop with a clock that can be set forward.

use super::*;
use crate::config::{Environment, load::statsd_from_text};
use crate::event_loop::{self, Flow, Role};
use crate::process::notify::Notifier;
use crate::process::signals::{SignalSet, Signals};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(20);

fn config(protocol: &str, ports: &[u16], limit: usize) -> Config {
    let targets: Vec<_> = ports.iter().map(|port| ("127.0.0.1", *port)).collect();
    config_with(protocol, &targets, limit)
}

fn config_with(protocol: &str, targets: &[(&str, u16)], limit: usize) -> Config {
    let text = format!("{{repeaterProtocol: '{protocol}'}}");
    let loaded = statsd_from_text(&text, "test", &Environment::of_this_machine());
    let targets = targets.iter().map(|(host, port)| Target {
        host: host.to_string(),
        port: *port,
    });
    Config {
        repeater: targets.collect(),
        repeater_buffer_bytes: limit,
        ..loaded.unwrap().config
    }
}

/// Runs the repeater on the loop until `done`; `ahead` is added to the clock.
struct Run<'a, F> {
    repeater: &'a mut Repeater,
    ahead: Duration,
    done: F,
    until: Instant,
    longest: Duration,
}

impl<F: FnMut(&mut Repeater) -> bool> Role for Run<'_, F> {
    fn register(&mut self, poll: &mut PollSet) {
        self.repeater.register(poll);
        poll.wake_at(Instant::now() + Duration::from_millis(5));
    }
    fn signals(&mut self, _signals: SignalSet, _now: Now) {}
    fn console(&mut self, _poll: &PollSet, _now: Now) {}
    fn data(&mut self, _poll: &PollSet, _now: Now) {}
    fn deadlines(&mut self, poll: &PollSet, now: Now) -> Flow {
        let now = Now {
            mono: now.mono + self.ahead,
            wall: now.wall + self.ahead,
        };
        let began = Instant::now();
        self.repeater.turn(poll, now);
        self.longest = self.longest.max(began.elapsed());
        if (self.done)(self.repeater) {
            return Flow::Done;
        }
        assert!(Instant::now() < self.until, "it did not come to pass");
        Flow::On
    }
    fn reap(&mut self, _now: Now) {}
}

/// The longest turn.
fn run_ahead(
    repeater: &mut Repeater,
    ahead: Duration,
    done: impl FnMut(&mut Repeater) -> bool,
) -> Duration {
    let mut role = Run {
        repeater,
        ahead,
        done,
        until: Instant::now() + DEADLINE,
        longest: Duration::ZERO,
    };
    let signals = Signals::new().unwrap();
    let mut upkeep = event_loop::Upkeep::new(signals, Notifier::default(), None);
    event_loop::run(&mut role, &mut upkeep);
    role.longest
}

fn run(repeater: &mut Repeater, done: impl FnMut(&mut Repeater) -> bool) -> Duration {
    run_ahead(repeater, Duration::ZERO, done)
}

fn counts(repeater: &Repeater, index: usize) -> Counts {
    repeater.targets[index].1.counts()
}

fn is_down(repeater: &Repeater) -> bool {
    repeater.targets[0].1.is_down()
}

fn udp_target() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

fn tcp_target() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A port where nobody listens, held so that nobody else takes it.
fn closed_port(kind: Type) -> (Socket, u16) {
    let socket = Socket::new(Domain::IPV4, kind, None).unwrap();
    // Not the address that the target has, so that UDP to it is refused.
    let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0));
    socket.bind(&SockAddr::from(address)).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

/// Accepts when somebody comes, and reads what is there.
struct Peer {
    listener: TcpListener,
    stream: Option<TcpStream>,
    received: Vec<u8>,
}

impl Peer {
    fn new(listener: TcpListener) -> Peer {
        Peer {
            listener,
            stream: None,
            received: Vec::new(),
        }
    }

    fn accept(&mut self) -> bool {
        if let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true).unwrap();
            self.stream = Some(stream);
        }
        self.stream.is_some()
    }

    /// Reads what is there; the bytes so far.
    fn read(&mut self) -> usize {
        self.accept();
        let mut buffer = [0; 65_536];
        while let Some(Ok(length)) = self.stream.as_mut().map(|stream| stream.read(&mut buffer)) {
            if length == 0 {
                self.stream = None;
            }
            self.received.extend_from_slice(&buffer[..length]);
        }
        self.received.len()
    }

    /// Ends the connection with a reset.
    fn reset(&mut self) {
        let stream = self.stream.take().unwrap();
        SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
}

#[test]
fn datagrams_arrive_as_they_came_at_each_target() {
    let (one, port_one) = udp_target();
    let (two, port_two) = udp_target();
    let mut repeater = Repeater::new(&config("udp4", &[port_one, port_two], 1 << 20));
    let packets: Vec<Vec<u8>> = (0..100)
        .map(|n| format!("a.{n}:1|c\nb:2|ms").into_bytes())
        .chain([b"\xff\x00".to_vec(), vec![b'x'; 30_000]])
        .collect();
    for packet in &packets {
        repeater.packet(packet);
    }
    run(&mut repeater, |r| {
        counts(r, 0).sent == 102 && counts(r, 1).sent == 102
    });
    let mut buffer = vec![0; 65_536];
    for socket in [&one, &two] {
        for packet in &packets {
            let length = socket.recv(&mut buffer).unwrap();
            assert!(buffer[..length] == packet[..]);
        }
        assert!(socket.recv(&mut buffer).is_err(), "something came twice");
    }
}

#[test]
fn a_packet_too_large_for_a_datagram_is_split_at_a_line() {
    let (socket, port) = udp_target();
    let mut repeater = Repeater::new(&config("udp4", &[port], 1 << 20));
    let line = [vec![b'x'; 999], vec![b'\n']].concat();
    repeater.packet(&line.repeat(70));
    run(&mut repeater, |r| counts(r, 0).sent == 2);
    let mut buffer = vec![0; 65_536];
    let lengths = [0; 2].map(|_| socket.recv(&mut buffer).unwrap());
    assert_eq!(lengths, [65_000, 5000]);
}

#[test]
fn packets_wait_for_an_address_within_the_bound() {
    let (_socket, port) = udp_target();
    let mut repeater = Repeater::new(&config("udp4", &[port], 1000));
    // No turn yet, and so no address.
    for _ in 0..20 {
        repeater.packet(&[b'x'; 96]);
    }
    assert_eq!(counts(&repeater, 0).dropped, 10);
    run(&mut repeater, |r| counts(r, 0).sent == 10);
}

#[test]
fn a_udp_target_that_is_down_harms_nobody_and_comes_back() {
    let (held, closed) = closed_port(Type::DGRAM);
    let (open, port) = udp_target();
    let mut repeater = Repeater::new(&config("udp4", &[closed, port], 1 << 20));
    let mut sent = 0;
    run(&mut repeater, |r| {
        r.packet(b"a:1|c");
        sent += 1;
        counts(r, 0).errors >= 5
    });
    let mut buffer = [0; 100];
    run(&mut repeater, |r| counts(r, 1).sent == sent);
    for _ in 0..sent {
        assert_eq!(open.recv(&mut buffer).unwrap(), 5);
    }
    assert_eq!(counts(&repeater, 1).errors, 0);
    // An error that is told late costs no packet.
    assert_eq!(
        counts(&repeater, 0),
        Counts {
            sent,
            dropped: 0,
            ..counts(&repeater, 0)
        }
    );
    drop(held);
    let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, closed)).unwrap();
    back.set_nonblocking(true).unwrap();
    run(&mut repeater, |r| {
        r.packet(b"b:1|c");
        matches!(back.recv(&mut buffer), Ok(5)) && buffer[..5] == *b"b:1|c"
    });
    // Well again once it was quiet, which a clock set forward brings about.
    run_ahead(&mut repeater, Duration::from_secs(10), |r| {
        r.packet(b"c:1|c");
        !is_down(r)
    });
}

#[test]
fn without_an_address_or_a_way_there_packets_wait_and_are_lost_counted() {
    // The first cannot be connected to. The second takes a look-up, whose child, this test's own
    // program, knows no answer.
    for host in ["255.255.255.255", "no.such.host.invalid"] {
        let mut repeater = Repeater::new(&config_with("udp4", &[(host, 8125)], 1000));
        let mut packets = 0;
        let longest = run(&mut repeater, |r| {
            r.packet(&[b'x'; 96]);
            packets += 1;
            counts(r, 0).errors >= 2
        });
        assert!(longest < Duration::from_millis(500), "{longest:?}");
        let found = counts(&repeater, 0);
        assert_eq!((found.sent, found.dropped), (0, packets - 10));
        assert!(is_down(&repeater));
        assert_eq!(repeater.undelivered(), 0);
    }
}

#[test]
fn a_tcp_target_without_an_address_is_tried_again() {
    let mut repeater = Repeater::new(&config_with("tcp", &[("no.such.host.invalid", 1)], 1000));
    repeater.packet(b"a:1|c");
    run(&mut repeater, |r| counts(r, 0).errors >= 2);
    assert_eq!(
        (counts(&repeater, 0).dropped, repeater.undelivered()),
        (0, 6)
    );
}

#[test]
fn tcp_gets_each_packet_with_one_newline() {
    let (listener, port) = tcp_target();
    let mut repeater = Repeater::new(&config("tcp", &[port], 1 << 20));
    for packet in [&b"a:1|c"[..], b"b:1|c\n", b"", b"c:1|c\nd:1|c"] {
        repeater.packet(packet);
    }
    assert!(repeater.undelivered() > 0);
    let mut target = Peer::new(listener);
    run(&mut repeater, |r| {
        target.read();
        r.undelivered() == 0
    });
    target.read();
    assert_eq!(target.received, b"a:1|c\nb:1|c\nc:1|c\nd:1|c\n");
    assert_eq!(counts(&repeater, 0).sent, 3);
    // The connection stays.
    repeater.packet(b"e:1|c");
    run(&mut repeater, |r| r.undelivered() == 0);
    assert!(target.stream.is_some() && target.listener.accept().is_err());
    target.read();
    assert!(target.received.ends_with(b"d:1|c\ne:1|c\n"));
}

/// Numbered lines of 100 bytes, so that a lost, cut or doubled one shows.
fn line(n: usize) -> Vec<u8> {
    format!("{n:0>99}\n").into_bytes()
}

fn numbers(received: &[u8]) -> Vec<usize> {
    let lines = received.split_inclusive(|b| *b == b'\n');
    lines
        .map(|line| {
            assert_eq!(line.len(), 100, "a cut line");
            std::str::from_utf8(&line[..99]).unwrap().parse().unwrap()
        })
        .collect()
}

#[test]
fn nothing_is_lost_or_cut_when_a_tcp_target_resets() {
    let (listener, port) = tcp_target();
    // What a target takes in is little, so that the reset comes in the midst of a packet.
    SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
    let mut repeater = Repeater::new(&config("tcp", &[port], 8 << 20));
    let mut target = Peer::new(listener);
    const PACKETS: usize = 200;
    for packet in 0..PACKETS {
        let lines: Vec<u8> = (0..100).flat_map(|n| line(packet * 100 + n)).collect();
        repeater.packet(&lines);
    }
    let mut read = [0; 30_050];
    run(&mut repeater, |_| {
        target.accept()
            && target
                .stream
                .as_ref()
                .is_some_and(|s| s.peek(&mut read).is_ok_and(|n| n > 1000))
    });
    let mut first = Vec::new();
    run(&mut repeater, |_| {
        if let Ok(length) = target.stream.as_mut().unwrap().read(&mut read) {
            first.extend_from_slice(&read[..length]);
        }
        first.len() > 300_000
    });
    assert!(repeater.undelivered() > 1_000_000, "it took all");
    target.reset();
    run(&mut repeater, |r| {
        target.read();
        r.undelivered() == 0
    });
    target.read();
    assert_eq!(counts(&repeater, 0).errors, 1);
    assert_eq!(counts(&repeater, 0).dropped, 0);
    let numbers = numbers(&target.received);
    let (start, end) = (numbers[0], *numbers.last().unwrap());
    assert_eq!(end, PACKETS * 100 - 1);
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
    // It begins with a whole packet, one that the target's system had not acknowledged, so what it
    // had read is not sent again, but for the packet that it had in part.
    assert_eq!(start % 100, 0);
    let read = first.len() / 100;
    assert!(
        start + 100 > read,
        "{read} lines were read, sent again from {start}"
    );
}

#[test]
fn packets_outlive_an_outage_of_a_tcp_target() {
    let (held, port) = closed_port(Type::STREAM);
    let mut repeater = Repeater::new(&config("tcp", &[port], 1 << 20));
    run(&mut repeater, |r| {
        if counts(r, 0).errors == 0 {
            r.packet(&line(r.undelivered() / 100));
        }
        counts(r, 0).errors >= 3
    });
    assert!(is_down(&repeater));
    let lines = repeater.undelivered() / 100;
    assert!(lines > 0);
    drop(held);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut target = Peer::new(listener);
    // The end does not wait out the pause, which is at least a second by now.
    let began = Instant::now();
    repeater.hurry(Now::read());
    run(&mut repeater, |r| {
        target.read();
        r.undelivered() == 0
    });
    assert!(began.elapsed() < Duration::from_millis(900));
    target.read();
    assert_eq!(numbers(&target.received), (0..lines).collect::<Vec<_>>());
    run_ahead(&mut repeater, Duration::from_secs(3), |r| !is_down(r));
}

#[test]
fn a_tcp_target_that_does_not_read_stalls_nobody_and_its_buffer_is_bounded() {
    let limit = 256 * 1024;
    let (slow, slow_port) = tcp_target();
    SockRef::from(&slow).set_recv_buffer_size(4096).unwrap();
    let (quick, quick_port) = tcp_target();
    let mut repeater = Repeater::new(&config("tcp", &[slow_port, quick_port], limit));
    let mut slow = Peer::new(slow);
    let mut quick = Peer::new(quick);
    let mut packets = 0;
    let longest = run(&mut repeater, |r| {
        slow.accept();
        quick.read();
        for _ in 0..100 {
            r.packet(&line(packets));
            packets += 1;
        }
        assert!(r.undelivered() <= 2 * limit);
        counts(r, 0).dropped > 1000
    });
    assert!(longest < Duration::from_millis(500), "{longest:?}");
    run(&mut repeater, |r| {
        quick.read();
        counts(r, 1).sent == packets as u64
    });
    quick.read();
    assert_eq!(numbers(&quick.received), (0..packets).collect::<Vec<_>>());
    assert_eq!(
        counts(&repeater, 1),
        Counts {
            sent: packets as u64,
            dropped: 0,
            errors: 0
        }
    );
    // When it reads at last, all that was taken arrives.
    let taken = packets as u64 - counts(&repeater, 0).dropped;
    run(&mut repeater, |r| {
        slow.read();
        counts(r, 0).sent == taken
    });
    slow.read();
    assert_eq!(numbers(&slow.received).len() as u64, taken);
}

#[test]
fn a_tcp_target_that_takes_nothing_for_long_is_given_up() {
    let (listener, port) = tcp_target();
    SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
    let mut repeater = Repeater::new(&config("tcp", &[port], 8 << 20));
    for n in 0..70_000 {
        repeater.packet(&line(n));
    }
    let mut target = Peer::new(listener);
    let (mut last, mut since) = (0, Instant::now());
    run(&mut repeater, |r| {
        target.accept();
        if r.undelivered() != last {
            (last, since) = (r.undelivered(), Instant::now());
        }
        target.stream.is_some() && since.elapsed() > Duration::from_millis(200)
    });
    assert!(last > 0 && counts(&repeater, 0).errors == 0);
    run_ahead(&mut repeater, Duration::from_secs(31), |r| {
        counts(r, 0).errors == 1
    });
    assert!(is_down(&repeater));
}

#[test]
fn a_tcp_target_that_accepts_and_resets_is_not_hammered() {
    let (listener, port) = tcp_target();
    let mut repeater = Repeater::new(&config("tcp", &[port], 1 << 20));
    let mut target = Peer::new(listener);
    let began = Instant::now();
    run(&mut repeater, |r| {
        if r.undelivered() == 0 {
            r.packet(b"a:1|c");
        }
        target.accept();
        // Not before the connection is seen to be made.
        let stream = target.stream.as_ref();
        if stream.is_some_and(|stream| stream.peek(&mut [0]).is_ok()) {
            target.reset();
        }
        counts(r, 0).errors == 4
    });
    // Three pauses of at least half of 0.5, 1 and 2 s.
    assert!(began.elapsed() >= Duration::from_millis(1750));
    assert!(is_down(&repeater));
}

#[test]
fn targets_come_and_go_and_those_that_stay_keep_what_they_have() {
    let (_one, port_one) = tcp_target();
    let (_two, port_two) = tcp_target();
    let (_three, port_three) = tcp_target();
    let mut repeater = Repeater::new(&config("tcp", &[port_one, port_two], 1000));
    repeater.packet(b"a:1|c");
    assert_eq!(repeater.undelivered(), 12);
    repeater.configure(&config("tcp", &[port_three, port_two], 1000));
    assert_eq!(repeater.undelivered(), 6);
    repeater.packet(b"a:1|c");
    let waiting: Vec<_> = repeater
        .targets
        .iter()
        .map(|(t, s)| (t.port, s.undelivered()))
        .collect();
    assert_eq!(waiting, [(port_three, 6), (port_two, 12)]);
    repeater.configure(&config("tcp", &[port_two], 15));
    repeater.packet(b"a:1|c");
    assert_eq!(counts(&repeater, 0).dropped, 1);
    repeater.configure(&config("udp4", &[port_two], 1000));
    assert_eq!(counts(&repeater, 0), Counts::default());
}

#[test]
fn figures_have_names_that_graphite_takes() {
    for (host, expected) in [
        ("10.0.0.1", "10_0_0_1_8125"),
        ("[::1]", "__1_8125"),
        ("stats-1.example.org", "stats-1_example_org_8125"),
        ("a b/c;d", "a_b_c_d_8125"),
    ] {
        let target = Target {
            host: host.into(),
            port: 8125,
        };
        assert_eq!(figure_name(&target), expected);
    }
    let mut found = Vec::new();
    Repeater::new(&config("udp4", &[7], 1000)).own_stats(&mut |name, value| {
        found.push(format!("{name} {value}"));
    });
    let names = ["sent", "dropped", "errors", "waiting_bytes", "down"]
        .map(|name| format!("repeater.127_0_0_1_7.{name} 0"));
    assert_eq!(found, names);
}
