//! The admin console's server: connections, lines in, replies out. What the commands do is the role's.
//!
//! A command is a line, however it comes in (SPEC 9, point 10). A reply that can be long is made piece by
//! piece as the client reads it ([`Commands::more`]), so that neither a listing of a million names costs
//! memory nor one reply holds up the loop. Other replies are made as the commands come, until
//! `mgmtBufferBytes` of them wait for a client that does not read: it has stalled, and its commands wait,
//! on its side of the connection too.

use crate::config::{Limits, Network};
use crate::event_loop::{Now, PollSet, Token};
use crate::log::{self, RateLimit};
use crate::net::bind::Listener;
use crate::net::stream::{ACCEPTS, Acceptor, Silence, is_passing};
use socket2::Socket;
use std::collections::VecDeque;
use std::fmt;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Bytes in a command line.
const MAX_LINE: usize = 64 * 1024;

/// Bytes of a long reply made at a time.
const PIECE: usize = 32 * 1024;

/// Replies, or pieces of a long one, made in one turn: for all clients, and for one of them.
const REPLIES: usize = 8;
const REPLIES_EACH: usize = 4;

/// What a role does with commands.
pub trait Commands {
    /// A reply that is made piece by piece.
    type Long;

    /// Carries out a command: its words, and whether the caller may change things.
    fn run(
        &mut self,
        words: &[&str],
        caller: Caller,
        out: &mut Vec<u8>,
        now: Now,
    ) -> Reply<Self::Long>;

    /// Appends the next piece of a long reply, some [`PIECE`] bytes of it; `true` when it is complete.
    fn more(&mut self, long: &mut Self::Long, out: &mut Vec<u8>) -> bool;
}

/// What became of a command.
pub enum Reply<L> {
    /// The reply is written.
    Done,
    /// There is more of it.
    Long(L),
    /// The caller may not do this (SPEC 9, point 14).
    Refused,
    /// The reply is written, and the client wants to be rid of us.
    Quit,
}

/// Who gives a command.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// From where; `None` on a unix socket.
    pub address: Option<IpAddr>,
    /// May delete, and say that the daemon is up or down.
    pub may_change: bool,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.fmt(f),
            None => write!(f, "an unknown address"),
        }
    }
}

/// The command `config`: an empty line, then a line for each key.
pub fn config(listing: &[(String, String)], out: &mut Vec<u8>) {
    out.push(b'\n');
    for (key, value) in listing {
        out.extend(format!("{key}: {value}\n").bytes());
    }
}

/// The command `health [up|down]`.
pub fn health<L>(
    healthy: &mut bool,
    arguments: &[&str],
    caller: Caller,
    out: &mut Vec<u8>,
) -> Reply<L> {
    let wanted = arguments.first().map(|word| word.to_lowercase());
    if let Some(up @ ("up" | "down")) = wanted.as_deref() {
        if !caller.may_change {
            return Reply::Refused;
        }
        *healthy = up == "up";
    }
    let state = if *healthy { "up" } else { "down" };
    out.extend(format!("health: {state}\n").bytes());
    Reply::Done
}

/// What a refused caller reads.
const REFUSAL: &[u8] =
    b"ERROR: not allowed from here; use loopback, or add this address to mgmt_allow\n";

/// Refusals logged in each [`REFUSALS_EVERY`]; the rest are summed up.
const REFUSALS: u32 = 10;
const REFUSALS_EVERY: Duration = Duration::from_secs(60);

/// See the module.
pub struct Console<L> {
    acceptor: Acceptor,
    clients: Vec<Client<L>>,
    limits: Limits,
    allow: Vec<Network>,
    full: log::Latch,
    refused: u64,
    stalling: log::Latch,
    stalls: u64,
    silence: Silence,
    refusals: RateLimit,
}

struct Client<L> {
    socket: Socket,
    token: Token,
    caller: Caller,
    input: Vec<u8>,
    output: VecDeque<u8>,
    long: Option<L>,
    /// There is more to reply to, which the last turn did not come to.
    behind: bool,
    /// `mgmtBufferBytes` were waiting for it, and not all of its commands are answered since.
    stalled: bool,
    heard: Instant,
    /// No more commands: the client has closed its side, or said so.
    ending: bool,
    open: bool,
}

