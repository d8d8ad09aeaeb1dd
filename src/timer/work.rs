//! The figures of one timer being made: sorted runs are merged, then summed up in order, in slices as
//! long as their budget, counted in merged values of some 20 ns. Core: no I/O.

use super::summary::{COUNT, COUNT_PS, PLAIN, Summary, in_threshold};
use super::{RUN, Samples, sort};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What giving back the memory of a run costs, in merged values.
const RUN_COST: usize = 50;

/// Values whose memory is given back at a time, and what that costs in merged values: 256 pages.
const RELEASE: usize = 128 * 1024;
const RELEASE_COST: usize = 5_000;

/// Adding a value up costs this many times less than merging it.
const SUMS_PER_MERGE: usize = 8;

/// The figures of one timer being made, in steps.
#[derive(Default)]
pub struct Work {
    events: f64,
    runs: Vec<Box<[f64]>>,
    /// The least values not merged yet, each by its [`rank`], and run and place.
    heads: BinaryHeap<Reverse<(u64, u32, u32)>>,
    sorted: Vec<f64>,
    expected: usize,
    summed: usize,
    sum: f64,
    squares: f64,
    /// Where the sums so far are needed, in order, and what they were.
    marks: Vec<Mark>,
    marked: usize,
    deviated: usize,
    deviation: f64,
}

#[derive(Clone, Copy)]
struct Mark {
    index: usize,
    sum: f64,
    squares: f64,
}

impl Work {
    /// Begins with the values of an interval; takes what that costs off the budget.
    pub fn begin(&mut self, samples: Samples, summary: &Summary, budget: &mut usize) {
        let expected = samples.len();
        let Samples {
            runs,
            mut tail,
            events,
        } = samples;
        *budget = budget.saturating_sub(tail.len());
        sort(&mut tail);
        self.events = events;
        self.expected = expected;
        (self.summed, self.marked, self.deviated) = (0, 0, 0);
        (self.sum, self.squares, self.deviation) = (0.0, 0.0, 0.0);
        self.heads.clear();
        if runs.is_empty() {
            self.sorted = tail;
            self.runs.clear();
        } else {
            self.sorted = Vec::with_capacity(expected);
            self.runs = runs;
            self.runs.push(tail.into_boxed_slice());
            let heads = self.runs.iter().enumerate();
            self.heads
                .extend(heads.map(|(run, values)| Reverse((rank(values[0]), run as u32, 0))));
        }
        self.marks.clear();
        for threshold in &summary.thresholds {
            let within = in_threshold(threshold.percent, expected);
            let index = if threshold.percent > 0.0 {
                within
            } else {
                expected - within
            };
            if within > 0 && index > 0 {
                self.marks.push(Mark {
                    index: index - 1,
                    sum: 0.0,
                    squares: 0.0,
                });
            }
        }
        self.marks.sort_unstable_by_key(|mark| mark.index);
    }

    /// Goes on for about `budget` merged values (some 20 ns each), which are taken off it. True when
    /// the figures are ready.
    pub fn step(&mut self, budget: &mut usize) -> bool {
        self.merge(budget);
        if self.sorted.len() < self.expected {
            return false;
        }
        self.add_up(budget) && self.deviate(budget)
    }

    fn merge(&mut self, budget: &mut usize) {
        while *budget > 0 && self.sorted.len() < self.expected {
            *budget -= 1;
            let Some(mut head) = self.heads.peek_mut() else {
                return;
            };
            let Reverse((_, run, at)) = *head;
            let values = &mut self.runs[run as usize];
            self.sorted.push(values[at as usize]);
            match values.get(at as usize + 1) {
                Some(next) => *head = Reverse((rank(*next), run, at + 1)),
                None => {
                    *values = Box::default();
                    *budget = budget.saturating_sub(RUN_COST);
                    std::collections::binary_heap::PeekMut::pop(head);
                }
            }
        }
    }

    /// The end of the stretch that the budget allows behind `from`; takes it off the budget.
    fn stretch(&self, from: usize, budget: &mut usize) -> usize {
        let most = budget.saturating_mul(SUMS_PER_MERGE);
        let take = most.min(self.expected - from);
        *budget -= take.div_ceil(SUMS_PER_MERGE);
        from + take
    }

    fn add_up(&mut self, budget: &mut usize) -> bool {
        let end = self.stretch(self.summed, budget);
        while self.summed < end {
            let mark = self
                .marks
                .get(self.marked)
                .map_or(usize::MAX, |mark| mark.index);
            let stop = end.min(mark.saturating_add(1));
            for value in &self.sorted[self.summed..stop] {
                self.sum += value;
                self.squares += value * value;
            }
            self.summed = stop;
            while let Some(mark) = self
                .marks
                .get_mut(self.marked)
                .filter(|mark| mark.index + 1 == stop)
            {
                (mark.sum, mark.squares) = (self.sum, self.squares);
                self.marked += 1;
            }
        }
        self.summed == self.expected
    }

