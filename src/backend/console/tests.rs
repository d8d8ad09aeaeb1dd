//! What the console backend prints, to the letter, and what happens when nobody reads it.

use super::*;
use crate::config::{Environment, load::statsd_from_text};
use crate::protocol::Value;
use crate::store::{Bounds, Plan, Policy, Store};
use crate::timer::Summary;
use std::rc::Rc;

const AT: Flush = Flush {
    timestamp: 1_700_000_000,
    seconds: 10.0,
};

fn console(config: &str) -> Console {
    let environment = Environment::of_this_machine();
    let loaded = statsd_from_text(config, "test", &environment).unwrap();
    Console::new(&loaded.config, Now::read())
}

fn begin(console: &mut Console, lines: &[(&str, Value<'_>)]) {
    let bounds = Bounds {
        names: 1_000_000,
        timer_values: 1_000_000,
        set_members: 1_000_000,
    };
    let mut store = Store::new("statsd", false, bounds);
    for (name, value) in lines {
        assert!(store.apply(name.as_bytes(), *value), "{name}");
    }
    let bins: &[f64] = &[1.5, f64::INFINITY];
    let figures = ["count_90", "count", "sum", "histogram"].map(str::to_string);
    // The filter knows thresholds as `_percent`.
    let figures = figures.map(|name| name.replace("90", "percent"));
    assert!(store.flip(Plan {
        policy: Policy::default(),
        summary: Rc::new(Summary::new(&[90.0], &figures, [("t", bins)])),
    }));
    console.flush_begin(&AT, Now::read());
    // The tests may be run on a terminal.
    console.pen.colour = false;
    while store
        .drain(1000, &mut |entry| console.flush_entry(&AT, &entry))
        .is_none()
    {}
}

/// What it has ready for standard output.
fn text(console: &mut Console) -> String {
    let mut out = Vec::new();
    while console.undelivered() > 0 {
        console.hand_on(|| true, |piece| out.extend_from_slice(piece));
    }
    String::from_utf8(out).unwrap()
}

/// The text below the heading, with the daemon's own counters left away.
fn printed(console: &mut Console, lines: &[(&str, Value<'_>)]) -> String {
    begin(console, lines);
    console.finish(&AT, Now::read());
    let text = text(console);
    let (heading, object) = text.split_once('\n').unwrap();
    assert_eq!(
        heading,
        format!("Flushing stats at  {}", log::date(AT.timestamp))
    );
    let own = |line: &&str| !line.contains("\"statsd.");
    object.lines().filter(own).collect::<Vec<_>>().join("\n")
}

const LINES: [(&str, Value<'_>); 9] = [
    ("a", Value::Counter(3.0)),
    (
        "t",
        Value::Timer {
            value: 2.0,
            count: 1.0,
        },
    ),
    (
        "t",
        Value::Timer {
            value: 1.0,
            count: 1.0,
        },
    ),
    (
        "u",
        Value::Timer {
            value: 0.5,
            count: 1.0,
        },
    ),
    ("g", Value::Gauge(1e21)),
    ("s", Value::Set(b"one")),
    ("s", Value::Set(b"t\"wo")),
    ("s", Value::Set(b"one")),
    ("b\n", Value::Counter(1e308)),
];

#[test]
fn a_flush_is_one_object_with_a_bucket_a_line() {
    let mut console = console("{}");
    assert_eq!(
        printed(&mut console, &LINES),
        r#"{
  "counters": {
    "a": 3,
    "b\u000a": 1e+308
  },
  "timers": {
    "t": [1, 2],
    "u": [0.5]
  },
  "gauges": {
    "g": 1e+21
  },
  "timer_data": {
    "t": {"count_90": 2, "count": 2, "sum": 3, "histogram": {"bin_1_5": 1, "bin_inf": 1}},
    "u": {"count_90": 1, "count": 1, "sum": 0.5}
  },
  "counter_rates": {
    "a": 0.3,
    "b\u000a": 1e+307
  },
  "sets": {
    "s": ["one", "t\"wo"]
  },
  "pctThreshold": [90]
}"#
    );
}

#[test]
fn pretty_is_spread_out() {
    let mut console = console("{console: {prettyprint: true}, percentThreshold: [90, -5]}");
    let text = printed(&mut console, &LINES);
    let data = r#"
    "t": {
      "count_90": 2,
      "count": 2,
      "sum": 3,
      "histogram": {
        "bin_1_5": 1,
        "bin_inf": 1
      }
    },
"#;
    assert!(text.contains(data), "{text}");
    assert!(text.ends_with("  \"pctThreshold\": [90, -5]\n}"), "{text}");
}

#[test]
fn colours_are_for_terminals_alone() {
    for (pretty, terminal, no_colour, colour) in [
        (true, true, None, true),
        (true, true, Some(""), true),
        (true, true, Some("1"), false),
        (true, false, None, false),
        (false, true, None, false),
    ] {
        let found = pen(pretty, terminal, no_colour.map(OsStr::new));
        assert_eq!((found.spread, found.colour), (pretty, colour));
    }
}

#[test]
fn colours_change_nothing_else() {
    let coloured = Pen {
        spread: true,
        colour: true,
    };
    let mut page = Page::default();
    page.add(
        coloured,
        &Entry::Gauge {
            name: b"g",
            value: 1.0,
        },
        10.0,
    );
    let text = String::from_utf8(page.text(coloured, "now")).unwrap();
    assert!(text.contains("\x1b[36m\"g\"\x1b[39m: \x1b[33m1\x1b[39m"));
    let mut bare = text.clone();
    for sequence in ["\x1b[36m", "\x1b[33m", "\x1b[39m"] {
        bare = bare.replace(sequence, "");
    }
    assert!(!bare.contains('\x1b'));
    assert!(bare.contains("  \"gauges\": {\n    \"g\": 1\n  },\n"));
}

#[test]
fn an_empty_flush() {
    let mut console = console("{percentThreshold: []}");
    let text = printed(&mut console, &[]);
    assert!(text.contains("  \"timers\": {},\n  \"gauges\": {},\n  \"timer_data\": {},\n"));
    assert!(text.ends_with("  \"sets\": {},\n  \"pctThreshold\": []\n}"));
}

#[test]
fn a_flush_over_the_limit_says_how_much_it_leaves_out() {
    let mut console = console("{}");
    let names: Vec<String> = (0..100_000)
        .map(|n| format!("a.rather.long.name.of.a.counter.{n}"))
        .collect();
    let lines: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), Value::Counter(1.0)))
        .collect();
    let text = printed(&mut console, &lines);
    assert!(text.len() < LIMIT + 1000);
    let shown = text.matches("\"a.rather").count();
    assert!(shown > 2 * 30_000, "{shown}");
    let (_, left_out) = text.rsplit_once("\"pctThreshold\": [90],\n").unwrap();
    assert_eq!(
        left_out,
        format!("  \"leftOut\": {}\n}}", 100_000 - shown / 2)
    );
    // The next one begins from nothing.
    assert!(!printed(&mut console, &LINES).contains("leftOut"));
}

#[test]
fn what_fits_is_one_message_and_what_does_not_ends_at_lines() {
    let mut console = console("{}");
    for (size, messages) in [(1000, 1), (stdout::LIMIT / 10, 1), (stdout::LIMIT / 4, 3)] {
        console.text = b"123456789\n".repeat(size);
        let mut lengths = Vec::new();
        while console.undelivered() > 0 {
            let before = lengths.len();
            console.hand_on(
                || true,
                |piece| {
                    assert!(piece.ends_with(b"\n"));
                    lengths.push(piece.len());
                },
            );
            assert_eq!(lengths.len(), before + 1, "one in a turn");
        }
        assert_eq!(lengths.len(), messages, "{lengths:?}");
        assert_eq!(lengths.iter().sum::<usize>(), size * 10);
        assert!(lengths.iter().all(|length| *length <= stdout::LIMIT));
    }
}

#[test]
fn without_a_reader_the_next_flush_is_lost_and_counted() {
    let mut console = console("{}");
    let start = console.last_flush;
    let later = |seconds| Now {
        wall: Now::read().wall + std::time::Duration::from_secs(seconds),
        ..Now::read()
    };
    begin(&mut console, &LINES);
    console.finish(&AT, later(10));
    console.hand_on(|| false, |_| panic!("there is no room"));
    let waiting = console.undelivered();
    assert!(waiting > 0);
    begin(&mut console, &[]);
    console.finish(&AT, later(20));
    assert_eq!((console.undelivered(), console.lost), (waiting, 1));
    assert!(console.last_exception >= start + 20);
    assert!(text(&mut console).contains("\"a\": 3"));
    begin(&mut console, &LINES);
    console.finish(&AT, later(30));
    assert_eq!(console.lost, 1);
    assert!(console.undelivered() > 0);

    let mut found = Vec::new();
    console.status(&mut |name, value| found.push((name.to_string(), value as u64)));
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["console.lastFlush", "console.lastException"]);
    assert!(found[0].1 >= start + 30 && found[1].1 < start + 30);
}
