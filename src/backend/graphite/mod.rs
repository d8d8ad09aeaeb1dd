//! The Graphite backend: a flush becomes lines of text or pickles ([`lines`]), which wait in a bounded
//! spool ([`spool`]) until a connection has delivered them ([`delivery`]).
//!
//! A flush is written straight into the spool as it is handed out, in parts of a few megabytes, each
//! delivered on a connection of its own; so delivery begins while a large flush is still being made,
//! and what has arrived needs no memory. A flush too large for the spool as a whole is handed out no
//! faster than Graphite takes it ([`Backend::has_room`]).

mod delivery;
mod lines;
mod spool;

use super::{Backend, Piece, Place, Totals};
use crate::config::{BackendKind, Config};
use crate::event_loop::{Now, PollSet};
use crate::log;
use crate::snapshot::{Entry, Flush};
use delivery::Delivery;
use lines::Lines;
use spool::Spool;
use std::time::Instant;

/// See the module.
pub struct Graphite {
    lines: Lines,
    spool: Spool,
    delivery: Option<Delivery>,
    /// `graphiteProtocol`.
    pickle: bool,
    report: Report,
    began: Instant,
    /// There was somebody to deliver to when the flush began.
    wanted: bool,
}

/// What the original tells about its connection, and what we add.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// When a flush was last delivered, in seconds since the epoch; at first, the start.
    pub last_flush: u64,
    /// When something last went wrong, likewise; 0 is never.
    pub last_exception: u64,
    /// Milliseconds from the first byte to Graphite's having taken the last delivered flush.
    pub flush_time: u64,
    /// Bytes of that flush.
    pub flush_length: u64,
    /// Connections that failed.
    pub reconnects: u64,
}

impl Graphite {
    /// From the config; without a `graphiteHost` flushes are computed and dropped.
    pub fn new(config: &Config, now: Now) -> Graphite {
        let report = Report {
            last_flush: now.seconds(),
            ..Report::default()
        };
        Graphite {
            lines: Lines::new(config),
            spool: Spool::new(config.graphite.spool_bytes),
            delivery: Delivery::new(&config.graphite),
            pickle: config.graphite.pickle,
            report,
            began: now.mono,
            wanted: false,
        }
    }
}

impl Backend for Graphite {
    fn kind(&self) -> BackendKind {
        BackendKind::Graphite
    }

    fn configure(&mut self, config: &Config) {
        self.lines.configure(config);
        self.pickle = config.graphite.pickle;
        self.spool.set_limit(config.graphite.spool_bytes);
        let stays = self
            .delivery
            .as_mut()
            .is_some_and(|delivery| delivery.goes_to(&config.graphite));
        if !stays {
            // What waits goes to the new place.
            let old = std::mem::replace(&mut self.delivery, Delivery::new(&config.graphite));
            if let Some(delivery) = &mut self.delivery {
                delivery.succeed(old.as_ref());
            }
            self.spool.rewind();
        }
        if self.delivery.is_none() {
            self.spool.drop_all();
        }
    }

    fn flush_begin(&mut self, flush: &Flush, now: Now) {
        self.began = now.mono;
        self.wanted = self.delivery.is_some();
        self.lines.begin(flush.timestamp);
        self.spool.begin(self.lines.is_pickle());
    }

    fn flush_entry(&mut self, flush: &Flush, entry: &Entry<'_>) {
        if !self.wanted {
            return;
        }
        let (lines, to) = (&mut self.lines, &mut self.spool);
        match entry {
            Entry::Counter { name, value } => {
                lines.counter(to, name, *value, value / flush.seconds)
            }
            Entry::Timer { name, timer } => {
                let lines = lines.timer(name);
                timer.figures(name, flush.seconds, |figure, value| {
                    lines.put(to, figure, value)
                });
            }
            Entry::Gauge { name, value } => lines.gauge(to, name, *value),
            Entry::Set { name, members } => lines.set(to, name, members.len() as f64),
        }
    }

