//! Rows of the queue that cannot be read: another program, or a broken disk, has changed them.

use std::time::Duration;

use rusqlite::params;
use rusqlite::types::Value;

use super::broadcasts::Stored;
use super::connection::Connection;
use super::query::{all, execute, integer};
use crate::broadcast::FinalOutcome;
use crate::clock::Timestamp;
use crate::observe;
use crate::store::readable::readable_or_none;
use crate::store::{STEP, StoreError};

/// How long after a search that found none the next one waits.
pub(super) const SEARCH_AGAIN: Duration = Duration::from_secs(60);
/// Reads the whole queue, and is used only when a row of it could not be read.
const UNREADABLE: &str = "SELECT broadcast, key FROM delivery \
     WHERE typeof(broadcast) <> 'integer' OR typeof(key) <> 'blob' OR length(key) <> 32 OR typeof(at) <> 'integer' \
     OR typeof(leased) <> 'integer' OR typeof(fence) <> 'integer' OR typeof(attempt) <> 'integer' \
     OR typeof(turn) NOT IN ('integer', 'null') OR typeof(band) <> 'integer' OR band NOT BETWEEN 0 AND 2 \
     OR origin NOT IN (SELECT id FROM origin) LIMIT ?1";
const DELETE: &str = "DELETE FROM delivery WHERE broadcast = ?1 AND key = ?2";

/// Ends rows of which nothing says where they belong. They count as failed. Returns their number.
pub(super) fn end_unreadable(conn: &Connection, now: Timestamp) -> Result<usize, StoreError> {
    let rows = all(conn, UNREADABLE, [integer(STEP)], |columns| {
        Ok((columns.get::<Value>()?, columns.get::<Value>()?))
    })?;
    for (broadcast, key) in &rows {
        execute(conn, DELETE, params![broadcast, key])?;
        if let Value::Integer(seq) = broadcast
            && let Some(mut stored) = readable_or_none(Stored::by_seq(conn, *seq))?
        {
            stored.progress.counts.add(FinalOutcome::Failed, 1);
            stored.save(conn, now)?;
        }
    }
    if !rows.is_empty() {
        observe::event!(
            ERROR,
            rows = rows.len(),
            "rows of the queue that cannot be read are counted as failed"
        );
    }
    Ok(rows.len())
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;
    use crate::store::{ClaimRequest, DeliveryLedger as _, SqliteStore, StoreErrorKind};

    /// What cannot be mended is not searched for at each claim.
    #[tokio::test]
    async fn the_queue_is_searched_once_a_minute_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("push.db"))
            .await
            .unwrap();
        let damage = "INSERT INTO broadcast (seq, id, created_at, due_at, deadline, band, expected, written, expanding, expand_at)
                 VALUES (1, x'000102030405060708090a0b0c0d0e0f', 0, 0, 9000000, 1, 0, 1, 0, 0);
             INSERT INTO origin (id, origin, ready, turn) VALUES (1, 'https://a.example', 1, 1);
             INSERT INTO delivery (broadcast, key, origin, band, turn, at) VALUES (1, zeroblob(32), 1, 1, 1, 0);
             DELETE FROM meta WHERE name = 'fence'";
        let damaged = store.write(|conn| {
            conn.execute_batch(damage).unwrap();
            Ok(())
        });
        damaged.await.unwrap();
        let request = ClaimRequest::new(9, Duration::from_secs(45));
        let mut searches = Vec::new();
        for secs in [100, 101, 159, 161, 90] {
            let claimed = store.claim(&request, Timestamp::from_secs(secs)).await;
            assert_eq!(claimed.unwrap_err().kind(), StoreErrorKind::Corrupt);
            let searched = store.write(|conn| {
                let statement = conn.prepare_cached(UNREADABLE).unwrap();
                Ok(statement.get_status(StatementStatus::Run))
            });
            searches.push(searched.await.unwrap());
        }
        assert_eq!(searches, [1, 1, 1, 2, 3]);
    }
}
