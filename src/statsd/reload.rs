//! Noticing that the config file has changed.
//!
//! The file is looked at once a second; when it has changed and then stayed as it is for another second it is
//! read. So a file that is being written, or replaced by rename, is read once and whole, and one that is
//! gone for a while is no matter.

use crate::event_loop::Now;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub struct Watch {
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
    pub fn new(path: &Path, now: Now) -> Watch {
        Watch {
            path: path.to_path_buf(),
            seen: mark(path),
            changed: None,
            next: now.mono + EVERY,
        }
    }

    /// When it looks next.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// The file is about to be read: its present state is no change.
    pub fn reading(&mut self) {
        self.seen = mark(&self.path);
        self.changed = None;
    }

    /// Whether the file has changed and settled.
    pub fn turn(&mut self, now: Now) -> bool {
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
