//! `Deliver` and the default client against real servers on loopback.

mod answers;
#[cfg(unix)]
mod budgets;
mod connections;
mod pings;
mod policy;
mod unprocessed;
mod world;
