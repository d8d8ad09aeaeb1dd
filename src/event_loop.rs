//! The loop that both programs run on: one `poll(2)` a turn, all deadlines inline.
//!
//! register → wait until the nearest deadline → read the clock once → signals → console → data →
//! deadlines → reap. Work in a turn is bounded by those who do it, so that a flood can starve neither
//! the flush nor the console. The set of descriptors is built anew each turn, which is O(n) and fine
//! for a few thousand.

use crate::process::child;
use crate::process::notify::Notifier;
use crate::process::signals::{SignalSet, Signals};
use crate::{log, stdout, sys};
use std::os::fd::RawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long to wait where `poll` itself fails.
const PAUSE: Duration = Duration::from_millis(20);

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
    failing: log::Latch,
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

    /// Waits until a descriptor is ready, or it is time. Where the system cannot tell what is ready (it is
    /// short of memory), all of it may be: no call on any descriptor blocks, and each says itself what
    /// there is.
    pub fn wait(&mut self) {
        let timeout = self
            .deadline
            .map(|when| when.saturating_duration_since(Instant::now()));
        let outcome = sys::poll(&mut self.fds, timeout);
        let news = self.failing.set(outcome.is_err());
        match outcome {
            Err(error) => {
                if news {
                    log::error!(
                        "cannot wait for input: {error}; looking for it every {} ms",
                        PAUSE.as_millis()
                    );
                }
                let pause = timeout.map_or(PAUSE, |timeout| timeout.min(PAUSE));
                std::thread::sleep(pause);
                self.fds.iter_mut().for_each(|fd| fd.revents = fd.events);
            }
            Ok(_) if news => log::notice!("waiting for input works again"),
            Ok(_) => {}
        }
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
pub fn run(role: &mut impl Role, upkeep: &mut Upkeep) {
    let mut poll = PollSet::default();
    loop {
        poll.clear();
        upkeep.register(&mut poll);
        role.register(&mut poll);
        poll.wait();
        let now = Now::read();
        upkeep.turn(role, &poll, now);
        role.console(&poll, now);
        role.data(&poll, now);
        let flow = role.deadlines(&poll, now);
        role.reap(now);
        if flow == Flow::Done {
            return log::flush(now.mono);
        }
    }
}

/// What every program on the loop has to see to: signals, its log, its children, and the service
/// manager's watchdog.
pub struct Upkeep {
    signals: Signals,
    signalled: Token,
    notifier: Notifier,
    watchdog: Option<Watchdog>,
}

struct Watchdog {
    every: Duration,
    next: Instant,
}

impl Upkeep {
    /// `watchdog` is how long the service manager waits for a sign of life.
    pub fn new(signals: Signals, notifier: Notifier, watchdog: Option<Duration>) -> Upkeep {
        let every = watchdog.map(|limit| limit / 2);
        let watchdog = every.map(|every| Watchdog {
            every,
            next: Instant::now() + every,
        });
        Upkeep {
            signals,
            signalled: Token::default(),
            notifier,
            watchdog,
        }
    }

    /// Tells the service manager that the program is up.
    pub fn ready(&self, status: &str) {
        if let Err(error) = self.notifier.ready(status) {
            log::warning!("cannot tell the service manager that we are up: {error}");
        }
    }

    fn register(&mut self, poll: &mut PollSet) {
        self.signalled = poll.reads(self.signals.fd());
        for waiting in [stdout::wants_write(), log::wants_write()]
            .into_iter()
            .flatten()
        {
            poll.writes(waiting);
        }
        if let Some(watchdog) = &self.watchdog {
            poll.wake_at(watchdog.next);
        }
    }

    fn turn(&mut self, role: &mut impl Role, poll: &PollSet, now: Now) {
        log::flush(now.mono);
        if poll.is_ready(self.signalled) {
            let signals = self.signals.take();
            if signals.child {
                child::reap();
            }
            role.signals(signals, now);
        }
        if let Some(watchdog) = self
            .watchdog
            .as_mut()
            .filter(|watchdog| now.mono >= watchdog.next)
        {
            watchdog.next = now.mono + watchdog.every;
            // One that is not heard is the service manager's to act on.
            let _ = self.notifier.watchdog();
        }
    }
}
