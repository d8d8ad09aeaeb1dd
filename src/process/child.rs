//! A child that is our own program: for work that may block, such as `getaddrinfo`. It writes its
//! answer to a pipe that the event loop polls, and is ended and reaped when it is dropped.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::sys;

/// Children that were told to end but had not yet, when they were dropped.
static ENDING: Mutex<Vec<std::process::Child>> = Mutex::new(Vec::new());

/// A running copy of our own program.
#[derive(Debug)]
pub struct Child {
    /// `None` once it has been handed to [`ENDING`].
    process: Option<std::process::Child>,
    output: ChildStdout,
}

impl Child {
    /// Starts our own program with these arguments, the first of which says what to do. Its
    /// standard output is the pipe; it has no input and no terminal. `/proc/self/exe` is the
    /// program that runs, even if a package upgrade has replaced the file meanwhile.
    pub fn spawn_self<A: AsRef<OsStr>>(arguments: &[A]) -> io::Result<Child> {
        reap();
        let mut process = Command::new("/proc/self/exe")
            .arg0(env!("CARGO_PKG_NAME"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let output = process.stdout.take();
        // Owned from here on, so that an early return does not leave it running.
        let Some(output) = output else {
            let _ = process.kill();
            lock().push(process);
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let child = Child {
            process: Some(process),
            output,
        };
        sys::set_nonblocking(child.output.as_fd(), true)?;
        Ok(child)
    }

    /// To poll for POLLIN.
    pub fn fd(&self) -> RawFd {
        self.output.as_raw_fd()
    }

    /// Its process id.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(std::process::Child::id)
    }

    /// What it has written: 0 bytes mean that it has ended, `WouldBlock` that there is no more yet.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.output.read(buffer)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        // It fails if the child is reaped, which is as good.
        let _ = process.kill();
        lock().push(process);
        reap();
    }
}

/// Takes leave of ended children, without waiting for others. For each SIGCHLD.
pub fn reap() {
    lock().retain_mut(|process| matches!(process.try_wait(), Ok(None)));
}

fn lock() -> std::sync::MutexGuard<'static, Vec<std::process::Child>> {
    ENDING.lock().unwrap_or_else(PoisonError::into_inner)
}
