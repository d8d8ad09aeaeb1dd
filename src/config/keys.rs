//! The one table of config keys: for each its program, what its value must be, its default and its
//! meaning. Checks, defaults, warnings, the `config` command and the test of the man pages follow it.
//!
//! Numbers are bytes, milliseconds or counts, as the meaning says. Pure data and look-ups.

use Kind::{
    Anything, Bin, Choice, Flag, List, Mode, Name, Network, Number, Object, Percentiles, Text,
    TextOrFalse, Whole, WholeOrWord,
};
use Preset::{Is, Required, Unset};
use Used::{Both, Proxy, Statsd};

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As in the file.
    pub name: &'static str,
    /// Which program reads it.
    pub used: Used,
    /// What its value must be.
    pub kind: Kind,
    /// What holds without it.
    pub preset: Preset,
    /// What it is for, in a line.
    pub meaning: &'static str,
}

/// Which program reads a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    /// The aggregator.
    Statsd,
    /// The relay.
    Proxy,
    /// Both.
    Both,
}

impl Used {
    /// Whether a key of this sort is read by a program of that sort.
    #[must_use]
    pub fn by(self, program: Used) -> bool {
        self == Both || self == program
    }

    /// As the program is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Statsd => "statsd",
            Proxy => "statsd-proxy",
            Both => "both",
        }
    }
}

/// What holds without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// This value, as it would be written without quotes.
    Is(&'static str),
    /// Nothing, or what the meaning says.
    Unset,
    /// The key must be there.
    Required,
}

/// What a value must be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A string.
    Text,
    /// A string that is not empty.
    Name,
    /// A string, or `false`.
    TextOrFalse,
    /// A whole number in a range, ends included.
    Whole(u64, u64),
    /// A whole number in a range, or this word.
    WholeOrWord(u64, u64, &'static str),
    /// Any number in a range, ends included.
    Number(f64, f64),
    /// One of the names, which may have the prefix in front.
    Choice {
        /// As in `./servers/udp`.
        prefix: &'static str,
        /// The names.
        names: &'static [&'static str],
    },
    /// Numbers from -100 to 100: one, or a list; anything falsy is the default.
    Percentiles,
    /// Permission bits: a number, or a string of octal digits.
    Mode,
    /// An address or a range of them.
    Network,
    /// A number, or `inf`.
    Bin,
    /// Whatever it is, it is no error.
    Anything,
    /// A list.
    List {
        /// What each element must be.
        of: &'static Kind,
        /// Whether it may be empty.
        empty: bool,
    },
    /// An object with these members.
    Object(&'static [Key]),
}

impl Kind {
    /// Ends a sentence that begins with "must be".
    #[must_use]
    pub fn must_be(&self) -> String {
        match *self {
            Flag => "true or false".to_owned(),
            Text => "a string".to_owned(),
            Name => "a string that is not empty".to_owned(),
            TextOrFalse => "a string or false".to_owned(),
            Whole(min, max) => format!("a whole number from {min} to {max}"),
            WholeOrWord(min, max, word) => {
                format!("a whole number from {min} to {max}, or \"{word}\"")
            }
            Number(min, max) => format!("a number from {min} to {max}"),
            Choice { prefix: "", names } => format!("one of {}", names.join(", ")),
            Choice { prefix, names } => {
                format!("one of {} (with or without {prefix})", names.join(", "))
            }
            Percentiles => "a number from -100 to 100, or a list of such".to_owned(),
            Mode => "a string of octal digits such as \"0660\", or a number to 4095".to_owned(),
            Network => "an address or a range such as \"10.0.0.0/8\"".to_owned(),
            Bin => "a number or \"inf\"".to_owned(),
            Anything => "anything".to_owned(),
            List { empty: true, .. } => "a list".to_owned(),
            List { empty: false, .. } => "a list with at least one element".to_owned(),
            Object(keys) => {
                let names: Vec<_> = keys.iter().map(|key| key.name).collect();
                format!("an object with {}", names.join(", "))
            }
        }
    }

