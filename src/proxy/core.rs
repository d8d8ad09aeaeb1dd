//! What a proxy does, but for the sockets that clients see: packets to the router, checks of the nodes,
//! nodes that leave and come back, datagrams out.

use super::node::{self, Node};
use super::queue::Queue;
use super::route::Router;
use super::stats::OwnStats;
use crate::config::ProxyConfig;
use crate::event_loop::{Now, PollSet};
use crate::log;
use crate::ring::Ring;

/// See the module.
pub struct Core {
    pub(super) config: ProxyConfig,
    pub(super) router: Router,
    /// By their numbers on the ring.
    pub(super) nodes: Vec<Node>,
    /// `health`.
    pub(super) healthy: bool,
    /// Seconds since the epoch.
    pub(super) started: u64,
    pub(super) figures: InputFigures,
    pub(super) stats: OwnStats,
    /// Of [`Router::lost`], when the last node left.
    lost_before: u64,
}

/// Figures of the sockets that clients see, since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct InputFigures {
    /// Datagrams that the kernel dropped before we saw them.
    pub udp_drops: u64,
    /// Lines passed over because of `maxLineBytes`.
    pub long_lines: u64,
    /// Open connections, now.
    pub clients: usize,
    /// Connections refused because there were too many.
    pub refused_clients: u64,
    /// Connections closed because they were silent too long.
    pub silent_clients: u64,
    /// Clients of the console that stalled.
    pub stalled_consoles: u64,
}

impl Core {
    /// With all nodes on the ring, as the original.
    pub fn new(config: ProxyConfig, now: Now) -> Core {
        let mut core = Core {
            router: Router::new(config.cache_size),
            nodes: Vec::new(),
            healthy: true,
            started: now.seconds(),
            figures: InputFigures::default(),
            stats: OwnStats::new(config.stats_interval, now),
            lost_before: 0,
            config: config.clone(),
        };
        core.set_nodes(&config, true, now);
        core
    }

    /// Takes a new config. Nodes that stay keep their state and what waits for them; a new one joins
    /// the ring once it has answered, so that no line is lost if it is not up yet.
    pub fn configure(&mut self, config: ProxyConfig, now: Now) {
        if config.stats_interval != self.config.stats_interval {
            self.stats = OwnStats::new(config.stats_interval, now);
        }
        self.set_nodes(&config, false, now);
        self.config = config;
    }

    fn set_nodes(&mut self, config: &ProxyConfig, new_are_alive: bool, now: Now) {
        let mut old: Vec<Option<Node>> = self.nodes.drain(..).map(Some).collect();
        let mut old_queues = self.router.take_queues();
        let mut queues = Vec::new();
        for entry in &config.nodes {
            let name = node::name(entry);
            if self.nodes.iter().any(|node| node.name() == name) {
                continue;
            }
            let known = old
                .iter()
                .position(|node| node.as_ref().is_some_and(|node| node.name() == name));
            let bounds = (config.max_datagram, config.node_queue_bytes);
            let (node, mut queue) = match known.and_then(|index| Some((index, old[index].take()?)))
            {
                Some((index, mut node)) => {
                    node.configure(entry.clone());
                    let empty = Queue::new(bounds.0, bounds.1);
                    (node, std::mem::replace(&mut old_queues[index], empty))
                }
                None => {
                    if !new_are_alive {
                        log::notice!("node {name} is new: it joins the ring once it answers");
                    }
                    (
                        Node::new(entry.clone(), new_are_alive, now),
                        Queue::new(bounds.0, bounds.1),
                    )
                }
            };
            queue.set_bounds(bounds.0, bounds.1);
            self.nodes.push(node);
            queues.push(queue);
        }
        let alive = (0..).zip(&self.nodes).filter(|(_, node)| node.is_alive());
        let ring = Ring::new(alive.map(|(id, node)| (id, node.name().to_string())));
        self.router.set_nodes(queues, ring, config.cache_size);
        // What waited for nodes that are gone is theirs who own the names now.
        for (node, queue) in old.iter().zip(&mut old_queues) {
            if let Some(node) = node {
                log::notice!("node {} is not in the config any more", node.name());
                queue
                    .take()
                    .iter()
                    .for_each(|lines| self.router.again(lines));
            }
        }
    }

