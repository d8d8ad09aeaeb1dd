//! Every system call that the standard library and socket2 do not wrap, made safe to call.
//!
//! The only file with `unsafe`; each block says why it is sound. Imports libc and the standard
//! library alone; knows nothing of what it is used for.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::ptr::null_mut;
use std::time::Duration;

/// The usual convention of system calls: -1 is an error and `errno` says which.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

// --- waiting ---

/// One descriptor to wait on, as `poll(2)` takes it.
pub type PollFd = libc::pollfd;

/// Waits until a descriptor is ready or the time is over (`None`: for ever), and gives how many are
/// ready. A signal ends it early, with none.
pub fn poll(fds: &mut [PollFd], timeout: Option<Duration>) -> io::Result<usize> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos() as _,
    });
    let timeout = timeout
        .as_ref()
        .map_or(std::ptr::null(), std::ptr::from_ref);
    let count = fds.len() as libc::nfds_t;
    // SAFETY: the pointers are to a slice of this length and to a value, or null, that are ours for
    // the call.
    let ready = unsafe { libc::ppoll(fds.as_mut_ptr(), count, timeout, std::ptr::null()) };
    match check(ready) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        other => other.map(|count| count as usize),
    }
}

// --- datagrams ---

/// Datagrams to receive at a time.
pub const BATCH: usize = 32;

/// The largest datagram that UDP can carry.
const DATAGRAM: usize = 65_536;

/// From one buffer to the next. Not a power of two: those would all fall into the same few sets of
/// the processor's caches, and push each other out.
const STRIDE: usize = DATAGRAM + 1536;

/// Buffers for [`BATCH`] datagrams, allocated once. Memory is only touched as far as datagrams reach, so
/// that small ones cost a page each.
pub struct ReceiveBatch {
    buffers: Box<[u8]>,
    vectors: Box<[libc::iovec; BATCH]>,
    headers: Box<[libc::mmsghdr; BATCH]>,
    received: usize,
    taken: usize,
}

impl Default for ReceiveBatch {
    fn default() -> ReceiveBatch {
        let mut buffers = vec![0u8; STRIDE * BATCH].into_boxed_slice();
        let start = buffers.as_mut_ptr();
        let mut vectors = Box::new(std::array::from_fn(|index| libc::iovec {
            // SAFETY: every index is below BATCH, so this stays inside the allocation.
            iov_base: unsafe { start.add(index * STRIDE) }.cast(),
            iov_len: DATAGRAM,
        }));
        // SAFETY: a header of zeros is a valid one: no address, no vectors, no control data.
        let mut headers: Box<[libc::mmsghdr; BATCH]> = Box::new(unsafe { zeroed() });
        for (header, vector) in headers.iter_mut().zip(vectors.iter_mut()) {
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        ReceiveBatch {
            buffers,
            vectors,
            headers,
            received: 0,
            taken: 0,
        }
    }
}

impl ReceiveBatch {
    /// Receives what is there, up to [`BATCH`] datagrams, and gives their number; 0 if there is none. What
    /// was not taken of the last batch is gone.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        (self.received, self.taken) = (0, 0);
        debug_assert!(self.vectors.iter().all(|vector| vector.iov_len == DATAGRAM));
        loop {
            // SAFETY: headers, vectors and buffers live in boxes of ours that do not move, and each
            // vector names DATAGRAM bytes inside its own stride of the buffers.
            let received = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    BATCH as libc::c_uint,
                    libc::MSG_DONTWAIT,
                    null_mut(),
                )
            };
            match check(received) {
                Ok(count) => self.received = (count as usize).min(BATCH),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            return Ok(self.received);
        }
    }

    /// The next datagram of the batch, once each. One that was cut short (which [`DATAGRAM`] rules out for
    /// UDP) comes as far as it reached.
    #[inline]
    pub fn take(&mut self) -> Option<&[u8]> {
        let index = self.taken;
        let header = self.headers[..self.received].get(index)?;
        self.taken += 1;
        let length = (header.msg_len as usize).min(DATAGRAM);
        Some(&self.buffers[index * STRIDE..index * STRIDE + length])
    }

    /// All are taken.
    pub fn is_empty(&self) -> bool {
        self.taken == self.received
    }
}

