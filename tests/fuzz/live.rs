//! A real daemon under hostile input on all its sockets at once: datagrams, streams that are cut, reset
//! or left open, and nonsense on the console. It must live, keep its memory and descriptors, and count
//! what good clients send.

use crate::common::daemon::Daemon;
use crate::common::graphite::{Flush, Graphite};
use crate::common::{Dir, LOCAL, reset, status_field, udp_socket, wait_until};
use crate::input::{Generator, Random};
use crate::{new_seed, soak_time};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::{Duration, Instant};

const CLIENTS: usize = 30;
const CONSOLES: usize = 10;

/// Resident memory that the limits below allow: see `tests/faults/memory.rs` for the sum.
const MEMORY: u64 = 96 << 20;

const COMMANDS: &[&str] = &[
    "counters",
    "timers",
    "gauges",
    "stats",
    "config",
    "health",
    "health down",
    "help",
    "delcounters a web.hits",
    "deltimers a.*",
    "delgauges *",
    "delcounters n.*",
    "quit",
    "",
    "\0\u{ff}",
];

fn config(graphite: &Graphite) -> String {
    format!(
        "{{ {LOCAL}, {}, flushInterval: 200, maxNames: 5000, maxTimerValues: 100000, maxSetMembers: 5000,
            maxTcpClients: {CLIENTS}, maxMgmtClients: {CONSOLES}, mgmtBufferBytes: 65536, deleteIdleStats: true,
            keyFlush: {{ interval: 300, percent: 100, log: 'keys.log' }}, stateFile: 'state',
            servers: [{{ server: 'udp', address: '127.0.0.1', port: 0 }},
                      {{ server: 'tcp', address: '127.0.0.1', port: 0 }}] }}",
        graphite.config()
    )
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Something unfriendly to one of the streams; `true` leaves it open for more.
fn abuse(stream: &mut TcpStream, bytes: &[u8], random: &mut Random) -> bool {
    if stream.write_all(bytes).is_err() {
        return false;
    }
    match random.below(20) {
        // Without reading what has come for us: the kernel makes it a reset.
        0 => false,
        1 => {
            let _ = stream.shutdown(Shutdown::Write);
            random.below(2) == 0
        }
        2 => {
            let _ = stream.read(&mut [0; 4096]);
            true
        }
        _ => true,
    }
}

fn nonblocking(stream: std::io::Result<TcpStream>) -> Option<TcpStream> {
    let stream = stream.ok()?;
    stream.set_nonblocking(true).unwrap();
    Some(stream)
}

fn pick_or_connect(
    streams: &mut Vec<TcpStream>,
    most: usize,
    random: &mut Random,
    to: std::net::SocketAddr,
) -> Option<TcpStream> {
    if streams.len() < most && random.below(4) == 0 {
        return nonblocking(TcpStream::connect(to));
    }
    (!streams.is_empty()).then(|| streams.swap_remove(random.below(streams.len())))
}

fn run(seed: u64, time: Duration) {
    eprintln!("seed {seed}");
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let mut daemon = Daemon::start(&dir, &config(&graphite));
    let (pid, udp, tcp, admin) = (
        daemon.pid(),
        daemon.address("udp"),
        daemon.address("tcp"),
        daemon.address("admin"),
    );
    // A good client among the bad: it came first, so no limit concerns it.
    let mut good = daemon.tcp();
    good.write_all(b"witness:1|c\n").unwrap();
    let mut witness = 1.0;
    graphite.wait_sum("stats_counts.witness", witness);
    let mut counted = 0.0;
    let before = descriptors(pid);

    let mut generator = Generator::new(seed);
    let socket = udp_socket(Ipv4Addr::LOCALHOST);
    let (mut clients, mut consoles) = (Vec::new(), Vec::new());
    let end = Instant::now() + time;
    while Instant::now() < end {
        let packet = generator.packet();
        let random = &mut generator.random;
        match random.below(10) {
            0 => {
                if let Some(mut stream) = pick_or_connect(&mut clients, CLIENTS + 5, random, tcp) {
                    if abuse(&mut stream, &packet, random) {
                        clients.push(stream);
                    } else if random.below(2) == 0 {
                        reset(stream);
                    }
                }
            }
            1 => {
                if let Some(mut stream) =
                    pick_or_connect(&mut consoles, CONSOLES + 5, random, admin)
                {
                    let line = format!("{}\n", random.pick(COMMANDS));
                    let bytes = if random.below(3) == 0 {
                        &packet
                    } else {
                        line.as_bytes()
                    };
                    if abuse(&mut stream, bytes, random) {
                        consoles.push(stream);
                    } else if random.below(2) == 0 {
                        reset(stream);
                    }
                }
            }
            2 => match good.write(b"witness:1|c\n") {
                Ok(12) => witness += 1.0,
                other => panic!("a good client is not served: {other:?}"),
            },
            _ => match socket.send_to(&packet, udp) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::InvalidInput => {}
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc_emsgsize()), "{error}"),
            },
        }
        daemon.assert_running();
        counted += graphite
            .take_flushes()
            .iter()
            .map(count_witness)
            .sum::<f64>();
    }
    drop((clients, consoles));
    // All of it is over and forgotten.
    wait_until("the last of the clients to go", || {
        (descriptors(pid) <= before + 3).then_some(())
    });
    let peak = status_field(pid, "VmHWM") * 1024;
    assert!(peak < MEMORY, "{peak} bytes of memory");
    assert!(daemon.console().ask("health", "\n").starts_with("health: "));
    daemon.stop();
    counted += graphite
        .take_flushes()
        .iter()
        .map(count_witness)
        .sum::<f64>();
    assert_eq!(counted, witness);
}

fn count_witness(flush: &Flush) -> f64 {
    let points = flush.iter().filter(|p| p.name == "stats_counts.witness");
    points.map(|p| p.value.parse::<f64>().unwrap()).sum()
}

/// EMSGSIZE, for datagrams that no network takes.
fn libc_emsgsize() -> i32 {
    90
}

#[test]
fn a_daemon_under_hostile_input() {
    run(3, Duration::from_secs(3));
}

/// The same as long as wanted, from another seed.
#[test]
#[ignore = "for make soak"]
fn soak_live() {
    run(new_seed(), soak_time());
}
