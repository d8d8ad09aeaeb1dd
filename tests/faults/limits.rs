//! Each limit on its own: the newcomer is refused, said once and counted; what is known goes on; and it is
//! said once more when it is over.

use crate::common::console::Console;
use crate::common::daemon::Daemon;
use crate::common::graphite::Graphite;
use crate::common::{Dir, LOCAL, NEVER, wait_until};
use crate::tools::{log_lines, said_once, stat, wait_stat};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const TCP: &str = "servers: [{ server: 'udp', address: '127.0.0.1', port: 0 },
    { server: 'tcp', address: '127.0.0.1', port: 0 }]";

/// Goes over a limit again and again, with `over`, while `known` keeps being counted; then stops.
fn check(key: &str, limit: &str, figure: &str, first: &str, over: impl Fn(usize) -> String) {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!(
        "{{ {LOCAL}, flushInterval: 200, {limit}, {} }}",
        graphite.config()
    );
    let mut daemon = Daemon::start(&dir, &config);
    daemon.send(first);
    graphite.wait_sum("stats_counts.known", 1.0);
    let (mut sent, mut round) = (1.0, 0);
    let flushes = graphite.flushes().len();
    while graphite.flushes().len() < flushes + 5 {
        // What is refused comes first.
        daemon.send(&over(round));
        daemon.send("known:1|c");
        sent += 1.0;
        round += 1;
        graphite.wait_sum("stats_counts.known", sent);
    }
    // Only what came as one burst in one interval is sure to be over.
    let refused = wait_stat(&daemon, figure, |count| count >= 100.0);
    daemon.wait_line(&format!("over {key}: "));
    daemon.wait_line(&format!("below {key} again"));
    let said = log_lines(&daemon, &format!("over {key}: "));
    let unsaid = log_lines(&daemon, &format!("below {key} again"));
    assert!(said <= unsaid + 1, "said {said} times, unsaid {unsaid}");
    let own = format!("stats.statsd.{figure}");
    wait_until("Graphite to know", || {
        (graphite.values(&own).last() == Some(&refused)).then_some(())
    });
    daemon.assert_running();
}

#[test]
fn names() {
    // Four are the daemon's own.
    let burst = |round| (0..150).map(|n| format!("n.{round}.{n}:1|c\n")).collect();
    check(
        "maxNames",
        "maxNames: 10",
        "server.refused_names",
        "known:1|c",
        burst,
    );
}

/// A state that lasts is told once, however long.
#[test]
fn a_limit_that_stays_reached_is_told_once() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    let config = format!(
        "{{ {LOCAL}, flushInterval: 100, maxNames: 10, {} }}",
        graphite.config()
    );
    let daemon = Daemon::start(&dir, &config);
    // Every interval has its share: one datagram a millisecond.
    let end = Instant::now() + Duration::from_secs(2);
    let mut round = 0;
    while Instant::now() < end {
        daemon.send(&format!("n.{round}:1|c"));
        round += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(graphite.flushes().len() >= 10);
    said_once(&daemon, "over maxNames: ");
    daemon.wait_line("below maxNames again");
}

#[test]
fn timer_values() {
    let burst = |_| "t:1|ms\n".repeat(250);
    let (limit, figure) = ("maxTimerValues: 50", "server.refused_timer_values");
    check("maxTimerValues", limit, figure, "known:1|c\nt:1|ms", burst);
}

#[test]
fn set_members() {
    let burst = |_| (0..250).map(|n| format!("s:{n}|s\n")).collect();
    let (limit, figure) = ("maxSetMembers: 50", "server.refused_set_members");
    check("maxSetMembers", limit, figure, "known:1|c\ns:1|s", burst);
}

/// Whether the other side closes, without a word.
fn is_closed(mut stream: &TcpStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_))
}

#[test]
fn tcp_clients() {
    let dir = Dir::new();
    let config = format!("{{ {LOCAL}, {NEVER}, backends: [], maxTcpClients: 3, {TCP} }}");
    let daemon = Daemon::start(&dir, &config);
    let mut known: Vec<TcpStream> = (0..3).map(|_| daemon.tcp()).collect();
    known[2].write_all(b"a:1|c\n").unwrap();
    daemon.wait_received(1);
    for _ in 0..5 {
        assert!(is_closed(&daemon.tcp()));
    }
    for client in &mut known {
        client.write_all(b"a:1|c\n").unwrap();
    }
    daemon.wait_received(4);
    assert_eq!(stat(&daemon, "server.refused_clients"), 5.0);
    assert_eq!(stat(&daemon, "server.clients"), 3.0);
    said_once(&daemon, "refusing more (maxTcpClients)");
    // One goes, one may come.
    drop(known.pop());
    wait_stat(&daemon, "server.clients", |count| count == 2.0);
    daemon.send_tcp("a:1|c\n");
    daemon.wait_received(5);
    said_once(&daemon, "below 3 clients again");
}

