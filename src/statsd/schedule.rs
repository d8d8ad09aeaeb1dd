//! When the next flush is due. Pure: both clocks are passed in.
//!
//! Deadlines are monotonic: the wall clock may step as it likes. The next one is the last plus the
//! interval; those that passed meanwhile (a stopped process, a machine suspended while this clock went
//! on) are skipped and counted, and the next flush covers their time too. With `flushAlign` they fall
//! on multiples of the interval of the wall clock.

use crate::event_loop::Now;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// See the module.
#[derive(Debug)]
pub struct Schedule {
    interval: Duration,
    align: bool,
    next: Instant,
    /// From the last flush that took place to the last deadline.
    covered: Duration,
    missed: u64,
}

impl Schedule {
    /// The first flush is one interval from now, or at the next multiple of it.
    pub fn new(interval: Duration, align: bool, now: Now) -> Schedule {
        let mut schedule = Schedule {
            interval,
            align,
            next: now.mono,
            covered: Duration::ZERO,
            missed: 0,
        };
        schedule.next = schedule.after(now.mono, now);
        schedule
    }

    /// Takes new settings. The flush that is due next comes no later than the new interval from now.
    pub fn configure(&mut self, interval: Duration, align: bool, now: Now) {
        if (interval, align) != (self.interval, self.align) {
            // What has passed of the old interval is in the next flush too.
            let left = self.next.saturating_duration_since(now.mono);
            self.covered += self.interval.saturating_sub(left);
            (self.interval, self.align) = (interval, align);
            self.next = self.after(now.mono, now);
        }
    }

    /// When the next flush is due.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// The flush that is due cannot take place.
    pub fn miss(&mut self) {
        self.missed += 1;
    }

    /// Flushes that did not take place, as their time had passed or the one before was not through, since
    /// the start.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Whether a flush is due. If so the next one is set.
    pub fn is_due(&mut self, now: Now) -> bool {
        if now.mono < self.next {
            return false;
        }
        let late = now.mono.saturating_duration_since(self.next).as_nanos();
        let skipped = late / self.interval.as_nanos().max(1);
        self.missed += skipped as u64;
        let steps = u32::try_from(skipped).unwrap_or(u32::MAX);
        let passed = self.interval.saturating_mul(steps.saturating_add(1));
        self.covered = self.covered.saturating_add(passed);
        let last = self.next + self.interval.saturating_mul(steps);
        self.next = self.after(last, now);
        true
    }

    /// A flush takes place: the time that it covers, up to the last deadline. In whole intervals, however
    /// late it is, but for one that a reload has ended.
    pub fn take_covered(&mut self) -> Duration {
        std::mem::take(&mut self.covered)
    }

    fn after(&self, last: Instant, now: Now) -> Instant {
        if !self.align {
            return last + self.interval;
        }
        let wall = now
            .wall
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let interval = self.interval.as_nanos().max(1);
        let mut wait = interval - wall % interval;
        if wait < interval / 10 && now.mono >= self.next && last == self.next {
            // The wall clock is a little behind: this multiple is the one just flushed.
            wait += interval;
        }
        now.mono + Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    const TEN: Duration = Duration::from_secs(10);

    fn at(start: Now, mono: f64, wall: f64) -> Now {
        Now {
            mono: start.mono + Duration::from_secs_f64(mono),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs_f64(1_700_000_000.0 + wall),
        }
    }

    fn start() -> Now {
        Now {
            mono: Instant::now(),
            wall: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        }
    }

    #[test]
    fn keeps_its_beat_whatever_the_wall_clock_does() {
        let start = start();
        let mut schedule = Schedule::new(TEN, false, start);
        assert!(!schedule.is_due(at(start, 9.999, 0.0)));
        assert!(schedule.is_due(at(start, 10.3, 86_400.0)));
        assert!(!schedule.is_due(at(start, 19.9, -86_400.0)));
        assert!(schedule.is_due(at(start, 20.0, -86_400.0)));
        assert_eq!(schedule.missed(), 0);
    }

    #[test]
    fn skips_and_counts_what_it_slept_through() {
        let start = start();
        let mut schedule = Schedule::new(TEN, false, start);
        assert!(schedule.is_due(at(start, 75.0, 75.0)));
        assert_eq!(schedule.missed(), 6);
        assert!(!schedule.is_due(at(start, 79.9, 79.9)));
        assert!(schedule.is_due(at(start, 80.0, 80.0)));
        // One that the role had to leave out stays counted.
        schedule.miss();
        assert!(schedule.is_due(at(start, 110.0, 110.0)));
        assert_eq!(schedule.missed(), 9);
    }

    #[test]
    fn a_flush_covers_the_time_of_those_that_were_missed() {
        let start = start();
        let mut schedule = Schedule::new(TEN, false, start);
        assert!(schedule.is_due(at(start, 10.3, 10.3)));
        assert_eq!(schedule.take_covered(), TEN, "it is late, not longer");
        assert!(schedule.is_due(at(start, 20.0, 20.0)));
        schedule.miss();
        assert!(schedule.is_due(at(start, 30.0, 30.0)));
        assert_eq!(schedule.take_covered(), 2 * TEN, "one was left out");
        assert!(schedule.is_due(at(start, 75.0, 75.0)));
        assert_eq!(schedule.take_covered(), 4 * TEN, "three were slept through");
    }

    #[test]
    fn sleeps_however_long() {
        let (start, interval) = (start(), Duration::from_millis(1));
        let mut schedule = Schedule::new(interval, false, start);
        let mono = start.mono + interval * u32::MAX + interval;
        assert!(schedule.is_due(Now { mono, ..start }));
        assert_eq!(schedule.missed(), u64::from(u32::MAX));
        assert!(schedule.take_covered() >= interval * u32::MAX);
    }

    #[test]
    fn aligns_to_the_wall_clock() {
        let start = start();
        let mut schedule = Schedule::new(TEN, true, at(start, 0.0, 3.0));
        assert!(!schedule.is_due(at(start, 6.9, 9.9)));
        assert!(schedule.is_due(at(start, 7.0, 10.0)));
        assert!(!schedule.is_due(at(start, 16.9, 19.9)));
        // A little early by the wall clock: not twice for one multiple.
        assert!(schedule.is_due(at(start, 17.0, 19.99)));
        assert!(!schedule.is_due(at(start, 17.1, 20.1)));
        assert!(schedule.is_due(at(start, 27.1, 30.1)));
    }

    #[test]
    fn takes_a_new_interval() {
        let start = start();
        let mut schedule = Schedule::new(TEN, false, start);
        schedule.configure(TEN, false, at(start, 5.0, 5.0));
        assert_eq!(schedule.next(), start.mono + TEN);
        schedule.configure(Duration::from_secs(1), false, at(start, 5.0, 5.0));
        assert!(schedule.is_due(at(start, 6.0, 6.0)));
        assert_eq!(schedule.take_covered(), Duration::from_secs(6));
    }
}
