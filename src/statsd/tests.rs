//! The recordings of the original (`tests/vectors/`), played to the aggregator without its sockets and
//! with a clock of the test's own. `*` stands for a value of the original's own clock.

use super::*;
use crate::admin::{Caller, Commands, Reply};
use crate::backend::Totals;
use crate::backend::graphite::Graphite;
use crate::config::reader::Reader;
use crate::config::value::Value;
use crate::config::{BackendKind, Environment};
use crate::net::stream::Lines;
use crate::snapshot::{Entry, Flush};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// Figures that are ours and that the original does not have.
const OURS: [&str; 6] = [
    "udp_drops",
    "flush_pause_ms",
    "graphiteStats.spool_bytes",
    "graphiteStats.spool_flushes",
    "graphiteStats.dropped_flushes",
    "graphiteStats.reconnects",
];

/// The Graphite backend with its end in the test's hands.
struct Recorder {
    graphite: Graphite,
    out: Rc<RefCell<Vec<u8>>>,
}

impl Backend for Recorder {
    fn kind(&self) -> BackendKind {
        BackendKind::Graphite
    }

    fn configure(&mut self, config: &Config) {
        self.graphite.configure(config);
    }

    fn flush_begin(&mut self, flush: &Flush, now: Now) {
        self.graphite.flush_begin(flush, now);
    }

    fn flush_entry(&mut self, flush: &Flush, entry: &Entry<'_>) {
        self.graphite.flush_entry(flush, entry);
    }

    fn flush_end(&mut self, flush: &Flush, totals: &Totals, now: Now) {
        self.graphite.flush_end(flush, totals, now);
        self.out.replace(self.graphite.take_undelivered());
    }

    fn status(&self, write: &mut dyn FnMut(&str, f64)) {
        self.graphite.status(write);
    }

    fn own_stats(&self, write: &mut dyn FnMut(&str, f64)) {
        self.graphite.own_stats(write);
    }
}

/// The aggregator at the clock of the recording.
struct Stage {
    core: Core,
    now: Now,
    out: Rc<RefCell<Vec<u8>>>,
    tcp: Lines,
}

impl Stage {
    fn new(config: &str) -> Stage {
        let environment = Environment {
            hostname: "host".into(),
            fqdn: "host.example".into(),
            variable: |_| None,
        };
        let loaded = config::load::statsd_from_text(config, "recording", &environment);
        let mut config = loaded.unwrap_or_else(|error| panic!("{error}")).config;
        config.graphite.host = Some("127.0.0.1".into());
        let now = Now {
            mono: Instant::now(),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        };
        let out = Rc::default();
        let graphite = Graphite::new(&config, now);
        let mut core = Core::new(config, now);
        core.backends = vec![Box::new(Recorder {
            graphite,
            out: Rc::clone(&out),
        })];
        Stage {
            core,
            now,
            out,
            tcp: Lines::default(),
        }
    }

    fn flush(&mut self) -> Vec<u8> {
        self.flush_after(1)
    }

    /// The flush that follows so many intervals behind the last.
    fn flush_after(&mut self, intervals: u32) -> Vec<u8> {
        let interval = self.core.config.flush_interval * intervals;
        self.now = Now {
            mono: self.now.mono + interval,
            wall: self.now.wall + interval,
        };
        self.core.begin_flush(interval, 0, self.now);
        while self.core.flusher.is_running() {
            self.core.slice(self.now);
        }
        self.out.take()
    }

    fn admin(&mut self, line: &str) -> String {
        let caller = Caller {
            address: None,
            may_change: true,
        };
        let words: Vec<&str> = line.trim().split(' ').collect();
        let mut out = Vec::new();
        match self.core.run(&words, caller, &mut out, self.now) {
            Reply::Done => {}
            Reply::Refused => unreachable!("the caller may change things"),
            Reply::Quit => return "<closed>".into(),
            Reply::Long(mut long) => while !self.core.more(&mut long, &mut out) {},
        }
        String::from_utf8(out).unwrap()
    }
}

fn member<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let Value::Object(members) = value else {
        panic!("{value:?} is no object")
    };
    members
        .iter()
        .find(|(name, _)| name == key)
        .map(|(_, value)| value)
}

fn text(value: &Value) -> &str {
    let Value::String(text) = value else {
        panic!("{value:?} is no text")
    };
    text
}

fn list(value: &Value) -> &[Value] {
    let Value::Array(list) = value else {
        panic!("{value:?} is no list")
    };
    list
}

/// Lines of a flush by name, without those that the original does not have. A recording
/// leaves the timestamp out.
fn by_name<'a>(
    lines: impl Iterator<Item = &'a str>,
    prefix: &str,
) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines {
        let (name, rest) = line.split_once(' ').unwrap();
        let value = rest.split(' ').next().unwrap();
        let own = name.split_once(prefix).map_or("", |(_, own)| own);
        let base = OURS.iter().find(|ours| own.starts_with(*ours));
        if base.is_none() && !own.starts_with("server.") {
            found
                .entry(name.to_string())
                .or_default()
                .push(value.to_string());
        }
    }
    found.values_mut().for_each(|values| values.sort());
    found
}

