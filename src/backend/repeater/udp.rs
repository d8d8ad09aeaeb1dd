//! A target that gets datagrams, over one connected socket, in batches.
//!
//! A connected socket tells what became of earlier packets: where nobody listens the next send fails,
//! and that packet is tried once more, as it was not the one. After an error the name is looked up
//! and the socket made anew, with growing pauses; what has a socket goes out meanwhile all the same.
//! Where the system has no room for a packet it waits, as it does for an address, within
//! `repeaterBufferBytes`.
//! A name is also looked up every [`REFRESH`], as the original follows its DNS.

use super::queue::Queue;
use super::{Counts, Sender};
use crate::config::Target;
use crate::event_loop::{Now, PollSet, Token};
use crate::log;
use crate::net::backoff::Backoff;
use crate::net::resolve::{self, Lookup};
use crate::net::stream::is_passing;
use crate::sys::{self, SEND_BATCH};
use memchr::memrchr;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// Bytes of the largest datagram that fits in IPv4.
const DATAGRAM: usize = 65_507;

/// Bytes that are sent before the turn is over.
const EARLY: usize = 64 * 1024;

/// How often a name that works is looked up again.
const REFRESH: Duration = Duration::from_secs(60);

/// How long a look-up may take.
const LOOKUP: Duration = Duration::from_secs(60);

/// How long to leave a socket alone that has no room although poll would call it writable.
const PAUSE: Duration = Duration::from_millis(5);

/// Without an error for so long, the target is well again. An error is not told for each packet: some
/// systems tell one in a second.
const QUIET: Duration = Duration::from_secs(5);

/// See the module.
pub struct Udp {
    target: Target,
    /// Which addresses to prefer.
    ipv6: bool,
    limit: usize,
    queue: Queue,
    socket: Option<(Socket, SocketAddr)>,
    token: Token,
    /// The kernel takes no more for now.
    stuck: Option<Stuck>,
    lookup: Option<(Lookup, Instant)>,
    /// When to look up next, and whether that is because something went wrong.
    look_at: Option<Instant>,
    retrying: bool,
    backoff: Backoff,
    /// What went wrong in this turn, and when something last did.
    failed: Option<io::Error>,
    failed_at: Option<Instant>,
    sent_before: u64,
    down: log::Latch,
    counts: Counts,
}

/// Why it takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stuck {
    /// The socket's buffer is full: poll tells when it is not.
    Buffer,
    /// Something else is full: poll does not tell.
    Elsewhere,
}

impl Udp {
    /// Looks the target up at once.
    pub fn new(target: &Target, ipv6: bool) -> Udp {
        Udp {
            target: target.clone(),
            ipv6,
            limit: 0,
            queue: Queue::default(),
            socket: None,
            token: Token::default(),
            stuck: None,
            lookup: None,
            look_at: Some(Instant::now()),
            retrying: false,
            backoff: Backoff::default(),
            failed: None,
            failed_at: None,
            sent_before: 0,
            down: log::Latch::new(),
            counts: Counts::default(),
        }
    }

    fn fail(&mut self, error: io::Error) {
        self.counts.errors += 1;
        self.failed = Some(error);
    }

    /// Looks the name up when that is due.
    fn look(&mut self, poll: &PollSet, now: Now) {
        let Target { host, port } = &self.target;
        if let Some((lookup, deadline)) = &mut self.lookup {
            let mut found = lookup.turn(poll);
            if found.is_none() && now.mono >= *deadline {
                found = Some(Err(io::ErrorKind::TimedOut.into()));
            }
            if let Some(found) = found {
                self.lookup = None;
                self.found(found, now);
            }
        } else if self.look_at.is_some_and(|at| now.mono >= at) {
            self.look_at = None;
            match resolve::literal(host, *port) {
                Some(address) => self.found(Ok(vec![address]), now),
                None => match Lookup::start(host, *port) {
                    Ok(lookup) => self.lookup = Some((lookup, now.mono + LOOKUP)),
                    Err(error) => self.found(Err(error), now),
                },
            }
        }
    }

    fn found(&mut self, found: io::Result<Vec<SocketAddr>>, now: Now) {
        let retrying = std::mem::take(&mut self.retrying);
        if resolve::literal(&self.target.host, 0).is_none() {
            self.look_at = Some(now.mono + REFRESH);
        }
        let old = self.socket.as_ref().map(|(_, address)| *address);
        let opened = found.and_then(|addresses| {
            if !retrying && old.is_some_and(|old| addresses.contains(&old)) {
                return Ok(None);
            }
            open(addresses, self.ipv6).map(Some)
        });
        match opened {
            Ok(Some(socket)) => {
                (self.socket, self.stuck) = (Some(socket), None);
            }
            Ok(None) => {}
            // What was found before is good until it is known to be bad.
            Err(error) if old.is_some() && !retrying => {
                log::debug!("{self}: {error}");
            }
            Err(error) => self.fail(error),
        }
    }

