//! Broadcasts in SQLite: opened and ended. How they are expanded is in `expansion.rs`.

use std::collections::HashSet;
use std::num::NonZeroU32;

use rusqlite::types::Value;
use rusqlite::{params, params_from_iter};

use super::claims::END_PROBE;
use super::connection::Connection;
use super::content;
use super::error::corrupt;
use super::expansion::{self, cursor_value, read_cursor, read_pace};
use super::holding;
use super::query::{Columns, all, execute, first, integer};
use super::turns::{self, Turns};
use crate::broadcast::{BroadcastId, BroadcastStatus, Counts, FinalOutcome};
use crate::clock::Timestamp;
use crate::observe;
use crate::store::outcome_columns::outcome_columns;
use crate::store::readable::readable_or_none;
use crate::store::rules::{BroadcastProgress, aside_sql, band};
use crate::store::{Cursor, Idempotency, NewBroadcast, Opened, Page, Pruned, STEP, StoreError};
use crate::subscription::{EndpointKey, Origin};

/// The columns that [`Stored::read`] reads. Of the first ones [`Flags::read`] reads what damage has left.
macro_rules! stored_columns {
    () => {
        concat!(
            "seq, id, is_cancelled, is_held, expected, written, expanding, created_at, send_at, deadline, pace, cursor, expand_at, ended_at, band, ",
            $crate::store::outcome_columns::outcome_columns!()
        )
    };
}
pub(super) use stored_columns;

pub(super) const BY_ID: &str = concat!(
    "SELECT ",
    stored_columns!(),
    " FROM broadcast WHERE id = ?1"
);
pub(super) const BY_SEQ: &str = concat!(
    "SELECT ",
    stored_columns!(),
    " FROM broadcast WHERE seq = ?1"
);
pub(super) const UNDERWAY: &str = concat!(
    "SELECT ",
    stored_columns!(),
    " FROM broadcast INDEXED BY broadcast_open WHERE ended_at IS NULL ORDER BY deadline LIMIT ?1"
);
pub(super) const BY_IDEMPOTENCY_KEY: &str = "SELECT seq, fingerprint FROM broadcast INDEXED BY broadcast_idempotency WHERE idempotency_key = ?1";
/// With what its first page makes of it: written once.
const OPEN: &str = "INSERT INTO broadcast (id, created_at, send_at, due_at, deadline, expected, written, expanding, cursor, \
     expand_at, idempotency_key, fingerprint, band, pace) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) ON CONFLICT DO NOTHING";
/// Rows that a damaged file has left without a broadcast. A new one may get their number, and has no such recipients.
pub(super) const DELETE_LEFT: &str = "DELETE FROM delivery WHERE broadcast = ?1";
pub(super) const SAVE: &str = concat!(
    "UPDATE broadcast SET (written, expanding, is_cancelled, ended_at, ",
    outcome_columns!(),
    ") = (?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) WHERE seq = ?1"
);
pub(super) const UNLEASED: &str = concat!(
    "SELECT key, fence FROM delivery \
     WHERE broadcast = ?1 AND (leased = 0 OR at <= ?2 OR at >= ",
    aside_sql!(),
    ") LIMIT ?3"
);
pub(super) const DELETE: &str = "DELETE FROM delivery WHERE broadcast = ?1 AND key = ?2";
pub(super) const END: &str =
    "DELETE FROM delivery WHERE broadcast = ?1 AND key = ?2 RETURNING fence";
pub(super) const LATE: &str = "SELECT seq FROM broadcast INDEXED BY broadcast_open WHERE ended_at IS NULL AND deadline <= ?1 \
     ORDER BY deadline LIMIT ?2 OFFSET ?3";
pub(super) const CANCELLED: &str = "SELECT seq FROM broadcast INDEXED BY broadcast_cancelled \
     WHERE is_cancelled = 1 AND ended_at IS NULL ORDER BY seq LIMIT ?1";
