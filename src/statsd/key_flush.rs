//! `keyFlush`: every so often, the most frequent names, to a file or standard output.
//!
//! ```text
//! Sat Nov 22 2026 09:31:05 GMT+0000 count=3 key=web.hits
//! ```

use crate::config;
use crate::event_loop::Now;
use crate::log::{self, Latch};
use crate::protocol;
use crate::stdout;
use crate::store::table::{MAX_NAME, Place, Table};
use memchr::memchr;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Instant;

/// Names counted in an interval, and bytes of them; more are not told apart.
const MAX_NAMES: usize = 100_000;
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of a message to standard output, up to the next line end.
const PIECE: usize = 32 * 1024;

/// See the module.
pub struct KeyFlush {
    config: config::KeyFlush,
    counts: Table<1>,
    next: Instant,
    name: Vec<u8>,
    failing: Latch,
}

impl KeyFlush {
    /// `None` when it is off.
    pub fn new(config: Option<&config::KeyFlush>, now: Now) -> Option<KeyFlush> {
        let config = config?.clone();
        let next = now.mono + config.interval;
        Some(KeyFlush {
            config,
            counts: Table::default(),
            next,
            name: Vec::new(),
            failing: Latch::new(),
        })
    }

    /// Its settings.
    pub fn config(&self) -> &config::KeyFlush {
        &self.config
    }

    /// When it is due.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Counts a line under the name of its bucket.
    pub fn count(&mut self, line: &[u8], sanitize: bool) {
        protocol::bucket(line, sanitize, &mut self.name);
        match self.counts.find(&self.name) {
            Some(place) => {
                let count = self.counts.word(place, 0);
                self.counts.set_word(place, 0, count + 1);
            }
            None if self.has_room() && self.name.len() <= MAX_NAME => {
                self.counts.insert(&self.name, 0, [1]);
            }
            None => {}
        }
    }

    fn has_room(&self) -> bool {
        self.counts.len() < MAX_NAMES && self.counts.name_bytes() < MAX_BYTES
    }

    /// Writes what is due.
    pub fn turn(&mut self, now: Now) {
        if now.mono < self.next {
            return;
        }
        self.next = now.mono + self.config.interval;
        let report = self.report(&log::date(now.seconds()));
        self.counts.clear(false);
        let Some(path) = &self.config.log else {
            return pieces(&report).for_each(stdout::write);
        };
        // One bounded write to a local file; a disk that is full says so at once. O_NONBLOCK: a FIFO
        // that nobody reads must not make us wait.
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path);
        let written = file.and_then(|mut file| file.write_all(report.as_bytes()));
        let failed = written.is_err();
        if report.is_empty() && !failed {
            // That nothing can be written says little about a disk.
            return;
        }
        if self.failing.set(failed) {
            match written {
                Err(error) => log::error!("keyFlush: cannot write {}: {error}", path.display()),
                Ok(()) => log::notice!("keyFlush: writing {} again", path.display()),
            }
        }
    }

    fn report(&self, date: &str) -> String {
        let places = (0..self.counts.slot_count()).filter_map(|slot| self.counts.place(slot));
        let mut names: Vec<(u64, Place)> = places
            .map(|place| (self.counts.word(place, 0), place))
            .collect();
        names.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        // The original goes on while the index is below this number, so it is rounded up.
        let shown = (names.len() as f64 * (self.config.percent / 100.0)).ceil() as usize;
        let mut out = String::new();
        for (count, place) in names.into_iter().take(shown) {
            let name = String::from_utf8_lossy(self.counts.name(place));
            out += &format!("{date} count={count} key={name}\n");
        }
        out
    }
}

/// Whole lines, some [`PIECE`] bytes of them at a time: standard output takes or drops a message as a
/// whole, and a long report as one message would never find room.
fn pieces(mut report: &str) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let bytes = report.as_bytes();
        let end = memchr(b'\n', bytes.get(PIECE..).unwrap_or(&[]));
        let length = end.map_or(bytes.len(), |end| PIECE + end + 1);
        report = &report[length..];
        (length > 0).then_some(&bytes[..length])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_long_report_goes_out_in_pieces() {
        let line = |n: usize| format!("line {n} \u{2026}\n");
        let report: String = (0..100_000).map(line).collect();
        assert!(report.len() > stdout::LIMIT);
        let found: Vec<&[u8]> = pieces(&report).collect();
        assert!(found.iter().all(|piece| piece.len() < PIECE + 50));
        assert!(found.iter().all(|piece| piece.ends_with(b"\n")));
        assert_eq!(found.concat(), report.as_bytes());
        assert_eq!(pieces("").count(), 0);
    }

    #[test]
    fn a_fifo_that_nobody_reads_does_not_block() {
        let path = std::env::temp_dir().join(format!("statsd-keys-{}", std::process::id()));
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let config = config::KeyFlush {
            interval: Duration::ZERO,
            percent: 100.0,
            log: Some(path.clone()),
        };
        let mut keys = KeyFlush::new(Some(&config), Now::read()).unwrap();
        keys.count(b"a:1|c", true);
        keys.turn(Now::read());
        assert!(keys.failing.is_on());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_most_frequent_names_first() {
        let config = config::KeyFlush {
            interval: Duration::from_secs(1),
            percent: 50.0,
            log: None,
        };
        let mut keys = KeyFlush::new(Some(&config), Now::read()).unwrap();
        for line in [
            "b:1|c",
            "fo/o:1|c|#k:v",
            "b:2|ms",
            "b",
            "c:1|c",
            "fo/o:1|g|#k:v",
        ] {
            keys.count(line.as_bytes(), true);
        }
        assert_eq!(
            keys.report("now"),
            "now count=3 key=b\nnow count=2 key=fo-o;k=v\n"
        );
    }
}
