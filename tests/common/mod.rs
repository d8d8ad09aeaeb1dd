//! Helpers for tests on the real binary: a directory of one's own, a daemon, a fake Graphite, a
//! console client. In the manner of ripgrep's tests: a test says what it sends and what must come
//! out, the rest is here.
//!
//! Nothing here sleeps to let something happen: every wait is for a condition and has a deadline.
//! Every port is one the kernel picked, so tests run side by side. What a test starts, drop ends,
//! by its process id.
#![allow(dead_code)]

pub mod console;
pub mod daemon;
pub mod graphite;
pub mod inject;
pub mod json;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

/// A condition that has not come true by then never will. Long, because machines can be slow;
/// only a failing test waits for it.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The keys that keep a daemon on loopback and on free ports.
pub const LOCAL: &str = "address: '127.0.0.1', port: 0, mgmt_address: '127.0.0.1', mgmt_port: 0";

/// An interval that no test lives to see: what arrives, arrives by the flush at the end.
pub const NEVER: &str = "flushInterval: 3600000";

/// Asks `condition` again and again until it has an answer.
#[track_caller]
pub fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = condition() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {DEADLINE:?} for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A directory that is gone after the test.
pub struct Dir(PathBuf);

impl Dir {
    /// Under the system's directory for such things, short enough for a unix socket's path.
    pub fn new() -> Dir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("statsd-e2e-{}-{number}", process::id()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Dir(path)
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// Where `file` is, or would be.
    pub fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// The same as text, for a config or a command line.
    pub fn text_path(&self, file: &str) -> String {
        self.path(file).into_os_string().into_string().unwrap()
    }

    /// Writes in place, as an editor that keeps the inode does.
    pub fn write(&self, file: &str, text: &str) -> PathBuf {
        let path = self.path(file);
        fs::write(&path, text).unwrap();
        path
    }

    /// Writes beside and renames over, as most editors and config management do.
    pub fn replace(&self, file: &str, text: &str) {
        let new = self.write(&format!(".{file}.new"), text);
        fs::rename(new, self.path(file)).unwrap();
    }

    /// What is in it; empty where there is none.
    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap_or_default()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Sends a signal by name (`TERM`, `HUP`). The shell's own `kill`, so that tests need no unsafe.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid}")])
        .status()
        .unwrap();
    assert!(status.success(), "kill -{name} {pid}");
}

/// Is there a process of that id that is not a zombie?
pub fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .trim_start()
            .starts_with('Z')
    })
}

/// The process's arguments as `ps -o args=` shows them.
pub fn arguments(pid: u32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    String::from_utf8_lossy(&raw)
        .trim_end_matches('\0')
        .replace('\0', " ")
        .trim_end()
        .to_owned()
}

/// A number from `/proc/PID/status`.
pub fn status_field(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Does this machine have IPv6 on loopback?
pub fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// An address of this machine that is not loopback, if it has one. Connecting a UDP socket sends
/// nothing; it only asks the routing table.
pub fn outside_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

/// A UDP socket that waits for at most [`DEADLINE`].
pub fn udp_socket(address: impl Into<IpAddr>) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::new(address.into(), 0)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// A listener on loopback, for [`accept`].
pub fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// The next connection, within [`DEADLINE`]; reads from it have the same.
#[track_caller]
pub fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let (stream, _) = wait_until("a connection", || listener.accept().ok());
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Ends a connection with a reset, as a client that crashed with unread data does.
pub fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

/// Says on stderr why a test has shown nothing here.
pub fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