    /// Says what to wait for.
    pub fn register(&mut self, poll: &mut PollSet) {
        self.nodes.iter_mut().for_each(|node| node.register(poll));
    }

    /// Takes one packet.
    #[inline]
    pub fn packet(&mut self, packet: &[u8], now: Now) {
        if self.router.packet(packet) {
            self.send_full(now);
        }
    }

    /// In the midst of a turn: sends to nodes that have a whole batch waiting.
    #[cold]
    fn send_full(&mut self, now: Now) {
        for (node, queue) in self.nodes.iter_mut().zip(self.router.queues_mut()) {
            if queue.is_full() {
                node.send(queue, now);
            }
        }
    }

    /// At the end of a turn: sends what waits.
    pub fn send(&mut self, now: Now) {
        for (node, queue) in self.nodes.iter_mut().zip(self.router.queues_mut()) {
            node.send(queue, now);
            node.report(queue.counts().drops, now.mono);
        }
    }

    /// Moves the checks on, and takes nodes off the ring and puts them back.
    pub fn check(&mut self, poll: &PollSet, now: Now) {
        let interval = self.config.check_interval;
        let prefer_ipv6 = self.config.servers.iter().any(|server| server.ipv6);
        for (id, node) in (0..).zip(&mut self.nodes) {
            node.turn(poll, now);
            let queue = &mut self.router.queues_mut()[id as usize];
            match node.check(queue, poll, interval, prefer_ipv6, now) {
                None => {}
                Some(Ok(())) => {
                    log::warning!("Adding node {} to the ring.", node.name());
                    let was_empty = self.router.ring().is_empty();
                    self.router.join(id, node.name());
                    if was_empty {
                        let lost = self.router.lost - self.lost_before;
                        log::notice!("lines reach a node again; {lost} were lost");
                    }
                }
                Some(Err(why)) => {
                    log::warning!("Removing node {} from the ring: {why}.", node.name());
                    self.lost_before = self.router.lost;
                    self.router.leave(id);
                    if self.router.ring().is_empty() {
                        log::error!(
                            "No backend statsd nodes available: lines are lost until one is back"
                        );
                    }
                }
            }
        }
    }

    /// Bytes that wait for nodes.
    pub fn waiting(&self) -> usize {
        self.router.queues().iter().map(Queue::bytes).sum()
    }

    /// Puts the own counters on their way, as lines like any other.
    pub fn send_stats(&mut self) {
        let mut lines = Vec::new();
        let prefix = match self.config.prefix_stats.as_str() {
            "" => "proxy.".to_string(),
            prefix => format!("{prefix}.proxy."),
        };
        let mut stats = std::mem::take(&mut self.stats);
        self.counters(&mut |name, total| stats.write(&prefix, name, total, &mut lines));
        self.stats = stats;
        self.router.again(&lines);
    }

    /// All counters, since the start. Of a node: `node.<host>_<port>.…`.
    fn counters(&self, write: &mut dyn FnMut(&str, u64)) {
        write("packets", self.router.packets);
        write("lines", self.router.lines);
        write("lost", self.router.lost);
        write("udp_drops", self.figures.udp_drops);
        write("long_lines", self.figures.long_lines);
        write("refused_clients", self.figures.refused_clients);
        write("silent_clients", self.figures.silent_clients);
        write("stalled_consoles", self.figures.stalled_consoles);
        for (node, queue) in self.nodes.iter().zip(self.router.queues()) {
            let name = node.name().replace(['.', ':', '[', ']'], "_");
            let counts = queue.counts();
            for (what, total) in [
                ("datagrams", counts.datagrams),
                ("lines", counts.lines),
                ("drops", counts.drops),
                ("refused", counts.refused),
            ] {
                write(&format!("node.{name}.{what}"), total);
            }
        }
    }
}