impl<L> Console<L> {
    /// A console without clients.
    pub fn new(listener: Listener, limits: &Limits, allow: &[Network]) -> Console<L> {
        Console {
            acceptor: Acceptor::new(listener),
            clients: Vec::new(),
            limits: limits.clone(),
            allow: allow.to_vec(),
            full: log::Latch::new(),
            refused: 0,
            stalling: log::Latch::new(),
            stalls: 0,
            silence: Silence::new("mgmtIdleTimeout"),
            refusals: RateLimit::new(REFUSALS, REFUSALS_EVERY),
        }
    }

    /// For the ready line: `admin 127.0.0.1:8126`.
    pub fn name(&self) -> String {
        self.acceptor.listener().to_string()
    }

    /// Takes new settings.
    pub fn configure(&mut self, limits: &Limits, allow: &[Network]) {
        self.limits = limits.clone();
        self.allow = allow.to_vec();
        for client in &mut self.clients {
            client.caller = caller(&client.socket, allow);
        }
    }

    /// Connections refused because there were too many, since the start.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Connections closed because they were silent too long, since the start.
    pub fn silent(&self) -> u64 {
        self.silence.closed()
    }

    /// How often a client has stalled, since the start.
    pub fn stalls(&self) -> u64 {
        self.stalls
    }

    /// Says what to wait for.
    pub fn register(&mut self, poll: &mut PollSet) {
        self.acceptor.register(poll);
        let limit = self.limits.mgmt_buffer_bytes;
        for client in &mut self.clients {
            let fd = client.socket.as_raw_fd();
            client.token = match (client.wants_input(limit), client.output.is_empty()) {
                (true, true) => poll.reads(fd),
                (true, false) => poll.reads_and_writes(fd),
                (false, _) => poll.writes(fd),
            };
            if client.can_reply(limit) {
                poll.wake_at(Instant::now());
            }
            if !self.limits.mgmt_idle_timeout.is_zero() {
                poll.wake_at(client.heard + self.limits.mgmt_idle_timeout);
            }
        }
    }

    /// Accepts clients, and serves those that have something for us or wait for something.
    pub fn turn(&mut self, commands: &mut impl Commands<Long = L>, poll: &PollSet, now: Now) {
        if self.acceptor.is_ready(poll) {
            self.accept(now);
        }
        let limit = self.limits.mgmt_buffer_bytes;
        let mut replies = REPLIES;
        for client in &mut self.clients {
            if !client.can_reply(limit) && !poll.is_ready(client.token) {
                continue;
            }
            let before = client.stalled;
            replies -= client.turn(commands, limit, replies, &mut self.refusals, now);
            if before || !client.stalled {
                continue;
            }
            self.stalls += 1;
            if self.stalling.set(true) {
                log::warning!(
                    "admin: the client at {} does not read: {limit} bytes wait for it, and so do its \
                     commands (mgmtBufferBytes)",
                    client.caller
                );
            }
        }
        // Another one is first in the next turn, so that those there was no time for have theirs.
        if !self.clients.is_empty() {
            self.clients.rotate_left(1);
        }
    }

    fn accept(&mut self, now: Now) {
        for _ in 0..ACCEPTS {
            let Some(socket) = self.acceptor.accept(now.mono) else {
                return;
            };
            let limit = self.limits.max_mgmt_clients;
            let full = self.clients.len() >= limit;
            if self.full.set(full) {
                if full {
                    log::warning!("admin: {limit} clients, refusing more (maxMgmtClients)");
                } else {
                    log::notice!("admin: below {limit} clients again");
                }
            }
            if full {
                self.refused += 1;
                continue;
            }
            // Replies go out one by one; each would wait until the one before is acknowledged.
            let _ = socket.set_tcp_nodelay(true);
            self.clients.push(Client {
                caller: caller(&socket, &self.allow),
                socket,
                token: Token::default(),
                input: Vec::new(),
                output: VecDeque::new(),
                long: None,
                behind: false,
                stalled: false,
                heard: now.mono,
                ending: false,
                open: true,
            });
        }
    }

    /// Drops connections that were closed in this turn or have been silent too long; sums up refusals
    /// that were not logged.
    pub fn reap(&mut self, now: Now) {
        if let Some(more) = self.refusals.summary(now.mono) {
            log::warning!("admin: refused {more} more commands from outside mgmt_allow");
        }
        let (idle, listener) = (self.limits.mgmt_idle_timeout, self.acceptor.listener());
        let silence = &mut self.silence;
        silence.report(listener, now.mono);
        self.clients.retain(|client| {
            client.open && !silence.is_over(client.heard, idle, listener, now.mono)
        });
        let stalled = self.clients.iter().any(|client| client.stalled);
        if !stalled && self.stalling.set(false) {
            log::notice!("admin: no client is stalled any more");
        }
    }
}

