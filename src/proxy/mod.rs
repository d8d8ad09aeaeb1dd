//! The relay role: clients send to it, and a consistent-hash ring gives each name its one daemon.
//!
//! The way of a packet: [`crate::net::Inputs`] → [`route`] (lines, names, the ring) → [`queue`] (datagrams of
//! a node) → at the end of the turn [`node`] (the socket to it).
//!
//! | file | job |
//! |---|---|
//! | `relay` | one process on its loop: sockets, signals, reload, the end |
//! | `core` | packets, checks, nodes that leave and come back |
//! | `route`, `queue`, `health` | pure: the router and its cache; packing and the bound; when to check |
//! | `node`, `probe` | the socket to a node, and one health check |
//! | `commands`, `stats` | the console, and the own counters |
//! | `workers`, `siblings` | `forkCount`: the parent, and what it shares with its children |

use crate::cli;
use crate::config::{self, Common, ConfigError, ForkCount, Loaded, ProxyConfig};
use crate::event_loop::{Flow, Now, PollSet, Role};
use crate::net::Inputs;
use crate::net::bind::{self, Listener, Options};
use crate::process::signals::SignalSet;
use crate::process::{Failure, harden};
use crate::reload::Reloader;
use crate::startup::{Program, Surroundings};
use relay::Relay;
use std::path::Path;
use workers::Workers;

mod commands;
mod core;
mod health;
mod node;
mod probe;
pub mod queue;
mod relay;
pub mod route;
mod siblings;
mod stats;
mod workers;

/// The proxy: one process, or the parent of several.
#[allow(clippy::large_enum_variant, reason = "there is one of it")]
pub enum Proxy {
    /// Relays.
    Single(Relay),
    /// Has others relay.
    Several(Workers),
}

impl Program for Proxy {
    type Config = ProxyConfig;

    const PROGRAM: cli::Program = cli::Program::Proxy;

    fn load(
        path: Option<&Path>,
        open: config::Open,
        directory: &Path,
    ) -> Result<Loaded<ProxyConfig>, ConfigError> {
        // The command line has seen to it that there is one.
        let mut loaded = config::load_proxy(path.unwrap_or(Path::new("")), open)?;
        loaded.config.relative_to(directory);
        Ok(loaded)
    }

    fn common(config: &mut ProxyConfig) -> &mut Common {
        &mut config.common
    }

    fn needs_restart(old: &ProxyConfig, new: &ProxyConfig) -> Vec<&'static str> {
        config::proxy_needs_restart(old, new)
    }

    fn start(config: ProxyConfig, mut surroundings: Surroundings) -> Result<Proxy, Failure> {
        let now = Now::read();
        let limits = &config.limits;
        let clients = limits.max_tcp_clients + limits.max_mgmt_clients;
        harden::raise_open_files((clients + 2 * config.nodes.len() + 64) as u64);
        let count = processes(config.fork_count);
        let options = Options {
            reuse_port: count > 1,
        };
        let failure = |error: bind::BindError| Failure(error.to_string());
        let sockets = &mut surroundings.sockets;
        let inputs = Inputs::bind(&config.servers, options, sockets).map_err(failure)?;
        let console = bind::console(&config.mgmt, options, sockets).map_err(failure)?;
        bind::close_unused(std::mem::take(&mut surroundings.sockets));
        let reloader = Reloader::new(&surroundings, now);
        let notifier = surroundings.notifier;
        if count > 1 {
            let sockets = share(inputs, console, count)?;
            let workers = Workers::new(config, sockets, reloader, notifier, now);
            return Ok(Proxy::Several(workers));
        }
        let relay = Relay::new(config, inputs, console, reloader, notifier, None, now);
        Ok(Proxy::Single(relay))
    }

    fn listens_on(&self) -> Vec<String> {
        match self {
            Proxy::Single(relay) => relay.listens_on(),
            Proxy::Several(workers) => workers.listens_on(),
        }
    }
}

fn processes(fork_count: ForkCount) -> usize {
    match fork_count {
        ForkCount::Number(count) => count,
        ForkCount::Auto => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// The sockets of several processes.
fn share(
    inputs: Inputs,
    console: Listener,
    count: usize,
) -> Result<Vec<(Inputs, Listener)>, Failure> {
    let more = |_| Ok((inputs.again()?, console.again()?));
    let more = (1..count).map(more).collect::<std::io::Result<Vec<_>>>();
    let more =
        more.map_err(|error| Failure(format!("cannot bind for {count} processes: {error}")))?;
    Ok(std::iter::once((inputs, console)).chain(more).collect())
}

impl Role for Proxy {
    fn register(&mut self, poll: &mut PollSet) {
        match self {
            Proxy::Single(relay) => relay.register(poll),
            Proxy::Several(workers) => workers.register(poll),
        }
    }

    fn signals(&mut self, signals: SignalSet, now: Now) {
        match self {
            Proxy::Single(relay) => relay.signals(signals, now),
            Proxy::Several(workers) => workers.signals(signals, now),
        }
    }

    fn console(&mut self, poll: &PollSet, now: Now) {
        match self {
            Proxy::Single(relay) => relay.console(poll, now),
            Proxy::Several(workers) => workers.console(poll, now),
        }
    }

    fn data(&mut self, poll: &PollSet, now: Now) {
        match self {
            Proxy::Single(relay) => relay.data(poll, now),
            Proxy::Several(workers) => workers.data(poll, now),
        }
    }

    fn deadlines(&mut self, poll: &PollSet, now: Now) -> Flow {
        match self {
            Proxy::Single(relay) => relay.deadlines(poll, now),
            Proxy::Several(workers) => workers.deadlines(poll, now),
        }
    }

    fn reap(&mut self, now: Now) {
        match self {
            Proxy::Single(relay) => relay.reap(now),
            Proxy::Several(workers) => workers.reap(now),
        }
    }
}
