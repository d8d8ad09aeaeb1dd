//! Handing out the old bank, in slices, while the new one fills. Core: no I/O, no clock.
//!
//! A slice is as long as its budget, counted in units of some 20 ns: a name passed over costs 1, one
//! handed out [`ENTRY_COST`], a timer value 1 for its merge and less for its sums.

use super::table::{Pause, Place};
use super::{IDLE, Members, Store};
use crate::snapshot::{Entry, Timer};
use crate::timer::{Samples, Summary, Work};
use std::rc::Rc;

/// What a backend takes for an entry, in units: two lines of text.
const ENTRY_COST: usize = 15;

/// Vacant slots passed over at a time.
const STRIDE: usize = 256;

/// Bytes of a set's memory that are kept for its next members.
const KEPT: usize = 4096;

/// More than this is given back piece by piece: a piece is some hundred pages of memory.
const LARGE: usize = 256 * 1024;
const RELEASE_COST: usize = 4000;

/// Records moved meanwhile, each with two cache misses.
const MOVES: usize = STRIDE / 8;

/// What becomes of buckets that got nothing since the flip (SPEC 5). `false` keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// `deleteCounters`.
    pub delete_counters: bool,
    /// `deleteTimers`.
    pub delete_timers: bool,
    /// `deleteSets`.
    pub delete_sets: bool,
    /// `deleteGauges`.
    pub delete_gauges: bool,
    /// `gaugesMaxTTL`: after so many flushes without an update a gauge is idle.
    pub gauges_max_ttl: u32,
}

impl Policy {
    /// Whether a gauge that had so many flushes since its update goes at the next.
    pub(super) fn is_last_flush_of_gauge(&self, idle: u32) -> bool {
        self.delete_gauges && idle.saturating_add(1) >= self.gauges_max_ttl
    }
}

/// How a flush is to be made; holds until it is through, whatever is reloaded meanwhile.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Idle policy.
    pub policy: Policy,
    /// What is made of timers.
    pub summary: Rc<Summary>,
}

/// A flush that is being handed out.
pub(super) struct Drain {
    plan: Plan,
    stage: Stage,
    /// The timer whose figures are being made, and its name.
    timer: Option<u32>,
    name: Vec<u8>,
    work: Work,
    /// A backend has seen that timer; what is left is to give its memory back.
    handed_over: bool,
    handed_out: usize,
    /// A large set that was handed out; what is left is to give its memory back.
    remains: Option<Members>,
}

/// A bucket was handed out, or why not.
type Step = Result<(), Pause>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Counters,
    Timers,
    Gauges,
    Sets,
    /// Everything is handed out; what is left is tidying up.
    Compact,
}

impl Drain {
    pub(super) fn policy(&self) -> &Policy {
        &self.plan.policy
    }
}

impl Store {
    /// The deadline: what was taken so far is now the old bank's. Nothing happens while the previous
    /// flush is still being handed out; `false` then.
    pub fn flip(&mut self, plan: Plan) -> bool {
        if self.drain.is_some() {
            return false;
        }
        self.settle_own();
        self.bank = 1 - self.bank;
        (self.timer_values, self.set_members, self.set_bytes) = (0, 0, 0);
        self.counters.drain_begin();
        self.timers.drain_begin();
        self.gauges.drain_begin();
        self.sets.drain_begin();
        self.drain = Some(Drain {
            plan,
            stage: Stage::Counters,
            timer: None,
            name: Vec::new(),
            work: Work::default(),
            handed_over: false,
            handed_out: 0,
            remains: None,
        });
        true
    }

