//! The rules of delivery, one test each, against the in-process push service.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what failed"
)]

mod building;
mod calls;
mod composing;
mod daily;
mod deadlines;
mod downtimes;
mod keys;
mod order;
mod pausing;
mod progress;
mod retiring;
mod retrying;
mod running;
mod sending;
mod silent_store;
#[path = "../support/tampered_store.rs"]
mod tampered_store;
mod world;
