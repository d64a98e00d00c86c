//! Everything from a request of the API to a push service's answer, in this process.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

#[cfg(target_os = "linux")]
mod alerts;
mod api;
mod cancel_safety;
mod client;
mod deliver;
mod delivery;
mod fairness;
mod faults;
mod in_its_own_transaction;
mod rotation;
mod schedule;
#[path = "../support"]
mod support {
    #[allow(dead_code, reason = "other binaries use the rest")]
    pub(crate) mod alert_rules;
    pub(crate) mod push_server;
    pub(crate) mod replay;
    pub(crate) mod tampered_store;
}
mod urgent;
