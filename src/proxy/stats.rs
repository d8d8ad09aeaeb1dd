//! The own counters, as lines for the ring (`proxyStats`): what each has grown by since the last time,
//! so that those of several processes and proxies add up.

use crate::event_loop::{Now, PollSet};
use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

/// See the module.
#[derive(Default)]
pub struct OwnStats {
    /// How often, and when next; `None` is never.
    schedule: Option<(Duration, Instant)>,
    /// What was told last.
    told: HashMap<String, u64>,
}

impl OwnStats {
    /// Every so often from now on.
    pub fn new(interval: Option<Duration>, now: Now) -> OwnStats {
        OwnStats {
            schedule: interval.map(|interval| (interval, now.mono + interval)),
            told: HashMap::new(),
        }
    }

    /// Whether they are sent at all.
    pub fn is_on(&self) -> bool {
        self.schedule.is_some()
    }

    /// Says when to wake up.
    pub fn register(&self, poll: &mut PollSet) {
        if let Some((_, next)) = self.schedule {
            poll.wake_at(next);
        }
    }

    /// Whether it is time; if so, the next time is set.
    pub fn is_due(&mut self, now: Now) -> bool {
        match &mut self.schedule {
            Some((interval, next)) if now.mono >= *next => {
                *next = (*next + *interval).max(now.mono);
                true
            }
            _ => false,
        }
    }

    /// Appends a counter's line.
    pub fn write(&mut self, prefix: &str, name: &str, total: u64, lines: &mut Vec<u8>) {
        let told = self.told.insert(name.to_string(), total).unwrap_or(0);
        // A node that left the config and came back counts from 0 again.
        let growth = total.checked_sub(told).unwrap_or(total);
        // Writing to memory does not fail.
        let _ = writeln!(lines, "{prefix}{name}:{growth}|c");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth() {
        let mut stats = OwnStats::default();
        let mut lines = Vec::new();
        for total in [3, 10, 10, 4] {
            stats.write("statsd.proxy.", "lines", total, &mut lines);
        }
        let expected = [3, 7, 0, 4].map(|n| format!("statsd.proxy.lines:{n}|c\n"));
        assert_eq!(String::from_utf8(lines).unwrap(), expected.concat());
    }

    #[test]
    fn times() {
        let start = Now::read();
        let at = |ms| Now {
            mono: start.mono + Duration::from_millis(ms),
            ..start
        };
        let mut stats = OwnStats::new(Some(Duration::from_secs(1)), start);
        let due: Vec<bool> = [999, 1000, 1001, 2100, 2999, 3000, 9500, 9501]
            .map(|ms| stats.is_due(at(ms)))
            .to_vec();
        // The last two: missed ones are not made up for, one that is due now is.
        assert_eq!(due, [false, true, false, true, false, true, true, true]);
        assert!(!OwnStats::new(None, start).is_due(at(9000)));
    }
}
