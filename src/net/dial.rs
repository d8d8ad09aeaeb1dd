//! A connection to somewhere else, made without ever blocking: look the name up, then try its addresses
//! one after the other, all within one time-out, of which each gets an equal share of what is left.

use crate::event_loop::{Now, PollSet, Token};
use crate::net::resolve::{self, Lookup};
use crate::net::stream::is_passing;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// A connection being made.
pub struct Dial {
    step: Step,
    deadline: Instant,
}

enum Step {
    Looking(Lookup),
    Connecting {
        socket: Socket,
        token: Token,
        rest: std::vec::IntoIter<SocketAddr>,
        /// When to go on to the next address; without one, the deadline.
        until: Instant,
    },
    /// The outcome is there already, to be told at the next turn.
    Over(Option<io::Result<Socket>>),
}

impl Dial {
    /// Begins. What goes wrong, also at once, is told by [`Dial::turn`].
    pub fn start(host: &str, port: u16, timeout: Duration, now: Now) -> Dial {
        let deadline = now.mono + timeout;
        let step = match resolve::literal(host, port) {
            Some(address) => connect(vec![address].into_iter(), None, now, deadline),
            None => match Lookup::start(host, port) {
                Ok(lookup) => Step::Looking(lookup),
                Err(error) => Step::Over(Some(Err(error))),
            },
        };
        Dial { step, deadline }
    }

    /// Says what to wait for.
    pub fn register(&mut self, poll: &mut PollSet) {
        match &mut self.step {
            Step::Looking(lookup) => lookup.register(poll),
            Step::Connecting {
                socket,
                token,
                until,
                ..
            } => {
                *token = poll.writes(socket.as_raw_fd());
                poll.wake_at(*until);
            }
            Step::Over(_) => return poll.wake_at(Instant::now()),
        }
        poll.wake_at(self.deadline);
    }

    /// The connection, non-blocking, or why there is none; `None` while it is being made.
    pub fn turn(&mut self, poll: &PollSet, now: Now) -> Option<io::Result<Socket>> {
        match &mut self.step {
            Step::Looking(lookup) => {
                if let Some(found) = lookup.turn(poll) {
                    self.step = match found {
                        Ok(addresses) => connect(addresses.into_iter(), None, now, self.deadline),
                        Err(error) => Step::Over(Some(Err(error))),
                    };
                }
            }
            Step::Connecting {
                socket,
                token,
                rest,
                until,
            } => {
                // One that does not answer must not keep us from the others.
                let silent = now.mono >= *until && !rest.as_slice().is_empty();
                let outcome = match poll.is_ready(*token) {
                    true => outcome(socket),
                    false => Ok(false),
                };
                let error = match outcome {
                    Ok(true) => {
                        let step = std::mem::replace(&mut self.step, Step::Over(None));
                        let Step::Connecting { socket, .. } = step else {
                            return None;
                        };
                        return Some(Ok(socket));
                    }
                    Ok(false) => silent.then(|| io::ErrorKind::TimedOut.into()),
                    Err(error) => Some(error),
                };
                if error.is_some() {
                    self.step = connect(std::mem::take(rest), error, now, self.deadline);
                }
            }
            Step::Over(_) => {}
        }
        if let Step::Over(outcome) = &mut self.step {
            return outcome.take();
        }
        (now.mono >= self.deadline).then(|| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Whether a connection that `poll` calls writable is made.
fn outcome(socket: &Socket) -> io::Result<bool> {
    match socket.take_error()? {
        Some(error) => Err(error),
        None => Ok(socket.peer_addr().is_ok()),
    }
}

/// Begins to connect to the first of these addresses that does not fail at once.
fn connect(
    mut rest: std::vec::IntoIter<SocketAddr>,
    mut error: Option<io::Error>,
    now: Now,
    deadline: Instant,
) -> Step {
    while let Some(address) = rest.next() {
        match begin(address) {
            Ok(socket) => {
                let left = deadline.saturating_duration_since(now.mono);
                let share = 1 + u32::try_from(rest.len()).unwrap_or(u32::MAX - 1);
                return Step::Connecting {
                    socket,
                    token: Token::default(),
                    rest,
                    until: now.mono + left / share,
                };
            }
            Err(new) => error = Some(new),
        }
    }
    Step::Over(Some(Err(
        error.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    )))
}

fn begin(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::from(address)) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) && !is_passing(&error) => {
            Err(error)
        }
        _ => Ok(socket),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Nothing is polled here, so to the dial no address ever answers.
    #[test]
    fn an_address_that_does_not_answer_leaves_time_for_the_others() {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = [0, 1].map(|index: usize| listeners[index].local_addr().unwrap());
        let (mut now, poll) = (Now::read(), PollSet::default());
        let deadline = now.mono + Duration::from_secs(10);
        let rest = Vec::from(addresses).into_iter();
        let step = connect(rest, None, now, deadline);
        let mut dial = Dial { step, deadline };
        let is_at = |dial: &Dial, address: SocketAddr| match &dial.step {
            Step::Connecting { socket, .. } => {
                socket.peer_addr().unwrap().as_socket() == Some(address)
            }
            _ => false,
        };
        now.mono += Duration::from_secs(4);
        assert!(dial.turn(&poll, now).is_none() && is_at(&dial, addresses[0]));
        now.mono += Duration::from_secs(1);
        assert!(dial.turn(&poll, now).is_none() && is_at(&dial, addresses[1]));
        now.mono += Duration::from_secs(5);
        let error = dial.turn(&poll, now).unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
