//! A target that gets a stream, over one connection that stays.
//!
//! ```text
//! idle -> dialing -> open -> idle (the target closed it, and has all)
//!   ^        \---------\
//!   +--------------- waiting, 0.5 s to 30 s
//! ```
//!
//! Each packet ends with one newline. A packet leaves the queue when the target's system has
//! acknowledged all of it (SIOCOUTQ tells how much it has not); when a connection breaks, the next
//! one begins with the first packet that has not left. So nothing is lost while there is room, a
//! line is never cut, and only packets whose acknowledgement was lost can come twice.

use super::queue::Queue;
use super::{Counts, Sender};
use crate::config::Target;
use crate::event_loop::{Now, PollSet, Token};
use crate::log;
use crate::net::backoff::Backoff;
use crate::net::dial::Dial;
use crate::net::stream::{has_closed, is_passing};
use crate::sys;
use socket2::Socket;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// To connect, and to take something of what waits.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that has lasted so long is good.
const PROVEN: Duration = Duration::from_secs(2);

/// How often to look for acknowledgements while nothing else happens.
const GLANCE: Duration = Duration::from_millis(50);

/// Bytes written at a time.
const TURN: usize = 1024 * 1024;

/// See the module.
pub struct Tcp {
    target: Target,
    limit: usize,
    queue: Queue,
    state: State,
    /// Nothing more can be sent in this turn.
    stuck: bool,
    backoff: Backoff,
    down: log::Latch,
    full: log::Latch,
    dropped_before: u64,
    counts: Counts,
}

enum State {
    Idle,
    Waiting { until: Instant },
    Dialing(Dial),
    Open(Connection),
}

struct Connection {
    socket: Socket,
    token: Token,
    /// Bytes of the queue that are written.
    written: usize,
    since: Instant,
    /// When the target last took something, or had nothing to take.
    moved: Instant,
    /// What went wrong between turns.
    broken: Option<io::Error>,
}

impl Tcp {
    /// Connects when there is something to send.
    pub fn new(target: &Target) -> Tcp {
        Tcp {
            target: target.clone(),
            limit: 0,
            queue: Queue::default(),
            state: State::Idle,
            stuck: false,
            backoff: Backoff::default(),
            down: log::Latch::new(),
            full: log::Latch::new(),
            dropped_before: 0,
            counts: Counts::default(),
        }
    }

