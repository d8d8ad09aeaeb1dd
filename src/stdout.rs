//! Standard output, for the log and the console backend: bounded, and it never blocks.
//!
//! A reader that stalls, a terminal that is stopped, a full disk: what does not go out waits here,
//! up to [`LIMIT`] bytes; what is over that is dropped and counted, whole messages at a time. The
//! event loop asks [`wants_write`] and calls [`flush`]. Imports [`sys`] alone.
//!
//! O_NONBLOCK is a flag of the open file, which a shell or another program shares with us, so it
//! is never set on what we inherited.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use crate::sys;

/// Bytes that wait at most.
pub const LIMIT: usize = 1 << 20;

/// Bytes in one write: `PIPE_BUF`, the most that a pipe that polls as writable takes for certain.
const CHUNK: usize = 4096;

static STDOUT: Mutex<Option<Output>> = Mutex::new(None);

/// Queues one message (a line with its end, or many) and writes what goes without waiting.
pub fn write(message: &[u8]) {
    with(|output| output.write(message));
}

/// Writes what goes without waiting.
pub fn flush() {
    with(Output::flush);
}

/// The descriptor to poll for POLLOUT, when something waits for it.
pub fn wants_write() -> Option<RawFd> {
    with(|output| output.wants_write())
}

/// Bytes that wait.
pub fn waiting() -> usize {
    with(|output| output.bytes - output.sent)
}

/// How many messages were dropped; reported once, when what was kept is out.
pub fn take_lost() -> Option<u64> {
    with(Output::take_lost)
}

/// Looks at descriptor 1 anew: for the moment when it is made something else, or at the start,
/// while we may still open what it refers to.
pub fn reopen() {
    *lock() = None;
    with(|_| ());
}

/// Whether nobody is at work here at this moment.
pub fn is_free() -> bool {
    !matches!(STDOUT.try_lock(), Err(TryLockError::WouldBlock))
}

fn lock() -> MutexGuard<'static, Option<Output>> {
    STDOUT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with<T>(action: impl FnOnce(&mut Output) -> T) -> T {
    action(lock().get_or_insert_with(Output::standard))
}

/// How a write to it is kept from blocking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Our own open file of a pipe or terminal, with O_NONBLOCK.
    Nonblocking,
    /// A socket: each send says that it will not wait.
    Socket,
    /// A pipe or terminal that we may not open for ourselves (it is another user's): ask poll before
    /// each write. Others who write to the same one could still fill it in between.
    Polled,
    /// A regular file: it waits for the disk alone, and poll has nothing to say.
    File,
}

/// A bounded queue in front of a descriptor.
#[derive(Debug)]
struct Output {
    file: Option<File>,
    kind: Kind,
    waiting: VecDeque<Vec<u8>>,
    /// Bytes in `waiting`, with those of the first message that are already out.
    bytes: usize,
    /// Bytes of the first message that are already out.
    sent: usize,
    limit: usize,
    lost: u64,
    /// Who queued what waits: a forked child must not write it a second time.
    pid: u32,
}

impl Output {
    fn standard() -> Output {
        let inherited = io::stdout().as_fd().try_clone_to_owned().ok();
        Output::new(inherited.map(File::from), LIMIT)
    }

    fn new(inherited: Option<File>, limit: usize) -> Output {
        let (file, kind) = match inherited {
            Some(file) => {
                let (file, kind) = choose(file);
                (Some(file), kind)
            }
            None => (None, Kind::File),
        };
        Output {
            file,
            kind,
            waiting: VecDeque::new(),
            bytes: 0,
            sent: 0,
            limit,
            lost: 0,
            pid: std::process::id(),
        }
    }

    fn write(&mut self, message: &[u8]) {
        self.forget_parent();
        if self.file.is_none() || message.is_empty() {
            return;
        }
        if self.bytes + message.len() > self.limit {
            self.flush();
        }
        if self.bytes + message.len() > self.limit {
            self.lost += 1;
            return;
        }
        self.bytes += message.len();
        self.waiting.push_back(message.to_vec());
        self.flush();
    }

    fn flush(&mut self) {
        self.forget_parent();
        while let (Some(file), Some(first)) = (&mut self.file, self.waiting.front()) {
            let rest = &first[self.sent..];
            match write_now(file, self.kind, &rest[..rest.len().min(CHUNK)]) {
                Ok(n) if n > 0 => {
                    self.sent += n;
                    if self.sent == first.len() {
                        self.bytes -= first.len();
                        self.sent = 0;
                        self.waiting.pop_front();
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Nobody will ever read it (EPIPE), the terminal is gone (EIO): no more output.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::EIO)) => {
                    self.file = None;
                    self.discard();
                    self.lost = 0;
                }
                // A full disk, a limit on file sizes. There is nothing to poll for, so what waits
                // is given up, and the next message tries again.
                Ok(_) | Err(_) => {
                    self.lost += self.waiting.len() as u64;
                    self.discard();
                }
            }
        }
    }

    fn wants_write(&self) -> Option<RawFd> {
        let file = self.file.as_ref().filter(|_| !self.waiting.is_empty());
        file.map(AsRawFd::as_raw_fd)
    }

    fn take_lost(&mut self) -> Option<u64> {
        (self.lost > 0 && self.waiting.is_empty()).then(|| std::mem::take(&mut self.lost))
    }

    fn discard(&mut self) {
        self.waiting.clear();
        self.bytes = 0;
        self.sent = 0;
    }

    fn forget_parent(&mut self) {
        let pid = std::process::id();
        if pid != self.pid {
            self.pid = pid;
            self.lost = 0;
            self.discard();
        }
    }
}

