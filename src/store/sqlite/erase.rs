//! Erasing a user's pending deliveries in SQLite.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::broadcasts::{DELETE, Stored};
use super::claims::END_PROBE;
use super::content;
use super::query::{all, execute};
use crate::broadcast::{Audience, FinalOutcome, Principal};
use crate::clock::Timestamp;
use crate::store::{Erased, StoreError, SubscriptionRecord};

/// Broadcasts to one user, or to some subscriptions.
pub(super) const ADDRESSED: &str = "SELECT broadcast, audience FROM content \
     WHERE audience = ?1 OR audience LIKE '{\"ids\":%'";
pub(super) const ROWS: &str = "SELECT d.broadcast, d.fence FROM broadcast b \
     CROSS JOIN delivery d ON d.broadcast = b.seq AND d.key = ?1 WHERE b.ended_at IS NULL";

/// Erases pending deliveries (L17).
pub(super) fn erase(
    conn: &Connection,
    user: &Principal,
    subscriptions: &[SubscriptionRecord],
    now: Timestamp,
) -> Result<Erased, StoreError> {
    let ids: Vec<_> = subscriptions.iter().map(|row| row.id).collect();
    let mut erased = Erased::default();
    // The number of ended rows by broadcast.
    let mut ended: BTreeMap<i64, u64> = BTreeMap::new();
    for row in subscriptions {
        let key = row.subscription.endpoint().key();
        let rows = all(conn, ROWS, [key.as_bytes()], |row| {
            Ok((row.get::<i64>()?, row.get::<i64>()?))
        })?;
        for (seq, fence) in rows {
            execute(conn, DELETE, params![seq, key.as_bytes()])?;
            execute(
                conn,
                END_PROBE,
                params![fence, key.as_bytes(), now.as_millis()],
            )?;
            *ended.entry(seq).or_default() += 1;
        }
    }
    let text = content::audience_text(&Audience::User(user.clone()))?;
    let addressed = all(conn, ADDRESSED, [text], |row| {
        Ok((row.get::<i64>()?, content::audience(row)?))
    })?;
    let theirs = |audience: &Audience| audience.is_only_for(user, &ids);
    let theirs = addressed.iter().filter(|(_, audience)| theirs(audience));
    let theirs: Vec<_> = theirs.map(|(seq, _)| *seq).collect();
    for seq in &theirs {
        ended.entry(*seq).or_default();
    }
    for (seq, rows) in ended {
        let mut stored = Stored::by_seq(conn, seq)?;
        // Cancelled before its rows are counted: a broadcast without rows would be over.
        if theirs.contains(&seq) && stored.stop(conn, now)? {
            erased.broadcasts += 1;
        }
        stored.progress.counts.add(FinalOutcome::Cancelled, rows);
        erased.deliveries += rows;
        stored.save(conn, now)?;
    }
    Ok(erased)
}
