//! The repeater backend: packets as they came in, to other statsds.
//!
//! | file | job |
//! |---|---|
//! | `udp` | a target that gets datagrams, in batches; what it cannot be sent is lost, and counted |
//! | `tcp` | a target that gets a stream; what it has not acknowledged waits, and is sent again |
//! | `queue` | packets that wait, within `repeaterBufferBytes` for each target |
//!
//! Each target is on its own: one that is dead, slow or without an address holds up neither the loop
//! nor the others.

mod queue;
mod tcp;
mod udp;

use super::Backend;
use crate::config::{BackendKind, Config, RepeaterProtocol, Target};
use crate::event_loop::{Now, PollSet};
use crate::log;
use tcp::Tcp;
use udp::Udp;

/// See the module.
pub struct Repeater {
    protocol: RepeaterProtocol,
    targets: Vec<(Target, Box<dyn Sender>)>,
}

/// What a target is to the repeater.
trait Sender {
    /// Takes a packet, or counts it as dropped.
    fn packet(&mut self, packet: &[u8]);
    /// Takes another bound on what waits.
    fn set_limit(&mut self, bytes: usize);
    fn counts(&self) -> Counts;
    /// In trouble, as the log has said.
    fn is_down(&self) -> bool;
    fn register(&mut self, poll: &mut PollSet);
    fn turn(&mut self, poll: &PollSet, now: Now);
    fn hurry(&mut self, now: Now);
    /// Bytes that are worth waiting for at the end.
    fn undelivered(&self) -> usize;
}

/// What became of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Packets sent; over tcp, acknowledged.
    sent: u64,
    /// Packets lost here: there was no room, or they could not be sent.
    dropped: u64,
    /// Errors of look-ups, connections and sends.
    errors: u64,
}

impl Repeater {
    /// From the config.
    pub fn new(config: &Config) -> Repeater {
        let mut repeater = Repeater {
            protocol: config.repeater_protocol,
            targets: Vec::new(),
        };
        repeater.configure(config);
        repeater
    }
}

impl Backend for Repeater {
    fn kind(&self) -> BackendKind {
        BackendKind::Repeater
    }

    fn configure(&mut self, config: &Config) {
        let protocol = config.repeater_protocol;
        let mut old = std::mem::take(&mut self.targets);
        let (mut kept, gone) = if protocol == self.protocol {
            (old, Vec::new())
        } else {
            (Vec::new(), std::mem::take(&mut old))
        };
        self.protocol = protocol;
        let limit = config.repeater_buffer_bytes;
        for target in &config.repeater {
            let known = kept.iter().position(|(known, _)| known == target);
            let mut sender = match known {
                Some(index) => kept.remove(index).1,
                None => create(protocol, target),
            };
            sender.set_limit(limit);
            self.targets.push((target.clone(), sender));
        }
        for (Target { host, port }, sender) in kept.iter().chain(&gone) {
            let bytes = sender.undelivered();
            if bytes > 0 {
                log::warning!(
                    "repeater {host}:{port} is no target any more; {bytes} bytes for it are lost"
                );
            }
        }
    }

    fn packet(&mut self, packet: &[u8]) {
        for (_, sender) in &mut self.targets {
            sender.packet(packet);
        }
    }

    fn status(&self, _write: &mut dyn FnMut(&str, f64)) {}

    fn own_stats(&self, write: &mut dyn FnMut(&str, f64)) {
        for (target, sender) in &self.targets {
            let name = figure_name(target);
            let counts = sender.counts();
            for (figure, value) in [
                ("sent", counts.sent),
                ("dropped", counts.dropped),
                ("errors", counts.errors),
                ("waiting_bytes", sender.undelivered() as u64),
                ("down", u64::from(sender.is_down())),
            ] {
                write(&format!("repeater.{name}.{figure}"), value as f64);
            }
        }
    }

    fn register(&mut self, poll: &mut PollSet) {
        for (_, sender) in &mut self.targets {
            sender.register(poll);
        }
    }

    fn turn(&mut self, poll: &PollSet, now: Now) {
        for (_, sender) in &mut self.targets {
            sender.turn(poll, now);
        }
    }

    fn hurry(&mut self, now: Now) {
        for (_, sender) in &mut self.targets {
            sender.hurry(now);
        }
    }

    fn undelivered(&self) -> usize {
        let bytes = self.targets.iter().map(|(_, sender)| sender.undelivered());
        bytes.sum()
    }
}

fn create(protocol: RepeaterProtocol, target: &Target) -> Box<dyn Sender> {
    match protocol {
        RepeaterProtocol::Udp4 => Box::new(Udp::new(target, false)),
        RepeaterProtocol::Udp6 => Box::new(Udp::new(target, true)),
        RepeaterProtocol::Tcp => Box::new(Tcp::new(target)),
    }
}

/// A target as one part of a Graphite name: `10_0_0_1_8125`.
fn figure_name(target: &Target) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let host = target.host.trim_matches(['[', ']']);
    let host: String = host
        .chars()
        .map(|c| if plain(c) { c } else { '_' })
        .collect();
    format!("{host}_{}", target.port)
}

#[cfg(test)]
mod tests;