/// Removes a broadcast whose counts cannot be read, after its last row. A text where a number belongs could not be kept.
pub(super) const FORGET_UNREADABLE: &str = "DELETE FROM broadcast \
     WHERE seq = ?1 AND NOT EXISTS (SELECT 1 FROM delivery WHERE broadcast = ?1)";
pub(super) const FORGET: &str = "DELETE FROM broadcast WHERE seq = ?1";
pub(super) const PRUNE: &str = "DELETE FROM broadcast WHERE seq IN \
     (SELECT seq FROM broadcast INDEXED BY broadcast_ended WHERE ended_at < ?1 ORDER BY ended_at LIMIT ?2)";
/// The last of the next origins by id.
pub(super) const NEXT_ORIGINS: &str =
    "SELECT id FROM origin WHERE id > ?1 ORDER BY id LIMIT 1 OFFSET ?2";
/// Origins without rows whose pause and tally are old, within a range of ids.
pub(super) const PRUNE_ORIGINS: &str = "DELETE FROM origin WHERE id > ?2 AND id <= ?3 \
     AND (paused_until IS NULL OR paused_until <= ?1) AND (tallied_at IS NULL OR tallied_at <= ?1) \
     AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.origin = origin.id)";
pub(super) const ORIGIN_ID: &str = "SELECT id FROM origin WHERE origin = ?1";
const NEW_ORIGIN: &str = "INSERT INTO origin (origin) VALUES (?1) RETURNING id";

/// A broadcast's row.
pub(super) struct Stored {
    pub(super) seq: i64,
    pub(super) progress: BroadcastProgress,
    pub(super) cursor: Cursor,
    pub(super) expand_at: Timestamp,
    ended_at: Option<Timestamp>,
    pub(super) band: usize,
}

impl Stored {
    pub(super) fn by_id(conn: &Connection, id: BroadcastId) -> Result<Option<Self>, StoreError> {
        first(conn, BY_ID, [id.as_bytes()], Self::read)
    }

    pub(super) fn by_seq(conn: &Connection, seq: i64) -> Result<Self, StoreError> {
        first(conn, BY_SEQ, [seq], Self::read)?.ok_or_else(|| corrupt("a row without a broadcast"))
    }

    pub(super) fn read(columns: &mut Columns<'_, '_>) -> Result<Self, StoreError> {
        let seq = columns.get()?;
        let mut progress = BroadcastProgress {
            id: BroadcastId::from_bytes(columns.bytes()?),
            cancelled: columns.flag()?,
            held: columns.flag()?,
            expected: columns.count()?,
            written: columns.count()?,
            expanding: columns.flag()?,
            created_at: columns.time()?,
            send_at: columns.time_or_null()?,
            deadline: columns.time()?,
            pace: read_pace(columns)?,
            counts: Counts::default(),
        };
        let cursor = read_cursor(columns)?;
        let expand_at = columns.time()?;
        let ended_at = columns.time_or_null()?;
        let band = columns.get::<u8>()?;
        for &outcome in FinalOutcome::ALL {
            progress.counts.add(outcome, columns.count()?);
        }
        Ok(Self {
            seq,
            progress,
            cursor,
            expand_at,
            ended_at,
            band: usize::from(band),
        })
    }

    /// Notes a page of `rows` new rows. The caller writes it.
    pub(super) fn write_page(&mut self, rows: u64, next: &Cursor, now: Timestamp) {
        self.progress.write_page(rows, next);
        self.expand_at = self.progress.next_page_at(rows, self.expand_at, now);
        self.cursor = *next;
    }

