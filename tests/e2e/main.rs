//! The real binary, end to end: started on free ports in a directory of its own, spoken to over
//! its sockets, its flushes taken by a fake Graphite. One module a topic; `harness` tests the
//! tools themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod admin;
mod bad_input;
mod config_errors;
mod console;
mod footprint;
mod graphite;
mod harness;
mod logging;
mod process;
mod reload;
mod repeater;
mod servers;
mod vectors;
