//! One subscription: whether it gets messages, and why not.

use tower_web_push::Notification;
use tower_web_push::deliver::{DeliveryError, EndpointPolicy, Outcome};
use tower_web_push::message::{Message, Ttl};
use tower_web_push::store::{StoredVapidKey, SubscriptionRecord, SubscriptionRef};
use tower_web_push::subscription::{Endpoint, SubscriptionId};

use super::super::super::causes::with_causes;
use super::super::super::settings::Settings;
use super::super::stores::WholeStore;
use super::{Findings, build};

/// Finds a subscription by its id, or by the endpoint in a file. Returns why not, and what to do.
pub(super) async fn find(
    name: &str,
    store: &dyn WholeStore,
) -> Result<SubscriptionRecord, (String, &'static str)> {
    let which = match name.parse::<SubscriptionId>() {
        Ok(id) => SubscriptionRef::Id(id),
        Err(_) => {
            let text = std::fs::read_to_string(name).map_err(|error| {
                (
                    format!("neither an id nor a file: {error}"),
                    "Name an id, as the API shows it, or a file that has the endpoint and nothing else.",
                )
            })?;
            let endpoint = Endpoint::parse(text.trim());
            let endpoint = endpoint.map_err(|error| {
                (
                    format!("{name}: {}", with_causes(error)),
                    "The file has to have the endpoint, and nothing else.",
                )
            })?;
            SubscriptionRef::from(&endpoint)
        }
    };
    let found = store.get(&[which]).await;
    let found = found.map_err(|error| {
        (
            with_causes(error),
            "The store cannot be read, or this row of it is damaged.",
        )
    })?;
    let row = found.into_iter().next().flatten();
    row.ok_or_else(|| {
        (
            "the store does not have it".to_owned(),
            "Its browser has unsubscribed, was never here, or the row was purged 30 days after it had ended: the page has to \
             subscribe again.",
        )
    })
}

/// Says if the policy refuses its endpoint.
pub(super) fn check_endpoint(
    row: &SubscriptionRecord,
    policy: &EndpointPolicy,
    findings: &mut Findings,
) {
    if let Err(error) = policy.check(row.subscription.endpoint()) {
        findings.wrong(
            format!(
                "subscription {}: ENDPOINT_POLICY refuses its endpoint: {}",
                row.id,
                with_causes(error)
            ),
            "Messages to it end as `refused`. Add its host to ENDPOINT_POLICY if you trust it.",
        );
    }
}

/// Sends a message that is signed with the key with which the row was made.
pub(super) async fn send(
    settings: &Settings,
    keys: &[StoredVapidKey],
    row: &SubscriptionRecord,
    findings: &mut Findings,
) {
    let Some(key) = keys.iter().find(|key| key.id == row.vapid_key) else {
        findings.wrong(
            "sent: nothing, since the store does not have the VAPID key of the subscription",
            "Import the old key, or wait for the page to subscribe again with the new one.",
        );
        return;
    };
    let mut key = key.clone();
    // `deliver` signs with the active one.
    key.active = true;
    let push = match build(settings, &[key], None).await {
        Ok(push) => push,
        Err(why) => {
            findings.wrong(format!("sent: nothing: {why}"), "See above.");
            return;
        }
    };
    let test = Notification::new("Test Notification").body("This is a test notification.");
    let message = Message::from(test).with_ttl(Ttl::from_secs(60));
    match push.deliver(&row.subscription, message).await {
        Ok(_) => findings.ok(
            "sent: the push service accepted a test notification; if the device shows none, the browser does not run, \
             notifications are switched off there, or its service worker shows nothing",
        ),
        Err(error) => {
            let hint = in_words(&error);
            let status = error.status().map(|status| format!(" ({status})"));
            findings.wrong(
                format!(
                    "sent: {}{}: {}",
                    error.outcome(),
                    status.unwrap_or_default(),
                    with_causes(error)
                ),
                hint,
            );
        }
    }
}

/// What an answer means, and what to do.
fn in_words(error: &DeliveryError) -> &'static str {
    match error.outcome() {
        Outcome::Gone => {
            "The subscription does not exist any more: its user has unsubscribed, or the browser has made a new one. The next \
             message retires it."
        }
        Outcome::KeyMismatch => {
            "It was made with another VAPID key than the one that the store has for it. If another key of this store fits, messages \
             reach it all the same; else the page has to subscribe again."
        }
        Outcome::SenderFault => {
            "The push service refuses this sender: check the contact (VAPID_SUBJECT) and the clock of this machine. No \
             subscription is at fault."
        }
        Outcome::TooLarge => "The message is larger than this push service accepts.",
        Outcome::BadRequest => {
            "The push service will never accept this request: is the endpoint one of a push service?"
        }
        Outcome::RateLimited => {
            "Too many requests: it has to be tried again later, as the server does by itself."
        }
        Outcome::Transient => {
            "The network or the push service failed: it has to be tried again later, as the server does by itself. If it stays, \
             check the firewall and the proxy."
        }
        Outcome::Refused => "ENDPOINT_POLICY does not allow this endpoint.",
        _ => "See the guide, what the push service said.",
    }
}
