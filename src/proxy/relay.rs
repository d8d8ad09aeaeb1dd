//! One process that relays, on its loop: sockets, console, signals, reload, the end. What it does with
//! what comes in is [`super::core`].

use super::core::Core;
use super::node::CALM;
use super::siblings::Siblings;
use crate::admin::Console;
use crate::config::ProxyConfig;
use crate::event_loop::{Flow, Now, PollSet, Role};
use crate::log;
use crate::net::Inputs;
use crate::net::bind::Listener;
use crate::process::notify::Notifier;
use crate::process::signals::SignalSet;
use crate::proxy::Proxy;
use crate::reload::Reloader;
use std::convert::Infallible;
use std::time::{Duration, Instant};

/// How often the sockets' figures are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// One process that relays.
pub struct Relay {
    console: Console<Infallible>,
    inputs: Inputs,
    core: Core,
    reloader: Reloader,
    notifier: Notifier,
    /// With `forkCount`, the way to the other processes.
    siblings: Option<Siblings>,
    /// When the sockets' figures were looked at.
    looked: Instant,
    /// When the kernel was last seen to have dropped datagrams, until that is over.
    dropped: Option<Instant>,
    long_lines: log::Latch,
    ending: Option<Ending>,
}

/// The end has begun.
#[derive(Clone, Copy)]
struct Ending {
    /// When to give up.
    until: Instant,
    /// The last own stats are on their way.
    told: bool,
}

impl Relay {
    /// From what is bound already.
    pub fn new(
        config: ProxyConfig,
        mut inputs: Inputs,
        console: Listener,
        reloader: Reloader,
        notifier: Notifier,
        siblings: Option<Siblings>,
        now: Now,
    ) -> Relay {
        inputs.set_limits((&config.limits).into());
        let mut relay = Relay {
            console: Console::new(console, &config.limits, &config.mgmt.allow),
            inputs,
            core: Core::new(config, now),
            reloader,
            notifier,
            siblings,
            looked: now.mono,
            dropped: None,
            long_lines: log::Latch::new(),
            ending: None,
        };
        if let Some(siblings) = &relay.siblings {
            relay.core.healthy = siblings.healthy();
        }
        relay
    }

    /// What it listens on, for the ready line.
    pub fn listens_on(&self) -> Vec<String> {
        let mut names = self.inputs.names().to_vec();
        names.push(self.console.name());
        names
    }

    fn reload(&mut self, now: Now) {
        if let Some(config) = self.reloader.read::<Proxy>(&self.core.config) {
            log::set_debug(config.common.debug);
            self.inputs.set_limits((&config.limits).into());
            self.console.configure(&config.limits, &config.mgmt.allow);
            self.core.configure(config, now);
        }
    }

    fn look(&mut self, now: Now) {
        self.looked = now.mono;
        let figures = &mut self.core.figures;
        let drops = self.inputs.take_drops();
        figures.udp_drops += drops;
        let long_lines = self.inputs.take_long_lines();
        figures.long_lines += long_lines;
        figures.clients = self.inputs.clients();
        figures.refused_clients = self.inputs.refused() + self.console.refused();
        figures.silent_clients = self.inputs.silent() + self.console.silent();
        figures.stalled_consoles = self.console.stalls();
        if drops > 0 {
            if self.dropped.replace(now.mono).is_none() {
                log::warning!(
                    "the kernel dropped {drops} datagrams: more comes in than can be taken, or receiveBuffer \
                     is too small for the bursts"
                );
            }
        } else if self.dropped.is_some_and(|last| now.mono >= last + CALM) {
            self.dropped = None;
            log::notice!("no more datagrams dropped; {} in all", figures.udp_drops);
        }
        if self.long_lines.set(long_lines > 0) {
            if long_lines > 0 {
                log::warning!("over maxLineBytes: {long_lines} lines passed over");
            } else {
                log::notice!("below maxLineBytes again");
            }
        }
    }

    /// SIGTERM: no more clients, what the kernel has queued already, then what waits for nodes, and the
    /// last own stats.
    fn begin_end(&mut self, now: Now) {
        log::info!("stopping");
        let _ = self.notifier.stopping();
        self.core.healthy = false;
        let timeout = self.core.config.shutdown_timeout;
        let core = &mut self.core;
        self.inputs
            .drain(timeout, &mut |packet| core.packet(packet, now));
        self.look(now);
        self.ending = Some(Ending {
            until: now.mono + timeout,
            told: false,
        });
    }

    /// On the way to the end: whether it is there.
    fn end(&mut self, now: Now) -> Flow {
        let Some(mut ending) = self.ending else {
            return Flow::On;
        };
        if !ending.told && self.core.waiting() == 0 {
            ending.told = true;
            self.ending = Some(ending);
            if self.core.stats.is_on() {
                self.core.send_stats();
                self.core.send(now);
            }
        }
        let waiting = self.core.waiting();
        if waiting > 0 && now.mono < ending.until {
            return Flow::On;
        }
        if waiting > 0 {
            log::error!("{waiting} bytes could not be sent within shutdownTimeout and are lost");
        }
        log::info!("stopped");
        Flow::Done
    }
}

impl Role for Relay {
    fn register(&mut self, poll: &mut PollSet) {
        self.console.register(poll);
        self.core.register(poll);
        if let Some(siblings) = &mut self.siblings {
            siblings.register(poll);
        }
        if let Some(ending) = &self.ending {
            return poll.wake_at(ending.until);
        }
        self.inputs.register(poll);
        poll.wake_at(self.looked + LOOK);
        self.core.stats.register(poll);
        if self.core.config.common.automatic_config_reload {
            self.reloader.register(poll);
        }
    }

    fn signals(&mut self, signals: SignalSet, now: Now) {
        if signals.reload {
            self.reload(now);
        }
        if signals.terminate && self.ending.is_none() {
            self.begin_end(now);
        }
    }

    fn console(&mut self, poll: &PollSet, now: Now) {
        if now.mono.saturating_duration_since(self.looked) >= LOOK {
            self.look(now);
        }
        let before = self.core.healthy;
        self.console.turn(&mut self.core, poll, now);
        let Some(siblings) = &mut self.siblings else {
            return;
        };
        if self.core.healthy != before {
            siblings.tell(self.core.healthy);
        }
        if let Some(healthy) = siblings.heard(poll) {
            self.core.healthy = healthy;
        }
        if siblings.is_alone() && self.ending.is_none() {
            log::error!("the parent process is gone");
            self.begin_end(now);
        }
    }

    fn data(&mut self, poll: &PollSet, now: Now) {
        let core = &mut self.core;
        self.inputs
            .receive(poll, now, &mut |packet| core.packet(packet, now));
    }

    fn deadlines(&mut self, poll: &PollSet, now: Now) -> Flow {
        self.core.check(poll, now);
        if self.ending.is_none() {
            if self.core.stats.is_due(now) {
                self.look(now);
                self.core.send_stats();
            }
            if self.core.config.common.automatic_config_reload && self.reloader.turn(now) {
                self.reload(now);
            }
        }
        self.core.send(now);
        self.end(now)
    }

    fn reap(&mut self, now: Now) {
        self.console.reap(now);
        self.inputs.reap(now);
    }
}