    /// Whether the value is printed in one line as `key: value`.
    #[must_use]
    pub fn is_scalar(&self) -> bool {
        !matches!(self, List { .. } | Object(_))
    }
}

/// The longest time: what a timer of the original holds, some 24 days.
const LONGEST: u64 = i32::MAX as u64;
/// Milliseconds, where 0 means never, at once, or off.
const MILLIS: Kind = Whole(0, LONGEST);
/// Milliseconds, where 0 makes no sense.
const SOME_MILLIS: Kind = Whole(1, LONGEST);
/// To listen on; 0 takes a free one.
const LISTEN_PORT: Kind = Whole(0, 65535);
/// To connect or send to.
const PORT: Kind = Whole(1, 65535);
/// Bytes in memory.
const BYTES: Kind = Whole(4096, 1 << 40);
/// How many of something that costs memory.
const COUNT: Kind = Whole(1, 1_000_000_000);

const TEXTS: Kind = List {
    of: &Text,
    empty: true,
};

const SERVER: Kind = Choice {
    prefix: "./servers/",
    names: &["udp", "tcp"],
};

const BACKENDS: Kind = List {
    of: &Choice {
        prefix: "./backends/",
        names: &["graphite", "console", "repeater"],
    },
    empty: true,
};

const fn choice(names: &'static [&'static str]) -> Kind {
    Choice { prefix: "", names }
}

const fn objects(keys: &'static Kind, empty: bool) -> Kind {
    List { of: keys, empty }
}

const fn key(
    name: &'static str,
    used: Used,
    kind: Kind,
    preset: Preset,
    meaning: &'static str,
) -> Key {
    Key {
        name,
        used,
        kind,
        preset,
        meaning,
    }
}

