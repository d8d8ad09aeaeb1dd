//! `keyFlush`: every so often, the most frequent names, to a file or standard output.
//!
//! ```text
//! Sat Nov 22 2026 09:31:05 GMT+0000 count=3 key=web.hits
//! ```
//!
//! At its time what was counted becomes a [`Report`], which goes out in slices between polls while
//! names are counted anew.

use crate::config;
use crate::event_loop::{Now, PollSet};
use crate::log::{self, Bytes, Latch};
use crate::protocol;
use crate::stdout;
use crate::store::table::{MAX_NAME, Table};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Names counted in an interval, and bytes of them; lines of more names are left out, and logged.
const MAX_NAMES: usize = 100_000;
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// A slice puts so many names in order, or makes so many bytes of lines, up to the next line end:
/// some 0.3 ms.
const ORDERED: u32 = 10_000;
const PIECE: usize = 32 * 1024;

/// See the module.
pub struct KeyFlush {
    config: config::KeyFlush,
    counts: Table<1>,
    /// Lines that were not counted.
    left_out: u64,
    next: Instant,
    name: Vec<u8>,
    report: Option<Report>,
    /// Of the report under way, or of the last one.
    output: Output,
    path: Option<PathBuf>,
    /// The last write failed, maybe in the midst of a line.
    cut: bool,
    over: Latch,
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
            left_out: 0,
            next,
            name: Vec::new(),
            report: None,
            output: Output::Stdout,
            path: None,
            cut: false,
            over: Latch::new(),
            failing: Latch::new(),
        })
    }

    /// Takes new settings from a reload; what is counted stays, and a report under way goes where it
    /// went.
    pub fn configure(old: &mut Option<KeyFlush>, config: Option<&config::KeyFlush>, now: Now) {
        match (old, config) {
            (Some(keys), Some(config)) if keys.config == *config => {}
            (Some(keys), Some(config)) => {
                keys.next = now.mono + config.interval;
                keys.config = config.clone();
            }
            (old, config) => *old = KeyFlush::new(config, now),
        }
    }

    /// When the next report is to begin; not before the one under way is through.
    pub fn next(&self) -> Option<Instant> {
        self.report.is_none().then_some(self.next)
    }

    /// Whether a report is under way.
    pub fn is_running(&self) -> bool {
        self.report.is_some()
    }

    /// Counts a line under the name of its bucket.
    pub fn count(&mut self, line: &[u8], sanitize: bool) {
        protocol::bucket(line, sanitize, &mut self.name);
        match self.counts.find(&self.name) {
            Some(place) => {
                let count = self.counts.word(place, 0);
                self.counts.change(place).set_word(0, count + 1);
            }
            None if self.has_room() && self.name.len() <= MAX_NAME => {
                self.counts.insert(&self.name, 0, [1]);
            }
            None => self.left_out += 1,
        }
    }

    fn has_room(&self) -> bool {
        self.counts.len() < MAX_NAMES && self.counts.name_bytes() < MAX_BYTES
    }

    /// Says when the report under way goes on.
    pub fn register(&self, poll: &mut PollSet) {
        if self.is_ready() {
            poll.wake_at(Instant::now());
        }
    }

    fn is_ready(&self) -> bool {
        let report = self.report.as_ref();
        report.is_some_and(|report| report.urgent || self.output.has_room())
    }

    /// Begins a report if one is due. Until the one before is through, counting goes on.
    pub fn begin(&mut self, now: Now) {
        if self.next().is_none_or(|next| now.mono < next) {
            return;
        }
        self.next = now.mono + self.config.interval;
        let left_out = std::mem::take(&mut self.left_out);
        if self.over.set(left_out > 0) {
            if left_out > 0 {
                log::warning!(
                    "keyFlush: more than {MAX_NAMES} names, or {MAX_BYTES} bytes of them; \
                     {left_out} lines of further names are not in its log (a shorter \
                     keyFlush.interval has fewer)"
                );
            } else {
                log::notice!("keyFlush: all names are in its log again");
            }
        }
        let counts = std::mem::take(&mut self.counts);
        self.cut &= self.path == self.config.log;
        self.path.clone_from(&self.config.log);
        match self.open() {
            Err(error) => self.told(Err(error)),
            // That nothing can be written says little about a disk.
            Ok(_) if counts.is_empty() => {}
            Ok(output) => {
                let date = log::date(now.seconds());
                self.output = output;
                self.report = Some(Report::new(counts, self.config.percent, date));
            }
        }
    }

    /// Opens what the report goes to, and ends a line that was cut.
    fn open(&mut self) -> io::Result<Output> {
        let mut output = Output::open(self.path.as_deref())?;
        if self.cut && !output.is_new() {
            output.write(b"\n")?;
        }
        self.cut = false;
        Ok(output)
    }

    /// The end: the report under way must not wait for a reader of standard output any more.
    pub fn hurry(&mut self) {
        if let Some(report) = &mut self.report {
            report.urgent = true;
        }
    }

    /// Moves the report under way on by a slice.
    pub fn slice(&mut self) {
        let ready = self.is_ready();
        let Some(report) = self.report.as_mut().filter(|_| ready) else {
            return;
        };
        let mut text = Vec::new();
        let more = report.slice(&mut text);
        let written = self.output.write(&text);
        if written.is_err() || !more {
            (self.report, self.output) = (None, Output::Stdout);
            self.cut = written.is_err();
            self.told(written);
        }
    }

    /// How writing went, for the log.
    fn told(&mut self, written: io::Result<()>) {
        let Some(path) = self.path.as_deref().map(Path::display) else {
            return;
        };
        if self.failing.set(written.is_err()) {
            match written {
                Err(error) => log::error!(
                    "keyFlush: cannot write {path}: {error}; names are not logged until it can be"
                ),
                Ok(()) => log::notice!("keyFlush: writing {path} again"),
            }
        }
    }
}