/// Datagrams to send at a time.
pub const SEND_BATCH: usize = 64;

/// Sends datagrams on a connected socket, up to [`SEND_BATCH`] of them in one call; gives how many the
/// kernel took. An error is the first one's.
pub fn send_datagrams(socket: BorrowedFd<'_>, datagrams: &[&[u8]]) -> io::Result<usize> {
    let count = datagrams.len().min(SEND_BATCH);
    // SAFETY: zeros are valid vectors and headers.
    let mut vectors: [libc::iovec; SEND_BATCH] = unsafe { zeroed() };
    // SAFETY: as above.
    let mut headers: [libc::mmsghdr; SEND_BATCH] = unsafe { zeroed() };
    for index in 0..count {
        vectors[index].iov_base = datagrams[index].as_ptr().cast_mut().cast();
        vectors[index].iov_len = datagrams[index].len();
        headers[index].msg_hdr.msg_iov = &mut vectors[index];
        headers[index].msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: the first `count` headers point at vectors on this stack, and those at slices that
    // outlive the call; the kernel only reads them.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count as libc::c_uint,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    check(sent).map(|count| count as usize)
}

/// What fills the datagrams of a block up to the same size: line ends, which every StatsD passes over.
static PADDING: [u8; DATAGRAM] = [b'\n'; DATAGRAM];

/// Whether the kernel knows how to cut a block into datagrams (UDP_SEGMENT, Linux 4.18). An older one
/// would send it as a single datagram.
pub fn takes_blocks(socket: BorrowedFd<'_>) -> bool {
    let mut size: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option is an int; pointer and length are those of one on this stack.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw mut size).cast(),
            &mut length,
        )
    };
    result == 0
}

/// Sends up to [`SEND_BATCH`] datagrams on a connected socket as one block, which the kernel (or the
/// interface) cuts up: less than half the work of one by one. All but the last are filled up with line ends
/// to the size of the longest. Gives how many it took: all, or there is an error.
pub fn send_block(socket: BorrowedFd<'_>, datagrams: &[&[u8]]) -> io::Result<usize> {
    let datagrams = &datagrams[..datagrams.len().min(SEND_BATCH)];
    let size = datagrams.iter().map(|datagram| datagram.len()).max();
    let size = size.unwrap_or(0).min(DATAGRAM);
    let segment = u16::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
    // SAFETY: zeros are valid vectors and a valid header.
    let (mut vectors, mut header): ([libc::iovec; 2 * SEND_BATCH], libc::msghdr) =
        unsafe { zeroed() };
    let vector = |bytes: &[u8]| libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    for (index, datagram) in datagrams.iter().enumerate() {
        vectors[2 * index] = vector(datagram);
        if index + 1 < datagrams.len() {
            vectors[2 * index + 1] = vector(&PADDING[..size.saturating_sub(datagram.len())]);
        }
    }
    // One control message with a u16, in words so that it is aligned.
    let mut control = [0usize; 8];
    header.msg_iov = vectors.as_mut_ptr();
    header.msg_iovlen = 2 * datagrams.len();
    header.msg_control = control.as_mut_ptr().cast();
    // SAFETY: CMSG_SPACE and CMSG_LEN compute with numbers alone. The control buffer is larger than the
    // space of one message with a u16, so its header and data lie inside it.
    unsafe {
        header.msg_controllen = libc::CMSG_SPACE(size_of::<u16>() as u32) as _;
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        (*message).cmsg_level = libc::SOL_UDP;
        (*message).cmsg_type = libc::UDP_SEGMENT;
        (*message).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as _;
        libc::CMSG_DATA(message)
            .cast::<u16>()
            .write_unaligned(segment);
    }
    // SAFETY: the header points at vectors and control data on this stack, and the vectors at slices that
    // outlive the call; the kernel only reads them.
    let sent = unsafe {
        libc::sendmsg(
            socket.as_raw_fd(),
            &raw const header,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    if sent == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(datagrams.len())
}

// --- sockets ---

/// Datagrams that the kernel has dropped because the socket's buffer was full, since it was made.
pub fn dropped_datagrams(socket: BorrowedFd<'_>) -> io::Result<u32> {
    /// `SK_MEMINFO_DROPS`.
    const DROPS: usize = 8;
    let mut info = [0u32; 16];
    let mut length = size_of::<[u32; 16]>() as libc::socklen_t;
    // SAFETY: the pointer and the length are those of an array on this stack.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    };
    check(result).map(|_| info[DROPS])
}

/// Asks for a receive buffer above the system's limit, which takes CAP_NET_ADMIN.
pub fn force_receive_buffer(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let value = i32::try_from(bytes).unwrap_or(i32::MAX);
    // SAFETY: the option takes an int, which is on this stack.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    check(result).map(|_| ())
}

/// Bytes that were written to a stream and that its peer has not acknowledged.
pub fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (TIOCOUTQ by another name) writes one int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    check(result).map(|_| bytes as usize)
}

// --- memory ---

/// Has large blocks mapped on their own, whatever was freed before: growing one then moves its pages
/// instead of copying it, and freeing one gives it back at once. What is smaller stays with the process,
/// for the next interval: it will need about as much, and taking pages anew costs more than anything
/// that is done with them. It also keeps freeing short: neither trimming nor consolidating a hundred
/// megabytes at a time.
pub fn tune_allocator() {
    // SAFETY: mallopt takes two integers; it is called before anything large is allocated.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 * 1024);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        libc::mallopt(libc::M_MXFAST, 0);
    }
}

