//! Reading the config file again: when it has changed, and on SIGHUP.
//!
//! The file is looked at once a second; when it has changed and then stayed as it is for another second it is
//! read. So a file that is being written, or replaced by rename, is read once and whole, and one that is
//! gone for a while is no matter. A broken file is logged and changes nothing. What is no regular file any
//! more is not read: the program would wait for whoever writes to a pipe.

use crate::event_loop::{Now, PollSet};
use crate::log;
use crate::process::notify::Notifier;
use crate::startup::{Program, Surroundings};
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(1);

/// How a program comes by a new config.
pub struct Reloader {
    file: Option<PathBuf>,
    directory: PathBuf,
    /// `--verbose`.
    verbose: bool,
    notifier: Notifier,
    watch: Option<Watch>,
}

impl Reloader {
    /// Knows what the program was started with.
    pub fn new(surroundings: &Surroundings, now: Now) -> Reloader {
        Reloader {
            file: surroundings.config.clone(),
            directory: surroundings.directory.clone(),
            verbose: surroundings.verbose,
            notifier: surroundings.notifier.clone(),
            watch: surroundings
                .config
                .as_deref()
                .map(|path| Watch::new(path, now)),
        }
    }

    /// The same for a child, which reads the file when its parent says so.
    pub fn of_child(&self) -> Reloader {
        Reloader {
            file: self.file.clone(),
            directory: self.directory.clone(),
            verbose: self.verbose,
            notifier: Notifier::default(),
            watch: None,
        }
    }

    /// Says when to look at the file (`automaticConfigReload`).
    pub fn register(&self, poll: &mut PollSet) {
        if let Some(watch) = &self.watch {
            poll.wake_at(watch.next);
        }
    }

    /// Whether the file has changed and settled.
    pub fn turn(&mut self, now: Now) -> bool {
        self.watch.as_mut().is_some_and(|watch| watch.turn(now))
    }

    /// Reads the file; `None` when the config in use stays.
    pub fn read<P: Program>(&mut self, current: &P::Config) -> Option<P::Config> {
        let Some(path) = self.file.clone() else {
            log::notice!("nothing to reload: started without a config file");
            return None;
        };
        // A service manager that does not listen is no reason not to.
        let _ = self.notifier.reloading();
        if let Some(watch) = &mut self.watch {
            watch.reading();
        }
        let config = self.load::<P>(&path, current);
        let _ = self.notifier.ready("reloaded");
        config
    }

    fn load<P: Program>(&self, path: &Path, current: &P::Config) -> Option<P::Config> {
        let loaded = match P::load(Some(path), open, &self.directory) {
            Ok(loaded) => loaded,
            Err(error) => {
                for line in error.to_string().lines() {
                    log::error!("{line}");
                }
                log::error!("the config is not reloaded; the one in use stays");
                return None;
            }
        };
        loaded
            .warnings
            .iter()
            .for_each(|warning| log::warning!("{warning}"));
        let mut config = loaded.config;
        P::common(&mut config).debug |= self.verbose;
        let restart = P::needs_restart(current, &config);
        if !restart.is_empty() {
            let keys = restart.join(", ");
            log::warning!("a restart is needed for the changes of {keys}");
        }
        log::notice!("reloaded {}", path.display());
        Some(config)
    }
}

/// Notices that a file has changed.
struct Watch {
    path: PathBuf,
    seen: Option<Mark>,
    /// What it has changed to, if it has.
    changed: Option<Mark>,
    next: Instant,
}

/// Tells one state of a file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Watch {
    /// Watches from the file's present state on.
    fn new(path: &Path, now: Now) -> Watch {
        Watch {
            path: path.to_path_buf(),
            seen: mark(path),
            changed: None,
            next: now.mono + EVERY,
        }
    }

    /// The file is about to be read: its present state is no change.
    fn reading(&mut self) {
        self.seen = mark(&self.path);
        self.changed = None;
    }

    /// Whether the file has changed and settled.
    fn turn(&mut self, now: Now) -> bool {
        if now.mono < self.next {
            return false;
        }
        self.next = now.mono + EVERY;
        let Some(present) = mark(&self.path) else {
            return false;
        };
        if Some(present) == self.seen {
            self.changed = None;
            return false;
        }
        self.changed.replace(present) == Some(present)
    }
}

/// Opens a regular file, and never waits.
fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        let why = "it is not a regular file, and a reload takes no other";
        return Err(io::Error::other(why));
    }
    Ok(file)
}

fn mark(path: &Path) -> Option<Mark> {
    let file = std::fs::metadata(path).ok()?;
    Some(Mark {
        device: file.dev(),
        inode: file.ino(),
        size: file.size(),
        modified: (file.mtime(), file.mtime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_when_it_has_settled() {
        let file = std::env::temp_dir().join(format!("statsd-watch-{}", std::process::id()));
        std::fs::write(&file, "{}").unwrap();
        let mut now = Now::read();
        let mut watch = Watch::new(&file, now);
        let mut turn = |watch: &mut Watch| {
            now.mono += EVERY;
            watch.turn(now)
        };
        assert!(!turn(&mut watch));
        std::fs::write(&file, "{ half").unwrap();
        assert!(!turn(&mut watch), "seen for the first time");
        std::fs::write(&file, "{ whole: 1 }").unwrap();
        assert!(!turn(&mut watch), "changed again");
        assert!(turn(&mut watch), "settled");
        watch.reading();
        assert!(!turn(&mut watch));
        std::fs::remove_file(&file).unwrap();
        assert!(!turn(&mut watch), "gone");
        std::fs::write(&file, "{ back: 1 }").unwrap();
        assert!(!turn(&mut watch));
        assert!(turn(&mut watch));
        std::fs::remove_file(&file).unwrap();
    }
}
