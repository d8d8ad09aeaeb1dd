//! Faults that no network and no disk makes on demand: clocks that step, and system calls that fail. A
//! library (`faults.c`, built here with the C compiler that links the programs) stands between the daemon
//! and the C library, and does what the test says while the daemon runs.
//!
//! It is in the process that is started and those that it forks. In programs that this starts it is only
//! where the daemon is not root's, which takes LD_PRELOAD out of its environment.
#![allow(dead_code)]

use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A call that can fail, in the order of faults.c.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Poll,
    Recvmmsg,
    Recv,
    Accept,
    /// But not to syslogd.
    Connect,
    Send,
    Sendmsg,
    Sendmmsg,
    /// To a regular file.
    Write,
    Fsync,
    Rename,
    /// Opening /dev/null.
    OpenNull,
    /// Asking what time it is.
    Clock,
}

/// How many there are.
const CALLS: u64 = 13;

/// Until [`Faults::heal`].
pub const ALWAYS: i32 = -1;

/// See the module.
pub struct Faults {
    control: File,
    path: PathBuf,
    library: PathBuf,
    /// Milliseconds that the daemon's clocks are ahead of ours.
    wall: AtomicI64,
    monotonic: AtomicI64,
}

impl Faults {
    /// Builds the library in this directory; nothing fails yet.
    #[track_caller]
    pub fn new(directory: &Path) -> Faults {
        let (library, path) = (directory.join("faults.so"), directory.join("faults"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/faults.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(&library)
            .args([source, "-ldl"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "cc cannot build {source}: {said}");
        let mut options = File::options();
        let control = options.read(true).write(true).create_new(true).open(&path);
        let control = control.unwrap();
        control.set_len(16 + 16 * CALLS).unwrap();
        // For a daemon of another user too.
        control
            .set_permissions(Permissions::from_mode(0o666))
            .unwrap();
        Faults {
            control,
            path,
            library,
            wall: AtomicI64::new(0),
            monotonic: AtomicI64::new(0),
        }
    }

    /// Has a program start with it.
    pub fn with(&self, mut command: Command) -> Command {
        command.env("LD_PRELOAD", &self.library);
        command.env("FAULTS", &self.path);
        command
    }

    /// Steps the wall clock.
    pub fn step_wall(&self, seconds: i64) {
        let ahead = self.wall.fetch_add(seconds * 1000, Ordering::Relaxed) + seconds * 1000;
        self.set(0, &(ahead * 1_000_000).to_ne_bytes());
    }

    /// Has this much time go by, on both clocks.
    pub fn pass(&self, time: Duration) {
        let ms = i64::try_from(time.as_millis()).unwrap();
        for (offset, clock) in [(0, &self.wall), (8, &self.monotonic)] {
            let ahead = clock.fetch_add(ms, Ordering::Relaxed) + ms;
            self.set(offset, &(ahead * 1_000_000).to_ne_bytes());
        }
    }

    /// What the daemon's wall clock shows, in milliseconds since 1970.
    pub fn wall_ms(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        i64::try_from(now.as_millis()).unwrap() + self.wall.load(Ordering::Relaxed)
    }

    /// The next so many of these calls fail with this error, or all of them ([`ALWAYS`]).
    pub fn fail(&self, call: Call, errno: i32, times: i32) {
        let slot = [errno.to_ne_bytes(), times.to_ne_bytes()].concat();
        self.set(16 + 16 * call as u64, &slot);
    }

    /// It fails no more.
    pub fn heal(&self, call: Call) {
        self.fail(call, 0, 0);
    }

    /// How often it has failed since the start.
    pub fn failed(&self, call: Call) -> u64 {
        let mut count = [0; 8];
        let offset = 16 + 16 * call as u64 + 8;
        self.control.read_exact_at(&mut count, offset).unwrap();
        u64::from_ne_bytes(count)
    }

    fn set(&self, offset: u64, bytes: &[u8]) {
        self.control.write_all_at(bytes, offset).unwrap();
    }
}