// --- process ---

/// Which side of a [`fork`] this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one, with the process id of the new.
    Parent(libc::pid_t),
}

/// Splits the process in two.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: the program has one thread, so that the child finds no lock held by a thread that
    // does not exist there. (Tests fork from several threads; there the C library's own locks are
    // the only ones that the child touches, and it takes care of those.)
    match check(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Ends this process at once, without running what the parent of a fork has registered to run.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: _exit takes any number and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Waits for a child to end.
pub fn wait_for(pid: libc::pid_t) -> io::Result<()> {
    loop {
        // SAFETY: a null status pointer is allowed and means that the status is not wanted.
        match check(unsafe { libc::waitpid(pid, null_mut(), 0) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}

/// How a child of ours has ended; `None` while it lives.
pub fn try_wait(pid: libc::pid_t) -> io::Result<Option<ExitStatus>> {
    let mut status = 0;
    // SAFETY: the pointer is valid for the call.
    match check(unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) })? {
        0 => Ok(None),
        _ => Ok(Some(ExitStatus::from_raw(status))),
    }
}

/// Sends a signal to a child of ours that has not been waited for.
pub fn send_signal(pid: libc::pid_t, signal: libc::c_int) -> io::Result<()> {
    if pid <= 0 {
        // These would mean groups of processes.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: plain numbers.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Starts a session without a controlling terminal.
pub fn setsid() -> io::Result<()> {
    // SAFETY: no arguments, and only the calling process changes.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Sets the permission bits that new files do not get; gives what they were.
pub fn umask(mask: libc::mode_t) -> libc::mode_t {
    // SAFETY: umask takes any number and cannot fail.
    unsafe { libc::umask(mask) }
}

/// Makes one of the three standard streams (0, 1, 2) the same file as `from`.
pub fn redirect_standard_stream(from: BorrowedFd<'_>, stream: RawFd) -> io::Result<()> {
    if !(0..=2).contains(&stream) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: both numbers are descriptors; only a standard stream is replaced, which nobody owns
    // in the sense of `OwnedFd`.
    check(unsafe { libc::dup2(from.as_raw_fd(), stream) }).map(drop)
}

/// A pipe: (read end, write end), neither inherited by programs that we start.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: the array has room for the two descriptors that pipe2 writes.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: pipe2 succeeded, so both are open and nobody else owns them.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Sets or clears O_NONBLOCK on what the descriptor refers to.
///
/// Only for files that we opened ourselves: the flag is shared with everyone who inherited them.
pub fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    // SAFETY: F_GETFL and F_SETFL take and give plain numbers, and the descriptor is open.
    unsafe {
        let flags = check(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))?;
        let flags = if on {
            flags | libc::O_NONBLOCK
        } else {
            flags & !libc::O_NONBLOCK
        };
        check(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags)).map(drop)
    }
}

/// Whether a write of up to `PIPE_BUF` bytes would go through now. An error on the descriptor counts as
/// yes: the write will tell. Where the system cannot say, the answer is no: the write could block.
pub fn is_writable(fd: BorrowedFd<'_>) -> bool {
    let mut entry = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one entry that lives through the call; a timeout of 0 returns at once.
    unsafe { libc::poll(&raw mut entry, 1, 0) > 0 }
}

/// Takes possession of a descriptor that was inherited by number (`LISTEN_FDS`), and keeps it from
/// the programs that we start. An error if it is not open, or is a standard stream.
///
/// Each number may be taken once, at the start of the program, before anything else is opened.
pub fn take_inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if fd <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: F_SETFD takes a plain number; on a number that is not open it fails.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, was there before the program began, and so has no other owner here.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes every descriptor from `first` up. Only for the start of the program, when all of them
/// are inherited: whoever believes to own one would be wrong afterwards.
pub fn close_inherited(first: RawFd) {
    let first = first.max(3);
    let listed = std::fs::read_dir("/proc/self/fd").map(|entries| {
        let names = entries.flatten().map(|entry| entry.file_name());
        names
            .filter_map(|name| name.to_str()?.parse().ok())
            .collect::<Vec<RawFd>>()
    });
    // Without /proc, what a shell or an init script may have left open.
    let open = listed.unwrap_or_else(|_| (first..1024).collect());
    for fd in open.into_iter().filter(|fd| *fd >= first) {
        // SAFETY: closing a number that is not open fails and does nothing; the directory handle
        // that listed them is closed by now, and by this function's contract nothing else is ours.
        unsafe { libc::close(fd) };
    }
}

/// Removes a variable from the environment.
pub fn remove_env(name: &OsStr) {
    // SAFETY: the program has one thread, so nobody reads the environment meanwhile.
    unsafe { std::env::remove_var(name) };
}

/// A local time as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// 1 to 31.
    pub day: u32,
    /// 0 to 11.
    pub month: usize,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 60.
    pub second: u32,
    /// As counted from the birth of Christ.
    pub year: i64,
    /// 0 is Sunday.
    pub weekday: usize,
    /// Seconds east of UTC.
    pub offset: i64,
}

/// Seconds since 1970 in the local time zone.
pub fn local_time(seconds: i64) -> LocalTime {
    // SAFETY: all-zero bytes are a valid `tm` (numbers and a null pointer).
    let mut tm: libc::tm = unsafe { MaybeUninit::zeroed().assume_init() };
    // `as`: time_t is 32 bits wide on some systems, where nothing better can be done.
    let time = seconds as libc::time_t;
    // SAFETY: both pointers are valid for the call; localtime_r keeps neither.
    unsafe { libc::localtime_r(&raw const time, &raw mut tm) };
    let number = |n: libc::c_int| u32::try_from(n).unwrap_or(0);
    LocalTime {
        day: number(tm.tm_mday),
        month: usize::try_from(tm.tm_mon).unwrap_or(0).min(11),
        hour: number(tm.tm_hour),
        minute: number(tm.tm_min),
        second: number(tm.tm_sec),
        year: i64::from(tm.tm_year) + 1900,
        weekday: usize::try_from(tm.tm_wday).unwrap_or(0).min(6),
        offset: tm.tm_gmtoff,
    }
}

/// What CLOCK_MONOTONIC shows: the clock that systemd compares with.
pub fn monotonic() -> Duration {
    // SAFETY: all-zero bytes are a valid `timespec`.
    let mut time: libc::timespec = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the pointer is valid for the call, and this clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Who holds the lock on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// We do, from now on.
    Ours,
    /// This process does (0 when the system does not tell).
    HeldBy(libc::pid_t),
}

/// Tries to take the whole file for writing, without waiting (`fcntl` lock: it belongs to this
/// process alone, not to its children, and is gone when the process is).
pub fn lock_file(fd: BorrowedFd<'_>) -> io::Result<Lock> {
    // SAFETY: all-zero bytes are a valid `flock`, and mean "from the start to the end".
    let mut lock: libc::flock = unsafe { MaybeUninit::zeroed().assume_init() };
    // `as`: small constants whose type in libc differs from the field's.
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: the descriptor is open and the structure lives through the call.
    match check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLK, &raw const lock) }) {
        Ok(_) => return Ok(Lock::Ours),
        Err(error) => match error.raw_os_error() {
            Some(libc::EACCES | libc::EAGAIN) => {}
            _ => return Err(error),
        },
    }
    // SAFETY: as above; F_GETLK writes the holder into the structure.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETLK, &raw mut lock) })?;
    Ok(Lock::HeldBy(lock.l_pid.max(0)))
}

