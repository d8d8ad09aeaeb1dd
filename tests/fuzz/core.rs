//! The core under hostile input: packets through the parser and the store, flushes as Graphite gets
//! them, all by plain calls. Everything that comes out is looked at.

use crate::common::graphite::{Flush as Points, decode_frames, decode_lines};
use crate::common::status_field;
use crate::input::Generator;
use crate::{new_seed, soak_time};
use statsd::backend::graphite::Graphite;
use statsd::backend::{Backend, Totals};
use statsd::config::load::statsd_from_text;
use statsd::config::{Config, Environment};
use statsd::event_loop::Now;
use statsd::net::stream::Lines;
use statsd::protocol::{self, BadLine, Scratch, Sink, Value, name};
use statsd::snapshot::Flush;
use statsd::statsd::intake::Intake;
use statsd::store::{Plan, Policy, table};
use statsd::timer::Summary;
use std::rc::Rc;
use std::time::{Duration, Instant, UNIX_EPOCH};

const LINES: u64 = 1_000_000;

/// Lines from flush to flush.
const INTERVAL: u64 = 20_000;

const MAX_NAMES: usize = 500;
const MAX_LINE: usize = 8192;

/// What a run may take beyond what it had at its start. The limits below come to some 10 MB, and
/// the blocks of a flush to as much.
const MEMORY: u64 = 64 << 20;

/// The names that the daemon makes itself, beside the limit.
const OWN: usize = 4;

fn config(pickle: bool) -> Config {
    let protocol = if pickle { "pickle" } else { "text" };
    let text = format!(
        "{{ maxNames: {MAX_NAMES}, maxTimerValues: 20000, maxSetMembers: 5000, graphiteHost: '127.0.0.1',
            graphiteProtocol: '{protocol}', percentThreshold: [90, -10, 99.9], graphiteSpoolBytes: 67108864,
            histogram: [{{ metric: '', bins: [1, 10, 'inf'] }}], maxLineBytes: {MAX_LINE} }}"
    );
    let environment = Environment {
        hostname: "host".into(),
        fqdn: "host.example".into(),
        variable: |_| None,
    };
    let loaded = statsd_from_text(&text, "fuzz", &environment);
    loaded.unwrap_or_else(|error| panic!("{error}")).config
}

/// Counts what the parser finds, without a store: a second opinion on what is good and bad.
#[derive(Default)]
struct Count {
    lines: u64,
    good: u64,
    bad: u64,
    clean: Vec<u8>,
}

impl Sink for Count {
    /// Nothing is: every line takes the long way, which must come to the same as the short one.
    fn known(&mut self, _name: &[u8], _value: Value<'_>, _line: &[u8]) -> bool {
        false
    }

    fn line(&mut self, line: &[u8]) -> bool {
        self.lines += 1;
        self.bad += u64::from(line.len() > MAX_LINE);
        line.len() <= MAX_LINE
    }

    fn metric(&mut self, raw: &[u8], value: Value<'_>) -> bool {
        match value {
            Value::Counter(value) | Value::Gauge(value) | Value::GaugeDelta(value) => {
                assert!(value.is_finite(), "{value}");
            }
            Value::Timer { value, count } => {
                assert!(value.is_finite(), "{value}");
                assert!(count.is_finite() && count > 0.0, "{count}");
            }
            Value::Set(_) => {}
        }
        name::sanitize(raw, &mut self.clean);
        let is_name = !self.clean.is_empty()
            && raw.len() <= table::MAX_NAME
            && (self.clean == raw || !name::holds_tag_mark(raw));
        self.good += u64::from(is_name);
        is_name
    }

    fn bad_line(&mut self, bad: BadLine<'_>) {
        self.bad += 1;
        // What goes into the log must not fail either.
        let _ = bad.to_string();
    }
}

/// The aggregator without sockets.
struct Stage {
    config: Config,
    intake: Intake,
    graphite: Graphite,
    now: Now,
    tcp: Lines,
    scratch: Scratch,
    count: Count,
    packets: u64,
    /// Lines too long for a stream.
    long: u64,
    witness: f64,
}

impl Stage {
    fn new(pickle: bool) -> Stage {
        let config = config(pickle);
        let now = Now {
            mono: Instant::now(),
            wall: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        };
        Stage {
            intake: Intake::new(&config, now),
            graphite: Graphite::new(&config, now),
            config,
            now,
            tcp: Lines::default(),
            scratch: Scratch::default(),
            count: Count::default(),
            packets: 0,
            long: 0,
            witness: 0.0,
        }
    }

    fn packet(&mut self, packet: &[u8]) {
        self.packets += 1;
        self.intake.packet(packet);
        protocol::parse_packet(packet, &mut self.scratch, &mut self.count);
    }

