//! Clients on a TCP or unix stream socket: accepted, read in whole lines, kept within limits.
//!
//! What has come of a line waits until its end comes; a line over the limit is passed over up to its
//! end. An error on a connection ends that connection alone (SPEC 9, point 1).

use crate::config;
use crate::event_loop::{Now, PollSet, Token};
use crate::log;
use crate::net::bind::Listener;
use crate::net::{PACKET, TURN};
use memchr::{memchr, memrchr};
use socket2::Socket;
use std::fmt;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Connections accepted in one turn.
pub const ACCEPTS: usize = 64;

/// How many times that at the end: what a backlog holds.
const LAST_ACCEPTS: usize = 8;

/// Bytes read from one connection at a time.
const CHUNK: usize = 64 * 1024;

/// Silent connections are told of once in so long; those between are summed up.
const SILENT_EVERY: Duration = Duration::from_secs(60);

/// How long to leave new connections waiting when there is no descriptor for them.
const PAUSE: Duration = Duration::from_millis(500);

/// The bounds on connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub clients: usize,
    /// A silent one is closed after this; zero is never.
    pub idle: Duration,
    /// Bytes in a line.
    pub line: usize,
}

impl From<&config::Limits> for Limits {
    fn from(limits: &config::Limits) -> Limits {
        Limits {
            clients: limits.max_tcp_clients,
            idle: limits.tcp_idle_timeout,
            line: limits.max_line_bytes,
        }
    }
}

/// A listening socket and the clients on it.
pub struct StreamServer {
    acceptor: Acceptor,
    clients: Vec<Client>,
    limits: Limits,
    buffer: Vec<u8>,
    /// Where to begin reading in the next turn, so that none is always last.
    first: usize,
    full: log::Latch,
    refused: u64,
    silence: Silence,
    long_lines: u64,
}

struct Client {
    socket: Socket,
    token: Token,
    lines: Lines,
    heard: Instant,
    open: bool,
}

/// Makes whole lines of what comes in any cut.
#[derive(Default)]
pub struct Lines {
    /// The beginning of a line whose end has not come.
    pending: Vec<u8>,
    /// The line was over the limit: pass over the rest of it.
    skipping: bool,
}

impl StreamServer {
    /// A server without clients.
    pub fn new(listener: Listener) -> StreamServer {
        StreamServer {
            acceptor: Acceptor::new(listener),
            clients: Vec::new(),
            limits: Limits {
                clients: usize::MAX,
                idle: Duration::ZERO,
                line: usize::MAX,
            },
            buffer: Vec::new(),
            first: 0,
            full: log::Latch::new(),
            refused: 0,
            silence: Silence::new("tcpIdleTimeout"),
            long_lines: 0,
        }
    }

    /// See [`crate::net::bind::again`]; without the clients.
    pub fn again(&self) -> io::Result<StreamServer> {
        self.acceptor.listener.again().map(StreamServer::new)
    }

    /// Takes new limits; who is connected stays.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Open connections.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Connections refused because there were too many, since the start.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Connections closed because they were silent too long, since the start.
    pub fn silent(&self) -> u64 {
        self.silence.closed
    }

    /// Lines passed over because they were too long, since the last call.
    pub fn take_long_lines(&mut self) -> u64 {
        std::mem::take(&mut self.long_lines)
    }

    /// Says what to wait for.
    pub fn register(&mut self, poll: &mut PollSet) {
        self.acceptor.register(poll);
        for client in &mut self.clients {
            client.token = poll.reads(client.socket.as_raw_fd());
        }
        if !self.limits.idle.is_zero() {
            let oldest = self.clients.iter().map(|client| client.heard).min();
            oldest
                .into_iter()
                .for_each(|heard| poll.wake_at(heard + self.limits.idle));
        }
    }

