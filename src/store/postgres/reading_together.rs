//! The first pages of small audiences that are read at the same time share a statement: a message to one user would else cost the
//! database a transaction to read its recipients and another one to open it.
//!
//! A statement begins after all of its calls have, so that each sees what was committed before it, as if it were alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use super::error::{Failed, corrupt};
use super::rows::{Columns, Values, integer};
use super::subscription_rows::{principal_bytes, record, record_columns};
use super::{Inner, PostgresStore};
use crate::broadcast::{Audience, Principal};
use crate::clock::Timestamp;
use crate::store::readable::ReadablePage;
use crate::store::together::{Shared, Sharing as _, Together, ask};
use crate::store::{StoreError, SubscriptionRecord};
use crate::subscription::SubscriptionId;

/// The most rows that a call looks at. Larger audiences go alone.
const ROWS: usize = 100;

macro_rules! live_then {
    () => {
        "s.retired_at IS NULL AND s.stale_since IS NULL AND (s.expires_at IS NULL OR s.expires_at > asked.now)"
    };
}
/// Of each user, the first $5 rows in any state, and each row of an id: whether they are live at the time of their call. Sorts the
/// rows that it returns.
pub(super) const PAGES: &str = concat!(
    "SELECT asked.call, s.key, ",
    live_then!(),
    ", ",
    record_columns!(),
    " FROM unnest($1::integer[], $2::bytea[], $3::bytea[], $4::bigint[]) AS asked (call, principal, id, now) \
     CROSS JOIN LATERAL ((SELECT u.* FROM web_push.subscription AS u WHERE u.principal = asked.principal \
             ORDER BY u.key LIMIT $5) \
         UNION ALL (SELECT i.* FROM web_push.subscription AS i WHERE i.id = asked.id)) AS s \
     ORDER BY asked.call, s.key"
);

/// The reads that wait for the next statement.
#[derive(Default)]
pub(super) struct ReadingTogether {
    waiting: Together<Reading>,
    /// Whether a read goes alone, since no other one did when it began.
    is_one_alone: AtomicBool,
}

/// A page to read, and the time of its call.
pub(super) struct Reading {
    audience: Small,
    limit: usize,
    now: Timestamp,
}

enum Small {
    User(Principal),
    Ids(Vec<SubscriptionId>),
}

impl Small {
    fn of(audience: &Audience) -> Option<Self> {
        match audience {
            Audience::User(principal) => Some(Self::User(principal.clone())),
            Audience::Ids(ids) if ids.len() <= ROWS => Some(Self::Ids(ids.clone())),
            Audience::Ids(_) | Audience::All | Audience::Tag(_) => None,
        }
    }
}

/// A read that goes alone.
struct Alone<'a>(&'a AtomicBool);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

impl ReadingTogether {
    /// Returns a value to hold during a read that goes alone, if no other one does.
    fn alone(&self) -> Option<Alone<'_>> {
        let is_other = self.is_one_alone.swap(true, Relaxed);
        (!is_other).then(|| Alone(&self.is_one_alone))
    }
}

impl Shared for Reading {
    type Store = Inner;
    type Answer = Vec<SubscriptionRecord>;
    type Error = Failed;

    fn together(inner: &Inner) -> &Together<Self> {
        &inner.reading.waiting
    }

    fn rows(&self) -> usize {
        match &self.audience {
            // Usually very few, and at most a hundred.
            Small::User(_) => 1,
            Small::Ids(ids) => ids.len(),
        }
    }

    async fn run(
        inner: &Arc<Inner>,
        calls: &[Self],
    ) -> Result<Vec<Option<Vec<SubscriptionRecord>>>, Failed> {
        let mut asked = Vec::new();
        for (place, call) in calls.iter().enumerate() {
            let (place, now) = (i32::try_from(place).unwrap_or(i32::MAX), call.now);
            match &call.audience {
                Small::User(principal) => asked.push((place, Some(principal), None, now)),
                Small::Ids(ids) => {
                    asked.extend(ids.iter().map(|id| (place, None, Some(id), now)));
                }
            }
        }
        let places: Vec<_> = asked.iter().map(|(place, ..)| *place).collect();
        let principals: Vec<_> = asked
            .iter()
            .map(|(_, principal, ..)| principal.map(principal_bytes))
            .collect();
        let ids: Vec<_> = asked
            .iter()
            .map(|(_, _, id, _)| id.map(|id| id.as_bytes().as_slice()))
            .collect();
        let nows: Vec<_> = asked.iter().map(|(.., now)| now.as_millis()).collect();
        // One more shows that there are more.
        let most = integer(ROWS + 1);
        let values: Values<'_> = &[&places, &principals, &ids, &nows, &most];
        let rows = inner.database.query_shared(PAGES, values).await?;
        let mut pages: Vec<_> = calls.iter().map(Page::of).collect();
        for row in &rows {
            let mut columns = Columns::of(row);
            let place: i32 = columns.get()?;
            let page = usize::try_from(place).ok();
            let page = page.and_then(|place| pages.get_mut(place));
            page.ok_or_else(|| corrupt("an answer"))?
                .take(&mut columns)?;
        }
        Ok(pages.into_iter().map(Page::finish).collect())
    }
}

/// The page of a call.
struct Page<'a> {
    rows: ReadablePage<SubscriptionRecord>,
    is_of_user: bool,
    seen: usize,
    last: Option<&'a [u8]>,
}

impl<'a> Page<'a> {
    fn of(call: &Reading) -> Self {
        Self {
            rows: ReadablePage::new(call.limit),
            is_of_user: matches!(call.audience, Small::User(_)),
            seen: 0,
            last: None,
        }
    }

    fn take(&mut self, columns: &mut Columns<'a>) -> Result<(), StoreError> {
        let (key, is_live): (&[u8], bool) = (columns.get()?, columns.get()?);
        self.seen += 1;
        // Else an id is named twice.
        let is_next = self.last.replace(key) != Some(key);
        if is_next && is_live && self.rows.missing() > 0 {
            self.rows.push(record(columns))?;
        }
        Ok(())
    }

    /// Returns the rows; `None` if there are more.
    fn finish(self) -> Option<Vec<SubscriptionRecord>> {
        let is_whole = !self.is_of_user || self.seen <= ROWS;
        is_whole.then(|| self.rows.finish("subscriptions"))
    }
}

/// Reads the first page of an audience: together with those of other calls that wait if it is small and another read is under
/// way, else `alone`.
pub(super) async fn page(
    store: &PostgresStore,
    audience: &Audience,
    limit: usize,
    now: Timestamp,
    alone: impl Future<Output = Result<Vec<SubscriptionRecord>, StoreError>>,
) -> Result<Vec<SubscriptionRecord>, StoreError> {
    let Some(audience) = Small::of(audience) else {
        return alone.await;
    };
    let inner = &store.inner;
    if let Some(_alone) = inner.reading.alone() {
        return alone.await;
    }
    let began = Instant::now();
    let longest = inner.longest_answer();
    let call = Reading {
        audience,
        limit,
        now,
    };
    // One connection that is silent, or the runtime of another call, holds it up for a small part of what it may take alone.
    match ask(inner, call, longest / 8).await {
        Ok(Some(rows)) => Ok(rows),
        Ok(None) => alone.await,
        // A read changes nothing: it may begin anew. No call waits for two timeouts.
        Err(_) if began.elapsed() < longest / 2 => alone.await,
        Err(error) => Err(error),
    }
}
