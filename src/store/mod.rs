//! All metrics between two flushes: counters, timers, gauges, sets. Core: no I/O, no clock.
//!
//! Each slot has two banks. Metrics go into the bank in use; at the deadline [`Store::flip`] changes it
//! over at once, whatever the number of names, and [`Store::drain`] hands out the old bank in slices
//! while metrics keep coming into the new one. So a flush is of one instant, and a metric counts in
//! exactly one interval.
//!
//! | type | in a bank | at the flip |
//! |---|---|---|
//! | counter | the sum | starts at 0 |
//! | timer | the values | starts empty |
//! | gauge | the value | carried over when first touched, or when it is handed out |
//! | set | the members | starts empty |
//!
//! The bank that is not in use is empty (or, for gauges, of no account) once a drain is over.
//!
//! | file | job |
//! |---|---|
//! | `table` | from a name to the words kept beside it; walks |
//! | `index` | from a name's hash to its place |
//! | `arena` | names and their words, in chunks |
//! | `shelf` | a table for what is too large to stand beside a name |
//! | `drain` | handing out the old bank |

mod arena;
mod drain;
mod index;
mod shelf;
pub mod table;

use crate::protocol::{Value, name};
use crate::timer::Samples;
use memchr::memmem;
use shelf::Shelf;
use table::{Place, Table};

pub use drain::{Plan, Policy};

/// The distinct members of a set, in the order they came.
pub type Members = Table<0>;

/// What is kept under a gauge's name beside its value in each bank: flushes since the last update, for
/// the idle policy.
const IDLE: usize = 2;

/// Names, and the members of sets, may have this many bytes on average; so the limits on their number
/// bound the memory too, whatever their length.
const AVERAGE: usize = 128;

/// What there is room for in any case, for limits on a few names.
const LEAST: usize = 64 * 1024;

/// The bounds on what a store takes; a newcomer over one is refused, what is known keeps working.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Distinct names of all types together; and so many times 128 bytes of them.
    pub names: usize,
    /// Timer values in an interval.
    pub timer_values: usize,
    /// Set members in an interval; and so many times 128 bytes of them.
    pub set_members: usize,
}

/// What was refused because of [`Bounds`], since the store was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Metrics of names that would have been one too many.
    pub names: u64,
    /// Timer values.
    pub timer_values: u64,
    /// Set members.
    pub set_members: u64,
}

/// The daemon's own counters since the last flip; they become buckets like any other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own {
    /// Datagrams, or stretches of a stream up to its last line end.
    pub packets_received: u64,
    /// Lines that are not empty.
    pub metrics_received: u64,
    /// Bad values.
    pub bad_lines_seen: u64,
}

/// The names under which [`Own`] is published, behind `prefixStats`.
const OWN_NAMES: [&str; 3] = ["bad_lines_seen", "packets_received", "metrics_received"];

/// See the module.
pub struct Store {
    counters: Table<2>,
    timers: Shelf<[Samples; 2]>,
    gauges: Table<3>,
    sets: Shelf<[Members; 2]>,
    /// The bank in use.
    bank: usize,
    /// Counted here, where it is cheap, until the next flip.
    pub own: Own,
    prefix_stats: String,
    sanitize: bool,
    bounds: Bounds,
    refused: Refused,
    /// In the bank in use.
    timer_values: usize,
    set_members: usize,
    set_bytes: usize,
    drain: Option<drain::Drain>,
    /// The dirty name that came last, and what sanitizing made of it: a line can have thousands of
    /// values for one name.
    dirty: Vec<u8>,
    clean: Vec<u8>,
}

/// Which kind of bucket the console asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Counter,
    Timer,
    Gauge,
}

/// What the console shows of a bucket.
pub enum Shown<'a> {
    /// A counter's or gauge's present value.
    Number(f64),
    /// A timer's values so far.
    Values(&'a Samples),
}

