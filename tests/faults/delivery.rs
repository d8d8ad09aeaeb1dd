//! Graphite refuses, resets, stalls, trickles, never closes, or has no address: nothing is lost, and
//! nothing else waits.

use crate::common::daemon::Daemon;
use crate::common::graphite::{Graphite, Mode, by_name};
use crate::common::{Dir, LOCAL, NEVER, alive, wait_until};
use crate::tools::{
    answer_time, in_namespace, log_lines, must, said_once, stat, stored, wait_stat, wait_stored,
};
use std::fs;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

/// Names enough that a flush does not fit into the kernel's buffers with [`WINDOW`].
const MANY: usize = 30_000;
const WINDOW: usize = 4096;

const TCP: &str = "servers: [{ server: 'tcp', address: '127.0.0.1', port: 0 }]";

fn many() -> String {
    let line = |n| format!("some.quite.long.name.number.{n}:1|c\n");
    (0..MANY).map(line).collect()
}

/// A Graphite that is down for four intervals, then resets a connection in the midst of a flush.
#[test]
fn an_outage_and_a_reset_lose_no_count() {
    let (dir, mut graphite) = (Dir::new(), Graphite::absent(false));
    let config = format!("{{ {LOCAL}, flushInterval: 1000, {} }}", graphite.config());
    let mut daemon = Daemon::start(&dir, &config);
    let mut sent = 0.0;
    let mut send = || {
        daemon.send("a:1|c\na:2|c");
        sent += 3.0;
        thread::sleep(Duration::from_millis(20));
    };
    while stat(&daemon, "graphite.spool_flushes") < 4.0 {
        send();
    }
    let outage_until = stat(&daemon, "graphite.last_exception");
    assert!(outage_until < 60.0, "it failed seconds ago: {outage_until}");
    assert!(stat(&daemon, "graphite.reconnects") >= 2.0);
    assert!(stat(&daemon, "graphite.spool_bytes") > 1000.0);
    graphite.set_mode(Mode::Reset {
        after: 300,
        times: 1,
    });
    graphite.up();
    while graphite.flushes().len() < 5 {
        send();
    }
    daemon.stop();
    let stored = wait_stored(&graphite, "stats_counts.a", sent);
    // Each flush under its own time: as many as there were intervals, one second apart.
    assert!(stored.len() >= 5, "{stored:?}");
    let times: Vec<u64> = stored.keys().copied().collect();
    for pair in times.windows(2) {
        assert!((1..=2).contains(&(pair[1] - pair[0])), "{times:?}");
    }
    // Oldest first.
    let flushes = graphite.flushes();
    let order: Vec<u64> = flushes.iter().map(|flush| flush[0].timestamp).collect();
    assert!(order.is_sorted(), "{order:?}");
    // And said once each way.
    said_once(&daemon, "flushes are kept");
    said_once(&daemon, "delivering again");
    let last = by_name(flushes.last().unwrap());
    let own = |name: &str| -> f64 {
        let name = format!("stats.statsd.graphiteStats.{name}");
        last[&name].parse().unwrap()
    };
    assert!(own("last_exception") > 1_600_000_000.0);
    assert!(own("reconnects") >= 3.0);
    assert_eq!(own("dropped_flushes"), 0.0);
    // Written as it was before the last flush itself was in it.
    assert!(own("spool_bytes") >= 0.0 && own("spool_flushes") >= 0.0);
}

/// Connections that are taken and cut at once, again and again: the pauses grow.
#[test]
fn a_graphite_that_keeps_failing_is_left_in_peace() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    graphite.set_mode(Mode::Reset {
        after: 0,
        times: 1_000_000,
    });
    let config = format!("{{ {LOCAL}, flushInterval: 100, {} }}", graphite.config());
    let daemon = Daemon::start(&dir, &config);
    wait_until("a connection", || {
        (graphite.connections() > 0).then_some(())
    });
    let start = Instant::now();
    wait_until("four more", || (graphite.connections() >= 5).then_some(()));
    // At least half of 0.5, 1, 2 and 4 seconds.
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(3700), "{took:?}");
    said_once(&daemon, "flushes are kept");
}