    /// Sends what waits, as far as the kernel takes it.
    fn send(&mut self) {
        let mut tried = false;
        while self.stuck.is_none() {
            let Some((socket, _)) = &self.socket else {
                return;
            };
            let mut datagrams = [&[][..]; SEND_BATCH];
            let mut count = 0;
            for (slot, packet) in datagrams.iter_mut().zip(self.queue.front()) {
                *slot = packet;
                count += 1;
            }
            if count == 0 {
                return;
            }
            match sys::send_datagrams(socket.as_fd(), &datagrams[..count]) {
                Ok(sent) => {
                    self.queue.drop_packets(sent);
                    self.counts.sent += sent as u64;
                    tried = false;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stuck = Some(Stuck::Buffer);
                }
                Err(error) if is_passing(&error) => {}
                Err(error) if is_full(&error) => {
                    self.stuck = Some(Stuck::Elsewhere);
                    self.fail(error);
                }
                Err(error) => {
                    // An error of its own, or one that is told a second time.
                    let its_own = error.raw_os_error() == Some(libc::EMSGSIZE);
                    self.fail(error);
                    if tried || its_own {
                        self.queue.drop_packets(1);
                        self.counts.dropped += 1;
                    }
                    tried = !tried && !its_own;
                }
            }
        }
    }

    /// Logs a change for worse or better, and plans the next look.
    fn judge(&mut self, now: Now) {
        let sending = self.counts.sent > std::mem::replace(&mut self.sent_before, self.counts.sent);
        if let Some(error) = self.failed.take() {
            self.failed_at = Some(now.mono);
            if self.down.set(true) {
                log::warning!("{self}: {error}; packets for it may be lost");
            }
            // Another socket would have no more room.
            if !is_full(&error) && !self.retrying && self.lookup.is_none() {
                self.retrying = true;
                self.look_at = Some(now.mono + self.backoff.pause());
            }
            return;
        }
        let quiet = |at: Instant| now.mono.saturating_duration_since(at) >= QUIET;
        if self.down.is_on() && sending && self.failed_at.is_some_and(quiet) {
            self.down.set(false);
            self.backoff.reset();
            log::notice!(
                "{self}: sending again; {} packets were dropped in all",
                self.counts.dropped
            );
        }
    }

    fn take(&mut self, packet: &[u8]) {
        if self.queue.bytes() + packet.len() > EARLY || self.queue.packets() >= SEND_BATCH {
            self.send();
        }
        if !self.queue.push([packet, b""], self.limit) {
            self.counts.dropped += 1;
            if self.failed.is_none() {
                self.failed = Some(io::Error::other("there is no room for more packets"));
            }
        }
    }
}

/// A socket to the first of these addresses that there is a way to, those of the family asked for first.
fn open(mut addresses: Vec<SocketAddr>, ipv6: bool) -> io::Result<(Socket, SocketAddr)> {
    addresses.sort_by_key(|address| address.is_ipv6() != ipv6);
    let mut result = Err(io::ErrorKind::AddrNotAvailable.into());
    for address in addresses {
        result = connect(address);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// The system has no room, for whatever packet.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

fn connect(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&address.into())?;
    Ok((socket, address))
}

impl Sender for Udp {
    fn packet(&mut self, mut packet: &[u8]) {
        // From a tcp client more can come at once than fits in a datagram.
        while packet.len() > DATAGRAM {
            let end = memrchr(b'\n', &packet[..DATAGRAM]).map_or(DATAGRAM, |end| end + 1);
            let (first, rest) = packet.split_at(end);
            self.take(first);
            packet = rest;
        }
        self.take(packet);
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
        match (&mut self.lookup, self.look_at) {
            (Some((lookup, deadline)), _) => {
                lookup.register(poll);
                poll.wake_at(*deadline);
            }
            (None, Some(at)) => poll.wake_at(at),
            (None, None) => {}
        }
        self.token = Token::default();
        match (self.stuck, &self.socket) {
            (Some(Stuck::Buffer), Some((socket, _))) => {
                self.token = poll.writes(socket.as_raw_fd());
            }
            (Some(Stuck::Elsewhere), _) => poll.wake_at(Instant::now() + PAUSE),
            _ => {}
        }
    }

    fn turn(&mut self, poll: &PollSet, now: Now) {
        if self.stuck == Some(Stuck::Elsewhere) || poll.is_ready(self.token) {
            self.stuck = None;
        }
        self.look(poll, now);
        self.send();
        self.judge(now);
    }

    fn hurry(&mut self, _now: Now) {}

    /// Datagrams come with no promise: the end does not wait for them.
    fn undelivered(&self) -> usize {
        0
    }
}

impl std::fmt::Display for Udp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "repeater udp {}:{}", self.target.host, self.target.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Shutdown};

    #[test]
    fn an_error_that_stays_costs_each_packet_two_tries() {
        let target = Target {
            host: "127.0.0.1".to_string(),
            port: 7,
        };
        let mut udp = Udp::new(&target, false);
        udp.set_limit(1000);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 7));
        let socket = connect(address).unwrap();
        // Every send on it fails from now on.
        socket.0.shutdown(Shutdown::Write).unwrap();
        udp.socket = Some(socket);
        (0..3).for_each(|_| udp.packet(b"a:1|c"));
        udp.send();
        let expected = Counts {
            sent: 0,
            dropped: 3,
            errors: 6,
        };
        assert_eq!((udp.counts, udp.queue.packets()), (expected, 0));
    }

    #[test]
    fn the_family_asked_for_comes_first_and_the_other_will_do() {
        let four = SocketAddr::from((Ipv4Addr::LOCALHOST, 7));
        let six = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 7));
        assert_eq!(open(vec![six, four], false).unwrap().1, four);
        assert_eq!(open(vec![four], true).unwrap().1, four);
        // Where there is no IPv6, the first that works is taken.
        if connect(six).is_ok() {
            assert_eq!(open(vec![four, six], true).unwrap().1, six);
        }
        assert!(open(Vec::new(), false).is_err());
    }
}
