//! Lines for syslogd: RFC 3164 to a unix datagram socket, facility LOCAL0, tag and pid, as the
//! original. Never blocks: what syslogd does not take waits in a bounded queue, what is over that
//! is counted. The `syslog` crate makes the line; its own socket would block.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use syslog::{Facility, Formatter3164, LogFormat};

use super::MONTHS;
use crate::config::Severity;
use crate::sys;

/// Lines that wait at most: some 100 KiB, and all that a start without syslogd has to say.
const LIMIT: usize = 1000;

/// A syslogd that is away is looked for this often.
const RETRY: Duration = Duration::from_millis(200);

/// The connection to syslogd, and what waits for it.
#[derive(Debug)]
pub(super) struct Syslog {
    path: PathBuf,
    tag: String,
    socket: Option<UnixDatagram>,
    waiting: VecDeque<Vec<u8>>,
    lost: u64,
    /// Not before this, after a failure.
    retry_at: Option<Instant>,
    /// Who queued what waits: a forked child must not send it a second time.
    pid: u32,
}

impl Syslog {
    pub(super) fn new(path: PathBuf, tag: String) -> Syslog {
        Syslog {
            path,
            tag,
            socket: None,
            waiting: VecDeque::new(),
            lost: 0,
            retry_at: None,
            pid: std::process::id(),
        }
    }

    /// Sends a line, or keeps it for later.
    pub(super) fn log(&mut self, severity: Severity, message: &str, now: Instant) {
        self.flush(now);
        self.send_or_keep(self.line(severity, message), now);
    }

    /// Sends what waits, as far as syslogd takes it, and once all is out, how many lines were lost.
    pub(super) fn flush(&mut self, now: Instant) {
        let pid = std::process::id();
        if pid != self.pid {
            self.pid = pid;
            self.waiting.clear();
            self.lost = 0;
        }
        while let Some(line) = self.waiting.pop_front() {
            if !self.send(&line, now) {
                self.waiting.push_front(line);
                return;
            }
        }
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            let text = format!("syslogd did not take log lines for a while; lost: {lost}");
            self.send_or_keep(self.line(Severity::Warning, &text), now);
        }
    }

    /// The socket, when lines wait and syslogd is there but slow.
    pub(super) fn wants_write(&self) -> Option<RawFd> {
        let socket = self.socket.as_ref().filter(|_| !self.waiting.is_empty());
        socket.map(AsRawFd::as_raw_fd)
    }

    /// Tries to reach syslogd, for an early word if it is not there.
    pub(super) fn connect(&mut self) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(&self.path)?;
        self.socket = Some(socket);
        Ok(())
    }

    fn send_or_keep(&mut self, line: Vec<u8>, now: Instant) {
        if self.waiting.is_empty() && self.send(&line, now) {
            return;
        }
        if self.waiting.len() < LIMIT {
            self.waiting.push_back(line);
        } else {
            self.lost += 1;
        }
    }

    /// True when the line needs no more care.
    fn send(&mut self, line: &[u8], now: Instant) -> bool {
        if self.retry_at.is_some_and(|at| now < at) {
            return false;
        }
        self.retry_at = None;
        // Twice: a syslogd that was restarted has left us the socket of the old one.
        for _ in 0..2 {
            if self.socket.is_none() && self.connect().is_err() {
                break;
            }
            let Some(socket) = &self.socket else { break };
            match socket.send(line) {
                Ok(_) => return true,
                // It is there but its queue is full: poll says when it has room.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                // No line is longer than `MAX_MESSAGE` and its head; but a line that can never be
                // sent must not hold up the others.
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    self.lost += 1;
                    return true;
                }
                Err(_) => self.socket = None,
            }
        }
        self.socket = None;
        self.retry_at = Some(now + RETRY);
        false
    }

    fn line(&self, severity: Severity, message: &str) -> Vec<u8> {
        let formatter = Formatter3164 {
            facility: Facility::LOG_LOCAL0,
            hostname: None,
            process: self.tag.clone(),
            pid: std::process::id(),
        };
        let mut line = Vec::with_capacity(64 + message.len());
        // Writing to memory cannot fail.
        let _ = formatter.format(&mut line, level(severity), message);
        // The crate writes UTC with a zero before single digits, but the protocol has local time
        // and a space (RFC 3164, 4.1.2); both are 15 bytes long.
        if let Some(start) = line.iter().position(|byte| *byte == b'>') {
            let time = timestamp();
            if let Some(place) = line.get_mut(start + 1..start + 1 + time.len()) {
                place.copy_from_slice(time.as_bytes());
            }
        }
        line
    }
}

