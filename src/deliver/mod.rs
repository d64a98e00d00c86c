//! Delivery: one attempt to send one message, and its outcome.
//!
//! Everything here except the clients is pure or a plain [`tower_service::Service`]. An
//! [`Attempt`](crate::engine::Attempt) derives the consequences of an [`Outcome`] for the delivery and the subscription.

mod address;
mod admission;
mod calm;
mod classify;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod closing;
mod concurrency;
#[cfg(feature = "client")]
mod connection_budget;
#[cfg(feature = "client")]
mod connection_place;
#[cfg(feature = "client")]
mod connector;
#[cfg(feature = "client")]
mod dialled;
mod endpoint_policy;
mod error;
mod evidence;
mod flow;
mod future;
#[cfg(feature = "client")]
mod guarded_resolver;
mod host_check;
#[cfg(feature = "client")]
mod http2_connection;
#[cfg(feature = "client")]
mod http2_permit;
#[cfg(feature = "client")]
mod http2_pool;
#[cfg(feature = "client")]
mod http2_pooled;
#[cfg(feature = "client")]
mod http2_stream;
#[cfg(feature = "client")]
mod local_error;
#[cfg(feature = "client")]
mod lookup_threads;
mod open_files;
mod origin_gate;
mod origin_gates;
mod outcome;
mod pace;
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
mod stop;
#[cfg(feature = "client")]
mod unprocessed;
mod unproven_hosts;

pub use crate::push_service::PushService;
pub(crate) use admission::Begin;
pub use classify::{Verdict, classify};
#[cfg(feature = "client")]
pub use client::{
    HttpBody, HttpClient, HttpClientBuilder, HttpClientError, HttpClientErrorKind, HttpError,
    HttpFuture,
};
pub use endpoint_policy::{EndpointPolicy, PolicyError, PolicyErrorKind};
pub use error::{Accepted, DeliveryError};
pub use future::DeliverFuture;
pub(crate) use host_check::{HostCheck, Unverified};
pub(crate) use open_files::OpenFiles;
pub(crate) use origin_gate::Permit;
pub use origin_gate::{Closed, OriginGate};
pub use origin_gates::OriginGates;
pub use outcome::Outcome;
#[cfg(feature = "client")]
pub use resolver::SystemResolver;
pub use resolver::{ResolveError, ResolveErrorKind, Resolver};
pub(crate) use retry::Jitter;
pub use retry::RetryPolicy;
pub(crate) use sender::Sender;
pub use service::{Deliver, DeliverLayer};
pub(crate) use stop::Stop;