/// What was counted in an interval, on its way out.
struct Report {
    counts: Table<1>,
    date: String,
    urgent: bool,
    /// Names that are in order.
    ordered: u32,
    /// Of these, those that are left: the most frequent first, of equals the one that came first.
    left: BinaryHeap<(u64, Reverse<u32>)>,
    /// Lines to be written.
    lines: usize,
}

impl Report {
    fn new(counts: Table<1>, percent: f64, date: String) -> Report {
        let names = counts.len();
        Report {
            date,
            urgent: false,
            ordered: 0,
            left: BinaryHeap::with_capacity(names),
            // The original goes on while the index is below this number, so it is rounded up.
            lines: (names as f64 * (percent / 100.0)).ceil() as usize,
            counts,
        }
    }

    /// Orders some names, or appends some lines; `false` when that was all.
    fn slice(&mut self, out: &mut Vec<u8>) -> bool {
        let end = self.counts.slot_count().min(self.ordered + ORDERED);
        if self.ordered < end {
            let counts = &self.counts;
            let slots = (self.ordered..end).filter_map(|slot| Some((slot, counts.place(slot)?)));
            self.left
                .extend(slots.map(|(slot, place)| (counts.word(place, 0), Reverse(slot))));
            self.ordered = end;
            return true;
        }
        while self.lines > 0 && out.len() < PIECE {
            let Some((count, Reverse(slot))) = self.left.pop() else {
                break;
            };
            let place = self.counts.place(slot);
            let name = Bytes(place.map_or(b"", |place| self.counts.name(place)));
            // Writing to memory does not fail.
            let _ = writeln!(out, "{} count={count} key={name}", self.date);
            self.lines -= 1;
        }
        self.lines > 0
    }
}

/// Where a report goes.
enum Output {
    Stdout,
    File(File),
}

impl Output {
    fn open(path: Option<&Path>) -> io::Result<Output> {
        let Some(path) = path else {
            return Ok(Output::Stdout);
        };
        // O_NONBLOCK: a FIFO that nobody reads must not make us wait.
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        Ok(Output::File(file))
    }

