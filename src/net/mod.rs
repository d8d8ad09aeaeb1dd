//! Sockets: what we listen on, what comes in on it, and the connections we make. Plumbing layer.
//!
//! | file | job |
//! |---|---|
//! | `bind` | from the config to bound sockets, or to those handed over by the service manager |
//! | `udp` | datagrams in batches, the receive buffer, what the kernel dropped |
//! | `gather` | how long to let datagrams gather between two turns |
//! | `stream` | clients on TCP and unix sockets: accept, whole lines, limits, idle time-outs |
//! | `dial` | a connection to somewhere else, made without ever blocking |
//! | `backoff` | how long to wait before trying again |
//! | `resolve` | name look-ups in a child process |

pub mod backoff;
pub mod bind;
pub mod dial;
mod gather;
pub mod resolve;
pub mod stream;
mod udp;

use crate::event_loop::{Now, PollSet};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Work of one server in one turn, and at most one packet more: 1 ms of it, or 2. It is counted in bytes,
/// for a few large packets are as much as hundreds of small ones.
const TURN: usize = 128 * 1024;

/// What a packet costs whatever is in it.
const PACKET: usize = 256;

/// The part of `shutdownTimeout` that reading what the kernel has queued may take.
const LAST_READ: f64 = 0.25;

/// The servers of a config, bound: everything that metrics come in on.
#[derive(Default)]
pub struct Inputs {
    udp: Vec<udp::UdpServer>,
    streams: Vec<stream::StreamServer>,
    closed: Counts,
    names: Vec<String>,
}

/// What servers that are closed had counted.
#[derive(Default)]
struct Counts {
    drops: u64,
    refused: u64,
    silent: u64,
    long_lines: u64,
}

impl Inputs {
    /// Binds every server, taking what fits from `handed_over`. An error names the address.
    pub fn bind(
        servers: &[crate::config::ServerConfig],
        options: bind::Options,
        handed_over: &mut Vec<OwnedFd>,
    ) -> Result<Inputs, bind::BindError> {
        let mut inputs = Inputs::default();
        for server in servers {
            match bind::server(server, options, handed_over)? {
                bind::Bound::Udp(socket) => {
                    let server = udp::UdpServer::new(socket, server.receive_buffer);
                    inputs.names.push(server.to_string());
                    inputs.udp.push(server);
                }
                bind::Bound::Stream(listener) => {
                    inputs.names.push(listener.to_string());
                    inputs.streams.push(stream::StreamServer::new(listener));
                }
            }
        }
        Ok(inputs)
    }

    /// The same servers once more, for another process: see [`bind::again`].
    pub fn again(&self) -> std::io::Result<Inputs> {
        Ok(Inputs {
            udp: self
                .udp
                .iter()
                .map(udp::UdpServer::again)
                .collect::<Result<_, _>>()?,
            streams: self
                .streams
                .iter()
                .map(stream::StreamServer::again)
                .collect::<Result<_, _>>()?,
            closed: Counts::default(),
            names: self.names.clone(),
        })
    }

    /// What is bound, for the ready line: `udp 127.0.0.1:8125`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Takes new limits for connections.
    pub fn set_limits(&mut self, limits: stream::Limits) {
        self.streams
            .iter_mut()
            .for_each(|server| server.set_limits(limits));
    }

    /// Says what to wait for.
    pub fn register(&mut self, poll: &mut PollSet) {
        self.udp.iter_mut().for_each(|server| server.register(poll));
        self.streams
            .iter_mut()
            .for_each(|server| server.register(poll));
    }

    /// Takes in what is there, within a turn's bounds, and gives each packet to `packet`: a
    /// datagram, or the bytes of a stream up to its last line end.
    pub fn receive(&mut self, poll: &PollSet, now: Now, packet: &mut impl FnMut(&[u8])) {
        for server in &mut self.udp {
            if server.is_ready(poll, now) {
                let count = server.receive(packet);
                server.took(count, now);
            }
        }
        for server in &mut self.streams {
            server.receive(poll, now, packet);
        }
    }

    /// At the end: no more clients, and what the kernel has queued already, until it is empty or
    /// its part of `shutdownTimeout` is over. Then all servers are closed; what they counted stays.
    pub fn drain(&mut self, shutdown_timeout: Duration, packet: &mut impl FnMut(&[u8])) {
        let until = Instant::now() + shutdown_timeout.mul_f64(LAST_READ);
        self.drain_datagrams(until, packet);
        for server in &mut self.streams {
            server.drain(until, packet);
        }
        self.closed = Counts {
            drops: self.take_drops(),
            refused: self.refused(),
            silent: self.silent(),
            long_lines: self.take_long_lines(),
        };
        self.udp.clear();
        self.streams.clear();
    }

    /// What is queued on the datagram sockets. One that gives an error may have more all the same: it is
    /// asked again a little later.
    fn drain_datagrams(&mut self, until: Instant, packet: &mut impl FnMut(&[u8])) {
        loop {
            let (mut more, mut failing) = (false, false);
            for server in &mut self.udp {
                more |= server.receive(packet) > 0;
                failing |= server.is_failing();
            }
            if !(more || failing) || Instant::now() >= until {
                return;
            }
            if !more {
                std::thread::sleep(udp::PAUSE);
            }
        }
    }

    /// Datagrams that the kernel dropped since the last call.
    pub fn take_drops(&mut self) -> u64 {
        let open: u64 = self.udp.iter_mut().map(udp::UdpServer::take_drops).sum();
        open + std::mem::take(&mut self.closed.drops)
    }

    /// Open data connections.
    pub fn clients(&self) -> usize {
        self.streams.iter().map(stream::StreamServer::clients).sum()
    }

    /// Connections refused because there were too many, since the start.
    pub fn refused(&self) -> u64 {
        let open: u64 = self.streams.iter().map(stream::StreamServer::refused).sum();
        open + self.closed.refused
    }

    /// Connections closed because they were silent too long, since the start.
    pub fn silent(&self) -> u64 {
        let open: u64 = self.streams.iter().map(stream::StreamServer::silent).sum();
        open + self.closed.silent
    }

    /// Lines too long to be handed on, since the last call.
    pub fn take_long_lines(&mut self) -> u64 {
        let open = self.streams.iter_mut();
        let open: u64 = open.map(stream::StreamServer::take_long_lines).sum();
        open + std::mem::take(&mut self.closed.long_lines)
    }

    /// Drops connections that were closed in this turn or have been silent too long.
    pub fn reap(&mut self, now: Now) {
        self.streams.iter_mut().for_each(|server| server.reap(now));
    }
}