    /// Writes the counts back. Wipes the content of a broadcast that is over.
    pub(super) fn save(&mut self, conn: &Connection, now: Timestamp) -> Result<(), StoreError> {
        if self.ended_at.is_none() && self.progress.is_over() {
            self.ended_at = Some(now);
            turns::forget(conn, self.seq)?;
            if content::delete(conn, self.seq)? {
                return execute(conn, FORGET, [self.seq]).map(|_| ());
            }
        }
        let progress = &self.progress;
        let mut values = vec![
            Value::Integer(self.seq),
            Value::Integer(integer(progress.written)),
            Value::Integer(i64::from(progress.expanding)),
            Value::Integer(i64::from(progress.cancelled)),
            self.ended_at
                .map_or(Value::Null, |at| Value::Integer(at.as_millis())),
        ];
        let counts = FinalOutcome::ALL.iter();
        let counts = counts.map(|outcome| progress.counts.of(*outcome));
        values.extend(counts.map(|count| Value::Integer(integer(count))));
        execute(conn, SAVE, params_from_iter(values)).map(|_| ())
    }

    /// Ends up to `limit` rows that are not leased at `now`. Returns their keys and fences. The caller saves.
    pub(super) fn end_unleased(
        &mut self,
        conn: &Connection,
        limit: usize,
        outcome: FinalOutcome,
        now: Timestamp,
    ) -> Result<Vec<([u8; 32], i64)>, StoreError> {
        let rows = delete_unleased(conn, self.seq, limit, now)?;
        self.progress.counts.add(outcome, rows.len() as u64);
        Ok(rows)
    }
}

/// What is read of a broadcast whose counts may be damaged.
pub(super) struct Flags {
    pub(super) seq: i64,
    /// `None` if it cannot be read: then no call can name the broadcast.
    pub(super) id: Option<BroadcastId>,
    pub(super) is_cancelled: bool,
    pub(super) is_held: bool,
}

impl Flags {
    /// A flag that cannot be read is not set.
    pub(super) fn read(columns: &mut Columns<'_, '_>) -> Self {
        Self {
            seq: columns.get().unwrap_or(i64::MIN),
            id: columns.bytes().ok().map(BroadcastId::from_bytes),
            is_cancelled: columns.flag().unwrap_or(false),
            is_held: columns.flag().unwrap_or(false),
        }
    }
}

/// Ends rows of a broadcast past its deadline whose counts cannot be read, and removes it after its last row. Returns the
/// number of rows, and whether it was removed.
fn expire_unreadable(
    conn: &Connection,
    seq: i64,
    limit: usize,
    now: Timestamp,
) -> Result<(usize, bool), StoreError> {
    let ended = delete_unleased(conn, seq, limit, now)?.len();
    let is_over = execute(conn, FORGET_UNREADABLE, [seq])? > 0;
    if is_over {
        observe::event!(
            ERROR,
            seq,
            "a broadcast whose counts cannot be read ended at its deadline"
        );
    }
    Ok((ended, is_over))
}

