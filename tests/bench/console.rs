//! Asks the admin console for `health` every few milliseconds, and remembers the worst.
//!
//! One connection stays open; every 16th question opens one of its own, as a balancer's check
//! does. The receive queue of the data port is read along, for the deepest it ever was.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::os;
use crate::subject::KernelQueue;

/// Between an answer and the next question.
const EVERY: Duration = Duration::from_millis(3);

/// What the prober saw.
#[derive(Clone, Copy, Default)]
pub struct Answers {
    /// Questions answered.
    pub count: u64,
    /// Questions not answered in 5 s, or refused.
    pub failed: u64,
    /// The longest an answer took.
    pub worst: Duration,
    /// Answers that took more than 20 ms.
    pub slow: u64,
    /// The most memory the receive queue took, bytes.
    pub deepest_queue: u64,
}

/// A running prober.
pub struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Answers>,
}

impl Prober {
    /// Starts asking the console on `port`, watching the UDP queue of `data_port`.
    pub fn start(port: u16, data_port: u16) -> io::Result<Prober> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut queue = KernelQueue::udp(data_port)?;
        let thread = std::thread::spawn(move || {
            os::real_time();
            let mut answers = Answers::default();
            let mut lasting = None;
            for turn in 0u64.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                if turn % 16 == 0 {
                    answers.note(&mut None, port);
                } else {
                    answers.note(&mut lasting, port);
                }
                let depth = queue.read().map_or(0, |state| state.bytes);
                answers.deepest_queue = answers.deepest_queue.max(depth);
                std::thread::sleep(EVERY);
            }
            answers
        });
        Ok(Prober { stop, thread })
    }

    /// Stops asking.
    pub fn stop(self) -> Answers {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

impl Answers {
    /// Asks once, over `connection` or a new one, which is kept in its place.
    fn note(&mut self, connection: &mut Option<TcpStream>, port: u16) {
        let begun = Instant::now();
        match ask(connection, port) {
            Ok(()) => {
                let took = begun.elapsed();
                self.count += 1;
                self.worst = self.worst.max(took);
                self.slow += u64::from(took > Duration::from_millis(20));
            }
            Err(_) => {
                *connection = None;
                self.failed += 1;
                self.worst = self.worst.max(begun.elapsed());
            }
        }
    }
}

fn ask(connection: &mut Option<TcpStream>, port: u16) -> io::Result<()> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.set_nodelay(true)?;
            stream
        }
    };
    stream.write_all(b"health\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\n") {
        let mut part = [0; 256];
        match stream.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            got => answer.extend_from_slice(&part[..got]),
        }
    }
    if !answer.starts_with(b"health: up") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    *connection = Some(stream);
    Ok(())
}
