//! Web Push for Tower applications.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "_engine")]
pub mod broadcast;
pub mod clock;
#[cfg(feature = "_engine")]
pub mod deliver;
pub mod ece;
mod encoding;
pub mod encryption;
pub mod error;
pub mod message;
pub mod p256;
#[cfg(feature = "vapid")]
pub mod push_request;
#[cfg(feature = "vapid")]
pub mod push_service;
#[cfg(feature = "_engine")]
pub mod schedule;
pub mod secret;
#[cfg(feature = "_engine")]
pub mod store;
pub mod subscription;
#[cfg(feature = "vapid")]
pub mod vapid;
