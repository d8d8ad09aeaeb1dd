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
    line: Line,
}

impl Lines {
    pub fn new(config: &Config) -> Lines {
        Lines {
            space: Namespace::new(config),
            next: None,
            line: Line::default(),
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
        self.line.begin(timestamp, &self.space);
    }

    /// Whether the present flush is one of pickles.
    pub fn is_pickle(&self) -> bool {
        self.space.pickle
    }

    /// The flush is complete.
    pub fn end(&mut self, to: &mut Spool) {
        self.line.close_block(to);
    }

    /// A counter's rate and, with `flush_counts`, its sum.
    pub fn counter(&mut self, to: &mut Spool, name: &[u8], value: f64, rate: f64) {
        self.line.name(name);
        self.line.put(to, &self.space.counter_rate, rate);
        if self.space.flush_counts {
            self.line.put(to, &self.space.counter_count, value);
        }
    }

    /// Which timer the figures that follow are of.
    pub fn timer_name(&mut self, name: &[u8]) {
        self.line.name(name);
    }

    /// A figure of that timer.
    pub fn timer(&mut self, to: &mut Spool, figure: &str, value: f64) {
        self.line
            .put_under(to, &self.space.timer, &[b".", figure.as_bytes()], value);
    }

    pub fn gauge(&mut self, to: &mut Spool, name: &[u8], value: f64) {
        self.line.name(name);
        self.line.put(to, &self.space.gauge, value);
    }

    /// A set's number of members.
    pub fn set(&mut self, to: &mut Spool, name: &[u8], count: f64) {
        self.line.name(name);
        self.line.put(to, &self.space.set, count);
    }

    /// The number of buckets, which the legacy namespace has in a place of its own.
    pub fn num_stats(&mut self, to: &mut Spool, count: f64) {
        self.line.name(b"numStats");
        self.line.put(to, &self.space.num_stats, count);
    }

    /// A figure of the daemon's own.
    pub fn own(&mut self, to: &mut Spool, figure: &str, value: f64) {
        self.line.name(figure.as_bytes());
        self.line.put(to, &self.space.own, value);
    }
}

/// The line at hand: what goes into it beside prefix, leaf and value.
#[derive(Default)]
struct Line {
    pickle: bool,
    sanitize: bool,
    suffix: Vec<u8>,
    timestamp: Vec<u8>,
    name: Vec<u8>,
    /// Each with its `;`.
    tags: Vec<u8>,
}

impl Line {
    fn begin(&mut self, timestamp: u64, space: &Namespace) {
        (self.pickle, self.sanitize) = (space.pickle, space.sanitize);
        self.suffix.clone_from(&space.suffix);
        self.timestamp.clear();
        number::write_integer(&mut self.timestamp, timestamp);
    }

    /// Takes a name apart; tags stay behind the suffix.
    #[inline]
    fn name(&mut self, name: &[u8]) {
        let (base, tags) = name.split_at(memchr(b';', name).unwrap_or(name.len()));
        self.name.clear();
        self.tags.clear();
        if self.sanitize {
            name::append_sanitized(base, &mut self.name);
            // The original leaves tags alone here. What would break a line or a pickle must go.
            let harmful = |b: &u8| *b <= b' ' || matches!(b, b'\'' | b'\\' | 0x7f);
            self.tags
                .extend(tags.iter().map(|b| if harmful(b) { b'_' } else { *b }));
        } else {
            self.name.extend_from_slice(base);
            self.tags.extend_from_slice(tags);
        }
    }

    #[inline]
    fn put(&mut self, to: &mut Spool, affix: &Affix, value: f64) {
        self.put_under(to, &affix.prefix, &[affix.leaf.as_bytes()], value);
    }

    #[inline]
    fn put_under(&mut self, to: &mut Spool, prefix: &[u8], leaf: &[&[u8]], value: f64) {
        if !value.is_finite() {
            return;
        }
        let block = to.block();
        if self.pickle {
            if block.is_empty() {
                block.extend_from_slice(PICKLE_START);
            }
            block.extend_from_slice(b"(S'");
        }
        block.extend_from_slice(prefix);
        block.extend_from_slice(&self.name);
        leaf.iter().for_each(|part| block.extend_from_slice(part));
        block.extend_from_slice(&self.suffix);
        block.extend_from_slice(&self.tags);
        if self.pickle {
            block.extend_from_slice(b"'\n(L");
            block.extend_from_slice(&self.timestamp);
            block.extend_from_slice(b"L\nS'");
            number::write(block, value);
            block.extend_from_slice(b"'\ntta");
        } else {
            block.push(b' ');
            number::write(block, value);
            block.push(b' ');
            block.extend_from_slice(&self.timestamp);
            block.push(b'\n');
        }
        if block.len() >= BLOCK {
            self.close_block(to);
        }
    }

    /// Ends a block: in pickles each is one, with its length in front.
    fn close_block(&mut self, to: &mut Spool) {
        let block = to.block();
        if self.pickle && !block.is_empty() {
            block.push(b'.');
            let length = (block.len() - 4) as u32;
            block[..4].copy_from_slice(&length.to_be_bytes());
        }
        to.close_block();
    }
}
