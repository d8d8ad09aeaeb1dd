//! `stateFile`: what would be forgotten over a restart, and is not delivered by the last flush. That is
//! gauges, and flushes that Graphite has not taken yet.
//!
//! It is written at the end, and every minute in slices between polls, beside the old one
//! (`FILE.new`), which it replaces when it is complete ([`crate::process::replace`]). It is read once, as
//! the user who stays, before the first packet; one that is damaged is set aside as `FILE.damaged`.

mod format;

use crate::backend::{Backend, Place};
use crate::config::Config;
use crate::event_loop::{Now, PollSet, Token};
use crate::log;
use crate::process::replace::{self, Replacement};
use crate::store::{Kind, Store};
use crate::sys;
use format::{Damage, Record, Writer};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often it is written.
const EVERY: Duration = Duration::from_secs(60);

/// A slice ends after so many gauges, or bytes: some 0.3 ms, most of it the checksum.
const SLICE_GAUGES: u32 = 4096;
const SLICE_BYTES: usize = 128 * 1024;

/// See the module.
pub struct StateFile {
    path: PathBuf,
    max_age: Duration,
    step: Step,
    next: Instant,
    failing: log::Latch,
}

enum Step {
    Idle,
    Writing(Walk),
    Replacing(Replacement, Token),
}

/// A file being written.
struct Walk {
    file: File,
    writer: Writer,
    stage: Stage,
    /// Bytes of pieces in it.
    pieces: usize,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The gauge in this slot.
    Gauges(u32),
    /// Of this backend, the piece behind this one.
    Pieces(usize, Option<Place>),
    Over,
}

impl StateFile {
    /// `None` when it is off.
    pub fn new(config: &Config, now: Now) -> Option<StateFile> {
        Some(StateFile {
            path: config.state_file.clone()?,
            max_age: config.state_max_age,
            step: Step::Idle,
            next: now.mono,
            failing: log::Latch::new(),
        })
    }

    /// Takes new settings from a reload; what is being written to the old place is given up.
    pub fn configure(old: &mut Option<StateFile>, config: &Config, now: Now) {
        match old {
            Some(file) if Some(&file.path) == config.state_file.as_ref() => {
                file.max_age = config.state_max_age;
            }
            _ => *old = StateFile::new(config, now),
        }
    }

