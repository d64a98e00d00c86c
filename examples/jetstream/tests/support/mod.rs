//! The environment of the test: a NATS server, push services, worker processes.

pub(crate) mod nats;
pub(crate) mod program;
pub(crate) mod push_service;
