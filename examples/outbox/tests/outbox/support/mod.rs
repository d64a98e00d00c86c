//! A database, a push service, and the program's processes.

pub(crate) mod program;
pub(crate) mod push_service;
#[path = "../../../../../tests/support/servers.rs"]
pub(crate) mod servers;
pub(crate) mod world;
