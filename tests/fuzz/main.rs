//! Hostile input: seeded random bytes, and packets of the recordings with bytes turned, cut, doubled and
//! mixed. [`core`] plays a million lines of it to the aggregator's core by plain calls and looks at
//! everything that comes out; [`live`] throws the same at a real daemon's sockets.
//!
//! The ordinary run has fixed seeds. `make soak` runs the tests that are ignored otherwise, with new seeds
//! for SOAK_SECONDS; a failure names its seed, and FUZZ_SEED=… runs that one again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod core;
mod input;
mod live;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long `make soak` goes on.
fn soak_time() -> Duration {
    let seconds = std::env::var("SOAK_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(60))
}

/// The seed to run: the one asked for, or a new one.
fn new_seed() -> u64 {
    let asked = std::env::var("FUZZ_SEED").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_nanos() as u64
    })
}
