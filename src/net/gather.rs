//! Leaving a socket alone for a moment while datagrams come in fast, so that many are taken at once.
//!
//! To wake for a datagram costs more than to take it in. From two thousand a second on a turn is
//! followed by a pause of up to a millisecond, as long as it takes for some dozens to gather. Metrics
//! are in no hurry, and the receive buffer holds many times that.

use std::time::{Duration, Instant};

/// The longest pause. Turns nearer together than half of it show that one would gather something.
const LONGEST: Duration = Duration::from_millis(1);

/// Below this the datagrams gather by themselves, while those before them are worked on.
const SHORTEST: Duration = Duration::from_micros(60);

/// Datagrams to take in a turn: enough that what a turn costs does not count, and few enough that they
/// are still in the processor's cache.
const FEW: usize = 32;
const MANY: usize = 128;

/// A receive buffer of so many bytes is not filled within a pause at 10 Gbit/s.
pub const ROOM: usize = 1024 * 1024;

/// When to read again.
#[derive(Default)]
pub struct Gather {
    pause: Duration,
    last: Option<Instant>,
}

impl Gather {
    /// So many datagrams were read in a turn that began at this time: how long to wait from then on.
    pub fn pause(&mut self, count: usize, now: Instant) -> Option<Duration> {
        let last = self.last.replace(now);
        self.pause = if self.pause.is_zero() {
            let soon = last.is_some_and(|last| now.saturating_duration_since(last) < LONGEST / 2);
            if soon { LONGEST } else { Duration::ZERO }
        } else if count < 2 {
            Duration::ZERO
        } else if count < FEW {
            (self.pause * 2).min(LONGEST)
        } else if count <= MANY {
            self.pause
        } else {
            self.pause / 2
        };
        if self.pause < SHORTEST {
            self.pause = Duration::ZERO;
        }
        (!self.pause.is_zero()).then_some(self.pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second from `start` on with datagrams at an even rate, each turn taking some microseconds a
    /// datagram and some in any case: the turns there were, and the most that waited at a time.
    fn second(gather: &mut Gather, start: Instant, rate: u64) -> (u32, usize) {
        let (mut now, mut read, mut turns, mut most) = (Duration::ZERO, 0, 0, 0);
        let mut until = (!gather.pause.is_zero()).then_some(Duration::ZERO);
        while now < Duration::from_secs(1) {
            let come = |at: Duration| (at.as_nanos() * u128::from(rate) / 1_000_000_000) as usize;
            match until {
                Some(until) => now = now.max(until),
                // As poll does.
                None if come(now) == read => {
                    now = Duration::from_nanos((read as u64 + 1) * 1_000_000_000 / rate + 1);
                }
                None => {}
            }
            let count = come(now) - read;
            until = gather.pause(count, start + now).map(|pause| now + pause);
            (read, turns, most) = (read + count, turns + 1, most.max(count));
            now += Duration::from_micros(3 + count as u64 / 2);
        }
        (turns, most)
    }

    #[test]
    fn few_turns_for_many_datagrams() {
        // A few are each read as they come.
        let turns = |rate| second(&mut Gather::default(), Instant::now(), rate).0;
        assert_eq!(turns(10), 10);
        assert_eq!(turns(1000), 1000);
        // More of them in a turn a millisecond, and of many a good number at a time.
        for (rate, most) in [(5_000, 1_300), (20_000, 1_300), (60_000, 1_300)] {
            assert!(turns(rate) < most, "{} at {rate}", turns(rate));
        }
        for rate in [200_000, 600_000, 1_000_000] {
            let (turns, most) = second(&mut Gather::default(), Instant::now(), rate);
            assert!(u64::from(turns) <= rate / 30, "{turns} at {rate}");
            assert!(most <= 1_100, "{most} at {rate}");
        }
    }

    #[test]
    fn a_change_of_rate_is_followed() {
        let (mut gather, start) = (Gather::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        second(&mut gather, start, 600_000);
        assert!(!gather.pause.is_zero());
        // One of them finds nothing, and that is the end of pauses.
        assert_eq!(second(&mut gather, after(2), 10).0, 11);
        assert!(gather.pause.is_zero());
        assert!(second(&mut gather, after(4), 60_000).0 < 1_300);
    }
}
