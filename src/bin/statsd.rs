//! The aggregator: see [`statsd`](statsd::statsd).

use std::process::ExitCode;

fn main() -> ExitCode {
    statsd::startup::main::<statsd::statsd::Daemon>()
}
