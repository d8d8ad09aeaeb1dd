//! The figures against SPEC 4 written down again, whatever the slices.

use super::summary::generalize;
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
    // Some number or other, so that the first run has some length or other.
    let number = budget_each as u32;
    values
        .iter()
        .for_each(|value| samples.push(*value, 2.0, number));
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

#[test]
fn every_value_can_be_seen() {
    let mut samples = Samples::default();
    let count = 3 * RUN + 5;
    (0..count).for_each(|n| samples.push(n as f64, 1.0, 1));
    let mut seen = Vec::new();
    while seen.len() < count {
        let some = samples.some_from(seen.len());
        assert!(!some.is_empty());
        seen.extend_from_slice(some);
    }
    assert!(samples.some_from(count).is_empty());
    seen.sort_by(f64::total_cmp);
    assert!(seen.into_iter().eq((0..count).map(|n| n as f64)));
}

/// A thousand timers that come in step: no round of a value each sorts more than a few runs.
#[test]
fn timers_in_step_are_not_sorted_all_at_once() {
    let mut timers: Vec<Samples> = (0..1000).map(|_| Samples::default()).collect();
    let (mut runs, mut worst) = (0, 0);
    for _ in 0..2 * RUN {
        for (number, timer) in (0..).zip(&mut timers) {
            timer.push(1.0, 1.0, number);
        }
        let now: usize = timers.iter().map(|timer| timer.runs.len()).sum();
        worst = worst.max(now - runs);
        runs = now;
    }
    assert!(runs >= 1000);
    assert!(worst <= 5, "{worst} runs in one round");
}
