//! Moving here: the library's import, and the example that reads the two servers that this crate replaces.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod again;
mod every_store;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../support/http_client.rs"]
mod http_client;
mod library;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../stores_postgres/world.rs"]
mod postgres_world;
mod process;
mod redis_demo;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../support/server_process.rs"]
mod server_process;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../examples/world.rs"]
mod server_world;
#[path = "../support/servers.rs"]
mod servers;
mod sqlite_server;
mod world;
