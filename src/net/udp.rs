//! A UDP server: datagrams in batches, the receive buffer, and what the kernel dropped.

use crate::event_loop::{Now, PollSet, Token};
use crate::log;
use crate::net::bind::{self, show_address};
use crate::net::gather::{self, Gather};
use crate::net::{PACKET, TURN};
use crate::sys::{self, BATCH, ReceiveBatch};
use socket2::Socket;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// How long to leave a socket alone that gives an error: asked again at once, it may give the same.
pub const PAUSE: Duration = Duration::from_millis(10);

/// See the module.
pub struct UdpServer {
    socket: Socket,
    token: Token,
    /// What a turn had no time for waits here.
    batch: ReceiveBatch,
    /// The kernel's count at the last look; it wraps.
    drops: u32,
    failing: log::Latch,
    /// With a receive buffer that has room for it.
    gather: Option<Gather>,
    /// Not to be read before this time.
    not_before: Option<Instant>,
}

impl UdpServer {
    /// Takes a bound socket and asks for a receive buffer of so many bytes.
    pub fn new(socket: Socket, receive_buffer: usize) -> UdpServer {
        let drops = sys::dropped_datagrams(socket.as_fd()).unwrap_or(0);
        let mut server = UdpServer {
            socket,
            token: Token::default(),
            batch: ReceiveBatch::default(),
            drops,
            failing: log::Latch::new(),
            gather: None,
            not_before: None,
        };
        server.ask_for_buffer(receive_buffer);
        server.gather = (server.granted() >= gather::ROOM).then(Gather::default);
        server
    }

    /// See [`bind::again`].
    pub fn again(&self) -> io::Result<UdpServer> {
        let buffer = self.socket.recv_buffer_size()? / 2;
        Ok(UdpServer::new(bind::again(&self.socket)?, buffer))
    }

    /// The kernel grants less than asked where `net.core.rmem_max` is below, unless we are root. It
    /// counts twice the bytes asked for, to cover its own overhead.
    fn ask_for_buffer(&self, bytes: usize) {
        if self.granted() >= bytes {
            return;
        }
        let plain = self.socket.set_recv_buffer_size(bytes);
        if self.granted() < bytes && sys::force_receive_buffer(self.socket.as_fd(), bytes).is_err()
        {
            let why = plain
                .err()
                .map_or(String::new(), |error| format!(" ({error})"));
            log::warning!(
                "{self}: the kernel grants a receive buffer of {} bytes of the {bytes} asked for{why}; \
                 to have it all, set sysctl net.core.rmem_max={bytes}",
                self.granted()
            );
        } else {
            log::info!("{self}: receive buffer of {} bytes", self.granted());
        }
    }

    /// Bytes of the receive buffer.
    fn granted(&self) -> usize {
        self.socket.recv_buffer_size().unwrap_or(0) / 2
    }

    /// Says what to wait for.
    pub fn register(&mut self, poll: &mut PollSet) {
        let time = if self.batch.is_empty() {
            self.not_before
        } else {
            Some(Instant::now())
        };
        self.token = match time {
            Some(time) => {
                poll.wake_at(time);
                Token::default()
            }
            None => poll.reads(self.socket.as_raw_fd()),
        };
    }

    /// Whether there may be something to receive.
    pub fn is_ready(&self, poll: &PollSet, now: Now) -> bool {
        match self.not_before {
            _ if !self.batch.is_empty() => true,
            Some(time) => now.mono >= time,
            None => poll.is_ready(self.token),
        }
    }

    /// A turn has received so many datagrams: whether to pause before the next.
    pub fn took(&mut self, count: usize, now: Now) {
        let gather = self.gather.as_mut();
        let pause = gather.and_then(|gather| gather.pause(count, now.mono));
        let pause = if self.failing.is_on() {
            Some(PAUSE)
        } else {
            pause
        };
        self.not_before = pause.map(|pause| now.mono + pause);
    }

    /// Gives what is queued to `packet`, within a turn's bound; the number of datagrams.
    #[inline]
    pub fn receive(&mut self, packet: &mut impl FnMut(&[u8])) -> usize {
        let (mut total, mut work, mut last) = (0, 0, false);
        loop {
            while let Some(datagram) = self.batch.take() {
                total += 1;
                work += PACKET + datagram.len();
                packet(datagram);
                if work >= TURN {
                    return total;
                }
            }
            if last {
                return total;
            }
            let outcome = self.batch.receive(self.socket.as_fd());
            let news = self.failing.set(outcome.is_err());
            match outcome {
                Ok(received) => {
                    if news {
                        log::notice!("{self}: receiving again");
                    }
                    // Less than a full batch: the queue was empty a moment ago.
                    last = received < BATCH;
                }
                Err(error) => {
                    // No memory, an interface that went away: the socket itself stays good.
                    if news {
                        log::warning!("{self}: cannot receive for now: {error}");
                    }
                    return total;
                }
            }
        }
    }

    /// Whether the last call gave an error: there may be more than it has received.
    pub fn is_failing(&self) -> bool {
        self.failing.is_on()
    }

    /// Datagrams that the kernel dropped since the last call.
    pub fn take_drops(&mut self) -> u64 {
        let Ok(drops) = sys::dropped_datagrams(self.socket.as_fd()) else {
            return 0;
        };
        u64::from(drops.wrapping_sub(std::mem::replace(&mut self.drops, drops)))
    }
}

impl fmt::Display for UdpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.socket.local_addr() {
            Ok(address) => write!(f, "udp {}", show_address(&address)),
            Err(_) => write!(f, "udp"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Type};
    use std::net::{SocketAddr, UdpSocket};

    /// A turn ends after some bytes, however few datagrams they came in, and nothing is left behind.
    #[test]
    fn large_datagrams_do_not_make_a_turn_long() {
        const LENGTH: usize = 20_000;
        const LATE: Duration = Duration::from_secs(10);
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&local.into()).unwrap();
        let to = socket.local_addr().unwrap().as_socket().unwrap();
        let mut server = UdpServer::new(socket, 4 << 20);
        let sender = UdpSocket::bind(local).unwrap();
        // As many as the buffer holds here, without privileges too.
        for _ in 0..150 {
            sender.send_to(&[b'x'; LENGTH], to).unwrap();
        }
        let queued = 150 - server.take_drops() as usize;
        let (mut total, mut received) = (0, usize::MAX);
        while received > 0 {
            received = server.receive(&mut |datagram| assert_eq!(datagram.len(), LENGTH));
            assert!(received * LENGTH < TURN + LENGTH, "{received} in a turn");
            total += received;
            server.took(received, Now::read());
            if total < queued {
                // What is left of a batch does not wait for the next datagram.
                let (mut poll, start) = (PollSet::default(), Instant::now());
                server.register(&mut poll);
                poll.wake_at(start + LATE);
                poll.wait();
                assert!(server.is_ready(&poll, Now::read()) && start.elapsed() < LATE);
            }
        }
        assert_eq!(total, queued);
    }
}
