//! The case about timers: ten million values over a thousand names in one interval.
//!
//! Every name gets a known set of values in an order of its own, so that each series can be worked
//! out here, in the order of operations that SPEC 4 gives, and compared to the last bit.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::console::Prober;
use crate::graphite::Graphite;
use crate::load::{self, Datagrams, MIXED_NAMES, Pace, UdpSender};
use crate::report::Row;
use crate::subject::KernelQueue;
use crate::{Bench, Running};

/// The interval that must hold all the values, milliseconds.
const INTERVAL: u64 = 10_000;

/// Value `at` of so many of one name, in thousandths; never zero.
fn thousandths(name: u64, at: u64, each: u64) -> u64 {
    (at * 7_919 + name * 31) % each * 37 + name + 1
}

/// The series of one name, by field.
fn expected(name: u64, each: u64) -> Vec<(&'static str, f64)> {
    let parsed = |at| {
        let v = thousandths(name, at, each);
        // What a correct reader makes of the digits that were sent.
        format!("{}.{:03}", v / 1000, v % 1000)
            .parse()
            .unwrap_or(f64::NAN)
    };
    let mut values: Vec<f64> = (0..each).map(parsed).collect();
    values.sort_by(f64::total_cmp);
    let sums = |n: usize| {
        let first = (values[0], values[0] * values[0]);
        values[1..n]
            .iter()
            .fold(first, |(sum, squares), v| (v + sum, v * v + squares))
    };
    let n = values.len();
    let (sum, squares) = sums(n);
    let mean = sum / n as f64;
    let spread = values
        .iter()
        .fold(0.0, |total, v| total + (v - mean) * (v - mean));
    let middle = n / 2;
    let median = if n % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    };
    let part = (0.9 * n as f64).round() as usize;
    let (sum_90, squares_90) = sums(part);
    vec![
        ("count", n as f64),
        ("count_ps", n as f64 / (INTERVAL as f64 / 1000.0)),
        ("lower", values[0]),
        ("upper", values[n - 1]),
        ("sum", sum),
        ("sum_squares", squares),
        ("mean", mean),
        ("median", median),
        ("std", (spread / n as f64).sqrt()),
        ("count_90", part as f64),
        ("upper_90", values[part - 1]),
        ("sum_90", sum_90),
        ("sum_squares_90", squares_90),
        ("mean_90", sum_90 / part as f64),
    ]
}

/// How many of the expected series came out to the last bit, of how many; and one that did not.
fn compare(came: &BTreeMap<String, Vec<f64>>, each: u64) -> (u64, u64, String) {
    let (mut right, mut all, mut wrong) = (0, 0, String::new());
    for name in 0..MIXED_NAMES {
        for (field, value) in expected(name, each) {
            let series = format!("{}.{field}", load::mixed_name(name));
            // A flush before or after the values has a count of zero, and nothing else.
            let here = came
                .get(&series)
                .and_then(|v| v.iter().find(|v| **v != 0.0));
            all += 1;
            if here.is_some_and(|v| v.to_bits() == value.to_bits()) {
                right += 1;
            } else if wrong.is_empty() {
                wrong = format!("; {series} is {here:?}, not {value}");
            }
        }
    }
    (right, all, wrong)
}

/// The case.
pub fn case(bench: &Bench) -> Result<Vec<Row>, String> {
    let text = |e: std::io::Error| e.to_string();
    // A multiple of 30 for each name leaves no line over when packed.
    let each = bench.scaled(10_000_000) / MIXED_NAMES / 30 * 30 + 30;
    let total = each * MIXED_NAMES;
    let names: Vec<String> = (0..MIXED_NAMES).map(load::mixed_name).collect();
    let load = Datagrams::timers(&names, each, thousandths);
    let graphite = Graphite::start(true).map_err(text)?;
    let Running {
        subject,
        port,
        admin,
    } = bench.start_daemon("udp", graphite.port, INTERVAL)?;
    let mut queue = KernelQueue::udp(port).map_err(text)?;
    let mut sender = UdpSender::new(port).map_err(text)?;
    let prober = Prober::start(admin, port).map_err(text)?;
    let (before, cpu) = (subject.memory().0, subject.cpu()?);
    sender
        .send(&load, load.len(), Pace::Careful)
        .map_err(text)?;
    while queue.read().map_err(text)?.bytes > 0 {
        std::thread::sleep(Duration::from_millis(2));
    }
    let (held, received) = (subject.memory().0, subject.cpu()?);
    let drops = queue.read().map_err(text)?.drops;
    let came = graphite.wait(Duration::from_secs(120), |t| {
        t.metrics_received >= total - drops * 30
    });
    let answers = prober.stop();
    let flushed = subject.settle(&mut queue)?;
    let peak = subject.memory().1;
    let tally = graphite.tally();
    let (right, all, wrong) = compare(&tally.timers, each);

    let row = |of: &str, unit, value, aim, note: String| Row {
        note,
        ..Row::figure(&format!("timers: {of}"), unit, value, aim)
    };
    let per_value = |bytes: u64| bytes.saturating_sub(before) as f64 / total as f64;
    let cpu_each = |cpu: Duration| cpu.as_nanos() as f64 / 1e3 / total as f64;
    let pause = match tally.flush_pause_ms {
        Some(pause) => row(
            "longest pause, as reported",
            "ms",
            pause,
            "5",
            String::new(),
        ),
        None => Row::skipped("timers: longest pause, as reported", "not published"),
    };
    let mut receiving = row(
        "receiving",
        "µs a value",
        cpu_each(received - cpu),
        "",
        format!("{total} values over {MIXED_NAMES} names; includes the console's answers"),
    );
    receiving.drops = Some(drops);
    let arrived = if came {
        String::new()
    } else {
        "; the flush did not come whole".into()
    };
    Ok(vec![
        receiving,
        row(
            "their flush",
            "µs a value",
            cpu_each(flushed - received),
            "",
            String::new(),
        ),
        row(
            "memory at the peak",
            "B a value",
            per_value(peak),
            "24",
            format!("{:.1} when all had come", per_value(held)),
        ),
        pause,
        row(
            "worst console answer",
            "ms",
            answers.worst.as_secs_f64() * 1e3,
            "20",
            format!(
                "{} answers, {} above 20 ms, {} failed",
                answers.count, answers.slow, answers.failed
            ),
        ),
        row(
            "series right to the last bit",
            "%",
            right as f64 * 100.0 / all as f64,
            "100",
            format!("{right} of {all}{wrong}{arrived}"),
        ),
    ])
}