    fn has_room(&self) -> bool {
        !matches!(self, Output::Stdout) || stdout::wants_write().is_none()
    }

    /// A file that has nothing in it yet.
    fn is_new(&self) -> bool {
        match self {
            Output::Stdout => false,
            Output::File(file) => file
                .metadata()
                .is_ok_and(|file| file.is_file() && file.len() == 0),
        }
    }

    /// Writes whole lines.
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match self {
            Output::Stdout => {
                stdout::write(text);
                Ok(())
            }
            // One bounded write to a local file; a disk that is full says so at once.
            Output::File(file) => file.write_all(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn keys(percent: f64, log: Option<&Path>) -> KeyFlush {
        let config = config::KeyFlush {
            interval: Duration::ZERO,
            percent,
            log: log.map(Path::to_path_buf),
        };
        KeyFlush::new(Some(&config), Now::read()).unwrap()
    }

    /// What is counted now as a report, and what comes of each of its slices.
    fn slices(keys: &mut KeyFlush) -> Vec<(u32, Vec<u8>)> {
        let counts = std::mem::take(&mut keys.counts);
        let mut report = Report::new(counts, keys.config.percent, "now".to_string());
        let mut slices = Vec::new();
        loop {
            let before = report.ordered;
            let mut text = Vec::new();
            let more = report.slice(&mut text);
            slices.push((report.ordered - before, text));
            if !more {
                return slices;
            }
        }
    }

    fn text(keys: &mut KeyFlush) -> String {
        let texts = slices(keys).into_iter().map(|(_, text)| text);
        String::from_utf8(texts.collect::<Vec<_>>().concat()).unwrap()
    }

    /// As many names as there may be, and long ones: each slice does little, and together they give
    /// what sorting everything at once would.
    #[test]
    fn a_large_report_goes_out_in_small_slices() {
        let mut keys = keys(75.0, None);
        let mut expected = Vec::new();
        for n in 0..MAX_NAMES {
            let name = format!("name.{n}.{}", "x".repeat(n * 7919 % 200));
            let count = 1 + n * 7907 % 5;
            (0..count).for_each(|_| keys.count(name.as_bytes(), true));
            expected.push((count, name));
        }
        keys.count(b"one.too.many", true);
        assert_eq!((keys.counts.len(), keys.left_out), (MAX_NAMES, 1));
        // Stable: names as frequent as each other stay in the order they came in, as in the original.
        expected.sort_by_key(|(count, _)| Reverse(*count));
        expected.truncate(MAX_NAMES * 3 / 4);
        let slices = slices(&mut keys);
        for (ordered, text) in &slices {
            assert!(*ordered <= ORDERED, "{ordered} names at a time");
            assert!(text.len() < PIECE + 300, "{} bytes at a time", text.len());
            assert!(*ordered == 0 || text.is_empty(), "both at a time");
            assert!(text.is_empty() || text.ends_with(b"\n"), "cut lines");
        }
        let found: Vec<u8> = slices.into_iter().flat_map(|(_, text)| text).collect();
        let line = |(count, name)| format!("now count={count} key={name}\n");
        let expected: String = expected.into_iter().map(line).collect();
        assert!(found == expected.as_bytes());
    }

    #[test]
    fn the_most_frequent_names_first() {
        let mut keys = keys(50.0, None);
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
            text(&mut keys),
            "now count=3 key=b\nnow count=2 key=fo-o;k=v\n"
        );
    }

    /// With `keyNameSanitize: false` a name can have any byte but a line end.
    #[test]
    fn a_line_is_one_line_whatever_the_name() {
        let mut keys = keys(100.0, None);
        keys.count(b"a b\r\x1b[2J\0\xff\xc2\x9b\xc3\xbc:1|c", false);
        let expected = "now count=1 key=a b\\r\\x1b[2J\\x00\\xff\\x9b\u{fc}\n";
        assert_eq!(text(&mut keys), expected);
    }

    /// What comes while a report is under way is in the next one, which waits for the one before.
    #[test]
    fn each_line_is_in_one_report() {
        let path = std::env::temp_dir().join(format!("statsd-report-{}", std::process::id()));
        let mut keys = keys(100.0, Some(&path));
        for n in 0..2000 {
            keys.count(format!("first.{n}:1|c").as_bytes(), true);
        }
        keys.begin(Now::read());
        let mut rounds = 0;
        while keys.is_running() {
            keys.count(b"second:1|c", true);
            keys.begin(Now::read());
            assert_eq!(keys.counts.len(), 1, "a second report under way");
            keys.slice();
            rounds += 1;
        }
        assert!(rounds > 3, "{rounds} rounds");
        keys.begin(Now::read());
        while keys.is_running() {
            keys.slice();
        }
        let found = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(found.lines().count(), 2001);
        let last = found.lines().last().unwrap();
        assert!(
            last.ends_with(&format!(" count={rounds} key=second")),
            "{last}"
        );
    }

    #[test]
    fn a_reload_keeps_what_is_counted() {
        let now = Now::read();
        let mut keys = Some(keys(100.0, None));
        keys.as_mut().unwrap().count(b"a:1|c", true);
        let new = config::KeyFlush {
            interval: Duration::from_secs(9),
            percent: 50.0,
            log: None,
        };
        KeyFlush::configure(&mut keys, Some(&new), now);
        let with_new = keys.as_mut().unwrap();
        assert_eq!(with_new.next(), Some(now.mono + new.interval));
        assert_eq!(text(with_new), "now count=1 key=a\n");
        KeyFlush::configure(&mut keys, None, now);
        assert!(keys.is_none());
        KeyFlush::configure(&mut keys, Some(&new), now);
        assert!(keys.is_some());
    }

    /// A full disk may leave the file in mid-line: what comes then has lines of its own.
    #[test]
    fn a_report_behind_one_that_failed_begins_a_line() {
        let path = std::env::temp_dir().join(format!("statsd-cut-{}", std::process::id()));
        let mut keys = keys(100.0, Some(&path));
        let report = |keys: &mut KeyFlush| {
            keys.count(b"a:1|c", true);
            keys.begin(Now::read());
            while keys.is_running() {
                keys.slice();
            }
        };
        let take = || {
            let found = std::fs::read_to_string(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            found
        };
        for (there, expected) in [("b\nhal", "b\nhal\n"), ("", "")] {
            std::os::unix::fs::symlink("/dev/full", &path).unwrap();
            report(&mut keys);
            assert!(keys.failing.is_on());
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, there).unwrap();
            // Nothing to report, twice: the line is ended once.
            (0..2).for_each(|_| keys.begin(Now::read()));
            report(&mut keys);
            let found = take();
            assert!(!keys.failing.is_on());
            let line = found.strip_prefix(expected).unwrap();
            assert!(line.ends_with(" count=1 key=a\n"), "{found:?}");
            assert_eq!(line.lines().count(), 1, "{found:?}");
            // Once is enough.
            std::fs::write(&path, "c\n").unwrap();
            report(&mut keys);
            let found = take();
            assert_eq!(found.lines().count(), 2, "{found:?}");
        }
        // Another file, which a reload has named, was not cut.
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        report(&mut keys);
        std::fs::remove_file(&path).unwrap();
        let other = path.with_extension("other");
        std::fs::write(&other, "c\n").unwrap();
        keys.config.log = Some(other.clone());
        report(&mut keys);
        let found = std::fs::read_to_string(&other).unwrap();
        std::fs::remove_file(&other).unwrap();
        assert_eq!(found.lines().count(), 2, "{found:?}");
    }

    #[test]
    fn a_fifo_that_nobody_reads_does_not_block() {
        let path = std::env::temp_dir().join(format!("statsd-keys-{}", std::process::id()));
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let mut keys = keys(100.0, Some(&path));
        keys.count(b"a:1|c", true);
        keys.begin(Now::read());
        assert!(keys.failing.is_on());
        std::fs::remove_file(path).unwrap();
    }
}
