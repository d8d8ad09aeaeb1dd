//! A child's way to its parent, with `forkCount`: what `health` was set to, told by one of them and passed
//! on to all. A byte is a message. When the parent is gone the stream ends.

use crate::event_loop::{PollSet, Token};
use crate::net::stream::is_passing;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

const UP: u8 = b'u';
const DOWN: u8 = b'd';

/// One end of the stream between parent and child.
#[derive(Debug)]
pub struct Siblings {
    stream: UnixStream,
    token: Token,
    healthy: bool,
    gone: bool,
}

impl Siblings {
    /// Both ends. `healthy` is how things stand.
    pub fn pair(healthy: bool) -> io::Result<(Siblings, Siblings)> {
        let (one, other) = UnixStream::pair()?;
        let end = |stream: UnixStream| -> io::Result<Siblings> {
            stream.set_nonblocking(true)?;
            Ok(Siblings {
                stream,
                token: Token::default(),
                healthy,
                gone: false,
            })
        };
        Ok((end(one)?, end(other)?))
    }

    /// What was heard or told last.
    pub fn healthy(&self) -> bool {
        self.healthy
    }

    /// Whether the other end is gone.
    pub fn is_alone(&self) -> bool {
        self.gone
    }

    /// Says what to wait for.
    pub fn register(&mut self, poll: &mut PollSet) {
        self.token = Token::default();
        if !self.gone {
            self.token = poll.reads(self.stream.as_raw_fd());
        }
    }

    /// Tells the other end.
    pub fn tell(&mut self, healthy: bool) {
        self.healthy = healthy;
        // Thousands of bytes fit; only an end that does not read any more could miss one.
        let _ = self.stream.write(&[if healthy { UP } else { DOWN }]);
    }

    /// What the other end has told since the last call.
    pub fn heard(&mut self, poll: &PollSet) -> Option<bool> {
        if !poll.is_ready(self.token) {
            return None;
        }
        let mut bytes = [0; 64];
        let mut last = None;
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => self.gone = true,
                Ok(length) => {
                    last = Some(bytes[length - 1] == UP);
                    continue;
                }
                Err(error) if is_passing(&error) => {}
                Err(_) => self.gone = true,
            }
            break;
        }
        self.healthy = last.unwrap_or(self.healthy);
        last
    }
}
