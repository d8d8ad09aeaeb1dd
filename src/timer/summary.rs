//! What is made of each timer, from the config: thresholds, histograms, and which figures are kept.
//! Core: no I/O.

use crate::number;

/// What is made of each timer, from the config: thresholds, histograms, and which figures are kept.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub(super) thresholds: Vec<Threshold>,
    histograms: Vec<Bins>,
    /// Which of [`PLAIN`] are kept.
    pub(super) plain: [bool; PLAIN.len()],
    keeps_histogram: bool,
}

/// The figures that every timer has, in the original's order.
pub(super) const PLAIN: [&str; 9] = [
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
pub(super) const COUNT: usize = 3;
pub(super) const COUNT_PS: usize = 4;

#[derive(Clone, Debug)]
pub(super) struct Threshold {
    pub(super) percent: f64,
    /// `count_90`, `mean_90`, `upper_90`, `sum_90`, `sum_squares_90`, where kept.
    pub(super) names: [Option<String>; 5],
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

    pub(super) fn bins(&self, name: &[u8]) -> &[(f64, String)] {
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
pub(super) fn generalize(name: &str) -> String {
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

/// How many of `n` values are on the threshold's side. A single value is always (SPEC 4).
pub(super) fn in_threshold(percent: f64, n: usize) -> usize {
    if n <= 1 {
        return n;
    }
    ((percent.abs() / 100.0 * n as f64).round() as usize).min(n)
}
