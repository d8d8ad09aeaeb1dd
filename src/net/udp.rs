//! A UDP server: datagrams in batches, the receive buffer, and what the kernel dropped.

use crate::event_loop::{Now, PollSet, Token};
use crate::log;
use crate::net::bind::{self, show_address};
use crate::net::gather::{self, Gather};
use crate::sys::{self, BATCH, ReceiveBatch};
use socket2::Socket;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// Batches in one turn: some 1,000 datagrams, 2 or 3 ms of work when they are full of lines.
const BATCHES: usize = 32;

/// Bytes in one turn, and one batch more: datagrams can be large, and then there is as much work in a
/// few of them as in hundreds.
const TURN: usize = 256 * 1024;

/// How long to leave a socket alone that gives an error: asked again at once, it may give the same.
const PAUSE: Duration = Duration::from_millis(10);

/// See the module.
pub struct UdpServer {
    socket: Socket,
    token: Token,
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
        let granted = || self.granted();
        if granted() >= bytes {
            return;
        }
        let plain = self.socket.set_recv_buffer_size(bytes);
        if granted() < bytes && sys::force_receive_buffer(self.socket.as_fd(), bytes).is_err() {
            let why = plain
                .err()
                .map_or(String::new(), |error| format!(" ({error})"));
            log::warning!(
                "{self}: the kernel grants a receive buffer of {} bytes of the {bytes} asked for{why}; \
                 to have it all, set sysctl net.core.rmem_max={bytes}",
                granted()
            );
        } else {
            log::info!("{self}: receive buffer of {} bytes", granted());
        }
    }

    /// Bytes of the receive buffer.
    fn granted(&self) -> usize {
        self.socket.recv_buffer_size().unwrap_or(0) / 2
    }

    /// Says what to wait for.
    pub fn register(&mut self, poll: &mut PollSet) {
        self.token = match self.not_before {
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
    pub fn receive(&mut self, batch: &mut ReceiveBatch, packet: &mut impl FnMut(&[u8])) -> usize {
        let (mut total, mut bytes) = (0, 0);
        for _ in 0..BATCHES {
            let outcome = batch.receive(self.socket.as_fd());
            let news = self.failing.set(outcome.is_err());
            match outcome {
                Ok(received) => {
                    if news {
                        log::notice!("{self}: receiving again");
                    }
                    for datagram in batch.datagrams() {
                        bytes += datagram.len();
                        packet(datagram);
                    }
                    total += received;
                    if bytes >= TURN {
                        return total;
                    }
                    // Less than a full batch: the queue was empty a moment ago.
                    if received < BATCH {
                        return total;
                    }
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
        total
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
        let (mut batch, mut turns, mut total) = (ReceiveBatch::default(), 0, 0);
        loop {
            let received = server.receive(&mut batch, &mut |datagram| {
                assert_eq!(datagram.len(), LENGTH);
            });
            assert!(
                received * LENGTH <= TURN + BATCH * LENGTH,
                "{received} in a turn"
            );
            total += received;
            turns += 1;
            if received == 0 {
                break;
            }
        }
        assert_eq!(total, queued);
        assert!(queued < 2 * BATCH || turns > 2, "{queued} in {turns} turns");
    }
}
