//! A node as the proxy deals with it: where it is, the socket to it, and the checks of its health.
//! What waits for it is in the router's [`super::queue`].

use super::health::Health;
use super::probe::{Outcome, Probe};
use super::queue::{Batch, Queue, Stuck, is_refusal};
use crate::config::NodeConfig;
use crate::event_loop::{Now, PollSet, Token};
use crate::log;
use crate::net::resolve;
use crate::sys;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// How long to leave a socket alone that has no room although poll would call it writable.
const PAUSE: Duration = Duration::from_millis(5);

/// How long all must have gone well for the log to say that something is over.
pub const CALM: Duration = Duration::from_secs(10);

/// See the module.
pub struct Node {
    name: String,
    config: NodeConfig,
    health: Health,
    probe: Option<Probe>,
    /// Where it was found last.
    address: Option<IpAddr>,
    /// Connected, so that refusals come back.
    socket: Option<Socket>,
    /// The socket takes blocks of datagrams.
    blocks: bool,
    /// The socket's buffer was full.
    full: bool,
    token: Token,
    /// Until when the socket is left alone.
    pause: Option<Instant>,
    /// When the system last had no room, until that is over.
    no_room: Option<Instant>,
    drops: Drops,
}

impl Node {
    /// A node that has not been asked yet. At start it is believed to be alive.
    pub fn new(config: NodeConfig, alive: bool, now: Now) -> Node {
        let address = resolve::literal(&config.host, config.port).map(|address| address.ip());
        let mut node = Node {
            name: name(&config),
            health: Health::new(alive, now.mono, now.seconds()),
            probe: None,
            address,
            socket: None,
            blocks: false,
            full: false,
            token: Token::default(),
            pause: None,
            no_room: None,
            drops: Drops::default(),
            config,
        };
        if alive {
            // If it fails the first check fails too.
            let _ = node.connect();
        }
        node
    }

    /// On the ring: `host:port` as written.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether lines go to it.
    pub fn is_alive(&self) -> bool {
        self.health.is_alive()
    }

    /// When its state last changed, in seconds since the epoch.
    pub fn since(&self) -> u64 {
        self.health.since()
    }

    /// Takes another admin port, for the next check.
    pub fn configure(&mut self, config: NodeConfig) {
        self.config = config;
    }

    /// Says what to wait for.
    pub fn register(&mut self, poll: &mut PollSet) {
        match &mut self.probe {
            Some(probe) => probe.register(poll),
            None => poll.wake_at(self.health.next()),
        }
        self.pause.into_iter().for_each(|until| poll.wake_at(until));
        self.token = match &self.socket {
            Some(socket) if self.full => poll.writes(socket.as_raw_fd()),
            _ => Token::default(),
        };
    }

    /// Looks whether there is room again.
    pub fn turn(&mut self, poll: &PollSet, now: Now) {
        self.full &= !poll.is_ready(self.token);
        self.pause = self.pause.filter(|until| now.mono < *until);
    }

    /// Sends what waits, as far as there is room.
    pub fn send(&mut self, queue: &mut Queue, now: Now) {
        let Some(socket) = &self.socket else { return };
        if queue.is_empty() || self.full || self.pause.is_some() {
            return;
        }
        let batch = if self.blocks {
            Batch::Block
        } else {
            Batch::List
        };
        let blocks = &mut self.blocks;
        let sent = queue.send(batch, |datagrams| {
            if *blocks && datagrams.len() > 1 {
                match sys::send_block(socket.as_fd(), datagrams) {
                    // An interface that cannot, or a datagram that would have to be fragmented.
                    Err(error) if is_unable(&error) => *blocks = false,
                    other => return other,
                }
            }
            sys::send_datagrams(socket.as_fd(), datagrams)
        });
        self.full = sent.stuck == Some(Stuck::Buffer);
        self.pause = match sent.stuck {
            Some(Stuck::Elsewhere | Stuck::Refused) => Some(now.mono + PAUSE),
            Some(Stuck::Buffer) | None => None,
        };
        let no_room = sent.stuck == Some(Stuck::Elsewhere);
        if no_room && self.no_room.replace(now.mono).is_none() {
            log::warning!(
                "node {}: the system has no room for datagrams; lines wait, up to nodeQueueBytes",
                self.name
            );
        }
        if sent.refused {
            self.health.hurry(now.mono);
        }
    }