/// A line of the user database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The login name.
    pub name: CString,
    /// User id.
    pub uid: libc::uid_t,
    /// Primary group id.
    pub gid: libc::gid_t,
}

/// How to look for an account or a group.
#[derive(Clone, Copy, Debug)]
pub enum Key<'a> {
    /// By name.
    Name(&'a CStr),
    /// By number.
    Id(u32),
}

/// Calls one of the reentrant look-ups with a buffer that grows until the entry fits.
fn with_growing_buffer(
    mut call: impl FnMut(*mut libc::c_char, usize) -> libc::c_int,
) -> io::Result<()> {
    // A group with thousands of members is long; more than 1 MiB is not believed.
    for size in [1 << 12, 1 << 16, 1 << 20] {
        let mut buffer: Vec<libc::c_char> = vec![0; size];
        match call(buffer.as_mut_ptr(), buffer.len()) {
            0 => return Ok(()),
            libc::ERANGE => {}
            // "No such entry" comes as one of these from some name services.
            libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(()),
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ERANGE))
}

/// Looks a user up; `None` when there is no such user.
pub fn find_user(key: Key<'_>) -> io::Result<Option<Account>> {
    let mut found = None;
    with_growing_buffer(|buffer, size| {
        // SAFETY: all-zero bytes are a valid `passwd` (numbers and null pointers).
        let mut entry: libc::passwd = unsafe { MaybeUninit::zeroed().assume_init() };
        let mut result = null_mut();
        // SAFETY: entry, buffer (of that size) and result are valid for the call, and the name is
        // a C string.
        let code = unsafe {
            let (entry, result) = (&raw mut entry, &raw mut result);
            match key {
                Key::Name(name) => libc::getpwnam_r(name.as_ptr(), entry, buffer, size, result),
                Key::Id(id) => libc::getpwuid_r(id, entry, buffer, size, result),
            }
        };
        if code == 0 && !result.is_null() {
            // SAFETY: a found entry's name is a C string inside the buffer, which still lives.
            let name = unsafe { CStr::from_ptr(entry.pw_name) }.to_owned();
            found = Some(Account {
                name,
                uid: entry.pw_uid,
                gid: entry.pw_gid,
            });
        }
        code
    })?;
    Ok(found)
}

