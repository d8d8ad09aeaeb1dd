//! A fake Graphite that keeps up: reads as fast as it can, and keeps count of what came.
//!
//! It checks completeness without keeping a million names: the sum of all `stats_counts` values,
//! and the sum of value times [`name_hash`](crate::load::name_hash), which agree with what was sent
//! only when every name got all that was its own. Times are in seconds, sizes in bytes.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::load;

/// What came so far.
#[derive(Clone, Default)]
pub struct Tally {
    /// Lines.
    pub lines: u64,
    /// Bytes.
    pub bytes: u64,
    /// Sum of the `stats_counts` of all names but the daemon's own.
    pub counts: u64,
    /// Sum of these counts, each times the hash of its name.
    pub fingerprint: u64,
    /// The daemon's own counter of lines.
    pub metrics_received: u64,
    /// The daemon's own counter of datagrams.
    pub packets_received: u64,
    /// The largest `flush_pause_ms`, if the daemon sends one.
    pub flush_pause_ms: Option<f64>,
    /// Sum of `udp_drops`, if the daemon sends it.
    pub udp_drops: Option<f64>,
    /// Timer series: the name after `stats.timers.`, and its values in the order of arrival.
    pub timers: BTreeMap<String, Vec<f64>>,
    /// Lines that do not read `name value timestamp`.
    pub malformed: u64,
}

/// The listener, on a port of its own, served by threads that end with the bench.
pub struct Graphite {
    /// Its port.
    pub port: u16,
    tally: Arc<Mutex<Tally>>,
}

impl Graphite {
    /// Starts listening; `timers` says whether to keep timer series.
    pub fn start(timers: bool) -> io::Result<Graphite> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let tally = Arc::new(Mutex::new(Tally::default()));
        let shared = Arc::clone(&tally);
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || read_all(connection, &shared, timers));
            }
        });
        Ok(Graphite { port, tally })
    }

    /// A copy of the counts now.
    pub fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// Waits until `reached` holds of the counts; false when `patience` ran out.
    pub fn wait(&self, patience: Duration, reached: impl Fn(&Tally) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        while !reached(&lock(&self.tally)) {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads one connection to its end.
fn read_all(mut connection: TcpStream, shared: &Mutex<Tally>, timers: bool) {
    let mut buffer = vec![0; 1 << 20];
    let mut kept = 0;
    while let Ok(got) = connection.read(&mut buffer[kept..]) {
        if got == 0 {
            break;
        }
        let filled = kept + got;
        let whole = memchr::memrchr(b'\n', &buffer[..filled]).map_or(0, |at| at + 1);
        let mut tally = lock(shared);
        tally.bytes += got as u64;
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &buffer[..whole]) {
            tally.lines += 1;
            if take_line(&mut tally, &buffer[start..end], timers).is_none() {
                tally.malformed += 1;
            }
            start = end + 1;
        }
        drop(tally);
        buffer.copy_within(whole..filled, 0);
        kept = filled - whole;
    }
}

/// Counts one line; `None` when it is not one.
fn take_line(tally: &mut Tally, line: &[u8], timers: bool) -> Option<()> {
    let last = memchr::memrchr(b' ', line)?;
    let middle = memchr::memrchr(b' ', &line[..last])?;
    let (name, value) = (&line[..middle], &line[middle + 1..last]);
    if let Some(counter) = name.strip_prefix(b"stats_counts.") {
        let value = integer(value)?;
        if counter.starts_with(b"statsd.") {
            match counter {
                b"statsd.metrics_received" => tally.metrics_received += value,
                b"statsd.packets_received" => tally.packets_received += value,
                _ => {}
            }
        } else if value > 0 {
            tally.counts += value;
            let hash = load::name_hash(counter).wrapping_mul(value);
            tally.fingerprint = tally.fingerprint.wrapping_add(hash);
        }
        return Some(());
    }
    let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse::<f64>().ok();
    if let Some(timer) = name.strip_prefix(b"stats.timers.").filter(|_| timers) {
        let timer = String::from_utf8_lossy(timer).into_owned();
        tally.timers.entry(timer).or_default().push(number(value)?);
    } else if name.ends_with(b"statsd.flush_pause_ms") {
        tally.flush_pause_ms = Some(tally.flush_pause_ms.unwrap_or(0.0).max(number(value)?));
    } else if name.ends_with(b"statsd.udp_drops") && !name.starts_with(b"stats.counters.") {
        tally.udp_drops = Some(tally.udp_drops.unwrap_or(0.0) + number(value)?);
    }
    Some(())
}

/// A whole number; counts of this bench are nothing else.
fn integer(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0u64, |sum, &digit| {
        digit
            .is_ascii_digit()
            .then(|| sum * 10 + u64::from(digit - b'0'))
    })
}
