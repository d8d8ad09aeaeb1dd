//! `forkCount`: the parent of several processes that relay. It binds their sockets, starts them, starts
//! those again that die, passes signals on, and shares what `health` was set to.
//!
//! Each child has sockets of its own on the same ports (SO_REUSEPORT); the parent keeps them too, so that
//! what comes in while a child is being replaced waits in its socket and is not lost. Nobody but the
//! child ever reads from them.

use super::relay::Relay;
use super::siblings::Siblings;
use crate::cli;
use crate::config::ProxyConfig;
use crate::event_loop::{self, Flow, Now, PollSet, Role, Upkeep};
use crate::log;
use crate::net::Inputs;
use crate::net::backoff::Backoff;
use crate::net::bind::Listener;
use crate::process::notify::Notifier;
use crate::process::signals::{SignalSet, Signals};
use crate::proxy::Proxy;
use crate::reload::Reloader;
use crate::sys::{self, Fork};
use std::time::{Duration, Instant};

/// A child that lived so long is replaced at once; one that did not has failed to start.
const STABLE: Duration = Duration::from_secs(10);

/// What children may take beyond `shutdownTimeout`.
const GRACE: Duration = Duration::from_secs(2);

/// The parent on its loop.
pub struct Workers {
    config: ProxyConfig,
    reloader: Reloader,
    notifier: Notifier,
    workers: Vec<Worker>,
    healthy: bool,
    /// The end has begun: when to give up.
    ending: Option<Instant>,
}

/// A child's place.
struct Worker {
    inputs: Inputs,
    console: Option<Listener>,
    child: Option<Child>,
    /// When to start it.
    start: Instant,
    backoff: Backoff,
}

struct Child {
    pid: libc::pid_t,
    siblings: Siblings,
    started: Instant,
}

impl Workers {
    /// From what is bound for each of them.
    pub fn new(
        config: ProxyConfig,
        sockets: Vec<(Inputs, Listener)>,
        reloader: Reloader,
        notifier: Notifier,
        now: Now,
    ) -> Workers {
        log::info!("forking {} workers", sockets.len());
        let worker = |(inputs, console)| Worker {
            inputs,
            console: Some(console),
            child: None,
            start: now.mono,
            backoff: Backoff::default(),
        };
        Workers {
            config,
            reloader,
            notifier,
            workers: sockets.into_iter().map(worker).collect(),
            healthy: true,
            ending: None,
        }
    }

    /// What they listen on, for the ready line.
    pub fn listens_on(&self) -> Vec<String> {
        let first = self.workers.first();
        let inputs = first.map_or(&[][..], |worker| worker.inputs.names());
        let console = first.and_then(|worker| worker.console.as_ref());
        inputs
            .iter()
            .cloned()
            .chain(console.map(Listener::to_string))
            .collect()
    }

    fn start(&mut self, index: usize, now: Now) {
        let outcome = Siblings::pair(self.healthy)
            .and_then(|(ours, theirs)| Ok((ours, theirs, sys::fork()?)));
        let worker = &mut self.workers[index];
        match outcome {
            Ok((ours, theirs, Fork::Child)) => {
                // Or we should never see the parent's end closed.
                drop(ours);
                let code = self.be_child(index, theirs);
                sys::exit_now(code);
            }
            Ok((siblings, _, Fork::Parent(pid))) => {
                log::info!("worker {pid} is online");
                worker.child = Some(Child {
                    pid,
                    siblings,
                    started: now.mono,
                });
            }
            Err(error) => {
                worker.start = now.mono + worker.backoff.pause();
                log::error!("cannot start a worker for now: {error}");
            }
        }
    }

    /// What the child does; its exit code. The parent's signal handlers stay beside its own: they set
    /// flags that nobody looks at here, and wake the parent for nothing.
    fn be_child(&mut self, index: usize, siblings: Siblings) -> u8 {
        let signals = match Signals::new() {
            Ok(signals) => signals,
            Err(error) => {
                log::error!("cannot handle signals: {error}");
                return cli::START;
            }
        };
        // Else this child would keep its siblings from noticing that the parent is gone.
        self.workers
            .iter_mut()
            .for_each(|worker| worker.child = None);
        let worker = &mut self.workers[index];
        let inputs = std::mem::take(&mut worker.inputs);
        let Some(console) = worker.console.take() else {
            return cli::START;
        };
        let mut relay = Relay::new(
            self.config.clone(),
            inputs,
            console,
            self.reloader.of_child(),
            Notifier::default(),
            Some(siblings),
            Now::read(),
        );
        let mut upkeep = Upkeep::new(signals, Notifier::default(), None);
        event_loop::run(&mut relay, &mut upkeep);
        cli::DONE
    }