    /// Hands out the next slice of the old bank. `Some` when that was the last: the number of
    /// buckets in the whole flush.
    pub fn drain(&mut self, mut budget: usize, visit: &mut impl FnMut(Entry<'_>)) -> Option<usize> {
        let mut drain = self.drain.take()?;
        while budget > 0 {
            if let Some(members) = &mut drain.remains {
                if members.release() {
                    drain.remains = None;
                }
                budget = budget.saturating_sub(RELEASE_COST);
                continue;
            }
            let step = match drain.stage {
                Stage::Counters => self.drain_counter(&drain.plan.policy, visit),
                Stage::Timers => self.drain_timer(&mut drain, &mut budget, visit),
                Stage::Gauges => self.drain_gauge(&drain.plan.policy, visit),
                Stage::Sets => self.drain_set(&mut drain, visit),
                Stage::Compact => self.compact(),
            };
            match step {
                Ok(()) => {
                    drain.handed_out += 1;
                    budget = budget.saturating_sub(ENTRY_COST);
                }
                Err(Pause::More) => budget = budget.saturating_sub(STRIDE),
                Err(Pause::End) => {
                    drain.stage = match drain.stage {
                        Stage::Counters => Stage::Timers,
                        Stage::Timers => Stage::Gauges,
                        Stage::Gauges => Stage::Sets,
                        Stage::Sets => Stage::Compact,
                        Stage::Compact => return Some(drain.handed_out),
                    }
                }
            }
        }
        self.drain = Some(drain);
        None
    }

    fn compact(&mut self) -> Step {
        let through = self.counters.compact(MOVES)
            && self.timers.compact(MOVES)
            && self.gauges.compact(MOVES)
            && self.sets.compact(MOVES);
        if through {
            Err(Pause::End)
        } else {
            Err(Pause::More)
        }
    }

    fn drain_counter(&mut self, policy: &Policy, visit: &mut impl FnMut(Entry<'_>)) -> Step {
        let (old, new) = (1 - self.bank, self.bank);
        let place = self.counters.drain_next(STRIDE)?;
        let value = self.counters.number(place, old);
        self.counters.change(place).set_number(old, 0.0);
        let name = self.counters.name(place);
        visit(Entry::Counter { name, value });
        if self.counters.is_in(place, old) {
            if policy.delete_counters && !Store::is_own_counter(name) {
                self.counters.remove(place);
            } else {
                self.counters.enter(place, new);
            }
        }
        Ok(())
    }

    fn drain_gauge(&mut self, policy: &Policy, visit: &mut impl FnMut(Entry<'_>)) -> Step {
        let (old, new) = (1 - self.bank, self.bank);
        let place = self.gauges.drain_next(STRIDE)?;
        let (name, value) = (self.gauges.name(place), self.gauges.number(place, old));
        visit(Entry::Gauge { name, value });
        if self.gauges.is_in(place, old) {
            let idle = self.idle(place);
            if policy.is_last_flush_of_gauge(idle) && !self.is_own_gauge(name) {
                self.gauges.remove(place);
            } else {
                let idle = idle.saturating_add(u32::from(policy.delete_gauges));
                let (mut gauge, _) = self.gauges.enter(place, new);
                gauge.set_number(new, value);
                gauge.set_word(IDLE, u64::from(idle));
            }
        }
        Ok(())
    }

    /// The gauge that the daemon sets itself at each flush does not age.
    pub(super) fn is_own_gauge(&self, name: &[u8]) -> bool {
        let rest = name.strip_prefix(self.prefix_stats.as_bytes());
        rest == Some(b".timestamp_lag")
    }

    fn drain_set(&mut self, drain: &mut Drain, visit: &mut impl FnMut(Entry<'_>)) -> Step {
        let (old, new) = (1 - self.bank, self.bank);
        let place = self.sets.drain_next(STRIDE)?;
        let members = &self.sets.get(place)[old];
        visit(Entry::Set {
            name: self.sets.names().name(place),
            members,
        });
        // A busy set's memory is kept for its next members, if it is not much.
        let size = members.allocated();
        let keep = !members.is_empty() && size < KEPT;
        let members = &mut self.sets.get_mut(place).0[old];
        if size > LARGE {
            drain.remains = Some(std::mem::take(members));
        } else {
            members.clear(keep);
        }
        if self.sets.names().is_in(place, old) {
            if drain.plan.policy.delete_sets {
                self.sets.remove(place);
            } else {
                self.sets.enter(place, new);
            }
        }
        Ok(())
    }

    /// Timers take work; this returns with [`Pause::More`] when the budget ends in the midst of it.
    fn drain_timer(
        &mut self,
        drain: &mut Drain,
        budget: &mut usize,
        visit: &mut impl FnMut(Entry<'_>),
    ) -> Step {
        let old = 1 - self.bank;
        if drain.timer.is_none() {
            let place = self.timers.drain_next(STRIDE)?;
            let (samples, slot) = self.timers.get_mut(place);
            let samples = std::mem::take(&mut samples[old]);
            drain.work.begin(samples, &drain.plan.summary, budget);
            drain.name.clear();
            drain
                .name
                .extend_from_slice(self.timers.names().name(place));
            drain.timer = Some(slot);
            drain.handed_over = false;
        }
        if !drain.handed_over {
            if !drain.work.step(budget) {
                return Err(Pause::More);
            }
            let timer = Timer {
                work: &drain.work,
                summary: &drain.plan.summary,
            };
            visit(Entry::Timer {
                name: &drain.name,
                timer,
            });
            drain.handed_over = true;
        }
        if !drain.work.release(budget) {
            return Err(Pause::More);
        }
        let Some(slot) = drain.timer.take() else {
            return Err(Pause::More);
        };
        let buffer = drain.work.end();
        // It may have been deleted meanwhile, and even come back.
        let place = self.timers.names().place(slot);
        if let Some(place) = place.filter(|place| self.timers.names().name(*place) == drain.name) {
            self.end_timer(place, old, buffer, drain.plan.policy.delete_timers);
        }
        Ok(())
    }

    fn end_timer(&mut self, place: Place, old: usize, buffer: Samples, delete: bool) {
        self.timers.get_mut(place).0[old] = buffer;
        if self.timers.names().is_in(place, old) {
            if delete {
                self.timers.remove(place);
            } else {
                self.timers.enter(place, 1 - old);
            }
        }
    }
}