fn caller(socket: &Socket, allow: &[Network]) -> Caller {
    // Without an answer it is from nowhere: a client that has reset its connection already can have left
    // a command in it.
    let Ok(peer) = socket.peer_addr() else {
        return Caller {
            address: None,
            may_change: false,
        };
    };
    let address = peer.as_socket().map(|peer| peer.ip().to_canonical());
    let may_change = address.is_none_or(|address| {
        address.is_loopback() || allow.iter().any(|network| network.contains(address))
    });
    Caller {
        address,
        may_change,
    }
}

impl<L> Client<L> {
    /// Makes at most `most` replies, or pieces of them; how many they were.
    fn turn(
        &mut self,
        commands: &mut impl Commands<Long = L>,
        limit: usize,
        most: usize,
        refusals: &mut RateLimit,
        now: Now,
    ) -> usize {
        self.write(now);
        let mut replies = 0;
        loop {
            if self.wants_input(limit) {
                self.read(now);
            }
            if replies == most.min(REPLIES_EACH) || !self.can_reply(limit) {
                break;
            }
            self.reply(commands, refusals, now);
            self.write(now);
            replies += 1;
        }
        self.stalled |= self.is_full(limit);
        if self.ending && !self.behind && self.output.is_empty() {
            self.open = false;
        }
        replies
    }

    /// As much as may is waiting for it.
    fn is_full(&self, limit: usize) -> bool {
        self.output.len() >= limit
    }

    fn wants_input(&self, limit: usize) -> bool {
        self.open && !self.ending && !self.behind && !self.is_full(limit)
    }

    /// There is something to reply to, and this is the time. A long reply goes on when all so far is out.
    fn can_reply(&self, limit: usize) -> bool {
        self.open
            && self.behind
            && !self.is_full(limit)
            && (self.long.is_none() || self.output.is_empty())
    }

    fn read(&mut self, now: Now) {
        let mut bytes = [0; 4096];
        match self.socket.read(&mut bytes) {
            Ok(0) => {
                self.ending = true;
                // What came without a line end is a command too, as it is to the original.
                if !self.input.is_empty() {
                    self.input.push(b'\n');
                }
            }
            Ok(length) => {
                self.heard = now.mono;
                self.input.extend_from_slice(&bytes[..length]);
                if self.input.len() > MAX_LINE && !self.has_command() {
                    log::warning!(
                        "admin: closed a connection that sent {MAX_LINE} bytes without a line end"
                    );
                    self.open = false;
                }
            }
            Err(error) if is_passing(&error) => self.stalled = false,
            // A reset ends this connection and nothing else.
            Err(_) => self.open = false,
        }
        self.behind = self.has_command();
    }

    fn has_command(&self) -> bool {
        self.input.contains(&b'\n')
    }

    /// Makes a reply, or some of a long one.
    fn reply(
        &mut self,
        commands: &mut impl Commands<Long = L>,
        refusals: &mut RateLimit,
        now: Now,
    ) {
        let mut out = Vec::new();
        if let Some(long) = &mut self.long {
            if commands.more(long, &mut out) {
                self.long = None;
            }
        } else if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let words: Vec<&str> = line.trim().split(' ').collect();
            match commands.run(&words, self.caller, &mut out, now) {
                Reply::Done => {}
                Reply::Long(long) => self.long = Some(long),
                Reply::Refused => {
                    out.extend_from_slice(REFUSAL);
                    if refusals.allow(now.mono) {
                        log::warning!(
                            "admin: refused \"{}\" from {}, which is not in mgmt_allow",
                            words[0],
                            self.caller
                        );
                    }
                }
                Reply::Quit => {
                    self.ending = true;
                    self.input.clear();
                }
            }
        }
        self.output.extend(out);
        self.behind = self.long.is_some() || self.has_command();
    }

    fn write(&mut self, now: Now) {
        while !self.output.is_empty() {
            match self.socket.write(self.output.as_slices().0) {
                Ok(written) => {
                    self.heard = now.mono;
                    self.output.drain(..written);
                }
                Err(error) if is_passing(&error) => return,
                Err(_) => {
                    self.open = false;
                    return;
                }
            }
        }
    }
}

