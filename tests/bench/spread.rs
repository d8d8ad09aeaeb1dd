//! `cargo bench --bench spread -- [--costs PROXY,DIRECT,BEHIND] [--load N] [--names N]`: growing beyond
//! one machine, on paper.
//!
//! Three tables: how evenly the ring spreads a million real-looking names over 3 to 100 nodes; what
//! routing costs in the proxy before any socket; and how many proxies and daemons (processes, each one
//! processor) it takes for 1, 10 and 100 million metrics a second, at costs in microseconds of CPU a
//! metric as `make bench` measures them (of a proxy, of a daemon without one, and of a daemon behind
//! one, which gets full datagrams), and with no process busier than `--load` (0 to 1). The busiest daemon
//! counts, as names cannot be moved by hand; every name is taken to be equally busy.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use statsd::proxy::queue::{Batch, Queue};
use statsd::proxy::route::Router;
use statsd::ring::Ring;
use std::time::Instant;

/// CPU of a metric, in microseconds.
#[derive(Clone, Copy)]
struct Costs {
    proxy: f64,
    /// Of a daemon that clients send to.
    direct: f64,
    /// Of a daemon behind proxies.
    behind: f64,
}

/// Measured, for clients that send so many lines a datagram.
const MEASURED: [(&str, Costs); 2] = [
    (
        "30 lines a datagram",
        Costs {
            proxy: 0.12,
            direct: 0.10,
            behind: 0.10,
        },
    ),
    (
        "1 line a datagram",
        Costs {
            proxy: 1.25,
            direct: 1.0,
            behind: 0.15,
        },
    ),
];

/// The figures to reckon with.
struct Options {
    costs: Vec<(&'static str, Costs)>,
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
    for (what, costs) in &options.costs {
        machines(what, *costs, options.load, &names);
    }
}

fn machines(what: &str, costs: Costs, load: f64, names: &[String]) {
    let Costs {
        proxy,
        direct,
        behind,
    } = costs;
    println!(
        "\nprocesses, {what}: {proxy} µs in a proxy, {direct} µs in a daemon, {behind} µs in one"
    );
    println!("behind a proxy, none more than {load} busy:\n");
    println!("| metrics a second | proxies | daemons | busiest daemon |\n|---|---|---|---|");
    for rate in [1e6, 1e7, 1e8] {
        let alone = rate * direct * 1e-6;
        let (proxies, daemons, busiest) = if alone <= load {
            (0.0, 1, alone)
        } else {
            let (daemons, busiest) = daemons(names, rate * behind * 1e-6, load);
            ((rate * proxy * 1e-6 / load).ceil(), daemons, busiest)
        };
        println!("| {rate:.0e} | {proxies} | {daemons} | {busiest:.2} |");
    }
}

fn options() -> Options {
    let mut options = Options {
        costs: MEASURED.to_vec(),
        load: 0.6,
        names: 1_000_000,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut numbers = || -> Vec<f64> {
            let text = arguments.next().unwrap();
            text.split(',')
                .map(|number| number.parse().unwrap())
                .collect()
        };
        match argument.as_str() {
            "--costs" => {
                let [proxy, direct, behind] = numbers()[..] else {
                    panic!("--costs takes three numbers")
                };
                let costs = Costs {
                    proxy,
                    direct,
                    behind,
                };
                options.costs = vec![("as given", costs)];
            }
            "--load" => options.load = numbers()[0],
            "--names" => options.names = numbers()[0] as usize,
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
                    queue.send(Batch::List, |datagrams| Ok(datagrams.len()));
                }
            }
        }
        start.elapsed().as_nanos() as f64 / (packets.len() * 30) as f64
    };
    (0..20).map(|_| round()).fold(f64::INFINITY, f64::min)
}
