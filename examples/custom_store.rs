//! Subscriptions in a table of the application's own: `cargo run --example custom_store --features testing`.
//!
//! Six methods; keys, messages and schedules stay in one of the crate's stores. The table here is a map, so
//! that the rules are all there is to read: in a database each method is one statement or one transaction.
//! The comments name the contract's sentences, and the tests at the end prove them.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use tower_web_push::clock::Timestamp;
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::store::{
    Change, CountFilter, Liveness, NewSubscription, Retired, StoreError, StoreErrorKind,
    SubscriptionLimits, SubscriptionRecord, SubscriptionRef, SubscriptionStore, Upserted,
};
use tower_web_push::subscription::EndpointKey;
use tower_web_push::testing::TestPushService;
use tower_web_push::{Audience, Notification, Principal, WebPush};

/// The application's table of devices. Cheap to clone; clones share the rows.
#[derive(Clone, Debug, Default)]
struct Devices(Arc<Mutex<Rows>>);

type Rows = BTreeMap<EndpointKey, SubscriptionRecord>;

impl Devices {
    /// Takes the place of a transaction.
    fn begin(&self) -> Result<MutexGuard<'_, Rows>, StoreError> {
        // A thread that panicked inside may have left half a change.
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
        let key = new.subscription.endpoint().key();
        let standing = rows.get(&key).cloned();
        // S14: what is imported never changes a row that is there.
        if new.only_if_unknown && standing.is_some() {
            return Ok(Upserted::Conflict);
        }
        // S5: a subscription that was renewed takes the place of the old one.
        let replaced = new
            .replaces
            .filter(|old| *old != key)
            .and_then(|old| rows.get(&old).cloned());

        let mut row = standing.clone().unwrap_or_else(|| {
            let inherited = replaced.as_ref().map(|old| old.vapid_key);
            let vapid_key = inherited.unwrap_or(new.default_vapid_key);
            SubscriptionRecord::new(new.id, new.subscription.clone(), vapid_key, now)
        });
        if !row.subscription.same_keys(&new.subscription) {
            // S4: only its owner may give a row other keys, and a row of nobody has no owner.
            if row.principal.is_none() || row.principal != new.principal {
                return Ok(Upserted::Conflict);
            }
            row.keys_changed_at = now;
        }
        let mut superseded = None;
        if let Some(old) = &replaced {
            superseded = standing.as_ref().map(|row| row.id);
            row.id = old.id;
            row.created_at = old.created_at;
            row.tags.clone_from(&old.tags);
            row.principal = old.principal.clone().or(row.principal);
        }
        // S3: what is given replaces what is stored, and the row is alive again.
        row.subscription = new.subscription.clone();
        row.principal = new.principal.clone().or(row.principal);
        row.tags = new.tags.clone().unwrap_or(row.tags);
        row.vapid_key = new.vapid_key.unwrap_or(row.vapid_key);
        row.last_seen_at = now;
        row.failure_streak = 0;
        row.failing_since = None;
        row.stale = false;
        row.retired = None;

        // S1: an id is one row's name. A unique index in a database.
        let old_key = replaced.map(|old| old.subscription.endpoint().key());
        let theirs = |other: &EndpointKey| *other != key && Some(*other) != old_key;
        if rows
            .iter()
            .any(|(other, record)| theirs(other) && record.id == row.id)
        {
            return Err(StoreErrorKind::Misconfigured.into());
        }

        // S5 and S6: who has to leave; a principal's least recently seen rows first.
        let mut others: Vec<_> = rows
            .iter()
            .filter(|(other, _)| theirs(other))
            .filter(|(_, other)| row.principal.is_some() && other.principal == row.principal)
            .map(|(other, record)| (record.last_seen_at, *other))
            .collect();
        others.sort_unstable();
        let room = (limits.per_principal as usize).max(1) - 1;
        others.truncate(others.len().saturating_sub(room));
        let leaving: Vec<_> = others
            .into_iter()
            .map(|(_, key)| key)
            .chain(old_key)
            .collect();

        // S7: refused before anything has changed.
        let total = rows.len() - leaving.len() + usize::from(standing.is_none());
        if standing.is_none() && total as u64 > limits.total {
            return Err(StoreErrorKind::Full.into());
        }
        // S16: strangers cannot fill the table, but a known subscription can always be renewed.
        let unproven = rows.values().filter(|row| row.is_unproven()).count();
        let is_fresh = standing.is_none() && old_key.is_none();
        if is_fresh && row.is_unproven() && unproven as u64 >= limits.unproven {
            return Err(StoreErrorKind::Full.into());
        }
        rows.retain(|key, _| !leaving.contains(key));
        rows.insert(key, row.clone());
        Ok(Upserted::Stored {
            record: Box::new(row),
            created: standing.is_none(),
            superseded,
        })
    }

    async fn get(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError> {
        let rows = self.begin()?;
        // S8: in the order of the question.
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
        let filter = CountFilter::new(audience.clone(), Liveness::Live);
        let rows = self.begin()?;
        let matching = rows
            .iter()
            .filter(|(key, _)| after.is_none_or(|after| *key > after))
            .filter(|(_, row)| filter.takes(row, now));
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
        Ok(rows.values().filter(|row| filter.takes(row, now)).count() as u64)
    }

    async fn apply(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError> {
        // S11: in their order, all in one transaction.
        let mut rows = self.begin()?;
        changes
            .iter()
            .map(|change| apply(&mut rows, change, now))
            .sum()
    }
}

/// Makes one change; how many rows it changed.
fn apply(rows: &mut Rows, change: &Change, now: Timestamp) -> Result<u64, StoreError> {
    let mut update = |key: &EndpointKey, change: &dyn Fn(&mut SubscriptionRecord) -> bool| {
        rows.get_mut(key).is_some_and(change)
    };
    let changed = match change {
        Change::Delete(key) => rows.remove(key).is_some(),
        // S12: the browser has subscribed again since that was learned.
        Change::Retire {
            key,
            reason,
            observed_at,
        } => update(key, &|row| {
            let applies = row.retired.is_none() && row.last_seen_at <= *observed_at;
            if applies {
                row.retired = Some(Retired::new(now, *reason));
            }
            applies
        }),
        Change::Stale { key, observed_at } => update(key, &|row| {
            let applies = !row.stale && row.last_seen_at <= *observed_at;
            row.stale |= applies;
            applies
        }),
        Change::Accepted(key) => update(key, &|row| {
            row.last_success_at = Some(now);
            row.failure_streak = 0;
            row.failing_since = None;
            true
        }),
        Change::Failed(key) => update(key, &|row| {
            row.failure_streak = row.failure_streak.saturating_add(1);
            row.failing_since.get_or_insert(now);
            true
        }),
        Change::UseVapidKey { key, vapid_key } => update(key, &|row| {
            row.vapid_key = *vapid_key;
            true
        }),
        Change::PurgeRetired { before } => {
            let rows_before = rows.len();
            rows.retain(|_, row| row.retired.is_none_or(|retired| retired.at >= *before));
            return Ok((rows_before - rows.len()) as u64);
        }
        // A newer version of the crate knows a change that this table does not.
        _ => return Err(StoreErrorKind::Misconfigured.into()),
    };
    Ok(changed.into())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let devices = Devices::default();
    let push_service = TestPushService::new();
    // `.store(…)`, for keys and messages, would come before; it is memory here.
    let push = WebPush::builder("mailto:ops@example.com")
        .client(push_service.clone())
        .endpoint_policy(EndpointPolicy::public_hosts())
        .subscriptions(devices.clone())
        .build()
        .await?;

    // A row that the application writes itself, past the HTTP API.
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
