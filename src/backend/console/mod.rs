//! The console backend: each flush as one JSON object on standard output, under a line with the time.
//!
//! ```text
//! Flushing stats at  Tue Nov 14 2023 22:13:20 GMT+0000
//! {
//!   "counters": {
//!     "web.hits": 12
//!   },
//! ```
//!
//! Content and order are the original's. Buckets come in the order counters, timers, gauges, sets, the
//! object has six sections and another order, so each section is collected on its own, up to
//! [`LIMIT`] bytes in all; what is over that is left out, and the last member says how many. Standard
//! output takes the text as fast as it is read; a flush that is complete before the last one is out is
//! lost, and counted.

mod json;

use super::{Backend, Totals};
use crate::config::{BackendKind, Config};
use crate::event_loop::{Now, PollSet};
use crate::snapshot::{Entry, Flush};
use crate::{log, stdout};
use json::Pen;
use memchr::memrchr;
use std::ffi::OsStr;
use std::io::IsTerminal;
use std::time::Instant;

/// Bytes of a flush. The last bucket may reach over it.
const LIMIT: usize = 4 << 20;

/// See the module.
pub struct Console {
    pretty: bool,
    thresholds: Vec<f64>,
    pen: Pen,
    page: Page,
    /// A flush on its way out, and how much of it is out.
    text: Vec<u8>,
    sent: usize,
    last_flush: u64,
    last_exception: u64,
    lost: u64,
    behind: log::Latch,
}

/// The sections of a flush, each with its members.
#[derive(Default)]
struct Page {
    counters: Vec<u8>,
    timers: Vec<u8>,
    gauges: Vec<u8>,
    timer_data: Vec<u8>,
    counter_rates: Vec<u8>,
    sets: Vec<u8>,
    /// As they were when it began, whatever is reloaded meanwhile.
    thresholds: Vec<f64>,
    /// Buckets that there was no room for.
    left_out: u64,
}

impl Console {
    /// From the config.
    pub fn new(config: &Config, now: Now) -> Console {
        Console {
            pretty: config.console_prettyprint,
            thresholds: config.percent_threshold.clone(),
            pen: Pen::default(),
            page: Page::default(),
            text: Vec::new(),
            sent: 0,
            last_flush: now.seconds(),
            last_exception: now.seconds(),
            lost: 0,
            behind: log::Latch::new(),
        }
    }

    /// The flush is complete: puts it on its way, unless the last one is still there.
    fn finish(&mut self, flush: &Flush, now: Now) {
        let page = std::mem::take(&mut self.page);
        self.last_flush = now.seconds();
        let behind = !self.text.is_empty();
        if behind {
            self.lost += 1;
            self.last_exception = now.seconds();
        } else {
            self.text = page.text(self.pen, &log::date(flush.timestamp));
        }
        if self.behind.set(behind) {
            if behind {
                log::warning!("console: standard output is not read; flushes for it are lost");
            } else {
                log::notice!(
                    "console: standard output is read again; {} flushes were lost in all",
                    self.lost
                );
            }
        }
    }

    /// Hands on what standard output has room for, and a turn time: all of it as one message where that
    /// is possible, so that no log line comes in between.
    fn hand_on(&mut self, has_room: impl FnOnce() -> bool, write: impl FnOnce(&[u8])) {
        if !self.text.is_empty() && has_room() {
            let rest = &self.text[self.sent..];
            let length = if rest.len() <= stdout::LIMIT {
                rest.len()
            } else {
                memrchr(b'\n', &rest[..stdout::LIMIT]).map_or(stdout::LIMIT, |end| end + 1)
            };
            write(&rest[..length]);
            self.sent += length;
            if self.sent == self.text.len() {
                (self.text, self.sent) = (Vec::new(), 0);
            }
        }
    }

    fn write(&mut self) {
        self.hand_on(|| stdout::wants_write().is_none(), stdout::write);
    }
}

/// Colours are for terminals alone, and for who has not asked to do without (no-color.org).
fn pen(pretty: bool, terminal: bool, no_colour: Option<&OsStr>) -> Pen {
    Pen {
        spread: pretty,
        colour: pretty && terminal && no_colour.is_none_or(OsStr::is_empty),
    }
}

impl Page {
    fn len(&self) -> usize {
        let sections = [
            &self.counters,
            &self.timers,
            &self.gauges,
            &self.timer_data,
            &self.counter_rates,
            &self.sets,
        ];
        sections.iter().map(|section| section.len()).sum()
    }

