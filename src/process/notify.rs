//! The service manager: what systemd hands over (`LISTEN_FDS`), and what it wants to hear
//! (`NOTIFY_SOCKET`, `WATCHDOG_USEC`): sd_listen_fds(3), sd_notify(3). Without one, all of it does
//! nothing. Nothing blocks, and the variables do not reach the programs that we start.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::sys;

/// More sockets than anyone hands over; a larger number is a mistake.
const MAX_SOCKETS: usize = 1024;

/// The first descriptor that can be handed over.
const FIRST: RawFd = 3;

/// What the service manager gave us.
#[derive(Debug, Default)]
pub struct Manager {
    /// Where to tell our state.
    pub notifier: Notifier,
    /// `WATCHDOG=1` must be sent more often than this; half of it is a good interval.
    pub watchdog: Option<Duration>,
    /// Sockets that are bound already.
    pub sockets: Vec<OwnedFd>,
    /// How many descriptors from 3 up were handed over, for [`super::harden::at_start`].
    pub handed_over: usize,
}

impl Manager {
    /// Reads the environment and clears it of what it read. Once, at the very start: before
    /// anything is opened, and before a fork changes our pid.
    pub fn from_environment() -> Manager {
        let pid = std::process::id();
        let notifier = Notifier {
            address: take("NOTIFY_SOCKET").and_then(|name| address(&name)),
        };
        let watchdog = watchdog(&take("WATCHDOG_USEC"), &take("WATCHDOG_PID"), pid);
        let handed_over = count_sockets(&take("LISTEN_FDS"), &take("LISTEN_PID"), pid);
        // Their names say nothing that the sockets do not.
        take("LISTEN_FDNAMES");
        let numbers = (FIRST..).take(handed_over);
        let sockets = numbers.filter_map(|fd| sys::take_inherited(fd).ok());
        Manager {
            notifier,
            watchdog,
            sockets: sockets.collect(),
            handed_over,
        }
    }
}

/// Tells the service manager our state. Does nothing without one.
#[derive(Clone, Debug, Default)]
pub struct Notifier {
    address: Option<SocketAddr>,
}

impl Notifier {
    /// Start-up, or a reload, is complete.
    pub fn ready(&self, status: &str) -> io::Result<()> {
        self.send(&format!("READY=1\nSTATUS={}\n", one_line(status)))
    }

    /// A reload has begun; [`Notifier::ready`] ends it.
    pub fn reloading(&self) -> io::Result<()> {
        let now = sys::monotonic().as_micros();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now}\n"))
    }

    /// The end has begun.
    pub fn stopping(&self) -> io::Result<()> {
        self.send("STOPPING=1\n")
    }

    /// We are alive.
    pub fn watchdog(&self) -> io::Result<()> {
        self.send("WATCHDOG=1\n")
    }

    fn send(&self, message: &str) -> io::Result<()> {
        let Some(address) = &self.address else {
            return Ok(());
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(message.as_bytes(), address).map(drop)
    }
}

/// A line end in it would begin another message.
fn one_line(status: &str) -> String {
    status.replace(|c: char| c.is_control(), " ")
}

fn take(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name)?;
    sys::remove_env(OsStr::new(name));
    Some(value)
}

/// A path, or `@` and an abstract name. Other kinds (vsock) are for virtual machines as a whole.
fn address(name: &OsStr) -> Option<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
        [b'/', ..] => SocketAddr::from_pathname(name).ok(),
        _ => None,
    }
}

fn number<T: std::str::FromStr>(value: &Option<OsString>) -> Option<T> {
    value.as_ref()?.to_str()?.parse().ok()
}

fn watchdog(micros: &Option<OsString>, for_pid: &Option<OsString>, pid: u32) -> Option<Duration> {
    let ours = for_pid.is_none() || number(for_pid) == Some(pid);
    number(micros)
        .filter(|micros| ours && *micros > 0)
        .map(Duration::from_micros)
}

fn count_sockets(count: &Option<OsString>, for_pid: &Option<OsString>, pid: u32) -> usize {
    let count = number(count).filter(|_| number(for_pid) == Some(pid));
    count.filter(|count| *count <= MAX_SOCKETS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn value(text: &str) -> Option<OsString> {
        (text != "-").then(|| OsString::from(text))
    }

    #[test]
    fn a_watchdog_is_for_us_alone() {
        let cases = [
            ("3000000", "-", Some(3)),
            ("3000000", "7", Some(3)),
            ("3000000", "8", None),
            ("3000000", "", None),
            ("0", "7", None),
            ("-5", "7", None),
            ("x", "7", None),
            ("-", "7", None),
        ];
        for (micros, pid, seconds) in cases {
            let found = watchdog(&value(micros), &value(pid), 7);
            assert_eq!(found, seconds.map(Duration::from_secs), "{micros} {pid}");
        }
    }

    #[test]
    fn sockets_are_for_us_alone() {
        let cases = [
            ("2", "7", 2),
            ("2", "8", 0),
            ("2", "-", 0),
            ("-1", "7", 0),
            ("99999", "7", 0),
        ];
        for (count, pid, expected) in cases {
            assert_eq!(
                count_sockets(&value(count), &value(pid), 7),
                expected,
                "{count} {pid}"
            );
        }
    }

    fn receive(socket: &UnixDatagram) -> String {
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn messages_arrive_at_a_path_and_at_an_abstract_name() {
        let name = format!("statsd-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let at_path = UnixDatagram::bind(&path).unwrap();
        let at_name = UnixDatagram::bind_addr(&abstract_name).unwrap();
        for (socket, given) in [
            (at_path, path.as_os_str().to_owned()),
            (at_name, format!("@{name}").into()),
        ] {
            let notifier = Notifier {
                address: address(&given),
            };
            notifier.ready("two\nlines").unwrap();
            assert_eq!(receive(&socket), "READY=1\nSTATUS=two lines\n");
            let before = sys::monotonic().as_micros();
            notifier.reloading().unwrap();
            let message = receive(&socket);
            let time = message
                .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
                .unwrap();
            let time: u128 = time.trim_end().parse().unwrap();
            assert!(time >= before && time <= sys::monotonic().as_micros());
            notifier.stopping().unwrap();
            assert_eq!(receive(&socket), "STOPPING=1\n");
            notifier.watchdog().unwrap();
            assert_eq!(receive(&socket), "WATCHDOG=1\n");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_manager_that_does_not_read_does_not_block() {
        let name = format!("statsd-deaf-{}", std::process::id());
        let _socket =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let notifier = Notifier {
            address: address(OsStr::new(&format!("@{name}"))),
        };
        let refused = (0..100_000).find_map(|_| notifier.watchdog().err());
        assert_eq!(refused.unwrap().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        assert!(Notifier::default().ready("").is_ok());
        assert!(address(OsStr::new("vsock:2:1234")).is_none());
        assert!(address(OsStr::new("")).is_none());
    }
}
