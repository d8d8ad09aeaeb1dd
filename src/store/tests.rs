//! The store against the rules of SPEC 3 to 5, and a flush in slices against one in a piece.

use super::*;
use crate::snapshot::Entry;
use crate::timer::Summary;
use std::collections::BTreeMap;
use std::rc::Rc;

const AMPLE: Bounds = Bounds {
    names: 100_000,
    timer_values: 1_000_000,
    set_members: 1_000_000,
};

fn store() -> Store {
    Store::new("statsd", true, AMPLE)
}

fn plan(policy: Policy) -> Plan {
    Plan {
        policy,
        summary: Rc::new(Summary::new(&[90.0], &[], [])),
    }
}

/// What a flush hands out, in slices of `budget`; between two of them `between` is called.
fn flush(
    store: &mut Store,
    plan: Plan,
    budget: usize,
    mut between: impl FnMut(&mut Store),
) -> BTreeMap<String, String> {
    assert!(store.flip(plan));
    let mut out = BTreeMap::new();
    loop {
        let mut visit = |entry: Entry<'_>| {
            let (key, value) = show(&entry);
            assert_eq!(
                out.insert(key.clone(), value),
                None,
                "{key} was handed out twice"
            );
        };
        if let Some(count) = store.drain(budget, &mut visit) {
            assert_eq!(count, out.len());
            return out;
        }
        between(store);
    }
}

fn show(entry: &Entry<'_>) -> (String, String) {
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    match entry {
        Entry::Counter { name, value } => (format!("c {}", text(name)), value.to_string()),
        Entry::Gauge { name, value } => (format!("g {}", text(name)), value.to_string()),
        Entry::Set { name, members } => (format!("s {}", text(name)), members.len().to_string()),
        Entry::Timer { name, timer } => {
            let mut figures = String::new();
            timer.figures(name, 10.0, |figure, value| {
                figures += &format!("{figure}={value} ")
            });
            (format!("t {}", text(name)), figures)
        }
    }
}

/// A pseudo-random stream of metrics over few names, so that each is met often.
struct Traffic(u64);

impl Traffic {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    fn send(&mut self, stores: &mut [&mut Store], names: u64) {
        let name = format!("n{}", self.next() % names);
        let number = (self.next() % 1000) as f64 / 8.0;
        let member = format!("m{}", self.next() % 20);
        let value = match self.next() % 5 {
            0 => Value::Counter(number),
            1 => Value::Timer {
                value: number,
                count: 2.0,
            },
            2 => Value::Gauge(number),
            3 => Value::GaugeDelta(-number),
            _ => Value::Set(member.as_bytes()),
        };
        for store in stores {
            assert!(store.apply(name.as_bytes(), value));
        }
    }
}

/// Issue 3: metrics that come in between the slices of a flush count in the next one, and the flush is
/// what it would have been in one piece; for every type and every idle policy.
#[test]
fn slices_equal_one_piece() {
    for bits in 0..16u32 {
        for ttl in [1, 3] {
            let policy = Policy {
                delete_counters: bits & 1 != 0,
                delete_timers: bits & 2 != 0,
                delete_sets: bits & 4 != 0,
                delete_gauges: bits & 8 != 0,
                gauges_max_ttl: ttl,
            };
            let (mut whole, mut sliced) = (store(), store());
            let mut traffic = Traffic(u64::from(bits) + 1);
            for round in 0..30u64 {
                // Some rounds bring many names, some few, some none.
                for _ in 0..[200, 5, 0][(round % 3) as usize] {
                    traffic.send(&mut [&mut whole, &mut sliced], 80);
                }
                let expected = flush(&mut whole, plan(policy), usize::MAX, |_| ());
                let budget = 1 + (round * 7 % 60) as usize;
                let mut late = Traffic(round + 1);
                let mut sent = 0;
                let found = flush(&mut sliced, plan(policy), budget, |store| {
                    late.send(&mut [store], 120);
                    sent += 1;
                });
                assert_eq!(found, expected, "round {round}, policy {policy:?}");
                let mut late = Traffic(round + 1);
                (0..sent).for_each(|_| late.send(&mut [&mut whole], 120));
                for kind in [Kind::Counter, Kind::Gauge] {
                    assert_eq!(listing(&whole, kind), listing(&sliced, kind));
                }
            }
        }
    }
}