impl Store {
    /// An empty store; `prefix_stats` and `sanitize` are `prefixStats` and `keyNameSanitize`.
    pub fn new(prefix_stats: &str, sanitize: bool, bounds: Bounds) -> Store {
        let mut store = Store {
            counters: Table::default(),
            timers: Shelf::default(),
            gauges: Table::default(),
            sets: Shelf::default(),
            bank: 0,
            own: Own::default(),
            prefix_stats: String::new(),
            sanitize,
            bounds,
            refused: Refused::default(),
            timer_values: 0,
            set_members: 0,
            set_bytes: 0,
            drain: None,
            dirty: Vec::new(),
            clean: Vec::new(),
        };
        store.configure(prefix_stats, sanitize, bounds);
        store
    }

    /// Takes new settings. What is stored stays.
    pub fn configure(&mut self, prefix_stats: &str, sanitize: bool, bounds: Bounds) {
        self.prefix_stats = prefix_stats.to_string();
        self.sanitize = sanitize;
        self.bounds = bounds;
        self.settle_own();
    }

    /// Whether [`Store::look_ahead`] pays.
    #[inline]
    pub fn is_large(&self) -> bool {
        self.counters.is_large()
            || self.timers.names().is_large()
            || self.gauges.is_large()
            || self.sets.names().is_large()
    }

    /// Prepares for metrics of these names; see [`Table::look_ahead`].
    pub fn look_ahead<const N: usize>(&self, names: &[&[u8]; N]) {
        self.counters.look_ahead(names);
        self.timers.names().look_ahead(names);
        self.gauges.look_ahead(names);
        self.sets.names().look_ahead(names);
    }

    /// Takes a value for a bucket that is stored under exactly this name; `false` if none is.
    #[inline]
    pub fn apply_known(&mut self, name: &[u8], value: Value<'_>) -> bool {
        match value {
            Value::Counter(value) => self
                .counters
                .find(name)
                .map(|place| self.add_to_counter(place, value)),
            Value::Timer { value, count } => self
                .timers
                .find(name)
                .map(|place| self.add_timer_value(place, value, count)),
            Value::Gauge(value) => self
                .gauges
                .find(name)
                .map(|place| self.update_gauge(place, |_| value)),
            Value::GaugeDelta(delta) => self
                .gauges
                .find(name)
                .map(|place| self.update_gauge(place, |value| value + delta)),
            Value::Set(member) => self
                .sets
                .find(name)
                .map(|place| self.add_member(place, member)),
        }
        .is_some()
    }

    /// Takes a value for a name as received, which may be dirty, new, or both. `false` says that it is no
    /// name: nothing is left of it sanitized.
    pub fn apply(&mut self, raw: &[u8], value: Value<'_>) -> bool {
        if self.apply_known(raw, value) {
            return true;
        }
        if raw.len() > table::MAX_NAME || name::holds_tag_mark(raw) {
            return false;
        }
        let mut clean = std::mem::take(&mut self.clean);
        if self.dirty != raw {
            name::sanitize(raw, &mut clean);
            self.dirty.clear();
            self.dirty.extend_from_slice(raw);
        }
        let is_name = !clean.is_empty();
        if is_name {
            // Without `keyNameSanitize` it is stored as it came, and the backends sanitize it.
            let name = if self.sanitize { &clean } else { raw };
            if self.sanitize && self.apply_known(name, value) {
                // Known under its clean name.
            } else if self.insert(name, &value) {
                self.apply_known(name, value);
            }
        }
        self.clean = clean;
        is_name
    }

    #[inline]
    fn add_to_counter(&mut self, place: Place, value: f64) {
        let (mut counter, _) = self.counters.enter(place, self.bank);
        counter.set_number(self.bank, counter.number(self.bank) + value);
    }

    #[inline]
    fn add_timer_value(&mut self, place: Place, value: f64, count: f64) {
        if self.timer_values >= self.bounds.timer_values {
            self.refused.timer_values += 1;
            return;
        }
        self.timer_values += 1;
        let (samples, slot) = self.timers.enter(place, self.bank);
        samples[self.bank].push(value, count, slot);
    }

