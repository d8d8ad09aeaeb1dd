//! Holds a config file against the table of keys, and says everything that is wrong or doubtful:
//! an error for a value that cannot be used, a warning for a key that nothing reads.
//!
//! A `null` counts as not given. Pure: values in, sentences out; each sentence begins with the key's
//! path (`graphite.globalSuffix`, `servers[1].port`).

use super::keys::{self, KEYS, Key, Kind, Preset, Used};
use super::network::Network;
use super::value::Value;

/// What was found, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Nothing starts with one of these.
    pub errors: Vec<String>,
    /// Doubts.
    pub warnings: Vec<String>,
}

/// The path of a member.
pub(super) fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    }
}

/// Checks a whole file of one of the programs against the table. What the table cannot say (how keys
/// depend on each other) follows in [`super::load`].
#[must_use]
pub fn check(members: &[(String, Value)], program: Used) -> Findings {
    let mut checker = Checker {
        program,
        found: Findings::default(),
    };
    checker.members("", members, KEYS);
    checker.found
}

struct Checker {
    program: Used,
    found: Findings,
}

impl Checker {
    fn members(&mut self, path: &str, members: &[(String, Value)], keys: &'static [Key]) {
        for (name, value) in members {
            let path = join(path, name);
            match keys::find(keys, name) {
                Some(key) if !key.used.by(self.program) => {
                    let text = format!("{path}: no effect; it is a key of {}", key.used.name());
                    self.found.warnings.push(text);
                }
                Some(_) if *value == Value::Null => {}
                Some(key) => self.value(&path, value, &key.kind),
                None => {
                    let nearest = keys::nearest(keys, name, self.program);
                    let hint = nearest.map(|name| format!("; did you mean {name}?"));
                    let text = format!("{path}: unknown key{}", hint.unwrap_or_default());
                    self.found.warnings.push(text);
                }
            }
        }
        for key in keys {
            let required = key.preset == Preset::Required && key.used.by(self.program);
            let given = |(name, value): &(String, Value)| name == key.name && *value != Value::Null;
            if required && !members.iter().any(given) {
                let path = join(path, key.name);
                let must_be = key.kind.must_be();
                self.found
                    .errors
                    .push(format!("{path}: is missing; must be {must_be}"));
            }
        }
    }

    fn value(&mut self, path: &str, value: &Value, kind: &Kind) {
        match (kind, value) {
            (Kind::List { of, empty }, Value::Array(values)) if *empty || !values.is_empty() => {
                for (index, value) in values.iter().enumerate() {
                    self.value(&format!("{path}[{index}]"), value, of);
                }
            }
            (Kind::Percentiles, Value::Array(values)) => {
                for (index, value) in values.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.value(&path, value, &Kind::Number(-100.0, 100.0));
                }
            }
            (Kind::Object(keys), Value::Object(members)) => self.members(path, members, keys),
            _ if fits(value, kind) => {}
            _ => {
                let text = format!("{path}: must be {}, not {}", kind.must_be(), shown(value));
                self.found.errors.push(text);
            }
        }
    }
}

/// Whether a value that is no list or object is of the kind.
fn fits(value: &Value, kind: &Kind) -> bool {
    let whole = |number: f64, min: u64, max: u64| {
        number.fract() == 0.0 && (min as f64..=max as f64).contains(&number)
    };
    match (*kind, value) {
        (Kind::Anything, _) => true,
        (Kind::Flag, Value::Bool(_)) => true,
        (Kind::Text | Kind::TextOrFalse, Value::String(_)) => true,
        (Kind::Name, Value::String(text)) => !text.is_empty(),
        (Kind::TextOrFalse, Value::Bool(flag)) => !flag,
        (Kind::Whole(min, max), Value::Number(number)) => whole(*number, min, max),
        (Kind::WholeOrWord(min, max, _), Value::Number(number)) => whole(*number, min, max),
        (Kind::WholeOrWord(_, _, word), Value::String(text)) => text == word,
        (Kind::Number(min, max), Value::Number(number)) => (min..=max).contains(number),
        (Kind::Choice { prefix, names }, Value::String(text)) => {
            names.contains(&text.strip_prefix(prefix).unwrap_or(text))
        }
        (Kind::Percentiles, Value::Number(number)) => (-100.0..=100.0).contains(number),
        (Kind::Percentiles, Value::Bool(flag)) => !flag,
        (Kind::Percentiles, Value::String(text)) => text.is_empty(),
        (Kind::Mode, value) => mode(value).is_some(),
        (Kind::Network, Value::String(text)) => text.parse::<Network>().is_ok(),
        (Kind::Bin, Value::Number(number)) => number.is_finite(),
        (Kind::Bin, Value::String(text)) => text == "inf",
        _ => false,
    }
}

/// Permission bits as chmod in the original reads them: a number is used as it is.
pub(super) fn mode(value: &Value) -> Option<u32> {
    let mode = match value {
        Value::Number(number) if number.fract() == 0.0 && *number >= 0.0 => *number as u32,
        Value::String(text) if text.bytes().all(|b| b.is_ascii_digit()) => {
            u32::from_str_radix(text, 8).ok()?
        }
        _ => return None,
    };
    (mode <= 0o7777).then_some(mode)
}