    fn flush_end(&mut self, flush: &Flush, totals: &Totals, now: Now) {
        let calculation = now.mono.saturating_duration_since(self.began).as_millis();
        let (lines, to, report) = (&mut self.lines, &mut self.spool, &self.report);
        lines.num_stats(to, totals.num_stats as f64);
        lines.own(to, "processing_time", totals.processing_time);
        lines.own(to, "graphiteStats.calculationtime", calculation as f64);
        lines.own(
            to,
            "graphiteStats.last_exception",
            report.last_exception as f64,
        );
        lines.own(to, "graphiteStats.last_flush", report.last_flush as f64);
        lines.own(to, "graphiteStats.flush_time", report.flush_time as f64);
        lines.own(to, "graphiteStats.flush_length", report.flush_length as f64);
        for (name, value) in &totals.own {
            lines.own(to, name, *value);
        }
        lines.end(to);
        to.end();
        // As the original says with `debug`, and what else one wants to know then.
        log::debug!(
            "graphite: flush of {}: numStats {}, {} bytes wait to be delivered",
            flush.timestamp,
            totals.num_stats,
            self.spool.bytes()
        );
        if !self.wanted {
            self.spool.clear();
        } else if self.delivery.is_none() {
            self.spool.drop_all();
        }
    }

    fn has_room(&self) -> bool {
        self.spool.has_room() || !self.delivery.as_ref().is_some_and(Delivery::is_moving)
    }

    fn status(&self, write: &mut dyn FnMut(&str, f64)) {
        write("graphite.last_flush", self.report.last_flush as f64);
        write("graphite.last_exception", self.report.last_exception as f64);
        write("graphite.flush_time", self.report.flush_time as f64);
        write("graphite.flush_length", self.report.flush_length as f64);
    }

    fn own_stats(&self, write: &mut dyn FnMut(&str, f64)) {
        write("graphiteStats.spool_bytes", self.spool.bytes() as f64);
        write("graphiteStats.spool_flushes", self.spool.flushes() as f64);
        write(
            "graphiteStats.dropped_flushes",
            self.spool.dropped_flushes() as f64,
        );
        write("graphiteStats.reconnects", self.report.reconnects as f64);
    }

    fn register(&mut self, poll: &mut PollSet) {
        if let Some(delivery) = &mut self.delivery {
            delivery.register(poll, &self.spool);
        }
    }

    fn turn(&mut self, poll: &PollSet, now: Now) {
        self.spool.drop_foreign(self.pickle);
        if let Some(delivery) = &mut self.delivery {
            delivery.turn(&mut self.spool, &mut self.report, poll, now);
        }
    }

    fn hurry(&mut self, now: Now) {
        if let Some(delivery) = &mut self.delivery {
            delivery.hurry(now);
        }
    }

    fn piece(&self, after: Option<Place>) -> Option<(Place, Piece<'_>)> {
        self.spool.piece(after)
    }

    fn take_back(&mut self, piece: &Piece<'_>) -> bool {
        if self.delivery.is_some() {
            self.spool.take_back(piece);
        }
        self.delivery.is_some()
    }

    fn undelivered(&self) -> usize {
        self.delivery.as_ref().map_or(0, |_| self.spool.bytes())
    }
}

#[cfg(test)]
impl Graphite {
    /// What waits to be delivered, as if it had been.
    pub fn take_undelivered(&mut self) -> Vec<u8> {
        std::iter::from_fn(|| self.spool.delivered())
            .flat_map(|part| part.blocks.concat())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let environment = crate::config::Environment::of_this_machine();
        let loaded = crate::config::load::statsd_from_text(text, "test", &environment);
        loaded.unwrap().config
    }

    /// Flushes that wait, and those that were dropped.
    fn figures(graphite: &Graphite) -> (usize, u64) {
        (graphite.spool.flushes(), graphite.spool.dropped_flushes())
    }

    #[test]
    fn without_its_host_what_waits_is_dropped_and_counted() {
        let (host, none) = (config("{ graphiteHost: '127.0.0.1' }"), config("{}"));
        let now = Now::read();
        let flush = Flush {
            timestamp: 1,
            seconds: 10.0,
        };
        let mut graphite = Graphite::new(&none, now);
        graphite.flush_begin(&flush, now);
        graphite.flush_end(&flush, &Totals::default(), now);
        assert_eq!(figures(&graphite), (0, 0), "for nobody from the start");
        graphite.configure(&host);
        graphite.flush_begin(&flush, now);
        graphite.flush_end(&flush, &Totals::default(), now);
        graphite.flush_begin(&flush, now);
        assert_eq!(figures(&graphite), (1, 0));
        graphite.configure(&none);
        assert_eq!(figures(&graphite), (0, 1));
        graphite.flush_end(&flush, &Totals::default(), now);
        assert_eq!(figures(&graphite), (0, 2), "the one under way too");
        assert_eq!(graphite.spool.bytes(), 0);
    }
}
