//! `cargo bench --bench spread -- [--proxy-us N] [--daemon-us N] [--load N] [--names N]`: growing
//! beyond one machine, on paper.
//!
//! Three tables: how evenly the ring spreads a million real-looking names over 3 to 100 nodes; what
//! routing costs in the proxy before any socket; and how many proxies and daemons (processes, each one
//! processor) it takes for 1, 10 and 100 million metrics a second, at the costs given (microseconds of
//! CPU a metric, as `make bench` measures them) and with no process busier than `--load` (0 to 1). The
//! busiest daemon counts, as names cannot be moved by hand; every name is taken to be equally busy.
#![allow(clippy::unwrap_used, missing_docs)]

use statsd::proxy::queue::Queue;
use statsd::proxy::route::Router;
use statsd::ring::Ring;
use std::time::Instant;

/// The figures to reckon with.
struct Options {
    proxy_us: f64,
    daemon_us: f64,
    load: f64,
    names: usize,
}

fn main() {
    let options = options();
    let names = names(options.names);
    println!("spread of {} names:\n", names.len());
    println!("| nodes | points | smallest share / mean | largest share / mean |");
    println!("|---|---|---|---|");
    for count in [3, 7, 20, 100] {
        let ring = ring(count);
        let shares = shares(&ring, count, &names);
        let mean = names.len() as f64 / count as f64;
        let of_mean = |share: Option<&usize>| *share.unwrap() as f64 / mean;
        println!(
            "| {count} | {} | {:.2} | {:.2} |",
            ring.points(),
            of_mean(shares.iter().min()),
            of_mean(shares.iter().max())
        );
    }
    println!("\nrouting a line (no sockets), 7 nodes, 30 lines a packet:\n");
    println!("| names | cacheSize | ns a line |\n|---|---|---|");
    for (count, cache) in [
        (1_000, 10_000),
        (8_000, 10_000),
        (100_000, 10_000),
        (100_000, 100_000),
    ] {
        let count = count.min(names.len());
        println!(
            "| {count} | {cache} | {:.0} |",
            routing(&names[..count], cache)
        );
    }
    let Options {
        proxy_us,
        daemon_us,
        load,
        ..
    } = options;
    println!(
        "\nprocesses at {proxy_us} µs (proxy), {daemon_us} µs (daemon), at most {load} busy:\n"
    );
    println!("| metrics a second | proxies | daemons | busiest daemon |");
    println!("|---|---|---|---|");
    for rate in [1e6, 1e7, 1e8] {
        let proxies = (rate * proxy_us * 1e-6 / load).ceil();
        let (daemons, busiest) = daemons(&names, rate * daemon_us * 1e-6, load);
        // One daemon needs no proxy before it.
        let proxies = if daemons == 1 { 0.0 } else { proxies };
        println!("| {rate:.0e} | {proxies} | {daemons} | {busiest:.2} |");
    }
}

fn options() -> Options {
    let mut options = Options {
        proxy_us: 0.21,
        daemon_us: 0.10,
        load: 0.6,
        names: 1_000_000,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse().ok()).unwrap();
        match argument.as_str() {
            "--proxy-us" => options.proxy_us = number(),
            "--daemon-us" => options.daemon_us = number(),
            "--load" => options.load = number(),
            "--names" => options.names = number() as usize,
            // Given by cargo.
            "--bench" => {}
            other => panic!("unknown option {other}"),
        }
    }
    options
}

/// Names as services have them: environment, service, host, endpoint, what.
fn names(count: usize) -> Vec<String> {
    const WHAT: [&str; 6] = [
        "requests",
        "errors",
        "latency",
        "cache.hit",
        "bytes_out",
        "queue",
    ];
    const ENDPOINTS: [&str; 8] = [
        "login",
        "search",
        "cart.add",
        "checkout",
        "api.v2.users",
        "static",
        "health",
        "upload",
    ];
    let name = |n: usize| {
        let (what, rest) = (WHAT[n % 6], n / 6);
        let (endpoint, rest) = (ENDPOINTS[rest % 8], rest / 8);
        let (service, host) = (rest % 50, rest / 50);
        format!("prod.svc{service}.host{host:04}.{endpoint}.{what}")
    };
    (0..count).map(name).collect()
}

fn ring(nodes: usize) -> Ring {
    let name = |n| format!("10.1.{}.{}:8125", n / 250, n % 250 + 1);
    Ring::new((0..nodes).map(|n| (n as u32, name(n))))
}

fn shares(ring: &Ring, nodes: usize, names: &[String]) -> Vec<usize> {
    let mut shares = vec![0; nodes];
    for name in names {
        shares[ring.owner(name.as_bytes()).unwrap() as usize] += 1;
    }
    shares
}

/// The fewest daemons of which none has more than `load` of the `work` (in processors), and what the
/// busiest has.
fn daemons(names: &[String], work: f64, load: f64) -> (usize, f64) {
    if work <= load {
        return (1, work);
    }
    // A sample is enough to search with.
    let sample: Vec<String> = names
        .iter()
        .step_by(names.len().div_ceil(100_000))
        .cloned()
        .collect();
    let mut count = (work / load).ceil() as usize;
    loop {
        let busiest = |names: &[String]| {
            let most = shares(&ring(count), count, names)
                .into_iter()
                .max()
                .unwrap();
            most as f64 / names.len() as f64 * work
        };
        if busiest(&sample) <= load {
            let exact = busiest(names);
            if exact <= load {
                return (count, exact);
            }
        }
        count += 1;
    }
}

/// Nanoseconds to route a line; the best of several rounds, as others share the machine.
fn routing(names: &[String], cache_size: usize) -> f64 {
    let mut router = Router::new(cache_size);
    let queues = (0..7).map(|_| Queue::new(1432, 1 << 20)).collect();
    router.set_nodes(queues, ring(7), cache_size);
    let mut seed = 1u64;
    let mut line = || {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        format!(
            "{}:{}|c\n",
            names[(seed >> 33) as usize % names.len()],
            seed >> 58
        )
    };
    let packets: Vec<String> = (0..4000)
        .map(|_| (0..30).map(|_| line()).collect())
        .collect();
    let mut round = || {
        let start = Instant::now();
        for packet in &packets {
            if router.packet(packet.as_bytes()) {
                for queue in router.queues_mut() {
                    queue.send(|datagrams| Ok(datagrams.len()));
                }
            }
        }
        start.elapsed().as_nanos() as f64 / (packets.len() * 30) as f64
    };
    (0..20).map(|_| round()).fold(f64::INFINITY, f64::min)
}