/// Keys at the top of the file, by subject.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    // Listening.
    key("servers", Both, objects(&Object(SERVERS), false), Unset, "what to listen on; without it, one server from the keys below"),
    key("server", Both, SERVER, Is("./servers/udp"), "udp or tcp, with or without ./servers/"),
    key("address", Both, Text, Unset, "address to listen on; all without it"),
    key("host", Proxy, Text, Unset, "the proxy's name for address"),
    key("address_ipv6", Both, Flag, Is("false"), "without an address, listen on IPv6 and IPv4"),
    key("port", Both, LISTEN_PORT, Is("8125"), "port to listen on; 0 takes a free one"),
    key("socket", Both, Text, Unset, "tcp only: path of a unix stream socket to listen on instead"),
    key("socket_mod", Both, Mode, Unset, "tcp only: permission bits of the socket"),
    key("receiveBuffer", Both, RECEIVE_BUFFER, Is("8388608"), "udp only: bytes the kernel may hold for each server"),
    key("mgmt_address", Both, Text, Unset, "address of the admin console; all without it"),
    key("mgmt_port", Both, LISTEN_PORT, Is("8126"), "port of the admin console; 0 takes a free one"),
    key("mgmt_allow", Both, objects(&Network, true), Unset, "networks that may change things on the console, beside loopback"),
    // The program.
    key("debug", Both, Flag, Is("false"), "log more"),
    key("dumpMessages", Statsd, Flag, Is("false"), "log each line received"),
    key("title", Both, TextOrFalse, Unset, "process title; the command line without it, unchanged with false"),
    key("healthStatus", Both, choice(&["up", "down"]), Is("up"), "accepted, without effect as in the original"),
    key("automaticConfigReload", Both, Flag, Is("true"), "reload when the file changes"),
    key("log", Both, Object(LOG), Unset, "where to log"),
    key("shutdownTimeout", Both, MILLIS, Is("5000"), "milliseconds that the last delivery may take at exit"),
    // Aggregating.
    key("flushInterval", Statsd, SOME_MILLIS, Is("10000"), "milliseconds between flushes"),
    key("flushAlign", Statsd, Flag, Is("false"), "flush on multiples of the interval of the wall clock"),
    key("percentThreshold", Statsd, Percentiles, Is("90"), "percentile or list of them; negative counts from the top, [] is none"),
    key("flush_counts", Statsd, Flag, Is("true"), "send counts of counters beside their rates"),
    key("calculatedTimerMetrics", Statsd, TEXTS, Unset, "fields of timers to send, as count or upper_percent; all without it"),
    key("histogram", Statsd, objects(&Object(HISTOGRAM), true), Unset, "histograms of timers; the first entry that matches wins"),
    key("keyFlush", Statsd, Object(KEY_FLUSH), Unset, "log the most frequent names"),
    key("keyNameSanitize", Statsd, Flag, Is("true"), "clean names as they come in"),
    key("prefixStats", Both, Text, Is("statsd"), "name of the program's own stats"),
    key("deleteIdleStats", Statsd, Flag, Is("false"), "sets the next four, where they are not given"),
    key("deleteCounters", Statsd, Flag, Is("false"), "do not send counters without input, instead of 0"),
    key("deleteTimers", Statsd, Flag, Is("false"), "do not send timers without input, instead of 0"),
    key("deleteSets", Statsd, Flag, Is("false"), "do not send sets without input, instead of 0"),
    key("deleteGauges", Statsd, Flag, Is("false"), "do not send gauges without input, instead of the last value"),
    key("gaugesMaxTTL", Statsd, Anything, Is("1"), "intervals without input after which deleteGauges applies"),
    key("stateFile", Statsd, Text, Unset, "file that keeps gauges and undelivered flushes over a restart; off without it"),
    key("stateMaxAge", Statsd, MILLIS, Is("3600000"), "milliseconds after which a state file is not read"),
    // Backends.
    key("backends", Statsd, BACKENDS, Is("./backends/graphite"), "where flushes go, with or without ./backends/"),
    key("console", Statsd, Object(CONSOLE), Unset, "the console backend"),
    key("graphiteHost", Statsd, Text, Unset, "name or address of Graphite; without it flushes are dropped"),
    key("graphitePort", Statsd, PORT, Is("2003"), "port for text"),
    key("graphitePicklePort", Statsd, PORT, Is("2004"), "port for pickle"),
    key("graphiteProtocol", Statsd, choice(&["text", "pickle"]), Is("text"), "text or pickle"),
    key("graphiteTimeout", Statsd, SOME_MILLIS, Is("10000"), "milliseconds that connecting or writing may take"),
    key("graphiteSpoolBytes", Statsd, BYTES, Is("67108864"), "bytes of undelivered flushes to keep"),
    key("graphite", Statsd, Object(GRAPHITE), Unset, "names in Graphite"),
    key("repeater", Statsd, objects(&Object(REPEATER), true), Unset, "servers to send every packet on to"),
    key("repeaterProtocol", Statsd, choice(&["udp4", "udp6", "tcp"]), Is("udp4"), "udp4, udp6 or tcp"),
    key("repeaterBufferBytes", Statsd, BYTES, Is("1048576"), "bytes that may wait for one tcp target"),
    // Bounds on what input can make the program keep.
    key("maxNames", Statsd, Whole(1, 200_000_000), Is("2000000"), "distinct names, all types together"),
    key("maxTimerValues", Statsd, COUNT, Is("20000000"), "timer values in one interval"),
    key("maxSetMembers", Statsd, COUNT, Is("1000000"), "set members in one interval"),
    key("maxLineBytes", Both, Whole(64, 1 << 20), Is("8192"), "bytes of a line; a longer one is a bad line"),
    key("maxTcpClients", Both, COUNT, Is("1000"), "connections that send lines"),
    key("maxMgmtClients", Both, COUNT, Is("50"), "connections to the admin console"),
    key("tcpIdleTimeout", Both, MILLIS, Is("3600000"), "milliseconds after which a silent sender is closed; 0 is never"),
    key("mgmtIdleTimeout", Both, MILLIS, Is("600000"), "milliseconds after which a silent console is closed; 0 is never"),
    key("mgmtBufferBytes", Both, BYTES, Is("1048576"), "bytes that may wait for a console that does not read"),
    // Relaying.
    key("nodes", Proxy, objects(&Object(NODES), false), Required, "the daemons on the ring"),
    key("checkInterval", Proxy, MILLIS, Is("10000"), "milliseconds between health checks; 0 is the default"),
    key("cacheSize", Proxy, Whole(0, 1_000_000_000), Is("10000"), "names whose node is remembered; 0 is the default"),
    key("forkCount", Proxy, WholeOrWord(0, 1024, "auto"), Is("0"), "processes; 0 and 1 do not fork, auto is one for each processor"),
    key("maxDatagram", Proxy, Whole(64, 65507), Is("1432"), "bytes of a datagram to a node"),
    key("nodeQueueBytes", Proxy, BYTES, Is("1048576"), "bytes that may wait for one node"),
    key("proxyStats", Proxy, MILLIS, Is("0"), "milliseconds between the proxy's own stats; 0 is off"),
];