    /// One step; `false` when there is something to wait for.
    fn step(&mut self, poll: &PollSet, now: Now) -> io::Result<bool> {
        match &mut self.state {
            State::Waiting { until } if now.mono < *until => Ok(false),
            State::Waiting { .. } => {
                self.state = State::Idle;
                Ok(true)
            }
            State::Idle if self.queue.packets() == 0 => Ok(false),
            State::Idle => {
                let Target { host, port } = &self.target;
                self.state = State::Dialing(Dial::start(host, *port, PATIENCE, now));
                Ok(false)
            }
            State::Dialing(dial) => match dial.turn(poll, now).transpose()? {
                Some(socket) => {
                    // What waits is written in large pieces anyway.
                    socket.set_tcp_nodelay(true)?;
                    self.state = State::Open(Connection {
                        socket,
                        token: Token::default(),
                        written: 0,
                        since: now.mono,
                        moved: now.mono,
                        broken: None,
                    });
                    Ok(true)
                }
                None => Ok(false),
            },
            State::Open(connection) => {
                if let Some(error) = connection.broken.take() {
                    return Err(error);
                }
                let proven = now.mono.saturating_duration_since(connection.since) >= PROVEN;
                if poll.is_ready(connection.token) && has_closed(&mut connection.socket)? {
                    connection.settle(&mut self.queue, &mut self.counts)?;
                    if self.queue.packets() > 0 || !proven {
                        return Err(io::ErrorKind::ConnectionAborted.into());
                    }
                    log::debug!("{self}: it closed the connection");
                    self.state = State::Idle;
                    return Ok(false);
                }
                let moved = connection.write(&self.queue)?
                    | connection.settle(&mut self.queue, &mut self.counts)?;
                if moved || self.queue.packets() == 0 {
                    connection.moved = now.mono;
                } else if now.mono.saturating_duration_since(connection.moved) >= PATIENCE {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                if proven {
                    self.backoff.reset();
                    if self.down.set(false) {
                        log::notice!(
                            "{self}: connected again; {} packets were dropped in all",
                            self.counts.dropped
                        );
                    }
                }
                Ok(false)
            }
        }
    }

    fn fail(&mut self, error: &io::Error, now: Now) {
        if let State::Open(connection) = &mut self.state {
            // What it took before it broke need not be sent again. Where it does not say, it is.
            let _ = connection.settle(&mut self.queue, &mut self.counts);
        }
        self.counts.errors += 1;
        if self.down.set(true) {
            log::warning!(
                "{self}: {error}; packets wait, up to {} bytes, and are sent again",
                self.limit
            );
        }
        self.state = State::Waiting {
            until: now.mono + self.backoff.pause(),
        };
    }

    /// Makes room in the midst of a turn, if the target takes something now.
    fn make_room(&mut self) {
        let State::Open(connection) = &mut self.state else {
            self.stuck = true;
            return;
        };
        if connection.broken.is_some() {
            self.stuck = true;
            return;
        }
        let moved = connection
            .write(&self.queue)
            .and_then(|_| connection.settle(&mut self.queue, &mut self.counts));
        match moved {
            Ok(moved) => self.stuck = !moved,
            Err(error) => {
                self.stuck = true;
                connection.broken = Some(error);
            }
        }
    }

    fn log_drops(&mut self) {
        let dropped = self.counts.dropped;
        let before = std::mem::replace(&mut self.dropped_before, dropped);
        // Full until it is half empty: drops that come and go are one state.
        let full = dropped > before || (self.full.is_on() && self.queue.bytes() > self.limit / 2);
        if self.full.set(full) {
            if full {
                let limit = self.limit;
                log::warning!("{self}: {limit} bytes wait (repeaterBufferBytes); more are dropped");
            } else {
                log::notice!("{self}: room again; {dropped} packets were dropped in all");
            }
        }
    }
}

impl Connection {
    /// Writes what the socket takes; whether it took something.
    fn write(&mut self, queue: &Queue) -> io::Result<bool> {
        let before = self.written;
        while self.written < before + TURN {
            let rest = queue.behind(self.written);
            if rest.is_empty() {
                break;
            }
            match self.socket.write(rest) {
                Ok(written) => self.written += written,
                Err(error) if is_passing(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(self.written > before)
    }

    /// Lets go of packets that were acknowledged; whether there were any.
    fn settle(&mut self, queue: &mut Queue, counts: &mut Counts) -> io::Result<bool> {
        if self.written == 0 {
            return Ok(false);
        }
        let unacknowledged = sys::unacknowledged(self.socket.as_fd())?;
        let acknowledged = self.written.saturating_sub(unacknowledged);
        let (packets, bytes) = queue.drop_within(acknowledged);
        self.written -= bytes;
        counts.sent += packets as u64;
        Ok(packets > 0)
    }
}

impl Sender for Tcp {
    fn packet(&mut self, packet: &[u8]) {
        if packet.is_empty() {
            return;
        }
        let end: &[u8] = if packet.ends_with(b"\n") { b"" } else { b"\n" };
        while !self.queue.push([packet, end], self.limit) {
            if !self.stuck {
                self.make_room();
            }
            if self.stuck {
                self.counts.dropped += 1;
                return;
            }
        }
    }

    fn set_limit(&mut self, bytes: usize) {
        self.limit = bytes;
    }

    fn counts(&self) -> Counts {
        self.counts
    }

    fn is_down(&self) -> bool {
        self.down.is_on()
    }

    fn register(&mut self, poll: &mut PollSet) {
        let waits = self.queue.packets() > 0;
        match &mut self.state {
            State::Idle if waits => poll.wake_at(Instant::now()),
            State::Waiting { until } if waits => poll.wake_at(*until),
            State::Idle | State::Waiting { .. } => {}
            State::Dialing(dial) => dial.register(poll),
            State::Open(connection) => {
                let fd = connection.socket.as_raw_fd();
                let unwritten = connection.written < self.queue.bytes();
                connection.token = if unwritten {
                    poll.reads_and_writes(fd)
                } else {
                    poll.reads(fd)
                };
                if waits {
                    poll.wake_at(Instant::now() + GLANCE);
                }
                if self.down.is_on() {
                    poll.wake_at(connection.since + PROVEN);
                }
            }
        }
    }

    fn turn(&mut self, poll: &PollSet, now: Now) {
        self.stuck = false;
        loop {
            match self.step(poll, now) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => break self.fail(&error, now),
            }
        }
        self.log_drops();
    }

    fn hurry(&mut self, now: Now) {
        if let State::Waiting { until } = &mut self.state {
            *until = now.mono;
        }
    }

    fn undelivered(&self) -> usize {
        self.queue.bytes()
    }
}

impl std::fmt::Display for Tcp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "repeater tcp {}:{}", self.target.host, self.target.port)
    }
}
