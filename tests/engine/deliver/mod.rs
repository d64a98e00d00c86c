//! `Deliver` over a client that the test plays, polled by hand, time paused.

mod answers;
mod calls;
mod gates;
mod world;
