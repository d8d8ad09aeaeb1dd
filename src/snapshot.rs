//! What a backend sees of a flush: one moment's metrics, one after the other. Core: no I/O.
//!
//! The store hands out its old bank piece by piece while the new one fills ([`crate::store`]); a backend
//! gets each piece as an [`Entry`] and never the store itself.

use crate::store::Members;
use crate::timer::{Summary, Work};

/// What holds for a flush as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Flush {
    /// Wall clock at the deadline, in whole seconds since the epoch.
    pub timestamp: u64,
    /// The time that it covers, in seconds, which rates refer to: the flush interval, or several of them
    /// where flushes were missed.
    pub seconds: f64,
}

/// One bucket's content at the flush.
pub enum Entry<'a> {
    /// A counter's sum.
    Counter {
        /// Bucket name.
        name: &'a [u8],
        /// The sum over the interval. Divide by [`Flush::seconds`] for the rate.
        value: f64,
    },
    /// A timer.
    Timer {
        /// Bucket name.
        name: &'a [u8],
        /// Its figures and values.
        timer: Timer<'a>,
    },
    /// A gauge's value.
    Gauge {
        /// Bucket name.
        name: &'a [u8],
        /// What it is at the flush.
        value: f64,
    },
    /// A set.
    Set {
        /// Bucket name.
        name: &'a [u8],
        /// Its distinct members.
        members: &'a Members,
    },
}

/// A timer's figures, made when asked for.
#[derive(Clone, Copy)]
pub struct Timer<'a> {
    pub(crate) work: &'a Work,
    pub(crate) summary: &'a Summary,
}

impl Timer<'_> {
    /// Each figure that `calculatedTimerMetrics` keeps, in the original's order: `count_90`, …; those of
    /// a histogram are `histogram.bin_10`.
    pub fn figures(&self, name: &[u8], seconds: f64, emit: impl FnMut(&str, f64)) {
        self.work.figures(name, self.summary, seconds, emit);
    }

    /// The values, sorted.
    pub fn values(&self) -> &[f64] {
        self.work.sorted()
    }
}
