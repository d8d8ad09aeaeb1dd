//! Timer statistics: the values of one interval ([`Samples`]), what the config wants of them
//! ([`Summary`]), and the figures being made ([`Work`]). Core: no I/O.
//!
//! Values are kept in sorted runs as they come in, so that a timer of millions of values needs no
//! sort at the flush, just a merge that can be cut into slices ([`Work::step`]). Sums run over the
//! sorted values in order, as the original's do, so that they agree with it to the last bit (SPEC 4).

mod summary;
mod work;

pub use summary::Summary;
pub use work::Work;

/// Values that are sorted together when they have come in: some 0.1 ms of work.
const RUN: usize = 4096;

/// How much shorter a timer's first run can be.
const STAGGER: usize = RUN / 2;

/// The values of one timer in one interval.
#[derive(Default)]
pub struct Samples {
    /// Full runs, each sorted.
    runs: Vec<Box<[f64]>>,
    /// The run that is being filled, in the order of arrival.
    tail: Vec<f64>,
    /// Events: the sum of 1 over the sample rate.
    events: f64,
}

impl Samples {
    /// Takes a value, which is finite, of the timer with this number.
    #[inline]
    pub fn push(&mut self, value: f64, count: f64, number: u32) {
        if self.tail.len() >= RUN - STAGGER && self.is_full(number) {
            self.seal();
        }
        // Makes -0 a 0; the two print alike.
        self.tail.push(value + 0.0);
        self.events += count;
    }

    /// The first run is shorter by so much as follows from the timer's number: timers that come in
    /// step, as those of one program do, would otherwise all have their runs sorted at once.
    fn is_full(&self, number: u32) -> bool {
        let shorter = if self.runs.is_empty() {
            number as usize * 797 % STAGGER
        } else {
            0
        };
        self.tail.len() + shorter >= RUN
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.runs.iter().map(|run| run.len()).sum::<usize>() + self.tail.len()
    }

    /// True without a value.
    pub fn is_empty(&self) -> bool {
        self.tail.is_empty()
    }

    /// Some of the values, from the given one on; none at the end. They are in no order of use.
    pub fn some_from(&self, mut from: usize) -> &[f64] {
        for run in &self.runs {
            match run.get(from..) {
                Some(rest) if !rest.is_empty() => return rest,
                _ => from -= run.len(),
            }
        }
        self.tail.get(from..).unwrap_or(&[])
    }

    #[cold]
    fn seal(&mut self) {
        sort(&mut self.tail);
        let full = std::mem::replace(&mut self.tail, Vec::with_capacity(RUN));
        self.runs.push(full.into_boxed_slice());
    }
}

/// Sorts values, none of which is -0. The order of numbers from 0 on is that of their bits, and integers
/// are compared in half the time.
fn sort(values: &mut [f64]) {
    if values.iter().all(|value| *value >= 0.0) {
        values.sort_unstable_by_key(|value| value.to_bits());
    } else {
        values.sort_unstable_by(f64::total_cmp);
    }
}

#[cfg(test)]
mod tests;
