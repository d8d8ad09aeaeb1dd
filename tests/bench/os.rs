//! The system calls of the bench that the standard library does not offer: batches of datagrams,
//! processor affinity, another process's CPU time, priorities and signals.
//!
//! The only `unsafe` of the bench. Sizes are bytes, times are [`Duration`]s.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Datagrams handed to the kernel, or taken from it, in one call.
pub const BATCH: usize = 64;
/// Room for the largest datagram, plus a few cache lines so that the starts of two buffers never
/// fall on the same cache set.
const STRIDE: usize = 65_536 + 1_536;

/// Sends up to [`BATCH`] datagrams on a connected socket; returns how many the kernel took.
pub fn send_batch<'a>(
    socket: &impl AsRawFd,
    datagrams: impl Iterator<Item = &'a [u8]>,
) -> io::Result<usize> {
    // SAFETY: iovec and mmsghdr are plain C structs for which all zeroes is a valid value.
    let (mut parts, mut headers): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    let mut count = 0;
    for (datagram, (part, header)) in datagrams.zip(parts.iter_mut().zip(&mut headers)) {
        part.iov_base = datagram.as_ptr().cast_mut().cast();
        part.iov_len = datagram.len();
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
        count += 1;
    }
    // SAFETY: the first `count` headers point into `parts`, whose entries point at slices that
    // outlive the call; the kernel only reads them.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, 0) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Buffers for [`BATCH`] datagrams, allocated once and used for every call.
pub struct Receiver {
    /// What the headers point into: `BATCH` buffers, `STRIDE` apart.
    buffers: Vec<u8>,
    parts: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Receiver {
    /// Allocates the buffers.
    pub fn new() -> Receiver {
        // SAFETY: iovec and mmsghdr are plain C structs for which all zeroes is a valid value.
        let (parts, headers) = unsafe { (vec![mem::zeroed(); BATCH], vec![mem::zeroed(); BATCH]) };
        Receiver {
            buffers: vec![0; STRIDE * BATCH],
            parts,
            headers,
        }
    }

    /// Takes what is there, without waiting; returns how many datagrams and bytes.
    pub fn receive(&mut self, socket: RawFd) -> io::Result<(usize, usize)> {
        let each = self.buffers.chunks_exact_mut(STRIDE);
        for ((buffer, part), header) in each.zip(&mut self.parts).zip(&mut self.headers) {
            part.iov_base = buffer.as_mut_ptr().cast();
            part.iov_len = 65_536;
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: each header points at a part and each part at its own buffer of STRIDE bytes,
        // all owned by `self`, which is borrowed for the call; no time-out is passed.
        let got = unsafe {
            libc::recvmmsg(
                socket,
                self.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        match usize::try_from(got) {
            Ok(got) => {
                let bytes = self.headers[..got].iter().map(|h| h.msg_len as usize).sum();
                Ok((got, bytes))
            }
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => Ok((0, 0)),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

/// Waits until one of the descriptors is readable, or `timeout` (milliseconds) has passed.
pub fn wait_readable(descriptors: &[RawFd], timeout: i32) {
    let mut polled: Vec<libc::pollfd> = descriptors
        .iter()
        .map(|&fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    // SAFETY: the pointer and the length are those of one live vector.
    unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout) };
}

/// Asks for a receive buffer of `bytes`, past the system's limit where that is allowed.
pub fn set_receive_buffer(socket: &impl AsRawFd, bytes: libc::c_int) {
    for option in [libc::SO_RCVBUF, libc::SO_RCVBUFFORCE] {
        // SAFETY: the value is one c_int on the stack and its size is passed along. A refusal
        // leaves the buffer as it was, which is what an unprivileged run gets.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const bytes).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
    }
}

/// The processors this process may run on.
pub fn allowed_cpus() -> Vec<usize> {
    // SAFETY: cpu_set_t is a plain bit set; the kernel fills it, and its size is passed along.
    let set = unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set);
        set
    };
    // SAFETY: CPU_ISSET reads one bit of `set`, within CPU_SETSIZE.
    (0..libc::CPU_SETSIZE as usize)
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect()
}

/// Binds the calling thread, and what it starts from now on, to one processor.
pub fn pin(cpu: usize) {
    // SAFETY: the set is built here and only read by the kernel; `cpu` comes from `allowed_cpus`.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// Puts this process, and what it starts, before ordinary ones; false where that is not allowed.
pub fn raise_priority() -> bool {
    // SAFETY: takes three integers.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -10) == 0 }
}

/// Puts the calling thread before everything ordinary on its processor, so that its clock shows
/// how long the other side took and not how long it waited itself; where allowed.
pub fn real_time() {
    let param = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameter is one struct on the stack, only read.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &param) };
}

/// CPU time, user and system, of all threads of a process so far, to the nanosecond.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    // SAFETY: both calls fill one struct on the stack; an unknown pid is an error.
    unsafe {
        let mut clock: libc::clockid_t = mem::zeroed();
        let error = libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock);
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        let mut time: libc::timespec = mem::zeroed();
        if libc::clock_gettime(clock, &mut time) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }
}

/// Asks a process to end.
pub fn terminate(pid: u32) {
    signal(pid, libc::SIGTERM);
}

/// Stops a process where it is.
pub fn pause(pid: u32) {
    signal(pid, libc::SIGSTOP);
}

/// Lets a stopped process go on.
pub fn resume(pid: u32) {
    signal(pid, libc::SIGCONT);
}

fn signal(pid: u32, signal: libc::c_int) {
    // SAFETY: takes two integers; `pid` is a child of ours that has not been waited for.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

static TERMINATED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_terminate(_: libc::c_int) {
    TERMINATED.store(true, Ordering::Relaxed);
}

/// From now on SIGTERM only makes [`terminated`] true.
pub fn catch_terminate() {
    let handler: extern "C" fn(libc::c_int) = on_terminate;
    // SAFETY: the handler stores to one atomic, which a signal handler may do.
    unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) };
}

/// Whether SIGTERM came.
pub fn terminated() -> bool {
    TERMINATED.load(Ordering::Relaxed)
}