fn compare(found: &str, recorded: &[Value], prefix: &str, what: &str) {
    let mut found = by_name(found.lines(), prefix);
    for (name, values) in by_name(recorded.iter().map(text), prefix) {
        let ours = found.remove(&name);
        if values == ["*"] {
            assert!(ours.is_some(), "{what}: {name} is missing");
        } else {
            assert_eq!(ours, Some(values), "{what}: {name}");
        }
    }
    assert!(found.is_empty(), "{what}: too much: {found:?}");
}

fn play(file: &str) -> usize {
    let path = format!("{}/tests/vectors/{file}.json", env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(path).unwrap();
    let scenarios = Reader::new(&source).file().unwrap();
    for scenario in list(&scenarios) {
        let name = format!("{file}: {}", text(member(scenario, "name").unwrap()));
        let config = member(scenario, "config").unwrap();
        let mut stage = Stage::new(&config.to_json());
        let prefix = match stage.core.config.prefix_stats.as_str() {
            "" => "..".to_string(),
            prefix => format!("{prefix}."),
        };
        for (number, step) in list(member(scenario, "steps").unwrap()).iter().enumerate() {
            let what = format!("{name}, step {number}");
            if let Some(packet) = member(step, "udp") {
                stage.core.packet(text(packet).as_bytes());
            } else if let Some(bytes) = member(step, "tcp") {
                let core = &mut stage.core;
                let mut chunk = vec![0; stage.tcp.waiting()];
                chunk.extend_from_slice(text(bytes).as_bytes());
                stage
                    .tcp
                    .take(&mut chunk, 8192, &mut |packet| core.packet(packet));
            } else if let Some(recorded) = member(step, "flush") {
                let found = String::from_utf8(stage.flush()).unwrap();
                compare(&found, list(recorded), &prefix, &what);
            } else if let Some(line) = member(step, "admin") {
                let ours = |line: &&str| {
                    line.starts_with("server.")
                        || OURS
                            .iter()
                            .any(|own| line.starts_with(&own.replace("graphiteStats", "graphite")))
                };
                let reply = stage.admin(text(line));
                let reply: Vec<&str> = reply.split('\n').filter(|line| !ours(line)).collect();
                assert_eq!(
                    reply.join("\n"),
                    text(member(step, "reply").unwrap()),
                    "{what}"
                );
            } else {
                panic!("{what}: {step:?}");
            }
        }
    }
    list(&scenarios).len()
}

#[test]
fn protocol() {
    assert_eq!(play("protocol"), 78);
}

#[test]
fn timers() {
    assert_eq!(play("timers"), 107);
}

#[test]
fn flushes() {
    assert_eq!(play("flush"), 33);
}

#[test]
fn graphite() {
    assert_eq!(play("graphite"), 18);
}

#[test]
fn tcp() {
    assert_eq!(play("tcp"), 4);
}

#[test]
fn console() {
    assert_eq!(play("admin"), 12);
}

#[test]
fn long() {
    assert_eq!(play("long"), 3);
}

/// A backend that a reload adds while a flush is handed out gets the rest of it, with a timestamp.
#[test]
fn a_backend_that_joins_in_the_midst_of_a_flush() {
    let mut stage = Stage::new("{ backends: [] }");
    stage.core.backends.clear();
    for n in 0..5000 {
        stage.core.packet(format!("name.{n}:1|c").as_bytes());
    }
    stage
        .core
        .begin_flush(Duration::from_secs(10), 0, stage.now);
    stage.core.slice(stage.now);
    let mut config = stage.core.config.clone();
    config.backends = vec![BackendKind::Graphite];
    stage.core.configure(config, stage.now);
    while stage.core.flusher.is_running() {
        stage.core.slice(stage.now);
    }
    let (_, piece) = stage.core.backends[0].piece(None).unwrap();
    let text = String::from_utf8_lossy(piece.bytes).into_owned();
    assert!(
        text.lines().all(|line| line.ends_with(" 1700000000")),
        "{text}"
    );
}

/// Rates are per second of the time covered, also where a flush was missed; the lag tells of it.
#[test]
fn rates_of_a_flush_behind_one_that_was_missed() {
    let mut stage = Stage::new("{ flushInterval: 10000 }");
    for (intervals, rate, lag) in [(1, "2", None), (2, "1", Some("10")), (1, "2", Some("0"))] {
        stage.core.packet(b"c:20|c\nt:5|ms|@0.05");
        let text = String::from_utf8(stage.flush_after(intervals)).unwrap();
        let found = by_name(text.lines(), "statsd.");
        let value = |name: &str| found.get(name).map(|values| values[0].as_str());
        assert_eq!(value("stats.c"), Some(rate));
        assert_eq!(value("stats_counts.c"), Some("20"));
        assert_eq!(value("stats.timers.t.count_ps"), Some(rate));
        assert_eq!(value("stats.timers.t.count"), Some("20"));
        assert_eq!(value("stats.gauges.statsd.timestamp_lag"), lag);
    }
}