const RECEIVE_BUFFER: Kind = Whole(4096, 1 << 30);

/// Of an element of `servers`.
#[rustfmt::skip]
pub const SERVERS: &[Key] = &[
    key("server", Both, SERVER, Is("./servers/udp"), "udp or tcp, with or without ./servers/"),
    key("address", Both, Text, Unset, "address to listen on; all without it"),
    key("address_ipv6", Both, Flag, Is("false"), "without an address, listen on IPv6 and IPv4"),
    key("port", Both, LISTEN_PORT, Is("8125"), "port to listen on; 0 takes a free one"),
    key("socket", Both, Text, Unset, "tcp only: path of a unix stream socket to listen on instead"),
    key("socket_mod", Both, Mode, Unset, "tcp only: permission bits of the socket"),
    key("receiveBuffer", Both, RECEIVE_BUFFER, Unset, "udp only: as the key at the top, which is its default"),
];

/// Of `log`.
#[rustfmt::skip]
const LOG: &[Key] = &[
    key("backend", Both, choice(&["stdout", "syslog"]), Is("stdout"), "stdout or syslog"),
    key("application", Both, Text, Is("statsd"), "tag in syslog"),
    key("level", Both, choice(LEVELS), Is("LOG_INFO"), "level in syslog of lines that have none of their own"),
];

/// Of `log.level`, the gravest first.
pub const LEVELS: &[&str] = &[
    "LOG_EMERG",
    "LOG_ALERT",
    "LOG_CRIT",
    "LOG_ERR",
    "LOG_WARNING",
    "LOG_NOTICE",
    "LOG_INFO",
    "LOG_DEBUG",
];

/// Of `keyFlush`.
#[rustfmt::skip]
const KEY_FLUSH: &[Key] = &[
    key("interval", Statsd, MILLIS, Is("0"), "milliseconds between two logs; 0 is off"),
    key("percent", Statsd, Number(0.0, 100.0), Is("100"), "of the names, the most frequent; 0 is the default"),
    key("log", Statsd, Text, Unset, "file to append to; stdout without it"),
];

/// Of an element of `histogram`.
#[rustfmt::skip]
const HISTOGRAM: &[Key] = &[
    key("metric", Statsd, Text, Required, "part of the timer's name; an empty one matches all"),
    key("bins", Statsd, objects(&Bin, true), Required, "upper limits, not included, rising; inf is no limit"),
];

/// Of `console`.
#[rustfmt::skip]
pub const CONSOLE: &[Key] = &[
    key("prettyprint", Statsd, Flag, Is("false"), "indent, and colour on a terminal"),
];

/// Of `graphite`.
#[rustfmt::skip]
const GRAPHITE: &[Key] = &[
    key("legacyNamespace", Statsd, Flag, Is("true"), "names as before version 0.3; the prefixes apply to false only"),
    key("globalPrefix", Statsd, Text, Is("stats"), "in front of all names"),
    key("prefixCounter", Statsd, Text, Is("counters"), "in front of counters"),
    key("prefixTimer", Statsd, Text, Is("timers"), "in front of timers"),
    key("prefixGauge", Statsd, Text, Is("gauges"), "in front of gauges"),
    key("prefixSet", Statsd, Text, Is("sets"), "in front of sets"),
    key("globalSuffix", Statsd, Text, Unset, "behind all names, as ${hostname}"),
];

