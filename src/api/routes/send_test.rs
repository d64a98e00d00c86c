//! `POST /send-test`: one push to the holder of a subscription.

use http::StatusCode;
use http::request::Parts;
use serde::Serialize;

use super::registration::{self, MISSING_SUBSCRIPTION};
use crate::api::WebPushService;
use crate::api::members::{Members, parse_object};
use crate::api::peer;
use crate::api::problem::{Problem, ProblemKind};
use crate::api::reply::{self, Reply};
use crate::broadcast::FinalOutcome;
use crate::message::Message;

/// The replaced server's payload, which its service workers parse.
#[derive(Serialize)]
struct TestPayload<'a> {
    title: &'a str,
    message: &'a str,
}

#[derive(Serialize)]
struct SendTestAnswer {
    success: bool,
    message: String,
}

pub(super) async fn send_test(
    api: &WebPushService,
    parts: &Parts,
    body: &[u8],
) -> Result<Reply, Problem> {
    let object = parse_object(body)?;
    let members = Members::of(&object);
    let given = registration::subscription(members).map_err(|problem| match problem.kind() {
        ProblemKind::MissingKeys => problem.with_detail(MISSING_SUBSCRIPTION),
        _ => problem,
    })?;
    let message = message(members)?;

    let row = api.engine.held(&given).await?;
    let row = row.ok_or(ProblemKind::UnknownSubscription)?;
    let key = given.endpoint().resource_key();
    // Only a holder of the subscription can use its turn up, and one whose turn was a moment ago costs its peer nothing.
    let settings = &api.settings;
    settings
        .tests
        .take(key)
        .map_err(|wait| Problem::from(ProblemKind::TooManyTests).with_retry_after(wait))?;
    settings.pushes.take(peer(parts)).map_err(|wait| {
        settings.tests.give_back(&key);
        Problem::from(ProblemKind::TooManyRequests).with_retry_after(wait)
    })?;

    let outcome = api.engine.send_to(row, message).await.outcome;
    let success = outcome == FinalOutcome::Accepted;
    let message = match success {
        true => "Test notification sent successfully".to_owned(),
        false => format!("Test notification was not sent: {}", told(outcome)),
    };
    let answer = SendTestAnswer { success, message };
    Ok(reply::json(StatusCode::OK, &answer))
}

/// Returns the outcome that the caller may learn.
///
/// Anyone can register an endpoint and test it. A host that the policy refuses for its address, one that does not
/// exist and one that does not answer therefore get the same word. Otherwise the difference would tell which names
/// exist inside the server's network. The log and the metrics have the outcome itself.
const fn told(outcome: FinalOutcome) -> FinalOutcome {
    match outcome {
        FinalOutcome::Refused
        | FinalOutcome::Expired
        | FinalOutcome::Failed
        | FinalOutcome::Cancelled => FinalOutcome::Failed,
        // These are responses of a push service.
        FinalOutcome::Accepted
        | FinalOutcome::Gone
        | FinalOutcome::KeyMismatch
        | FinalOutcome::SenderFault
        | FinalOutcome::TooLarge
        | FinalOutcome::BadRequest => outcome,
    }
}

fn message(members: Members<'_>) -> Result<Message, Problem> {
    let payload = TestPayload {
        title: members.text("title")?.unwrap_or("Test Notification"),
        message: members
            .text("message")?
            .unwrap_or("This is a test notification."),
    };
    let message = Message::new(serde_json::to_vec(&payload).unwrap_or_default());
    if message.is_too_large() {
        return Err(ProblemKind::PayloadTooLarge.into());
    }
    Ok(message)
}
