//! Handing out the old bank, in slices, while the new one fills. Core: no I/O, no clock.
//!
//! A slice is as long as its budget, counted in units of some 20 ns: a name passed over costs 1, one
//! handed out [`ENTRY_COST`], a timer value 1 for its merge and less for its sums.

use super::{Store, table::Step};
use crate::snapshot::{Entry, Timer};
use crate::timer::{Samples, Summary, Work};
use std::rc::Rc;

/// What a backend takes for an entry, in units: two lines of text.
const ENTRY_COST: usize = 15;

/// Vacant slots passed over at a time.
const STRIDE: usize = 256;

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
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Counters,
    Timers,
    Gauges,
    Sets,
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
        });
        true
    }

    /// Hands out the next slice of the old bank. `Some` when that was the last: the number of
    /// buckets in the whole flush.
    pub fn drain(&mut self, mut budget: usize, visit: &mut impl FnMut(Entry<'_>)) -> Option<usize> {
        let mut drain = self.drain.take()?;
        while budget > 0 {
            let step = match drain.stage {
                Stage::Counters => self.drain_counter(&drain.plan.policy, visit),
                Stage::Timers => self.drain_timer(&mut drain, &mut budget, visit),
                Stage::Gauges => self.drain_gauge(&drain.plan.policy, visit),
                Stage::Sets => self.drain_set(&drain.plan.policy, visit),
            };
            match step {
                Step::Slot(_) => {
                    drain.handed_out += 1;
                    budget = budget.saturating_sub(ENTRY_COST);
                }
                Step::More => budget = budget.saturating_sub(STRIDE),
                Step::End => {
                    drain.stage = match drain.stage {
                        Stage::Counters => Stage::Timers,
                        Stage::Timers => Stage::Gauges,
                        Stage::Gauges => Stage::Sets,
                        Stage::Sets => return Some(drain.handed_out),
                    }
                }
            }
        }
        self.drain = Some(drain);
        None
    }

    fn drain_counter(&mut self, policy: &Policy, visit: &mut impl FnMut(Entry<'_>)) -> Step {
        let (old, new) = (1 - self.bank, self.bank);
        let step = self.counters.drain_next(STRIDE);
        if let Step::Slot(id) = step {
            let value = std::mem::take(&mut self.counters.get_mut(id)[old]);
            let name = self.counters.name(id);
            visit(Entry::Counter { name, value });
            if self.counters.is_in(id, old) {
                if policy.delete_counters && !Store::is_own_counter(name) {
                    self.counters.remove(id);
                } else {
                    self.counters.enter(id, new);
                }
            }
        }
        step
    }

    fn drain_gauge(&mut self, policy: &Policy, visit: &mut impl FnMut(Entry<'_>)) -> Step {
        let (old, new) = (1 - self.bank, self.bank);
        let step = self.gauges.drain_next(STRIDE);
        if let Step::Slot(id) = step {
            let value = self.gauges.get(id).value[old];
            visit(Entry::Gauge {
                name: self.gauges.name(id),
                value,
            });
            if self.gauges.is_in(id, old) {
                let (gauge, _) = self.gauges.enter(id, new);
                gauge.value[new] = value;
                let last = policy.is_last_flush_of_gauge(gauge.idle);
                gauge.idle = gauge.idle.saturating_add(u32::from(policy.delete_gauges));
                if last && !self.is_own_gauge(id) {
                    self.gauges.remove(id);
                }
            }
        }
        step
    }

    /// The gauge that the daemon sets itself at each flush does not age.
    pub(super) fn is_own_gauge(&self, id: u32) -> bool {
        let rest = self
            .gauges
            .name(id)
            .strip_prefix(self.prefix_stats.as_bytes());
        rest == Some(b".timestamp_lag")
    }

    fn drain_set(&mut self, policy: &Policy, visit: &mut impl FnMut(Entry<'_>)) -> Step {
        let (old, new) = (1 - self.bank, self.bank);
        let step = self.sets.drain_next(STRIDE);
        if let Step::Slot(id) = step {
            let members = &self.sets.get(id)[old];
            visit(Entry::Set {
                name: self.sets.name(id),
                members,
            });
            // A busy set's memory is kept for its next members, if it is not much.
            let keep = !members.is_empty() && members.allocated() < 4096;
            self.sets.get_mut(id)[old].clear(keep);
            if self.sets.is_in(id, old) {
                if policy.delete_sets {
                    self.sets.remove(id);
                } else {
                    self.sets.enter(id, new);
                }
            }
        }
        step
    }

    /// Timers take work; this returns with [`Step::More`] when the budget ends in the midst of it.
    fn drain_timer(
        &mut self,
        drain: &mut Drain,
        budget: &mut usize,
        visit: &mut impl FnMut(Entry<'_>),
    ) -> Step {
        let old = 1 - self.bank;
        if drain.timer.is_none() {
            match self.timers.drain_next(STRIDE) {
                Step::Slot(id) => {
                    let samples = std::mem::take(&mut self.timers.get_mut(id)[old]);
                    drain.work.begin(samples, &drain.plan.summary, budget);
                    drain.name.clear();
                    drain.name.extend_from_slice(self.timers.name(id));
                    drain.timer = Some(id);
                    drain.handed_over = false;
                }
                step => return step,
            }
        }
        if !drain.handed_over {
            if !drain.work.step(budget) {
                return Step::More;
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
            return Step::More;
        }
        let Some(id) = drain.timer.take() else {
            return Step::More;
        };
        let buffer = drain.work.end();
        // It may have been deleted meanwhile, and even come back.
        if self.timers.live(id) && self.timers.name(id) == drain.name {
            self.end_timer(id, old, buffer, drain.plan.policy.delete_timers);
        }
        Step::Slot(id)
    }

    fn end_timer(&mut self, id: u32, old: usize, buffer: Samples, delete: bool) {
        self.timers.get_mut(id)[old] = buffer;
        if self.timers.is_in(id, old) {
            if delete {
                self.timers.remove(id);
            } else {
                self.timers.enter(id, 1 - old);
            }
        }
    }
}
