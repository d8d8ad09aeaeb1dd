//! `make bench`: what a metric costs, measured against a program that only receives.
//!
//! # Method
//!
//! Every figure is CPU time from the kernel's account of the measured process (its CPU clock, user
//! and system, all threads), never a wall clock: on a shared machine the wall clock shows the
//! neighbours. The unit is microseconds of CPU for each metric *received*; what the kernel dropped
//! is reported apart.
//!
//! The *floor* is this program started again to receive with the same calls and discard. Floor and
//! daemon are measured in turn, five rounds by default, each with a fresh process; the table has the
//! medians, and the median of the ratios within each round. Within a round the two take turns in ten
//! slices (UDP) so that the neighbours on the machine meet both alike. The receiver is bound to the first
//! processor, everything else (sender, fake Graphite, console prober) to the second. The sender
//! uses sendmmsg of 64 over buffers built beforehand, from fixed seeds, on loopback only. It sends in
//! two ways:
//! - *flat out*, with no regard for the receiver, as the aims are meant. Here a fast receiver often
//!   finds only a few datagrams and goes back to sleep, so that the floor holds the cost of waking;
//! - in *full batches*: bursts of 1,024 datagrams, while each of which the receiver is stopped
//!   (SIGSTOP). Both programs then take 64 at a time, so the floor is the least that a datagram can
//!   cost, and the ratio is harsher.
//!
//! Everything runs at nice -10 where that is allowed, and the console prober in real time, so that
//! the two latencies (worst answer, longest pause) are the daemon's and not the scheduler's.
//!
//! # Use
//!
//! `make bench`, or `cargo bench --bench bench -- [options] [case…]`; `--help` lists both. `--daemon`
//! and `--proxy` take any command line that understands the original's config file, `{config}`
//! standing for its path, so the original itself can be measured:
//! `--daemon 'node stats.js {config}' --scale 0.1`. No figure
//! makes the bench fail, only a case that could not run does.

mod console;
mod floor;
mod flush;
mod graphite;
mod load;
mod os;
mod proxy;
mod receive;
mod report;
mod subject;
mod timers;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use report::Row;
use subject::{KernelQueue, Subject};

type Case = (
    &'static str,
    &'static str,
    fn(&Bench) -> Result<Vec<Row>, String>,
);

/// Name, description and function of each case, in the order of the table.
const CASES: &[Case] = &[
    ("udp30", "the usual mix, 30 lines a datagram", |b| {
        receive::udp(b, "udp, 30 lines", 30, "1.8 × floor")
    }),
    ("udp1", "the usual mix, 1 line a datagram", |b| {
        receive::udp(b, "udp, 1 line", 1, "1.15 × floor")
    }),
    ("tcp", "the usual mix over one connection", receive::tcp),
    (
        "names",
        "a million live counters at random: CPU and memory",
        receive::names,
    ),
    (
        "flush1",
        "flushing them every 3 s while 60,000 datagrams of 1 line a second come",
        |b| flush::case(b, "flush under load, 1 line", 1),
    ),
    ("flush30", "the same with 30 lines a datagram", |b| {
        flush::case(b, "flush under load, 30 lines", 30)
    }),
    (
        "timers",
        "10 million timer values in one interval",
        timers::case,
    ),
    (
        "proxy30",
        "the proxy, three nodes, 30 lines a datagram",
        |b| proxy::case(b, "proxy, 30 lines", 30, "4 × floor"),
    ),
    ("proxy1", "the same, 1 line a datagram", |b| {
        proxy::case(b, "proxy, 1 line", 1, "")
    }),
];

/// What was asked for, and where to run.
pub struct Bench {
    /// Rounds of each comparison.
    pub runs: usize,
    /// Live counters.
    pub names: u64,
    /// Seconds under load in the flush cases.
    pub seconds: u64,
    scale: f64,
    verbose: bool,
    daemon: Vec<String>,
    proxy: Vec<String>,
    /// Processor of the measured program, and ours.
    cpus: (usize, usize),
    directory: PathBuf,
}

