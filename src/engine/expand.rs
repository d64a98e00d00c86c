//! Expansion: writes the rows of a broadcast, page by page.

use std::collections::HashMap;
use std::num::NonZeroU32;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::Engine;
use crate::broadcast::Audience;
use crate::clock::Timestamp;
use crate::observe;
use crate::store::{
    CountFilter, Cursor, Expansion, Liveness, NewDelivery, Page, PageWrite, StoreError,
    StoreErrorKind, SubscriptionRecord,
};
use crate::subscription::EndpointKey;

/// The most recipients written in one transaction.
const PAGE: usize = 500;
/// The pages per second of a broadcast with a pace, as long as they are not larger than others.
const PAGES_PER_SECOND: u32 = 4;
/// The most broadcasts expanded in one step, and the number of recipients after which the others wait for the next
/// step.
const EXPANSIONS: usize = 64;
const EXPANDED_AT_ONCE: usize = 4 * PAGE;
/// The most recipients of broadcasts that are not urgent which a step writes whatever it writes of urgent ones.
const OTHERS_AT_ONCE: usize = PAGE;
/// The most pages that are read at the same time.
const READS: usize = 16;
/// The most recipients written in the transaction that opens a broadcast, which its caller waits for.
const FIRST_PAGE: usize = 100;

/// Writes the next page of broadcasts that are not fully expanded. Returns the number of recipients.
///
/// A broadcast that cannot be read or expanded, or at which the store panics, is parked, and the others are expanded. Pages are
/// read and written concurrently: thousands of reminders for one time have one recipient each, and their pages share a transaction.
///
/// # Errors
///
/// Returns the first error that is not about one broadcast, when everything that could be written is.
///
/// # Cancel safety
///
/// If dropped, each page is written as a whole or not at all.
pub(super) async fn expand(engine: &Engine, now: Timestamp) -> Result<usize, StoreError> {
    let parked = &engine.signals.parked;
    let (mut reads, mut writes) = (JoinSet::new(), JoinSet::new());
    // By task: the store, or the application's table of subscriptions, may panic.
    let (mut read_by, mut written_by) = (HashMap::new(), HashMap::new());
    // Recipients that were read, and the most that are being read.
    let (mut read, mut reading) = (0, 0);
    // The most recipients of broadcasts that are not urgent.
    let mut of_others = 0;
    let mut failed = None;
    // Parked broadcasts stay at the front.
    let limit = EXPANSIONS + parked.len(now);
    let mut waiting = engine.ledger.expandable(limit, now).await?;
    waiting.retain(|expansion| !parked.is_parked(&expansion.id, now));
    waiting.reverse();
    loop {
        while reads.len() < READS
            && let Some(expansion) = waiting.pop()
        {
            let most = most(engine, &expansion);
            // The first of the others, which have waited longest (L3), are expanded in each step.
            let is_kept = !expansion.is_urgent && of_others + most <= OTHERS_AT_ONCE;
            if !is_kept && read >= EXPANDED_AT_ONCE {
                continue;
            }
            if !is_kept && !reads.is_empty() && read + reading + most > EXPANDED_AT_ONCE {
                waiting.push(expansion);
                break;
            }
            reading += most;
            if !expansion.is_urgent {
                of_others += most;
            }
            let engine = engine.clone();
            let span = observe::Span::page(expansion.id);
            span.link(&expansion.trace_parent);
            let id = expansion.id;
            let task = reads.spawn(async move {
                let page = span.around(page(&engine, &expansion, now)).await;
                (expansion, span, page)
            });
            read_by.insert(task.id(), (id, most));
        }
        let Some(ended) = reads.join_next_with_id().await else {
            break;
        };
        let task = ended.as_ref().map_or_else(JoinError::id, |(task, _)| *task);
        let of = read_by.remove(&task);
        reading -= of.map_or(0, |(_, most)| most);
        let (expansion, span, page) = match ended {
            Ok((_, read)) => read,
            Err(error) => {
                observe::event!(ERROR, error = %error, "reading a page of a broadcast panicked");
                if let Some((id, _)) = of {
                    let error = StoreError::new(StoreErrorKind::Unavailable, error);
                    parked.park(id, &error, now);
                }
                continue;
            }
        };
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                span.failed(error.kind().as_str());
                parked.park(expansion.id, &error, now);
                match error.kind() {
                    StoreErrorKind::Corrupt => continue,
                    // Most likely the next ones would fail too.
                    StoreErrorKind::Unavailable => waiting.clear(),
                    _ => {}
                }
                failed.get_or_insert(error);
                continue;
            }
        };
        read += page.rows.len();
        let (engine, id) = (engine.clone(), expansion.id);
        let task = writes.spawn(async move {
            let cursor = &expansion.cursor;
            let write = engine
                .ledger
                .enqueue_page(id, cursor, &page.rows, &page.next, now);
            let write = span.around(write).await;
            span.recipients(page.rows.len() as u64);
            match &write {
                Ok(PageWrite::Stored) => span.outcome("stored"),
                Ok(PageWrite::Stale) => span.outcome("stale"),
                Err(error) => span.failed(error.kind().as_str()),
            }
            (id, write.map(|write| (write, page.rows.len())))
        });
        written_by.insert(task.id(), id);
    }
    let mut written = 0;
    while let Some(ended) = writes.join_next().await {
        match ended {
            Ok((id, Ok((write, rows)))) => {
                parked.unpark(&id);
                if write == PageWrite::Stored {
                    let rows = rows as u64;
                    engine
                        .signals
                        .endings
                        .note_written(id, rows, Instant::now());
                }
                // Another replica wrote a stale page.
                written += if write == PageWrite::Stored {
                    rows.max(1)
                } else {
                    0
                };
            }
            // Sending the rows that exist makes space.
            Ok((_, Err(error))) if error.kind() == StoreErrorKind::Full => {}
            Ok((id, Err(error))) => {
                parked.park(id, &error, now);
                if error.kind() != StoreErrorKind::Corrupt {
                    failed.get_or_insert(error);
                }
            }
            Err(error) => {
                observe::event!(ERROR, error = %error, "writing a page of a broadcast panicked");
                if let Some(id) = written_by.get(&error.id()) {
                    let error = StoreError::new(StoreErrorKind::Unavailable, error);
                    parked.park(*id, &error, now);
                }
            }
        }
    }
    match failed {
        Some(error) if written == 0 => Err(error),
        _ => Ok(written),
    }
}

