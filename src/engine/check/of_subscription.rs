//! Findings about one subscription: whether it gets messages, and why not.

use super::finding::Finding;
use crate::clock::Timestamp;
use crate::push_service::{Pause, PauseReason, PushService};
use crate::store::{LastFailure, RetireReason, SubscriptionRecord};
use crate::vapid::KeyId;

/// Says whether messages go to a subscription, and why not.
///
/// `keys` are the VAPID keys of the server, and `pauses` those of [`pauses`](crate::store::DeliveryLedger::pauses). The endpoint
/// policy and the host of the endpoint are not looked at.
#[must_use]
pub fn check_subscription(
    row: &SubscriptionRecord,
    keys: &[KeyId],
    pauses: &[Pause],
    now: Timestamp,
) -> Vec<Finding> {
    let ago = |at: Timestamp| ago(at, now);
    let name = format!("subscription {}", row.id);
    let mut findings = vec![Finding::note(format!(
        "{name}: at {}, last registered {}, {}",
        PushService::of(row.subscription.endpoint()),
        ago(row.last_seen_at),
        match row.last_success_at {
            Some(at) => format!("a message was last accepted {}", ago(at)),
            None => "no message was ever accepted".to_owned(),
        }
    ))];
    findings.push(state(row, &name, keys, now));
    if let Some(last) = &row.last_failure {
        findings.push(Finding::note(format!("{name}: {}", failure(last, now))));
    }
    if row.failure_streak > 0 {
        findings.push(Finding::note(format!(
            "{name}: the last {} attempts failed, the first of them {}",
            row.failure_streak,
            row.failing_since.map_or_else(String::new, ago)
        )));
    }
    let origin = row.subscription.endpoint().origin();
    let pauses = pauses.iter().filter(|pause| pause.origin == *origin);
    findings.extend(pauses.map(|pause| Finding::note(pause_in_words(pause, now))));
    findings
}

fn state(row: &SubscriptionRecord, name: &str, keys: &[KeyId], now: Timestamp) -> Finding {
    if let Some(retired) = row.retired {
        let why = match retired.reason {
            RetireReason::Gone => "the push service said that it does not exist any more",
            RetireReason::HostNotFound => "the host of its endpoint does not exist",
            RetireReason::BadRequest => "the push service refused every request for weeks",
            RetireReason::Expired => "its expiration time has passed",
        };
        return Finding::wrong(
            format!("{name}: retired {}: {why}", ago(retired.at, now)),
            "It gets no messages. The page has to subscribe again, which the browser client does at the next visit.",
        );
    }
    if let Some(since) = row.stale_since {
        return Finding::wrong(
            format!(
                "{name}: stale since {}: it was made with a VAPID key that this store does not have",
                ago(since, now)
            ),
            "It gets no messages. Import the old key, or wait for the page to subscribe again with the new one.",
        );
    }
    if !row.is_live(now) {
        return Finding::wrong(
            format!("{name}: its expiration time is past"),
            "It gets no messages. The page has to subscribe again.",
        );
    }
    if !keys.contains(&row.vapid_key) {
        return Finding::wrong(
            format!(
                "{name}: it was made with the VAPID key {}, which this store does not have",
                row.vapid_key
            ),
            "It gets no messages until the key is back: restore it from a backup, or start with it (VAPID_PRIVATE_KEY).",
        );
    }
    Finding::fine(format!("{name}: it gets messages"))
}

fn failure(last: &LastFailure, now: Timestamp) -> String {
    let status = last.failure.status;
    let status = status.map(|status| format!(" with status {status}"));
    let reason = last.failure.reason.as_ref();
    let reason = reason.map(|reason| format!(": {}", reason.as_str()));
    format!(
        "a message last failed {}{}{}",
        ago(last.at, now),
        status.unwrap_or_default(),
        reason.unwrap_or_default()
    )
}

/// Why a push service gets no requests, and for how long.
pub(super) fn pause_in_words(pause: &Pause, now: Timestamp) -> String {
    let why = match pause.reason {
        PauseReason::RateLimited => "it has asked this sender to wait",
        PauseReason::Unreachable => "it does not answer, or only with errors",
        PauseReason::SenderFault => {
            "it refuses this sender: check the VAPID key, the contact and the clock"
        }
    };
    format!(
        "{}: no message is sent there for {} minutes: {why}",
        pause.origin.as_str(),
        pause.until.since(now).as_secs().div_ceil(60)
    )
}

fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} hours ago", now.since(at).as_secs() / 3600)
}
