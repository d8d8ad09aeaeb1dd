//! A flush as Graphite reads it: names with their prefixes and suffix, and lines of text or pickles.
//!
//! ```text
//! stats.timers. web.hits .upper_90 .host1 ;dc=eu  320 1700000000\n
//! prefix        name     leaf      suffix tags    value timestamp
//! ```
//!
//! Names follow `legacyNamespace` and its prefixes exactly as the original forms them (SPEC 6). A value that
//! is no finite number is not sent (SPEC 9, point 2).

use super::spool::Spool;
use crate::config::Config;
use crate::number;
use crate::protocol::name;
use memchr::memchr;

/// A block is closed when it has this many bytes. In pickles it is one of them; carbon refuses those
/// of more than a MiB.
const BLOCK: usize = 128 * 1024;

/// A pickle's length, to be filled in, and the start of a list.
const PICKLE_START: &[u8] = b"\0\0\0\0(l";

/// Everything that the config says about names.
#[derive(Clone, Debug, Default, PartialEq)]
struct Namespace {
    pickle: bool,
    /// Names were stored as they came.
    sanitize: bool,
    counter_rate: Affix,
    counter_count: Affix,
    timer: Vec<u8>,
    gauge: Affix,
    set: Affix,
    /// The daemon's own figures.
    own: Affix,
    num_stats: Affix,
    suffix: Vec<u8>,
    flush_counts: bool,
}

/// What stands around a name.
#[derive(Clone, Debug, Default, PartialEq)]
struct Affix {
    prefix: Vec<u8>,
    leaf: &'static str,
}

impl Namespace {
    fn new(config: &Config) -> Namespace {
        let graphite = &config.graphite;
        let legacy = graphite.legacy_namespace;
        let stats = config.prefix_stats.as_str();
        let global = if legacy {
            "stats"
        } else {
            &graphite.global_prefix
        };
        let own = [dotted(&[global]), stats.as_bytes().to_vec(), b".".to_vec()].concat();
        let affix = |prefix: &[&str], leaf| Affix {
            prefix: dotted(prefix),
            leaf,
        };
        let common = Namespace {
            pickle: graphite.pickle,
            sanitize: !config.key_name_sanitize,
            suffix: graphite
                .global_suffix
                .iter()
                .flat_map(|s| [".", s].concat().into_bytes())
                .collect(),
            own: Affix {
                prefix: own.clone(),
                leaf: "",
            },
            flush_counts: config.flush_counts,
            ..Namespace::default()
        };
        if legacy {
            Namespace {
                counter_rate: affix(&[global], ""),
                counter_count: affix(&["stats_counts"], ""),
                timer: dotted(&[global, "timers"]),
                gauge: affix(&[global, "gauges"], ""),
                set: affix(&[global, "sets"], ".count"),
                num_stats: Affix {
                    prefix: format!("{stats}.").into(),
                    leaf: "",
                },
                ..common
            }
        } else {
            Namespace {
                counter_rate: affix(&[global, &graphite.prefix_counter], ".rate"),
                counter_count: affix(&[global, &graphite.prefix_counter], ".count"),
                timer: dotted(&[global, &graphite.prefix_timer]),
                gauge: affix(&[global, &graphite.prefix_gauge], ""),
                set: affix(&[global, &graphite.prefix_set], ".count"),
                num_stats: Affix {
                    prefix: own,
                    leaf: "",
                },
                ..common
            }
        }
    }
}

/// Each part with a dot behind it; an empty one is left out.
fn dotted(parts: &[&str]) -> Vec<u8> {
    let parts = parts.iter().filter(|part| !part.is_empty());
    parts
        .flat_map(|part| [part.as_bytes(), b"."].concat())
        .collect()
}

/// Writes a flush into the spool.
pub struct Lines {
    space: Namespace,
    /// What a reload brought while a flush was being written.
    next: Option<Namespace>,
    clean: Clean,
    /// The timestamp, and what stands around it in each line.
    timestamp: Vec<u8>,
}

impl Lines {
    pub fn new(config: &Config) -> Lines {
        Lines {
            space: Namespace::new(config),
            next: None,
            clean: Clean::default(),
            timestamp: Vec::new(),
        }
    }

    /// Takes a new config from the next flush on.
    pub fn configure(&mut self, config: &Config) {
        self.next = Some(Namespace::new(config));
    }

    /// A flush begins.
    pub fn begin(&mut self, timestamp: u64) {
        if let Some(next) = self.next.take() {
            self.space = next;
        }
        let (front, behind) = if self.space.pickle {
            ("(L", "L\nS'")
        } else {
            (" ", "\n")
        };
        self.timestamp.clear();
        self.timestamp.extend_from_slice(front.as_bytes());
        number::write_integer(&mut self.timestamp, timestamp);
        self.timestamp.extend_from_slice(behind.as_bytes());
    }

    /// Whether the present flush is one of pickles.
    pub fn is_pickle(&self) -> bool {
        self.space.pickle
    }

    /// The flush is complete.
    pub fn end(&mut self, to: &mut Spool) {
        close_block(to, self.space.pickle);
    }