    /// Accepts and reads what is there, within a turn's bounds.
    pub fn receive(&mut self, poll: &PollSet, now: Now, packet: &mut impl FnMut(&[u8])) {
        if self.acceptor.is_ready(poll) {
            self.accept(now.mono);
        }
        let count = self.clients.len();
        let mut room = TURN;
        for step in 0..count {
            let index = (self.first + step) % count;
            if room == 0 {
                self.first = index;
                return;
            }
            if poll.is_ready(self.clients[index].token) {
                room = room.saturating_sub(PACKET + self.read(index, now.mono, packet));
            }
        }
        self.first = 0;
    }

    /// Accepts so many as a turn allows; how many there were.
    fn accept(&mut self, now: Instant) -> usize {
        for count in 0..ACCEPTS {
            let Some(socket) = self.acceptor.accept(now) else {
                return count;
            };
            let full = self.clients.len() >= self.limits.clients;
            if self.full.set(full) {
                let limit = self.limits.clients;
                if full {
                    log::warning!("{self}: {limit} clients, refusing more (maxTcpClients)");
                } else {
                    log::notice!("{self}: below {limit} clients again");
                }
            }
            if full {
                self.refused += 1;
                continue;
            }
            self.clients.push(Client {
                socket,
                token: Token::default(),
                lines: Lines::default(),
                heard: now,
                open: true,
            });
        }
        ACCEPTS
    }

    /// Reads once from a client; the bytes that came.
    fn read(&mut self, index: usize, now: Instant, packet: &mut impl FnMut(&[u8])) -> usize {
        let client = &mut self.clients[index];
        let front = client.lines.waiting();
        if self.buffer.len() < front + CHUNK {
            self.buffer.resize(front + CHUNK, 0);
        }
        match client.socket.read(&mut self.buffer[front..][..CHUNK]) {
            Ok(0) => client.open = false,
            Ok(length) => {
                client.heard = now;
                let bytes = &mut self.buffer[..front + length];
                self.long_lines += client.lines.take(bytes, self.limits.line, packet);
                return length;
            }
            Err(error) if is_passing(&error) => {}
            Err(error) => {
                log::debug!("a client's connection ended: {error}");
                client.open = false;
            }
        }
        0
    }

    /// At the end: reads what the kernel has queued, also of clients that it has accepted and we have not.
    pub fn drain(&mut self, until: Instant, packet: &mut impl FnMut(&[u8])) {
        // Once through the backlog; clients that come all the while must not keep us.
        for _ in 0..LAST_ACCEPTS {
            if self.accept(Instant::now()) < ACCEPTS {
                break;
            }
        }
        for index in 0..self.clients.len() {
            while Instant::now() < until && self.read(index, until, packet) > 0 {}
        }
        self.clients.clear();
    }

    /// Drops connections that were closed in this turn or have been silent too long.
    pub fn reap(&mut self, now: Now) {
        let (idle, listener) = (self.limits.idle, &self.acceptor.listener);
        let silence = &mut self.silence;
        silence.report(listener, now.mono);
        self.clients.retain(|client| {
            client.open && !silence.is_over(client.heard, idle, listener, now.mono)
        });
        // The buffer is only kept while there is someone to read from.
        if self.clients.is_empty() {
            self.buffer = Vec::new();
        }
    }
}

impl Lines {
    /// Bytes of a line whose end has not come.
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Hands on whole lines; how many were too long. The bytes that came are behind room for those
    /// that are [`Lines::waiting`]: together they are one packet, as the original makes it, and only
    /// the few of a cut line are ever copied.
    pub fn take(&mut self, bytes: &mut [u8], limit: usize, packet: &mut impl FnMut(&[u8])) -> u64 {
        let mut from = self.pending.len();
        if self.skipping {
            let Some(end) = memchr(b'\n', bytes) else {
                return 0;
            };
            from = end + 1;
            self.skipping = false;
        }
        let mut long = 0;
        if let Some(end) = memrchr(b'\n', &bytes[from..]) {
            let (start, end) = (from - self.pending.len(), from + end + 1);
            bytes[start..from].copy_from_slice(&self.pending);
            self.pending = Vec::new();
            long += hand_on(&bytes[start..end], limit, packet);
            from = end;
        }
        let rest = &bytes[from..];
        if self.pending.len() + rest.len() > limit {
            self.pending = Vec::new();
            self.skipping = true;
            return long + 1;
        }
        self.pending.extend_from_slice(rest);
        long
    }
}

