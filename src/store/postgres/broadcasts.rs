//! Broadcasts in PostgreSQL: read, locked, saved.

use std::collections::HashMap;
use std::num::NonZeroU32;

use tokio_postgres::types::ToSql;

use super::connection::{Database, Tx};
use super::content;
use super::error::{Failed, corrupt};
use super::rows::{Columns, first, integer, read};
use crate::broadcast::{BroadcastId, BroadcastStatus, Counts, FinalOutcome};
use crate::clock::Timestamp;
use crate::store::outcome_columns::outcome_columns;
use crate::store::readable::readable_or_none;
use crate::store::rules::{BroadcastProgress, LONGEST_PAGE, shares};
use crate::store::{Cursor, Expansion, StoreError};
use crate::subscription::EndpointKey;

/// The columns that [`Stored::read`] reads.
macro_rules! stored_columns {
    () => {
        concat!(
            "seq, id, expected, written, expanding, is_cancelled, is_held, created_at, send_at, deadline, pace, cursor, expand_at, \
             ended_at, forget_when_over, band, ",
            $crate::store::outcome_columns::outcome_columns!()
        )
    };
}
pub(super) use stored_columns;

pub(super) const BY_ID: &str = concat!(
    "SELECT ",
    stored_columns!(),
    " FROM web_push.broadcast WHERE id = $1"
);
pub(super) const LOCK_BY_ID: &str = concat!(
    "SELECT ",
    stored_columns!(),
    " FROM web_push.broadcast WHERE id = $1 FOR NO KEY UPDATE"
);
/// Locks in one order, so that there are no deadlocks.
pub(super) const LOCK: &str = concat!(
    "SELECT ",
    stored_columns!(),
    " FROM web_push.broadcast WHERE seq = ANY($1) ORDER BY seq FOR NO KEY UPDATE"
);
pub(super) const UNDERWAY: &str = concat!(
    "SELECT ",
    stored_columns!(),
    " FROM web_push.broadcast WHERE ended_at IS NULL ORDER BY deadline, seq LIMIT $1"
);
pub(super) const SAVE: &str = concat!(
    "UPDATE web_push.broadcast AS b SET written = fresh.written, expanding = fresh.expanding, \
     is_cancelled = fresh.is_cancelled, ended_at = fresh.ended_at, cursor = fresh.cursor, expand_at = fresh.expand_at, \
     accepted = fresh.accepted, gone = fresh.gone, key_mismatch = fresh.key_mismatch, sender_fault = fresh.sender_fault, \
     too_large = fresh.too_large, bad_request = fresh.bad_request, refused = fresh.refused, expired = fresh.expired, \
     failed = fresh.failed, cancelled = fresh.cancelled \
     FROM (SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::boolean[], $4::boolean[], $5::bigint[], $6::bytea[], $7::bigint[], \
         $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], \
         $15::bigint[], $16::bigint[], $17::bigint[]) \
         AS fresh (seq, written, expanding, is_cancelled, ended_at, cursor, expand_at, ",
    outcome_columns!(),
    ") CROSS JOIN LATERAL (SELECT old.ctid FROM web_push.broadcast AS old WHERE old.seq = fresh.seq OFFSET 0) AS place) \
         AS fresh WHERE b.ctid = fresh.ctid"
);
pub(super) const WIPE: &str = "WITH over AS (DELETE FROM web_push.flow WHERE broadcast = ANY($1)) \
     DELETE FROM web_push.content WHERE broadcast = ANY($1)";
/// Removes broadcasts whose counts cannot be read, after their last row.
pub(super) const FORGET_UNREADABLE: &str = "DELETE FROM web_push.broadcast AS b WHERE b.seq = ANY($1) \
     AND NOT EXISTS (SELECT 1 FROM web_push.delivery AS d WHERE d.broadcast = b.seq) RETURNING seq";
pub(super) const FORGET: &str = "WITH samples AS (DELETE FROM web_push.failure_sample WHERE broadcast = ANY($1)) \
     DELETE FROM web_push.broadcast WHERE seq = ANY($1)";
/// Urgent broadcasts and others. `expand_at` is never before the due time, so due broadcasts come first. One whose content is
/// missing has a null audience, which cannot be read. One without a readable id is left to its deadline: no call can name it.
pub(super) const EXPANDABLE: &str = "(SELECT true, id, audience, cursor, pace, trace_parent FROM web_push.broadcast b \
     LEFT JOIN LATERAL (SELECT audience, trace_parent FROM web_push.content WHERE content.broadcast = b.seq OFFSET 0) AS content ON true \
     WHERE expanding AND NOT is_held AND band = 0 AND expand_at <= $1 AND deadline > $1 AND octet_length(id) = 16 \
         ORDER BY expand_at, seq LIMIT $2) \
     UNION ALL (SELECT false, id, audience, cursor, pace, trace_parent FROM web_push.broadcast b \
     LEFT JOIN LATERAL (SELECT audience, trace_parent FROM web_push.content WHERE content.broadcast = b.seq OFFSET 0) AS content ON true \
     WHERE expanding AND NOT is_held AND band > 0 AND expand_at <= $1 AND deadline > $1 AND octet_length(id) = 16 \
         ORDER BY expand_at, seq LIMIT $2)";
