//! Programs as processes of their own: the example servers, browsers, and peers in other languages.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod browser;
#[cfg(target_os = "linux")]
mod crash;
mod examples;
mod fault_matrix;
mod import;
mod interop;
#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod replicas;
#[path = "../support"]
mod support {
    #[allow(dead_code, reason = "other binaries use the rest")]
    pub(crate) mod alert_rules;
    pub(crate) mod autopush;
    pub(crate) mod browser;
    pub(crate) mod chromium;
    pub(crate) mod desktop;
    pub(crate) mod devtools;
    pub(crate) mod firefox;
    pub(crate) mod gcm;
    pub(crate) mod http_client;
    pub(crate) mod protobuf;
    pub(crate) mod proxy_recorder;
    #[allow(dead_code, reason = "other binaries use the rest")]
    pub(crate) mod push_server;
    pub(crate) mod push_service;
    pub(crate) mod redis_client;
    pub(crate) mod replay;
    pub(crate) mod server_process;
    pub(crate) mod servers;
}