/// Hands on whole lines as one packet, but for those over the limit; how many those were. It looks at a few
/// of the line ends only: there must be one in every `limit` bytes.
fn hand_on(lines: &[u8], limit: usize, packet: &mut impl FnMut(&[u8])) -> u64 {
    let (mut from, mut line, mut long) = (0, 0, 0);
    while lines.len() - line > limit {
        if let Some(end) = memrchr(b'\n', &lines[line..=line + limit]) {
            line += end + 1;
            continue;
        }
        if from < line {
            packet(&lines[from..line]);
        }
        line += memchr(b'\n', &lines[line..]).map_or(lines.len() - line, |end| end + 1);
        from = line;
        long += 1;
    }
    if from < lines.len() {
        packet(&lines[from..]);
    }
    long
}

impl fmt::Display for StreamServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.acceptor.listener.fmt(f)
    }
}

/// Connections that were silent too long, of one server.
pub struct Silence {
    key: &'static str,
    closed: u64,
    told: log::RateLimit,
}

impl Silence {
    /// None so far. `key` is that of the time-out.
    pub const fn new(key: &'static str) -> Silence {
        Silence {
            key,
            closed: 0,
            told: log::RateLimit::new(1, SILENT_EVERY),
        }
    }

    /// How many there were.
    pub fn closed(&self) -> u64 {
        self.closed
    }

    /// Whether a connection is to be closed, last heard of then; with a time-out of zero, never. It is
    /// counted and told.
    pub fn is_over(
        &mut self,
        heard: Instant,
        timeout: Duration,
        server: &Listener,
        now: Instant,
    ) -> bool {
        let over = !timeout.is_zero() && now.saturating_duration_since(heard) >= timeout;
        if over {
            self.closed += 1;
            if self.told.allow(now) {
                let key = self.key;
                log::notice!("{server}: closed a client silent for {timeout:?} ({key})");
            }
        }
        over
    }

    /// Once a turn: sums up those that were not told.
    pub fn report(&mut self, server: &Listener, now: Instant) {
        if let Some(more) = self.told.summary(now) {
            log::notice!("{server}: closed {more} more silent clients ({})", self.key);
        }
    }
}

