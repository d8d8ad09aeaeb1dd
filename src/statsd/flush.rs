//! The flush under way: from the deadline, slice by slice between polls, to its end.

use crate::backend::{Backend, Totals};
use crate::event_loop::Now;
use crate::snapshot::Flush;
use crate::store::{Plan, Store};
use std::time::{Duration, Instant};

/// Work in a slice, in the store's units of some 20 ns: half a millisecond.
const SLICE: usize = 25_000;

/// See the module.
#[derive(Default)]
pub struct Flusher {
    running: Option<Running>,
    /// Timestamp of the previous flush.
    last: Option<u64>,
    /// The longest that a slice has kept the loop from receiving, in this interval and the last.
    pause: Duration,
    last_pause: Duration,
}

/// What is known of a flush when its time has come.
pub struct Due {
    /// How it is to be made.
    pub plan: Plan,
    /// `flushInterval`.
    pub interval: Duration,
    /// The time since the last flush, in whole intervals: more than one if some were missed.
    pub covered: Duration,
    /// Datagrams that the kernel dropped in it.
    pub udp_drops: u64,
}

struct Running {
    flush: Flush,
    /// Spent on it so far.
    work: Duration,
    /// Do not wait for a backend to make room.
    urgent: bool,
    udp_drops: u64,
}

impl Flusher {
    /// Whether a flush is under way.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The longest pause of the last interval.
    pub fn last_pause(&self) -> Duration {
        self.last_pause
    }

    /// The deadline has come: what was received so far is in this flush, what comes later is not.
    pub fn begin(
        &mut self,
        store: &mut Store,
        due: Due,
        backends: &mut [Box<dyn Backend>],
        now: Now,
    ) {
        let interval = due.interval.as_secs_f64();
        let mut timestamp = now.seconds();
        let near = |last: &u64| (timestamp..timestamp + 2).contains(last);
        if let Some(last) = self.last.filter(|last| interval >= 1.0 && near(last)) {
            // Rounded alike, or the last flush soon after the one before: under the same second
            // Graphite would put the one in the place of the other.
            timestamp = last + 1;
        }
        let flush = Flush {
            timestamp,
            seconds: due.covered.as_secs_f64(),
        };
        if let Some(last) = self.last.replace(flush.timestamp) {
            // The timestamp's distance from the last, beside the interval (negative: it came early).
            let lag = flush.timestamp as f64 - last as f64 - interval;
            store.set_own_gauge("timestamp_lag", lag);
        }
        store.flip(due.plan);
        for backend in backends {
            backend.flush_begin(&flush, now);
        }
        self.last_pause = std::mem::take(&mut self.pause);
        self.running = Some(Running {
            flush,
            work: Duration::ZERO,
            urgent: false,
            udp_drops: due.udp_drops,
        });
    }

    /// A backend that a reload has added in the midst of a flush: it gets the rest of it, under its
    /// timestamp.
    pub fn join(&self, backend: &mut dyn Backend, now: Now) {
        if let Some(running) = &self.running {
            backend.flush_begin(&running.flush, now);
        }
    }

    /// The rest must not wait for anyone any more: the next flush is due, or the daemon ends.
    pub fn hurry(&mut self) {
        if let Some(running) = &mut self.running {
            running.urgent = true;
        }
    }

    /// Whether [`Flusher::slice`] has something to do now.
    pub fn is_ready(&self, backends: &[Box<dyn Backend>]) -> bool {
        let room = || backends.iter().all(|backend| backend.has_room());
        self.running
            .as_ref()
            .is_some_and(|running| running.urgent || room())
    }

    /// Hands out one slice. After the last one: the flush, and what to say of it.
    pub fn slice(
        &mut self,
        store: &mut Store,
        backends: &mut [Box<dyn Backend>],
    ) -> Option<(Flush, Totals)> {
        let running = self.running.as_mut()?;
        let began = Instant::now();
        let flush = &running.flush;
        let count = store.drain(SLICE, &mut |entry| {
            for backend in &mut *backends {
                backend.flush_entry(flush, &entry);
            }
        });
        let took = began.elapsed();
        running.work += took;
        self.pause = self.pause.max(took);
        let num_stats = count?;
        let running = self.running.take()?;
        let own = [
            ("udp_drops", running.udp_drops as f64),
            (
                "flush_pause_ms",
                milliseconds(self.last_pause.max(self.pause)),
            ),
        ];
        let totals = Totals {
            num_stats,
            processing_time: running.work.as_millis() as f64,
            own: own.map(|(name, value)| (name.to_string(), value)).to_vec(),
        };
        Some((running.flush, totals))
    }
}

/// With three decimals.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Bounds, Policy};
    use crate::timer::Summary;
    use std::rc::Rc;
    use std::time::UNIX_EPOCH;

    /// Timestamps of flushes at these times of the wall clock, in seconds.
    fn timestamps(interval: f64, times: &[f64]) -> Vec<u64> {
        let bounds = Bounds {
            names: 10,
            timer_values: 10,
            set_members: 10,
        };
        let mut store = Store::new("statsd", true, bounds);
        let mut flusher = Flusher::default();
        let flush = |time: &f64| {
            let now = Now {
                mono: Instant::now(),
                wall: UNIX_EPOCH + Duration::from_secs_f64(*time),
            };
            let plan = Plan {
                policy: Policy::default(),
                summary: Rc::new(Summary::new(&[], &[], [])),
            };
            let interval = Duration::from_secs_f64(interval);
            let due = Due {
                plan,
                interval,
                covered: interval,
                udp_drops: 0,
            };
            flusher.begin(&mut store, due, &mut [], now);
            loop {
                if let Some((flush, _)) = flusher.slice(&mut store, &mut []) {
                    return flush.timestamp;
                }
            }
        };
        times.iter().map(flush).collect()
    }

    #[test]
    fn no_two_flushes_have_one_timestamp() {
        for (interval, times, expected) in [
            // Half past the second, a little late, a little early.
            (
                1.0,
                &[9.49, 10.51, 11.49, 12.4, 13.6][..],
                &[9, 11, 12, 13, 14][..],
            ),
            (1.0, &[9.51, 10.49, 11.5, 12.5], &[10, 11, 12, 13]),
            // The last flush, soon after another, that was one late itself.
            (10.0, &[10.0, 20.0, 20.3], &[10, 20, 21]),
            (1.0, &[9.51, 10.49, 10.49], &[10, 11, 12]),
            // The wall clock is followed wherever it goes.
            (
                10.0,
                &[1000.0, 1010.0, 500.0, 510.0],
                &[1000, 1010, 500, 510],
            ),
            // Many flushes in a second cannot differ.
            (0.2, &[10.0, 10.2, 10.4], &[10, 10, 10]),
        ] {
            assert_eq!(timestamps(interval, times), expected, "{times:?}");
        }
    }
}
