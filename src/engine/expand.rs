//! Expansion: writes the rows of a broadcast, page by page.

use std::panic::resume_unwind;

use tokio::task::JoinSet;

use super::Engine;
use crate::clock::Timestamp;
use crate::store::{Cursor, NewDelivery, PageWrite, StoreError, StoreErrorKind};

/// The most recipients written in one transaction.
const PAGE: usize = 500;
/// The most broadcasts expanded in one step, and the number of recipients after which the others wait for the next
/// step.
const EXPANSIONS: usize = 64;
const EXPANDED_AT_ONCE: usize = 4 * PAGE;

/// Writes the next page of broadcasts that are not fully expanded. Returns the number of recipients.
///
/// # Cancel safety
///
/// If dropped, each page is written as a whole or not at all.
pub(super) async fn expand(engine: &Engine, now: Timestamp) -> Result<usize, StoreError> {
    let mut pages = JoinSet::new();
    let mut read = 0;
    for expansion in engine.ledger.expandable(EXPANSIONS, now).await? {
        if read >= EXPANDED_AT_ONCE {
            break;
        }
        let after = match &expansion.cursor {
            Cursor::After(key) => Some(key),
            Cursor::Start | Cursor::End => None,
        };
        let page = engine
            .subscriptions
            .page(&expansion.audience, after, PAGE, now)
            .await?;
        let rows: Vec<_> = page
            .iter()
            .map(|record| {
                let endpoint = record.subscription.endpoint();
                NewDelivery::new(endpoint.key(), endpoint.origin().clone())
            })
            .collect();
        read += rows.len();
        let next = match rows.last() {
            Some(last) if rows.len() == PAGE => Cursor::After(last.key),
            _ => Cursor::End,
        };
        // Concurrently: thousands of daily notifications have one recipient each, and their pages share a transaction.
        let engine = engine.clone();
        pages.spawn(async move {
            let (id, cursor) = (expansion.id, &expansion.cursor);
            let write = engine.ledger.enqueue_page(id, cursor, &rows, &next, now);
            write.await.map(|write| (write, rows.len()))
        });
    }
    let mut written = 0;
    while let Some(ended) = pages.join_next().await {
        match ended {
            Ok(Ok((PageWrite::Stored, rows))) => written += rows.max(1),
            // Another replica wrote this page.
            Ok(Ok((PageWrite::Stale, _))) => {}
            // Sending the rows that exist makes space.
            Ok(Err(error)) if error.kind() == StoreErrorKind::Full => {}
            Ok(Err(error)) => return Err(error),
            // These tasks are never aborted.
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    resume_unwind(panic);
                }
            }
        }
    }
    Ok(written)
}