/// An error that leaves the connection as it was.
pub fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Whether a peer that has nothing to say has closed its side; what it says is passed over, a little in
/// each turn.
pub fn has_closed(socket: &mut Socket) -> io::Result<bool> {
    match socket.read(&mut [0; 4096]) {
        Ok(length) => Ok(length == 0),
        Err(error) if is_passing(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A listening socket that rests for a while when the process has no descriptor left.
pub struct Acceptor {
    listener: Listener,
    token: Token,
    /// Until when it rests.
    paused: Option<Instant>,
    failing: log::Latch,
}

impl Acceptor {
    /// Takes a listening socket.
    pub fn new(listener: Listener) -> Acceptor {
        Acceptor {
            listener,
            token: Token::default(),
            paused: None,
            failing: log::Latch::new(),
        }
    }

    /// What it listens on.
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Says what to wait for.
    pub fn register(&mut self, poll: &mut PollSet) {
        self.token = Token::default();
        match self.paused {
            // Polling it now would not wait: the connection that there is no room for is still there.
            Some(until) if until > Instant::now() => poll.wake_at(until),
            _ => self.token = poll.reads(self.listener.socket.as_raw_fd()),
        }
    }

    /// Whether somebody waits.
    pub fn is_ready(&self, poll: &PollSet) -> bool {
        poll.is_ready(self.token)
    }

    /// The next connection, non-blocking.
    pub fn accept(&mut self, now: Instant) -> Option<Socket> {
        loop {
            match self.listener.socket.accept() {
                Ok((socket, _)) => {
                    self.paused = None;
                    if self.failing.set(false) {
                        log::notice!("{}: accepting connections again", self.listener);
                    }
                    if socket.set_nonblocking(true).is_ok() {
                        return Some(socket);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // Somebody gave up while waiting.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => {
                    if self.failing.set(true) {
                        log::error!(
                            "{}: cannot accept connections for now: {error}",
                            self.listener
                        );
                    }
                    self.paused = Some(now + PAUSE);
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::bind;
    use std::io::Write;
    use std::net::TcpStream;

    fn packets(chunks: &[&str], limit: usize) -> (Vec<String>, u64) {
        let mut lines = Lines::default();
        let (mut out, mut long) = (Vec::new(), 0);
        for chunk in chunks {
            let mut bytes = vec![b'?'; lines.waiting()];
            bytes.extend_from_slice(chunk.as_bytes());
            long += lines.take(&mut bytes, limit, &mut |packet: &[u8]| {
                out.push(String::from_utf8_lossy(packet).into_owned());
            });
        }
        (out, long)
    }

    #[test]
    fn lines_over_segment_ends() {
        for (chunks, expected) in [
            (&["a:1|c\n"][..], &["a:1|c\n"][..]),
            (&["a:1", "|c\nb:2|", "c\n"], &["a:1|c\n", "b:2|c\n"]),
            (&["a:1|c\nb:2|c"], &["a:1|c\n"]),
            (&["a:1|c\nb:2|c", "\n"], &["a:1|c\n", "b:2|c\n"]),
            (&["a\nb\nc\n"], &["a\nb\nc\n"]),
            (&["", "\n"], &["\n"]),
        ] {
            assert_eq!(
                packets(chunks, 100),
                (expected.iter().map(|p| p.to_string()).collect(), 0)
            );
        }
    }

    /// However many clients have something, a turn ends, and the next goes on behind them.
    #[test]
    fn many_clients_do_not_make_a_turn_long() {
        let mgmt = config::MgmtConfig {
            address: Some("127.0.0.1".to_string()),
            port: 0,
            allow: Vec::new(),
        };
        let listener = bind::console(&mgmt, bind::Options::default(), &mut Vec::new()).unwrap();
        let address = listener.socket.local_addr().unwrap().as_socket().unwrap();
        let mut server = StreamServer::new(listener);
        let text = "a:1|c\n".repeat(CHUNK / 6);
        let (count, mut turns, mut total) = (3 * TURN / text.len(), 0, 0);
        let _clients: Vec<TcpStream> = (0..count)
            .map(|_| {
                let mut client = TcpStream::connect(address).unwrap();
                client.write_all(text.as_bytes()).unwrap();
                client
            })
            .collect();
        while total < count * text.len() {
            let (mut poll, mut bytes) = (PollSet::default(), 0);
            server.register(&mut poll);
            poll.wait();
            server.receive(&poll, Now::read(), &mut |packet| bytes += packet.len());
            assert!(bytes < TURN + CHUNK, "{bytes} in a turn");
            total += bytes;
            turns += 1;
        }
        assert!(turns >= 3, "{turns} turns");
    }

    #[test]
    fn a_line_over_the_limit_is_passed_over() {
        let long = "x".repeat(11);
        let (found, count) = packets(&["a\n", &long, &long, "x\nb\nc", "\n"], 10);
        assert_eq!(
            (found, count),
            (vec!["a\n".into(), "b\n".into(), "c\n".into()], 1)
        );
        let fits = format!("{}\n", &long[1..]);
        for (chunks, expected, count) in [
            // However it comes.
            (vec![format!("a\nb\n{long}\nc\n")], vec!["a\nb\n", "c\n"], 1),
            (vec![format!("{long}\n{long}\n")], vec![], 2),
            (vec![format!("a\n{long}\n{long}")], vec!["a\n"], 2),
            (vec![long[1..].into(), "x\nb\n".into()], vec!["b\n"], 1),
            (vec![long[1..].into(), "\n".into()], vec![&fits], 0),
            (vec![fits.repeat(3)], vec![&fits.repeat(3)], 0),
        ] {
            let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
            let found = packets(&chunks, 10);
            let expected = expected.iter().map(|p| p.to_string()).collect();
            assert_eq!(found, (expected, count), "{chunks:?}");
        }
    }
}
