//! Signals as a descriptor in the poll set, and as flags for what has arrived since the last look.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::SigId;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::{pipe, unregister};

/// What has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalSet {
    /// SIGTERM or SIGINT: the last flush, then the end.
    pub terminate: bool,
    /// SIGHUP: read the config again.
    pub reload: bool,
    /// SIGCHLD: a child has ended.
    pub child: bool,
}

/// The handlers, while it lives. A forked child must drop it and make its own, as both would read
/// the same descriptor.
#[derive(Debug)]
pub struct Signals {
    wake: UnixStream,
    terminate: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    child: Arc<AtomicBool>,
    registered: Vec<SigId>,
}

impl Signals {
    /// Takes over SIGTERM, SIGINT, SIGHUP and SIGCHLD.
    pub fn new() -> io::Result<Signals> {
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let mut signals = Signals {
            wake,
            terminate: Arc::default(),
            reload: Arc::default(),
            child: Arc::default(),
            registered: Vec::new(),
        };
        for (signal, flag) in [
            (SIGTERM, &signals.terminate),
            (SIGINT, &signals.terminate),
            (SIGHUP, &signals.reload),
            (SIGCHLD, &signals.child),
        ] {
            // They run in this order: whoever is woken finds the flag set.
            let flag = signal_hook::flag::register(signal, Arc::clone(flag))?;
            signals.registered.push(flag);
            signals
                .registered
                .push(pipe::register(signal, waker.try_clone()?)?);
        }
        Ok(signals)
    }

    /// To poll for POLLIN.
    pub fn fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }

    /// What has arrived since the last call.
    pub fn take(&mut self) -> SignalSet {
        // First the bytes and then the flags: a signal in between wakes us once more for nothing,
        // the other way round it would be lost.
        let mut bytes = [0; 64];
        while matches!(self.wake.read(&mut bytes), Ok(count) if count > 0) {}
        SignalSet {
            terminate: self.terminate.swap(false, Ordering::SeqCst),
            reload: self.reload.swap(false, Ordering::SeqCst),
            child: self.child.swap(false, Ordering::SeqCst),
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            unregister(id);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use signal_hook::low_level::raise;
    use std::mem::MaybeUninit;

    #[test]
    fn signals_wake_and_are_told_once() {
        let mut signals = Signals::new().unwrap();
        let nothing = SignalSet::default();
        // Other tests of this process start children, so SIGCHLD may come at any time.
        let take = |signals: &mut Signals| SignalSet {
            child: false,
            ..signals.take()
        };
        assert_eq!(take(&mut signals), nothing);
        for (signal, expected) in [
            (
                SIGTERM,
                SignalSet {
                    terminate: true,
                    ..nothing
                },
            ),
            (
                SIGINT,
                SignalSet {
                    terminate: true,
                    ..nothing
                },
            ),
            (
                SIGHUP,
                SignalSet {
                    reload: true,
                    ..nothing
                },
            ),
        ] {
            raise(signal).unwrap();
            let mut byte = [MaybeUninit::uninit(); 1];
            let woken = socket2::SockRef::from(&signals.wake).peek(&mut byte);
            assert_eq!(woken.unwrap(), 1, "not woken");
            assert_eq!(take(&mut signals), expected);
            assert_eq!(take(&mut signals), nothing);
        }
        raise(SIGCHLD).unwrap();
        assert!(signals.take().child);
    }
}
