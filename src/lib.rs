//! statsd: a metrics daemon, and its cluster proxy. This page is the map.
//!
//! ```text
//! socket bytes -> lines -> Metric -> Store --(deadline: flip)--> Drain -> backends -> bytes on a socket
//!                 admin console <-> Store          signals -> reload / stop
//! ```
//!
//! One thread, one `poll(2)` loop, time passed in as an argument. Imports point down only; a test
//! (`tests/tidy.rs`) holds the layers:
//!
//! | layer | modules | may import |
//! |---|---|---|
//! | programs | `bin/statsd.rs`, `bin/statsd-proxy.rs` | [`startup`] and a role |
//! | roles | [`statsd`] (aggregator), [`proxy`] (relay); never each other | all below |
//! | outputs, console | [`backend`], [`admin`] | all below |
//! | start | [`startup`], [`reload`] | all below and each other |
//! | plumbing | [`event_loop`], [`net`], [`cli`], [`config`], [`log`], [`stdout`], [`process`] | [`sys`], the core and each other |
//! | system | [`sys`]: the only `unsafe` | the standard library, libc |
//! | pure core | [`protocol`], [`store`], [`timer`], [`snapshot`], [`number`], [`json`], [`ring`] | each other |
//!
//! The pure core has no socket, file, clock or log, and is driven in tests by plain calls.

// A test may fail by panicking.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod admin;
pub mod backend;
pub mod cli;
pub mod config;
pub mod event_loop;
pub mod json;
pub mod log;
pub mod net;
pub mod number;
pub mod process;
pub mod protocol;
pub mod proxy;
pub mod reload;
pub mod ring;
pub mod snapshot;
pub mod startup;
pub mod statsd;
pub mod stdout;
pub mod store;
pub mod sys;
pub mod timer;
