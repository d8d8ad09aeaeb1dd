//! Faults made on purpose, on the real binary: dead backends, restarts, limits, a system that runs out
//! of things, overload. The README's table says which test shows what.
//!
//! What takes a namespace or another user is skipped with a message where we are not root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod calls;
mod clients;
mod delivery;
mod limits;
mod memory;
mod shutdown;
mod spool;
mod state;
mod system;
mod time;
mod tools;
