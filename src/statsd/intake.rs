//! Taking packets in: the hot path from bytes to the store, and what is logged and counted beside it.
//!
//! For a metric of a known name nothing here allocates, reads a clock or logs.

use crate::config::Config;
use crate::event_loop::Now;
use crate::log::{self, Bytes, Latch, RateLimit};
use crate::protocol::{self, AHEAD, BadLine, Scratch, Sink, Value};
use crate::statsd::key_flush::KeyFlush;
use crate::store::{Bounds, Refused, Store};
use std::time::Duration;

/// Bad lines logged in each [`INTERVAL`]; the rest are summed up.
const BAD_LINES: u32 = 10;
const INTERVAL: Duration = Duration::from_secs(10);

/// See the module.
pub struct Intake {
    /// Where metrics go.
    pub store: Store,
    /// `keyFlush`, when it is on.
    pub key_flush: Option<KeyFlush>,
    scratch: Scratch,
    sanitize: bool,
    max_line: usize,
    dump: bool,
    /// Somebody wants to know of each line: `dumpMessages`, `keyFlush`.
    tells_lines: bool,
    now: Now,
    seconds: u64,
    /// Since the start; lines over `maxLineBytes` are among them.
    bad_lines: u64,
    /// Seconds since the epoch; at first, the start.
    last_seen: u64,
    log_limit: RateLimit,
    refusing: [Latch; 3],
    refused: Refused,
}

impl Intake {
    /// From the config.
    pub fn new(config: &Config, now: Now) -> Intake {
        Intake {
            store: Store::new(
                &config.prefix_stats,
                config.key_name_sanitize,
                bounds(config),
            ),
            key_flush: KeyFlush::new(config.key_flush.as_ref(), now),
            scratch: Scratch::default(),
            sanitize: config.key_name_sanitize,
            max_line: config.limits.max_line_bytes,
            dump: config.dump_messages,
            tells_lines: config.dump_messages || config.key_flush.is_some(),
            now,
            seconds: now.seconds(),
            bad_lines: 0,
            last_seen: now.seconds(),
            log_limit: RateLimit::new(BAD_LINES, INTERVAL),
            refusing: [Latch::new(); 3],
            refused: Refused::default(),
        }
    }

    /// Takes a new config; what is stored stays.
    pub fn configure(&mut self, config: &Config, now: Now) {
        self.store.configure(
            &config.prefix_stats,
            config.key_name_sanitize,
            bounds(config),
        );
        KeyFlush::configure(&mut self.key_flush, config.key_flush.as_ref(), now);
        self.sanitize = config.key_name_sanitize;
        self.max_line = config.limits.max_line_bytes;
        self.dump = config.dump_messages;
        self.tells_lines = self.dump || self.key_flush.is_some();
    }

    /// The time that holds for the packets of this turn.
    pub fn set_now(&mut self, now: Now) {
        self.now = now;
        self.seconds = now.seconds();
    }

    /// Takes one packet: a datagram, or whole lines of a stream.
    #[inline]
    pub fn packet(&mut self, packet: &[u8]) {
        let mut scratch = std::mem::take(&mut self.scratch);
        self.store.own.packets_received += 1;
        self.last_seen = self.seconds;
        protocol::parse_packet(packet, &mut scratch, self);
        self.scratch = scratch;
    }

    /// When a packet last came, in seconds since the epoch.
    pub fn last_seen(&self) -> u64 {
        self.last_seen
    }

    /// Tells a line to those who want to know of each.
    #[cold]
    fn tell(&mut self, line: &[u8]) {
        if self.dump {
            log::plain!("{}", Bytes(line));
        }
        if let Some(key_flush) = &mut self.key_flush {
            key_flush.count(line, self.sanitize);
        }
    }

    /// Bad lines since the start.
    pub fn bad_lines(&self) -> u64 {
        self.bad_lines
    }

    /// Counts lines that a stream was too long for to be handed on.
    pub fn count_long_lines(&mut self, lines: u64) {
        for _ in 0..lines {
            self.store.own.metrics_received += 1;
            self.bad_line(BadLine {
                value: b"longer than maxLineBytes",
                fields: b"",
                line: b"...",
            });
        }
    }

    /// Once a turn: sums up bad lines that were not logged.
    pub fn report(&mut self, now: Now) {
        if let Some(more) = self.log_limit.summary(now.mono) {
            log::plain!(
                "Bad line: {more} more like these in {} s",
                INTERVAL.as_secs()
            );
        }
    }

    /// At a flush: which limits refused something in the interval.
    pub fn report_limits(&mut self) {
        let refused = self.store.refused();
        let before = std::mem::replace(&mut self.refused, refused);
        let limits = [
            (
                "maxNames",
                "metrics of new names",
                refused.names - before.names,
            ),
            (
                "maxTimerValues",
                "timer values",
                refused.timer_values - before.timer_values,
            ),
            (
                "maxSetMembers",
                "set members",
                refused.set_members - before.set_members,
            ),
        ];
        for ((key, what, count), latch) in limits.into_iter().zip(&mut self.refusing) {
            if !latch.set(count > 0) {
                continue;
            }
            if count > 0 {
                log::warning!(
                    "over {key}: {count} {what} refused in this interval; known names go on"
                );
            } else {
                log::notice!("below {key} again");
            }
        }
    }
}

fn bounds(config: &Config) -> Bounds {
    Bounds {
        names: config.limits.max_names,
        timer_values: config.limits.max_timer_values,
        set_members: config.limits.max_set_members,
    }
}

impl Sink for Intake {
    #[inline]
    fn looks_ahead(&self) -> bool {
        self.store.is_large()
    }

    fn ahead(&mut self, names: &[&[u8]; AHEAD]) {
        self.store.look_ahead(names);
    }

    #[inline]
    fn known(&mut self, name: &[u8], value: Value<'_>, line: &[u8]) -> bool {
        if !self.store.apply_known(name, value) {
            return false;
        }
        self.store.own.metrics_received += 1;
        if self.tells_lines {
            self.tell(line);
        }
        true
    }

    fn line(&mut self, line: &[u8]) -> bool {
        self.store.own.metrics_received += 1;
        if self.tells_lines {
            self.tell(line);
        }
        if line.len() > self.max_line {
            self.bad_line(BadLine {
                value: b"longer than maxLineBytes",
                fields: b"",
                line: &line[..64.min(line.len())],
            });
            return false;
        }
        true
    }

    fn metric(&mut self, name: &[u8], value: Value<'_>) -> bool {
        self.store.apply(name, value)
    }

    #[cold]
    fn bad_line(&mut self, bad: BadLine<'_>) {
        self.store.own.bad_lines_seen += 1;
        self.bad_lines += 1;
        if self.log_limit.allow(self.now.mono) {
            log::plain!("{bad}");
        }
    }
}
