//! The console backend: each flush as readable JSON on standard output.

use super::Backend;
use crate::config::{BackendKind, Config};
use crate::event_loop::Now;

/// See the module.
pub struct Console {
    last_flush: u64,
}

impl Console {
    /// From the config.
    pub fn new(_config: &Config, now: Now) -> Console {
        Console {
            last_flush: now.seconds(),
        }
    }
}

impl Backend for Console {
    fn kind(&self) -> BackendKind {
        BackendKind::Console
    }

    fn configure(&mut self, _config: &Config) {}

    fn status(&self, write: &mut dyn FnMut(&str, f64)) {
        write("console.lastFlush", self.last_flush as f64);
    }
}
