//! The example servers as replicas on one Postgres, then on one Redis: killed, stopped, joined by others, with a
//! database that goes away and comes back. Everybody is reached, and doubles are what was under way at a kill.

mod clock;
mod comings_and_goings;
mod outage;
mod traffic;
mod vanishing;
mod world;
