//! The console's commands (SPEC 8). `status` is the original's, with more lines behind it.

use super::core::Core;
use crate::admin::{self, Caller, Commands, Reply};
use crate::event_loop::Now;
use std::convert::Infallible;

impl Commands for Core {
    type Long = Infallible;

    fn run(
        &mut self,
        words: &[&str],
        caller: Caller,
        out: &mut Vec<u8>,
        now: Now,
    ) -> Reply<Infallible> {
        let (command, arguments) = words.split_first().unwrap_or((&"", &[]));
        match *command {
            "help" => out.extend_from_slice(b"Commands: config, health, status, quit\n\n"),
            "config" => admin::config(&self.config.common.listing, out),
            "health" => return admin::health(&mut self.healthy, arguments, caller, out),
            "status" => out.extend(self.status(now).bytes()),
            "quit" => return Reply::Quit,
            _ => out.extend_from_slice(b"ERROR\n"),
        }
        Reply::Done
    }

    fn more(&mut self, long: &mut Infallible, _: &mut Vec<u8>) -> bool {
        match *long {}
    }
}

impl Core {
    fn status(&self, now: Now) -> String {
        let seconds = now.seconds();
        let mut text = format!("uptime: {}\nnodes: ", seconds.saturating_sub(self.started));
        for name in self.router.ring().nodes() {
            text.push_str(&format!("{name} "));
        }
        text.push('\n');
        // What follows is ours.
        let figures = self.figures;
        for (name, value) in [
            ("process", u64::from(std::process::id())),
            ("packets", self.router.packets),
            ("lines", self.router.lines),
            ("lost", self.router.lost),
            ("udp_drops", figures.udp_drops),
            ("long_lines", figures.long_lines),
            ("clients", figures.clients as u64),
            ("refused_clients", figures.refused_clients),
            ("silent_clients", figures.silent_clients),
            ("stalled_consoles", figures.stalled_consoles),
        ] {
            text.push_str(&format!("{name}: {value}\n"));
        }
        for (node, queue) in self.nodes.iter().zip(self.router.queues()) {
            let counts = queue.counts();
            text.push_str(&format!(
                "node {}: {} for {} s, lines {}, datagrams {}, drops {}, refused {}, waiting {}\n",
                node.name(),
                if node.is_alive() { "up" } else { "down" },
                seconds.saturating_sub(node.since()),
                counts.lines,
                counts.datagrams,
                counts.drops,
                counts.refused,
                queue.bytes(),
            ));
        }
        text.push_str("END\n\n");
        text
    }
}
