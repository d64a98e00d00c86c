//! Every store against the contracts, and tests specific to each: files, servers, outages, kills.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod any_damage;
mod application_file;
mod contracts;
mod copying;
mod few_of_many;
mod late;
mod ledger_model;
mod outbox_model;
mod own_store;
mod postgres;
mod probing;
mod redis;
mod round_trips;
mod rules;
mod sqlite;
#[cfg(unix)]
mod sqlite_at_rest;
mod sqlite_crash;
mod sqlite_in;
#[cfg(target_os = "linux")]
mod sqlite_libraries;
mod sqlite_outbox;
#[cfg(target_os = "linux")]
mod sqlite_scale;
mod subscription_model;
mod together;
mod unreadable;
#[path = "../support"]
mod support {
    pub(crate) mod redis_client;
    pub(crate) mod servers;
    pub(crate) mod stored;
}
