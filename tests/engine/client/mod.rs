//! `Deliver` and the default client against real servers on loopback.

mod answers;
mod connections;
mod policy;
mod unprocessed;
mod world;
