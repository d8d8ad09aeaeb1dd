//! Putting a new version of a file in the place of the old one so that a crash or a power cut leaves one
//! of the two, whole: sync, rename, sync the directory.
//!
//! A sync can take seconds, so while the daemon runs it is done by a child, our own program started
//! with [`FLAG`], whose pipe is polled; nothing of it happens on the loop's own time.

use crate::process::child::Child;
use crate::sys;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::RawFd;
use std::path::Path;

/// The hidden first argument that makes our program replace the second path behind it by the first,
/// and print [`DONE`], or an error.
pub const FLAG: &str = "--replace";

const DONE: &[u8] = b"done";

/// A replacement under way.
pub struct Replacement {
    child: Child,
    answer: Vec<u8>,
}

/// Replaces `old` by `new`, which is beside it. May take long.
pub fn replace(new: &Path, old: &Path) -> io::Result<()> {
    File::open(new)?.sync_all()?;
    std::fs::rename(new, old)?;
    // What is left to do is to make the rename itself last. Not every file system can.
    if let Some(directory) = old.parent().and_then(|parent| File::open(parent).ok()) {
        let _ = directory.sync_all();
    }
    Ok(())
}

impl Replacement {
    /// Starts it.
    pub fn start(new: &Path, old: &Path) -> io::Result<Replacement> {
        let child = Child::spawn_self(&[OsStr::new(FLAG), new.as_os_str(), old.as_os_str()])?;
        Ok(Replacement {
            child,
            answer: Vec::new(),
        })
    }

    /// To poll for POLLIN.
    pub fn fd(&self) -> RawFd {
        self.child.fd()
    }

    /// How it went, once it is over.
    pub fn turn(&mut self) -> Option<io::Result<()>> {
        let mut buffer = [0; 256];
        loop {
            match self.child.read(&mut buffer) {
                Ok(0) if self.answer == DONE => return Some(Ok(())),
                Ok(0) => return Some(Err(self.failure())),
                Ok(length) => self.answer.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn failure(&self) -> io::Error {
        if self.answer.is_empty() {
            return io::Error::other("the child that replaces it was killed");
        }
        io::Error::other(String::from_utf8_lossy(&self.answer).into_owned())
    }

    /// Ends it and waits until it is gone: afterwards it renames nothing any more.
    pub fn cancel(self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        drop(self);
        // It fails if the child has been reaped meanwhile, which is as good.
        let _ = pid.map(sys::wait_for);
    }
}

/// What the child does: called first thing in `main`; `true` when that was all there was to do.
pub fn run_child(arguments: &[OsString]) -> bool {
    let [flag, new, old] = arguments else {
        return false;
    };
    if flag != FLAG {
        return false;
    }
    let outcome = replace(Path::new(new), Path::new(old));
    let mut out = io::stdout();
    // If the parent went away there is nobody left to tell.
    let _ = match outcome {
        Ok(()) => out.write_all(DONE),
        Err(error) => write!(out, "{error}"),
    };
    true
}
