//! The cases about receiving: CPU for each metric received, against the floor.
//!
//! Each round measures the floor and then the daemon, with fresh processes. The window opens when
//! the program has seen every name once and has come to rest, and closes when it has read all that
//! was sent and has come to rest again. What the kernel dropped is not counted as received.

use std::time::Duration;

use crate::graphite::Graphite;
use crate::load::{self, Datagrams, Pace, UdpSender};
use crate::report::{Row, median};
use crate::subject::{KernelQueue, Subject};
use crate::{Bench, Running};

/// One run of one program.
pub struct Sample {
    /// CPU, microseconds for each metric received.
    micros: f64,
    /// Datagrams the kernel dropped.
    drops: u64,
    /// Lines received, before the window and in it.
    lines: u64,
    /// Lines received in the window.
    measured: u64,
}

/// Sends `warm` once, then `count` datagrams of `load`, and takes the CPU time of the second.
pub fn measure(
    subject: &Subject,
    port: u16,
    warm: &Datagrams,
    load: &Datagrams,
    count: u64,
    pace: Pace,
) -> Result<Sample, String> {
    let text = |e: std::io::Error| e.to_string();
    let mut sender = UdpSender::new(port).map_err(text)?;
    let mut queue = KernelQueue::udp(port).map_err(text)?;
    let warmed = sender
        .send(warm, warm.len(), Pace::BackPressure)
        .map_err(text)?;
    let before = subject.settle(&mut queue)?;
    let lost_before = queue.read().map_err(text)?.drops;
    let sent = sender.send(load, count, pace).map_err(text)?;
    let after = subject.settle(&mut queue)?;
    let lost = queue.read().map_err(text)?.drops;
    let measured = sent.saturating_sub(lost - lost_before) * load.lines_each;
    Ok(Sample {
        micros: (after - before).as_secs_f64() * 1e6 / measured as f64,
        drops: lost - lost_before,
        lines: warmed.saturating_sub(lost_before) * warm.lines_each + measured,
        measured,
    })
}

/// A row out of pairs of runs: medians, and the median of the pairs' ratios.
pub fn pairs(what: &str, aim: &'static str, floor: &[Sample], measured: &[Sample]) -> Row {
    let ratios: Vec<f64> = floor
        .iter()
        .zip(measured)
        .map(|(f, m)| m.micros / f.micros)
        .collect();
    let low = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let high = ratios.iter().copied().fold(0.0, f64::max);
    let drops_of_floor: u64 = floor.iter().map(|s| s.drops).sum();
    let mut note = format!("{} pairs, ratios {low:.2} to {high:.2}", ratios.len());
    if drops_of_floor > 0 {
        note += &format!("; the floor dropped {drops_of_floor}");
    }
    Row {
        what: what.into(),
        unit: "µs a metric",
        floor: Some(median(floor.iter().map(|s| s.micros))),
        measured: Some(median(measured.iter().map(|s| s.micros))),
        ratio: Some(median(ratios)),
        aim,
        drops: Some(measured.iter().map(|s| s.drops).sum()),
        note,
    }
}

/// The usual mix over UDP, `lines` a datagram; and the same with the flush that follows, in which
/// the daemon's own count of lines must be what was sent.
pub fn udp(bench: &Bench, what: &str, lines: u64, aim: &'static str) -> Result<Vec<Row>, String> {
    let load = Datagrams::mixed(lines, if lines == 1 { 60_000 } else { 4_000 });
    let count = bench.scaled(if lines == 1 { 500_000 } else { 100_000 });
    let (mut floor, mut daemon, mut whole) = (vec![], vec![], vec![]);
    let mut wrong = 0;
    for _ in 0..bench.runs {
        let (subject, port) = bench.start_floor("udp")?;
        floor.push(measure(
            &subject,
            port,
            &load,
            &load,
            count,
            Pace::BackPressure,
        )?);
        bench.detail(&format!(
            "{what}: floor {:.4} µs; {}",
            floor[floor.len() - 1].micros,
            subject.stop()
        ));
        let graphite = Graphite::start(false).map_err(|e| e.to_string())?;
        let Running { subject, port, .. } = bench.start_daemon("udp", graphite.port, 3_000)?;
        let mut sample = measure(&subject, port, &load, &load, count, Pace::BackPressure)?;
        let settled = subject.cpu()?;
        if !graphite.wait(Duration::from_secs(30), |t| {
            t.metrics_received >= sample.lines
        }) {
            wrong += 1;
        }
        let mut queue = KernelQueue::udp(port).map_err(|e| e.to_string())?;
        let flushed = subject.settle(&mut queue)? - settled;
        subject.stop();
        wrong += u64::from(graphite.tally().metrics_received != sample.lines);
        bench.detail(&format!(
            "{what}: daemon {:.4} µs; {} lines sent, {} reported",
            sample.micros,
            sample.lines,
            graphite.tally().metrics_received
        ));
        let with_flush = sample.micros + flushed.as_secs_f64() * 1e6 / sample.measured as f64;
        whole.push(Sample {
            micros: with_flush,
            ..sample
        });
        sample.lines = 0;
        daemon.push(sample);
    }
    let first = pairs(what, aim, &floor, &daemon);
    let mut second = pairs(&format!("{what}, its flush included"), "", &floor, &whole);
    second.drops = None;
    second.note = match wrong {
        0 => "metrics_received is what was sent".into(),
        _ => "metrics_received is NOT what was sent".into(),
    };
    Ok(vec![first, second])
}