fn listing(store: &Store, kind: Kind) -> BTreeMap<String, String> {
    (0..store.slot_count(kind))
        .filter_map(|id| store.show(kind, id))
        .map(|(name, shown)| {
            let value = match shown {
                Shown::Number(value) => value.to_string(),
                Shown::Values(samples) => samples.len().to_string(),
            };
            (String::from_utf8_lossy(name).into_owned(), value)
        })
        .collect()
}

#[test]
fn a_flush_under_way_is_not_flipped_again() {
    let mut store = store();
    store.apply(b"a", Value::Counter(1.0));
    assert!(store.flip(plan(Policy::default())));
    assert!(!store.flip(plan(Policy::default())));
    store.apply(b"a", Value::Counter(2.0));
    let mut seen = Vec::new();
    while store
        .drain(1, &mut |entry| seen.push(show(&entry)))
        .is_none()
    {}
    assert!(seen.contains(&("c a".into(), "1".into())));
    let next = flush(&mut store, plan(Policy::default()), 99, |_| ());
    assert_eq!(next["c a"], "2");
}

#[test]
fn names() {
    let mut store = store();
    assert!(store.apply(b"fo/o b$r", Value::Counter(1.0)));
    assert!(store.apply(b"fo-o_br", Value::Counter(1.0)));
    assert!(!store.apply(b"$%&", Value::Counter(1.0)));
    assert!(!store.apply(b"", Value::Counter(1.0)));
    assert!(!store.apply(b"a|#b", Value::Counter(1.0)));
    for name in ["__proto__", "constructor", "hasOwnProperty"] {
        assert!(store.apply(
            name.as_bytes(),
            Value::Timer {
                value: 1.0,
                count: 1.0
            }
        ));
        assert!(store.apply(name.as_bytes(), Value::Set(b"__proto__")));
    }
    let out = flush(&mut store, plan(Policy::default()), 99, |_| ());
    assert_eq!(out["c fo-o_br"], "2");
    assert_eq!(out["s __proto__"], "1");
    assert!(out.contains_key("t constructor"));
    assert_eq!(out.len(), 4 + 6);
}

#[test]
fn without_sanitizing_names_stay_as_they_came() {
    let mut store = Store::new("statsd", false, AMPLE);
    assert!(store.apply(b"fo/o", Value::Counter(1.0)));
    assert!(store.apply(b"fo-o", Value::Counter(1.0)));
    assert!(!store.apply(b"$", Value::Counter(1.0)));
    let out = flush(&mut store, plan(Policy::default()), 99, |_| ());
    assert_eq!((out["c fo/o"].as_str(), out["c fo-o"].as_str()), ("1", "1"));
}

/// Long names and members count as several, so that their number bounds the memory.
#[test]
fn long_names_are_bounded_too() {
    let bounds = Bounds {
        names: 1000,
        timer_values: 10,
        set_members: 1000,
    };
    let delete = Policy {
        delete_counters: true,
        delete_sets: true,
        ..Policy::default()
    };
    let mut store = Store::new("statsd", true, bounds);
    // Sizes that differ each time: the room of those that went does not fit those that come.
    for round in 0..40 {
        for n in 0..400 {
            let name = format!("{}.{n}", "n".repeat(500 + 8 * round));
            store.apply(name.as_bytes(), Value::Counter(1.0));
            store.apply(b"set", Value::Set(name.as_bytes()));
        }
        assert!(store.name_bytes() <= 128_000, "{}", store.name_bytes());
        let out = flush(&mut store, plan(delete), 1_000_000, |_| ());
        let members: f64 = out["s set"].parse().unwrap();
        assert!(members * 500.0 <= 128_000.0, "{members} members");
    }
    let refused = store.refused();
    assert!(refused.names > 0 && refused.set_members > 0);
    // A name that fits a room that is free still comes in.
    let name = format!("{}.0", "n".repeat(500));
    assert!(store.apply(name.as_bytes(), Value::Counter(1.0)));
    assert!(store.counters.find(name.as_bytes()).is_some());
}

