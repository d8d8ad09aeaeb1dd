//! The config as the admin command `config` prints it, in the words of the original: `key: value`
//! for a scalar, `key > sub: value` for a member of an object or an element of a list, in the order
//! of the file. Then come the known scalar keys that the file leaves out, with what holds for them.

use super::keys::{KEYS, Preset, Used};
use super::value::Value;

/// What [`super::Common::listing`] holds.
#[must_use]
pub fn listing(members: &[(String, Value)], program: Used) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for (key, value) in members {
        match value {
            // An object without members, to the original.
            Value::Null => {}
            Value::Array(values) => {
                let elements = values.iter().enumerate();
                lines.extend(elements.map(|(i, value)| (format!("{key} > {i}"), value.to_text())));
            }
            Value::Object(members) => {
                let members = members.iter();
                lines.extend(
                    members.map(|(sub, value)| (format!("{key} > {sub}"), value.to_text())),
                );
            }
            value => lines.push((key.clone(), value.to_text())),
        }
    }
    let given = |name: &str| {
        let mut members = members.iter();
        members.any(|(key, value)| key == name && *value != Value::Null)
    };
    let idle = members.contains(&("deleteIdleStats".to_owned(), Value::Bool(true)));
    for key in KEYS {
        let Preset::Is(preset) = key.preset else {
            continue;
        };
        let replaced = given("servers") && ["server", "address_ipv6", "port"].contains(&key.name);
        if key.used.by(program) && key.kind.is_scalar() && !given(key.name) && !replaced {
            let deleted = idle && key.name.starts_with("delete");
            let value = if deleted { "true" } else { preset };
            lines.push((key.name.to_owned(), value.to_owned()));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::syntax::parse;
    use super::*;

    fn lines(text: &str, program: Used) -> Vec<String> {
        let lines = listing(&parse(text).unwrap(), program);
        lines
            .iter()
            .map(|(key, value)| format!("{key}: {value}"))
            .collect()
    }

    #[test]
    fn what_the_file_says_in_its_order() {
        let text = "{ port: 8125, backends: ['./backends/console'], debug: false, other: null,
            graphite: {legacyNamespace: false, globalSuffix: 'a'}, title: '', none: [], x: {},
            repeater: [{host: 'a', port: 1}], percentThreshold: [90, [1, 2.50]] }";
        let expected = [
            "port: 8125",
            "backends > 0: ./backends/console",
            "debug: false",
            "graphite > legacyNamespace: false",
            "graphite > globalSuffix: a",
            "title: ",
            "repeater > 0: {\"host\":\"a\",\"port\":1}",
            "percentThreshold > 0: 90",
            "percentThreshold > 1: 1,2.5",
        ];
        let lines = lines(text, Used::Statsd);
        assert_eq!(lines[..expected.len()], expected);
        assert!(
            !lines[expected.len()..]
                .iter()
                .any(|line| line.starts_with("port"))
        );
    }

    #[test]
    fn then_the_defaults() {
        let plain = lines("{mgmt_port: null}", Used::Statsd);
        for line in [
            "port: 8125",
            "mgmt_port: 8126",
            "flushInterval: 10000",
            "deleteSets: false",
        ] {
            assert!(plain.iter().any(|other| other == line), "{line}");
        }
        for key in [
            "servers",
            "backends",
            "nodes",
            "cacheSize",
            "address:",
            "graphiteHost",
        ] {
            assert!(!plain.iter().any(|line| line.starts_with(key)), "{key}");
        }
        let idle = lines(
            "{servers: [{}], deleteIdleStats: true, deleteSets: false}",
            Used::Statsd,
        );
        assert_eq!(
            idle[..3],
            [
                "servers > 0: {}",
                "deleteIdleStats: true",
                "deleteSets: false"
            ]
        );
        assert!(idle.contains(&"deleteTimers: true".to_owned()));
        assert!(!idle.iter().any(|line| line.starts_with("port")));
        let proxy = lines("{}", Used::Proxy);
        assert!(proxy.contains(&"cacheSize: 10000".to_owned()));
        assert!(!proxy.iter().any(|line| line.starts_with("flushInterval")));
    }
}