/// Accepts, never reads: the connection is given up, the flush is not.
#[test]
fn a_stalled_graphite_loses_nothing_and_delays_nobody() {
    let (dir, mut graphite) = (Dir::new(), Graphite::absent(false));
    graphite.set_window(WINDOW);
    graphite.up();
    graphite.set_mode(Mode::Stall);
    let config = format!(
        "{{ {LOCAL}, flushInterval: 1000, graphiteTimeout: 500, deleteCounters: true, {TCP}, {} }}",
        graphite.config()
    );
    let daemon = Daemon::start(&dir, &config);
    daemon.send_tcp(&many());
    wait_stat(&daemon, "graphite.reconnects", |count| count >= 1.0);
    // Meanwhile the console answers, metrics are taken, flushes go on.
    let slow = (0..50).filter(|_| answer_time(&daemon) > Duration::from_millis(100));
    assert!(slow.count() <= 5);
    daemon.send_tcp("during:1|c\n");
    wait_stat(&daemon, "graphite.spool_flushes", |count| count >= 2.0);
    graphite.set_mode(Mode::Take);
    graphite.release();
    wait_stored(&graphite, "stats_counts.during", 1.0);
    for n in [0, MANY / 2, MANY - 1] {
        let name = format!("stats_counts.some.quite.long.name.number.{n}");
        assert_eq!(stored(&graphite, &name).values().sum::<f64>(), 1.0);
    }
}

/// Slow but moving, for longer than the time-out: that is no failure.
#[test]
fn a_trickling_graphite_is_waited_for() {
    let (dir, mut graphite) = (Dir::new(), Graphite::absent(false));
    graphite.set_window(WINDOW);
    graphite.up();
    graphite.set_mode(Mode::Trickle {
        bytes: 40_000,
        pause: Duration::from_millis(5),
    });
    let config = format!(
        "{{ {LOCAL}, flushInterval: 1000, graphiteTimeout: 700, deleteCounters: true, {TCP}, {} }}",
        graphite.config()
    );
    let daemon = Daemon::start(&dir, &config);
    daemon.send_tcp(&many());
    let last = format!("stats_counts.some.quite.long.name.number.{}", MANY - 1);
    wait_until("a connection", || (graphite.open() > 0).then_some(()));
    let start = Instant::now();
    wait_stored(&graphite, &last, 1.0);
    let took = start.elapsed();
    assert!(took > Duration::from_millis(1400), "not slow: {took:?}");
    assert_eq!(stat(&daemon, "graphite.reconnects"), 0.0);
}

/// Takes everything and does not close: acknowledged is delivered, and not sent again.
#[test]
fn a_graphite_that_never_closes_has_what_it_acknowledged() {
    let (dir, graphite) = (Dir::new(), Graphite::text());
    graphite.set_mode(Mode::HoldOpen);
    let config = format!("{{ {LOCAL}, {NEVER}, {} }}", graphite.config());
    let mut daemon = Daemon::start(&dir, &config);
    daemon.send("a:1|c");
    daemon.wait_received(1);
    let start = Instant::now();
    daemon.stop();
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert_eq!(graphite.flushes().len(), 1);
    assert_eq!(log_lines(&daemon, "could not be delivered"), 0);
}

/// A name that nobody knows: it starts, says so once, and keeps trying; a reload mends it.
#[test]
fn an_unresolvable_name_is_no_obstacle() {
    let dir = Dir::new();
    let config = |host: &str, port: u16| {
        format!(
            "{{ {LOCAL}, flushInterval: 200, backends: ['graphite'], graphiteTimeout: 2000,
                graphiteHost: '{host}', graphitePort: {port} }}"
        )
    };
    let mut daemon = Daemon::start(&dir, &config("graphite.invalid", 2003));
    daemon.send("a:1|c");
    daemon.wait_line("graphite graphite.invalid:2003: ");
    wait_stat(&daemon, "graphite.reconnects", |count| count >= 2.0);
    said_once(&daemon, "graphite.invalid");
    assert!(stat(&daemon, "graphite.spool_flushes") >= 2.0);
    let graphite = Graphite::text();
    dir.replace("statsd.js", &config("localhost", graphite.port()));
    daemon.signal("HUP");
    graphite.wait_sum("stats_counts.a", 1.0);
    daemon.wait_line("delivering again");
    // The children that looked names up are gone.
    wait_until("no child is left", || {
        let children = children(daemon.pid());
        children.is_empty().then_some(())
    });
    daemon.stop();
}