/// A daemon or proxy under measurement.
pub struct Running {
    /// The process.
    pub subject: Subject,
    /// Where it receives.
    pub port: u16,
    /// Its console.
    pub admin: u16,
}

impl Bench {
    /// A count, times `--scale`.
    pub fn scaled(&self, count: u64) -> u64 {
        ((count as f64 * self.scale) as u64).max(1)
    }

    /// A line for those who asked to see each run.
    pub fn detail(&self, line: &str) {
        if self.verbose {
            eprintln!("{line}");
        }
    }

    /// Starts the program that only receives.
    pub fn start_floor(&self, kind: &str) -> Result<(Subject, u16), String> {
        let port = subject::free_port().map_err(|e| e.to_string())?;
        let own = std::env::current_exe().map_err(|e| e.to_string())?;
        let command = [
            own.display().to_string(),
            "--floor".into(),
            kind.into(),
            port.to_string(),
        ];
        Ok((Subject::start(&command, self.cpus.0, self.cpus.1)?, port))
    }

    /// Starts the daemon, flushing to a Graphite on `graphite` every `interval` milliseconds.
    pub fn start_daemon(
        &self,
        kind: &str,
        graphite: u16,
        interval: u64,
    ) -> Result<Running, String> {
        self.start(&self.daemon, kind == "tcp", |port, admin| {
            format!(
                "{{ server: './servers/{kind}', address: '127.0.0.1', port: {port},\n\
                 mgmt_address: '127.0.0.1', mgmt_port: {admin}, flushInterval: {interval},\n\
                 backends: ['./backends/graphite'],\n\
                 graphiteHost: '127.0.0.1', graphitePort: {graphite} }}\n"
            )
        })
    }

    /// Starts the proxy before nodes given as `(port, admin port)`.
    pub fn start_proxy(&self, nodes: &[(u16, u16)]) -> Result<Running, String> {
        let nodes: Vec<String> = nodes
            .iter()
            .map(|(port, admin)| {
                format!("{{ host: '127.0.0.1', port: {port}, adminport: {admin} }}")
            })
            .collect();
        self.start(&self.proxy, false, |port, admin| {
            format!(
                "{{ server: './servers/udp', host: '127.0.0.1', port: {port},\n\
                 mgmt_address: '127.0.0.1', mgmt_port: {admin}, checkInterval: 1000,\n\
                 nodes: [{}] }}\n",
                nodes.join(", ")
            )
        })
    }

    fn start(
        &self,
        command: &[String],
        tcp: bool,
        config: impl Fn(u16, u16) -> String,
    ) -> Result<Running, String> {
        let port = subject::free_port().map_err(|e| e.to_string())?;
        let admin = subject::free_port().map_err(|e| e.to_string())?;
        let path = self.directory.join("config.js");
        fs::write(&path, config(port, admin)).map_err(|e| e.to_string())?;
        let path = path.display().to_string();
        let command: Vec<String> = command
            .iter()
            .map(|w| w.replace("{config}", &path))
            .collect();
        let subject = Subject::start(&command, self.cpus.0, self.cpus.1)?;
        let queue = if tcp {
            KernelQueue::tcp(port)
        } else {
            KernelQueue::udp(port)
        };
        queue.map_err(|e| e.to_string())?.wait_bound()?;
        KernelQueue::tcp(admin)
            .map_err(|e| e.to_string())?
            .wait_bound()?;
        Ok(Running {
            subject,
            port,
            admin,
        })
    }
}

