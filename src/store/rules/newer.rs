//! Which of two versions of a row holds.

use crate::clock::Timestamp;
use crate::store::SubscriptionRecord;

/// Whether a version of a row is newer than a stored one with its endpoint or id (C2).
///
/// The later registration by a browser is newer. Of two versions of one registration it is the one that knows the later
/// response of the push service, and of those the one that counts more failures.
#[must_use]
pub fn is_newer(row: &SubscriptionRecord, stored: &SubscriptionRecord) -> bool {
    version(row) > version(stored)
}

fn version(row: &SubscriptionRecord) -> (Timestamp, Option<Timestamp>, u32) {
    let responses = [
        row.last_success_at,
        row.failing_since,
        row.stale_since,
        row.retired.map(|retired| retired.at),
    ];
    // `None` is the least.
    let last = responses.into_iter().max().flatten();
    (row.last_seen_at, last, row.failure_streak)
}
