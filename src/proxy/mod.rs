//! The relay role: clients send to it, and a consistent-hash ring gives each name its one daemon.

pub mod health;
pub mod probe;
pub mod queue;
pub mod route;
