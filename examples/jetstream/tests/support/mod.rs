//! What the test needs around the program: a NATS server, push services, worker processes.

pub(crate) mod nats;
pub(crate) mod program;
pub(crate) mod push_service;
