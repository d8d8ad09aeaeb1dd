//! How long to wait before trying again: [`FIRST`], then twice as long each time up to [`LONGEST`],
//! each cut by chance to between half and all, so that many daemons do not come back all at once.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// The failures in a row.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It has failed once more: how long to wait now.
    pub fn pause(&mut self) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        pause.min(LONGEST).mul_f64(0.5 + chance() / 2.0)
    }

    /// It works: the next failure is the first.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A number from 0 to 1.
fn chance() -> f64 {
    (RandomState::new().build_hasher().finish() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        for full in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000] {
            let full = Duration::from_millis(full);
            let pause = backoff.pause();
            assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }

    #[test]
    fn pauses_differ() {
        let pauses: Vec<_> = (0..10).map(|_| Backoff::default().pause()).collect();
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }
}
