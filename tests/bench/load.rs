//! What is sent, and how: names, lines and datagrams built beforehand, and the sender.
//!
//! Everything comes from fixed seeds, so that two runs send the same bytes. Only loopback
//! addresses are ever sent to, and every send is bounded in count and in time.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::os::{self, BATCH};
use crate::subject::KernelQueue;

/// Names in the mixed load.
pub const MIXED_NAMES: u64 = 1_000;
/// No send of the bench goes on for longer.
const SEND_LIMIT: Duration = Duration::from_secs(240);

/// SplitMix64: small, fast, the same everywhere.
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// Spreads every bit of `x` over all 64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A hash of a name. The sum over lines of value times `name_hash` tells whether every name got
/// what was sent for it, without keeping a million of them.
pub fn name_hash(name: &[u8]) -> u64 {
    name.chunks(8).fold(name.len() as u64, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash.rotate_left(5) ^ u64::from_le_bytes(word))
    })
}

/// One of the names of the mixed load, some 40 bytes.
pub fn mixed_name(index: u64) -> String {
    let what = [
        "requests",
        "latency",
        "queue_depth",
        "bytes_written",
        "cache.hits",
        "errors.http_5xx",
    ];
    let (service, host) = (index % 23, index * 7 % 211);
    format!(
        "prod.svc{service:02}.host{host:03}.metric.{}.{index:04}",
        what[(index % 6) as usize]
    )
}

/// One of up to ten million counter names, 45 bytes each.
pub fn counter_name(index: u64) -> String {
    let (service, host) = (index % 97, index * 7 % 997);
    format!("prod.svc{service:02}.host{host:03}.metric.request_cnt.{index:07}")
}

/// Datagrams, one after the other in memory.
#[derive(Default)]
pub struct Datagrams {
    bytes: Vec<u8>,
    /// Where each ends; it starts where the one before ends.
    ends: Vec<usize>,
    /// Lines in each.
    pub lines_each: u64,
}

impl Datagrams {
    /// Joins lines into datagrams of `lines_each`; what is left over at the end is not sent.
    fn pack(lines_each: u64, count: u64, mut line: impl FnMut(&mut String)) -> Datagrams {
        let mut packed = Datagrams {
            lines_each,
            ..Datagrams::default()
        };
        let mut text = String::new();
        for _ in 0..count {
            text.clear();
            for i in 0..lines_each {
                if i > 0 {
                    text.push('\n');
                }
                line(&mut text);
            }
            packed.bytes.extend_from_slice(text.as_bytes());
            packed.ends.push(packed.bytes.len());
        }
        packed
    }

    /// The usual mix: 1,000 names, 60 % counters, 30 % timers, 10 % gauges.
    pub fn mixed(lines_each: u64, count: u64) -> Datagrams {
        let names: Vec<String> = (0..MIXED_NAMES).map(mixed_name).collect();
        let mut random = Random(1);
        Datagrams::pack(lines_each, count, |text| {
            let name = random.below(MIXED_NAMES);
            let value = random.below(1_000);
            let small = 1 + value.saturating_sub(800) / 10;
            text.push_str(&names[name as usize]);
            // Writing to a String cannot fail.
            let _ = match name % 10 {
                0..6 => write!(text, ":{small}|c"),
                6..9 if value % 2 == 0 => write!(text, ":{value}|ms"),
                6..9 => write!(text, ":{}.{:03}|ms", value % 300, value),
                _ => write!(text, ":{value}|g"),
            };
        })
    }

    /// Each of `names` counters once, in an order that is not theirs.
    pub fn every_counter(names: u64, lines_each: u64) -> Datagrams {
        let mut order: Vec<u32> = (0..names as u32).collect();
        let mut random = Random(2);
        for i in (1..order.len()).rev() {
            order.swap(i, random.below(i as u64 + 1) as usize);
        }
        let mut next = order.into_iter().cycle();
        // Rounded up: the last datagram begins again from the first name.
        Datagrams::pack(lines_each, names.div_ceil(lines_each), |text| {
            text.push_str(&counter_name(u64::from(next.next().unwrap_or(0))));
            text.push_str(":1|c");
        })
    }

    /// Counters drawn at random from `names`, all equally likely.
    pub fn random_counters(names: u64, lines_each: u64, count: u64) -> Datagrams {
        let mut random = Random(3);
        Datagrams::pack(lines_each, count, |text| {
            text.push_str(&counter_name(random.below(names)));
            text.push_str(":1|c");
        })
    }

    /// `each` values of every name, 30 lines a datagram; `thousandths` gives value `at` of a name.
    pub fn timers(
        names: &[String],
        each: u64,
        thousandths: impl Fn(u64, u64, u64) -> u64,
    ) -> Datagrams {
        let count = names.len() as u64;
        let mut line = 0;
        Datagrams::pack(30, each * count / 30, |text| {
            // The names in an order that is not theirs; 617 shares no factor with 1,000.
            let (name, at) = (line * 617 % count, line / count);
            let value = thousandths(name, at, each);
            line += 1;
            text.push_str(&names[name as usize]);
            let _ = write!(text, ":{}.{:03}|ms", value / 1000, value % 1000);
        })
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.ends.len() as u64
    }

