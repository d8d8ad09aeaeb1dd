//! The repeater backend: packets as they came in, to other statsds.

use super::Backend;
use crate::config::{BackendKind, Config};

/// See the module.
pub struct Repeater {}

impl Repeater {
    /// From the config.
    pub fn new(_config: &Config) -> Repeater {
        Repeater {}
    }
}

impl Backend for Repeater {
    fn kind(&self) -> BackendKind {
        BackendKind::Repeater
    }

    fn configure(&mut self, _config: &Config) {}

    fn status(&self, _write: &mut dyn FnMut(&str, f64)) {}
}
