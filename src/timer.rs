//! Timer statistics: the values of one interval, and the figures made of them. Core: no I/O.
//!
//! Values are kept in sorted runs as they come in, so that a timer of millions of values needs no
//! sort at the flush, just a merge that can be cut into slices ([`Work::step`]). Sums run over the
//! sorted values in order, as the original's do, so that they agree with it to the last bit (SPEC 4).

use crate::number;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Values that are sorted together when they have come in: some 0.1 ms of work.
const RUN: usize = 4096;

/// Adding a value up costs this many times less than merging it.
const SUMS_PER_MERGE: usize = 8;

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

/// What is made of each timer, from the config: thresholds, histograms, and which figures are kept.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    thresholds: Vec<Threshold>,
    histograms: Vec<Bins>,
    /// Which of [`PLAIN`] are kept.
    plain: [bool; PLAIN.len()],
    keeps_histogram: bool,
}

/// The figures that every timer has, in the original's order.
const PLAIN: [&str; 9] = [
    "std",
    "upper",
    "lower",
    "count",
    "count_ps",
    "sum",
    "sum_squares",
    "mean",
    "median",
];
const COUNT: usize = 3;
const COUNT_PS: usize = 4;

#[derive(Clone, Debug)]
struct Threshold {
    percent: f64,
    /// `count_90`, `mean_90`, `upper_90`, `sum_90`, `sum_squares_90`, where kept.
    names: [Option<String>; 5],
}

#[derive(Clone, Debug)]
struct Bins {
    metric: Vec<u8>,
    bins: Vec<(f64, String)>,
}

impl Summary {
    /// From `percentThreshold`, `calculatedTimerMetrics` (empty means all) and `histogram` (a
    /// substring of the name, and upper limits, of which infinity is written `inf`).
    pub fn new<'a>(
        percents: &[f64],
        calculated: &[String],
        histograms: impl IntoIterator<Item = (&'a str, &'a [f64])>,
    ) -> Summary {
        let keeps = |name: &str| calculated.is_empty() || calculated.contains(&generalize(name));
        let thresholds = percents.iter().map(|percent| {
            let label = number::to_string(*percent)
                .replacen('.', "_", 1)
                .replacen('-', "top", 1);
            let bound = if *percent > 0.0 { "upper_" } else { "lower_" };
            let names = ["count_", "mean_", bound, "sum_", "sum_squares_"]
                .map(|figure| Some(format!("{figure}{label}")).filter(|name| keeps(name)));
            Threshold {
                percent: *percent,
                names,
            }
        });
        let histograms = histograms.into_iter().map(|(metric, limits)| Bins {
            metric: metric.as_bytes().to_vec(),
            bins: limits
                .iter()
                .map(|limit| (*limit, bin_name(*limit)))
                .collect(),
        });
        Summary {
            thresholds: thresholds.collect(),
            histograms: histograms.collect(),
            plain: PLAIN.map(keeps),
            keeps_histogram: keeps("histogram"),
        }
    }

    /// The percentile thresholds, as configured.
    pub fn percents(&self) -> impl Iterator<Item = f64> + '_ {
        self.thresholds.iter().map(|threshold| threshold.percent)
    }

    fn bins(&self, name: &[u8]) -> &[(f64, String)] {
        if !self.keeps_histogram {
            return &[];
        }
        let first = self
            .histograms
            .iter()
            .find(|bins| memchr::memmem::find(name, &bins.metric).is_some());
        first.map_or(&[], |bins| &bins.bins)
    }
}

/// `count_90` and `count_top10` stand for `count_percent` in `calculatedTimerMetrics`.
///
/// Only the digits at the end go, so that `count_99_9` is `count_99_percent`, as in the original.
fn generalize(name: &str) -> String {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem.len() == name.len() {
        return name.to_string();
    }
    match stem.strip_suffix("_top").or_else(|| stem.strip_suffix('_')) {
        Some(figure) => format!("{figure}_percent"),
        None => name.to_string(),
    }
}

fn bin_name(limit: f64) -> String {
    if limit.is_infinite() {
        return "histogram.bin_inf".to_string();
    }
    format!(
        "histogram.bin_{}",
        number::to_string(limit).replacen('.', "_", 1)
    )
}

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
        let Samples {
            runs,
            mut tail,
            events,
        } = samples;
        *budget = budget.saturating_sub(tail.len());
        let expected = runs.len() * RUN + tail.len();
        tail.sort_unstable_by(f64::total_cmp);
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