/// Broadcasts whose last page was written by a replica with a faster clock. With a pace only a wrong clock is one.
pub(super) const EXPANDABLE_AHEAD: &str = "SELECT band = 0, id, audience, cursor, pace, trace_parent FROM web_push.broadcast b \
     LEFT JOIN LATERAL (SELECT audience, trace_parent FROM web_push.content WHERE content.broadcast = b.seq OFFSET 0) AS content ON true \
     WHERE expanding AND NOT is_held AND cursor IS NOT NULL AND expand_at > $1 AND due_at <= $1 AND deadline > $1 \
     AND (pace IS NULL OR expand_at > $3) AND octet_length(id) = 16 ORDER BY expand_at, seq LIMIT $2";

/// A broadcast's row.
pub(super) struct Stored {
    pub(super) seq: i64,
    pub(super) progress: BroadcastProgress,
    pub(super) cursor: Cursor,
    pub(super) expand_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) band: usize,
    forget_when_over: bool,
}

impl Stored {
    pub(super) fn read(columns: &mut Columns<'_>) -> Result<Self, StoreError> {
        let seq = columns.get()?;
        let mut progress = BroadcastProgress {
            id: BroadcastId::from_bytes(columns.bytes()?),
            expected: columns.count()?,
            written: columns.count()?,
            expanding: columns.get()?,
            cancelled: columns.get()?,
            held: columns.get()?,
            created_at: columns.time()?,
            send_at: columns.time_or_null()?,
            deadline: columns.time()?,
            pace: read_pace(columns)?,
            counts: Counts::default(),
        };
        let cursor = read_cursor(columns)?;
        let expand_at = columns.time()?;
        let ended_at = columns.time_or_null()?;
        let forget_when_over = columns.get()?;
        let band: i16 = columns.get()?;
        for &outcome in FinalOutcome::ALL {
            progress.counts.add(outcome, columns.count()?);
        }
        Ok(Self {
            seq,
            progress,
            cursor,
            expand_at,
            ended_at,
            band: usize::try_from(band).map_err(|_| corrupt("a band"))?,
            forget_when_over,
        })
    }

    /// Locks the row of an id.
    pub(super) async fn lock(tx: &mut Tx<'_>, id: BroadcastId) -> Result<Option<Self>, Failed> {
        let rows = tx.query(LOCK_BY_ID, &[&id.as_bytes().as_slice()]).await?;
        Ok(first(&rows, Self::read)?)
    }

    /// Locks rows. Those that cannot be read are left out.
    pub(super) async fn lock_all(
        tx: &mut Tx<'_>,
        seqs: &[i64],
    ) -> Result<HashMap<i64, Self>, Failed> {
        if seqs.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = tx.query(LOCK, &[&seqs]).await?;
        let rows = read(&rows, |columns| readable_or_none(Self::read(columns)))?;
        let rows = rows.into_iter().flatten();
        Ok(rows.map(|row| (row.seq, row)).collect())
    }
}

/// Writes the counts back. Wipes the content of broadcasts that are over.
pub(super) async fn save(
    tx: &mut Tx<'_>,
    changed: impl IntoIterator<Item = &mut Stored>,
    now: Timestamp,
) -> Result<(), Failed> {
    let (mut kept, mut over, mut forgotten): (Vec<&Stored>, Vec<_>, Vec<_>) = Default::default();
    for stored in changed {
        if stored.ended_at.is_none() && stored.progress.is_over() {
            stored.ended_at = Some(now);
            over.push(stored.seq);
            if stored.forget_when_over {
                forgotten.push(stored.seq);
                continue;
            }
        }
        kept.push(stored);
    }
    if !kept.is_empty() {
        let progress = |read: fn(&BroadcastProgress) -> i64| -> Vec<i64> {
            kept.iter().map(|stored| read(&stored.progress)).collect()
        };
        let flags = |read: fn(&BroadcastProgress) -> bool| -> Vec<bool> {
            kept.iter().map(|stored| read(&stored.progress)).collect()
        };
        let seqs: Vec<_> = kept.iter().map(|stored| stored.seq).collect();
        let written = progress(|progress| integer(progress.written));
        let expanding = flags(|progress| progress.expanding);
        let cancelled = flags(|progress| progress.cancelled);
        let ended_at: Vec<_> = kept
            .iter()
            .map(|stored| stored.ended_at.map(Timestamp::as_millis))
            .collect();
        let cursors: Vec<_> = kept
            .iter()
            .map(|stored| cursor_bytes(&stored.cursor))
            .collect();
        let expand_at: Vec<_> = kept
            .iter()
            .map(|stored| stored.expand_at.as_millis())
            .collect();
        let counts = FinalOutcome::ALL.iter().map(|outcome| -> Vec<i64> {
            let count = |stored: &&Stored| integer(stored.progress.counts.of(*outcome));
            kept.iter().map(count).collect()
        });
        let counts: Vec<_> = counts.collect();
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![
            &seqs, &written, &expanding, &cancelled, &ended_at, &cursors, &expand_at,
        ];
        values.extend(counts.iter().map(|count| -> &(dyn ToSql + Sync) { count }));
        tx.execute(SAVE, &values).await?;
    }
    if !over.is_empty() {
        tx.execute(WIPE, &[&over]).await?;
    }
    if !forgotten.is_empty() {
        tx.execute(FORGET, &[&forgotten]).await?;
    }
    Ok(())
}