/// Whether a long reply has enough for now.
pub fn is_piece(out: &[u8]) -> bool {
    out.len() >= PIECE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MgmtConfig;
    use crate::net::bind::{self, Options};
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

    fn console<L>() -> (Console<L>, SocketAddr) {
        let mgmt = MgmtConfig {
            address: Some("127.0.0.1".to_string()),
            port: 0,
            allow: Vec::new(),
        };
        let listener = bind::console(&mgmt, Options::default(), &mut Vec::new()).unwrap();
        let address = listener.socket.local_addr().unwrap().as_socket().unwrap();
        let limits = Limits {
            max_mgmt_clients: 1000,
            ..Limits::default()
        };
        (Console::new(listener, &limits, &[]), address)
    }

    /// What it has sent can still be read, but where it came from is not known any more.
    #[test]
    fn a_client_that_is_gone_already_may_change_nothing() {
        let (mut console, address) = console::<()>();
        let mut client = Socket::from(TcpStream::connect(address).unwrap());
        client.write_all(b"health down\n").unwrap();
        client.set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        console.accept(Now::read());
        assert!(!console.clients[0].caller.may_change);
        console.configure(&Limits::default(), &[]);
        assert!(!console.clients[0].caller.may_change);
    }

    #[test]
    fn a_turn_accepts_so_many_and_no_more() {
        let (mut console, address) = console::<()>();
        let all = ACCEPTS + 10;
        let clients: Vec<TcpStream> = (0..all)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        console.accept(Now::read());
        assert_eq!(console.clients.len(), ACCEPTS);
        console.accept(Now::read());
        assert_eq!(console.clients.len(), clients.len());
    }

    /// Replies of 20 pieces, or of more than anyone waits for; counts those made.
    struct Listings {
        made: usize,
    }

    impl Commands for Listings {
        type Long = usize;

        fn run(&mut self, words: &[&str], _: Caller, _: &mut Vec<u8>, _: Now) -> Reply<usize> {
            self.made += 1;
            Reply::Long(if words == ["endless"] { usize::MAX } else { 20 })
        }

        fn more(&mut self, left: &mut usize, out: &mut Vec<u8>) -> bool {
            self.made += 1;
            *left -= 1;
            out.extend_from_slice(if *left == 0 { b"END\n" } else { b"piece\n" });
            *left == 0
        }
    }

    /// However many ask for something long at once, a turn is short, and each has its answer.
    #[test]
    fn all_clients_together_have_so_many_pieces_in_a_turn() {
        let (mut console, address) = console();
        let mut clients: Vec<TcpStream> = (0..30)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        for client in &mut clients {
            client.write_all(b"list\nlist\nlist\n").unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let mut commands = Listings { made: 0 };
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut accepted = 0;
        while accepted < clients.len() || !console.clients.is_empty() {
            assert!(
                Instant::now() < deadline,
                "{} are left",
                console.clients.len()
            );
            let mut poll = PollSet::default();
            console.register(&mut poll);
            poll.wait();
            let (before, there) = (commands.made, console.clients.len());
            console.turn(&mut commands, &poll, Now::read());
            assert!(
                commands.made - before <= REPLIES,
                "{}",
                commands.made - before
            );
            accepted += console.clients.len() - there;
            console.reap(Now::read());
        }
        for client in &mut clients {
            let mut reply = String::new();
            client.read_to_string(&mut reply).unwrap();
            assert_eq!(reply.matches("END").count(), 3);
        }
    }

    /// Those that keep the console busy do not keep it from the others.
    #[test]
    fn each_client_has_its_turn() {
        let (mut console, address) = console();
        let mut clients: Vec<TcpStream> = (0..10)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        let (last, first) = clients.split_last_mut().unwrap();
        for client in first {
            client.write_all(b"endless\n").unwrap();
        }
        last.write_all(b"list\n").unwrap();
        last.shutdown(std::net::Shutdown::Write).unwrap();
        let mut commands = Listings { made: 0 };
        let (mut turns, mut served) = (0, false);
        while !served {
            let mut poll = PollSet::default();
            console.register(&mut poll);
            poll.wait();
            console.turn(&mut commands, &poll, Now::read());
            let there = console.clients.len();
            console.reap(Now::read());
            served = console.clients.len() < there;
            turns += 1;
            assert!(turns < 200, "not served in {turns} turns");
        }
    }
}
