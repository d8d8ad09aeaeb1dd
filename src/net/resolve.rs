//! Names to addresses without blocking: `getaddrinfo` runs in a short-lived child, our own program
//! started with [`FLAG`], and its pipe is polled. A literal address needs none of that.

use crate::event_loop::{PollSet, Token};
use crate::net::stream::is_passing;
use crate::process::child::Child;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// The hidden first argument that makes our program look up the name behind it and print what it
/// finds, one address a line, or `! ` and an error.
pub const FLAG: &str = "--resolve";

/// An answer longer than this is cut off.
const MAX_ANSWER: usize = 4096;

/// A look-up under way.
pub struct Lookup {
    child: Child,
    token: Token,
    answer: Vec<u8>,
    port: u16,
}

/// The address, if `host` is one already (also in brackets).
pub fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    bare.parse::<IpAddr>()
        .ok()
        .map(|address| SocketAddr::new(address, port))
}

impl Lookup {
    /// Starts to look `host` up.
    pub fn start(host: &str, port: u16) -> io::Result<Lookup> {
        let child = Child::spawn_self(&[FLAG, host])?;
        Ok(Lookup {
            child,
            token: Token::default(),
            answer: Vec::new(),
            port,
        })
    }

    /// Says what to wait for.
    pub fn register(&mut self, poll: &mut PollSet) {
        self.token = poll.reads(self.child.fd());
    }

    /// The addresses, once they are there; never an empty list.
    pub fn turn(&mut self, poll: &PollSet) -> Option<io::Result<Vec<SocketAddr>>> {
        if !poll.is_ready(self.token) {
            return None;
        }
        let mut buffer = [0; 512];
        loop {
            match self.child.read(&mut buffer) {
                Ok(0) => return Some(self.finish()),
                Ok(_) if self.answer.len() > MAX_ANSWER => return Some(self.finish()),
                Ok(length) => self.answer.extend_from_slice(&buffer[..length]),
                Err(error) if is_passing(&error) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn finish(&self) -> io::Result<Vec<SocketAddr>> {
        let answer = String::from_utf8_lossy(&self.answer);
        let found = answer
            .lines()
            .filter_map(|line| line.parse::<IpAddr>().ok());
        let found: Vec<_> = found
            .map(|address| SocketAddr::new(address, self.port))
            .collect();
        if found.is_empty() {
            let why = answer.lines().find_map(|line| line.strip_prefix("! "));
            return Err(io::Error::other(
                why.unwrap_or("the look-up gave no address").to_string(),
            ));
        }
        Ok(found)
    }
}

/// What the child does: called first thing in `main`; `true` when that was all there was to do.
pub fn run_child(arguments: &[OsString]) -> bool {
    let [flag, host] = arguments else {
        return false;
    };
    if flag != FLAG {
        return false;
    }
    let host = host.to_string_lossy();
    let mut out = io::stdout();
    // The parent reads what comes; if it went away there is nobody left to tell.
    let _ = match (host.as_ref(), 0u16).to_socket_addrs() {
        Ok(found) => found
            .into_iter()
            .try_for_each(|address| writeln!(out, "{}", address.ip())),
        Err(error) => writeln!(out, "! {error}"),
    };
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals() {
        for (host, is) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("[::1]", true),
            ("localhost", false),
            ("1.2.3", false),
        ] {
            assert_eq!(literal(host, 1).is_some(), is, "{host}");
        }
    }
}
