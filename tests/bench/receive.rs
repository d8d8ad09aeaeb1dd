//! The cases about receiving: CPU for each metric received, against the floor.
//!
//! Each round measures the floor and then the daemon, with fresh processes. A window opens when the
//! program has seen every name and has come to rest, and closes when it has read all that was sent
//! and has come to rest again. What the kernel dropped is not counted as received.

use std::time::Duration;

use crate::graphite::Graphite;
use crate::load::{self, Datagrams, Pace, UdpSender};
use crate::report::{Row, median};
use crate::subject::{KernelQueue, Subject};
use crate::{Bench, Running};

/// Slices of a comparison within one round.
const SLICES: u64 = 10;

/// One window of one program, or several added up.
#[derive(Clone, Copy, Default)]
pub struct Sample {
    /// CPU time of the program.
    cpu: Duration,
    /// Datagrams the kernel dropped.
    drops: u64,
    /// Lines received.
    lines: u64,
}

impl Sample {
    /// CPU, microseconds for each metric received.
    fn micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.lines as f64
    }

    fn add(&mut self, other: Sample) {
        self.cpu += other.cpu;
        self.drops += other.drops;
        self.lines += other.lines;
    }
}

/// A program that receives UDP, and a sender to it.
pub struct Window<'a> {
    subject: &'a Subject,
    sender: UdpSender,
    queue: KernelQueue,
}

impl<'a> Window<'a> {
    /// A sender to `port`, where `subject` receives.
    pub fn new(subject: &'a Subject, port: u16) -> Result<Window<'a>, String> {
        let text = |e: std::io::Error| e.to_string();
        let sender = UdpSender::new(port).map_err(text)?;
        Ok(Window {
            subject,
            sender,
            queue: KernelQueue::udp(port).map_err(text)?,
        })
    }

    /// Sends `count` datagrams of `load`, and takes the CPU that receiving them costs.
    pub fn measure(&mut self, load: &Datagrams, count: u64, pace: Pace) -> Result<Sample, String> {
        let text = |e: std::io::Error| e.to_string();
        let before = self.subject.settle(&mut self.queue)?;
        let lost_before = self.queue.read().map_err(text)?.drops;
        let sent = self.sender.send(load, count, pace).map_err(text)?;
        let after = self.subject.settle(&mut self.queue)?;
        let drops = self.queue.read().map_err(text)?.drops - lost_before;
        let lines = sent.saturating_sub(drops) * load.lines_each;
        Ok(Sample {
            cpu: after - before,
            drops,
            lines,
        })
    }

    /// Sends all of `load` once, so carefully that nothing is lost.
    pub fn introduce(&mut self, load: &Datagrams) -> Result<Sample, String> {
        self.measure(load, load.len(), Pace::Careful)
    }

    /// Bursts that the program finds whole.
    pub fn bursts(&mut self, load: &Datagrams, count: u64) -> Result<Sample, String> {
        self.measure(load, count, Pace::Bursts(self.subject.pid()))
    }
}

/// What two programs spend on the same load, in turn and in slices, so that what the neighbours on
/// the machine do meets both alike.
pub fn alternate(
    one: &mut Window,
    other: &mut Window,
    mut measure: impl FnMut(&mut Window, u64) -> Result<Sample, String>,
    count: u64,
) -> Result<(Sample, Sample), String> {
    let mut sums = (Sample::default(), Sample::default());
    for _ in 0..SLICES {
        sums.0.add(measure(one, count.div_ceil(SLICES))?);
        sums.1.add(measure(other, count.div_ceil(SLICES))?);
    }
    Ok(sums)
}

/// A row out of pairs of runs: medians, and the median of the pairs' ratios.
pub fn pairs(what: &str, aim: &'static str, floor: &[Sample], measured: &[Sample]) -> Row {
    let ratios: Vec<f64> = floor
        .iter()
        .zip(measured)
        .map(|(f, m)| m.micros() / f.micros())
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
        floor: Some(median(floor.iter().map(|s| s.micros()))),
        measured: Some(median(measured.iter().map(|s| s.micros()))),
        ratio: Some(median(ratios)),
        aim,
        drops: Some(measured.iter().map(|s| s.drops).sum()),
        note,
    }
}

