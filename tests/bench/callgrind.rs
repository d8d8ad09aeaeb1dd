//! Instructions a metric: a fixed input through parser and store, to be run under callgrind.
//!
//! ```sh
//! export CARGO_PROFILE_BENCH_STRIP=false CARGO_PROFILE_BENCH_DEBUG=line-tables-only
//! cargo bench --bench callgrind --target-dir target/callgrind --no-run
//! valgrind --tool=callgrind --toggle-collect='*measured*' target/callgrind/release/deps/callgrind-…
//! ```
//!
//! 100,000 lines over 1,000 names (60 % counters, 30 % timers, 10 % gauges), 30 to a packet, in the third
//! interval: names are known and buffers have the size they need. Divide the instructions collected
//! by 100,000.

use statsd::protocol::{self, BadLine, Scratch, Sink, Value};
use statsd::store::{Bounds, Plan, Policy, Store};
use std::hint::black_box;
use std::rc::Rc;

const LINES: usize = 100_000;
const NAMES: usize = 1_000;
const LINES_A_PACKET: usize = 30;

struct Into(Store);

impl Sink for Into {
    fn line(&mut self, _line: &[u8]) -> bool {
        self.0.own.metrics_received += 1;
        true
    }

    #[inline]
    fn known(&mut self, name: &[u8], value: Value<'_>, _line: &[u8]) -> bool {
        let known = self.0.apply_known(name, value);
        self.0.own.metrics_received += u64::from(known);
        known
    }

    fn metric(&mut self, name: &[u8], value: Value<'_>) -> bool {
        self.0.apply(name, value)
    }

    fn bad_line(&mut self, bad: BadLine<'_>) {
        unreachable!("{bad}");
    }
}

#[inline(never)]
fn measured(packets: &[Vec<u8>], scratch: &mut Scratch, into: &mut Into) {
    for packet in packets {
        protocol::parse_packet(black_box(packet), scratch, into);
    }
}

fn packets() -> Vec<Vec<u8>> {
    let mut state = 42u64;
    let mut next = move |below: usize| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let mut line = |_| {
        let name = next(NAMES);
        let place = format!("prod.svc{}.host{}.metric.{name}", name % 50, name % 977);
        match name % 10 {
            0..6 => format!("{place}:{}|c", 1 + next(3)),
            6..9 => format!("{place}:{}.{}|ms", next(900), next(1000)),
            _ => format!("{place}:{}|g", next(1000)),
        }
    };
    let lines: Vec<String> = (0..LINES).map(&mut line).collect();
    lines
        .chunks(LINES_A_PACKET)
        .map(|lines| lines.join("\n").into_bytes())
        .collect()
}

fn main() {
    let bounds = Bounds {
        names: 1 << 20,
        timer_values: 1 << 24,
        set_members: 1 << 20,
    };
    let mut into = Into(Store::new("statsd", true, bounds));
    let mut scratch = Scratch::default();
    let packets = packets();
    for _ in 0..2 {
        packets
            .iter()
            .for_each(|packet| protocol::parse_packet(packet, &mut scratch, &mut into));
        into.0.flip(Plan {
            policy: Policy::default(),
            summary: Rc::default(),
        });
        while into.0.drain(usize::MAX, &mut |_| ()).is_none() {}
    }
    let began = std::time::Instant::now();
    measured(&packets, &mut scratch, &mut into);
    println!(
        "{} lines, {:.1} ns a line",
        into.0.own.metrics_received,
        began.elapsed().as_nanos() as f64 / LINES as f64
    );
}
