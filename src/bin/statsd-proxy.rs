//! The cluster proxy: see [`proxy`](statsd::proxy).

use std::process::ExitCode;

fn main() -> ExitCode {
    statsd::startup::main::<statsd::proxy::Proxy>()
}