    fn deviate(&mut self, budget: &mut usize) -> bool {
        let end = self.stretch(self.deviated, budget);
        let mean = self.sum / self.expected as f64;
        for value in &self.sorted[self.deviated..end] {
            self.deviation += (value - mean) * (value - mean);
        }
        self.deviated = end;
        end == self.expected
    }

    /// The values, sorted.
    pub fn sorted(&self) -> &[f64] {
        &self.sorted
    }

    /// Gives every figure that is kept to `emit`, with its name; `seconds` is the flush interval.
    ///
    /// Figures that are no finite number (a sum that overflowed) are given as they are.
    pub fn figures(
        &self,
        name: &[u8],
        summary: &Summary,
        seconds: f64,
        mut emit: impl FnMut(&str, f64),
    ) {
        let plain = |index: usize, value: f64, emit: &mut dyn FnMut(&str, f64)| {
            if summary.plain[index] {
                emit(PLAIN[index], value);
            }
        };
        let n = self.expected;
        let Some((min, max)) = self.sorted.first().zip(self.sorted.last()) else {
            plain(COUNT, 0.0, &mut emit);
            plain(COUNT_PS, 0.0, &mut emit);
            return;
        };
        for threshold in &summary.thresholds {
            let within = in_threshold(threshold.percent, n);
            if within == 0 {
                continue;
            }
            let (bound, sum, squares) = self.within(threshold.percent, within);
            let values = [within as f64, sum / within as f64, bound, sum, squares];
            for (name, value) in threshold.names.iter().zip(values) {
                if let Some(name) = name {
                    emit(name, value);
                }
            }
        }
        let mean = self.sum / n as f64;
        let half = n / 2;
        let median = if n % 2 == 1 {
            self.sorted[half]
        } else {
            (self.sorted[half - 1] + self.sorted[half]) / 2.0
        };
        let std = (self.deviation / n as f64).sqrt();
        let figures = [
            std,
            *max,
            *min,
            self.events,
            self.events / seconds,
            self.sum,
            self.squares,
            mean,
            median,
        ];
        figures
            .into_iter()
            .enumerate()
            .for_each(|(index, value)| plain(index, value, &mut emit));
        let mut from = 0;
        for (limit, name) in summary.bins(name) {
            let below = self.sorted[from..].partition_point(|value| value < limit);
            emit(name, below as f64);
            from += below;
        }
    }

    /// The value at the threshold, the sum and the sum of squares on its side of it.
    fn within(&self, percent: f64, within: usize) -> (f64, f64, f64) {
        let n = self.expected;
        if percent > 0.0 {
            let mark = self.mark(within - 1);
            return (self.sorted[within - 1], mark.sum, mark.squares);
        }
        let bound = self.sorted[n - within];
        if within == n {
            return (bound, self.sum, self.squares);
        }
        // As the original: what is left of the whole, not a sum of its own.
        let below = self.mark(n - within - 1);
        (bound, self.sum - below.sum, self.squares - below.squares)
    }

    fn mark(&self, index: usize) -> Mark {
        let at = self.marks.partition_point(|mark| mark.index < index);
        self.marks.get(at).copied().unwrap_or(Mark {
            index,
            sum: self.sum,
            squares: self.squares,
        })
    }

    /// Gives back the memory of a large timer, some at a time; `true` when it is done. The values are
    /// gone from here on.
    pub fn release(&mut self, budget: &mut usize) -> bool {
        while *budget > 0 && self.sorted.capacity() > RELEASE {
            let left = self.sorted.len().min(self.sorted.capacity() - RELEASE);
            self.sorted.truncate(left);
            self.sorted.shrink_to(left);
            *budget = budget.saturating_sub(RELEASE_COST);
        }
        self.sorted.capacity() <= RELEASE
    }

    /// Ends the work; gives back an empty buffer for the timer's next interval, if one of a size that
    /// it is likely to need is left.
    pub fn end(&mut self) -> Samples {
        let mut tail = std::mem::take(&mut self.sorted);
        let used = tail.len();
        self.runs = Vec::new();
        self.heads = BinaryHeap::new();
        if used > RUN || tail.capacity() > (4 * used).max(4) {
            return Samples::default();
        }
        tail.clear();
        Samples {
            tail,
            ..Samples::default()
        }
    }
}

/// A number that sorts as the value does.
fn rank(value: f64) -> u64 {
    let bits = value.to_bits();
    if bits >> 63 == 0 {
        bits | 1 << 63
    } else {
        !bits
    }
}