    /// One of them.
    fn get(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[index]]
    }

    /// `count` of them from `first`, beginning again after the last.
    fn cycle(&self, first: u64, count: u64) -> impl Iterator<Item = &[u8]> {
        (first..first + count).map(|i| self.get((i % self.len()) as usize))
    }

    /// Mean size in bytes.
    pub fn mean_bytes(&self) -> usize {
        self.bytes.len() / self.ends.len().max(1)
    }

    /// As a stream for TCP: every line ended by a line feed.
    pub fn to_stream(&self) -> Vec<u8> {
        let mut stream = Vec::with_capacity(self.bytes.len() + self.ends.len());
        for i in 0..self.ends.len() {
            stream.extend_from_slice(self.get(i));
            stream.push(b'\n');
        }
        stream
    }

    /// Sum over the first `count` datagrams sent (a cycle) of value times [`name_hash`], for
    /// loads whose every value is 1.
    pub fn fingerprint(&self, count: u64) -> u64 {
        let of = |datagram: &[u8]| {
            datagram.split(|&b| b == b'\n').fold(0u64, |sum, line| {
                let name = line.split(|&b| b == b':').next().unwrap_or_default();
                sum.wrapping_add(name_hash(name))
            })
        };
        let (rounds, rest) = (count / self.len(), count % self.len());
        (0..self.len()).fold(0u64, |sum, i| {
            let times = rounds + u64::from(i < rest);
            sum.wrapping_add(of(self.get(i as usize)).wrapping_mul(times))
        })
    }
}

/// How the sender keeps from running over the receiver.
#[derive(Clone, Copy, PartialEq)]
pub enum Pace {
    /// In bursts that process `pid` finds whole: it is stopped while one is sent and goes on when
    /// it is complete, so that it always takes full batches, however fast the sender is. That is
    /// the least a datagram can cost, for the floor as for the daemon. A burst begins at 1,024 and
    /// halves each time the kernel drops something.
    Bursts(u32),
    /// Waits while the receive buffer holds more than 64 KiB: loses nothing even where the
    /// receiver kept the system's default.
    Careful,
    /// As fast as the sender can.
    Free,
    /// So many datagrams a second.
    Rate(u64),
}

/// A connected socket on loopback, and the receiver's buffer as the kernel shows it.
pub struct UdpSender {
    socket: UdpSocket,
    queue: KernelQueue,
}

impl UdpSender {
    /// A sender to a port of this machine.
    pub fn new(port: u16) -> io::Result<UdpSender> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect((Ipv4Addr::LOCALHOST, port))?;
        Ok(UdpSender {
            socket,
            queue: KernelQueue::udp(port)?,
        })
    }

    /// Sends `count` datagrams, `load` over and over; returns how many, fewer only when time ran
    /// out.
    pub fn send(&mut self, load: &Datagrams, count: u64, pace: Pace) -> io::Result<u64> {
        let begun = Instant::now();
        let mut drops = self.queue.read()?.drops;
        let mut burst = 1_024;
        let mut sent = 0;
        while sent < count && begun.elapsed() < SEND_LIMIT {
            let left = count - sent;
            match pace {
                Pace::Free => sent += self.send_some(load, sent, left.min(BATCH as u64))?,
                Pace::Rate(rate) => {
                    let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
                    match left.min(due.saturating_sub(sent)) {
                        0 => std::thread::sleep(Duration::from_micros(500)),
                        some => sent += self.send_some(load, sent, some)?,
                    }
                }
                Pace::Careful => {
                    sent += self.send_some(load, sent, left.min(16))?;
                    while self.queue.read()?.bytes > 64 << 10 && begun.elapsed() < SEND_LIMIT {}
                }
                Pace::Bursts(pid) => {
                    os::pause(pid);
                    let result = self.send_some(load, sent, left.min(burst));
                    os::resume(pid);
                    sent += result?;
                    let mut state = self.queue.read()?;
                    while state.bytes > 0 && begun.elapsed() < SEND_LIMIT {
                        std::thread::sleep(Duration::from_micros(50));
                        state = self.queue.read()?;
                    }
                    if state.drops > drops {
                        drops = state.drops;
                        burst = (burst / 2).max(32);
                    }
                }
            }
        }
        Ok(sent)
    }

    /// Sends `count` datagrams from `first` of `load`.
    fn send_some(&self, load: &Datagrams, first: u64, count: u64) -> io::Result<u64> {
        let mut sent = 0;
        while sent < count {
            let batch = (count - sent).min(BATCH as u64);
            sent += os::send_batch(&self.socket, load.cycle(first + sent, batch))? as u64;
        }
        Ok(sent)
    }
}

/// Writes `rounds` times `stream` to a port of this machine in pieces of 64 KiB; the connection
/// is handed back, still open.
pub fn send_stream(port: u16, stream: &[u8], rounds: u64) -> io::Result<TcpStream> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection.set_write_timeout(Some(SEND_LIMIT))?;
    for _ in 0..rounds {
        for piece in stream.chunks(64 << 10) {
            connection.write_all(piece)?;
        }
    }
    Ok(connection)
}
