//! The recordings of the original (`tests/vectors`) through the real binary: what a client sends,
//! what the console answers, and the first flush, which SIGTERM brings about. In-process tests run
//! all of each scenario; here it is the sockets, the config file and the backend that are tested.

use crate::common::console::Console;
use crate::common::daemon::Daemon;
use crate::common::graphite::{Flush, Graphite};
use crate::common::json::Json;
use crate::common::{Dir, udp_socket};
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;

/// The recorded scenarios of one file.
fn scenarios(file: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let scenarios = Json::parse(&text).unwrap().items().to_vec();
    assert!(!scenarios.is_empty());
    scenarios
}

fn name(scenario: &Json) -> &str {
    scenario.at("name").text().unwrap()
}

/// A scenario whose own interval is too short would be flushed while it is being sent.
fn is_slow(scenario: &Json) -> bool {
    let interval = scenario
        .at("config")
        .get("flushInterval")
        .and_then(Json::number);
    interval.unwrap_or(10_000.0) >= 10_000.0
}

/// The scenario's config on free ports and with this Graphite. A server of the scenario gets a free
/// port too.
fn config(scenario: &Json, graphite: &Graphite) -> String {
    let mut members = String::new();
    for (key, value) in scenario.at("config").members() {
        let value = value.to_string().replace(
            r#""server": "./servers/tcp""#,
            r#""server": "./servers/tcp", "address": "127.0.0.1", "port": 0"#,
        );
        members += &format!("{key:?}: {value},\n");
    }
    format!(
        "{{ {}, {members} {} }}",
        crate::common::LOCAL,
        graphite.config()
    )
}

/// Plays the steps up to the first flush, ends the daemon, and compares that flush.
fn play(scenario: &Json, graphite: &Graphite) {
    let (dir, before) = (Dir::new(), graphite.flushes().len());
    let mut daemon = Daemon::start(&dir, &config(scenario, graphite));
    let udp = udp_socket(Ipv4Addr::LOCALHOST);
    let mut tcp: Option<TcpStream> = None;
    let mut console: Option<Console> = None;
    let (mut sent, mut unfinished) = (0, String::new());
    for step in scenario.at("steps").items() {
        let (kind, value) = &step.members()[0];
        match (kind.as_str(), value) {
            ("udp", Json::Text(packet)) => {
                udp.send_to(packet.as_bytes(), daemon.address("udp"))
                    .unwrap();
                sent += packet.split('\n').filter(|line| !line.is_empty()).count() as u64;
                daemon.wait_received(sent);
            }
            ("tcp", Json::Text(bytes)) => {
                tcp.get_or_insert_with(|| daemon.tcp())
                    .write_all(bytes.as_bytes())
                    .unwrap();
                unfinished += bytes;
                let whole = unfinished.rfind('\n').map_or(0, |at| at + 1);
                let lines = unfinished.drain(..whole).collect::<String>();
                sent += lines.split('\n').filter(|line| !line.is_empty()).count() as u64;
                daemon.wait_received(sent);
            }
            ("admin", Json::Text(command)) => {
                let console = console.get_or_insert_with(|| daemon.console());
                let expected = step.at("reply").text().unwrap();
                check_reply(name(scenario), console, command, expected);
            }
            ("flush", lines) => {
                daemon.stop();
                let flushes = graphite.flushes();
                assert_eq!(flushes.len(), before + 1, "{}", name(scenario));
                compare(name(scenario), lines, &flushes[before]);
                return;
            }
            (kind, _) => panic!("a step of kind {kind}"),
        }
    }
    daemon.stop();
}

/// The reply as recorded, to the byte; but `stats` has clocks in it, and may have more lines.
fn check_reply(name: &str, console: &mut Console, command: &str, expected: &str) {
    console.send(command);
    if expected == "<closed>" {
        assert_eq!(console.read_to_close(), "", "{name}");
    } else if command.trim() == "stats" {
        let reply = console.read_until("END\n\n");
        let key = |line: &str| line.split(": ").next().unwrap().to_owned();
        let found: Vec<_> = reply.lines().map(key).collect();
        for line in expected.lines() {
            assert!(found.contains(&key(line)), "{name}: {line} in {reply}");
        }
        assert!(reply.contains("messages.bad_lines_seen: 1\n"), "{reply}");
    } else {
        assert_eq!(console.read_bytes(expected.len()), expected, "{name}");
        // Anything beyond would come before the answer to the next command.
        console.send("health\n");
        let next = console.read_until("\n");
        assert!(
            next.starts_with("health: "),
            "{name}: after the reply came {next:?}"
        );
    }
}

/// Every recorded line is there with its value (`*` is any), and what else is there is our own.
/// Where prefixes are empty, a name can be there twice.
fn compare(name: &str, recorded: &Json, flush: &Flush) {
    let mut found: Vec<(&str, &str)> = flush
        .iter()
        .map(|point| (point.name.as_str(), point.value.as_str()))
        .collect();
    let expected: Vec<(&str, &str)> = recorded
        .items()
        .iter()
        .map(|line| line.text().unwrap().rsplit_once(' ').unwrap())
        .collect();
    for (key, value) in &expected {
        let same = |(found_key, found_value): &(&str, &str)| {
            found_key == key && (found_value == value || *value == "*")
        };
        let Some(at) = found.iter().position(same) else {
            let values: Vec<_> = found.iter().filter(|(found, _)| found == key).collect();
            panic!("{name}: {key} must be {value}, found {values:?}");
        };
        found.swap_remove(at);
    }
    let own: Vec<&str> = [".bad_lines_seen", ".processing_time", ".numStats"]
        .iter()
        .flat_map(|mark| {
            expected
                .iter()
                .filter_map(move |(key, _)| key.find(mark).map(|at| &key[..=at]))
        })
        .collect();
    assert!(!own.is_empty());
    let recorded_name = |name: &str| expected.iter().any(|(key, _)| *key == name);
    found.retain(|(key, _)| {
        recorded_name(key) || !own.iter().any(|namespace| key.starts_with(namespace))
    });
    assert!(found.is_empty(), "{name}: not in the recording: {found:#?}");
}

/// Plays every `step`th scenario of a file.
fn play_file(file: &str, step: usize, graphite: &Graphite) {
    let all = scenarios(file);
    for scenario in all
        .iter()
        .filter(|scenario| is_slow(scenario))
        .step_by(step)
    {
        play(scenario, graphite);
    }
}

#[test]
fn protocol() {
    play_file("protocol.json", 1, &Graphite::text());
}

#[test]
fn graphite_text() {
    play_file("graphite.json", 1, &Graphite::text());
}

#[test]
fn graphite_pickle() {
    play_file("graphite.json", 1, &Graphite::pickle());
}

#[test]
fn timers() {
    // A third: the statistics themselves are tested in-process.
    play_file("timers.json", 3, &Graphite::text());
}

#[test]
fn flush() {
    play_file("flush.json", 3, &Graphite::text());
}

#[test]
fn tcp() {
    play_file("tcp.json", 1, &Graphite::text());
}

#[test]
fn long() {
    play_file("long.json", 1, &Graphite::text());
}

#[test]
fn admin() {
    play_file("admin.json", 1, &Graphite::text());
}