fn options() -> getopts::Options {
    let mut options = getopts::Options::new();
    options.optopt(
        "",
        "daemon",
        "what to measure; default this crate's statsd",
        "COMMAND",
    );
    options.optopt(
        "",
        "proxy",
        "what to measure; default this crate's statsd-proxy",
        "COMMAND",
    );
    options.optopt("", "runs", "rounds of each comparison (5)", "N");
    options.optopt("", "scale", "send so many times as much (1)", "F");
    options.optopt("", "names", "live counters (1000000)", "N");
    options.optopt("", "seconds", "under load in the flush cases (21)", "N");
    options.optflag(
        "",
        "quick",
        "only shows that everything runs: little load, no figures to keep",
    );
    options.optflag("v", "verbose", "print each run to stderr");
    options.optflag("h", "help", "this text, and the cases");
    // Cargo gives it to every bench.
    options.optflag("", "bench", "ignored");
    options
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, kind, port] = &arguments[..] {
        if flag == "--floor" {
            return match floor::run(kind, port.parse().unwrap_or(0)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => fail(&format!("floor: {e}")),
            };
        }
    }
    let matches = match options().parse(&arguments) {
        Ok(matches) => matches,
        Err(e) => return fail(&e.to_string()),
    };
    if matches.opt_present("help") {
        println!(
            "{}\nCases:",
            options().usage("cargo bench --bench bench -- [options] [case…]")
        );
        CASES
            .iter()
            .for_each(|(name, what, _)| println!("    {name:9} {what}"));
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = matches
        .free
        .iter()
        .find(|f| CASES.iter().all(|c| c.0 != *f))
    {
        return fail(&format!("there is no case {unknown}; see --help"));
    }
    match run(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&e),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("bench: {message}");
    ExitCode::FAILURE
}

fn run(matches: &getopts::Matches) -> Result<(), String> {
    let quick = matches.opt_present("quick");
    let number = |name: &str, usual: f64, when_quick: f64| -> Result<f64, String> {
        let usual = if quick { when_quick } else { usual };
        match matches.opt_str(name) {
            None => Ok(usual),
            Some(text) => match text.parse::<f64>() {
                Ok(value) if value > 0.0 => Ok(value),
                _ => Err(format!("--{name} needs a number above 0, not {text}")),
            },
        }
    };
    let command = |name: &str, usual: &str| -> Vec<String> {
        let text = matches
            .opt_str(name)
            .unwrap_or_else(|| format!("{usual} {{config}}"));
        text.split_whitespace().map(String::from).collect()
    };
    let cpus = os::allowed_cpus();
    let mut bench = Bench {
        runs: number("runs", 5.0, 1.0)? as usize,
        names: number("names", 1e6, 2e4)? as u64,
        seconds: number("seconds", 21.0, 4.0)? as u64,
        scale: number("scale", 1.0, 0.02)?,
        verbose: matches.opt_present("verbose"),
        daemon: command("daemon", env!("CARGO_BIN_EXE_statsd")),
        proxy: command("proxy", env!("CARGO_BIN_EXE_statsd-proxy")),
        cpus: (cpus[0], cpus[cpus.len().min(2) - 1]),
        directory: std::env::temp_dir().join(format!("statsd-bench-{}", std::process::id())),
    };
    bench.runs = bench.runs.max(1);
    fs::create_dir_all(&bench.directory).map_err(|e| e.to_string())?;
    os::pin(bench.cpus.1);
    let raised = os::raise_priority();
    println!("{}", machine());
    println!(
        "measured: {}; receiver on processor {}, sender on {}{}\n",
        bench.daemon.join(" "),
        bench.cpus.0,
        bench.cpus.1,
        if raised {
            ""
        } else {
            "; priority could not be raised, latencies include the scheduler's"
        }
    );
    let (mut rows, mut failed) = (vec![], vec![]);
    for (name, what, case) in CASES {
        if matches.free.is_empty() || matches.free.iter().any(|f| f == name) {
            eprintln!("{name}: {what}");
            match case(&bench) {
                Ok(figures) => rows.extend(figures),
                Err(why) => {
                    rows.push(Row::skipped(name, &why));
                    failed.push(*name);
                }
            }
        }
    }
    report::print(&rows);
    fs::remove_dir_all(&bench.directory).map_err(|e| e.to_string())?;
    match failed[..] {
        [] => Ok(()),
        _ => Err(format!("could not run: {}", failed.join(", "))),
    }
}

/// The machine in one line.
fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let model = model.map_or("unknown processor", |(_, model)| model);
    format!(
        "machine: {processors} processors, {model}, Linux {}",
        kernel.trim()
    )
}