/// The usual mix over UDP, `lines` a datagram: one sender flat out, then full batches, then the
/// flush that follows, in which the daemon's own count of lines must be what was received.
pub fn udp(bench: &Bench, what: &str, lines: u64, aim: &'static str) -> Result<Vec<Row>, String> {
    let load = Datagrams::mixed(lines, if lines == 1 { 60_000 } else { 4_000 });
    let count = bench.scaled(if lines == 1 { 300_000 } else { 100_000 });
    let (mut free, mut bursts, mut whole) = ((vec![], vec![]), (vec![], vec![]), vec![]);
    let mut wrong = 0;
    for _ in 0..bench.runs {
        let (floor, floor_port) = bench.start_floor("udp")?;
        let graphite = Graphite::start(false).map_err(|e| e.to_string())?;
        let Running { subject, port, .. } = bench.start_daemon("udp", graphite.port, 8_000)?;
        let mut least = Window::new(&floor, floor_port)?;
        let mut window = Window::new(&subject, port)?;
        least.introduce(&load)?;
        let first = window.introduce(&load)?;
        let fast = alternate(
            &mut least,
            &mut window,
            |w, n| w.measure(&load, n, Pace::Free),
            count,
        )?;
        let full = alternate(&mut least, &mut window, |w, n| w.bursts(&load, n), count)?;
        let settled = subject.cpu()?;
        let received = first.lines + fast.1.lines + full.1.lines;
        graphite.wait(Duration::from_secs(30), |t| t.metrics_received >= received);
        let flushed = subject.settle(&mut window.queue)? - settled;
        let reported = graphite.tally().metrics_received;
        wrong += u64::from(reported != received);
        bench.detail(&format!(
            "{what}: floor {:.4} and {:.4}, daemon {:.4} and {:.4} µs; {received} lines received, \
             {reported} reported; floor: {}",
            fast.0.micros(),
            full.0.micros(),
            fast.1.micros(),
            full.1.micros(),
            floor.stop()
        ));
        // The flush was of all the lines; this is the part of those in the full batches.
        let flush = flushed.mul_f64(full.1.lines as f64 / received as f64);
        whole.push(Sample {
            cpu: full.1.cpu + flush,
            drops: 0,
            lines: full.1.lines,
        });
        free.0.push(fast.0);
        free.1.push(fast.1);
        bursts.0.push(full.0);
        bursts.1.push(full.1);
    }
    let mut with_flush = pairs(
        &format!("{what}: that and its flush"),
        "",
        &bursts.0,
        &whole,
    );
    with_flush.note = match wrong {
        0 => "metrics_received is what was received".into(),
        _ => "metrics_received is NOT what was received".into(),
    };
    Ok(vec![
        pairs(
            &format!("{what}: one sender flat out"),
            aim,
            &free.0,
            &free.1,
        ),
        pairs(&format!("{what}: full batches"), "", &bursts.0, &bursts.1),
        with_flush,
    ])
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
        Ok(Sample {
            cpu: after - before,
            drops: 0,
            lines,
        })
    };
    let (mut floor, mut daemon) = (vec![], vec![]);
    for _ in 0..bench.runs {
        let (subject, port) = bench.start_floor("tcp")?;
        floor.push(run(&subject, port)?);
        bench.detail(&format!(
            "tcp: floor {:.4} µs; {}",
            floor[floor.len() - 1].micros(),
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
    let (mut floor, mut daemon, mut bytes) = (vec![], vec![], vec![]);
    let mut note = String::new();
    for round in 0..bench.runs {
        let (subject, port) = bench.start_floor("udp")?;
        let mut window = Window::new(&subject, port)?;
        window.introduce(&few)?;
        floor.push(window.bursts(&random, count)?);
        drop(subject);

        let graphite = Graphite::start(false).map_err(|e| e.to_string())?;
        let Running { subject, port, .. } = bench.start_daemon("udp", graphite.port, 8_000)?;
        let mut window = Window::new(&subject, port)?;
        // Opens the buffers of a first use, which are not the names' own.
        window.introduce(&few)?;
        window.bursts(&few, few.len())?;
        let (before, _) = subject.memory();
        let lines = window.introduce(&every)?.lines;
        let each = |now: u64| (now as f64 - before as f64) / names as f64;
        bytes.push(each(subject.memory().0));
        daemon.push(window.bursts(&random, count)?);
        if round + 1 == bench.runs {
            graphite.wait(Duration::from_secs(30), |t| t.metrics_received > lines);
            subject.settle(&mut window.queue)?;
            let (now, peak) = subject.memory();
            note = format!(
                "after a flush {:.0}, the most ever {:.0}",
                each(now),
                each(peak)
            );
        }
        let (floor, daemon) = (floor[round].micros(), daemon[round].micros());
        bench.detail(&format!("names: floor {floor:.4}, daemon {daemon:.4} µs"));
    }
    let mut memory = Row::figure("live counters, memory", "B a name", median(bytes), "110");
    memory.note = note;
    let mut row = pairs("live counters, drawn at random", "0.45 µs", &floor, &daemon);
    row.note += &format!("; {names} names");
    Ok(vec![row, memory])
}