/// Of an element of `repeater`.
#[rustfmt::skip]
const REPEATER: &[Key] = &[
    key("host", Statsd, Name, Required, "name or address"),
    key("port", Statsd, PORT, Required, "port"),
];

/// Of an element of `nodes`.
#[rustfmt::skip]
const NODES: &[Key] = &[
    key("host", Proxy, Name, Required, "name or address; with the port its name on the ring"),
    key("port", Proxy, PORT, Required, "port for lines, udp"),
    key("adminport", Proxy, PORT, Required, "port of its admin console"),
];

/// Every table with the key it hangs on, for whoever goes through all keys; the top has none.
#[must_use]
pub fn tables() -> Vec<(&'static str, &'static [Key])> {
    let mut tables = vec![("", KEYS)];
    for key in KEYS {
        match key.kind {
            Object(keys) => tables.push((key.name, keys)),
            List {
                of: Object(keys), ..
            } => tables.push((key.name, keys)),
            _ => {}
        }
    }
    tables
}

/// The key of that name.
#[must_use]
pub fn find(keys: &'static [Key], name: &str) -> Option<&'static Key> {
    keys.iter().find(|key| key.name == name)
}

/// The key that somebody who wrote `name` may have meant.
#[must_use]
pub fn nearest(keys: &'static [Key], name: &str, program: Used) -> Option<&'static str> {
    let allowed = match name.chars().count() {
        0..=3 => 1,
        4..=8 => 2,
        _ => 3,
    };
    let known = keys.iter().filter(|key| key.used.by(program));
    known
        .map(|key| (distance(key.name, name), key.name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Edit distance, without regard to case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        row[0] = left;
        for (cell, to) in row[1..].iter_mut().zip(&b) {
            let change = diagonal + usize::from(from != *to);
            diagonal = *cell;
            left = change.min(*cell + 1).min(left + 1);
            *cell = left;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "ab", 2),
            ("port", "PORT", 0),
            ("port", "prot", 2),
            ("kitten", "sitting", 3),
            ("flushinterval", "flush_interval", 1),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn nearest_keys() {
        for (name, program, expected) in [
            ("flush_interval", Statsd, Some("flushInterval")),
            ("graphitehost", Statsd, Some("graphiteHost")),
            ("percentTreshold", Statsd, Some("percentThreshold")),
            ("prot", Statsd, Some("port")),
            ("node", Proxy, Some("nodes")),
            ("node", Statsd, None),
            ("influxdb", Statsd, None),
            ("x", Statsd, None),
        ] {
            assert_eq!(nearest(KEYS, name, program), expected, "{name}");
        }
    }

    #[test]
    fn no_name_twice_and_every_meaning_there() {
        let tables = tables();
        assert_eq!(tables.len(), 9);
        for (path, keys) in tables {
            for (index, key) in keys.iter().enumerate() {
                let first = keys.iter().position(|other| other.name == key.name);
                assert_eq!(first, Some(index), "{path} {}", key.name);
                assert!(!key.meaning.is_empty(), "{path} {}", key.name);
            }
        }
    }

    #[test]
    fn every_default_is_allowed() {
        for (path, keys) in tables() {
            for key in keys {
                let Is(preset) = key.preset else { continue };
                let allowed = match key.kind {
                    Flag => preset == "true" || preset == "false",
                    Whole(min, max) | WholeOrWord(min, max, _) => {
                        preset.parse().is_ok_and(|n: u64| (min..=max).contains(&n))
                    }
                    Number(min, max) => preset.parse().is_ok_and(|n| min <= n && n <= max),
                    Choice { prefix, names } => {
                        let name = preset.strip_prefix(prefix).unwrap_or(preset);
                        names.contains(&name)
                    }
                    List {
                        of: Choice { prefix, names },
                        ..
                    } => preset
                        .strip_prefix(prefix)
                        .is_some_and(|name| names.contains(&name)),
                    Text => true,
                    Percentiles => preset == "90",
                    Anything => preset == "1",
                    _ => false,
                };
                assert!(allowed, "{path} {}", key.name);
            }
        }
    }
}
