//! The aggregator: metrics in, flushes out.
//!
//! The way of a packet: [`crate::net::Inputs`] → [`intake`] (lines, values) → [`crate::store`] → at the
//! deadline ([`schedule`]) [`flush`] hands out the old bank to the backends in slices.

mod commands;
mod flush;
pub mod intake;
mod key_flush;
mod schedule;
mod state;

use crate::admin::Console;
use crate::backend::{self, Backend};
use crate::cli;
use crate::config::{self, Common, Config, ConfigError, Loaded};
use crate::event_loop::{Flow, Now, PollSet, Role};
use crate::log;
use crate::net::Inputs;
use crate::net::bind::{self, Options};
use crate::process::notify::Notifier;
use crate::process::signals::SignalSet;
use crate::process::{Failure, harden};
use crate::reload::Reloader;
use crate::startup::{Program, Surroundings};
use crate::store::{Plan, Policy};
use crate::{sys, timer};
use flush::{Due, Flusher};
use intake::Intake;
use key_flush::KeyFlush;
use schedule::Schedule;
use state::StateFile;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The aggregator on its loop.
pub struct Daemon {
    console: Console<commands::Long>,
    inputs: Inputs,
    core: Core,
    schedule: Schedule,
    state: Option<StateFile>,
    reloader: Reloader,
    notifier: Notifier,
    ending: Option<Ending>,
}

/// What the console sees of the daemon: all but its sockets.
struct Core {
    config: Config,
    intake: Intake,
    flusher: Flusher,
    summary: Rc<timer::Summary>,
    backends: Vec<Box<dyn Backend>>,
    /// `health`.
    healthy: bool,
    /// Seconds since the epoch.
    started: u64,
    /// Since the start.
    udp_drops: u64,
    dropping: log::Latch,
    missed_flushes: u64,
    clients: Clients,
}

/// Figures of the connections, for `stats` and Graphite.
#[derive(Clone, Copy, Default)]
struct Clients {
    open: usize,
    refused: u64,
    silent: u64,
    stalled: u64,
}

/// What delivery still gets after a second signal: all that a Graphite that is well needs. Some send each
/// signal twice (timeout(1)).
const LAST_CHANCE: Duration = Duration::from_millis(500);

/// The end has begun.
#[derive(Clone, Copy)]
struct Ending {
    /// When to give up.
    until: Instant,
    /// When to give up delivery, which a second signal makes sooner.
    deliver_until: Instant,
    /// The last flush has begun.
    last_flush: bool,
}

impl Program for Daemon {
    type Config = Config;

    const PROGRAM: cli::Program = cli::Program::Statsd;

    fn load(
        path: Option<&Path>,
        open: config::Open,
        directory: &Path,
    ) -> Result<Loaded<Config>, ConfigError> {
        let mut loaded = config::load_statsd(path, open)?;
        loaded.config.relative_to(directory);
        Ok(loaded)
    }

    fn common(config: &mut Config) -> &mut Common {
        &mut config.common
    }

    fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
        config::needs_restart(old, new)
    }

    fn start(config: Config, mut surroundings: Surroundings) -> Result<Daemon, Failure> {
        sys::tune_allocator();
        let now = Now::read();
        let limits = &config.limits;
        harden::raise_open_files((limits.max_tcp_clients + limits.max_mgmt_clients + 64) as u64);
        let failure = |error: bind::BindError| Failure(error.to_string());
        let sockets = &mut surroundings.sockets;
        let mut inputs =
            Inputs::bind(&config.servers, Options::default(), sockets).map_err(failure)?;
        inputs.set_limits((&config.limits).into());
        let console = bind::console(&config.mgmt, Options::default(), sockets).map_err(failure)?;
        bind::close_unused(std::mem::take(&mut surroundings.sockets));
        Ok(Daemon {
            console: Console::new(console, limits, &config.mgmt.allow),
            inputs,
            schedule: Schedule::new(config.flush_interval, config.flush_align, now),
            state: StateFile::new(&config, now),
            core: Core::new(config, now),
            reloader: Reloader::new(&surroundings, now),
            notifier: surroundings.notifier,
            ending: None,
        })
    }

    fn settle(&mut self) {
        if let Some(state) = &self.state {
            let Core {
                intake, backends, ..
            } = &mut self.core;
            state.restore(&mut intake.store, backends, Now::read());
        }
    }

    fn listens_on(&self) -> Vec<String> {
        let mut names = self.inputs.names().to_vec();
        names.push(self.console.name());
        names
    }
}

