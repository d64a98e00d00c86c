//! Writing the recipients of a broadcast page by page, in PostgreSQL.

use std::collections::BTreeMap;

use tokio_postgres::types::ToSql;

use super::broadcasts::{Stored, save};
use super::connection::Tx;
use super::error::{Failed, corrupt};
use super::rows::{Columns, band_number, read};
use super::{origins, ready};
use crate::broadcast::BroadcastId;
use crate::clock::Timestamp;
use crate::store::{Cursor, NewDelivery, PageWrite};

pub(super) const ENQUEUE: &str = "INSERT INTO web_push.delivery (broadcast, key, origin, at, turn, band) \
     SELECT $1, key, origin, $2, turn, $3 FROM unnest($4::bytea[], $5::bigint[], $6::bigint[]) AS fresh (key, origin, turn) \
     ON CONFLICT DO NOTHING";
pub(super) const FLOWS: &str = "SELECT origin, turn FROM web_push.flow WHERE broadcast = $1 AND origin = ANY($2) \
     FOR NO KEY UPDATE";
pub(super) const SAVE_FLOWS: &str = "INSERT INTO web_push.flow AS f (broadcast, origin, turn) \
     SELECT $1, origin, turn FROM unnest($2::bigint[], $3::bigint[]) AS fresh (origin, turn) \
     ON CONFLICT (broadcast, origin) DO UPDATE SET turn = greatest(f.turn, excluded.turn)";

/// A page of recipients.
pub(super) struct Page<'a> {
    pub(super) of: BroadcastId,
    pub(super) expected: &'a Cursor,
    pub(super) rows: &'a [NewDelivery],
    pub(super) next: &'a Cursor,
}

pub(super) async fn enqueue_page(
    tx: &mut Tx<'_>,
    page: &Page<'_>,
    now: Timestamp,
) -> Result<PageWrite, Failed> {
    let Some(mut stored) = Stored::lock(tx, page.of).await? else {
        return Ok(PageWrite::Stale);
    };
    let progress = &stored.progress;
    if !progress.takes_page(&stored.cursor, page.expected, now) {
        return Ok(PageWrite::Stale);
    }
    let mut written = 0;
    if !page.rows.is_empty() {
        written = write(tx, &stored, page, now).await?;
    }
    let progress = &mut stored.progress;
    progress.write_page(written, page.next);
    stored.cursor = *page.next;
    stored.expand_at = progress.next_page_at(written, stored.expand_at, now);
    save(tx, [&mut stored], now).await?;
    Ok(PageWrite::Stored)
}

/// Writes the rows of a page. Returns the number of those that are new. The order of locks is broadcast, rows, flows,
/// origins; the first locks on origins exclude only their deletion.
async fn write(
    tx: &mut Tx<'_>,
    stored: &Stored,
    page: &Page<'_>,
    now: Timestamp,
) -> Result<u64, Failed> {
    let due_at = stored.progress.due_at();
    let is_due = due_at <= now;
    let places = origins::places(tx, page.rows.iter().map(|row| &row.origin)).await?;
    // The last turn given at each origin.
    let mut flows = BTreeMap::new();
    for place in places.values() {
        let claimed = place.turns.get(stored.band);
        let claimed = *claimed.ok_or_else(|| corrupt("an origin's turns"))?;
        flows.insert(place.id, claimed);
    }
    let is_first = stored.cursor == Cursor::Start;
    if !is_first {
        let ids: Vec<_> = flows.keys().copied().collect();
        let rows = tx.query(FLOWS, &[&stored.seq, &ids]).await?;
        let flow = |columns: &mut Columns<'_>| Ok((columns.get::<i64>()?, columns.get::<i64>()?));
        for (origin, turn) in read(&rows, flow)? {
            flows
                .entry(origin)
                .and_modify(|last| *last = turn.max(*last));
        }
    }
    let (mut keys, mut numbers, mut turns) = (Vec::new(), Vec::new(), Vec::new());
    for row in page.rows {
        let place = places.get(&row.origin);
        let id = place.map(|place| place.id);
        let last = id.and_then(|id| flows.get_mut(&id));
        let (id, last) = id
            .zip(last)
            .ok_or_else(|| corrupt("an origin without a number"))?;
        if is_due {
            *last = last.saturating_add(1);
        }
        keys.push(row.key.as_bytes().as_slice());
        numbers.push(id);
        turns.push(is_due.then_some(*last));
    }
    let (at, band) = (due_at.as_millis(), band_number(stored.band));
    let values: [&(dyn ToSql + Sync); 6] = [&stored.seq, &at, &band, &keys, &numbers, &turns];
    let written = tx.execute(ENQUEUE, &values).await?;
    let is_whole = is_first && *page.next == Cursor::End;
    if page.rows.len() > 1 || !is_whole {
        let (ids, last): (Vec<_>, Vec<_>) = flows.into_iter().unzip();
        tx.execute(SAVE_FLOWS, &[&stored.seq, &ids, &last]).await?;
    }
    if is_due {
        let unmarked = places.values().filter(|place| !place.is_ready);
        let unmarked: Vec<_> = unmarked.map(|place| place.id).collect();
        ready::mark_unmarked(tx, &unmarked).await?;
    }
    Ok(written)
}
