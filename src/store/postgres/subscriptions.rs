//! Subscriptions in PostgreSQL.

use async_trait::async_trait;
use tokio_postgres::Row;

use super::PostgresStore;
use super::attempts::in_transaction;
use super::connection::Tx;
use super::error::{Failed, overtaken};
use super::first_upsert::insert_unknown;
use super::listing;
use super::reading_together;
use super::rows::{Columns, Values, first, integer, read};
use super::subscription_changes;
use super::subscription_count::{Totals, count, count_live, totals};
use super::subscription_numbers::{Counted, Numbers, counted_columns};
use super::subscription_rows::{delete, insert, principal_bytes, record, record_columns, update};
use crate::broadcast::{Audience, Principal};
use crate::clock::Timestamp;
use crate::store::readable::ReadablePage;
use crate::store::rules::merge;
use crate::store::{
    Change, CountFilter, LiveCounts, NewSubscription, STEP, StoreError, StoreErrorKind,
    SubscriptionFilter, SubscriptionLimits, SubscriptionPage, SubscriptionRecord, SubscriptionRef,
    SubscriptionStore, Upserted,
};
use crate::subscription::EndpointKey;
use crate::vapid::KeyId;

macro_rules! live {
    () => {
        "(s.retired_at IS NULL AND s.stale_since IS NULL AND (s.expires_at IS NULL OR s.expires_at > $2))"
    };
}

/// The next $3 live rows among the next $4 in the order of a key: others may be many. The last of the $4 is returned in any
/// state, so that the walk goes on after it.
macro_rules! next_live {
    ($key:literal, $rows:literal) => {
        concat!(
            "SELECT s.key, s.is_live, s.place = $4, ",
            record_columns!(),
            " FROM (SELECT s.*, ",
            live!(),
            " AS is_live, row_number() OVER (ORDER BY ",
            $key,
            ") AS place FROM ",
            $rows,
            " ORDER BY ",
            $key,
            " LIMIT $4) AS s WHERE s.is_live OR s.place = $4 ORDER BY s.key LIMIT $3"
        )
    };
}

pub(super) const PAGE_ALL: &str =
    next_live!("s.key", "web_push.subscription AS s WHERE s.key > $1");
pub(super) const PAGE_USER: &str = next_live!(
    "s.key",
    "web_push.subscription AS s WHERE s.principal = $5 AND s.key > $1"
);
pub(super) const OWNED: &str = concat!(
    "SELECT s.key, true, false, ",
    record_columns!(),
    " FROM web_push.subscription AS s WHERE s.principal = $1 AND s.key > $2 ORDER BY s.key LIMIT $3"
);
pub(super) const PAGE_TAG: &str = next_live!(
    "g.key",
    "web_push.subscription_tag AS g JOIN web_push.subscription AS s ON s.key = g.key \
     WHERE g.tag = $5 AND g.key > $1"
);
/// Sorts, but only the rows of given ids.
pub(super) const PAGE_IDS: &str = concat!(
    "SELECT s.key, true, false, ",
    record_columns!(),
    " FROM web_push.subscription AS s WHERE s.id = ANY($4) AND s.key > $1 AND ",
    live!(),
    " ORDER BY s.key LIMIT $3"
);
pub(super) const BY_KEYS: &str = concat!(
    "SELECT asked.place, ",
    record_columns!(),
    " FROM unnest($1::bytea[]) WITH ORDINALITY AS asked (key, place) \
     JOIN web_push.subscription AS s ON s.key = asked.key"
);
pub(super) const BY_IDS: &str = concat!(
    "SELECT asked.place, ",
    record_columns!(),
    " FROM unnest($1::bytea[]) WITH ORDINALITY AS asked (id, place) \
     JOIN web_push.subscription AS s ON s.id = asked.id"
);
/// Locks in one order.
pub(super) const LOCK: &str = concat!(
    "SELECT ",
    counted_columns!(),
    ", ",
    record_columns!(),
    " FROM web_push.subscription AS s WHERE s.key = ANY($1) ORDER BY s.key FOR UPDATE"
);
/// Serializes evictions of one principal's rows.
pub(super) const LOCK_PRINCIPAL: &str = "SELECT pg_advisory_xact_lock(hashtextextended('web_push.subscription', \
     hashtextextended(encode($1::bytea, 'hex'), 0)))::text";
pub(super) const OF_PRINCIPAL: &str =
    "SELECT count(*) FROM web_push.subscription WHERE principal = $1";
/// Skips locked rows: their writer may wait for the row that this transaction has locked.
pub(super) const EVICTED: &str = concat!(
    "SELECT ",
    counted_columns!(),
    " FROM web_push.subscription AS s WHERE s.principal = $1 AND s.key <> $2 \
     ORDER BY s.last_seen_at, s.key LIMIT $3 FOR UPDATE SKIP LOCKED"
);

