//! Keeping the log short: so many lines in an interval ([`RateLimit`]), and states that are
//! reported when they begin and when they end ([`Latch`]). Pure; time is passed in.

use std::time::{Duration, Instant};

/// So many lines in an interval; the rest are counted and summed up in one line.
#[derive(Clone, Debug)]
pub struct RateLimit {
    lines: u32,
    interval: Duration,
    /// Start of the present interval, and lines logged in it.
    present: Option<(Instant, u32)>,
    suppressed: u64,
}

impl RateLimit {
    /// At most `lines` in each `interval`.
    pub const fn new(lines: u32, interval: Duration) -> RateLimit {
        RateLimit {
            lines,
            interval,
            present: None,
            suppressed: 0,
        }
    }

    /// Whether to log this one. If not, it is counted.
    pub fn allow(&mut self, now: Instant) -> bool {
        let over = |start: Instant| now.saturating_duration_since(start) >= self.interval;
        let logged = match self.present {
            Some((start, logged)) if !over(start) => logged,
            _ => {
                self.present = Some((now, 0));
                0
            }
        };
        if logged < self.lines {
            self.present = self.present.map(|(start, logged)| (start, logged + 1));
            return true;
        }
        self.suppressed += 1;
        false
    }

    /// How many were kept out of the log, once their interval is over; once each.
    pub fn summary(&mut self, now: Instant) -> Option<u64> {
        let (start, _) = self.present?;
        let due = now.saturating_duration_since(start) >= self.interval;
        (due && self.suppressed > 0).then(|| std::mem::take(&mut self.suppressed))
    }
}

/// A state that is logged once when it is entered and once when it is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latch {
    on: bool,
}

impl Latch {
    /// A latch that is off.
    pub const fn new() -> Latch {
        Latch { on: false }
    }

    /// Says what the state is now; true when that is news.
    pub fn set(&mut self, on: bool) -> bool {
        std::mem::replace(&mut self.on, on) != on
    }

    /// The state as last set.
    pub fn is_on(self) -> bool {
        self.on
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_over_the_limit_become_one_summary() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut limit = RateLimit::new(2, Duration::from_secs(1));
        assert_eq!(limit.summary(at(0)), None);
        let allowed: Vec<bool> = (0..5).map(|ms| limit.allow(at(ms))).collect();
        assert_eq!(allowed, [true, true, false, false, false]);
        assert_eq!(limit.summary(at(999)), None, "the interval is not over");
        assert_eq!(limit.summary(at(1000)), Some(3));
        assert_eq!(limit.summary(at(1001)), None, "said twice");
        assert!(limit.allow(at(1002)), "a new interval");
    }

    #[test]
    fn a_new_interval_does_not_forget_what_the_last_one_kept_back() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut limit = RateLimit::new(1, Duration::from_secs(1));
        let allowed: Vec<bool> = [0, 0, 5, 5].map(|s| limit.allow(at(s))).to_vec();
        assert_eq!(allowed, [true, false, true, false]);
        assert_eq!(limit.summary(at(6)), Some(2));
    }

    #[test]
    fn a_latch_tells_changes_alone() {
        let mut latch = Latch::new();
        let news = [false, true, true, false, false, true].map(|on| latch.set(on));
        assert_eq!(news, [false, true, false, true, false, true]);
        assert!(latch.is_on());
    }
}