fn choose(inherited: File) -> (File, Kind) {
    let Ok(kind) = inherited.metadata().map(|metadata| metadata.file_type()) else {
        return (inherited, Kind::Polled);
    };
    if kind.is_socket() {
        (inherited, Kind::Socket)
    } else if kind.is_fifo() || kind.is_char_device() {
        // Opening it anew gives flags of our own. (For a file it would also give a position of our
        // own, and so overwrite what others write to it.)
        let path = format!("/proc/self/fd/{}", inherited.as_raw_fd());
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
        match OpenOptions::new()
            .write(true)
            .custom_flags(flags)
            .open(path)
        {
            Ok(own) => (own, Kind::Nonblocking),
            Err(_) => (inherited, Kind::Polled),
        }
    } else {
        (inherited, Kind::File)
    }
}

fn write_now(file: &mut File, kind: Kind, bytes: &[u8]) -> io::Result<usize> {
    match kind {
        Kind::Nonblocking | Kind::File => file.write(bytes),
        Kind::Socket => {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            socket2::SockRef::from(&*file).send_with_flags(bytes, flags)
        }
        Kind::Polled if sys::is_writable(file.as_fd()) => file.write(bytes),
        Kind::Polled => Err(ErrorKind::WouldBlock.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    fn pipe() -> (File, File) {
        let (read, write) = sys::pipe().unwrap();
        (File::from(read), File::from(write))
    }

    /// Reads exactly so many bytes; the writer must have them ready or follow.
    fn read(from: &mut impl Read, bytes: usize) -> Vec<u8> {
        let mut buffer = vec![0; bytes];
        from.read_exact(&mut buffer).unwrap();
        buffer
    }

    /// Fills it past its limit with numbered lines; returns how many were taken.
    fn fill(output: &mut Output) -> u64 {
        let mut written = 0;
        while output.lost == 0 {
            output.write(format!("{written:0>99}\n").as_bytes());
            written += 1;
        }
        written - 1
    }

    fn stalls_then_recovers(mut output: Output, mut reader: impl Read) {
        let taken = fill(&mut output);
        output.write(b"over\n");
        assert_eq!(output.lost, 2);
        assert!(output.wants_write().is_some());
        assert_eq!(output.take_lost(), None, "reported before it is out");
        for line in 0..taken {
            assert_eq!(read(&mut reader, 100), format!("{line:0>99}\n").as_bytes());
            output.flush();
        }
        assert_eq!(output.wants_write(), None);
        assert_eq!(output.take_lost(), Some(2));
        assert_eq!(output.take_lost(), None, "reported twice");
        output.write(b"again\n");
        assert_eq!(read(&mut reader, 6), b"again\n");
    }

    #[test]
    fn a_pipe_that_nobody_reads_does_not_block() {
        let (reader, writer) = pipe();
        let shared = writer.try_clone().unwrap();
        let output = Output::new(Some(writer), 100_000);
        assert_eq!(output.kind, Kind::Nonblocking);
        stalls_then_recovers(output, reader);
        // The flags of what we inherited are untouched: nonblocking writes elsewhere would fail.
        let flags = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", shared.as_raw_fd()));
        let flags = flags.unwrap();
        let flags = flags
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .unwrap()
            .trim();
        let flags = i32::from_str_radix(flags, 8).unwrap();
        assert_eq!(flags & libc::O_NONBLOCK, 0);
    }

    #[test]
    fn a_pipe_that_cannot_be_opened_anew_is_polled() {
        let (reader, writer) = pipe();
        let mut output = Output::new(Some(writer.try_clone().unwrap()), 100_000);
        output.file = Some(writer);
        output.kind = Kind::Polled;
        stalls_then_recovers(output, reader);
    }

    #[test]
    fn a_socket_that_nobody_reads_does_not_block() {
        let (reader, writer) = UnixStream::pair().unwrap();
        let output = Output::new(
            Some(File::from(std::os::fd::OwnedFd::from(writer))),
            100_000,
        );
        assert_eq!(output.kind, Kind::Socket);
        stalls_then_recovers(output, reader);
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_output() {
        let (reader, writer) = pipe();
        let mut output = Output::new(Some(writer), LIMIT);
        output.write(b"one\n");
        drop(reader);
        output.write(b"two\n");
        assert!(output.file.is_none());
        output.write(b"three\n");
        assert_eq!((output.wants_write(), output.bytes), (None, 0));
    }

    #[test]
    fn a_full_disk_loses_lines_and_is_tried_again() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut output = Output::new(Some(full), LIMIT);
        output.write(b"one\n");
        output.write(b"two\n");
        assert_eq!(output.wants_write(), None, "polling for it would spin");
        assert_eq!(output.take_lost(), Some(2));
        let (mut reader, writer) = pipe();
        output.file = Some(writer);
        output.write(b"three\n");
        assert_eq!(read(&mut reader, 6), b"three\n");
    }

    #[test]
    fn a_file_is_appended_to_where_others_write() {
        let path = std::env::temp_dir().join(format!("statsd-stdout-{}", std::process::id()));
        let mut file = File::create_new(&path).unwrap();
        let mut output = Output::new(Some(file.try_clone().unwrap()), LIMIT);
        file.write_all(b"theirs\n").unwrap();
        output.write(b"ours\n");
        file.write_all(b"theirs\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text, "theirs\nours\ntheirs\n");
    }

    #[test]
    fn a_forked_child_does_not_write_what_its_parent_queued() {
        let (_reader, writer) = pipe();
        let mut output = Output::new(Some(writer), 100_000);
        fill(&mut output);
        output.pid += 1; // as if we were another process
        output.flush();
        assert_eq!(
            (output.bytes, output.lost, output.wants_write()),
            (0, 0, None)
        );
    }
}