    /// Looks for children that have ended.
    fn bury(&mut self, now: Now) {
        let ending = self.ending.is_some();
        for worker in &mut self.workers {
            let Some(child) = &worker.child else { continue };
            let status = match sys::try_wait(child.pid) {
                Ok(None) => continue,
                Ok(Some(status)) => status.to_string(),
                Err(error) => error.to_string(),
            };
            if !ending {
                let lived = now.mono.saturating_duration_since(child.started);
                let wait = if lived >= STABLE {
                    worker.backoff.reset();
                    Duration::ZERO
                } else {
                    worker.backoff.pause()
                };
                worker.start = now.mono + wait;
                let wait = wait.as_millis();
                log::error!(
                    "worker {} died ({status}), restarting in {wait} ms",
                    child.pid
                );
            }
            worker.child = None;
        }
    }

    fn signal(&self, signal: libc::c_int) {
        for child in self
            .workers
            .iter()
            .filter_map(|worker| worker.child.as_ref())
        {
            // It fails if the child has ended, which SIGCHLD tells.
            let _ = sys::send_signal(child.pid, signal);
        }
    }

    /// The children read the file themselves, once it is known to be good.
    fn reload(&mut self) {
        if let Some(config) = self.reloader.read::<Proxy>(&self.config) {
            log::set_debug(config.common.debug);
            self.config = config;
            self.signal(libc::SIGHUP);
        }
    }

    /// Passes on what one child was told.
    fn share_health(&mut self, poll: &PollSet) {
        let mut news = None;
        let mut teller = 0;
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let heard = worker
                .child
                .as_mut()
                .and_then(|child| child.siblings.heard(poll));
            if heard.is_some() {
                (news, teller) = (heard, index);
            }
        }
        let Some(healthy) = news else { return };
        self.healthy = healthy;
        for (index, worker) in self.workers.iter_mut().enumerate() {
            if let Some(child) = worker.child.as_mut().filter(|_| index != teller) {
                child.siblings.tell(healthy);
            }
        }
    }
}

impl Role for Workers {
    fn register(&mut self, poll: &mut PollSet) {
        for worker in &mut self.workers {
            match &mut worker.child {
                Some(child) => child.siblings.register(poll),
                None if self.ending.is_none() => poll.wake_at(worker.start),
                None => {}
            }
        }
        match self.ending {
            Some(until) => poll.wake_at(until),
            None if self.config.common.automatic_config_reload => self.reloader.register(poll),
            None => {}
        }
    }

    fn signals(&mut self, signals: SignalSet, now: Now) {
        if signals.reload {
            self.reload();
        }
        if signals.terminate && self.ending.is_none() {
            let _ = self.notifier.stopping();
            self.ending = Some(now.mono + self.config.shutdown_timeout + GRACE);
            self.signal(libc::SIGTERM);
        }
        if signals.child {
            self.bury(now);
        }
    }

    fn console(&mut self, poll: &PollSet, _: Now) {
        self.share_health(poll);
    }

    fn data(&mut self, _: &PollSet, _: Now) {}

    fn deadlines(&mut self, _: &PollSet, now: Now) -> Flow {
        let Some(until) = self.ending else {
            for index in 0..self.workers.len() {
                let worker = &self.workers[index];
                if worker.child.is_none() && now.mono >= worker.start {
                    self.start(index, now);
                }
            }
            if self.config.common.automatic_config_reload && self.reloader.turn(now) {
                self.reload();
            }
            return Flow::On;
        };
        let left = self
            .workers
            .iter()
            .filter(|worker| worker.child.is_some())
            .count();
        if left > 0 && now.mono < until {
            return Flow::On;
        }
        if left > 0 {
            log::error!("{left} workers did not end in time");
            self.signal(libc::SIGKILL);
        }
        log::info!("stopped");
        Flow::Done
    }

    fn reap(&mut self, _: Now) {}
}
