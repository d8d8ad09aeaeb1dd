//! A config with an error starts nothing: exit 2, one message on stderr with the file, the place or
//! the key, and what is allowed (SPEC 2).

use crate::common::Dir;
use crate::common::daemon::{command, finish};

/// `text` names `file` with a line in it: `statsd.js:2:10` or `statsd.js, line 2`.
pub fn names_a_place(text: &str, file: &str) -> bool {
    text.split(file).skip(1).any(|after| {
        let after = after.trim_start_matches([':', ',', ' ', '"', '\'', '(']);
        let after = after.strip_prefix("line ").unwrap_or(after);
        after.starts_with(|c: char| c.is_ascii_digit())
    })
}

/// Runs it on this config, which must be refused, and gives the message.
fn refused(text: &str) -> String {
    let dir = Dir::new();
    let config = dir.write("statsd.js", text);
    let finished = finish(command(&[config.to_str().unwrap()]));
    finished.expect(2);
    assert!(
        finished.stderr.contains(config.to_str().unwrap()),
        "which file: {}",
        finished.stderr
    );
    finished.stderr
}

#[test]
fn syntax_errors_have_line_and_column() {
    for (text, line, column) in [
        // Not where the string begins, but where it should have ended.
        ("{\n  port: 8125,\n  address: 'x\n}", 3, 14),
        ("{ port: 8125 address: 'x' }", 1, 14),
        ("{\n  backends: [ 'console' ;\n}", 2, 26),
        ("{ port: }", 1, 9),
        // What opens here is not closed; the file's end tells nothing.
        ("{ port: 8125", 1, 1),
        ("", 1, 1),
        ("{} more", 1, 4),
    ] {
        let message = refused(text);
        assert!(names_a_place(&message, "statsd.js"), "{message}");
        let (short, words) = (format!(":{line}:"), format!("line {line}"));
        assert!(
            message.contains(&short) || message.contains(&words),
            "line {line}: {message}"
        );
        // Parsers differ by one on where an error begins.
        let near = (column - 1..=column + 1).any(|column| {
            let (short, words) = (format!(":{line}:{column}"), format!("column {column}"));
            message.contains(&short) || message.contains(&words)
        });
        assert!(near, "column {column}: {message}");
    }
}

#[test]
fn code_is_refused_with_what_to_write_instead() {
    let message = refused(
        "{\n  graphite: {\n    globalSuffix: require('os').hostname().split('.')[0]\n  }\n}",
    );
    assert!(names_a_place(&message, "statsd.js"), "{message}");
    assert!(
        message.contains(":3:") || message.contains("line 3"),
        "{message}"
    );
    assert!(message.contains("${hostname}"), "{message}");
}

#[test]
fn a_wrong_value_names_the_key_and_what_is_allowed() {
    for (text, needles) in [
        (
            "{ backends: ['grafite'] }",
            &["grafite", "graphite", "console", "repeater"][..],
        ),
        ("{ backends: './backends/graphite' }", &["backends"]),
        ("{ server: './servers/sctp' }", &["server", "udp", "tcp"]),
        (
            "{ servers: [{ server: 'pipe' }] }",
            &["servers", "udp", "tcp"],
        ),
        (
            "{ graphiteProtocol: 'json' }",
            &["graphiteProtocol", "text", "pickle"],
        ),
        (
            "{ repeaterProtocol: 'sctp' }",
            &["repeaterProtocol", "udp4", "udp6", "tcp"],
        ),
        (
            "{ log: { backend: 'file' } }",
            &["log", "backend", "stdout", "syslog"],
        ),
        (
            "{ log: { backend: 'syslog', level: 'LOG_LOUD' } }",
            &["level", "LOG_INFO"],
        ),
        ("{ port: 65536 }", &["port", "65535"]),
        ("{ port: -1 }", &["port", "65535"]),
        ("{ mgmt_port: 1.5 }", &["mgmt_port", "65535"]),
        ("{ flushInterval: 'soon' }", &["flushInterval", "number"]),
        ("{ flushInterval: -5 }", &["flushInterval"]),
        (
            "{ percentThreshold: ['x'] }",
            &["percentThreshold", "number"],
        ),
        (
            "{ histogram: [{ metric: 'a', bins: 'wide' }] }",
            &["histogram", "bins"],
        ),
        ("{ keyFlush: 5 }", &["keyFlush"]),
        (
            "{ graphite: { legacyNamespace: 'no' } }",
            &["legacyNamespace", "true", "false"],
        ),
        (
            "{ mgmt_allow: ['300.0.0.0/8'] }",
            &["mgmt_allow", "300.0.0.0/8"],
        ),
        ("{ repeater: [{ host: 'h' }] }", &["repeater", "port"]),
        ("{ healthStatus: 'sick' }", &["healthStatus", "up", "down"]),
        ("[]", &["{"]),
    ] {
        let message = refused(text);
        for needle in needles {
            assert!(message.contains(needle), "{needle:?} for {text}: {message}");
        }
        assert!(message.lines().count() <= 3, "one message: {message}");
    }
}

#[test]
fn a_file_that_cannot_be_read() {
    let dir = Dir::new();
    let missing = dir.text_path("missing.js");
    let directory = dir.root().to_str().unwrap();
    for path in [missing.as_str(), directory] {
        let finished = finish(command(&[path]));
        finished.expect(2);
        assert!(finished.stderr.contains(path), "{}", finished.stderr);
    }
}

#[test]
fn an_unknown_key_is_a_warning_with_the_nearest_known_one() {
    let dir = Dir::new();
    let config = dir.write("statsd.js", "{ flushIntervall: 1000, graphitePort: 2003 }");
    let finished = finish(command(&["-t", config.to_str().unwrap()]));
    finished.expect(0);
    let text = finished.text();
    let line = text.lines().find(|line| line.contains("flushIntervall"));
    let line = line.unwrap_or_else(|| panic!("no warning in {text}"));
    assert!(
        line.replace("flushIntervall", "").contains("flushInterval"),
        "{line}"
    );
    assert!(
        !text.contains("graphitePort\""),
        "known keys are no matter: {text}"
    );
}

#[test]
fn what_the_original_took_is_taken() {
    let dir = Dir::new();
    // Comments before the brace, leading commas, single quotes, a trailing comma, ./ in names.
    let text = "/* about\n */\n// more\n{\n  graphitePort: 2003\n, graphiteHost: \"127.0.0.1\"\n\
        , port: 8125\n, backends: [ './backends/graphite', \"./backends/console\", ]\n\
        , graphite: { legacyNamespace: false, globalSuffix: '${hostname}', }\n\
        , servers: [ { server: './servers/udp', port: 8125 } ]\n, percentThreshold: [90, -10]\n,}\n";
    let config = dir.write("statsd.js", text);
    let finished = finish(command(&["-t", config.to_str().unwrap()]));
    finished.expect(0);
}