async fn upsert(
    tx: &mut Tx<'_>,
    new: &NewSubscription,
    limits: &SubscriptionLimits,
    now: Timestamp,
) -> Result<Upserted, Failed> {
    let key = new.key();
    let replaces = new.replaced_key();
    let keys: Vec<_> = [Some(&key), replaces.as_ref()]
        .into_iter()
        .flatten()
        .map(|key| key.as_bytes().as_slice())
        .collect();
    let (mut standing, mut replaced, mut counted_as) = (None, None, None);
    let mut numbers = Numbers::default();
    for ((found, counted), row) in read(&tx.query(LOCK, &[&keys]).await?, |columns| {
        Ok((Counted::read(columns)?, record(columns)?))
    })? {
        // Rewritten or deleted.
        numbers.minus(&counted);
        match found == key {
            true => (standing, counted_as) = (Some(row), Some(counted)),
            false => replaced = Some(row),
        }
    }
    let Some(merged) = merge(standing, replaced.as_ref(), new, now) else {
        return Ok(Upserted::Conflict);
    };
    if let Some(principal) = &merged.record.principal {
        // Before the first write. An insert of the same key waits for a write, not for a locked row, and holds this lock.
        tx.query(LOCK_PRINCIPAL, &[&principal_bytes(principal)])
            .await?;
    }
    numbers.plus(&Counted::of(&key, &merged.record, counted_as.as_ref()));
    let mut total = 0;
    if merged.created {
        let Totals { rows, unproven } = totals(tx).await?;
        // Checked before the first write, so that a flood leaves no dead rows.
        if merged.adds_unproven() && unproven >= integer(limits.unproven) {
            return Err(StoreError::too_many_unproven().into());
        }
        total = rows;
    }
    if let (Some(replaces), true) = (&replaces, replaced.is_some()) {
        delete(tx, &[replaces.as_bytes()]).await?;
    }
    if merged.created {
        if !insert(tx, &key, &merged.record).await? {
            // A concurrent transaction has inserted it: the next attempt reads it.
            return Err(overtaken());
        }
    } else {
        let is_last = merged.record.principal.is_none() && numbers.are_unchanged();
        update(tx, &key, &merged.record, is_last).await?;
    }
    if let Some(principal) = &merged.record.principal {
        make_room(tx, principal, &key, limits.per_principal, &mut numbers).await?;
    }
    if merged.created && total.saturating_add(numbers.rows()) > integer(limits.total) {
        // The transaction is rolled back.
        return Err(StoreErrorKind::Full.into());
    }
    numbers.write_last(tx).await?;
    Ok(merged.into())
}

/// Removes the principal's least recently seen other rows above the limit (S6). The principal is locked.
async fn make_room(
    tx: &mut Tx<'_>,
    principal: &Principal,
    key: &EndpointKey,
    per_principal: u32,
    numbers: &mut Numbers,
) -> Result<(), Failed> {
    let principal = principal_bytes(principal);
    let rows = tx.query(OF_PRINCIPAL, &[&principal]).await?;
    let rows: i64 = first(&rows, |columns| columns.get())?.unwrap_or(0);
    // The row itself stays.
    let surplus = (rows - i64::from(per_principal)).min(rows - 1);
    if surplus <= 0 {
        return Ok(());
    }
    let key = key.as_bytes().as_slice();
    let rows = tx.query(EVICTED, &[&principal, &key, &surplus]).await?;
    let evicted = read(&rows, Counted::read)?;
    if integer(evicted.len()) < surplus {
        // Others write these rows, for example what a message has told of them. They end soon.
        return Err(overtaken());
    }
    let keys: Vec<_> = evicted
        .iter()
        .map(|(key, _)| key.as_bytes().as_slice())
        .collect();
    delete(tx, &keys).await?;
    for (_, row) in &evicted {
        numbers.minus(row);
    }
    Ok(())
}

/// A walk over rows by key, page by page, until there are enough that can be read.
struct Walk {
    page: ReadablePage<SubscriptionRecord>,
    after: Vec<u8>,
    is_over: bool,
}

impl Walk {
    fn new(after: Option<&EndpointKey>, limit: usize) -> Self {
        Self {
            page: ReadablePage::new(limit),
            // The empty key sorts before all others.
            after: after.map_or_else(Vec::new, |key| key.as_bytes().to_vec()),
            is_over: false,
        }
    }

    /// The key after which to read, the number of rows, and how many a statement looks at; `None` at the end.
    fn next(&self) -> Option<(Vec<u8>, i64, i64)> {
        let missing = self.page.missing();
        let looked_at = integer(missing.max(STEP));
        let next = || (self.after.clone(), integer(missing), looked_at);
        (missing > 0 && !self.is_over).then(next)
    }