    /// A gauge's value in the bank in use, for an update.
    #[inline]
    fn update_gauge(&mut self, place: Place, update: impl FnOnce(f64) -> f64) {
        let bank = self.bank;
        let idle = self.idle(place);
        let (mut gauge, first) = self.gauges.enter(place, bank);
        let mut value = gauge.number(bank);
        if first {
            // The flush under way has yet to hand it out. If it is the last one that sends this
            // gauge, it is gone already as far as the new interval is concerned.
            let policy = self.drain.as_ref().map(drain::Drain::policy);
            let gone = policy.is_some_and(|policy| policy.is_last_flush_of_gauge(idle));
            value = if gone { 0.0 } else { gauge.number(1 - bank) };
        }
        gauge.set_number(bank, update(value));
        gauge.set_word(IDLE, 0);
    }

    /// Flushes since a gauge's last update.
    fn idle(&self, place: Place) -> u32 {
        self.gauges.word(place, IDLE) as u32
    }

    fn add_member(&mut self, place: Place, member: &[u8]) {
        let members = &mut self.sets.enter(place, self.bank).0[self.bank];
        // The original keeps members as text, in which bytes that are no UTF-8 all look alike.
        let member = String::from_utf8_lossy(member);
        let member = &member.as_bytes()[..member.len().min(table::MAX_NAME)];
        if members.find(member).is_some() {
            return;
        }
        let bytes = self.set_bytes + member.len();
        if self.set_members >= self.bounds.set_members || bytes > room(self.bounds.set_members) {
            self.refused.set_members += 1;
            return;
        }
        self.set_bytes = bytes;
        self.set_members += 1;
        members.insert(member, 0, []);
    }

    /// Makes a bucket for a value to come. `false` if there are too many.
    fn insert(&mut self, name: &[u8], value: &Value<'_>) -> bool {
        let bytes = self.name_bytes() + self.growth_for(name.len(), value);
        if self.name_count() >= self.bounds.names || bytes > room(self.bounds.names) {
            self.refused.names += 1;
            return false;
        }
        let bank = self.bank;
        match value {
            Value::Counter(_) => self.counters.insert(name, bank, [0; 2]),
            Value::Timer { .. } => self.timers.insert(name, bank),
            Value::Gauge(_) | Value::GaugeDelta(_) => self.gauges.insert(name, bank, [0; 3]),
            Value::Set(_) => self.sets.insert(name, bank),
        };
        true
    }

    /// Distinct names of all types together.
    pub fn name_count(&self) -> usize {
        self.counters.len()
            + self.timers.names().len()
            + self.gauges.len()
            + self.sets.names().len()
    }

    fn name_bytes(&self) -> usize {
        self.counters.name_bytes()
            + self.timers.names().name_bytes()
            + self.gauges.name_bytes()
            + self.sets.names().name_bytes()
    }

    fn growth_for(&self, length: usize, value: &Value<'_>) -> usize {
        match value {
            Value::Counter(_) => self.counters.growth_for(length),
            Value::Timer { .. } => self.timers.names().growth_for(length),
            Value::Gauge(_) | Value::GaugeDelta(_) => self.gauges.growth_for(length),
            Value::Set(_) => self.sets.names().growth_for(length),
        }
    }

    /// What was refused so far.
    pub fn refused(&self) -> Refused {
        self.refused
    }

    /// Puts the daemon's own counts into their buckets, which are never refused.
    pub fn settle_own(&mut self) {
        let own = std::mem::take(&mut self.own);
        let counts = [
            own.bad_lines_seen,
            own.packets_received,
            own.metrics_received,
        ];
        for (suffix, count) in OWN_NAMES.iter().zip(counts) {
            let name = format!("{}.{suffix}", self.prefix_stats);
            let found = self.counters.find(name.as_bytes());
            let place = found.unwrap_or_else(|| {
                let name = name.as_bytes();
                self.counters.insert(name, self.bank, [0; 2])
            });
            self.add_to_counter(place, count as f64);
        }
    }

    /// Sets a gauge of the daemon's own, `<prefixStats>.<suffix>`, which no limit refuses.
    pub fn set_own_gauge(&mut self, suffix: &str, value: f64) {
        let name = format!("{}.{suffix}", self.prefix_stats);
        let found = self.gauges.find(name.as_bytes());
        let place = found.unwrap_or_else(|| {
            let name = name.as_bytes();
            self.gauges.insert(name, self.bank, [0; 3])
        });
        self.update_gauge(place, |_| value);
    }

