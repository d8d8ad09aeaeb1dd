//! One health check: look the node's name up if need be, connect to its admin port, ask, read a line.
//!
//! The connection is closed whatever happens, as it is dropped with the check.

use crate::event_loop::{Now, PollSet, Token};
use crate::net::dial::Dial;
use crate::net::resolve::Lookup;
use crate::net::stream::is_passing;
use memchr::memchr;
use socket2::Socket;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Instant;

/// What a node is asked, in one write.
const QUESTION: &[u8] = b"health\r\n";

/// What it must answer.
const ANSWER: &[u8] = b"health: up";

/// More than any answer.
const MAX_ANSWER: usize = 256;

/// A check under way.
pub struct Probe {
    step: Step,
    admin_port: u16,
    /// Of a name's addresses, take an IPv6 one if there is one, and not an IPv4 one.
    prefer_ipv6: bool,
    deadline: Instant,
}

enum Step {
    Looking(Lookup),
    Dialing(Dial),
    Asking {
        socket: Socket,
        token: Token,
        answer: Vec<u8>,
    },
}

/// What came of a check.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The node is well.
    Up,
    /// It is not, and why.
    Down(String),
}

impl Probe {
    /// Begins at an address that is known.
    pub fn of_address(address: IpAddr, admin_port: u16, deadline: Instant, now: Now) -> Probe {
        Probe {
            step: dial(address, admin_port, deadline, now),
            admin_port,
            prefer_ipv6: false,
            deadline,
        }
    }

    /// Begins with a name.
    pub fn of_name(
        host: &str,
        admin_port: u16,
        prefer_ipv6: bool,
        deadline: Instant,
    ) -> Result<Probe, Outcome> {
        let lookup = Lookup::start(host, admin_port)
            .map_err(|error| Outcome::Down(format!("cannot look up its name: {error}")))?;
        Ok(Probe {
            step: Step::Looking(lookup),
            admin_port,
            prefer_ipv6,
            deadline,
        })
    }

    /// Says what to wait for.
    pub fn register(&mut self, poll: &mut PollSet) {
        match &mut self.step {
            Step::Looking(lookup) => lookup.register(poll),
            Step::Dialing(dial) => dial.register(poll),
            Step::Asking { socket, token, .. } => *token = poll.reads(socket.as_raw_fd()),
        }
        poll.wake_at(self.deadline);
    }

    /// Goes on. `found` is told the address when the name has been looked up.
    pub fn turn(
        &mut self,
        poll: &PollSet,
        now: Now,
        found: impl FnOnce(IpAddr),
    ) -> Option<Outcome> {
        let outcome = match &mut self.step {
            Step::Looking(lookup) => match lookup.turn(poll) {
                None => None,
                Some(Err(error)) => {
                    Some(Outcome::Down(format!("cannot look up its name: {error}")))
                }
                Some(Ok(addresses)) => {
                    let address = choose(&addresses, self.prefer_ipv6)?;
                    found(address);
                    self.step = dial(address, self.admin_port, self.deadline, now);
                    None
                }
            },
            Step::Dialing(dial) => match dial.turn(poll, now) {
                None => None,
                Some(Err(error)) => Some(Outcome::Down(format!("its admin port: {error}"))),
                Some(Ok(socket)) => self.ask(socket),
            },
            Step::Asking {
                socket,
                token,
                answer,
            } if poll.is_ready(*token) => read(socket, answer),
            Step::Asking { .. } => None,
        };
        if outcome.is_none() && now.mono >= self.deadline {
            return Some(Outcome::Down("it does not answer in time".to_string()));
        }
        outcome
    }

    fn ask(&mut self, mut socket: Socket) -> Option<Outcome> {
        // A fresh connection has room for so few bytes.
        match socket.write(QUESTION) {
            Ok(length) if length == QUESTION.len() => {
                self.step = Step::Asking {
                    socket,
                    token: Token::default(),
                    answer: Vec::new(),
                };
                None
            }
            Ok(_) => Some(Outcome::Down("its admin port takes no command".to_string())),
            Err(error) => Some(Outcome::Down(format!("its admin port: {error}"))),
        }
    }
}

fn dial(address: IpAddr, port: u16, deadline: Instant, now: Now) -> Step {
    let timeout = deadline.saturating_duration_since(now.mono);
    Step::Dialing(Dial::start(&address.to_string(), port, timeout, now))
}

/// The original sends to IPv4 addresses unless `address_ipv6` is set.
fn choose(addresses: &[SocketAddr], prefer_ipv6: bool) -> Option<IpAddr> {
    let preferred = addresses.iter().find(|a| a.is_ipv6() == prefer_ipv6);
    preferred.or(addresses.first()).map(SocketAddr::ip)
}

fn read(mut socket: &Socket, answer: &mut Vec<u8>) -> Option<Outcome> {
    let mut buffer = [0; MAX_ANSWER];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return Some(verdict(answer)),
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(error) if is_passing(&error) => return None,
            Err(error) => return Some(Outcome::Down(format!("its admin port: {error}"))),
        }
        if answer.len() >= MAX_ANSWER || memchr(b'\n', answer).is_some() {
            return Some(verdict(answer));
        }
    }
}

/// Of the answer, the first line counts.
fn verdict(answer: &[u8]) -> Outcome {
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or(answer);
    match line.trim_ascii() {
        ANSWER => Outcome::Up,
        b"" => Outcome::Down("its admin port closed the connection".to_string()),
        other => Outcome::Down(format!("it says {}", crate::log::Bytes(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let down = |why: &str| Outcome::Down(why.to_string());
        for (answer, expected) in [
            ("health: up\n", Outcome::Up),
            ("health: up\r\n", Outcome::Up),
            ("health: up", Outcome::Up),
            ("health: up\nmore\n", Outcome::Up),
            ("health: down\n", down("it says health: down")),
            ("ERROR\n", down("it says ERROR")),
            ("backup: down\n", down("it says backup: down")),
            (
                "\nhealth: up\n",
                down("its admin port closed the connection"),
            ),
            ("", down("its admin port closed the connection")),
        ] {
            assert_eq!(verdict(answer.as_bytes()), expected, "{answer:?}");
        }
    }

    #[test]
    fn the_family_that_is_preferred() {
        let address = |text: &str| SocketAddr::new(text.parse().unwrap(), 1);
        let both = [address("::1"), address("127.0.0.1")];
        for (addresses, ipv6, expected) in [
            (&both[..], false, Some("127.0.0.1")),
            (&both[..], true, Some("::1")),
            (&both[..1], false, Some("::1")),
            (&both[1..], true, Some("127.0.0.1")),
            (&[], true, None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(choose(addresses, ipv6), expected);
        }
    }
}
