//! Subscriptions in a table of the application: `cargo run --example custom_store --features testing`.
//!
//! Six methods. Keys, messages and schedules stay in one of the crate's stores. `store::rules` has the decisions of
//! the contract, so only the storage is left. The table here is a map: in a database each method is one statement or
//! one transaction. The tests at the end run the conformance suite.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use tower_web_push::clock::Timestamp;
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::store::rules::{self, Applied};
use tower_web_push::store::{
    Change, CountFilter, NewSubscription, STEP, StoreError, StoreErrorKind, SubscriptionLimits,
    SubscriptionRecord, SubscriptionRef, SubscriptionStore, Upserted,
};
use tower_web_push::subscription::EndpointKey;
use tower_web_push::testing::TestPushService;
use tower_web_push::{Audience, Notification, Principal, WebPush};

/// The application's table of devices. Cheap to clone; clones share the rows.
#[derive(Clone, Debug, Default)]
struct Devices(Arc<Mutex<Rows>>);

type Rows = BTreeMap<EndpointKey, SubscriptionRecord>;

impl Devices {
    /// Stands for the start of a transaction.
    fn begin(&self) -> Result<MutexGuard<'_, Rows>, StoreError> {
        // A thread that panicked may have left half a change.
        let poisoned = |_| StoreError::from(StoreErrorKind::Unavailable);
        self.0.lock().map_err(poisoned)
    }
}

#[async_trait]
impl SubscriptionStore for Devices {
    async fn upsert(
        &self,
        new: &NewSubscription,
        limits: &SubscriptionLimits,
        now: Timestamp,
    ) -> Result<Upserted, StoreError> {
        let mut rows = self.begin()?;
        let (key, replaced) = (new.key(), new.replaced_key());
        let replaced = replaced.and_then(|old| rows.get(&old).cloned());
        let Some(merged) = rules::merge(rows.get(&key).cloned(), replaced.as_ref(), new, now)
        else {
            return Ok(Upserted::Conflict);
        };
        let old_key = replaced.map(|old| old.subscription.endpoint().key());
        let others = || {
            rows.iter()
                .filter(|(other, _)| **other != key && Some(**other) != old_key)
        };
        // S1: an id is unique. A unique index in a database.
        if others().any(|(_, row)| row.id == merged.record.id) {
            return Err(StoreErrorKind::Misconfigured.into());
        }
        // S6: `where principal = ? order by last_seen_at, key`, if the row has a principal.
        let theirs = others()
            .filter(|(_, row)| row.principal.is_some() && row.principal == merged.record.principal);
        let theirs = theirs.map(|(key, row)| (row.last_seen_at, *key));
        let leaving = rules::evicted(theirs, limits);
        let unproven = rows.values().filter(|row| row.is_unproven()).count();
        let staying = others().count() - leaving.len();
        merged.check(limits, staying as u64, unproven as u64)?;

        rows.retain(|key, _| Some(*key) != old_key && !leaving.contains(key));
        rows.insert(key, merged.record.clone());
        Ok(merged.into())
    }

    async fn get(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError> {
        let rows = self.begin()?;
        // S8: in the order of the references.
        let find = |which: &SubscriptionRef| match which {
            SubscriptionRef::Key(key) => rows.get(key),
            SubscriptionRef::Id(id) => rows.values().find(|row| row.id == *id),
        };
        Ok(which.iter().map(|which| find(which).cloned()).collect())
    }

    async fn page(
        &self,
        audience: &Audience,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        // S9: `where key > after order by key limit n`, never an offset.
        let rows = self.begin()?;
        let matching = rows
            .iter()
            .filter(|(key, _)| after.is_none_or(|after| *key > after))
            .filter(|(_, row)| row.is_live(now) && rules::is_member(audience, row));
        Ok(matching.map(|(_, row)| row.clone()).take(limit).collect())
    }

    async fn owned_by(
        &self,
        principal: &Principal,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        // S17: in every state.
        let rows = self.begin()?;
        let theirs = rows
            .iter()
            .filter(|(key, _)| after.is_none_or(|after| *key > after))
            .filter(|(_, row)| row.principal.as_ref() == Some(principal));
        Ok(theirs.map(|(_, row)| row.clone()).take(limit).collect())
    }

    async fn count(&self, filter: &CountFilter, now: Timestamp) -> Result<u64, StoreError> {
        let rows = self.begin()?;
        let counted = rows.values().filter(|row| rules::takes(filter, row, now));
        Ok(counted.count() as u64)
    }

    async fn apply(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError> {
        // S11: in order, in one transaction.
        let mut rows = self.begin()?;
        let mut changed = 0;
        for change in changes {
            // S13: a purge is one step, with a bounded number of rows.
            let mut done = 0;
            rows.retain(|key, row| {
                if done == STEP || change.key().is_some_and(|of| of != key) {
                    return true;
                }
                let applied = rules::apply(change, row, now);
                done += usize::from(applied != Applied::Unchanged);
                applied != Applied::Deleted
            });
            changed += done as u64;
        }
        Ok(changed)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let devices = Devices::default();
    let push_service = TestPushService::new();
    // An application would call `.store(…)` first, for keys and messages. They are in memory here.
    let push = WebPush::builder("mailto:ops@example.com")
        .client(push_service.clone())
        .endpoint_policy(EndpointPolicy::public_hosts())
        .subscriptions(devices.clone())
        .build()
        .await?;

    // A row that the application writes without the HTTP API.
    let browser = push_service.user_agent();
    let key = push.vapid_public_key();
    let subscription = browser.subscribe(&key)?;
    let mut row = NewSubscription::new(subscription, key.id());
    row.principal = Some("alice".into());
    devices
        .upsert(
            &row,
            &SubscriptionLimits::default(),
            Timestamp::from_millis(0),
        )
        .await?;

    let report = push
        .send(Audience::user("alice"), Notification::new("Hello"))
        .await?;
    println!("{} accepted", report.counts.accepted);
    println!("{}", browser.next().await.text().unwrap_or_default());
    Ok(())
}

#[cfg(test)]
mod tests {
    use tower_web_push::store::conformance::Handles;

    use super::Devices;

    async fn fresh() -> Handles<Devices> {
        Handles::one(Devices::default())
    }

    tower_web_push::subscription_store_conformance!(devices, fresh);
}
