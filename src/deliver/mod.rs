//! Delivery: one attempt to send one message, and its outcome.
//!
//! Everything here except the clients is pure or a plain [`tower_service::Service`]. An
//! [`Attempt`](crate::engine::Attempt) derives the consequences of an [`Outcome`] for the delivery and the subscription.

mod address;
mod admission;
mod classify;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod connector;
#[cfg(feature = "client")]
mod dialled;
mod endpoint_policy;
mod error;
mod evidence;
mod future;
#[cfg(feature = "client")]
mod guarded_resolver;
mod host_check;
mod origin_gate;
mod outcome;
mod resolver;
mod retry;
mod retry_after;
mod sender;
mod service;
mod standing;
mod unproven_hosts;

pub use crate::push_service::PushService;
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
