//! A connection to somewhere else, made without ever blocking: look the name up, then try its addresses
//! one after the other, all within one time-out.

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
    },
    /// The outcome is there already, to be told at the next turn.
    Over(Option<io::Result<Socket>>),
}

impl Dial {
    /// Begins. What goes wrong, also at once, is told by [`Dial::turn`].
    pub fn start(host: &str, port: u16, timeout: Duration, now: Now) -> Dial {
        let step = match resolve::literal(host, port) {
            Some(address) => connect(vec![address].into_iter(), None),
            None => match Lookup::start(host, port) {
                Ok(lookup) => Step::Looking(lookup),
                Err(error) => Step::Over(Some(Err(error))),
            },
        };
        Dial {
            step,
            deadline: now.mono + timeout,
        }
    }

    /// Says what to wait for.
    pub fn register(&mut self, poll: &mut PollSet) {
        match &mut self.step {
            Step::Looking(lookup) => lookup.register(poll),
            Step::Connecting { socket, token, .. } => *token = poll.writes(socket.as_raw_fd()),
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
                        Ok(addresses) => connect(addresses.into_iter(), None),
                        Err(error) => Step::Over(Some(Err(error))),
                    };
                }
            }
            Step::Connecting {
                socket,
                token,
                rest,
            } if poll.is_ready(*token) => {
                let rest = std::mem::take(rest);
                match outcome(socket) {
                    Ok(false) => {}
                    Ok(true) => {
                        let step = std::mem::replace(&mut self.step, Step::Over(None));
                        if let Step::Connecting { socket, .. } = step {
                            return Some(Ok(socket));
                        }
                    }
                    Err(error) => self.step = connect(rest, Some(error)),
                }
            }
            Step::Connecting { .. } | Step::Over(_) => {}
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
fn connect(mut rest: std::vec::IntoIter<SocketAddr>, mut error: Option<io::Error>) -> Step {
    while let Some(address) = rest.next() {
        match begin(address) {
            Ok(socket) => {
                return Step::Connecting {
                    socket,
                    token: Token::default(),
                    rest,
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