fn timestamp() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_secs());
    let t = sys::local_time(i64::try_from(seconds).unwrap_or(0));
    let month = MONTHS[t.month];
    format!(
        "{month} {:>2} {:02}:{:02}:{:02}",
        t.day, t.hour, t.minute, t.second
    )
}

fn level(severity: Severity) -> syslog::Severity {
    match severity {
        Severity::Emerg => syslog::Severity::LOG_EMERG,
        Severity::Alert => syslog::Severity::LOG_ALERT,
        Severity::Crit => syslog::Severity::LOG_CRIT,
        Severity::Err => syslog::Severity::LOG_ERR,
        Severity::Warning => syslog::Severity::LOG_WARNING,
        Severity::Notice => syslog::Severity::LOG_NOTICE,
        Severity::Info => syslog::Severity::LOG_INFO,
        Severity::Debug => syslog::Severity::LOG_DEBUG,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let name = format!("statsd-syslog-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = std::fs::remove_file(&path);
            Place(path)
        }

        fn listen(&self) -> UnixDatagram {
            let _ = std::fs::remove_file(&self.0);
            let socket = UnixDatagram::bind(&self.0).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            socket
        }

        fn client(&self) -> Syslog {
            Syslog::new(self.0.clone(), "tag".to_string())
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn receive(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 9000];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// What follows the `]: ` of the head.
    fn text(line: &str) -> &str {
        line.split_once("]: ").map_or("", |(_, text)| text)
    }

    #[test]
    fn a_line_has_priority_time_tag_and_pid() {
        let place = Place::new("format");
        let server = place.listen();
        let mut client = place.client();
        client.log(Severity::Warning, "hello", Instant::now());
        let line = receive(&server);
        // 132 is LOCAL0 (16) times 8 and warning (4).
        let (time, rest) = line.strip_prefix("<132>").unwrap().split_at(15);
        assert_eq!(rest, format!(" tag[{}]: hello", std::process::id()));
        let now = timestamp();
        assert_eq!(time[..7], now[..7], "not today, in local time");
        assert!(MONTHS.contains(&&time[..3]), "{time}");
    }

    #[test]
    fn lines_wait_for_a_syslogd_that_starts_later() {
        let place = Place::new("late");
        let mut client = place.client();
        let start = Instant::now();
        for n in 0..LIMIT + 5 {
            client.log(Severity::Info, &n.to_string(), start);
        }
        let server = place.listen();
        client.flush(start);
        assert_eq!(client.waiting.len(), LIMIT, "tried again too soon");
        let mut now = start + RETRY;
        for n in 0..LIMIT {
            client.flush(now);
            now += RETRY;
            assert_eq!(text(&receive(&server)), n.to_string());
        }
        client.log(Severity::Info, "back", now);
        assert!(text(&receive(&server)).ends_with("; lost: 5"));
        assert_eq!(text(&receive(&server)), "back");
    }

    #[test]
    fn a_restarted_syslogd_loses_nothing() {
        let place = Place::new("restart");
        let server = place.listen();
        let mut client = place.client();
        client.log(Severity::Info, "one", Instant::now());
        assert_eq!(text(&receive(&server)), "one");
        drop(server);
        let server = place.listen();
        client.log(Severity::Info, "two", Instant::now());
        assert_eq!(text(&receive(&server)), "two");
    }

    #[test]
    fn a_syslogd_that_does_not_read_does_not_block() {
        let place = Place::new("stalled");
        let server = place.listen();
        let mut client = place.client();
        let now = Instant::now();
        while client.lost == 0 {
            client.log(Severity::Info, "x", now);
        }
        assert!(client.wants_write().is_some());
        assert_eq!(client.waiting.len(), LIMIT);
        let mut line = String::new();
        while !text(&line).ends_with("; lost: 1") {
            line = receive(&server);
            client.flush(now);
        }
        assert!(client.waiting.is_empty() && client.lost == 0);
    }

    #[test]
    fn a_forked_child_does_not_send_what_its_parent_queued() {
        let place = Place::new("fork");
        let mut client = place.client();
        client.log(Severity::Info, "x", Instant::now());
        client.pid += 1; // as if we were another process
        client.flush(Instant::now());
        assert!(client.waiting.is_empty());
    }
}
