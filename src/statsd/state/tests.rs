//! Saving and restoring by plain calls, in a directory of the test's own.

use super::*;
use crate::backend::Piece;
use crate::config::Environment;
use crate::protocol::Value;
use crate::store::{Bounds, Plan, Policy};
use std::time::SystemTime;

/// A directory that is gone after the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("statsd-state-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Dir(path)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        let text = |name: std::ffi::OsString| name.into_string().unwrap();
        names.into_iter().map(text).collect()
    }

    fn state(&self) -> StateFile {
        self.state_at(now())
    }

    fn state_at(&self, now: Now) -> StateFile {
        let text = format!("{{ stateFile: '{}/state' }}", self.0.display());
        StateFile::new(&config(&text), now).unwrap()
    }

    fn path(&self) -> PathBuf {
        self.0.join("state")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn config(text: &str) -> Config {
    let environment = Environment {
        hostname: "host".into(),
        fqdn: "host.example".into(),
        variable: |_| None,
    };
    let loaded = crate::config::load::statsd_from_text(text, "test", &environment);
    loaded.unwrap_or_else(|error| panic!("{error}")).config
}

fn now() -> Now {
    Now {
        mono: Instant::now(),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
    }
}

fn later(now: Now, seconds: u64) -> Now {
    let by = Duration::from_secs(seconds);
    Now {
        mono: now.mono + by,
        wall: now.wall + by,
    }
}

fn store(names: usize) -> Store {
    let bounds = Bounds {
        names,
        timer_values: 100,
        set_members: 100,
    };
    Store::new("statsd", true, bounds)
}

fn gauges(store: &Store) -> Vec<(String, f64, u32)> {
    let ids = 0..store.slot_count(Kind::Gauge);
    let found = ids.filter_map(|id| store.gauge(id));
    found
        .map(|(name, value, idle)| (String::from_utf8(name.to_vec()).unwrap(), value, idle))
        .collect()
}

fn flush(store: &mut Store, policy: Policy) {
    let summary = crate::timer::Summary::new(&[], &[], std::iter::empty());
    store.flip(Plan {
        policy,
        summary: summary.into(),
    });
    while store.drain(1000, &mut |_| {}).is_none() {}
}

/// A backend that holds pieces and nothing else.
#[derive(Default)]
struct Holder {
    pieces: Vec<(u64, bool, Vec<u8>)>,
    wants: bool,
}

impl Backend for Holder {
    fn kind(&self) -> crate::config::BackendKind {
        crate::config::BackendKind::Graphite
    }

    fn configure(&mut self, _config: &Config) {}

    fn status(&self, write: &mut dyn FnMut(&str, f64)) {
        write("pieces", self.pieces.len() as f64);
        let bytes = self.pieces.iter().map(|(_, _, bytes)| bytes.len());
        write("bytes", bytes.sum::<usize>() as f64);
    }

    fn piece(&self, after: Option<Place>) -> Option<(Place, Piece<'_>)> {
        let index = after.map_or(0, |(_, index)| index + 1);
        let (flush, last, bytes) = self.pieces.get(index)?;
        let piece = Piece {
            flush: *flush,
            pickle: false,
            last: *last,
            bytes,
        };
        Some(((0, index), piece))
    }

    fn take_back(&mut self, piece: &Piece<'_>) -> bool {
        let bytes = piece.bytes.to_vec();
        self.pieces.push((piece.flush, piece.last, bytes));
        self.wants
    }
}

fn backends(pieces: &[(u64, bool, &str)]) -> Vec<Box<dyn Backend>> {
    let pieces = pieces
        .iter()
        .map(|(flush, last, text)| (*flush, *last, text.as_bytes().to_vec()));
    vec![Box::new(Holder {
        pieces: pieces.collect(),
        wants: true,
    })]
}

fn figures(backends: &[Box<dyn Backend>]) -> Vec<f64> {
    let mut found = Vec::new();
    backends[0].status(&mut |_, value| found.push(value));
    found
}

#[test]
fn gauges_their_idle_counts_and_undelivered_flushes_survive() {
    let (dir, now) = (Dir::new("survive"), now());
    let mut old = store(100);
    let policy = Policy {
        delete_gauges: true,
        gauges_max_ttl: 5,
        ..Policy::default()
    };
    old.apply(b"a", Value::Gauge(1.5));
    old.apply(b"gone", Value::Gauge(7.0));
    flush(&mut old, policy);
    old.apply(b"b;k=v", Value::GaugeDelta(-3.0));
    old.apply(b"counter", Value::Counter(9.0));
    old.set_own_gauge("timestamp_lag", 3.0);
    old.delete(Kind::Gauge, b"gone");
    let waiting = backends(&[
        (7, false, "a 1 2\n"),
        (7, true, "b 1 2\n"),
        (8, true, "c 1 3\n"),
    ]);
    assert_eq!(dir.state().save(&old, &waiting, now), 18);
    assert_eq!(dir.names(), ["state"]);
    let mode = fs::metadata(dir.path()).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut new = store(100);
    let mut empty = backends(&[]);
    dir.state().restore(&mut new, &mut empty, later(now, 3599));
    let expected = [("a".to_string(), 1.5, 1), ("b;k=v".to_string(), -3.0, 0)];
    assert_eq!(gauges(&new), expected);
    assert_eq!(figures(&empty), [3.0, 18.0]);
    // And the idle policy goes on where it was: the fifth flush without an update is the last.
    for _ in 0..4 {
        assert!(gauges(&new).iter().any(|(name, ..)| name == "a"));
        flush(&mut new, policy);
    }
    assert!(!gauges(&new).iter().any(|(name, ..)| name == "a"));
}

#[test]
fn too_old_is_not_read_and_from_the_future_is_new() {
    let (dir, now) = (Dir::new("age"), now());
    let mut old = store(100);
    old.apply(b"a", Value::Gauge(1.0));
    dir.state().save(&old, &[], now);
    for (seconds, found) in [(3599, 1), (3600, 0), (1_000_000, 0)] {
        let mut new = store(100);
        dir.state().restore(&mut new, &mut [], later(now, seconds));
        assert_eq!(gauges(&new).len(), found, "after {seconds} s");
    }
    let mut new = store(100);
    let before = Now {
        wall: now.wall - Duration::from_secs(86_400),
        ..now
    };
    dir.state().restore(&mut new, &mut [], before);
    assert_eq!(gauges(&new).len(), 1);
    assert_eq!(dir.names(), ["state"]);
}

#[test]
fn a_damaged_file_is_set_aside_and_nothing_of_it_used() {
    let (dir, now) = (Dir::new("damaged"), now());
    let mut old = store(100);
    old.apply(b"a", Value::Gauge(1.0));
    dir.state()
        .save(&old, &backends(&[(1, true, "a 1 2\n")]), now);
    let mut bytes = fs::read(dir.path()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    for bad in [&bytes[..], &bytes[..40], b"", b"{ \"json\": 1 }"] {
        fs::write(dir.path(), bad).unwrap();
        let (mut new, mut empty) = (store(100), backends(&[]));
        dir.state().restore(&mut new, &mut empty, now);
        assert_eq!((gauges(&new), figures(&empty)), (vec![], vec![0.0, 0.0]));
        assert_eq!(dir.names(), ["state.damaged"]);
        assert_eq!(fs::read(dir.0.join("state.damaged")).unwrap(), bad);
    }
}

/// Links, pipes and directories in its place are neither followed nor waited for, and not touched.
#[test]
fn what_is_no_file_of_ours_is_left_alone() {
    let (dir, now) = (Dir::new("odd"), now());
    let mut old = store(100);
    old.apply(b"a", Value::Gauge(1.0));
    dir.state().save(&old, &[], now);
    fs::rename(dir.path(), dir.0.join("theirs")).unwrap();
    let theirs = fs::read(dir.0.join("theirs")).unwrap();
    std::os::unix::fs::symlink("theirs", dir.path()).unwrap();
    let mut new = store(100);
    dir.state().restore(&mut new, &mut [], now);
    assert!(gauges(&new).is_empty());
    // Nor is a link written through, at the old place or the new.
    std::os::unix::fs::symlink("theirs", dir.0.join("state.new")).unwrap();
    dir.state().save(&store(100), &[], now);
    assert_eq!(fs::read(dir.0.join("theirs")).unwrap(), theirs);
    assert_eq!(dir.names(), ["state", "theirs"]);

    fs::remove_file(dir.path()).unwrap();
    fs::create_dir(dir.path()).unwrap();
    dir.state().restore(&mut new, &mut [], now);
    assert_eq!(dir.state().save(&old, &backends(&[(1, true, "x")]), now), 0);
    assert!(dir.path().is_dir());
}

#[test]
fn no_more_gauges_than_names_are_allowed() {
    let (dir, now) = (Dir::new("limit"), now());
    let mut old = store(100);
    (0..50).for_each(|n| {
        old.apply(format!("g{n}").as_bytes(), Value::Gauge(1.0));
    });
    dir.state().save(&old, &[], now);
    // Three names are the daemon's own counters.
    let mut new = store(13);
    dir.state().restore(&mut new, &mut [], now);
    assert_eq!(gauges(&new).len(), 10);
    assert_eq!(new.refused().names, 40);
}

/// Every minute, in slices that are bounded whatever there is; in between metrics come and go.
#[test]
fn a_large_state_is_written_in_small_slices() {
    const GAUGES: u32 = 50_000;
    let (dir, start) = (Dir::new("slices"), now());
    let mut full = store(100_000);
    (0..GAUGES).for_each(|n| {
        full.apply(
            format!("some.gauge.{n}").as_bytes(),
            Value::Gauge(f64::from(n)),
        );
    });
    let block = "x".repeat(SLICE_BYTES);
    let pieces: Vec<(u64, bool, &str)> = (0..20).map(|n| (n, true, &block[..])).collect();
    let waiting = backends(&pieces);
    let mut state = dir.state_at(start);
    let poll = PollSet::default();
    let new = dir.0.join("state.new");
    let size = || fs::metadata(&new).map_or(0, |metadata| metadata.len());
    state.turn(&full, &waiting, &poll, start);
    let (mut slices, mut largest) = (0, 0);
    while matches!(state.step, Step::Writing(_)) {
        let before = size();
        state.turn(&full, &waiting, &poll, start);
        largest = largest.max(size() - before);
        slices += 1;
        // Gone before the walk was there, and one that comes behind it.
        full.delete(Kind::Gauge, b"some.gauge.49999");
        full.apply(b"late", Value::Gauge(1.0));
    }
    assert!(largest <= 2 * SLICE_BYTES as u64 + 4096, "{largest}");
    assert!(slices >= GAUGES / SLICE_GAUGES + 20, "{slices}");
    let (mut gauges, mut bytes) = (Vec::new(), 0);
    let outcome = format::read(File::open(&new).unwrap(), &mut |record| match record {
        Record::Gauge { name, .. } => gauges.push(name.to_vec()),
        Record::Piece(piece) => bytes += piece.bytes.len(),
    });
    assert_eq!(outcome.unwrap(), 1_700_000_000);
    assert_eq!(gauges.len(), GAUGES as usize);
    assert!(gauges.contains(&b"late".to_vec()));
    assert_eq!(bytes, 20 * SLICE_BYTES);
    assert!(!dir.path().exists(), "in its place before it is synced");
    assert_eq!(state.next, start.mono + EVERY, "a minute later again");
}

#[test]
fn a_place_that_cannot_be_written_is_tried_again_in_a_minute() {
    let (dir, start) = (Dir::new("nowhere"), now());
    let nowhere = config(&format!("{{ stateFile: '{}/no/state' }}", dir.0.display()));
    let mut state = StateFile::new(&nowhere, start).unwrap();
    let poll = PollSet::default();
    state.turn(&store(1), &[], &poll, start);
    assert!(state.failing.is_on() && matches!(state.step, Step::Idle));
    assert_eq!(state.next, start.mono + EVERY);
    fs::create_dir(dir.0.join("no")).unwrap();
    state.turn(&store(1), &[], &poll, later(start, 59));
    assert!(matches!(state.step, Step::Idle));
    state.turn(&store(1), &[], &poll, later(start, 60));
    assert!(matches!(state.step, Step::Writing(_)));
    state.save(&store(1), &[], later(start, 61));
    assert!(!state.failing.is_on());
}
