//! Paused broadcasts in PostgreSQL (L21).
//!
//! A ready row that a claim meets is put aside: it waits for a moment that is its broadcast's own and never comes. So the
//! rows of one broadcast are found among those that wait. A broadcast is locked while its rows are put aside, so that none
//! is behind one that goes on.

use super::attempts::in_transaction;
use super::broadcasts::Stored;
use super::connection::{Database, Tx};
use super::error::Failed;
use super::rows::{Values, first, integer, read};
use super::taking::PASSED_AT_LEAST;
use crate::broadcast::{BroadcastId, BroadcastStatus};
use crate::clock::Timestamp;
use crate::store::rules::{aside, aside_sql};
use crate::store::{STEP, StoreError};

pub(super) const HOLD: &str =
    "UPDATE web_push.broadcast SET is_held = $2, resuming = $3 WHERE seq = $1";
/// If rows of a broadcast that goes on were put aside, its next rows stand in line behind the highest claimed turns: its last
/// turns are those of rows that are in line no more.
pub(super) const STAND_IN_FRONT: &str = "UPDATE web_push.flow SET turn = 0 WHERE broadcast = $1 \
     AND (EXISTS (SELECT 1 FROM web_push.delivery WHERE turn IS NULL AND NOT leased AND at = $2) \
         OR EXISTS (SELECT 1 FROM web_push.delivery WHERE turn IS NULL AND leased AND at = $2))";
/// Paused broadcasts with rows in front of others at some origins. Waits for a call that lets one go on.
pub(super) const LOCK_HELD: &str = "SELECT seq FROM web_push.broadcast WHERE is_held AND ended_at IS NULL \
     AND seq = ANY(ARRAY(SELECT DISTINCT next.broadcast FROM unnest($1::bigint[]) AS asked (origin) \
         CROSS JOIN (VALUES (0::smallint), (1::smallint), (2::smallint)) AS bands (band) \
         CROSS JOIN LATERAL (SELECT broadcast FROM web_push.delivery \
             WHERE origin = asked.origin AND band = bands.band AND turn IS NOT NULL ORDER BY turn LIMIT $2) AS next)) \
     ORDER BY seq FOR SHARE";
/// Rows of these broadcasts that stand in front of others at some origins. Reads as many as a claim passes over.
pub(super) const PUT_ASIDE: &str = concat!(
    "WITH met AS MATERIALIZED (SELECT locked.ctid FROM unnest($1::bigint[]) AS asked (origin) \
         CROSS JOIN (VALUES (0::smallint), (1::smallint), (2::smallint)) AS bands (band) \
         CROSS JOIN LATERAL (SELECT ctid, turn, broadcast FROM web_push.delivery \
             WHERE origin = asked.origin AND band = bands.band AND turn IS NOT NULL ORDER BY turn LIMIT $4) AS next \
         CROSS JOIN LATERAL (SELECT d.ctid FROM web_push.delivery AS d WHERE d.ctid = next.ctid AND d.turn = next.turn \
             FOR UPDATE SKIP LOCKED) AS locked \
         WHERE next.broadcast = ANY($2) LIMIT $3) \
     UPDATE web_push.delivery AS d SET turn = NULL, at = d.broadcast + ",
    aside_sql!(),
    " WHERE d.ctid = ANY(ARRAY(SELECT ctid FROM met))"
);
pub(super) const LOCK_RESUMING: &str = "SELECT seq FROM web_push.broadcast WHERE resuming ORDER BY seq LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED";
pub(super) const BRING_BACK: &str = "UPDATE web_push.delivery AS d SET at = $2 WHERE d.ctid = ANY(ARRAY( \
     SELECT one.ctid FROM (VALUES (false), (true)) AS kind (leased) CROSS JOIN LATERAL ( \
         SELECT ctid FROM web_push.delivery WHERE turn IS NULL AND leased = kind.leased AND at = $1 \
         LIMIT $3 FOR UPDATE SKIP LOCKED) AS one LIMIT $3))";
/// A second statement, which sees rows that another transaction has locked.
pub(super) const IS_BACK: &str = "SELECT NOT EXISTS (SELECT 1 FROM web_push.delivery WHERE turn IS NULL AND NOT leased AND at = $1) \
     AND NOT EXISTS (SELECT 1 FROM web_push.delivery WHERE turn IS NULL AND leased AND at = $1)";

pub(super) async fn hold(
    database: &Database,
    id: BroadcastId,
    is_held: bool,
    now: Timestamp,
) -> Result<Option<BroadcastStatus>, StoreError> {
    let held = in_transaction!(database, |tx| hold_in(tx, id, is_held, now))?;
    if !is_held {
        bring_back(database, now).await?;
    }
    Ok(held)
}

async fn hold_in(
    tx: &mut Tx<'_>,
    id: BroadcastId,
    is_held: bool,
    now: Timestamp,
) -> Result<Option<BroadcastStatus>, Failed> {
    let Some(mut stored) = Stored::lock(tx, id).await? else {
        return Ok(None);
    };
    if stored.progress.hold(is_held) {
        tx.execute(HOLD, &[&stored.seq, &is_held, &!is_held])
            .await?;
        if !is_held {
            let at = aside(stored.seq).as_millis();
            tx.execute(STAND_IN_FRONT, &[&stored.seq, &at]).await?;
        }
    }
    Ok(Some(stored.progress.status(now)))
}

/// Puts rows of paused broadcasts aside at origins where a claim has found fewer rows than it asked for: one step. Returns
/// their number.
pub(super) async fn put_aside(database: &Database, origins: &[i64]) -> Result<u64, StoreError> {
    in_transaction!(database, |tx| put_aside_in(tx, origins))
}

/// Waits for locks on broadcasts, and for none on rows.
async fn put_aside_in(tx: &mut Tx<'_>, origins: &[i64]) -> Result<u64, Failed> {
    let each = integer((STEP / origins.len().max(1)).max(PASSED_AT_LEAST));
    let rows = tx.query(LOCK_HELD, &[&origins, &each]).await?;
    let held: Vec<i64> = read(&rows, |columns| columns.get())?;
    if held.is_empty() {
        return Ok(0);
    }
    let values: Values<'_> = &[&origins, &held, &integer(STEP), &each];
    tx.execute(PUT_ASIDE, values).await
}

/// Makes rows due that were put aside while their broadcast was paused: one step. Returns their number.
pub(super) async fn bring_back(database: &Database, now: Timestamp) -> Result<u64, StoreError> {
    in_transaction!(database, |tx| bring_back_in(tx, now))
}

async fn bring_back_in(tx: &mut Tx<'_>, now: Timestamp) -> Result<u64, Failed> {
    let rows = tx.query(LOCK_RESUMING, &[]).await?;
    let Some(seq) = first(&rows, |columns| columns.get::<i64>())? else {
        return Ok(0);
    };
    let at = aside(seq).as_millis();
    let values: Values<'_> = &[&at, &now.as_millis(), &integer(STEP)];
    let back = tx.execute(BRING_BACK, values).await?;
    let is_back = first(&tx.query(IS_BACK, &[&at]).await?, |columns| columns.get())?;
    if is_back == Some(true) {
        tx.execute(HOLD, &[&seq, &false, &false]).await?;
    }
    Ok(back)
}
