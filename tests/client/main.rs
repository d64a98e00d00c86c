//! `Deliver` and the default client against real servers on loopback.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod answers;
mod connections;
mod policy;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../support/push_server.rs"]
mod push_server;
mod world;
