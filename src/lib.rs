//! Web Push for Tower applications.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod clock;
mod encoding;
pub mod error;
pub mod message;
pub mod secret;
pub mod subscription;
