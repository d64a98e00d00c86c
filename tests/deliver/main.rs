//! `Deliver` over a client that the test plays, polled by hand, time paused.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod answers;
mod calls;
mod gates;
mod world;
