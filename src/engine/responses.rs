//! The responses of push services, for the metrics.

use std::time::Duration;

use crate::deliver::{Accepted, DeliveryError, Outcome};
use crate::observe;
use crate::push_service::PushService;

/// Counts a request, and the time from asking for it to its response. One that did not begin is not counted.
pub(super) fn count(
    push_service: PushService,
    answer: &Result<Accepted, DeliveryError>,
    elapsed: Duration,
) {
    let (outcome, status) = match answer {
        Ok(accepted) => (Outcome::Accepted, Some(accepted.status())),
        Err(error) if error.is_unasked() => return,
        Err(error) => (error.outcome(), error.status()),
    };
    observe::count_attempt(push_service, outcome.as_str(), status, elapsed);
}