    /// Whether a counter is left alone by `deleteCounters`. As in the original, the names of the
    /// daemon's own count wherever they stand in a name, so that a relayed daemon's stay too.
    fn is_own_counter(name: &[u8]) -> bool {
        OWN_NAMES
            .iter()
            .any(|own| memmem::find(name, own.as_bytes()).is_some())
    }

    /// Bytes of memory that the tables have asked for, without timer values and set members.
    pub fn allocated(&self) -> usize {
        self.counters.allocated()
            + self.timers.names().allocated()
            + self.gauges.allocated()
            + self.sets.names().allocated()
    }

    /// The number of slots of a kind, for a walk with [`Store::show`].
    pub fn slot_count(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Counter => self.counters.slot_count(),
            Kind::Timer => self.timers.names().slot_count(),
            Kind::Gauge => self.gauges.slot_count(),
        }
    }

    /// Name and present value in a slot; `None` if it is vacant.
    pub fn show(&self, kind: Kind, slot: u32) -> Option<(&[u8], Shown<'_>)> {
        let bank = self.bank;
        match kind {
            Kind::Counter => {
                let place = self.counters.place(slot)?;
                let sum = self.counters.number(place, bank);
                Some((self.counters.name(place), Shown::Number(sum)))
            }
            Kind::Timer => {
                let place = self.timers.names().place(slot)?;
                let values = &self.timers.get(place)[bank];
                Some((self.timers.names().name(place), Shown::Values(values)))
            }
            Kind::Gauge => {
                let place = self.gauges.place(slot)?;
                let touched = self.gauges.is_in(place, bank);
                let at = if touched { bank } else { 1 - bank };
                let value = self.gauges.number(place, at);
                Some((self.gauges.name(place), Shown::Number(value)))
            }
        }
    }

    /// A gauge for the state file: name, present value, flushes since its update. `None` if the slot is
    /// vacant, or of a gauge that the daemon sets itself.
    pub fn gauge(&self, slot: u32) -> Option<(&[u8], f64, u32)> {
        let idle = self.idle(self.gauges.place(slot)?);
        match self.show(Kind::Gauge, slot)? {
            (name, Shown::Number(value)) if !self.is_own_gauge(name) => Some((name, value, idle)),
            _ => None,
        }
    }

    /// Takes a gauge from the state file.
    pub fn restore_gauge(&mut self, name: &[u8], value: f64, idle: u32) {
        self.apply(name, Value::Gauge(value));
        // Not found by this name: refused, or of other settings and stored sanitized.
        if let Some(place) = self.gauges.find(name) {
            self.gauges.change(place).set_word(IDLE, u64::from(idle));
        }
    }

    /// Takes a bucket out at once, also of a flush that is being handed out. `false` if unknown. The
    /// daemon's own three counters start over instead.
    pub fn delete(&mut self, kind: Kind, name: &[u8]) -> bool {
        match kind {
            Kind::Counter => {
                let Some(place) = self.counters.find(name) else {
                    return false;
                };
                let rest = name
                    .strip_prefix(self.prefix_stats.as_bytes())
                    .and_then(|rest| rest.strip_prefix(b"."));
                if rest.is_some_and(|rest| OWN_NAMES.iter().any(|own| own.as_bytes() == rest)) {
                    let (mut counter, _) = self.counters.enter(place, self.bank);
                    counter.set_number(self.bank, 0.0);
                } else {
                    self.counters.remove(place);
                }
                true
            }
            Kind::Timer => self
                .timers
                .find(name)
                .map(|place| self.timers.remove(place))
                .is_some(),
            Kind::Gauge => self
                .gauges
                .find(name)
                .map(|place| self.gauges.remove(place))
                .is_some(),
        }
    }
}

/// Bytes for so many names or members.
fn room(count: usize) -> usize {
    count.saturating_mul(AVERAGE).max(LEAST)
}

#[cfg(test)]
mod tests;
