//! `Deliver` and the default client against real servers on loopback.

mod answers;
#[cfg(unix)]
mod budgets;
mod connections;
mod outages;
mod pings;
mod policy;
mod raw;
mod streams;
mod unprocessed;
mod world;
