//! The expansion of broadcasts in SQLite, page by page.

use std::num::NonZeroU32;

use rusqlite::params;

use super::broadcasts::Stored;
use super::connection::Connection;
use super::content;
use super::error::corrupt;
use super::query::{Columns, all, execute, integer};
use super::turns::Turns;
use crate::broadcast::BroadcastId;
use crate::clock::Timestamp;
use crate::store::rules::{LONGEST_PAGE, shares};
use crate::store::{Cursor, Expansion, NewDelivery, PageWrite, StoreError};
use crate::subscription::EndpointKey;

/// `expand_at` is never before the due time, so due broadcasts come first. One whose content is missing has a null audience,
/// which cannot be read. One without a readable id is left to its deadline: no call can name it.
pub(super) const EXPANDABLE: &str = "SELECT id, (SELECT audience FROM content WHERE content.broadcast = seq), cursor, pace, \
     (SELECT trace_parent FROM content WHERE content.broadcast = seq) \
     FROM broadcast INDEXED BY broadcast_expanding \
     WHERE expanding = 1 AND is_held = 0 AND is_urgent = ?3 AND expand_at <= ?1 AND deadline > ?1 \
     AND typeof(id) = 'blob' AND length(id) = 16 ORDER BY expand_at, seq LIMIT ?2";
/// Broadcasts whose last page was written by a replica with a faster clock. With a pace only a wrong clock is one.
pub(super) const EXPANDABLE_AHEAD: &str = "SELECT id, (SELECT audience FROM content WHERE content.broadcast = seq), cursor, pace, \
     (SELECT trace_parent FROM content WHERE content.broadcast = seq) \
     FROM broadcast INDEXED BY broadcast_started \
     WHERE expanding = 1 AND is_held = 0 AND is_urgent = ?3 AND cursor IS NOT NULL AND expand_at > ?1 AND due_at <= ?1 AND deadline > ?1 \
     AND (pace IS NULL OR expand_at > ?4) AND typeof(id) = 'blob' AND length(id) = 16 ORDER BY expand_at, seq LIMIT ?2";
const ENQUEUE: &str = "INSERT INTO delivery (broadcast, key, origin, band, turn, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
     ON CONFLICT (broadcast, key) DO NOTHING";
pub(super) const MOVE_CURSOR: &str =
    "UPDATE broadcast SET cursor = ?2, expand_at = ?3 WHERE seq = ?1";

/// Lists broadcasts to expand. `take` is the number of the list, which decides where the shares of short ones are rounded up.
pub(super) fn expandable(
    conn: &Connection,
    limit: usize,
    take: u64,
    now: Timestamp,
) -> Result<Vec<Expansion>, StoreError> {
    let (now, longest) = (now.as_millis(), (now + LONGEST_PAGE).as_millis());
    let read = |columns: &mut Columns<'_, '_>, is_urgent| {
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
    let list = |is_urgent: bool| {
        let read = |columns: &mut Columns<'_, '_>| read(columns, is_urgent);
        let mut found = all(
            conn,
            EXPANDABLE,
            params![now, integer(limit), is_urgent],
            read,
        )?;
        let left = integer(limit.saturating_sub(found.len()));
        found.extend(all(
            conn,
            EXPANDABLE_AHEAD,
            params![now, left, is_urgent, longest],
            read,
        )?);
        Ok::<_, StoreError>(found)
    };
    let (mut found, mut others) = (list(true)?, list(false)?);
    let [of_urgent, of_others, _] = shares(limit, take, [found.len(), others.len(), 0]);
    found.truncate(of_urgent);
    others.truncate(of_others);
    found.append(&mut others);
    Ok(found)
}

pub(super) fn enqueue_page(
    conn: &Connection,
    id: BroadcastId,
    expected: Cursor,
    rows: &[NewDelivery],
    next: Cursor,
    now: Timestamp,
) -> Result<PageWrite, StoreError> {
    let Some(mut stored) = Stored::by_id(conn, id)? else {
        return Ok(PageWrite::Stale);
    };
    if !stored.progress.takes_page(&stored.cursor, &expected, now) {
        return Ok(PageWrite::Stale);
    }
    let written = write_rows(conn, &stored, rows, next, Turns::new(conn), now)?;
    stored.write_page(written, &next, now);
    let values = params![
        stored.seq,
        cursor_value(&stored.cursor),
        stored.expand_at.as_millis()
    ];
    execute(conn, MOVE_CURSOR, values)?;
    stored.save(conn, now)?;
    Ok(PageWrite::Stored)
}

/// Writes the rows of a page that ends at the cursor `next`. Returns the number of those that there were not.
pub(super) fn write_rows(
    conn: &Connection,
    stored: &Stored,
    rows: &[NewDelivery],
    next: Cursor,
    mut turns: Turns<'_>,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let at = stored.progress.due_at();
    let mut written = 0;
    for row in rows {
        let origin = turns.origin(&row.origin)?;
        let (seq, band) = (stored.seq, stored.band);
        let turn = match at <= now {
            true => Some(turns.next(seq, origin, band)?),
            false => None,
        };
        let (key, at) = (row.key.as_bytes(), at.as_millis());
        let values = params![seq, key, origin, integer(band), turn, at];
        if execute(conn, ENQUEUE, values)? > 0 {
            written += 1;
        } else if turn.is_some() {
            turns.take_back(seq, origin);
        }
    }
    turns.save(next != Cursor::End)?;
    Ok(written)
}

/// A cursor as it is stored: null is the start, an empty value the end.
pub(super) fn cursor_value(cursor: &Cursor) -> Option<&[u8]> {
    match cursor {
        Cursor::Start => None,
        Cursor::After(key) => Some(key.as_bytes().as_slice()),
        Cursor::End => Some(&[]),
    }
}

/// Reads what [`cursor_value`] has written.
pub(super) fn read_cursor(columns: &mut Columns<'_, '_>) -> Result<Cursor, StoreError> {
    let cursor: Option<Vec<u8>> = columns.get()?;
    match cursor {
        None => Ok(Cursor::Start),
        Some(key) if key.is_empty() => Ok(Cursor::End),
        Some(key) => {
            let key = key.try_into().map_err(|_| corrupt("a cursor"))?;
            Ok(Cursor::After(EndpointKey::from_bytes(key)))
        }
    }
}

/// Reads the most rows per second.
pub(super) fn read_pace(columns: &mut Columns<'_, '_>) -> Result<Option<NonZeroU32>, StoreError> {
    let pace: Option<u32> = columns.get()?;
    pace.map(|pace| NonZeroU32::new(pace).ok_or_else(|| corrupt("a pace")))
        .transpose()
}