impl Role for Daemon {
    fn register(&mut self, poll: &mut PollSet) {
        self.console.register(poll);
        self.core
            .backends
            .iter_mut()
            .for_each(|backend| backend.register(poll));
        if self.core.flusher.is_ready(&self.core.backends) {
            poll.wake_at(Instant::now());
        }
        if let Some(key_flush) = &self.core.intake.key_flush {
            key_flush.register(poll);
        }
        if let Some(ending) = &self.ending {
            return poll.wake_at(ending.deliver_until);
        }
        self.inputs.register(poll);
        poll.wake_at(self.schedule.next());
        if let Some(state) = &mut self.state {
            state.register(poll);
        }
        let key_flush = self.core.intake.key_flush.as_ref();
        if let Some(next) = key_flush.and_then(KeyFlush::next) {
            poll.wake_at(next);
        }
        if self.core.config.common.automatic_config_reload {
            self.reloader.register(poll);
        }
    }

    fn signals(&mut self, signals: SignalSet, now: Now) {
        if signals.reload {
            self.reload(now);
        }
        match &mut self.ending {
            Some(ending) if signals.terminate => {
                let soon = now.mono + LAST_CHANCE;
                ending.deliver_until = ending.deliver_until.min(soon);
            }
            None if signals.terminate => self.begin_end(now),
            _ => {}
        }
    }

    fn console(&mut self, poll: &PollSet, now: Now) {
        self.core.clients = self.clients();
        self.console.turn(&mut self.core, poll, now);
    }

    fn data(&mut self, poll: &PollSet, now: Now) {
        let core = &mut self.core;
        core.intake.set_now(now);
        self.inputs
            .receive(poll, now, &mut |packet| core.packet(packet));
        // At the end, those of the last reading.
        core.intake.count_long_lines(self.inputs.take_long_lines());
    }

    fn deadlines(&mut self, poll: &PollSet, now: Now) -> Flow {
        if self.ending.is_none() && self.schedule.is_due(now) {
            self.flush(now);
        }
        if self.core.flusher.is_ready(&self.core.backends) {
            self.core.clients = self.clients();
            self.core.slice(now);
        }
        self.core
            .backends
            .iter_mut()
            .for_each(|backend| backend.turn(poll, now));
        self.core.intake.report(now);
        if let Some(key_flush) = &mut self.core.intake.key_flush {
            if self.ending.is_none() {
                key_flush.begin(now);
            }
            key_flush.slice();
        }
        if let Some(state) = self.state.as_mut().filter(|_| self.ending.is_none()) {
            state.turn(&self.core.intake.store, &self.core.backends, poll, now);
        }
        let watches = self.core.config.common.automatic_config_reload && self.ending.is_none();
        if watches && self.reloader.turn(now) {
            self.reload(now);
        }
        self.end(now)
    }

    fn reap(&mut self, now: Now) {
        self.console.reap(now);
        self.inputs.reap(now);
    }
}

impl Daemon {
    fn clients(&self) -> Clients {
        let refused = self.inputs.refused() + self.console.refused();
        Clients {
            open: self.inputs.clients(),
            refused,
            silent: self.inputs.silent() + self.console.silent(),
            stalled: self.console.stalls(),
        }
    }

    /// The deadline of a flush. If the previous one is still being handed out, it is told to be
    /// quick, and what was received stays for the next.
    fn flush(&mut self, now: Now) {
        let too_early = self.core.flusher.is_running();
        if too_early {
            self.core.flusher.hurry();
            self.schedule.miss();
        }
        self.core.missed_flushes = self.schedule.missed();
        if too_early {
            return;
        }
        let covered = self.schedule.take_covered();
        let drops = self.inputs.take_drops();
        self.core.begin_flush(covered, drops, now);
    }

