//! Whether a node is alive, and when to ask it again. Pure; time is passed in.
//!
//! A node is asked every `checkInterval`, which is also how long it may take to answer, and at once when
//! a datagram comes back refused. One answer is enough to change its state, as in the original.

use std::time::{Duration, Instant};

/// The shortest time between two checks, however many datagrams come back.
const HURRY: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Clone, Debug)]
pub struct Health {
    alive: bool,
    /// When the state last changed, in seconds since the epoch.
    since: u64,
    next: Instant,
    /// The start of the check under way, or of the last one.
    started: Option<Instant>,
}

impl Health {
    /// A node that has not been asked yet; the first check is due now. At start nodes are believed to
    /// be alive, as in the original.
    pub fn new(alive: bool, now: Instant, seconds: u64) -> Health {
        Health {
            alive,
            since: seconds,
            next: now,
            started: None,
        }
    }

    /// Whether lines go to it.
    pub fn is_alive(&self) -> bool {
        self.alive
    }

    /// When its state last changed, in seconds since the epoch.
    pub fn since(&self) -> u64 {
        self.since
    }

    /// When the next check is due.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Begins a check if one is due: then it must be answered before the time that is given.
    pub fn begin(&mut self, now: Instant, interval: Duration) -> Option<Instant> {
        if now < self.next {
            return None;
        }
        self.started = Some(now);
        // Steady, but what was missed is not made up for.
        self.next = (self.next + interval).max(now + interval / 2);
        Some(self.next)
    }

    /// There is a reason to ask before the time.
    pub fn hurry(&mut self, now: Instant) {
        let soon = self.started.map_or(now, |started| now.max(started + HURRY));
        self.next = self.next.min(soon);
    }

    /// The outcome of a check; true when that changes the state.
    pub fn settle(&mut self, alive: bool, seconds: u64) -> bool {
        let changed = self.alive != alive;
        if changed {
            (self.alive, self.since) = (alive, seconds);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn checks_are_steady() {
        let start = Instant::now();
        let mut health = Health::new(true, start, 5);
        assert_eq!(health.begin(start, INTERVAL), Some(start + INTERVAL));
        assert_eq!(health.begin(start + ms(9999), INTERVAL), None);
        // A little late: the next one is not.
        let late = start + ms(10_040);
        assert_eq!(health.begin(late, INTERVAL), Some(start + INTERVAL * 2));
        // Very late (the machine slept): no burst of checks, and time to answer.
        let late = start + ms(95_000);
        assert_eq!(health.begin(late, INTERVAL), Some(late + INTERVAL / 2));
    }

    #[test]
    fn a_refusal_makes_it_hurry_within_reason() {
        let start = Instant::now();
        let mut health = Health::new(true, start, 5);
        health.begin(start, INTERVAL);
        health.hurry(start + ms(10));
        assert_eq!(health.next(), start + HURRY);
        health.hurry(start + ms(50));
        assert_eq!(health.next(), start + HURRY, "not put off");
        assert!(health.begin(start + HURRY, INTERVAL).is_some());
        health.hurry(start + ms(5000));
        assert_eq!(health.next(), start + ms(5000));
    }

    #[test]
    fn changes() {
        let mut health = Health::new(true, Instant::now(), 5);
        assert!(!health.settle(true, 6));
        assert_eq!((health.is_alive(), health.since()), (true, 5));
        assert!(health.settle(false, 7));
        assert!(!health.settle(false, 8));
        assert_eq!((health.is_alive(), health.since()), (false, 7));
        assert!(health.settle(true, 9));
        assert_eq!((health.is_alive(), health.since()), (true, 9));
    }
}
