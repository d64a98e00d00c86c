//! Findings about a store.

use std::time::Duration;

use super::finding::Finding;
use super::of_subscription::pause_in_words;
use crate::clock::{Clock, Timestamp};
use crate::engine::ClockSkew;
use crate::store::{
    Cursor, Expansion, OutboxStats, ScheduleStore, StoreError, SubscriptionStore, VapidKeyStore,
};
use crate::vapid::KeyId;

/// The age of the oldest due message from which on it seems that no worker runs. That of the alert `WebPushMessagesLate`.
const LATE: Duration = Duration::from_secs(300);
/// The most broadcasts that are looked at.
const EXPANSIONS: usize = 10;
/// The most paused push services that are listed.
const PAUSES: usize = 32;

/// Checks the parts of a store, which may be three.
pub(super) async fn check(
    rows: &dyn SubscriptionStore,
    stored: &dyn VapidKeyStore,
    ledger: &dyn ScheduleStore,
    more_keys: &[KeyId],
    clock: &dyn Clock,
) -> Vec<Finding> {
    let (finding, keys) = writing(stored).await;
    let mut findings = vec![finding];
    let now = clock.now();
    findings.push(queue(ledger, now).await);
    findings.extend(waiting(ledger, now).await);
    findings.extend(outbox(ledger).await);
    findings.extend(pauses(ledger, now).await);
    // If the keys cannot be read, that was found.
    if let Some(mut keys) = keys {
        keys.extend(
            more_keys
                .iter()
                .filter(|key| !keys.contains(key))
                .copied()
                .collect::<Vec<_>>(),
        );
        findings.extend(lost_keys(rows, &keys, now).await);
    }
    findings
}

/// Compares a clock with the store's.
pub(super) async fn clocks(ledger: &dyn ScheduleStore, clock: &dyn Clock) -> Finding {
    let asked = clock.now();
    let server = match ledger.server_time().await {
        Ok(Some(server)) => server,
        Ok(None) => return Finding::fine("clock: the store has none of its own"),
        Err(error) => return Finding::error("clock", &error, "The store does not answer."),
    };
    match ClockSkew::between(asked, server, clock.now()) {
        Some(skew) => Finding::wrong(
            format!("clock: {skew}"),
            "Above 10 s nothing is delivered: run NTP on both machines.",
        ),
        None => {
            let apart = asked.since(server).max(server.since(asked));
            Finding::fine(format!("clock: {} ms from the store's", apart.as_millis()))
        }
    }
}

/// Writes a value that is there already. Returns the ids of the stored keys, if they can be read.
async fn writing(stored: &dyn VapidKeyStore) -> (Finding, Option<Vec<KeyId>>) {
    let keys = match stored.keys().await {
        Ok(keys) => keys,
        Err(error) => {
            let hint = "It can be opened, but not be read.";
            return (Finding::error("store", &error, hint), None);
        }
    };
    let ids = keys.iter().map(|key| key.id).collect();
    let Some(key) = keys.first() else {
        let empty = "store: it is empty; the first start makes a VAPID key in it";
        return (Finding::note(empty), Some(ids));
    };
    let written = stored.reseal(&key.id, &key.sealed, &key.sealed).await;
    let finding = match written {
        Ok(_) => Finding::fine("store: it can be written"),
        Err(error) => Finding::error(
            "store: it cannot be written",
            &error,
            "Is the disk full, the file system or the database read-only, the user without rights?",
        ),
    };
    (finding, Some(ids))
}

async fn queue(ledger: &dyn ScheduleStore, now: Timestamp) -> Finding {
    let stats = match ledger.stats(now).await {
        Ok(stats) => stats,
        Err(error) => return Finding::error("queue", &error, "The store cannot be read."),
    };
    let late = stats.oldest_due.map(|due| now.since(due));
    match late.filter(|late| *late > LATE) {
        Some(late) => Finding::wrong(
            format!(
                "queue: {} messages are pending, and the oldest has been due for {} minutes",
                stats.depth,
                late.as_secs() / 60
            ),
            "Does a server run on this store? If so, its push service is down, paused or slow: GET /stats names it.",
        ),
        None => Finding::fine(format!("queue: {} messages are pending", stats.depth)),
    }
}

/// Broadcasts that wait, whose recipients are no rows of the queue yet.
async fn waiting(ledger: &dyn ScheduleStore, now: Timestamp) -> Vec<Finding> {
    let due = match ledger.expandable(EXPANSIONS, now - LATE).await {
        Ok(due) => due,
        Err(error) => {
            let hint = "The broadcasts that wait for their recipients cannot be read.";
            return vec![Finding::error("queue", &error, hint)];
        }
    };
    let mut findings = Vec::new();
    for unreadable in due.iter().filter(|due| due.audience.is_none()) {
        findings.push(Finding::wrong(
            format!("queue: broadcast {} cannot be read", unreadable.id),
            "Its row in the store is damaged, or of another version. It is tried again by itself; cancelling ends it.",
        ));
    }
    let is_untouched = |due: &Expansion| due.audience.is_some() && due.cursor == Cursor::Start;
    if due.iter().any(is_untouched) {
        findings.push(Finding::wrong(
            "queue: a broadcast has been due for more than 5 minutes, and no worker has begun it",
            "Does a server run on this store? If so, it fails to read the recipients, which its log and GET /stats say, or larger \
             broadcasts are before it.",
        ));
    }
    findings
}

/// Nothing about an outbox that is not there.
async fn outbox(ledger: &dyn ScheduleStore) -> Option<Finding> {
    if !ledger.has_outbox() {
        return None;
    }
    Some(match ledger.outbox_stats().await {
        Ok(OutboxStats { refused: 0, .. }) => Finding::fine("outbox: no entry was refused"),
        Ok(OutboxStats { refused, .. }) => Finding::wrong(
            format!("outbox: {refused} entries cannot be sent"),
            "`WebPush::refused_outbox` has the reason of each. Correct what wrote them, then `retry_outbox` or `drop_outbox`.",
        ),
        Err(error) => Finding::error("outbox", &error, "The store cannot be read."),
    })
}

async fn pauses(ledger: &dyn ScheduleStore, now: Timestamp) -> Vec<Finding> {
    match ledger.pauses(now).await {
        Ok(pauses) => {
            let pauses = pauses.iter().take(PAUSES);
            pauses
                .map(|pause| Finding::note(pause_in_words(pause, now)))
                .collect()
        }
        Err(error) => {
            let hint = "The store cannot be read.";
            vec![Finding::error("push services", &error, hint)]
        }
    }
}

/// Whether subscriptions name keys that are nowhere: after the restoration of an old backup, for example.
async fn lost_keys(
    rows: &dyn SubscriptionStore,
    keys: &[KeyId],
    now: Timestamp,
) -> Option<Finding> {
    let counts: Result<_, StoreError> = rows.count_live(keys, now).await;
    let counts = match counts {
        Ok(counts) => counts,
        Err(error) => {
            return Some(Finding::error(
                "keys",
                &error,
                "The subscriptions cannot be counted.",
            ));
        }
    };
    let known: u64 = counts.by_vapid_key.values().sum();
    let lost = counts.total().saturating_sub(known);
    (lost > 0).then(|| {
        Finding::wrong(
            format!(
                "keys: {lost} of {} subscriptions were made with a VAPID key that the store does not have, and get nothing",
                counts.total()
            ),
            "Restore the key from a backup, or start with it (VAPID_PRIVATE_KEY). If it is lost for ever, `give-up-key` \
             (`WebPush::give_up_key`) lets their pages subscribe again.",
        )
    })
}
