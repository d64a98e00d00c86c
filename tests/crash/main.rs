//! The example servers killed at every step of a delivery and started again, stopped in the middle, and two of
//! them on one file: nobody is forgotten, and nobody gets a message twice but those whose request was under way.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod gate;
// Each test file uses its part of what they share.
#[allow(dead_code)]
#[path = "../support/http_client.rs"]
mod http_client;
mod killed;
mod leases;
#[allow(dead_code)]
#[path = "../support/push_server.rs"]
mod push_server;
#[allow(dead_code)]
#[path = "../support/server_process.rs"]
mod server_process;
mod shutdown;
mod together;
mod world;