/// Deletes up to `limit` rows that are not leased at `now`. Returns their keys and fences.
fn delete_unleased(
    conn: &Connection,
    seq: i64,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<([u8; 32], i64)>, StoreError> {
    let values = params![seq, now.as_millis(), integer(limit)];
    let rows = all(conn, UNLEASED, values, |row| {
        Ok((row.bytes::<32>()?, row.get()?))
    })?;
    for (key, _) in &rows {
        execute(conn, DELETE, params![seq, key])?;
    }
    Ok(rows)
}

pub(super) fn open(
    conn: &Connection,
    new: &NewBroadcast,
    now: Timestamp,
) -> Result<Opened, StoreError> {
    let idempotency = new.idempotency.as_ref();
    let due_at = new.send_at.map_or(now, |at| at.max(now));
    let mut stored = Stored {
        seq: 0,
        progress: BroadcastProgress::new(new, now),
        cursor: Cursor::Start,
        expand_at: due_at,
        ended_at: None,
        band: band(new.message.urgency()),
    };
    let page = new.first_page(now);
    if let Some(Page { rows, next }) = page {
        let keys: HashSet<_> = rows.iter().map(|row| row.key).collect();
        stored.write_page(keys.len() as u64, next, now);
    }
    let Stored {
        progress,
        cursor,
        expand_at,
        band,
        ..
    } = &stored;
    let values = params![
        new.id.as_bytes(),
        now.as_millis(),
        new.send_at.map(Timestamp::as_millis),
        due_at.as_millis(),
        new.deadline.as_millis(),
        integer(new.recipients),
        integer(progress.written),
        progress.expanding,
        cursor_value(cursor),
        expand_at.as_millis(),
        idempotency.map(|idempotency| &idempotency.key),
        idempotency.map(|idempotency| idempotency.fingerprint),
        integer(*band),
        new.pace.map(NonZeroU32::get),
    ];
    if execute(conn, OPEN, values)? == 0 {
        return known(conn, new, now)?.ok_or_else(|| corrupt("a broadcast without a number"));
    }
    stored.seq = conn.last_insert_rowid();
    execute(conn, DELETE_LEFT, [stored.seq])?;
    content::insert(conn, stored.seq, new)?;
    if let Some(Page { rows, next }) = page {
        let turns = Turns::of_new(conn);
        expansion::write_rows(conn, &stored, rows, *next, turns, now)?;
        // Its audience is empty.
        if stored.progress.is_over() {
            stored.save(conn, now)?;
        }
    }
    Ok(Opened::New)
}

/// Returns the answer for a known broadcast (L2).
fn known(
    conn: &Connection,
    new: &NewBroadcast,
    now: Timestamp,
) -> Result<Option<Opened>, StoreError> {
    if let Some(stored) = Stored::by_id(conn, new.id)? {
        return Ok(Some(Opened::Repeat(stored.progress.status(now))));
    }
    let Some(Idempotency { key, fingerprint }) = &new.idempotency else {
        return Ok(None);
    };
    let found = first(conn, BY_IDEMPOTENCY_KEY, [key], |columns| {
        Ok((columns.get()?, columns.bytes::<32>()?))
    })?;
    Ok(match found {
        None => None,
        Some((_, stored)) if stored != *fingerprint => Some(Opened::Conflict),
        Some((seq, _)) => {
            let stored = Stored::by_seq(conn, seq)?;
            Some(Opened::Repeat(stored.progress.status(now)))
        }
    })
}

/// Returns the id of an origin's row, inserting it if it is unknown.
pub(super) fn origin_id(conn: &Connection, origin: &Origin) -> Result<i64, StoreError> {
    if let Some(id) = first(conn, ORIGIN_ID, [origin.as_str()], |row| row.get())? {
        return Ok(id);
    }
    first(conn, NEW_ORIGIN, [origin.as_str()], |row| row.get())?
        .ok_or_else(|| corrupt("an origin without a number"))
}

pub(super) fn cancel(
    conn: &Connection,
    id: BroadcastId,
    now: Timestamp,
) -> Result<Option<BroadcastStatus>, StoreError> {
    let Some(mut stored) = Stored::by_id(conn, id)? else {
        return Ok(None);
    };
    stored.progress.cancel();
    if stored.progress.cancelled && stored.ended_at.is_none() {
        stored.end_unleased(conn, STEP, FinalOutcome::Cancelled, now)?;
        stored.save(conn, now)?;
    }
    Ok(Some(stored.progress.status(now)))
}

/// Continues cancellations and the ends of pauses, and ends rows of cancelled broadcasts whose lease has ended (L9), in one
/// step. Returns the number of rows that the step has left.
pub(super) fn sweep(conn: &Connection, now: Timestamp) -> Result<usize, StoreError> {
    let mut left = STEP;
    for seq in all(conn, CANCELLED, [integer(STEP)], |row| row.get())? {
        // One that cannot be read ends at its deadline.
        let Some(mut stored) = readable_or_none(Stored::by_seq(conn, seq))? else {
            continue;
        };
        let rows = stored.end_unleased(conn, left, FinalOutcome::Cancelled, now)?;
        if rows.is_empty() {
            continue;
        }
        // 0 means never claimed.
        for (key, fence) in rows.iter().filter(|(_, fence)| *fence > 0) {
            execute(conn, END_PROBE, params![fence, key, now.as_millis()])?;
        }
        stored.save(conn, now)?;
        left -= rows.len();
        if left == 0 {
            break;
        }
    }
    Ok(left - holding::bring_back(conn, left, now)?)
}

/// Ends rows of a cancelled broadcast, which may have been the probes of their origins.
pub(super) fn end_cancelled(
    conn: &Connection,
    seq: i64,
    keys: &[EndpointKey],
    now: Timestamp,
) -> Result<(), StoreError> {
    for key in keys {
        let fence = first(conn, END, params![seq, key.as_bytes()], |row| {
            row.get::<i64>()
        })?;
        // 0 means never claimed.
        if let Some(fence) = fence.filter(|fence| *fence > 0) {
            execute(
                conn,
                END_PROBE,
                params![fence, key.as_bytes(), now.as_millis()],
            )?;
        }
    }
    // Without readable counts nothing is counted.
    let Some(mut stored) = readable_or_none(Stored::by_seq(conn, seq))? else {
        return Ok(());
    };
    let ended = keys.len() as u64;
    stored.progress.counts.add(FinalOutcome::Cancelled, ended);
    stored.save(conn, now)
}

pub(super) fn underway(
    conn: &Connection,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<BroadcastStatus>, StoreError> {
    // Those that cannot be read have no status. The worker parks them.
    let stored = all(conn, UNDERWAY, [integer(limit)], |columns| {
        Ok(Stored::read(columns).ok())
    })?;
    let status = |stored: Stored| stored.progress.status(now);
    Ok(stored.into_iter().flatten().map(status).collect())
}

pub(super) fn expire(conn: &Connection, limit: usize, now: Timestamp) -> Result<u64, StoreError> {
    let limit = limit.min(STEP);
    let mut ended = 0;
    // Broadcasts with leased rows stay in the list; the others leave it once they are handled.
    let mut skipped = 0;
    // Broadcasts without rows end too, so that their number needs a limit of its own.
    for _ in 0..STEP {
        if ended >= limit {
            break;
        }
        let values = params![now.as_millis(), 1, skipped];
        let Some(seq) = first(conn, LATE, values, |row| row.get())? else {
            break;
        };
        let Some(mut stored) = readable_or_none(Stored::by_seq(conn, seq))? else {
            let (rows, is_over) = expire_unreadable(conn, seq, limit - ended, now)?;
            ended += rows;
            skipped += i64::from(!is_over);
            continue;
        };
        let was_expanding = stored.progress.expanding;
        let outcome = stored.progress.expire();
        let rows = stored
            .end_unleased(conn, limit - ended, outcome, now)?
            .len();
        ended += rows;
        if rows > 0 || was_expanding {
            stored.save(conn, now)?;
        }
        skipped += i64::from(stored.ended_at.is_none());
    }
    Ok(ended as u64)
}

/// Removes old broadcasts and old origins with ids after `last_origin`. Returns the last id for the next step.
pub(super) fn prune(
    conn: &Connection,
    ended_before: Timestamp,
    last_origin: i64,
) -> Result<(Pruned, i64), StoreError> {
    let before = ended_before.as_millis();
    let broadcasts = execute(conn, PRUNE, params![before, integer(STEP)])?;
    let next = params![last_origin, integer(STEP - 1)];
    let next: Option<i64> = first(conn, NEXT_ORIGINS, next, |row| row.get())?;
    let values = params![before, last_origin, next.unwrap_or(i64::MAX)];
    execute(conn, PRUNE_ORIGINS, values)?;
    let pruned = Pruned {
        broadcasts: broadcasts as u64,
        more: broadcasts == STEP || next.is_some(),
    };
    // After the last origin the walk starts again.
    Ok((pruned, next.unwrap_or(i64::MIN)))
}

#[cfg(test)]
#[path = "pages_tests.rs"]
mod tests;