/// As fast as one sender can, with no regard for the receiver: what is dropped.
pub fn offered(bench: &Bench) -> Result<Vec<Row>, String> {
    let mut rows = vec![];
    for (what, lines, count) in [
        ("unpaced, 30 lines", 30, 200_000),
        ("unpaced, 1 line", 1, 500_000),
    ] {
        let load = Datagrams::mixed(lines, 4_000);
        let count = bench.scaled(count);
        let (mut floor, mut daemon) = (vec![], vec![]);
        for _ in 0..bench.runs {
            let (subject, port) = bench.start_floor("udp")?;
            floor.push(measure(&subject, port, &load, &load, count, Pace::Free)?);
            let graphite = Graphite::start(false).map_err(|e| e.to_string())?;
            let Running { subject, port, .. } = bench.start_daemon("udp", graphite.port, 10_000)?;
            daemon.push(measure(&subject, port, &load, &load, count, Pace::Free)?);
        }
        let mut row = pairs(what, "no drops", &floor, &daemon);
        row.note += &format!("; {count} datagrams a run");
        rows.push(row);
    }
    Ok(rows)
}

/// The usual mix over one TCP connection.
pub fn tcp(bench: &Bench) -> Result<Vec<Row>, String> {
    let load = Datagrams::mixed(30, 4_000);
    let stream = load.to_stream();
    let rounds = bench.scaled(100).max(1);
    let run = |subject: &Subject, port: u16| -> Result<Sample, String> {
        let mut queue = KernelQueue::tcp(port).map_err(|e| e.to_string())?;
        let send = |rounds| load::send_stream(port, &stream, rounds).map_err(|e| e.to_string());
        drop(send(1)?);
        let before = subject.settle(&mut queue)?;
        let open = send(rounds)?;
        let after = subject.settle(&mut queue)?;
        drop(open);
        let lines = rounds * load.len() * load.lines_each;
        let micros = (after - before).as_secs_f64() * 1e6 / lines as f64;
        Ok(Sample {
            micros,
            drops: 0,
            lines,
            measured: lines,
        })
    };
    let (mut floor, mut daemon) = (vec![], vec![]);
    for _ in 0..bench.runs {
        let (subject, port) = bench.start_floor("tcp")?;
        floor.push(run(&subject, port)?);
        bench.detail(&format!(
            "tcp: floor {:.4} µs; {}",
            floor[floor.len() - 1].micros,
            subject.stop()
        ));
        let graphite = Graphite::start(false).map_err(|e| e.to_string())?;
        let Running { subject, port, .. } = bench.start_daemon("tcp", graphite.port, 10_000)?;
        daemon.push(run(&subject, port)?);
    }
    let mut row = pairs("tcp", "0.08 µs", &floor, &daemon);
    row.drops = None;
    Ok(vec![row])
}

/// Many live counters, drawn at random: CPU for each metric, and memory for each name.
pub fn names(bench: &Bench) -> Result<Vec<Row>, String> {
    let names = bench.names;
    let every = Datagrams::every_counter(names, 30);
    let random = Datagrams::random_counters(names, 30, 60_000);
    let few = Datagrams::random_counters(30, 30, 2_000);
    let count = bench.scaled(100_000);
    let (mut floor, mut daemon, mut bytes, mut after_flush) = (vec![], vec![], vec![], vec![]);
    for round in 0..bench.runs {
        let (subject, port) = bench.start_floor("udp")?;
        floor.push(measure(
            &subject,
            port,
            &few,
            &random,
            count,
            Pace::BackPressure,
        )?);
        drop(subject);
        let graphite = Graphite::start(false).map_err(|e| e.to_string())?;
        let Running { subject, port, .. } = bench.start_daemon("udp", graphite.port, 8_000)?;
        // Opens the buffers and the connections of a first use, which are not the names' own.
        measure(&subject, port, &few, &few, few.len(), Pace::BackPressure)?;
        let (before, _) = subject.memory();
        measure(&subject, port, &every, &few, 1, Pace::BackPressure)?;
        let each = |now: u64| (now as f64 - before as f64) / names as f64;
        bytes.push(each(subject.memory().0));
        daemon.push(measure(
            &subject,
            port,
            &few,
            &random,
            count,
            Pace::BackPressure,
        )?);
        if round + 1 == bench.runs {
            graphite.wait(Duration::from_secs(30), |t| t.counts >= random.len() * 30);
            let mut queue = KernelQueue::udp(port).map_err(|e| e.to_string())?;
            subject.settle(&mut queue)?;
            let (now, peak) = subject.memory();
            after_flush.extend([each(now), each(peak)]);
        }
        bench.detail(&format!(
            "names: floor {:.4}, daemon {:.4} µs",
            floor[round].micros, daemon[round].micros
        ));
    }
    let mut memory = Row::figure("live counters, memory", "B a name", median(bytes), "110");
    memory.note = format!(
        "after a flush {:.0}, the most ever {:.0}",
        after_flush[0], after_flush[1]
    );
    let mut row = pairs("live counters, drawn at random", "0.45 µs", &floor, &daemon);
    row.note += &format!("; {names} names");
    Ok(vec![row, memory])
}