/// Over a bound the newcomer is refused and what is known keeps working.
#[test]
fn bounds() {
    let mut store = Store::new(
        "statsd",
        true,
        Bounds {
            names: 5,
            timer_values: 3,
            set_members: 2,
        },
    );
    assert!(store.apply(
        b"a",
        Value::Timer {
            value: 1.0,
            count: 1.0
        }
    ));
    assert!(store.apply(b"b", Value::Set(b"1")));
    assert!(
        store.apply(b"c", Value::Counter(1.0)),
        "a name too many is no bad line"
    );
    for _ in 0..5 {
        store.apply(
            b"a",
            Value::Timer {
                value: 2.0,
                count: 1.0,
            },
        );
        store.apply(b"b", Value::Set(b"2"));
        store.apply(b"b", Value::Set(b"3"));
    }
    assert_eq!(
        store.refused(),
        Refused {
            names: 1,
            timer_values: 3,
            set_members: 5
        }
    );
    let out = flush(&mut store, plan(Policy::default()), 99, |_| ());
    assert_eq!(out["s b"], "2");
    assert!(out["t a"].contains("count=3 "));
    assert!(!out.contains_key("c c"));
    store.apply(
        b"a",
        Value::Timer {
            value: 2.0,
            count: 1.0,
        },
    );
    assert_eq!(
        store.refused().timer_values,
        3,
        "the next interval starts afresh"
    );
}

#[test]
fn deleting() {
    let mut store = store();
    store.apply(b"a", Value::Counter(1.0));
    store.apply(b"g", Value::Gauge(1.0));
    assert!(store.delete(Kind::Counter, b"a"));
    assert!(!store.delete(Kind::Counter, b"a"));
    assert!(store.delete(Kind::Gauge, b"g"));
    store.own.packets_received = 7;
    store.settle_own();
    assert!(store.delete(Kind::Counter, b"statsd.packets_received"));
    store.apply(b"g", Value::GaugeDelta(5.0));
    let out = flush(&mut store, plan(Policy::default()), 99, |_| ());
    assert_eq!(out["c statsd.packets_received"], "0");
    assert_eq!(out["g g"], "5");
    assert!(!out.contains_key("c a"));
}

/// A timer deleted while its figures are being made leaves its slot to others unharmed.
#[test]
fn deleting_in_the_midst_of_a_flush() {
    let mut store = store();
    for _ in 0..10_000 {
        store.apply(
            b"t",
            Value::Timer {
                value: 1.0,
                count: 1.0,
            },
        );
    }
    let mut deleted = false;
    let first = flush(&mut store, plan(Policy::default()), 50, |store| {
        if !deleted && store.delete(Kind::Timer, b"t") {
            deleted = true;
            store.apply(
                b"other",
                Value::Timer {
                    value: 2.0,
                    count: 1.0,
                },
            );
        }
    });
    assert!(deleted);
    assert!(!first.contains_key("t other"));
    let next = flush(&mut store, plan(Policy::default()), 50, |_| ());
    assert!(next["t other"].contains("sum=2 "));
    assert!(!next.contains_key("t t"));
}

/// To look ahead changes nothing, whatever the names.
#[test]
fn looking_ahead() {
    let mut store = store();
    let name = |n: usize| format!("name.{n}");
    assert!(!store.is_large());
    store.look_ahead(&[b"nothing".as_slice(), b"yet"]);
    for n in 0..40_000 {
        store.apply(name(n).as_bytes(), Value::Counter(1.0));
        if n % 1000 == 0 {
            let (known, unknown) = (name(n), name(n + 1));
            store.look_ahead(&[known.as_bytes(), unknown.as_bytes(), b""]);
        }
    }
    assert!(store.is_large());
    let out = flush(&mut store, plan(Policy::default()), 100_000, |_| ());
    assert_eq!(out.len(), 40_000 + 3);
    for n in 0..40_000 {
        assert_eq!(out[&format!("c {}", name(n))], "1");
    }
}

/// A large set's memory goes back piece by piece, and the set goes on.
#[test]
fn a_large_set_is_given_back_in_slices() {
    let mut store = store();
    let member = |n: usize| format!("member.{n:040}");
    for round in 0..2 {
        for n in 0..20_000 {
            store.apply(b"set", Value::Set(member(n + round).as_bytes()));
        }
        let mut slices = 0;
        let out = flush(&mut store, plan(Policy::default()), 1000, |store| {
            slices += 1;
            store.apply(b"set", Value::Set(b"meanwhile"));
        });
        // Each 128 KiB of names is a slice of its own.
        assert!(slices > 20_000 * 48 / (128 * 1024), "{slices}");
        let expected = if round == 0 { "20000" } else { "20001" };
        assert_eq!(out["s set"], expected);
    }
}
