//! The responses of push services, for the metrics and the log.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use crate::deliver::{Accepted, Begin, DeliveryError, OriginGate, Outcome};
use crate::observe::{self, Folded, Told};
use crate::push_request::Push;
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

/// The refusals of this process by kind. The log tells the first of each kind with the status and the reason word, and
/// then once a minute the number of the others.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Folded<Refusal>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Refusal {
    push_service: PushService,
    outcome: Outcome,
    status: Option<u16>,
    reason: Option<String>,
}

impl Refusals {
    fn add(&self, error: &DeliveryError) {
        // Pauses and limits of this process are in the log as what they are.
        if error.is_unasked() && !error.is_local() {
            return;
        }
        let refusal = Refusal {
            push_service: error.push_service(),
            outcome: error.outcome(),
            status: error.status().map(|status| status.as_u16()),
            reason: error.reason().map(str::to_owned),
        };
        if let Some(told) = self.0.add(refusal) {
            tell(told);
        }
    }

    /// Tells of refusals that came after the last line, once their minute is over.
    pub(super) fn tell_due(&self) {
        self.0.due().into_iter().for_each(tell);
    }
}

fn tell((kind, messages): Told<Refusal>) {
    let Some(refusal) = kind else {
        observe::event!(WARN, messages, "messages were refused for further reasons");
        let _ = messages;
        return;
    };
    let Refusal {
        push_service,
        outcome,
        status,
        reason,
    } = refusal;
    let (push_service, reason) = (push_service.as_str(), reason.unwrap_or_default());
    // Browsers unsubscribe every day.
    if outcome == Outcome::Gone {
        observe::event!(
            INFO,
            push_service,
            status,
            reason,
            messages,
            "subscriptions are gone"
        );
    } else {
        let outcome = outcome.as_str();
        observe::event!(
            WARN,
            push_service,
            outcome,
            status,
            reason,
            messages,
            "messages were not accepted"
        );
        let _ = outcome;
    }
    let _ = (push_service, status, reason, messages);
}

impl Engine {
    /// Makes a request through the gate of its origin. The log is told if it is refused.
    pub(super) async fn request(
        &self,
        push: Push,
        gate: Arc<OriginGate>,
        begin: Begin,
    ) -> Result<Accepted, DeliveryError> {
        let answer = self.sender.send(push, gate, begin).await;
        answer.inspect_err(|error| self.signals.refusals.add(error))
    }
}