    /// Tells the log when lines begin to be dropped, and when that, or a lack of room, is over.
    pub fn report(&mut self, dropped: u64, now: Instant) {
        let calm = |last: Instant| now.saturating_duration_since(last) >= CALM;
        if self.no_room.is_some_and(calm) {
            self.no_room = None;
            log::notice!(
                "node {}: the system has room for datagrams again",
                self.name
            );
        }
        let Drops {
            total: seen,
            under_way,
        } = &mut self.drops;
        if dropped != *seen {
            let (_, before) = under_way.unwrap_or((now, *seen));
            if under_way.is_none() {
                log::warning!(
                    "node {}: lines are being dropped, as its queue is full (nodeQueueBytes) or they are too long",
                    self.name
                );
            }
            (*under_way, *seen) = (Some((now, before)), dropped);
        } else if let Some((last, before)) = *under_way {
            if calm(last) {
                log::notice!(
                    "node {}: {} lines were dropped; now they go out again",
                    self.name,
                    dropped - before
                );
                *under_way = None;
            }
        }
    }

    /// Moves the check on, or begins one that is due. A change of state is given with its reason; the
    /// socket has been made or closed by then.
    pub fn check(
        &mut self,
        queue: &mut Queue,
        poll: &PollSet,
        interval: Duration,
        prefer_ipv6: bool,
        now: Now,
    ) -> Option<Result<(), String>> {
        let mut outcome = None;
        if let Some(probe) = &mut self.probe {
            let mut found = None;
            outcome = probe.turn(poll, now, |address| found = Some(address));
            if found.is_some() {
                self.address = found;
                if self.is_alive() && self.socket.is_none() {
                    let _ = self.connect();
                }
            }
        } else if let Some(deadline) = self.health.begin(now.mono, interval) {
            match self.probe(deadline, prefer_ipv6, now) {
                Ok(probe) => self.probe = Some(probe),
                Err(down) => outcome = Some(down),
            }
        }
        let mut outcome = outcome?;
        self.probe = None;
        if outcome == Outcome::Up && self.socket.is_none() {
            if let Err(error) = self.connect() {
                outcome = Outcome::Down(format!("cannot send to it: {error}"));
            }
        }
        let changed = self.health.settle(outcome == Outcome::Up, now.seconds());
        match outcome {
            Outcome::Up => changed.then_some(Ok(())),
            Outcome::Down(why) => {
                self.disconnect(queue);
                changed.then_some(Err(why))
            }
        }
    }

    /// A name is looked up again while the node is not alive: it may have moved.
    fn probe(&self, deadline: Instant, prefer_ipv6: bool, now: Now) -> Result<Probe, Outcome> {
        let NodeConfig {
            host,
            port,
            admin_port,
        } = &self.config;
        let known = match resolve::literal(host, *port) {
            Some(address) => Some(address.ip()),
            None => self.address.filter(|_| self.is_alive()),
        };
        match known {
            Some(address) => Ok(Probe::of_address(address, *admin_port, deadline, now)),
            None => Probe::of_name(host, *admin_port, prefer_ipv6, deadline),
        }
    }

    fn connect(&mut self) -> io::Result<()> {
        let address = self.address.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let address = SocketAddr::new(address, self.config.port);
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&address.into())?;
        self.blocks = sys::takes_blocks(socket.as_fd());
        self.socket = Some(socket);
        (self.full, self.pause) = (false, None);
        Ok(())
    }

    fn disconnect(&mut self, queue: &mut Queue) {
        let Some(socket) = self.socket.take() else {
            return;
        };
        let last = socket.take_error().ok().flatten();
        if last.is_some_and(|error| is_refusal(&error)) {
            queue.note_refusal();
        }
        (self.full, self.pause) = (false, None);
    }
}

/// Lines that were dropped, for the log: told when it begins and when it is over.
#[derive(Default)]
struct Drops {
    /// At the last look.
    total: u64,
    /// While it lasts: when the last one was seen, and the total before the first.
    under_way: Option<(Instant, u64)>,
}

/// The kernel cannot send blocks here.
fn is_unable(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [libc::EINVAL, libc::EIO, libc::EMSGSIZE, libc::EOPNOTSUPP].contains(&code.unwrap_or(0))
}

/// Its name on the ring.
pub fn name(config: &NodeConfig) -> String {
    format!("{}:{}", config.host, config.port)
}
