//! The loop that both programs run on: one `poll(2)` a turn, all deadlines inline.
//!
//! register → wait until the nearest deadline → read the clock once → signals → console → data →
//! deadlines → reap. Work in a turn is bounded by those who do it, so that a flood can starve neither
//! the flush nor the console. The set of descriptors is built anew each turn, which is O(n) and fine
//! for a few thousand.

use crate::process::signals::{SignalSet, Signals};
use crate::sys;
use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time of a turn, read once.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines: never steps.
    pub mono: Instant,
    /// For timestamps.
    pub wall: SystemTime,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Now {
        Now {
            mono: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// The wall clock in seconds since the epoch, rounded as the original rounds it.
    pub fn seconds(&self) -> u64 {
        let since = self.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        (since + Duration::from_millis(500)).as_secs()
    }
}

/// What is waited for this turn, and until when.
#[derive(Default)]
pub struct PollSet {
    fds: Vec<sys::PollFd>,
    deadline: Option<Instant>,
}

/// Where a descriptor stands in this turn's set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Token(Option<usize>);

impl PollSet {
    /// Waits for input on a descriptor.
    pub fn reads(&mut self, fd: RawFd) -> Token {
        self.watch(fd, libc::POLLIN)
    }

    /// Waits for room to write.
    pub fn writes(&mut self, fd: RawFd) -> Token {
        self.watch(fd, libc::POLLOUT)
    }

    /// Waits for either.
    pub fn reads_and_writes(&mut self, fd: RawFd) -> Token {
        self.watch(fd, libc::POLLIN | libc::POLLOUT)
    }

    fn watch(&mut self, fd: RawFd, events: libc::c_short) -> Token {
        self.fds.push(sys::PollFd {
            fd,
            events,
            revents: 0,
        });
        Token(Some(self.fds.len() - 1))
    }

    /// Ends the wait at this time at the latest.
    pub fn wake_at(&mut self, when: Instant) {
        self.deadline = Some(self.deadline.map_or(when, |nearest| nearest.min(when)));
    }

    /// Whether there is something to do on a descriptor. Errors and hang-ups count: the next call on
    /// it says what they are.
    #[inline]
    pub fn is_ready(&self, token: Token) -> bool {
        token.0.is_some_and(|index| self.fds[index].revents != 0)
    }

    fn clear(&mut self) {
        self.fds.clear();
        self.deadline = None;
    }

    fn wait(&mut self) -> io::Result<()> {
        let timeout = self
            .deadline
            .map(|when| when.saturating_duration_since(Instant::now()));
        sys::poll(&mut self.fds, timeout).map(|_| ())
    }
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Another turn.
    On,
    /// The program is done.
    Done,
}

/// A program on the loop. The methods are called in this order, once a turn.
pub trait Role {
    /// Says what to wait for.
    fn register(&mut self, poll: &mut PollSet);
    /// Acts on signals.
    fn signals(&mut self, signals: SignalSet, now: Now);
    /// Serves the admin console.
    fn console(&mut self, poll: &PollSet, now: Now);
    /// Takes in metrics.
    fn data(&mut self, poll: &PollSet, now: Now);
    /// Does what is due, and moves outputs on.
    fn deadlines(&mut self, poll: &PollSet, now: Now) -> Flow;
    /// Drops what was closed in this turn.
    fn reap(&mut self, now: Now);
}

/// Runs a role until it is done.
pub fn run(role: &mut impl Role, signals: &mut Signals) -> io::Result<()> {
    let mut poll = PollSet::default();
    loop {
        poll.clear();
        let signalled = poll.reads(signals.fd());
        role.register(&mut poll);
        poll.wait()?;
        let now = Now::read();
        if poll.is_ready(signalled) {
            role.signals(signals.take(), now);
        }
        role.console(&poll, now);
        role.data(&poll, now);
        if role.deadlines(&poll, now) == Flow::Done {
            return Ok(());
        }
        role.reap(now);
    }
}
