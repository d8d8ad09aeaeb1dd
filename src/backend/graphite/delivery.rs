//! Getting the spool's parts to Graphite, one connection each.
//!
//! ```text
//! idle -> dialing -> sending -> closing -> idle (the part has arrived)
//!   ^        \----------\----------\
//!   +------------------------------- waiting, 0.5 s to 30 s (the part is sent again, whole)
//! ```
//!
//! A part has arrived when all is written, our side is closed and the peer has closed too; or, where it
//! does not within [`PATIENCE`], when it has acknowledged every byte. Writing a point twice is harmless
//! in Graphite, so whatever is in doubt is sent again.

use super::Report;
use super::spool::Spool;
use crate::config::GraphiteConfig;
use crate::event_loop::{Now, PollSet, Token};
use crate::log;
use crate::net::backoff::Backoff;
use crate::net::dial::Dial;
use crate::net::stream::{has_closed, is_passing};
use socket2::Socket;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// How long to wait for the peer to close before looking at what it has acknowledged.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often to look then.
const GLANCE: Duration = Duration::from_millis(100);

/// Bytes written in one turn.
const TURN: usize = 1024 * 1024;

/// See the module.
pub struct Delivery {
    host: String,
    port: u16,
    timeout: Duration,
    state: State,
    backoff: Backoff,
    /// When the flush at hand was first tried on this connection's behalf, and its bytes so far.
    began: Option<Instant>,
    length: u64,
    down: log::Latch,
}

enum State {
    Idle,
    Waiting {
        until: Instant,
    },
    Dialing(Dial),
    Sending(Sending),
    Closing {
        socket: Socket,
        token: Token,
        since: Instant,
        /// Bytes that the peer has not acknowledged, and when they last became fewer.
        left: usize,
        moved: Instant,
    },
}

struct Sending {
    socket: Socket,
    token: Token,
    /// What is next: a block of the part, and a place in it.
    block: usize,
    offset: usize,
    /// When the peer last took something.
    moved: Instant,
}

impl Delivery {
    /// To the configured host; `None` without one.
    pub fn new(config: &GraphiteConfig) -> Option<Delivery> {
        Some(Delivery {
            host: config.host.clone()?,
            port: config.port,
            timeout: config.timeout,
            state: State::Idle,
            backoff: Backoff::default(),
            began: None,
            length: 0,
            down: log::Latch::new(),
        })
    }

    /// Whether the config still means this one.
    pub fn goes_to(&mut self, config: &GraphiteConfig) -> bool {
        self.timeout = config.timeout;
        config.host.as_ref() == Some(&self.host) && config.port == self.port
    }

    /// Takes the place of another, whose outage is its own now.
    pub fn succeed(&mut self, old: Option<&Delivery>) {
        self.down = old.map_or(log::Latch::new(), |old| old.down);
    }

    /// Connected, or between two parts with nothing wrong so far; and so likely to make room soon.
    pub fn is_moving(&self) -> bool {
        match self.state {
            State::Sending(_) | State::Closing { .. } => true,
            State::Idle | State::Dialing(_) => !self.down.is_on(),
            State::Waiting { .. } => false,
        }
    }

    /// Tries again at once.
    pub fn hurry(&mut self, now: Now) {
        if let State::Waiting { until } = &mut self.state {
            *until = now.mono;
            self.backoff.reset();
        }
    }

    /// Says what to wait for.
    pub fn register(&mut self, poll: &mut PollSet, spool: &Spool) {
        match &mut self.state {
            State::Idle if spool.front().is_some() => poll.wake_at(Instant::now()),
            State::Idle => {}
            State::Waiting { until } => poll.wake_at(*until),
            State::Dialing(dial) => dial.register(poll),
            State::Sending(sending) => {
                sending.token = poll.reads_and_writes(sending.socket.as_raw_fd());
                poll.wake_at(sending.moved + self.timeout);
            }
            State::Closing {
                socket,
                token,
                since,
                ..
            } => {
                *token = poll.reads(socket.as_raw_fd());
                poll.wake_at((*since + PATIENCE).max(Instant::now() + GLANCE));
            }
        }
    }