/// How many of `n` values are on the threshold's side. A single value is always (SPEC 4).
fn in_threshold(percent: f64, n: usize) -> usize {
    if n <= 1 {
        return n;
    }
    ((percent.abs() / 100.0 * n as f64).round() as usize).min(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let bins: &[f64] = &[10.0, 150.5, f64::INFINITY];
        Summary::new(
            &[50.0, 90.0, 99.9, -10.0, -100.0, 0.001],
            &[],
            [("t", bins)],
        )
    }

    fn figures(values: &[f64], mut budget_each: usize) -> Vec<(String, u64)> {
        let summary = summary();
        let mut samples = Samples::default();
        values.iter().for_each(|value| samples.push(*value, 2.0));
        assert_eq!(samples.len(), values.len());
        let mut work = Work::default();
        let mut budget = budget_each;
        work.begin(samples, &summary, &mut budget);
        while !work.step(&mut budget) {
            budget_each = budget_each.max(1);
            budget = budget_each;
        }
        let mut out = Vec::new();
        work.figures(b"t", &summary, 10.0, |name, value| {
            out.push((name.to_string(), value.to_bits()))
        });
        out
    }

    /// SPEC 4, written down again in the plainest way.
    fn by_the_book(values: &[f64]) -> Vec<(String, u64)> {
        let mut v = values.to_vec();
        v.sort_by(f64::total_cmp);
        let n = v.len();
        let sums: Vec<f64> = v
            .iter()
            .scan(0.0, |s, x| {
                *s += x;
                Some(*s)
            })
            .collect();
        let squares: Vec<f64> = v
            .iter()
            .scan(0.0, |s, x| {
                *s += x * x;
                Some(*s)
            })
            .collect();
        let mean = sums[n - 1] / n as f64;
        let std = (v.iter().fold(0.0, |s, x| s + (x - mean) * (x - mean)) / n as f64).sqrt();
        let median = if n % 2 == 1 {
            v[n / 2]
        } else {
            (v[n / 2 - 1] + v[n / 2]) / 2.0
        };
        let mut out = Vec::new();
        for (p, label) in [
            (50.0, "50"),
            (90.0, "90"),
            (99.9, "99_9"),
            (-10.0, "top10"),
            (-100.0, "top100"),
            (0.001, "0_001"),
        ] {
            let p: f64 = p;
            let k = if n == 1 {
                1
            } else {
                (p.abs() / 100.0 * n as f64).round() as usize
            };
            if k == 0 {
                continue;
            }
            let below = |all: &[f64]| if k == n { 0.0 } else { all[n - k - 1] };
            let (side, bound, sum, square) = if p > 0.0 {
                ("upper", v[k - 1], sums[k - 1], squares[k - 1])
            } else {
                (
                    "lower",
                    v[n - k],
                    sums[n - 1] - below(&sums),
                    squares[n - 1] - below(&squares),
                )
            };
            out.push((format!("count_{label}"), k as f64));
            out.push((format!("mean_{label}"), sum / k as f64));
            out.push((format!("{side}_{label}"), bound));
            out.push((format!("sum_{label}"), sum));
            out.push((format!("sum_squares_{label}"), square));
        }
        let plain = [
            ("std", std),
            ("upper", v[n - 1]),
            ("lower", v[0]),
            ("count", 2.0 * n as f64),
            ("count_ps", 2.0 * n as f64 / 10.0),
            ("sum", sums[n - 1]),
            ("sum_squares", squares[n - 1]),
            ("mean", mean),
            ("median", median),
        ];
        out.extend(plain.map(|(name, value): (&str, f64)| (name.to_string(), value)));
        for (low, high, label) in [
            (f64::NEG_INFINITY, 10.0, "10"),
            (10.0, 150.5, "150_5"),
            (150.5, f64::INFINITY, "inf"),
        ] {
            let within = v.iter().filter(|x| **x >= low && **x < high).count();
            out.push((format!("histogram.bin_{label}"), within as f64));
        }
        out.into_iter()
            .map(|(name, value)| (name, value.to_bits()))
            .collect()
    }

    #[test]
    fn agree_with_the_book_whatever_the_slices() {
        let mut state = 5u64;
        for n in [
            1,
            2,
            3,
            10,
            57,
            1000,
            RUN - 1,
            RUN,
            RUN + 1,
            3 * RUN,
            5 * RUN + 17,
        ] {
            let values: Vec<f64> = (0..n)
                .map(|_| {
                    state = state
                        .wrapping_mul(6364136223846793005)
                        .wrapping_add(1442695040888963407);
                    (state >> 40) as f64 / 1000.0 - 100.0
                })
                .collect();
            let expected = by_the_book(&values);
            for budget in [1, 7, 1000, usize::MAX / 16] {
                assert_eq!(
                    figures(&values, budget),
                    expected,
                    "{n} values, {budget} a slice"
                );
            }
        }
    }

    #[test]
    fn an_empty_timer_has_two_figures() {
        assert_eq!(
            figures(&[], 100),
            [("count".to_string(), 0), ("count_ps".to_string(), 0)]
        );
    }

    #[test]
    fn filters() {
        for (name, general) in [
            ("count_90", "count_percent"),
            ("lower_top10", "lower_percent"),
            ("sum_squares_50", "sum_squares_percent"),
            ("count_99_9", "count_99_percent"),
            ("count", "count"),
            ("count_ps", "count_ps"),
            ("90", "90"),
        ] {
            assert_eq!(generalize(name), general);
        }
    }

    #[test]
    fn overflow_is_given_as_it_is() {
        let found = figures(&[1e300, 1e300], 100);
        let squares = found
            .iter()
            .find(|(name, _)| name == "sum_squares")
            .unwrap();
        assert!(f64::from_bits(squares.1).is_infinite());
    }
}
