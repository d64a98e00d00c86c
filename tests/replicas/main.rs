//! The example servers as replicas on one Postgres, then on one Redis: killed, stopped, joined by others, with a
//! database that goes away and comes back. Everybody is reached, and doubles are what was under way at a kill.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod clock;
mod comings_and_goings;
// Each test file uses its part of what they share.
#[allow(dead_code)]
#[path = "../support/http_client.rs"]
mod http_client;
mod outage;
#[allow(dead_code)]
#[path = "../support/push_server.rs"]
mod push_server;
#[allow(dead_code)]
#[path = "../support/server_process.rs"]
mod server_process;
#[path = "../support/servers.rs"]
mod servers;
mod traffic;
mod world;
