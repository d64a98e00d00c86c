//! The example servers as replicas on one Postgres, then on one Redis: killed, stopped, joined by others, with
//! database outages. Every message arrives, and repeats are those that were in flight at a kill.

mod beats;
mod clock;
mod comings_and_goings;
mod history;
mod killed;
mod outage;
mod outbox;
mod pausing;
mod traffic;
mod vanishing;
mod world;
