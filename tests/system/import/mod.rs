//! The library's import, and the example that reads the data of the two replaced servers.

mod again;
mod any_rows;
mod every_store;
mod library;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../../stores/postgres/world.rs"]
mod postgres_world;
mod process;
mod redis_demo;
mod sqlite_server;
mod world;
