//! Memory under the worst input stays below what the limits add up to. The sum is the one in statsd(8):
//! change both together.

use crate::common::daemon::Daemon;
use crate::common::graphite::Graphite;
use crate::common::{Dir, LOCAL, status_field, wait_until};
use crate::tools::{stat, wait_stat};
use std::io::Write;
use std::net::TcpStream;

/// The program itself, its stacks, buffers for input, and what the C library keeps for later.
const BASE: u64 = 24 << 20;
/// Of `maxNames`: the name at its longest on average, its slot and its entry in the index, and what two
/// banks hold at least for it.
const NAME: u64 = 700;
/// Of `maxTimerValues`: two banks, and the copy that is sorted.
const TIMER_VALUE: u64 = 24;
/// Of `maxSetMembers`: two banks, the member at its longest on average.
const SET_MEMBER: u64 = 400;
/// Beside the line it is in the midst of, twice.
const CLIENT: u64 = 4096;
/// Beside its buffer, twice: commands that wait.
const CONSOLE: u64 = 192 << 10;
/// Beside `graphiteSpoolBytes`: the part under delivery and the one being written.
const PARTS: u64 = 10 << 20;

struct Limits {
    names: u64,
    timer_values: u64,
    set_members: u64,
    clients: u64,
    line: u64,
    consoles: u64,
    console_bytes: u64,
    spool: u64,
}

impl Limits {
    fn sum(&self) -> u64 {
        BASE + self.names * NAME
            + self.timer_values * TIMER_VALUE
            + self.set_members * SET_MEMBER
            + self.clients * (CLIENT + 2 * self.line)
            + self.consoles * (CONSOLE + 2 * self.console_bytes)
            + self.spool
            + PARTS
    }
}

/// The figure in the man page.
#[test]
fn the_sum_for_the_defaults() {
    let defaults = Limits {
        names: 2_000_000,
        timer_values: 20_000_000,
        set_members: 1_000_000,
        clients: 1000,
        line: 8192,
        consoles: 50,
        console_bytes: 1 << 20,
        spool: 64 << 20,
    };
    let megabytes = defaults.sum() / 1_000_000;
    assert!((2500..2600).contains(&megabytes), "{megabytes} MB");
}

/// Fills everything there is to its limit and beyond, over several flushes that nobody takes.
#[test]
fn the_worst_input_stays_below_the_sum() {
    let limits = Limits {
        names: 40_000,
        timer_values: 60_000,
        set_members: 40_000,
        clients: 100,
        line: 8192,
        consoles: 10,
        console_bytes: 1 << 20,
        spool: 16 << 20,
    };
    let (dir, graphite) = (Dir::new(), Graphite::absent(false));
    let config = format!(
        "{{ {LOCAL}, flushInterval: 2000, maxNames: 40000, maxTimerValues: 60000, maxSetMembers: 40000,
            maxTcpClients: 100, maxMgmtClients: 10, graphiteSpoolBytes: {}, {},
            servers: [{{ server: 'udp', address: '127.0.0.1', port: 0 }},
                      {{ server: 'tcp', address: '127.0.0.1', port: 0 }}] }}",
        limits.spool,
        graphite.config()
    );
    let mut daemon = Daemon::start(&dir, &config);
    // Each client in the midst of a line as long as it may be.
    let mut clients: Vec<TcpStream> = (0..99).map(|_| daemon.tcp()).collect();
    for client in &mut clients {
        client.write_all(&[b'x'; 8192]).unwrap();
    }
    let mut stream = daemon.tcp();
    // Sets are the dearest names, timers the next; names and members as long as they may be.
    let long = "n".repeat(100);
    for n in 0..20_000 {
        let lines = format!("{long}.s{n}:{long}{n}|s\n{long}.t{n}:1|ms\n");
        stream.write_all(lines.as_bytes()).unwrap();
    }
    // Then new names, names that are longer, and more values and members, in each interval.
    for round in 0..2 {
        for n in 0..4000 {
            let wide = "w".repeat(50 * (1 + n % 100));
            let lines = format!("{wide}.{round}.{n}:1|c\n{long}.s{n}:{wide}{round}{n}|s\n");
            stream.write_all(lines.as_bytes()).unwrap();
        }
        for n in 0..80 {
            let line = format!("{long}.t{n}:{n}.25|ms|@0.3\n").repeat(2500);
            stream.write_all(line.as_bytes()).unwrap();
        }
    }
    let mut deaf: Vec<_> = (0..8).map(|_| daemon.console()).collect();
    for console in &mut deaf {
        // More than the kernel holds of them.
        console.send(&"stats\n".repeat(10_000));
    }
    wait_stat(&daemon, "server.stalled_consoles", |count| count == 8.0);
    wait_stat(&daemon, "server.refused_names", |count| count > 0.0);
    wait_stat(&daemon, "server.refused_timer_values", |count| count > 0.0);
    wait_stat(&daemon, "server.refused_set_members", |count| count > 0.0);
    wait_stat(&daemon, "graphite.dropped_flushes", |count| count > 0.0);
    wait_until("the input to be read", || {
        (stat(&daemon, "graphite.spool_flushes") >= 1.0).then_some(())
    });
    let (peak, sum) = (status_field(daemon.pid(), "VmHWM") * 1024, limits.sum());
    eprintln!("{peak} bytes at most, of {sum}");
    assert!(
        peak < sum,
        "{peak} bytes, more than the {sum} of the limits"
    );
    // Or the sum says nothing.
    assert!(peak > sum / 4, "{peak} bytes, far below the {sum}");
    daemon.assert_running();
}
