//! Writing the recipients of a broadcast page by page, in PostgreSQL.

use super::broadcasts::{Stored, save};
use super::connection::Tx;
use super::error::{Failed, corrupt};
use super::origins;
use crate::broadcast::BroadcastId;
use crate::clock::Timestamp;
use crate::store::{Cursor, NewDelivery, PageWrite};

pub(super) const ENQUEUE: &str = "INSERT INTO web_push.delivery (broadcast, key, origin, at) \
     SELECT $1, key, origin, $2 FROM unnest($3::bytea[], $4::bigint[]) AS fresh (key, origin) \
     ON CONFLICT DO NOTHING";

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
        let ids = origins::ids(tx, page.rows.iter().map(|row| &row.origin)).await?;
        let mut numbers = Vec::with_capacity(page.rows.len());
        for row in page.rows {
            let id = ids.get(&row.origin);
            numbers.push(*id.ok_or_else(|| corrupt("an origin without a number"))?);
        }
        let keys: Vec<_> = page
            .rows
            .iter()
            .map(|row| row.key.as_bytes().as_slice())
            .collect();
        let at = progress.due_at().as_millis();
        written = tx
            .execute(ENQUEUE, &[&stored.seq, &at, &keys, &numbers])
            .await?;
    }
    stored.progress.write_page(written, page.next);
    stored.cursor = *page.next;
    stored.expanded_at = now;
    save(tx, [&mut stored], now).await?;
    Ok(PageWrite::Stored)
}