/// Looks a group up; `None` when there is no such group.
pub fn find_group(name: &CStr) -> io::Result<Option<libc::gid_t>> {
    let mut found = None;
    with_growing_buffer(|buffer, size| {
        // SAFETY: all-zero bytes are a valid `group` (numbers and null pointers).
        let mut entry: libc::group = unsafe { MaybeUninit::zeroed().assume_init() };
        let mut result = null_mut();
        let entry_pointer = &raw mut entry;
        // SAFETY: entry, buffer (of that size) and result are valid for the call, and the name is
        // a C string.
        let code = unsafe {
            libc::getgrnam_r(name.as_ptr(), entry_pointer, buffer, size, &raw mut result)
        };
        if code == 0 && !result.is_null() {
            found = Some(entry.gr_gid);
        }
        code
    })?;
    Ok(found)
}

/// The effective user id: 0 is root.
pub fn effective_uid() -> libc::uid_t {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() }
}

/// Sets the supplementary groups to those of the user in the group database, and `gid`.
pub fn set_groups_of(user: &CStr, gid: libc::gid_t) -> io::Result<()> {
    // SAFETY: the name is a C string.
    check(unsafe { libc::initgroups(user.as_ptr(), gid) }).map(drop)
}

/// Sets the supplementary groups to this one alone.
pub fn set_only_group(gid: libc::gid_t) -> io::Result<()> {
    // SAFETY: a pointer to one group id, and the count says one.
    check(unsafe { libc::setgroups(1, &raw const gid) }).map(drop)
}

