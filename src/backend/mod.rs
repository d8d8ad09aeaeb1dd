//! Where flushes go. A backend gets each flush piece by piece and sends it on in its own time; it sees
//! [`crate::snapshot`]'s entries and never the store, and nothing it does may block.
//!
//! The README has a page on adding one: a file here, a line in [`create`], a name in
//! `config::BackendKind`.

mod console;
pub mod graphite;
mod repeater;

use crate::config::{BackendKind, Config};
use crate::event_loop::{Now, PollSet};
use crate::snapshot::{Entry, Flush};

/// An output of the daemon.
pub trait Backend {
    /// Its name in `backends`.
    fn kind(&self) -> BackendKind;

    /// Takes a new config; what it holds already is delivered all the same.
    fn configure(&mut self, config: &Config);

    /// A packet as it came in, before it is parsed.
    fn packet(&mut self, _packet: &[u8]) {}

    /// A flush begins; its entries follow over several turns.
    fn flush_begin(&mut self, _flush: &Flush, _now: Now) {}

    /// One bucket of the flush under way.
    fn flush_entry(&mut self, _flush: &Flush, _entry: &Entry<'_>) {}

    /// The flush under way is complete.
    fn flush_end(&mut self, _flush: &Flush, _totals: &Totals, _now: Now) {}

    /// Whether there is room for more entries. `false` makes the daemon hand out the rest of the flush
    /// later, until the next one is due.
    fn has_room(&self) -> bool {
        true
    }

    /// Its figures for the console's `stats`, each with its name there; those that begin with `last_`
    /// are seconds since the epoch.
    fn status(&self, write: &mut dyn FnMut(&str, f64));

    /// Figures of its own for Graphite, under `<prefixStats>.`.
    fn own_stats(&self, _write: &mut dyn FnMut(&str, f64)) {}

    /// Says what to wait for.
    fn register(&mut self, _poll: &mut PollSet) {}

    /// Moves its output on.
    fn turn(&mut self, _poll: &PollSet, _now: Now) {}

    /// The daemon is about to end: do not wait before trying again.
    fn hurry(&mut self, _now: Now) {}

    /// For the state file: the undelivered piece that follows the one at `after`, and its place. The
    /// places of pieces never change, so a walk may pause while others come and go.
    fn piece(&self, _after: Option<Place>) -> Option<(Place, Piece<'_>)> {
        None
    }

    /// From the state file, oldest first: to be delivered before all else. `false` if there is no use
    /// for it.
    fn take_back(&mut self, _piece: &Piece<'_>) -> bool {
        false
    }

    /// Bytes that are not delivered yet. The daemon waits for 0 at its end, for a while.
    fn undelivered(&self) -> usize {
        0
    }
}

/// Where a piece of undelivered output is.
pub type Place = (u64, usize);

/// Undelivered output of a flush: whole lines, or whole pickles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Pieces with the same number belong to one flush.
    pub flush: u64,
    /// Pickles, not lines.
    pub pickle: bool,
    /// The last of its flush.
    pub last: bool,
    /// As they go to Graphite.
    pub bytes: &'a [u8],
}

/// What the daemon says about a flush when it is complete.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Buckets: counters, timers, gauges and sets.
    pub num_stats: usize,
    /// Milliseconds of work on the flush.
    pub processing_time: f64,
    /// The daemon's own figures beside the original's, by name behind `<prefixStats>.`.
    pub own: Vec<(String, f64)>,
}

/// Makes a backend.
pub fn create(kind: BackendKind, config: &Config, now: Now) -> Box<dyn Backend> {
    match kind {
        BackendKind::Graphite => Box::new(graphite::Graphite::new(config, now)),
        BackendKind::Console => Box::new(console::Console::new(config, now)),
        BackendKind::Repeater => Box::new(repeater::Repeater::new(config)),
    }
}
