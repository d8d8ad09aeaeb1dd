//! System calls that fail for want of memory or room, or are interrupted: all goes on, nothing is lost that
//! could be kept, and it is said once each way.

use crate::common::daemon::Daemon;
use crate::common::graphite::Graphite;
use crate::common::inject::{ALWAYS, Call, Faults};
use crate::common::{DEADLINE, Dir, LOCAL, udp_socket, wait_until};
use crate::tools::{
    BOTH, INTERVAL, answer_time, log_lines, said_once, start_by_hand, start_with_faults, ticks,
    wait_failed,
};
use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

fn start(dir: &Dir, graphite: &Graphite) -> (Daemon, Faults) {
    start_by_hand(dir, graphite, &format!("tcpIdleTimeout: 0, {BOTH}"))
}

/// Half a second of a fault that stays must cost next to nothing.
#[track_caller]
fn does_not_spin(daemon: &Daemon) {
    let (start, before) = (Instant::now(), ticks(daemon));
    while start.elapsed() < Duration::from_millis(500) {
        answer_time(daemon);
        std::thread::sleep(Duration::from_millis(50));
    }
    let spent = ticks(daemon) - before;
    assert!(spent < 20.0, "{spent} of 50 ticks");
}

#[test]
fn no_room_to_receive() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let (mut daemon, faults) = start(&dir, &graphite);
    faults.fail(Call::Recvmmsg, libc::ENOBUFS, ALWAYS);
    for _ in 0..10 {
        daemon.send("a:1|c");
    }
    wait_failed(&faults, Call::Recvmmsg, 3);
    does_not_spin(&daemon);
    said_once(&daemon, "cannot receive for now: No buffer space");
    faults.heal(Call::Recvmmsg);
    daemon.wait_received(10);
    said_once(&daemon, "receiving again");
    daemon.stop();
    assert_eq!(graphite.sum("stats_counts.a"), 10.0);
}

#[test]
fn no_room_to_accept() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let (mut daemon, faults) = start(&dir, &graphite);
    let mut stays = daemon.tcp();
    stays.write_all(b"a:1|c\n").unwrap();
    daemon.wait_received(1);
    faults.fail(Call::Accept, libc::ENOBUFS, ALWAYS);
    for _ in 0..5 {
        daemon.send_tcp("a:1|c\n");
    }
    daemon.wait_line("cannot accept connections for now: No buffer space");
    stays.write_all(b"a:1|c\n").unwrap();
    wait_failed(&faults, Call::Accept, 3);
    assert_eq!(log_lines(&daemon, "cannot accept"), 1);
    faults.heal(Call::Accept);
    daemon.wait_received(7);
    said_once(&daemon, "accepting connections again");
    daemon.stop();
    assert_eq!(graphite.sum("stats_counts.a"), 7.0);
}

/// Neither to connect to Graphite nor to send to it.
#[test]
fn no_room_towards_graphite() {
    for call in [Call::Connect, Call::Send] {
        let (dir, graphite) = (Dir::new(), Graphite::text());
        let (mut daemon, faults) = start(&dir, &graphite);
        for round in 1..=2 {
            daemon.send("a:1|c");
            daemon.wait_received(1);
            // The console sends too, and is not asked meanwhile.
            faults.fail(call, libc::ENOBUFS, ALWAYS);
            faults.pass(INTERVAL);
            wait_failed(&faults, call, 2 * round);
            let lines = log_lines(&daemon, "No buffer space");
            assert_eq!(lines as u64, round, "{call:?}");
            faults.heal(call);
            graphite.wait_sum("stats_counts.a", round as f64);
            wait_until("the word that it is over", || {
                (log_lines(&daemon, "delivering again") as u64 == round).then_some(())
            });
        }
        daemon.stop();
    }
}

fn receive(socket: &UdpSocket) -> String {
    let mut buffer = [0; 65536];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// The repeater's packets wait, in their order, and each is sent once.
#[test]
fn no_room_for_the_repeater() {
    let target = udp_socket(Ipv4Addr::LOCALHOST);
    let port = target.local_addr().unwrap().port();
    let config = format!(
        "{{ {LOCAL}, flushInterval: 3600000, backends: ['repeater'],
            repeater: [{{ host: '127.0.0.1', port: {port} }}] }}"
    );
    for errno in [libc::ENOBUFS, libc::ENOMEM] {
        let dir = Dir::new();
        let (mut daemon, faults) = start_with_faults(&dir, &config);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(daemon.address("udp")).unwrap();
        faults.fail(Call::Sendmmsg, errno, ALWAYS);
        for n in 0..200 {
            client.send(format!("a.{n}:1|c").as_bytes()).unwrap();
        }
        daemon.wait_received(200);
        wait_failed(&faults, Call::Sendmmsg, 5);
        does_not_spin(&daemon);
        said_once(&daemon, "packets for it may be lost");
        faults.heal(Call::Sendmmsg);
        for n in 0..200 {
            assert_eq!(receive(&target), format!("a.{n}:1|c"));
        }
        daemon.stop();
        target
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        assert!(target.recv(&mut [0; 10]).is_err(), "one came twice");
        target.set_read_timeout(Some(DEADLINE)).unwrap();
    }
}

/// `poll` itself has no memory: everything is looked at all the same, a little later, and the end is as
/// orderly as ever.
#[test]
fn no_memory_to_wait_with() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let (mut daemon, faults) = start(&dir, &graphite);
    let fails = || {
        faults.fail(Call::Poll, libc::ENOMEM, ALWAYS);
        wait_failed(&faults, Call::Poll, faults.failed(Call::Poll) + 3);
    };
    fails();
    let mut stays = daemon.tcp();
    for _ in 0..10 {
        daemon.send("a:1|c");
        stays.write_all(b"a:1|c\n").unwrap();
    }
    daemon.wait_received(20);
    does_not_spin(&daemon);
    said_once(&daemon, "cannot wait for input: Cannot allocate memory");
    faults.pass(INTERVAL);
    graphite.wait_sum("stats_counts.a", 20.0);
    faults.heal(Call::Poll);
    said_once(&daemon, "waiting for input works again");
    fails();
    daemon.send("a:1|c");
    daemon.wait_received(1);
    daemon.stop();
    assert_eq!(graphite.sum("stats_counts.a"), 21.0);
}

/// Calls that a signal interrupts are made again.
#[test]
fn interrupted_calls() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let (mut daemon, faults) = start(&dir, &graphite);
    let mut stays = daemon.tcp();
    let calls = [Call::Poll, Call::Recvmmsg, Call::Recv, Call::Accept];
    for round in 1..=5 {
        for call in calls {
            faults.fail(call, libc::EINTR, 3);
        }
        daemon.send("a:1|c");
        stays.write_all(b"a:1|c\n").unwrap();
        daemon.send_tcp("a:1|c\n");
        for call in calls {
            wait_failed(&faults, call, 3 * round);
        }
        daemon.wait_received(3);
        faults.fail(Call::Send, libc::EINTR, 3);
        faults.pass(INTERVAL);
        wait_failed(&faults, Call::Send, 3 * round);
        graphite.wait_sum("stats_counts.a", 3.0 * round as f64);
    }
    assert_eq!(log_lines(&daemon, "Interrupted"), 0);
    assert_eq!(log_lines(&daemon, "cannot"), 0);
    daemon.stop();
}
