//! What a claim does before it claims: rows whose time has come become ready.

use super::attempts::in_transaction;
use super::connection::{Database, Tx};
use super::ending::{self, unswept};
use super::error::Failed;
use super::holding;
use super::ready::{self, LET_GO};
use super::rows::{first, integer, read};
use crate::clock::Timestamp;
use crate::store::{STEP, StoreError};

/// Whether there are rows of cancelled broadcasts to end, broadcasts that go on, paused ones, rows whose time has come, and
/// origins whose pause is over.
pub(super) const DUE: &str = concat!(
    "SELECT EXISTS (",
    unswept!(),
    "), EXISTS (SELECT 1 FROM web_push.broadcast WHERE resuming), \
     EXISTS (SELECT 1 FROM web_push.broadcast WHERE is_held AND ended_at IS NULL), \
     EXISTS (SELECT 1 FROM web_push.delivery WHERE turn IS NULL AND leased AND at <= $1) \
         OR EXISTS (SELECT 1 FROM web_push.delivery WHERE turn IS NULL AND NOT leased AND at <= $1), \
     EXISTS (SELECT 1 FROM web_push.origin WHERE held AND paused_until <= $1)"
);
/// Gives turns to rows whose time has come, in the order of their times, after the highest claimed turn and the last one
/// of their broadcast, as far as that is no damage: one such number must not end all claims. Skips rows that another claim wakes,
/// and does not wait for a page that is being written.
pub(super) const WAKE: &str = "WITH due AS MATERIALIZED (SELECT woken.* FROM (VALUES (false), (true)) AS kind (leased) \
         CROSS JOIN LATERAL (SELECT d.ctid, d.broadcast, d.origin, d.band, d.at, d.key FROM web_push.delivery AS d \
             WHERE d.turn IS NULL AND d.leased = kind.leased AND d.at <= $1 \
             ORDER BY d.at LIMIT $2 FOR UPDATE SKIP LOCKED) AS woken), \
     placed AS MATERIALIZED (SELECT due.ctid, due.broadcast, due.origin, \
             least(greatest(o.turns[due.band + 1], coalesce(f.turn, 0)), 4611686018427387904) + row_number() OVER flow AS turn, \
             row_number() OVER flow = count(*) OVER (PARTITION BY due.broadcast, due.origin) AS is_last \
         FROM due CROSS JOIN LATERAL (SELECT turns FROM web_push.origin WHERE origin.id = due.origin OFFSET 0) AS o \
         LEFT JOIN LATERAL (SELECT turn FROM web_push.flow WHERE flow.broadcast = due.broadcast \
             AND flow.origin = due.origin OFFSET 0) AS f ON true \
         WINDOW flow AS (PARTITION BY due.broadcast, due.origin ORDER BY due.at, due.key)), \
     moved AS (UPDATE web_push.flow AS f SET turn = greatest(f.turn, last.turn) \
         FROM (SELECT flow.ctid, placed.turn FROM placed CROSS JOIN LATERAL (SELECT ctid FROM web_push.flow \
             WHERE flow.broadcast = placed.broadcast AND flow.origin = placed.origin \
             FOR NO KEY UPDATE SKIP LOCKED) AS flow WHERE placed.is_last) AS last WHERE f.ctid = last.ctid) \
     UPDATE web_push.delivery AS d SET turn = placed.turn, worker = NULL FROM placed \
         WHERE d.ctid = placed.ctid RETURNING d.origin";

/// What a claim finds.
pub(super) struct Prepared {
    /// Whether there were rows of cancelled broadcasts.
    pub(super) is_unswept: bool,
    /// Whether rows or origins may have become ready.
    pub(super) is_changed: bool,
    /// Whether there are paused broadcasts.
    pub(super) has_held: bool,
    /// Whether the time of more rows may have come than were made ready.
    pub(super) more: bool,
}

/// Ends rows of cancelled broadcasts, brings rows back of those that go on, makes rows ready whose time has come, and puts
/// origins whose pause is over back into the order of turns: one step of each. In transactions of their own: the first waits for locks on broadcasts, which a
/// claim never does.
pub(super) async fn prepare(database: &Database, now: Timestamp) -> Result<Prepared, StoreError> {
    let millis = now.as_millis();
    let rows = database.query(DUE, &[&millis, &1_i64]).await?;
    let due = first(&rows, |columns| {
        let (is_unswept, is_resuming, has_held) = (columns.get()?, columns.get()?, columns.get()?);
        let (is_due, is_over) = (columns.get()?, columns.get()?);
        Ok((is_unswept, is_resuming, has_held, is_due, is_over))
    })?;
    let (is_unswept, is_resuming, has_held, mut is_due, is_over) = due.unwrap_or_default();
    if is_unswept {
        ending::sweep(database, now).await?;
    }
    if is_resuming {
        is_due |= holding::bring_back(database, now).await? > 0;
    }
    let woken = match is_due {
        true => wake(database, now).await?,
        false => 0,
    };
    if is_over {
        database.execute(LET_GO, &[&millis, &integer(STEP)]).await?;
    }
    Ok(Prepared {
        is_unswept,
        is_changed: is_unswept || is_due || is_over,
        has_held,
        more: woken >= STEP,
    })
}

/// Makes rows ready whose time has come: up to [`STEP`] retries and as many expired leases. Returns their number.
pub(super) async fn wake(database: &Database, now: Timestamp) -> Result<usize, StoreError> {
    in_transaction!(database, |tx| wake_in(tx, now))
}

/// The order of locks is that of writing a page: rows, flows, origins.
async fn wake_in(tx: &mut Tx<'_>, now: Timestamp) -> Result<usize, Failed> {
    let rows = tx.query(WAKE, &[&now.as_millis(), &integer(STEP)]).await?;
    let mut origins: Vec<i64> = read(&rows, |columns| columns.get())?;
    origins.sort_unstable();
    origins.dedup();
    if !origins.is_empty() {
        ready::mark(tx, &origins).await?;
    }
    Ok(rows.len())
}
