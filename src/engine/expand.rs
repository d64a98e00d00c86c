//! Expansion: writes the rows of a broadcast, page by page.

use std::num::NonZeroU32;

use tokio::task::JoinSet;

use super::Engine;
use crate::clock::Timestamp;
use crate::observe;
use crate::store::{Cursor, Expansion, NewDelivery, PageWrite, StoreError, StoreErrorKind};

/// The most recipients written in one transaction.
const PAGE: usize = 500;
/// The pages per second of a broadcast with a pace, as long as they are not larger than others.
const PAGES_PER_SECOND: u32 = 4;
/// The most broadcasts expanded in one step, and the number of recipients after which the others wait for the next
/// step.
const EXPANSIONS: usize = 64;
const EXPANDED_AT_ONCE: usize = 4 * PAGE;

/// Writes the next page of broadcasts that are not fully expanded. Returns the number of recipients.
///
/// A broadcast that cannot be read or expanded is parked, and the others are expanded.
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
    let mut pages = JoinSet::new();
    let mut read = 0;
    let mut failed = None;
    // Parked broadcasts stay at the front.
    let limit = EXPANSIONS + parked.len();
    let expandable = engine.ledger.expandable(limit, now).await?;
    let last = expandable.last().map(|expansion| expansion.id);
    for expansion in expandable {
        // Behind urgent broadcasts the last one listed is not urgent (L3): each step expands it too.
        if read >= EXPANDED_AT_ONCE && Some(expansion.id) != last {
            continue;
        }
        if parked.is_parked(&expansion.id, now) {
            continue;
        }
        let page = match page(engine, &expansion, now).await {
            Ok(page) => page,
            Err(error) => {
                parked.park(expansion.id, &error, now);
                match error.kind() {
                    StoreErrorKind::Corrupt => continue,
                    // Most likely the next one would fail too.
                    StoreErrorKind::Unavailable => {
                        failed = Some(error);
                        break;
                    }
                    _ => {
                        failed.get_or_insert(error);
                        continue;
                    }
                }
            }
        };
        read += page.rows.len();
        // Concurrently: thousands of daily notifications have one recipient each, and their pages share a transaction.
        let engine = engine.clone();
        pages.spawn(async move {
            let (id, cursor) = (expansion.id, &expansion.cursor);
            let write = engine
                .ledger
                .enqueue_page(id, cursor, &page.rows, &page.next, now);
            (id, write.await.map(|write| (write, page.rows.len())))
        });
    }
    let mut written = 0;
    while let Some(ended) = pages.join_next().await {
        match ended {
            Ok((id, Ok((write, rows)))) => {
                parked.unpark(&id);
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
                let _ = error;
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

/// The next rows of a broadcast.
struct Page {
    rows: Vec<NewDelivery>,
    next: Cursor,
}

async fn page(engine: &Engine, expansion: &Expansion, now: Timestamp) -> Result<Page, StoreError> {
    let audience = expansion.audience.as_ref();
    let audience = audience.ok_or(StoreErrorKind::Corrupt)?;
    let after = match &expansion.cursor {
        Cursor::After(key) => Some(key),
        Cursor::Start | Cursor::End => None,
    };
    let limit = page_of(expansion.pace);
    let records = engine
        .subscriptions
        .page(audience, after, limit, now)
        .await?;
    let rows: Vec<_> = records
        .iter()
        .map(|record| {
            let endpoint = record.subscription.endpoint();
            NewDelivery::new(endpoint.key(), endpoint.origin().clone())
        })
        .collect();
    let next = match rows.last() {
        Some(last) if rows.len() == limit => Cursor::After(last.key),
        _ => Cursor::End,
    };
    Ok(Page { rows, next })
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