/// Sets real, effective and saved user id; -1 (`u32::MAX`) leaves one as it is.
pub fn set_uids(real: libc::uid_t, effective: libc::uid_t, saved: libc::uid_t) -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::setresuid(real, effective, saved) }).map(drop)
}

/// Sets real, effective and saved group id; -1 (`u32::MAX`) leaves one as it is.
pub fn set_gids(real: libc::gid_t, effective: libc::gid_t, saved: libc::gid_t) -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::setresgid(real, effective, saved) }).map(drop)
}

/// Real, effective and saved user id.
pub fn get_uids() -> io::Result<[libc::uid_t; 3]> {
    let [mut real, mut effective, mut saved] = [0; 3];
    // SAFETY: three pointers that are valid for the call.
    check(unsafe { libc::getresuid(&raw mut real, &raw mut effective, &raw mut saved) })?;
    Ok([real, effective, saved])
}

/// Real, effective and saved group id.
pub fn get_gids() -> io::Result<[libc::gid_t; 3]> {
    let [mut real, mut effective, mut saved] = [0; 3];
    // SAFETY: three pointers that are valid for the call.
    check(unsafe { libc::getresgid(&raw mut real, &raw mut effective, &raw mut saved) })?;
    Ok([real, effective, saved])
}

/// From now on no program that we start gains privileges (set-uid bits do nothing).
pub fn set_no_new_privileges() -> io::Result<()> {
    const ONE: libc::c_ulong = 1;
    const NONE: libc::c_ulong = 0;
    // SAFETY: plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, ONE, NONE, NONE, NONE) }).map(drop)
}

/// No core dumps, and no look into our memory for others of the same user.
pub fn forbid_core_dumps() -> io::Result<()> {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    const OFF: libc::c_ulong = 0;
    // SAFETY: the structure lives through the call; the rest are plain numbers. The limit alone
    // would not do: a core_pattern that is a pipe ignores it.
    unsafe {
        check(libc::setrlimit(libc::RLIMIT_CORE, &raw const none))?;
        check(libc::prctl(libc::PR_SET_DUMPABLE, OFF, OFF, OFF, OFF)).map(drop)
    }
}

/// Raises the number of descriptors that we may have open to `wanted`, or as far as allowed, and
/// says what it is now. Never lowers it.
#[allow(
    clippy::useless_conversion,
    reason = "rlim_t has 32 bits on some systems"
)]
pub fn raise_open_files(wanted: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure is valid for the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    let target = (wanted as libc::rlim_t).min(limit.rlim_max);
    if target > limit.rlim_cur {
        limit.rlim_cur = target;
        // SAFETY: the structure is valid for the call.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    }
    Ok(limit.rlim_cur.into())
}

/// Lets through every signal that whoever started us may have blocked.
pub fn unblock_signals() {
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset fills the set in, sigprocmask reads it; a null pointer for the old mask
    // is allowed.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), null_mut());
    }
}

