//! Being a daemon: detaching, the pidfile, user and group, the title, signals, the service manager.
//!
//! One file for each job; they know nothing of metrics. They import `sys`, [`crate::stdout`],
//! [`crate::log`] and the types of the config. The order at start:
//!
//! 1. [`notify::Manager::from_environment`] takes what systemd handed over,
//! 2. [`harden::at_start`] closes and clears what nobody meant to hand over,
//! 3. [`title::prepare`] while the arguments are still what they were,
//! 4. [`detach::Detach::start`] before anything is opened, if asked for,
//! 5. [`user::Identity::find`], sockets, [`pidfile::PidFile::create`], [`user::Identity::assume`],
//! 6. [`signals::Signals::new`], and the loop.

pub mod child;
pub mod detach;
pub mod harden;
pub mod notify;
pub mod pidfile;
pub mod replace;
pub mod signals;
pub mod title;
pub mod user;

use std::fmt;

/// Why the program cannot start: one sentence for the administrator, with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}
