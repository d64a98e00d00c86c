//! Delivery: one attempt to send one message, and what came of it.
//!
//! Everything here but the clients is pure or a plain [`tower_service::Service`]: whoever drives it
//! decides when to try again ([`RetryPolicy`]) and what an [`Outcome`] does to the subscription.

mod address;
mod classify;
mod endpoint_policy;
mod error;
mod origin_gate;
mod outcome;
mod retry;
mod retry_after;

pub use crate::push_service::{PauseScope, PushService};
pub use classify::{BODY_LIMIT, Verdict, classify};
pub use endpoint_policy::{EndpointPolicy, PolicyError, PolicyErrorKind};
pub use error::{Accepted, DeliveryError};
pub use origin_gate::{Closed, OriginGate, OriginGates, PauseReason, Permit};
pub use outcome::Outcome;
pub use retry::{Jitter, RetryPolicy};
