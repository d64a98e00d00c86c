//! The example servers killed at every step of a delivery and started again, stopped in the middle, and two of them
//! on one file: no message is lost, and only those in flight at a kill are sent twice.

mod gate;
mod killed;
mod leases;
mod shutdown;
mod together;
mod world;