    /// The same bytes as a stream, in pieces of any length.
    fn stream(&mut self, bytes: &[u8], generator: &mut Generator) {
        let mut lines = std::mem::take(&mut self.tcp);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(1 + generator.random.below(rest.len()));
            let mut packets = Vec::new();
            let mut bytes = vec![0; lines.waiting()];
            bytes.extend_from_slice(piece);
            self.long += lines.take(&mut bytes, MAX_LINE, &mut |packet: &[u8]| {
                packets.push(packet.to_vec());
            });
            packets.iter().for_each(|packet| self.packet(packet));
            rest = behind;
        }
        self.tcp = lines;
    }

    fn flush(&mut self) -> Points {
        let interval = self.config.flush_interval;
        self.now = Now {
            mono: self.now.mono + interval,
            wall: self.now.wall + interval,
        };
        self.intake.set_now(self.now);
        let flush = Flush {
            timestamp: self.now.seconds(),
            seconds: interval.as_secs_f64(),
        };
        let histograms = self.config.histogram.iter();
        let histograms = histograms.map(|h| (h.metric.as_str(), h.bins.as_slice()));
        let summary = Summary::new(&self.config.percent_threshold, &[], histograms);
        let policy = Policy {
            delete_counters: true,
            delete_timers: true,
            delete_sets: true,
            delete_gauges: true,
            gauges_max_ttl: 3,
        };
        let store = &mut self.intake.store;
        assert!(store.name_count() <= MAX_NAMES + OWN);
        assert!(store.flip(Plan {
            policy,
            summary: Rc::new(summary),
        }));
        let graphite = &mut self.graphite;
        graphite.flush_begin(&flush, self.now);
        let num_stats = loop {
            let count = store.drain(5000, &mut |entry| graphite.flush_entry(&flush, &entry));
            if let Some(count) = count {
                break count;
            }
        };
        let totals = Totals {
            num_stats,
            ..Totals::default()
        };
        graphite.flush_end(&flush, &totals, self.now);
        let mut bytes = Vec::new();
        let mut place = None;
        while let Some((at, piece)) = graphite.piece(place) {
            bytes.extend_from_slice(piece.bytes);
            place = Some(at);
        }
        // A new one: what was looked at is forgotten.
        self.graphite = Graphite::new(&self.config, self.now);
        let decode = match self.config.graphite.pickle {
            true => decode_frames,
            false => decode_lines,
        };
        let points = decode(&bytes).unwrap_or_else(|error| panic!("{error}"));
        check(&points, flush.timestamp);
        points
    }
}

/// Names of allowed bytes, finite numbers as JavaScript writes them, the flush's own timestamp.
fn check(points: &Points, timestamp: u64) {
    let mut clean = Vec::new();
    for point in points {
        name::sanitize(point.name.as_bytes(), &mut clean);
        assert!(
            !clean.is_empty() && clean == point.name.as_bytes(),
            "{point:?}"
        );
        assert_eq!(point.timestamp, timestamp, "{point:?}");
        let number: f64 = point.value.parse().unwrap();
        assert!(number.is_finite(), "{point:?}");
        let again = statsd::number::to_string(number);
        assert_eq!(again, point.value, "{point:?}");
    }
}

fn value(points: &Points, name: &str) -> f64 {
    let found = points.iter().filter(|point| point.name == name);
    found.map(|point| point.value.parse::<f64>().unwrap()).sum()
}

/// Plays so many lines, and checks that all of them are accounted for.
fn play(seed: u64, lines: u64, pickle: bool) {
    eprintln!("seed {seed}");
    let mut generator = Generator::new(seed);
    let mut stage = Stage::new(pickle);
    let mut memory = None;
    let (mut received, mut packets, mut bad, mut witness) = (0.0, 0.0, 0.0, 0.0);
    let mut most_names = 0;
    while stage.count.lines < lines {
        let end = stage.count.lines + INTERVAL;
        while stage.count.lines < end {
            let mut packet = generator.packet();
            // Whatever stands around it, a good line is taken.
            if generator.random.below(4) == 0 {
                packet.splice(0..0, *b"witness:2|c|@0.5\n");
                packet.extend(b"\nwitness:1|c");
                stage.witness += 5.0;
            }
            if generator.random.below(4) == 0 {
                packet.push(b'\n');
                stage.stream(&packet, &mut generator);
            } else {
                stage.packet(&packet);
            }
        }
        most_names = most_names.max(stage.intake.store.name_count());
        let points = stage.flush();
        received += value(&points, "stats_counts.statsd.metrics_received");
        packets += value(&points, "stats_counts.statsd.packets_received");
        bad += value(&points, "stats_counts.statsd.bad_lines_seen");
        witness += value(&points, "stats_counts.witness");
        // After a while there is nothing left that memory could be needed for.
        let resident = status_field(std::process::id(), "VmRSS") * 1024;
        let first = *memory.get_or_insert(resident);
        assert!(resident < first + MEMORY, "{first} bytes, then {resident}");
    }
    let Count {
        lines,
        good,
        bad: bad_values,
        ..
    } = stage.count;
    assert_eq!(received, lines as f64, "lines that are not empty");
    assert_eq!(packets, stage.packets as f64);
    assert_eq!(bad, bad_values as f64, "bad values");
    assert_eq!(witness, stage.witness, "good lines among bad ones");
    assert!(good + bad_values >= lines, "each line is good or bad");
    // Or it has shown nothing.
    assert!(good > lines / 10 && bad_values > lines / 10, "{good} good");
    assert!(stage.long > 0, "no line was too long");
    assert!(most_names >= MAX_NAMES, "the limit was never reached");
}

#[test]
fn a_million_hostile_lines_as_text() {
    play(1, LINES / 2, false);
}

#[test]
fn a_million_hostile_lines_as_pickles() {
    play(2, LINES / 2, true);
}

/// The same as long as wanted, each time from another seed.
#[test]
#[ignore = "for make soak"]
fn soak_core() {
    let end = Instant::now() + soak_time();
    while Instant::now() < end {
        let seed = new_seed();
        play(seed, LINES / 2, seed % 2 == 0);
    }
}
