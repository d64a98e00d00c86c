//! The rules of delivery, one test each, against the in-process push service.

mod bad_rows;
mod beside;
mod budgets;
mod building;
mod calls;
mod checking;
mod commits;
mod composing;
mod copying;
mod daily;
mod deadlines;
mod downtimes;
mod effects;
mod holding;
mod keys;
#[cfg(feature = "tracing")]
mod late_lines;
mod leases;
mod order;
mod other_user;
mod pace;
mod pausing;
mod progress;
mod refused;
mod retiring;
mod retrying;
mod running;
mod sending;
mod silent_store;
#[cfg(feature = "opentelemetry")]
mod spans;
mod steps;
mod waking;
pub(crate) mod world;
