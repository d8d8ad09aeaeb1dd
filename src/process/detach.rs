//! Going into the background: `-d`. The starter waits for the outcome and exits with it, so that
//! an init script sees a failed bind in the exit status, and its reason on the terminal.
//!
//! The standard streams stay what they were until the daemon is ready; paths that are relative
//! must be made absolute before, as the daemon works in `/`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use crate::{stdout, sys};

/// Said by a starter whose daemon ended without a word: exit code "cannot start".
const DIED: u8 = 3;

/// Which process this is after [`Detach::start`].
#[derive(Debug)]
pub enum Detach {
    /// The one that was started. All that is left to do is to exit with this code.
    Starter(u8),
    /// The daemon, without a terminal. It must tell the outcome.
    Daemon(Ready),
}

/// The way to tell the starter how it went. Dropped without a word it means failure.
#[derive(Debug)]
pub struct Ready {
    pipe: File,
}

impl Detach {
    /// Splits into starter and daemon. Returns in the starter once the daemon has told the outcome.
    /// To be called before anything is opened, locked or bound.
    pub fn start() -> io::Result<Detach> {
        let (read, write) = sys::pipe()?;
        if let sys::Fork::Parent(pid) = sys::fork()? {
            drop(write);
            // The one in the middle; it ends at once.
            let _ = sys::wait_for(pid);
            return Ok(Detach::Starter(outcome(File::from(read))));
        }
        drop(read);
        let mut ready = Ready {
            pipe: File::from(write),
        };
        // A session of our own has no terminal; as we do not lead it, we never get one either.
        match sys::setsid().and_then(|()| sys::fork()) {
            Ok(sys::Fork::Child) => {}
            Ok(sys::Fork::Parent(_)) => sys::exit_now(0),
            Err(error) => {
                let _ = writeln!(io::stderr(), "cannot detach: {error}");
                ready.tell(DIED);
                sys::exit_now(DIED);
            }
        }
        // Not to keep a file system from being unmounted. It can fail only where / is not ours.
        let _ = std::env::set_current_dir("/");
        sys::umask(0o022);
        Ok(Detach::Daemon(ready))
    }
}

impl Ready {
    /// Tells the starter to exit with this code. 0 means ready: the daemon lets go of the standard
    /// streams first, so that whoever reads them to their end does not wait for us.
    pub fn notify(mut self, code: u8) {
        if code == 0 {
            if let Ok(nothing) = nothing() {
                for stream in 0..=2 {
                    // Both are open, so it can hardly fail; and the daemon is up in any case.
                    let _ = sys::redirect_standard_stream(nothing.as_fd(), stream);
                }
            }
            stdout::reopen();
        }
        self.tell(code);
    }

    fn tell(&mut self, code: u8) {
        // A starter that was killed does not hear it, which harms nobody.
        let _ = self.pipe.write_all(&[code]);
    }
}

/// /dev/null; where there is none, a pipe that nobody reads.
fn nothing() -> io::Result<OwnedFd> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    null.map(OwnedFd::from)
        .or_else(|_| sys::pipe().map(|(_, write)| write))
}

fn outcome(mut pipe: File) -> u8 {
    let mut code = [0];
    match pipe.read_exact(&mut code) {
        Ok(()) => code[0],
        Err(_) => {
            let _ = writeln!(io::stderr(), "the daemon ended before it was ready");
            DIED
        }
    }
}