    /// Reads the config file again. A broken one changes nothing.
    fn reload(&mut self, now: Now) {
        if let Some(config) = self.reloader.read::<Daemon>(&self.core.config) {
            self.configure(config, now);
        }
    }

    fn configure(&mut self, config: Config, now: Now) {
        log::set_debug(config.common.debug);
        self.inputs.set_limits((&config.limits).into());
        self.console.configure(&config.limits, &config.mgmt.allow);
        self.schedule
            .configure(config.flush_interval, config.flush_align, now);
        StateFile::configure(&mut self.state, &config, now);
        self.core.configure(config, now);
    }

    /// SIGTERM: no more clients, what the kernel has queued already, the last flush.
    fn begin_end(&mut self, now: Now) {
        log::info!("stopping");
        let _ = self.notifier.stopping();
        self.core.healthy = false;
        let timeout = self.core.config.shutdown_timeout;
        let core = &mut self.core;
        core.intake.set_now(now);
        self.inputs
            .drain(timeout, &mut |packet| core.packet(packet));
        self.core.flusher.hurry();
        if let Some(key_flush) = &mut self.core.intake.key_flush {
            key_flush.hurry();
        }
        self.ending = Some(Ending {
            until: now.mono + timeout,
            deliver_until: now.mono + timeout,
            last_flush: false,
        });
    }

    /// On the way to the end: the flush under way, then the last one, then the backends.
    fn end(&mut self, now: Now) -> Flow {
        let Some(ending) = &mut self.ending else {
            return Flow::On;
        };
        let core = &mut self.core;
        if !core.flusher.is_running() && !ending.last_flush {
            ending.last_flush = true;
            // The interval that is cut short counts as a whole one.
            let covered = self.schedule.take_covered() + core.config.flush_interval;
            core.begin_flush(covered, self.inputs.take_drops(), now);
            core.flusher.hurry();
            core.backends
                .iter_mut()
                .for_each(|backend| backend.hurry(now));
        }
        let undelivered: usize = core
            .backends
            .iter()
            .map(|backend| backend.undelivered())
            .sum();
        let running = core.flusher.is_running();
        let key_flush = core.intake.key_flush.as_ref();
        let reporting = key_flush.is_some_and(KeyFlush::is_running);
        // What is not handed out yet could not be kept either.
        let until = if running || reporting {
            ending.until
        } else {
            ending.deliver_until
        };
        if (running || reporting || undelivered > 0) && now.mono < until {
            return Flow::On;
        }
        let in_time = if now.mono < ending.until {
            "until the second signal"
        } else {
            "within shutdownTimeout"
        };
        let state = self.state.as_mut();
        let kept = state.map_or(0, |state| {
            state.save(&core.intake.store, &core.backends, now)
        });
        let lost = undelivered.saturating_sub(kept);
        if kept > 0 {
            log::warning!(
                "{kept} bytes could not be delivered {in_time}; the state file keeps them"
            );
        }
        if running {
            log::error!("the last flush could not be completed within shutdownTimeout");
        }
        if lost > 0 {
            log::error!("{lost} bytes could not be delivered {in_time} and are lost");
        }
        log::info!("stopped");
        Flow::Done
    }
}

impl Core {
    fn new(config: Config, now: Now) -> Core {
        let backends = config
            .backends
            .iter()
            .map(|kind| backend::create(*kind, &config, now));
        Core {
            intake: Intake::new(&config, now),
            flusher: Flusher::default(),
            summary: Rc::new(summary(&config)),
            backends: backends.collect(),
            // The original's `healthStatus` has no effect at its start; ours neither.
            healthy: true,
            started: now.seconds(),
            udp_drops: 0,
            dropping: log::Latch::new(),
            missed_flushes: 0,
            clients: Clients::default(),
            config,
        }
    }

