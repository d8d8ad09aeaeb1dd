//! The case about flushing: a million counters every 3 s, while datagrams keep coming.
//!
//! The CPU of a Graphite line is the difference between a run that flushes and one that does not,
//! under the same paced load, over the lines that came out. A second, independent sight of a pause
//! is the deepest the receive queue ever was, as milliseconds of the paced load.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use crate::console::Prober;
use crate::graphite::Graphite;
use crate::load::{Datagrams, Pace, UdpSender};
use crate::report::Row;
use crate::subject::KernelQueue;
use crate::{Bench, Running};

/// Datagrams a second.
const RATE: u64 = 60_000;

/// What one daemon did under the paced load.
struct Run {
    cpu: Duration,
    sent: u64,
    drops: u64,
    answers: crate::console::Answers,
    /// Graphite lines that came out meanwhile.
    lines: u64,
}

fn under_load(
    bench: &Bench,
    running: &Running,
    graphite: &Graphite,
    every: &Datagrams,
    load: &Datagrams,
) -> Result<Run, String> {
    let text = |e: std::io::Error| e.to_string();
    let subject = &running.subject;
    let mut sender = UdpSender::new(running.port).map_err(text)?;
    let mut queue = KernelQueue::udp(running.port).map_err(text)?;
    sender
        .send(every, every.len(), Pace::Careful)
        .map_err(text)?;
    subject.settle(&mut queue)?;
    let drops = queue.read().map_err(text)?.drops;
    if drops > 0 {
        return Err(format!(
            "{drops} datagrams were lost while the names were introduced"
        ));
    }
    let prober = Prober::start(running.admin, running.port).map_err(text)?;
    let (lines, cpu) = (graphite.tally().lines, subject.cpu()?);
    let sent = sender
        .send(load, RATE * bench.seconds, Pace::Rate(RATE))
        .map_err(text)?;
    let (cpu, lines) = (subject.cpu()? - cpu, graphite.tally().lines - lines);
    let answers = prober.stop();
    subject.settle(&mut queue)?;
    let drops = queue.read().map_err(text)?.drops;
    Ok(Run {
        cpu,
        sent,
        drops,
        answers,
        lines,
    })
}

/// Memory that a datagram of this size takes in a receive queue.
fn queued_size(bytes: usize) -> std::io::Result<u64> {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    for _ in 0..16 {
        sender.send_to(&vec![b'x'; bytes], receiver.local_addr()?)?;
    }
    Ok(KernelQueue::udp(receiver.local_addr()?.port())?
        .read()?
        .bytes
        / 16)
}

/// The case, with so many lines a datagram.
pub fn case(bench: &Bench, what: &str, lines: u64) -> Result<Vec<Row>, String> {
    let every = Datagrams::every_counter(bench.names, 30);
    let load = Datagrams::random_counters(bench.names, lines, 1_200_000 / lines.max(15));
    let graphite = Graphite::start(false).map_err(|e| e.to_string())?;
    let running = bench.start_daemon("udp", graphite.port, 3_000)?;
    let flushing = under_load(bench, &running, &graphite, &every, &load)?;
    let received = flushing.sent - flushing.drops;
    let expected = every.len() * 30 + received * lines;
    graphite.wait(Duration::from_secs(30), |t| t.counts >= expected);
    let tally = graphite.tally();
    drop(running);

    let silent = Graphite::start(false).map_err(|e| e.to_string())?;
    let running = bench.start_daemon("udp", silent.port, 3_600_000)?;
    let still = under_load(bench, &running, &silent, &every, &load)?;
    drop(running);

    let row = |of: &str, unit, value, aim, note: String| Row {
        note,
        ..Row::figure(&format!("{what}: {of}"), unit, value, aim)
    };
    let seconds = bench.seconds;
    let answers = flushing.answers;
    let each = queued_size(load.mean_bytes())
        .map_err(|e| e.to_string())?
        .max(1);
    let deepest = (answers.deepest_queue / each) as f64 * 1e3 / RATE as f64;
    let sent_fingerprint = every
        .fingerprint(every.len())
        .wrapping_add(load.fingerprint(flushing.sent));
    let exact = match (flushing.drops, tally.fingerprint == sent_fingerprint) {
        (0, true) => "each name its own",
        (0, false) => "NOT each name its own",
        _ => "names not compared, as some datagrams were lost",
    };
    let extra = flushing.cpu.as_nanos() as f64 - still.cpu.as_nanos() as f64;
    let reported = match tally.udp_drops {
        Some(drops) => format!("; it reports {drops}"),
        None => "; it reports none".into(),
    };
    let doubt = match flushing.drops + still.drops {
        0 => "",
        _ => "; means little, as datagrams were lost",
    };
    let pause = match tally.flush_pause_ms {
        Some(pause) => row(
            "longest pause, as reported",
            "ms",
            pause,
            "5",
            String::new(),
        ),
        None => Row::skipped(
            &format!("{what}: longest pause, as reported"),
            "not published",
        ),
    };
    Ok(vec![
        row(
            "datagrams dropped",
            "%",
            flushing.drops as f64 * 100.0 / flushing.sent as f64,
            "0",
            format!(
                "{} of {} in {seconds} s{reported}",
                flushing.drops, flushing.sent
            ),
        ),
        row(
            "worst console answer",
            "ms",
            answers.worst.as_secs_f64() * 1e3,
            "20",
            format!(
                "{} answers, {} above 20 ms, {} failed; not flushing {:.2} ms",
                answers.count,
                answers.slow,
                answers.failed,
                still.answers.worst.as_secs_f64() * 1e3,
            ),
        ),
        pause,
        row(
            "deepest receive queue",
            "ms of load",
            deepest,
            "5",
            "sampled every 3 ms".into(),
        ),
        row(
            "CPU of a Graphite line",
            "ns",
            extra / flushing.lines as f64,
            "100",
            format!(
                "{} lines; the load alone takes {:.0} % of a core{doubt}",
                flushing.lines,
                still.cpu.as_secs_f64() * 100.0 / seconds as f64
            ),
        ),
        row(
            "counts that came out",
            "%",
            tally.counts as f64 * 100.0 / expected as f64,
            "100",
            format!(
                "{} of {expected}; {exact}; {} malformed lines",
                tally.counts, tally.malformed
            ),
        ),
    ])
}
