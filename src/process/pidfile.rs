//! The pidfile: `-p`. Locked while the daemon lives, so that a second one is refused and a file
//! left behind by a crash is no obstacle. The lock counts, never the number in the file.
//!
//! The directory may be one that others can write to: no symbolic link is followed, and nothing is
//! written to a file that is not plainly a pidfile of ours.

use std::fs::{File, Metadata, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Failure;
use crate::sys;

/// A pidfile that is ours. Dropping it removes it.
#[derive(Debug)]
pub struct PidFile {
    /// Absolute, as the daemon may have changed its directory.
    path: PathBuf,
    /// Holds the lock. Must be the only descriptor that we ever open of this file: closing any
    /// other would drop the lock.
    file: File,
    /// The daemon; a child that it forks must not remove the file.
    pid: u32,
}

impl PidFile {
    /// Makes, locks and writes it. `run_as` is the user that we shall switch to: a file left by an
    /// earlier start under that user is acceptable too.
    pub fn create(path: &Path, run_as: Option<u32>) -> Result<PidFile, Failure> {
        let fail = |why: String| Failure(format!("pidfile {}: {why}", path.display()));
        let absolute = std::path::absolute(path).map_err(|error| fail(error.to_string()))?;
        // Again when the former owner removes it between our open and our lock.
        for _ in 0..10 {
            let file = open(&absolute).map_err(&fail)?;
            let locked = sys::lock_file(file.as_fd());
            match locked.map_err(|error| fail(format!("cannot lock it: {error}")))? {
                sys::Lock::Ours => {}
                sys::Lock::HeldBy(pid) => {
                    let owner = owner(pid, &file);
                    return Err(fail(format!("already running as process {owner}")));
                }
            }
            let metadata = file.metadata().map_err(|error| fail(error.to_string()))?;
            if !is_at(&absolute, &metadata) {
                continue;
            }
            check(&metadata, run_as).map_err(&fail)?;
            let pid = std::process::id();
            let written = file.set_len(0);
            written
                .and_then(|()| file.write_all_at(format!("{pid}\n").as_bytes(), 0))
                .map_err(|error| fail(format!("cannot write it: {error}")))?;
            return Ok(PidFile {
                path: absolute,
                file,
                pid,
            });
        }
        Err(fail("it keeps being replaced by others".to_string()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if std::process::id() != self.pid {
            return;
        }
        let ours = self
            .file
            .metadata()
            .is_ok_and(|metadata| is_at(&self.path, &metadata));
        // As another user we may not be allowed to remove it; an empty file misleads nobody.
        if ours && std::fs::remove_file(&self.path).is_err() {
            let _ = self.file.set_len(0);
        }
    }
}

fn open(path: &Path) -> Result<File, String> {
    // O_NONBLOCK: a FIFO put in its place must not make us wait.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .mode(0o644)
        .custom_flags(flags);
    options
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP) => "it is a symbolic link; remove it".to_string(),
            _ => format!("cannot open it: {error}"),
        })
}

/// Whether the path still leads to this file.
fn is_at(path: &Path, file: &Metadata) -> bool {
    let there = std::fs::symlink_metadata(path);
    there.is_ok_and(|there| (there.dev(), there.ino()) == (file.dev(), file.ino()))
}

/// A file of somebody else, or one with a second name, is not overwritten.
fn check(file: &Metadata, run_as: Option<u32>) -> Result<(), String> {
    if !file.is_file() {
        return Err("it is not a regular file".to_string());
    }
    if file.nlink() != 1 {
        return Err("it has other names (hard links); remove it".to_string());
    }
    if ![Some(0), Some(sys::effective_uid()), run_as].contains(&Some(file.uid())) {
        return Err(format!("it belongs to user id {}; remove it", file.uid()));
    }
    Ok(())
}

/// The system tells who holds a lock, but not across pid namespaces; then the file may.
fn owner(pid: i32, file: &File) -> String {
    if pid > 0 {
        return pid.to_string();
    }
    let mut text = [0; 16];
    let length = file.read_at(&mut text, 0).unwrap_or(0);
    let digits = String::from_utf8_lossy(&text[..length]);
    match digits.trim().parse::<u32>() {
        Ok(pid) => pid.to_string(),
        Err(_) => "(unknown)".to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let name = format!("statsd-pidfile-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Dir(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("statsd.pid")
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn refusal(path: &Path) -> String {
        PidFile::create(path, None).unwrap_err().to_string()
    }

    #[test]
    fn a_stale_file_is_no_obstacle_and_goes_at_the_end() {
        let dir = Dir::new("stale");
        fs::write(dir.file(), "1\nlonger than what we write\n").unwrap();
        let pidfile = PidFile::create(&dir.file(), None).unwrap();
        let text = fs::read_to_string(dir.file()).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
        drop(pidfile);
        assert!(!dir.file().exists());
    }

    #[test]
    fn what_is_not_plainly_ours_is_left_alone() {
        let dir = Dir::new("hostile");
        let precious = dir.0.join("precious");
        fs::write(&precious, "text").unwrap();

        std::os::unix::fs::symlink(&precious, dir.file()).unwrap();
        assert!(refusal(&dir.file()).contains("symbolic link"));
        fs::remove_file(dir.file()).unwrap();

        fs::hard_link(&precious, dir.file()).unwrap();
        assert!(refusal(&dir.file()).contains("hard links"));
        fs::remove_file(dir.file()).unwrap();

        fs::create_dir(dir.file()).unwrap();
        assert!(refusal(&dir.file()).contains("cannot open it"));
        fs::remove_dir(dir.file()).unwrap();

        assert!(refusal(Path::new("/dev/null")).contains("not a regular file"));
        assert!(refusal(&dir.0.join("missing/statsd.pid")).contains("No such file"));
        assert_eq!(fs::read_to_string(&precious).unwrap(), "text");
    }

    #[test]
    fn a_file_of_another_user_is_accepted_from_the_one_we_become_alone() {
        if sys::effective_uid() != 0 {
            eprintln!("skipped: only root can give a file away");
            return;
        }
        let dir = Dir::new("owner");
        fs::write(dir.file(), "").unwrap();
        std::os::unix::fs::chown(dir.file(), Some(12345), None).unwrap();
        assert!(refusal(&dir.file()).contains("user id 12345"));
        assert!(PidFile::create(&dir.file(), Some(12345)).is_ok());
    }

    #[test]
    fn a_file_that_took_our_place_is_not_removed() {
        let dir = Dir::new("replaced");
        let pidfile = PidFile::create(&dir.file(), None).unwrap();
        fs::remove_file(dir.file()).unwrap();
        fs::write(dir.file(), "another").unwrap();
        drop(pidfile);
        assert_eq!(fs::read_to_string(dir.file()).unwrap(), "another");
    }

    #[test]
    fn a_forked_child_does_not_remove_it() {
        let dir = Dir::new("fork");
        let mut pidfile = PidFile::create(&dir.file(), None).unwrap();
        pidfile.pid += 1; // as if we were another process
        drop(pidfile);
        assert!(dir.file().exists());
    }
}