#[test]
fn console_clients() {
    let dir = Dir::new();
    let config = format!("{{ {LOCAL}, {NEVER}, backends: [], maxMgmtClients: 2 }}");
    let daemon = Daemon::start(&dir, &config);
    let mut known: Vec<Console> = (0..2).map(|_| daemon.console()).collect();
    known
        .iter_mut()
        .for_each(|console| assert_eq!(console.ask("health", "\n"), "health: up\n"));
    for _ in 0..5 {
        assert!(is_closed(
            &TcpStream::connect(daemon.address("admin")).unwrap()
        ));
    }
    let stats = known[0].ask("stats", "END\n\n");
    assert!(stats.contains("server.refused_clients: 5\n"), "{stats}");
    said_once(&daemon, "refusing more (maxMgmtClients)");
    known.pop();
    wait_until("the place to be free", || {
        let mut stream = TcpStream::connect(daemon.address("admin")).unwrap();
        stream.write_all(b"quit\nhealth\n").unwrap();
        log_lines(&daemon, "below 2 clients again").checked_sub(1)
    });
}

/// Silent clients are let go, counted, and told of once; those that speak are not.
#[test]
fn idle_time_outs() {
    let dir = Dir::new();
    let config = format!(
        "{{ {LOCAL}, {NEVER}, backends: [], tcpIdleTimeout: 800, mgmtIdleTimeout: 800, {TCP} }}"
    );
    let daemon = Daemon::start(&dir, &config);
    let start = Instant::now();
    let (silent, mut speaking) = ([(); 3].map(|()| daemon.tcp()), daemon.tcp());
    let silent_consoles = [(); 2].map(|()| TcpStream::connect(daemon.address("admin")).unwrap());
    let mut speaking_console = daemon.console();
    let mut lines = 0;
    while start.elapsed() < Duration::from_millis(2500) {
        speaking.write_all(b"a:1|c\n").unwrap();
        speaking_console.ask("health", "\n");
        lines += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(silent.iter().chain(&silent_consoles).all(is_closed));
    let stats = speaking_console.ask("stats", "END\n\n");
    assert!(stats.contains("server.silent_clients: 5\n"), "{stats}");
    said_once(&daemon, "closed a client silent for 800ms (tcpIdleTimeout)");
    said_once(
        &daemon,
        "closed a client silent for 800ms (mgmtIdleTimeout)",
    );
    speaking.write_all(b"a:1|c\n").unwrap();
    daemon.wait_received(lines + 1);
    assert!(speaking_console.ask("health", "\n").starts_with("health"));
}

/// A line over the limit is one bad line, on a stream as in a datagram, and what follows it is taken.
#[test]
fn line_bytes() {
    let dir = Dir::new();
    let config = format!("{{ {LOCAL}, {NEVER}, backends: [], maxLineBytes: 100, {TCP} }}");
    let daemon = Daemon::start(&dir, &config);
    let (fits, over) = ("x".repeat(96), "x".repeat(97));
    let text = format!("{over}:1|c\n{fits}:1|c\na:1|c\n");
    daemon.send(&text);
    daemon.send_tcp(&text);
    // Longer than any buffer, and never ending.
    let mut endless = daemon.tcp();
    (0..100).for_each(|_| endless.write_all(&[b'y'; 65536]).unwrap());
    endless.write_all(b"\na:1|c\n").unwrap();
    daemon.wait_received(8);
    daemon.wait_own("bad_lines_seen", 3);
    let told = |count| {
        wait_until("the log", || {
            (log_lines(&daemon, "longer than maxLineBytes") == count).then_some(())
        });
    };
    told(3);
    // However many: each a bad line like any other, of which ten are told.
    daemon.send_tcp(&format!("{over}:1|c\n").repeat(100));
    daemon.wait_own("bad_lines_seen", 103);
    told(10);
    let mut console = daemon.console();
    assert_eq!(console.counter("a"), Some(3.0));
    assert_eq!(console.counter(&fits), Some(2.0));
    assert_eq!(console.counter(&over), None);
    told(10);
}

/// A console that asks for a long listing and does not read it costs its buffer, and no more.
#[test]
fn bytes_waiting_for_a_console() {
    let dir = Dir::new();
    let config = format!("{{ {LOCAL}, {NEVER}, backends: [], mgmtBufferBytes: 65536, {TCP} }}");
    let daemon = Daemon::start(&dir, &config);
    let line = |n| format!("some.quite.long.name.of.a.counter.number.{n}:1|c\n");
    daemon.send_tcp(&(0..20_000).map(line).collect::<String>());
    daemon.wait_received(20_000);
    let memory = || crate::common::status_field(daemon.pid(), "VmRSS") * 1024;
    let before = memory();
    let mut deaf: Vec<Console> = (0..20).map(|_| daemon.console()).collect();
    for console in &mut deaf {
        // A megabyte each, fifty times over.
        console.send(&"counters\n".repeat(50));
    }
    for _ in 0..20 {
        assert!(daemon.console().ask("health", "\n").starts_with("health"));
    }
    let more = memory().saturating_sub(before);
    assert!(more < 20 * 4 * 65536 + (4 << 20), "{more} bytes");
    // And whoever reads after all gets everything.
    let listing = deaf[0].json("counters");
    assert_eq!(listing.members().len(), 20_003);
}

/// Has a client ask for more than it reads, until it has stalled; how many replies were made for it.
fn stall(daemon: &Daemon, deaf: &mut Console) -> usize {
    const BATCH: usize = 10;
    let before = stat(daemon, "server.stalled_consoles");
    let mut made = 0;
    for wanted in ["health: down\n", "health: up\n"].iter().cycle() {
        deaf.send(&format!(
            "{}{}",
            "config\n".repeat(BATCH),
            wanted.replace(':', "")
        ));
        // The last of them has been carried out, or never will be.
        let stalled = wait_until("the commands", || {
            if stat(daemon, "server.stalled_consoles") > before {
                return Some(true);
            }
            (daemon.console().ask("health", "\n") == *wanted).then_some(false)
        });
        if stalled {
            break;
        }
        made += BATCH;
    }
    made
}

/// What waits for a console that does not read is what the key allows, beside what the kernel holds. One
/// that has stalled harms nobody else, is told of once, and gets everything if it reads after all.
#[test]
fn a_console_that_stalls() {
    const REPLY: usize = 20_000;
    const LESS: usize = 65_536;
    const MORE: usize = 8 << 20;
    let note = "x".repeat(REPLY);
    let made = [LESS, MORE].map(|limit| {
        let dir = Dir::new();
        let config = format!(
            "{{ {LOCAL}, {NEVER}, backends: [], mgmtBufferBytes: {limit}, note: '{note}' }}"
        );
        let daemon = Daemon::start(&dir, &config);
        let mut known = daemon.console();
        known.ask("health", "\n");
        let mut deaf = [daemon.console(), daemon.console()];
        let made = deaf.each_mut().map(|deaf| stall(&daemon, deaf));
        assert_eq!(stat(&daemon, "server.stalled_consoles"), 2.0);
        said_once(&daemon, "does not read: ");
        said_once(&daemon, &format!("{limit} bytes wait for it"));
        assert_eq!(log_lines(&daemon, "no client is stalled"), 0);
        assert!(known.ask("health", "\n").starts_with("health"));
        for (console, made) in deaf.iter_mut().zip(made) {
            console.send(&format!("{}quit\n", "config\nhealth\n".repeat(1000)));
            let all = console.read_to_close();
            assert!(all.matches(&note).count() > made + 1000);
            assert!(all.ends_with("health: up\n") || all.ends_with("health: down\n"));
        }
        said_once(&daemon, "no client is stalled any more");
        said_once(&daemon, "does not read: ");
        assert_eq!(stat(&daemon, "server.stalled_consoles"), 2.0);
        made[0]
    });
    // What the kernel holds is the same, within a part of the difference.
    let difference = (made[1] - made[0]) * REPLY;
    let expected = MORE - LESS;
    assert!(
        difference.abs_diff(expected) < expected / 4,
        "{difference}, not {expected}: {made:?} replies"
    );
}

/// One that goes on not reading is let go.
#[test]
fn a_console_that_never_reads_is_closed() {
    let dir = Dir::new();
    let note = "x".repeat(20_000);
    let config = format!(
        "{{ {LOCAL}, {NEVER}, backends: [], mgmtBufferBytes: 65536, mgmtIdleTimeout: 1000, note: '{note}' }}"
    );
    let daemon = Daemon::start(&dir, &config);
    let mut deaf = daemon.console();
    let commands = 2000;
    deaf.send(&"config\n".repeat(commands));
    daemon.wait_line("does not read: ");
    daemon.wait_line("no client is stalled any more");
    let replies = deaf.read_to_close().matches(&note).count();
    assert!(0 < replies && replies < commands, "{replies}");
    assert!(daemon.console().ask("health", "\n").starts_with("health"));
}
