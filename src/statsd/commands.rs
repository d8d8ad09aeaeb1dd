//! The console's commands (SPEC 7). Replies are the original's, but for the JSON of `counters`, `timers` and
//! `gauges`, and for figures of our own at the end of `stats`.

use super::Core;
use crate::admin::{self, Caller, Commands, Reply};
use crate::event_loop::Now;
use crate::json;
use crate::number;
use crate::statsd::flush::milliseconds;
use crate::store::{Kind, Shown};
use std::collections::VecDeque;

/// Slots looked at for one piece of a reply: some 0.2 ms.
const SLOTS: u32 = 10_000;

/// A reply made piece by piece.
pub enum Long {
    /// `counters`, `timers`, `gauges`.
    List(List),
    /// `delcounters`, `deltimers`, `delgauges`.
    Delete(Delete),
}

/// Where a listing is.
pub struct List {
    kind: Kind,
    slot: u32,
    /// In a timer: the value that is next.
    value: usize,
    begun: bool,
}

/// Where a deletion is.
pub struct Delete {
    kind: Kind,
    names: VecDeque<String>,
    /// In a folder (`a.b.*`): the slot that is next.
    slot: u32,
    found: bool,
}

impl Commands for Core {
    type Long = Long;

    fn run(&mut self, words: &[&str], caller: Caller, out: &mut Vec<u8>, now: Now) -> Reply<Long> {
        let (command, arguments) = words.split_first().unwrap_or((&"", &[]));
        let list = |kind| {
            Reply::Long(Long::List(List {
                kind,
                slot: 0,
                value: 0,
                begun: false,
            }))
        };
        match *command {
            "help" => say(
                out,
                "Commands: stats, counters, timers, gauges, delcounters, deltimers, delgauges, health, config, quit\n\n",
            ),
            "config" => admin::config(&self.config.common.listing, out),
            "health" => return admin::health(&mut self.healthy, arguments, caller, out),
            "stats" => self.stats_command(out, now),
            "counters" => {
                self.intake.store.settle_own();
                return list(Kind::Counter);
            }
            "timers" => return list(Kind::Timer),
            "gauges" => return list(Kind::Gauge),
            "delcounters" | "deltimers" | "delgauges" if !caller.may_change => {
                return Reply::Refused;
            }
            "delcounters" => return delete(Kind::Counter, arguments),
            "deltimers" => return delete(Kind::Timer, arguments),
            "delgauges" => return delete(Kind::Gauge, arguments),
            "quit" => return Reply::Quit,
            _ => say(out, "ERROR\n"),
        }
        Reply::Done
    }

    fn more(&mut self, long: &mut Long, out: &mut Vec<u8>) -> bool {
        match long {
            Long::List(list) => self.list_more(list, out),
            Long::Delete(delete) => self.delete_more(delete, out),
        }
    }
}

fn say(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn delete(kind: Kind, arguments: &[&str]) -> Reply<Long> {
    let names = arguments.iter().map(|name| name.to_string()).collect();
    Reply::Long(Long::Delete(Delete {
        kind,
        names,
        slot: 0,
        found: false,
    }))
}

impl Core {
    fn stats_command(&self, out: &mut Vec<u8>, now: Now) {
        let seconds = now.seconds();
        let mut figure = |name: &str, value: f64| {
            // Times of day are shown as seconds since then.
            let last = name
                .split('.')
                .next_back()
                .is_some_and(|name| name.starts_with("last_"));
            let shown = if last { seconds as f64 - value } else { value };
            say(out, &format!("{name}: {}\n", number::to_string(shown)));
        };
        figure("uptime", seconds as f64 - self.started as f64);
        figure("messages.last_msg_seen", self.intake.last_seen() as f64);
        figure("messages.bad_lines_seen", self.intake.bad_lines() as f64);
        self.backends
            .iter()
            .for_each(|backend| backend.status(&mut figure));
        // What follows is ours.
        for backend in &self.backends {
            backend.own_stats(&mut |name, value| {
                figure(&name.replacen("graphiteStats", "graphite", 1), value)
            });
        }
        self.own_figures(&mut |name, value| figure(name, value));
        figure("server.udp_drops", self.udp_drops as f64);
        figure(
            "server.flush_pause_ms",
            milliseconds(self.flusher.last_pause()),
        );
        figure("server.names", self.intake.store.name_count() as f64);
        say(out, "END\n\n");
    }

    fn list_more(&mut self, list: &mut List, out: &mut Vec<u8>) -> bool {
        if list.slot == 0 && list.value == 0 && !list.begun {
            say(out, "{");
        }
        let store = &self.intake.store;
        let end = store
            .slot_count(list.kind)
            .min(list.slot.saturating_add(SLOTS));
        while list.slot < end && !admin::is_piece(out) {
            if let Some((name, shown)) = store.show(list.kind, list.slot) {
                if list.value == 0 {
                    say(out, if list.begun { ",\n  " } else { "\n  " });
                    json::string(out, name);
                    say(out, ": ");
                    list.begun = true;
                }
                match shown {
                    Shown::Number(value) => json::number(out, value),
                    Shown::Values(samples) => {
                        say(out, if list.value == 0 { "[" } else { "" });
                        let values = samples.some_from(list.value);
                        for value in values {
                            say(out, if list.value == 0 { "" } else { ", " });
                            json::number(out, *value);
                            list.value += 1;
                        }
                        if !values.is_empty() {
                            continue;
                        }
                        say(out, "]");
                        list.value = 0;
                    }
                }
            } else if list.value > 0 {
                // The timer was deleted while it was being shown.
                say(out, "]");
                list.value = 0;
            }
            list.slot += 1;
        }
        if list.slot < store.slot_count(list.kind) {
            return false;
        }
        say(
            out,
            if list.begun {
                "\n}\nEND\n\n"
            } else {
                "}\nEND\n\n"
            },
        );
        true
    }

    fn delete_more(&mut self, delete: &mut Delete, out: &mut Vec<u8>) -> bool {
        let store = &mut self.intake.store;
        let Some(name) = delete.names.front() else {
            say(out, "END\n\n");
            return true;
        };
        if delete.slot == 0 && store.delete(delete.kind, name.as_bytes()) {
            say(out, &format!("deleted: {name}\n"));
            delete.found = true;
        }
        if let Some(folder) = name
            .strip_suffix('*')
            .filter(|folder| folder.ends_with('.'))
        {
            let end = store
                .slot_count(delete.kind)
                .min(delete.slot.saturating_add(SLOTS));
            while delete.slot < end && !admin::is_piece(out) {
                let shown = store.show(delete.kind, delete.slot).map(|(name, _)| name);
                if let Some(name) = shown.filter(|name| name.starts_with(folder.as_bytes())) {
                    let name = name.to_vec();
                    store.delete(delete.kind, &name);
                    say(
                        out,
                        &format!("deleted: {}\n", String::from_utf8_lossy(&name)),
                    );
                    delete.found = true;
                }
                delete.slot += 1;
            }
            if delete.slot < store.slot_count(delete.kind) {
                return false;
            }
        }
        if !delete.found {
            say(out, &format!("metric {name} not found\n"));
        }
        delete.names.pop_front();
        (delete.slot, delete.found) = (0, false);
        false
    }
}