    /// Takes a new config: what is stored, spooled and connected stays.
    fn configure(&mut self, config: Config, now: Now) {
        self.intake.configure(&config, now);
        self.summary = Rc::new(summary(&config));
        let mut old = std::mem::take(&mut self.backends);
        for kind in &config.backends {
            self.backends.push(
                match old.iter().position(|backend| backend.kind() == *kind) {
                    Some(index) => {
                        let mut backend = old.swap_remove(index);
                        backend.configure(&config);
                        backend
                    }
                    None => {
                        let mut backend = backend::create(*kind, &config, now);
                        self.flusher.join(&mut *backend, now);
                        backend
                    }
                },
            );
        }
        let lost: usize = old.iter().map(|backend| backend.undelivered()).sum();
        if lost > 0 {
            log::error!("{lost} bytes are lost: their backend is not in the config any more");
        }
        self.config = config;
    }

    /// One packet: to the backends that want it as it is, and to the store.
    #[inline]
    fn packet(&mut self, packet: &[u8]) {
        self.backends
            .iter_mut()
            .for_each(|backend| backend.packet(packet));
        self.intake.packet(packet);
    }

    fn begin_flush(&mut self, covered: Duration, udp_drops: u64, now: Now) {
        self.udp_drops += udp_drops;
        if self.dropping.set(udp_drops > 0) {
            if udp_drops > 0 {
                log::warning!(
                    "the kernel dropped {udp_drops} datagrams in this interval: more came in than can be \
                     taken, or receiveBuffer is too small for the bursts"
                );
            } else {
                log::notice!("no more datagrams dropped; {} in all", self.udp_drops);
            }
        }
        self.intake.report_limits();
        let plan = Plan {
            policy: policy(&self.config),
            summary: Rc::clone(&self.summary),
        };
        let Core {
            flusher,
            intake,
            backends,
            config,
            ..
        } = self;
        let due = Due {
            plan,
            interval: config.flush_interval,
            covered,
            udp_drops,
        };
        flusher.begin(&mut intake.store, due, backends, now);
    }

    /// Hands out a slice of the flush under way; after the last one the backends hear the totals.
    fn slice(&mut self, now: Now) {
        let Core {
            flusher,
            intake,
            backends,
            ..
        } = self;
        let Some((flush, mut totals)) = flusher.slice(&mut intake.store, backends) else {
            return;
        };
        self.own_figures(&mut |name, value| totals.own.push((name.to_string(), value)));
        for backend in &self.backends {
            backend.own_stats(&mut |name, value| totals.own.push((name.to_string(), value)));
        }
        for backend in &mut self.backends {
            backend.flush_end(&flush, &totals, now);
        }
    }

    /// Figures beside the original's: for `stats`, and under `<prefixStats>.` in Graphite.
    fn own_figures(&self, write: &mut dyn FnMut(&str, f64)) {
        let refused = self.intake.store.refused();
        write("server.missed_flushes", self.missed_flushes as f64);
        write("server.clients", self.clients.open as f64);
        write("server.refused_clients", self.clients.refused as f64);
        write("server.silent_clients", self.clients.silent as f64);
        write("server.stalled_consoles", self.clients.stalled as f64);
        write("server.refused_names", refused.names as f64);
        write("server.refused_timer_values", refused.timer_values as f64);
        write("server.refused_set_members", refused.set_members as f64);
    }
}

fn summary(config: &Config) -> timer::Summary {
    let histograms = config
        .histogram
        .iter()
        .map(|h| (h.metric.as_str(), h.bins.as_slice()));
    timer::Summary::new(
        &config.percent_threshold,
        &config.calculated_timer_metrics,
        histograms,
    )
}

fn policy(config: &Config) -> Policy {
    Policy {
        delete_counters: config.delete_counters,
        delete_timers: config.delete_timers,
        delete_sets: config.delete_sets,
        delete_gauges: config.delete_gauges,
        gauges_max_ttl: config.gauges_max_ttl,
    }
}

#[cfg(test)]
mod tests;