    /// Moves on as far as it goes without waiting.
    pub fn turn(&mut self, spool: &mut Spool, report: &mut Report, poll: &PollSet, now: Now) {
        loop {
            match self.step(spool, report, poll, now) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return self.fail(&error, spool, report, now),
            }
        }
    }

    /// One step; `false` when there is something to wait for.
    fn step(
        &mut self,
        spool: &mut Spool,
        report: &mut Report,
        poll: &PollSet,
        now: Now,
    ) -> io::Result<bool> {
        match &mut self.state {
            State::Waiting { until } if now.mono < *until => Ok(false),
            State::Waiting { .. } => {
                self.state = State::Idle;
                Ok(true)
            }
            State::Idle if spool.front().is_none() => Ok(false),
            State::Idle => {
                spool.start();
                self.began.get_or_insert(now.mono);
                self.state = State::Dialing(Dial::start(&self.host, self.port, self.timeout, now));
                Ok(false)
            }
            State::Dialing(dial) => match dial.turn(poll, now).transpose()? {
                Some(socket) => {
                    let sending = Sending {
                        socket,
                        token: Token::default(),
                        block: 0,
                        offset: 0,
                        moved: now.mono,
                    };
                    self.state = State::Sending(sending);
                    Ok(true)
                }
                None => Ok(false),
            },
            State::Sending(sending) => {
                if poll.is_ready(sending.token) {
                    expect_silence(&mut sending.socket)?;
                }
                if !sending.write(spool, now)? {
                    let stalled = now.mono.saturating_duration_since(sending.moved) >= self.timeout;
                    return if stalled {
                        Err(io::ErrorKind::TimedOut.into())
                    } else {
                        Ok(false)
                    };
                }
                sending.socket.shutdown(Shutdown::Write)?;
                if let State::Sending(sending) = std::mem::replace(&mut self.state, State::Idle) {
                    let Sending { socket, .. } = sending;
                    self.state = State::Closing {
                        socket,
                        token: Token::default(),
                        since: now.mono,
                        left: usize::MAX,
                        moved: now.mono,
                    };
                }
                Ok(false)
            }
            State::Closing {
                socket,
                token,
                since,
                left,
                moved,
            } => {
                let closed = poll.is_ready(*token) && has_closed(socket)?;
                let unacknowledged = crate::sys::unacknowledged(socket.as_fd())?;
                if unacknowledged < *left {
                    (*left, *moved) = (unacknowledged, now.mono);
                }
                let patient = now.mono.saturating_duration_since(*since) >= PATIENCE;
                if closed || (patient && unacknowledged == 0) {
                    self.arrived(spool, report, now);
                    return Ok(true);
                }
                let idle = now.mono.saturating_duration_since(*moved);
                if idle >= self.timeout.max(PATIENCE) {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Ok(false)
            }
        }
    }

    fn arrived(&mut self, spool: &mut Spool, report: &mut Report, now: Now) {
        self.state = State::Idle;
        self.backoff.reset();
        if self.down.set(false) {
            log::notice!(
                "graphite {}: delivering again; {} flushes wait",
                self.target(),
                spool.flushes()
            );
        }
        let Some(part) = spool.delivered() else {
            return;
        };
        self.length += part.bytes as u64;
        if part.last {
            let began = self.began.take().unwrap_or(now.mono);
            report.flush_time = now.mono.saturating_duration_since(began).as_millis() as u64;
            report.flush_length = std::mem::take(&mut self.length);
            report.last_flush = now.seconds();
        }
    }

    fn fail(&mut self, error: &io::Error, spool: &mut Spool, report: &mut Report, now: Now) {
        spool.rewind();
        report.last_exception = now.seconds();
        report.reconnects += 1;
        if self.down.set(true) {
            log::warning!(
                "graphite {}: {error}; flushes are kept, up to {} bytes, and sent again",
                self.target(),
                spool.limit()
            );
        } else {
            log::debug!("graphite {}: {error}", self.target());
        }
        self.state = State::Waiting {
            until: now.mono + self.backoff.pause(),
        };
    }

    fn target(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl Sending {
    /// Writes what the socket takes, within a turn's bound; `true` when the part is all written.
    fn write(&mut self, spool: &Spool, now: Now) -> io::Result<bool> {
        let Some(part) = spool.front() else {
            return Ok(true);
        };
        let mut room = TURN;
        while let Some(block) = part.blocks.get(self.block) {
            if room == 0 {
                return Ok(false);
            }
            match self.socket.write(&block[self.offset..]) {
                Ok(written) => {
                    self.offset += written;
                    room = room.saturating_sub(written);
                    self.moved = now.mono;
                    if self.offset == block.len() {
                        (self.block, self.offset) = (self.block + 1, 0);
                    }
                }
                Err(error) if is_passing(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Graphite says nothing. If it closes while we still write, the part has not arrived.
fn expect_silence(socket: &mut Socket) -> io::Result<()> {
    if has_closed(socket)? {
        Err(io::ErrorKind::ConnectionAborted.into())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Between two parts a flush that is larger than the spool must wait, or it would drop what is left
    /// of itself; once something is wrong it must not.
    #[test]
    fn is_moving_between_parts_until_something_is_wrong() {
        let text = "{ graphiteHost: \"127.0.0.1\", graphitePort: 1 }";
        let environment = crate::config::Environment::of_this_machine();
        let loaded = crate::config::load::statsd_from_text(text, "test", &environment);
        let mut delivery = Delivery::new(&loaded.unwrap().config.graphite).unwrap();
        let now = Now::read();
        assert!(delivery.is_moving());
        delivery.state = State::Dialing(Dial::start("127.0.0.1", 1, delivery.timeout, now));
        assert!(delivery.is_moving());
        let error = io::ErrorKind::ConnectionRefused.into();
        delivery.fail(
            &error,
            &mut Spool::new(1 << 20),
            &mut Report::default(),
            now,
        );
        assert!(!delivery.is_moving());
        delivery.state = State::Idle;
        assert!(!delivery.is_moving(), "known to be down");
    }
}