    fn add(&mut self, pen: Pen, entry: &Entry<'_>, seconds: f64) {
        match entry {
            Entry::Counter { name, value } => {
                pen.bucket(&mut self.counters, name);
                pen.number(&mut self.counters, *value);
                pen.bucket(&mut self.counter_rates, name);
                pen.number(&mut self.counter_rates, value / seconds);
            }
            Entry::Timer { name, timer } => {
                let (out, values) = (&mut self.timers, timer.values());
                pen.bucket(out, name);
                pen.list(out, values.len(), values.iter(), |pen, out, value| {
                    pen.number(out, *value);
                });
                pen.bucket(&mut self.timer_data, name);
                pen.figures(&mut self.timer_data, name, timer, seconds);
            }
            Entry::Gauge { name, value } => {
                pen.bucket(&mut self.gauges, name);
                pen.number(&mut self.gauges, *value);
            }
            Entry::Set { name, members } => {
                pen.bucket(&mut self.sets, name);
                pen.list(&mut self.sets, members.len(), members.names(), Pen::text);
            }
        }
    }

    /// All of it, with its heading.
    fn text(self, pen: Pen, date: &str) -> Vec<u8> {
        let (thresholds, left_out) = (&self.thresholds, self.left_out);
        let mut out = Vec::with_capacity(self.len() + 512);
        out.extend_from_slice(b"Flushing stats at  ");
        out.extend_from_slice(date.as_bytes());
        out.extend_from_slice(b"\n{\n");
        for (name, members) in [
            ("counters", self.counters),
            ("timers", self.timers),
            ("gauges", self.gauges),
            ("timer_data", self.timer_data),
            ("counter_rates", self.counter_rates),
            ("sets", self.sets),
        ] {
            out.extend_from_slice(b"  ");
            pen.key(&mut out, name.as_bytes());
            out.push(b'{');
            out.extend_from_slice(&members);
            out.extend_from_slice(if members.is_empty() {
                b"},\n"
            } else {
                b"\n  },\n"
            });
        }
        out.extend_from_slice(b"  ");
        pen.key(&mut out, b"pctThreshold");
        pen.list(
            &mut out,
            thresholds.len(),
            thresholds.iter(),
            |pen, out, p| {
                pen.number(out, *p);
            },
        );
        if left_out > 0 {
            out.extend_from_slice(b",\n  ");
            pen.key(&mut out, b"leftOut");
            pen.number(&mut out, left_out as f64);
        }
        out.extend_from_slice(b"\n}\n");
        out
    }
}

impl Backend for Console {
    fn kind(&self) -> BackendKind {
        BackendKind::Console
    }

    fn configure(&mut self, config: &Config) {
        self.pretty = config.console_prettyprint;
        self.thresholds.clone_from(&config.percent_threshold);
    }

    fn flush_begin(&mut self, _flush: &Flush, _now: Now) {
        self.page = Page {
            thresholds: self.thresholds.clone(),
            ..Page::default()
        };
        // Asked for each time: standard output is another one once the daemon has detached.
        self.pen = pen(
            self.pretty,
            std::io::stdout().is_terminal(),
            std::env::var_os("NO_COLOR").as_deref(),
        );
    }

    fn flush_entry(&mut self, flush: &Flush, entry: &Entry<'_>) {
        if self.page.len() < LIMIT {
            self.page.add(self.pen, entry, flush.seconds);
        } else {
            self.page.left_out += 1;
        }
    }

    fn flush_end(&mut self, flush: &Flush, _totals: &Totals, now: Now) {
        self.finish(flush, now);
        self.write();
    }

    fn status(&self, write: &mut dyn FnMut(&str, f64)) {
        write("console.lastFlush", self.last_flush as f64);
        write("console.lastException", self.last_exception as f64);
    }

    fn own_stats(&self, write: &mut dyn FnMut(&str, f64)) {
        write("console.lost_flushes", self.lost as f64);
    }

    fn register(&mut self, poll: &mut PollSet) {
        // While something waits in front of it, the loop waits for standard output anyway.
        if !self.text.is_empty() && stdout::wants_write().is_none() {
            poll.wake_at(Instant::now());
        }
    }

    fn turn(&mut self, _poll: &PollSet, _now: Now) {
        self.write();
    }

    /// What standard output has of it is not out yet either.
    fn undelivered(&self) -> usize {
        self.text.len() - self.sent + stdout::waiting()
    }
}

#[cfg(test)]
mod tests;
