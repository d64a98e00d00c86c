//! Values, encryption and VAPID against vectors, and promises of the documents: no runtime, no network.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod documents;
mod encryption;
mod packages;
#[cfg(feature = "aws-lc-rs")]
mod second_opinion;
mod structure;
#[cfg(feature = "vapid")]
mod vapid;
mod vectors;
#[cfg(target_os = "linux")]
mod wiped;
mod wycheproof;