/// The process ids of a process's children, zombies among them.
fn children(pid: u32) -> Vec<String> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    list.split_whitespace().map(str::to_owned).collect()
}

/// Where nothing answers at all, connecting takes until its time-out; nobody waits for that.
#[test]
fn a_dead_graphite_delays_neither_console_nor_other_backends() {
    let (dir, mut graphite) = (Dir::new(), Graphite::absent(false));
    graphite.set_window(WINDOW);
    graphite.up();
    graphite.set_mode(Mode::Stall);
    let config = format!(
        "{{ {LOCAL}, flushInterval: 250, graphiteTimeout: 60000, {TCP}, {} }}",
        graphite
            .config()
            .replace("['./backends/graphite']", "['graphite', 'console']")
    );
    let daemon = Daemon::start(&dir, &config);
    daemon.send_tcp(&many());
    wait_until("a flush under way", || (graphite.open() > 0).then_some(()));
    let (start, before) = (Instant::now(), flushes_shown(&daemon));
    wait_until("8 flushes on the console", || {
        (flushes_shown(&daemon) >= before + 8).then_some(())
    });
    let took = start.elapsed();
    assert!(
        took < Duration::from_secs(6),
        "8 flushes of 250 ms: {took:?}"
    );
    let slow = (0..50).filter(|_| answer_time(&daemon) > Duration::from_millis(100));
    assert!(slow.count() <= 5);
}

fn flushes_shown(daemon: &Daemon) -> usize {
    log_lines(daemon, "Flushing stats at")
}

/// A name server that never answers: whoever looks a name up waits for it, and that is not the loop.
#[test]
fn a_name_server_that_does_not_answer() {
    in_namespace(&["--net", "--mount"], "delivery::role_name_server");
}

#[test]
#[ignore = "runs in a namespace"]
fn role_name_server() {
    let dir = Dir::new();
    dir.write("resolv.conf", "nameserver 127.0.0.1\noptions timeout:30\n");
    must("ip link set lo up");
    // Over the link's target, which may be a file that is not there.
    let real = fs::canonicalize("/etc/resolv.conf").unwrap();
    let ours = dir.text_path("resolv.conf");
    must(&format!("mount --bind {ours} {}", real.display()));
    let server = UdpSocket::bind("127.0.0.1:53").unwrap();
    let config = format!(
        "{{ {LOCAL}, flushInterval: 250, backends: ['graphite'], graphiteTimeout: 60000, shutdownTimeout: 500,
            graphiteHost: 'graphite.example.com' }}"
    );
    let mut daemon = Daemon::start(&dir, &config);
    daemon.send("a:1|c");
    // It has asked, and waits.
    server
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    server.recv(&mut [0; 512]).unwrap();
    assert_eq!(children(daemon.pid()).len(), 1);
    let (start, before) = (Instant::now(), stat(&daemon, "graphite.spool_flushes"));
    let mut slow = 0;
    while stat(&daemon, "graphite.spool_flushes") < before + 6.0 {
        slow += usize::from(answer_time(&daemon) > Duration::from_millis(100));
        assert!(start.elapsed() < Duration::from_secs(5), "flushes are late");
    }
    assert!(slow <= 2, "{slow} slow answers");
    assert_eq!(children(daemon.pid()).len(), 1, "still the same look-up");
    let child: u32 = children(daemon.pid())[0].parse().unwrap();
    daemon.stop();
    wait_until("the child's end", || (!alive(child)).then_some(()));
}