    /// Reads what was kept.
    pub fn restore(&self, store: &mut Store, backends: &mut [Box<dyn Backend>], now: Now) {
        let path = self.path.display();
        let file = match open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return log::info!("no state file {path} yet");
            }
            Err(error) => return log::error!("cannot read the state file {path}: {error}"),
        };
        let saved = match format::read(BufReader::new(&file), &mut |_| {}) {
            Ok(saved) => saved,
            Err(Damage::Unreadable(error)) => {
                return log::error!("cannot read the state file {path}: {error}");
            }
            Err(damage) => return self.set_aside(&damage),
        };
        // A clock that was set back meanwhile makes it no older.
        let age = Duration::from_secs(now.seconds().saturating_sub(saved));
        if age >= self.max_age {
            return log::notice!(
                "the state file {path} is {} s old, more than stateMaxAge; not read",
                age.as_secs()
            );
        }
        if let Err(damage) = self.take_back(&file, store, backends) {
            // It was good a moment ago. What was read so far is no worse for it.
            log::error!("the state file {path} changed while it was read: {damage}");
        }
    }

    fn take_back(
        &self,
        mut file: &File,
        store: &mut Store,
        backends: &mut [Box<dyn Backend>],
    ) -> Result<(), Damage> {
        file.rewind()?;
        let (mut gauges, mut kept, mut unused) = (0u64, 0, 0);
        let refused = store.refused().names;
        let outcome = format::read(BufReader::new(file), &mut |record| match record {
            Record::Gauge { name, value, idle } => {
                store.restore_gauge(name, value, idle);
                gauges += 1;
            }
            Record::Piece(piece) => {
                let taken = backends.iter_mut().any(|backend| backend.take_back(&piece));
                *if taken { &mut kept } else { &mut unused } += piece.bytes.len();
            }
        });
        let refused = store.refused().names - refused;
        log::notice!(
            "from the state file {}: {} gauges, {kept} undelivered bytes",
            self.path.display(),
            gauges - refused
        );
        if refused > 0 {
            log::warning!("{refused} gauges of the state file are over maxNames");
        }
        if unused > 0 {
            log::warning!("{unused} undelivered bytes in the state file have nowhere to go now");
        }
        outcome.map(drop)
    }

    fn set_aside(&self, damage: &Damage) {
        let aside = beside(&self.path, "damaged");
        match fs::rename(&self.path, &aside) {
            Ok(()) => log::error!(
                "the state file {} is damaged: {damage}; set aside as {}",
                self.path.display(),
                aside.display()
            ),
            Err(error) => log::error!(
                "the state file {} is damaged: {damage}; it cannot be set aside: {error}",
                self.path.display()
            ),
        }
    }

    /// Says what to wait for.
    pub fn register(&mut self, poll: &mut PollSet) {
        match &mut self.step {
            Step::Idle => poll.wake_at(self.next),
            Step::Writing(_) => poll.wake_at(Instant::now()),
            Step::Replacing(replacement, token) => *token = poll.reads(replacement.fd()),
        }
    }

    /// Moves the minute's file on by one slice.
    pub fn turn(&mut self, store: &Store, backends: &[Box<dyn Backend>], poll: &PollSet, now: Now) {
        match self.step(store, backends, poll, now) {
            Ok(Some(step)) => self.step = step,
            Ok(None) => {}
            Err(error) => {
                self.step = Step::Idle;
                self.report(Err(error));
            }
        }
    }

    /// The next step, if it is another one.
    fn step(
        &mut self,
        store: &Store,
        backends: &[Box<dyn Backend>],
        poll: &PollSet,
        now: Now,
    ) -> io::Result<Option<Step>> {
        match &mut self.step {
            Step::Idle if now.mono < self.next => Ok(None),
            Step::Idle => {
                self.next = now.mono + EVERY;
                Walk::begin(&self.path, now).map(|walk| Some(Step::Writing(walk)))
            }
            Step::Writing(walk) => {
                if !walk.slice(store, backends)? {
                    return Ok(None);
                }
                let replacement = Replacement::start(&beside(&self.path, "new"), &self.path)?;
                Ok(Some(Step::Replacing(replacement, Token::default())))
            }
            Step::Replacing(replacement, token) => {
                if !poll.is_ready(*token) {
                    return Ok(None);
                }
                let Some(outcome) = replacement.turn() else {
                    return Ok(None);
                };
                outcome?;
                self.report(Ok(()));
                Ok(Some(Step::Idle))
            }
        }
    }

    /// At the end: all at once. Gives the bytes of undelivered output that are safe now.
    pub fn save(&mut self, store: &Store, backends: &[Box<dyn Backend>], now: Now) -> usize {
        if let Step::Replacing(replacement, _) = std::mem::replace(&mut self.step, Step::Idle) {
            replacement.cancel();
        }
        let saved = self.save_now(store, backends, now);
        let bytes = *saved.as_ref().unwrap_or(&0);
        self.report(saved.map(drop));
        bytes
    }

    fn save_now(
        &self,
        store: &Store,
        backends: &[Box<dyn Backend>],
        now: Now,
    ) -> io::Result<usize> {
        let mut walk = Walk::begin(&self.path, now)?;
        while !walk.slice(store, backends)? {}
        replace::replace(&beside(&self.path, "new"), &self.path)?;
        Ok(walk.pieces)
    }

    fn report(&mut self, outcome: io::Result<()>) {
        let path = self.path.display();
        match (self.failing.set(outcome.is_err()), outcome) {
            (true, Err(error)) => log::error!("cannot write the state file {path}: {error}"),
            (true, Ok(())) => log::notice!("writing the state file {path} again"),
            (false, _) => {}
        }
    }
}

impl Walk {
    fn begin(path: &Path, now: Now) -> io::Result<Walk> {
        let new = beside(path, "new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Made anew, it is nobody else's: not a link that leads elsewhere, nor a file that others read.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(new)?;
        Ok(Walk {
            file,
            writer: Writer::new(now.seconds()),
            stage: Stage::Gauges(0),
            pieces: 0,
        })
    }

    /// Writes one slice; `true` when the file is complete.
    fn slice(&mut self, store: &Store, backends: &[Box<dyn Backend>]) -> io::Result<bool> {
        let mut gauges = 0;
        while gauges < SLICE_GAUGES && self.writer.out.len() < SLICE_BYTES {
            match self.stage {
                Stage::Gauges(id) if id < store.slot_count(Kind::Gauge) => {
                    if let Some((name, value, idle)) = store.gauge(id) {
                        self.writer.record(Record::Gauge { name, value, idle });
                    }
                    gauges += 1;
                    self.stage = Stage::Gauges(id + 1);
                }
                Stage::Gauges(_) => self.stage = Stage::Pieces(0, None),
                Stage::Pieces(index, after) => match backends.get(index) {
                    None => {
                        self.writer.end();
                        self.stage = Stage::Over;
                        break;
                    }
                    Some(backend) => match backend.piece(after) {
                        None => self.stage = Stage::Pieces(index + 1, None),
                        Some((place, piece)) => {
                            self.writer.record(Record::Piece(piece));
                            self.pieces += piece.bytes.len();
                            self.stage = Stage::Pieces(index, Some(place));
                        }
                    },
                },
                Stage::Over => break,
            }
        }
        self.file.write_all(&self.writer.take())?;
        Ok(self.stage == Stage::Over)
    }
}

/// The file, if it is one that we may believe: no link, no pipe, nobody else's.
fn open(path: &Path) -> io::Result<File> {
    // O_NONBLOCK: a FIFO put in its place must not make us wait.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if ![0, sys::effective_uid()].contains(&metadata.uid()) {
        let owner = metadata.uid();
        return Err(io::Error::other(format!("it belongs to user id {owner}")));
    }
    Ok(file)
}

/// The path with something behind its name.
fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests;