/// The most recipients of a page: with a pace about a quarter of a second's.
fn page_of(pace: Option<NonZeroU32>) -> usize {
    let paced = pace.map(|pace| pace.get().div_ceil(PAGES_PER_SECOND));
    let paced = paced.map(|rows| usize::try_from(rows).unwrap_or(PAGE));
    paced.map_or(PAGE, |rows| rows.min(PAGE))
}

/// The most recipients of the next page.
fn most(engine: &Engine, expansion: &Expansion) -> usize {
    let page = page_of(expansion.pace);
    match &expansion.audience {
        Some(Audience::Ids(ids)) => ids.len().min(page),
        Some(Audience::User(_)) => {
            usize::try_from(engine.limits.per_principal).map_or(page, |most| most.min(page))
        }
        Some(Audience::All | Audience::Tag(_)) => page,
        None => 0,
    }
}

async fn page(engine: &Engine, expansion: &Expansion, now: Timestamp) -> Result<Page, StoreError> {
    let audience = expansion.audience.as_ref();
    let audience = audience.ok_or(StoreErrorKind::Corrupt)?;
    let after = match &expansion.cursor {
        Cursor::After(key) => Some(key),
        Cursor::Start | Cursor::End => None,
    };
    read_page(engine, audience, after, page_of(expansion.pace), now).await
}

/// The first recipients of an audience that usually is small, to be written with its broadcast; `None` for any other.
///
/// The rows are those that [`expand`] would write. A subscription that is deleted before its row is claimed counts as gone;
/// one that is made after this call is no recipient. The same holds for each page of [`expand`].
pub(super) async fn first_page(
    engine: &Engine,
    audience: &Audience,
    now: Timestamp,
) -> Result<Option<Page>, StoreError> {
    let is_small = match audience {
        Audience::User(_) => true,
        Audience::Ids(ids) => ids.len() < FIRST_PAGE,
        Audience::All | Audience::Tag(_) => false,
    };
    if !is_small {
        return Ok(None);
    }
    match read_page(engine, audience, None, FIRST_PAGE, now).await {
        // The message is accepted all the same, and its broadcast is parked.
        Err(error) if error.kind() == StoreErrorKind::Corrupt => Ok(None),
        page => page.map(Some),
    }
}

async fn read_page(
    engine: &Engine,
    audience: &Audience,
    after: Option<&EndpointKey>,
    limit: usize,
    now: Timestamp,
) -> Result<Page, StoreError> {
    let records = engine
        .subscriptions
        .page(audience, after, limit, now)
        .await?;
    let rows: Vec<_> = records.iter().map(recipient).collect();
    let next = match rows.last() {
        Some(last) if rows.len() == limit => Cursor::After(last.key),
        _ => Cursor::End,
    };
    Ok(Page::new(rows, next))
}

pub(super) fn recipient(record: &SubscriptionRecord) -> NewDelivery {
    let endpoint = record.subscription.endpoint();
    NewDelivery::new(endpoint.key(), endpoint.origin().clone())
}

/// The number of recipients of an audience with this first page.
pub(super) async fn expected(
    engine: &Engine,
    audience: &Audience,
    page: Option<&Page>,
    now: Timestamp,
) -> Result<u64, StoreError> {
    match page {
        Some(page) if page.next == Cursor::End => Ok(page.rows.len() as u64),
        _ => {
            let filter = CountFilter::new(audience.clone(), Liveness::Live);
            engine.subscriptions.count(&filter, now).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_quarter_of_a_second_of_a_pace() {
        assert_eq!(page_of(None), PAGE);
        for (per_second, rows) in [
            (1, 1),
            (4, 1),
            (5, 2),
            (500, 125),
            (2_000, 500),
            (u32::MAX, 500),
        ] {
            assert_eq!(page_of(NonZeroU32::new(per_second)), rows, "{per_second}");
        }
    }
}