/// Has the system drop a signal instead of delivering it.
pub fn ignore_signal(signal: libc::c_int) {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// The name that `ps -o comm` and `top` show (15 bytes of it).
pub fn set_short_name(name: &CStr) {
    const NONE: libc::c_ulong = 0;
    // SAFETY: the kernel copies up to 16 bytes of a C string and keeps no pointer.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), NONE, NONE, NONE) };
}

/// The memory that the kernel shows as our command line: arguments, then environment.
#[derive(Debug)]
pub struct ArgumentArea {
    start: usize,
    /// Bytes of the arguments, with the zero after each.
    arguments: usize,
    /// Bytes of arguments and environment together.
    all: usize,
    /// The environment's strings have been moved elsewhere.
    environment_moved: bool,
}

impl ArgumentArea {
    /// Finds it. `None` when it is not certain where it is: no /proc, or an emulator whose own
    /// arguments /proc shows. To be called before [`ArgumentArea::write`] has changed it.
    pub fn find() -> Option<ArgumentArea> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // proc(5): arg_start, arg_end, env_start and env_end are fields 48 to 51; the second field
        // is in parentheses and may hold spaces.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields = rest.split_ascii_whitespace().skip(48 - 3).take(4);
        let numbers: Vec<usize> = fields.filter_map(|field| field.parse().ok()).collect();
        let [start, arguments_end, environment, environment_end] = numbers[..] else {
            return None;
        };
        let arguments = arguments_end.checked_sub(start)?;
        let mut expected = Vec::with_capacity(arguments);
        for argument in std::env::args_os() {
            expected.extend_from_slice(argument.as_bytes());
            expected.push(0);
        }
        // Read by way of the kernel: a wrong address is an error here and not a crash.
        let mut there = vec![0; arguments];
        let memory = std::fs::File::open("/proc/self/mem").ok()?;
        memory.read_exact_at(&mut there, start as u64).ok()?;
        if there != expected || there.is_empty() {
            return None;
        }
        let follows = environment == arguments_end && environment_end >= environment;
        let all = if follows {
            environment_end - start
        } else {
            arguments
        };
        Some(ArgumentArea {
            start,
            arguments,
            all,
            environment_moved: false,
        })
    }

    /// Writes a text there, cut to what fits. Afterwards `std::env::args` gives nonsense (but no
    /// invalid memory: the area still ends with a zero).
    pub fn write(&mut self, text: &[u8]) {
        let fits_arguments = text.len() < self.arguments;
        let room = if fits_arguments && !self.environment_moved {
            self.arguments
        } else {
            self.all
        };
        if room > self.arguments && !self.environment_moved {
            // The C library allocates a new string for each variable that is set; so none of
            // them lives in the area any more. (Names that cannot be set can hardly be asked for.)
            let settable = |name: &OsStr| !name.is_empty() && !name.as_bytes().contains(&b'=');
            for (name, value) in std::env::vars_os().filter(|(name, _)| settable(name)) {
                // SAFETY: the program has one thread, so nobody reads the environment meanwhile.
                unsafe { std::env::set_var(name, value) };
            }
            self.environment_moved = true;
        }
        let text = &text[..text.len().min(room - 1)];
        // SAFETY: start..start + room is the part of our stack where the kernel put the arguments
        // (`find` compared the contents) and, behind them, the environment's strings. Rust holds no
        // reference into it: the standard library reads arguments and variables through C
        // pointers each time. Those of the arguments stay valid C strings, as the last byte is
        // zero; those of the environment have been moved if their part is overwritten.
        unsafe {
            let area = std::ptr::with_exposed_provenance_mut::<u8>(self.start);
            std::ptr::copy_nonoverlapping(text.as_ptr(), area, text.len());
            std::ptr::write_bytes(area.add(text.len()), 0, room - text.len());
        }
    }
}