/// Serializes a cursor: null is the start, an empty value the end.
pub(super) fn cursor_bytes(cursor: &Cursor) -> Option<&[u8]> {
    match cursor {
        Cursor::Start => None,
        Cursor::After(key) => Some(key.as_bytes().as_slice()),
        Cursor::End => Some(&[]),
    }
}

fn read_cursor(columns: &mut Columns<'_>) -> Result<Cursor, StoreError> {
    let cursor: Option<&[u8]> = columns.get()?;
    match cursor {
        None => Ok(Cursor::Start),
        Some([]) => Ok(Cursor::End),
        Some(key) => {
            let key = key.try_into().map_err(|_| corrupt("a cursor"))?;
            Ok(Cursor::After(EndpointKey::from_bytes(key)))
        }
    }
}

/// Reads the most rows per second.
fn read_pace(columns: &mut Columns<'_>) -> Result<Option<NonZeroU32>, StoreError> {
    let pace: Option<i64> = columns.get()?;
    let read = |pace| u32::try_from(pace).ok().and_then(NonZeroU32::new);
    pace.map(|pace| read(pace).ok_or_else(|| corrupt("a pace")))
        .transpose()
}

pub(super) async fn expandable(
    database: &Database,
    limit: usize,
    take: u64,
    now: Timestamp,
) -> Result<Vec<Expansion>, StoreError> {
    let (now, longest) = (now.as_millis(), (now + LONGEST_PAGE).as_millis());
    let expansion = |columns: &mut Columns<'_>| {
        let is_urgent: bool = columns.get()?;
        let id = BroadcastId::from_bytes(columns.bytes()?);
        let read = content::audience(columns).and_then(|audience| {
            let cursor = read_cursor(columns)?;
            let expansion = Expansion::new(id, audience, cursor, read_pace(columns)?);
            Ok(Expansion {
                trace_parent: content::trace_parent(columns),
                ..expansion
            })
        });
        Ok(Expansion {
            is_urgent,
            ..read.unwrap_or_else(|_| Expansion::unreadable(id))
        })
    };
    let rows = database.query(EXPANDABLE, &[&now, &integer(limit)]).await?;
    let found = read(&rows, expansion)?;
    let (mut found, others): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|expansion| expansion.is_urgent);
    let [urgent, rest, _] = shares(limit, take, [found.len(), others.len(), 0]);
    found.truncate(urgent);
    found.extend(others.into_iter().take(rest));
    let left = limit.saturating_sub(found.len());
    if left > 0 {
        let rows = database
            .query(EXPANDABLE_AHEAD, &[&now, &integer(left), &longest])
            .await?;
        found.extend(read(&rows, expansion)?);
    }
    Ok(found)
}

pub(super) async fn status(
    database: &Database,
    id: BroadcastId,
    now: Timestamp,
) -> Result<Option<BroadcastStatus>, StoreError> {
    let rows = database.query(BY_ID, &[&id.as_bytes().as_slice()]).await?;
    let stored = first(&rows, Stored::read)?;
    Ok(stored.map(|stored| stored.progress.status(now)))
}

pub(super) async fn underway(
    database: &Database,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<BroadcastStatus>, StoreError> {
    let rows = database.query(UNDERWAY, &[&integer(limit)]).await?;
    // Those that cannot be read have no status. The worker parks them.
    let stored = read(&rows, |columns| readable_or_none(Stored::read(columns)))?;
    let status = |stored: Stored| stored.progress.status(now);
    Ok(stored.into_iter().flatten().map(status).collect())
}