    /// Takes keys, which may be damaged too, and rows: whether they are live, and whether there may be more after them.
    fn take(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        self.is_over = rows.len() < self.page.missing();
        for row in rows {
            let mut columns = Columns::of(row);
            self.after = columns.get()?;
            let (is_live, is_last_of_many): (bool, bool) = (columns.get()?, columns.get()?);
            if is_live {
                self.page.push(record(&mut columns))?;
            }
            self.is_over &= !is_last_of_many;
        }
        Ok(())
    }
}

impl PostgresStore {
    /// Finds rows by key or id, and stores them at the indexes of the names.
    async fn find(
        &self,
        sql: &'static str,
        names: &[(usize, &[u8])],
        found: &mut [Option<SubscriptionRecord>],
    ) -> Result<(), StoreError> {
        if names.is_empty() {
            return Ok(());
        }
        let asked: Vec<_> = names.iter().map(|(_, name)| *name).collect();
        let rows = self.database().query(sql, &[&asked]).await?;
        for (place, row) in read(&rows, |columns| {
            Ok((columns.get::<i64>()?, record(columns)?))
        })? {
            let place = usize::try_from(place - 1).ok();
            let place = place.and_then(|place| names.get(place));
            if let Some(slot) = place.and_then(|(place, _)| found.get_mut(*place)) {
                *slot = Some(row);
            }
        }
        Ok(())
    }

    async fn walk(
        &self,
        audience: &Audience,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let (database, now) = (self.database(), now.as_millis());
        let mut walk = Walk::new(after, limit);
        while let Some((after, max, looked_at)) = walk.next() {
            let rows = match audience {
                Audience::All => {
                    let values: Values<'_> = &[&after, &now, &max, &looked_at];
                    database.query(PAGE_ALL, values).await?
                }
                Audience::User(principal) => {
                    let principal = principal_bytes(principal);
                    let values: Values<'_> = &[&after, &now, &max, &looked_at, &principal];
                    database.query(PAGE_USER, values).await?
                }
                Audience::Tag(tag) => {
                    let values: Values<'_> = &[&after, &now, &max, &looked_at, &tag.as_str()];
                    database.query(PAGE_TAG, values).await?
                }
                Audience::Ids(ids) => {
                    let ids: Vec<_> = ids.iter().map(|id| id.as_bytes().as_slice()).collect();
                    let values: Values<'_> = &[&after, &now, &max, &ids];
                    database.query(PAGE_IDS, values).await?
                }
            };
            walk.take(&rows)?;
        }
        Ok(walk.page.finish("subscriptions"))
    }
}

#[async_trait]
impl SubscriptionStore for PostgresStore {
    async fn upsert(
        &self,
        new: &NewSubscription,
        limits: &SubscriptionLimits,
        now: Timestamp,
    ) -> Result<Upserted, StoreError> {
        let database = self.database();
        if let Some(upserted) = insert_unknown(database, new, limits, now).await? {
            return Ok(upserted);
        }
        in_transaction!(database, |tx| upsert(tx, new, limits, now))
    }

    async fn get(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError> {
        let (mut keys, mut ids) = (Vec::new(), Vec::new());
        for (place, which) in which.iter().enumerate() {
            match which {
                SubscriptionRef::Key(key) => keys.push((place, key.as_bytes().as_slice())),
                SubscriptionRef::Id(id) => ids.push((place, id.as_bytes().as_slice())),
            }
        }
        let mut found = vec![None; which.len()];
        self.find(BY_KEYS, &keys, &mut found).await?;
        self.find(BY_IDS, &ids, &mut found).await?;
        Ok(found)
    }

    async fn page(
        &self,
        audience: &Audience,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let walk = self.walk(audience, after, limit, now);
        match after {
            None => reading_together::page(self, audience, limit, now, walk).await,
            Some(_) => walk.await,
        }
    }

    async fn owned_by(
        &self,
        principal: &Principal,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let (database, principal) = (self.database(), principal_bytes(principal));
        let mut walk = Walk::new(after, limit);
        while let Some((after, max, _)) = walk.next() {
            let rows = database.query(OWNED, &[&principal, &after, &max]).await?;
            walk.take(&rows)?;
        }
        Ok(walk.page.finish("subscriptions"))
    }

    async fn list_subscriptions(
        &self,
        filter: &SubscriptionFilter,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<SubscriptionPage, StoreError> {
        listing::subscriptions(self.database(), filter, after, limit, now).await
    }

    async fn count(&self, filter: &CountFilter, now: Timestamp) -> Result<u64, StoreError> {
        count(self.database(), filter, now).await
    }

    async fn count_live(&self, keys: &[KeyId], now: Timestamp) -> Result<LiveCounts, StoreError> {
        count_live(self.database(), keys, now).await
    }

    async fn apply(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError> {
        in_transaction!(self.database(), |tx| subscription_changes::apply(
            tx, changes, now
        ))
    }
}
