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
    /// Takes a value, which is finite.
    #[inline]
    pub fn push(&mut self, value: f64, count: f64) {
        if self.tail.len() == RUN {
            self.seal();
        }
        // Makes -0 a 0; the two print alike.
        self.tail.push(value + 0.0);
        self.events += count;
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.runs.len() * RUN + self.tail.len()
    }

    /// True without a value.
    pub fn is_empty(&self) -> bool {
        self.tail.is_empty()
    }

    /// Some of the values, from the given one on; none at the end. They are in no order of use.
    pub fn some_from(&self, from: usize) -> &[f64] {
        match self.runs.get(from / RUN) {
            Some(run) => &run[from % RUN..],
            None => self.tail.get(from - self.runs.len() * RUN..).unwrap_or(&[]),
        }
    }

    #[cold]
    fn seal(&mut self) {
        self.tail.sort_unstable_by(f64::total_cmp);
        let full = std::mem::replace(&mut self.tail, Vec::with_capacity(RUN));
        self.runs.push(full.into_boxed_slice());
    }
}

#[cfg(test)]
mod tests;