    /// For the lines of one bucket.
    #[inline]
    fn of<'a>(&'a mut self, name: &'a [u8]) -> Bucket<'a> {
        let (mut base, mut tags) = name.split_at(memchr(b';', name).unwrap_or(name.len()));
        if self.space.sanitize {
            (base, tags) = self.clean.take(base, tags);
        }
        Bucket {
            space: &self.space,
            timestamp: &self.timestamp,
            base,
            tags,
        }
    }

    /// A counter's rate and, with `flush_counts`, its sum.
    #[inline]
    pub fn counter(&mut self, to: &mut Spool, name: &[u8], value: f64, rate: f64) {
        let bucket = self.of(name);
        bucket.put(to, &bucket.space.counter_rate, rate);
        if bucket.space.flush_counts {
            bucket.put(to, &bucket.space.counter_count, value);
        }
    }

    /// A timer, whose figures are put one by one.
    pub fn timer<'a>(&'a mut self, name: &'a [u8]) -> TimerLines<'a> {
        TimerLines(self.of(name))
    }

    pub fn gauge(&mut self, to: &mut Spool, name: &[u8], value: f64) {
        let bucket = self.of(name);
        bucket.put(to, &bucket.space.gauge, value);
    }

    /// A set's number of members.
    pub fn set(&mut self, to: &mut Spool, name: &[u8], count: f64) {
        let bucket = self.of(name);
        bucket.put(to, &bucket.space.set, count);
    }

    /// The number of buckets, which the legacy namespace has in a place of its own.
    pub fn num_stats(&mut self, to: &mut Spool, count: f64) {
        let bucket = self.of(b"numStats");
        bucket.put(to, &bucket.space.num_stats, count);
    }

    /// A figure of the daemon's own.
    pub fn own(&mut self, to: &mut Spool, figure: &str, value: f64) {
        let bucket = self.of(figure.as_bytes());
        bucket.put(to, &bucket.space.own, value);
    }
}

/// A name that was stored as it came, sanitized.
#[derive(Default)]
struct Clean {
    base: Vec<u8>,
    tags: Vec<u8>,
}

impl Clean {
    fn take(&mut self, base: &[u8], tags: &[u8]) -> (&[u8], &[u8]) {
        self.base.clear();
        name::append_sanitized(base, &mut self.base);
        // The original leaves tags alone here. What would break a line or a pickle must go.
        let harmful = |b: &u8| *b <= b' ' || matches!(b, b'\'' | b'\\' | 0x7f);
        let tags = tags.iter().map(|b| if harmful(b) { b'_' } else { *b });
        self.tags.clear();
        self.tags.extend(tags);
        (&self.base, &self.tags)
    }
}

/// What the lines of one bucket have in common.
struct Bucket<'a> {
    space: &'a Namespace,
    timestamp: &'a [u8],
    base: &'a [u8],
    /// Each with its `;`. They stand behind the suffix.
    tags: &'a [u8],
}

impl Bucket<'_> {
    #[inline]
    fn put(&self, to: &mut Spool, affix: &Affix, value: f64) {
        self.put_under(to, &affix.prefix, [affix.leaf, ""], value);
    }

    #[inline]
    fn put_under(&self, to: &mut Spool, prefix: &[u8], leaf: [&str; 2], value: f64) {
        if !value.is_finite() {
            return;
        }
        let pickle = self.space.pickle;
        let block = to.block();
        if pickle {
            if block.is_empty() {
                block.extend_from_slice(PICKLE_START);
            }
            block.extend_from_slice(b"(S'");
        }
        block.extend_from_slice(prefix);
        block.extend_from_slice(self.base);
        let rest = [
            leaf[0].as_bytes(),
            leaf[1].as_bytes(),
            &self.space.suffix,
            self.tags,
        ];
        for part in rest.into_iter().filter(|part| !part.is_empty()) {
            block.extend_from_slice(part);
        }
        if pickle {
            block.extend_from_slice(b"'\n");
            block.extend_from_slice(self.timestamp);
            number::write(block, value);
            block.extend_from_slice(b"'\ntta");
        } else {
            block.push(b' ');
            number::write(block, value);
            block.extend_from_slice(self.timestamp);
        }
        if block.len() >= BLOCK {
            close_block(to, pickle);
        }
    }
}

/// See [`Lines::timer`].
pub struct TimerLines<'a>(Bucket<'a>);

impl TimerLines<'_> {
    /// A figure of the timer.
    pub fn put(&self, to: &mut Spool, figure: &str, value: f64) {
        let Bucket { space, .. } = self.0;
        self.0.put_under(to, &space.timer, [".", figure], value);
    }
}

/// Ends a block: in pickles each is one, with its length in front.
fn close_block(to: &mut Spool, pickle: bool) {
    let block = to.block();
    if pickle && !block.is_empty() {
        block.push(b'.');
        let length = (block.len() - 4) as u32;
        block[..4].copy_from_slice(&length.to_be_bytes());
    }
    to.close_block();
}
