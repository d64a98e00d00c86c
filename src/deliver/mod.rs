//! Delivery: one attempt to send one message, and what came of it.
//!
//! Everything here but the clients is pure or a plain [`tower_service::Service`]. What follows from an [`Outcome`], for the
//! delivery and for the subscription, is said by an [`Attempt`](crate::engine::Attempt).

mod address;
mod admission;
mod classify;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod connection_budget;
#[cfg(feature = "client")]
mod connector;
#[cfg(feature = "client")]
mod dialled;
mod endpoint_policy;
mod error;
mod future;
#[cfg(feature = "client")]
mod guarded_resolver;
mod host_check;
#[cfg(feature = "client")]
mod local_error;
#[cfg(feature = "client")]
mod lookup_threads;
#[cfg(feature = "client")]
mod open_files;
mod origin_gate;
mod outcome;
mod resolver;
mod retry;
mod retry_after;
mod sender;
mod service;
#[cfg(feature = "client")]
mod shares;
#[cfg(feature = "client")]
mod socket;
mod standing;
mod streaks;
mod unproven_hosts;

pub use crate::push_service::{PauseScope, PushService};
pub(crate) use admission::Begin;
pub use classify::{BODY_LIMIT, Verdict, classify};
#[cfg(feature = "client")]
pub use client::{
    HttpBody, HttpClient, HttpClientBuilder, HttpClientError, HttpClientErrorKind, HttpError,
    HttpFuture,
};
pub use endpoint_policy::{EndpointPolicy, PolicyError, PolicyErrorKind};
pub use error::{Accepted, DeliveryError};
pub use future::DeliverFuture;
pub(crate) use host_check::{HostCheck, Unverified};
pub use origin_gate::{Closed, OriginGate, OriginGates, Permit};
pub use outcome::Outcome;
#[cfg(feature = "client")]
pub use resolver::SystemResolver;
pub use resolver::{ResolveError, ResolveErrorKind, Resolver};
pub use retry::{Jitter, RetryPolicy};
pub(crate) use sender::Sender;
pub use service::{Deliver, DeliverLayer};
