//! The config file: from its text to a typed, checked [`Config`] or [`ProxyConfig`].
//!
//! ```text
//! text -> reader (JSON5) -> Value -> expand (${…}) -> check (against keys) -> load (typed)
//! ```
//!
//! The file is read, never run (SPEC 2); nothing starts on a config with an error. [`keys`] is the
//! one table that everything follows: what a value must be, its default, and the warnings.
//! May import the standard library and ryu-js only.

mod changes;
mod check;
mod doubts;
mod expand;
mod fields;
pub mod keys;
mod listing;
pub mod load;
mod network;
pub(crate) mod reader;
pub mod syntax;
mod types;
pub mod value;

#[cfg(test)]
mod tests;

pub use changes::{needs_restart, proxy_needs_restart};
pub use expand::Environment;
pub use load::{ConfigError, Loaded, Open, load_proxy, load_statsd};
pub use network::Network;
pub use types::*;