/// A value in a message: short.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(values) if values.is_empty() => "an empty list".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::Number(_) => value.to_text(),
        value => {
            let json = value.to_json();
            match json.char_indices().nth(60) {
                Some((end, _)) => format!("{}…", &json[..end]),
                None => json,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::syntax::parse;
    use super::*;

    fn findings(text: &str, program: Used) -> Findings {
        check(&parse(text).unwrap(), program)
    }

    #[test]
    fn nothing_to_say() {
        for text in [
            "{}",
            "{port: 8125, mgmt_port: 0, debug: true, title: false, graphiteHost: null}",
            "{backends: ['graphite', './backends/console'], server: 'tcp', flushInterval: 1}",
            "{percentThreshold: 0}",
            "{percentThreshold: false}",
            "{percentThreshold: ''}",
            "{percentThreshold: []}",
            "{percentThreshold: [90, 99.9, -5, 0]}",
            "{gaugesMaxTTL: 'x'}",
            "{servers: [{}, {server: './servers/tcp', socket: '/x', socket_mod: '0777'}]}",
            "{servers: [{socket_mod: 511}, {socket_mod: '777'}]}",
            "{histogram: [{metric: '', bins: [1, 2.5, 'inf']}, {metric: 'a', bins: []}]}",
            "{mgmt_allow: ['10.0.0.0/8', '::1', 'fd00::/8', '192.168.1.7']}",
            "{log: {backend: 'syslog', application: 'x', level: 'LOG_ERR'}}",
            "{keyFlush: {interval: 1000, percent: 12.5, log: '/x'}}",
        ] {
            assert_eq!(findings(text, Used::Statsd), Findings::default(), "{text}");
        }
        let text = "{nodes: [{host: 'a', port: 1, adminport: 2}], forkCount: 'auto', host: '::'}";
        assert_eq!(findings(text, Used::Proxy), Findings::default());
    }

    #[test]
    fn errors() {
        for (text, expected) in [
            (
                "{port: '8125'}",
                "port: must be a whole number from 0 to 65535, not \"8125\"",
            ),
            (
                "{port: 65536}",
                "port: must be a whole number from 0 to 65535, not 65536",
            ),
            (
                "{port: -1}",
                "port: must be a whole number from 0 to 65535, not -1",
            ),
            (
                "{port: 80.5}",
                "port: must be a whole number from 0 to 65535, not 80.5",
            ),
            (
                "{port: NaN}",
                "port: must be a whole number from 0 to 65535, not NaN",
            ),
            (
                "{port: [1]}",
                "port: must be a whole number from 0 to 65535, not a list",
            ),
            (
                "{graphitePort: 0}",
                "graphitePort: must be a whole number from 1 to 65535, not 0",
            ),
            (
                "{flushInterval: 0}",
                "flushInterval: must be a whole number from 1 to 2147483647, not 0",
            ),
            (
                "{flushInterval: -10}",
                "flushInterval: must be a whole number from 1 to 2147483647, not -10",
            ),
            ("{debug: 1}", "debug: must be true or false, not 1"),
            (
                "{debug: 'false'}",
                "debug: must be true or false, not \"false\"",
            ),
            (
                "{title: true}",
                "title: must be a string or false, not true",
            ),
            (
                "{prefixStats: {}}",
                "prefixStats: must be a string, not an object",
            ),
            (
                "{percentThreshold: 100.5}",
                "percentThreshold: must be a number from -100 to 100, or a list of such, not 100.5",
            ),
            (
                "{percentThreshold: [1, -101]}",
                "percentThreshold[1]: must be a number from -100 to 100, not -101",
            ),
            (
                "{percentThreshold: ['90']}",
                "percentThreshold[0]: must be a number from -100 to 100, not \"90\"",
            ),
            (
                "{percentThreshold: true}",
                "percentThreshold: must be a number from -100 to 100, or a list of such, not true",
            ),
            (
                "{backends: 'graphite'}",
                "backends: must be a list, not \"graphite\"",
            ),
            (
                "{backends: ['./backends/influxdb']}",
                "backends[0]: must be one of graphite, console, repeater \
                 (with or without ./backends/), not \"./backends/influxdb\"",
            ),
            (
                "{server: './servers/sctp'}",
                "server: must be one of udp, tcp (with or without ./servers/), \
                 not \"./servers/sctp\"",
            ),
            (
                "{servers: []}",
                "servers: must be a list with at least one element, not an empty list",
            ),
            (
                "{servers: [{}, {port: true}]}",
                "servers[1].port: must be a whole number from 0 to 65535, not true",
            ),
            (
                "{servers: [7]}",
                "servers[0]: must be an object with server, address, address_ipv6, port, socket, \
                 socket_mod, receiveBuffer, not 7",
            ),
            (
                "{socket_mod: '0888'}",
                "socket_mod: must be a string of octal digits such as \"0660\", \
                 or a number to 4095, not \"0888\"",
            ),
            (
                "{socket_mod: 4096}",
                "socket_mod: must be a string of octal digits such as \"0660\", \
                 or a number to 4095, not 4096",
            ),
            (
                "{graphite: {globalSuffix: 7}}",
                "graphite.globalSuffix: must be a string, not 7",
            ),
            (
                "{graphiteProtocol: 'json'}",
                "graphiteProtocol: must be one of text, pickle, not \"json\"",
            ),
            (
                "{repeaterProtocol: 'udp'}",
                "repeaterProtocol: must be one of udp4, udp6, tcp, not \"udp\"",
            ),
            (
                "{repeater: [{host: 'a'}]}",
                "repeater[0].port: is missing; must be a whole number from 1 to 65535",
            ),
            (
                "{repeater: [{host: '', port: 1}]}",
                "repeater[0].host: must be a string that is not empty, not \"\"",
            ),
            (
                "{repeater: [{port: 1}]}",
                "repeater[0].host: is missing; must be a string that is not empty",
            ),
            (
                "{repeater: [{host: null, port: 1}]}",
                "repeater[0].host: is missing; must be a string that is not empty",
            ),
            (
                "{log: {level: 'LOG_LOUD'}}",
                "log.level: must be one of LOG_EMERG, LOG_ALERT, LOG_CRIT, LOG_ERR, LOG_WARNING, \
                 LOG_NOTICE, LOG_INFO, LOG_DEBUG, not \"LOG_LOUD\"",
            ),
            (
                "{log: {backend: 'file'}}",
                "log.backend: must be one of stdout, syslog, not \"file\"",
            ),
            (
                "{keyFlush: {percent: 101}}",
                "keyFlush.percent: must be a number from 0 to 100, not 101",
            ),
            (
                "{histogram: [{metric: 'a', bins: [1, '2']}]}",
                "histogram[0].bins[1]: must be a number or \"inf\", not \"2\"",
            ),
            (
                "{histogram: [{metric: 'a', bins: [Infinity]}]}",
                "histogram[0].bins[0]: must be a number or \"inf\", not Infinity",
            ),
            (
                "{mgmt_allow: ['10.0.0.0/33']}",
                "mgmt_allow[0]: must be an address or a range such as \"10.0.0.0/8\", \
                 not \"10.0.0.0/33\"",
            ),
            (
                "{healthStatus: 'ok'}",
                "healthStatus: must be one of up, down, not \"ok\"",
            ),
            (
                "{receiveBuffer: 1}",
                "receiveBuffer: must be a whole number from 4096 to 1073741824, not 1",
            ),
            (
                "{calculatedTimerMetrics: [1]}",
                "calculatedTimerMetrics[0]: must be a string, not 1",
            ),
        ] {
            assert_eq!(findings(text, Used::Statsd).errors, [expected], "{text}");
        }
    }

    #[test]
    fn proxy_errors() {
        for (text, expected) in [
            (
                "{}",
                "nodes: is missing; must be a list with at least one element",
            ),
            (
                "{nodes: []}",
                "nodes: must be a list with at least one element, not an empty list",
            ),
            (
                "{nodes: [{host: 'a', port: 1}]}",
                "nodes[0].adminport: is missing; must be a whole number from 1 to 65535",
            ),
            (
                "{nodes: [{host: 'a', port: 1, adminport: 2}], forkCount: 'all'}",
                "forkCount: must be a whole number from 0 to 1024, or \"auto\", not \"all\"",
            ),
        ] {
            assert_eq!(findings(text, Used::Proxy).errors, [expected], "{text}");
        }
    }

    #[test]
    fn every_error_at_once() {
        let found = findings("{port: 'a', log: {level: 1}, mgmt_port: {}}", Used::Statsd);
        assert_eq!(found.errors.len(), 3);
    }

    #[test]
    fn warnings() {
        for (text, program, expected) in [
            (
                "{flush_interval: 1}",
                Used::Statsd,
                "flush_interval: unknown key; did you mean flushInterval?",
            ),
            (
                "{influxdb: {port: 'x'}}",
                Used::Statsd,
                "influxdb: unknown key",
            ),
            (
                "{graphite: {globalSufix: 1}}",
                Used::Statsd,
                "graphite.globalSufix: unknown key; did you mean globalSuffix?",
            ),
            (
                "{servers: [{prt: 1}]}",
                Used::Statsd,
                "servers[0].prt: unknown key; did you mean port?",
            ),
            (
                "{cacheSize: 1}",
                Used::Statsd,
                "cacheSize: no effect; it is a key of statsd-proxy",
            ),
            (
                "{flushInterval: 1, nodes: [{host: 'a', port: 1, adminport: 2}]}",
                Used::Proxy,
                "flushInterval: no effect; it is a key of statsd",
            ),
        ] {
            let found = findings(text, program);
            assert_eq!(found.warnings, [expected], "{text}");
            assert_eq!(found.errors, [""; 0], "{text}");
        }
    }
}
