//! The example servers killed at every step of a delivery and started again, stopped in the middle, and two of
//! them on one file: nobody is forgotten, and nobody gets a message twice but those whose request was under way.

mod gate;
mod killed;
mod leases;
mod shutdown;
mod together;
mod world;
