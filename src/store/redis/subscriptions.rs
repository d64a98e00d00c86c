//! Subscriptions in Redis.

use async_trait::async_trait;

use super::error::outrun;
use super::reply::{Reply, number, unexpected};
use super::rows::{pack_row, principal_text, status_text, unpack_row};
use super::script::{APPLY, Args, PURGE, UPSERT};
use super::{RedisStore, StoreError};
use crate::broadcast::{Audience, Principal};
use crate::clock::Timestamp;
use crate::store::reason::misconfigured;
use crate::store::rules::merge;
use crate::store::{
    Change, CountFilter, LiveCounts, NewSubscription, ReasonWord, RetireReason, STEP,
    StoreErrorKind, SubscriptionFilter, SubscriptionLimits, SubscriptionPage, SubscriptionRecord,
    SubscriptionRef, SubscriptionStore, Upserted,
};
use crate::subscription::EndpointKey;
use crate::vapid::KeyId;

/// The number of attempts of an upsert. Each failure means that a concurrent change of the row succeeded.
const TRIES: usize = 100;
/// Changes that one script makes.
const CHANGED_AT_ONCE: usize = 1000;

/// The packed rows that an upsert merges with, empty if there is none.
#[derive(Default)]
struct Standing {
    /// The row of its endpoint.
    row: Vec<u8>,
    /// The row that it replaces.
    replaced: Vec<u8>,
}

fn unpack_or_none(raw: &[u8]) -> Result<Option<SubscriptionRecord>, StoreError> {
    (!raw.is_empty()).then(|| unpack_row(raw)).transpose()
}

impl RedisStore {
    /// Reads what an upsert merges with.
    async fn standing(&self, new: &NewSubscription) -> Result<Standing, StoreError> {
        let keys = [Some(new.key()), new.replaced_key()];
        let refs: Vec<_> = keys
            .into_iter()
            .flatten()
            .map(SubscriptionRef::Key)
            .collect();
        let mut raw = self.raw_rows(&refs).await?.into_iter();
        let mut next = || raw.next().flatten().unwrap_or_default();
        Ok(Standing {
            row: next(),
            replaced: next(),
        })
    }

    /// Merges with the rows as they were read and writes, in one script. Returns the rows as they are if those have changed.
    async fn try_upsert(
        &self,
        new: &NewSubscription,
        read: Standing,
        limits: &SubscriptionLimits,
        now: Timestamp,
    ) -> Result<Result<Upserted, Standing>, StoreError> {
        let standing = unpack_or_none(&read.row)?;
        let replaced = unpack_or_none(&read.replaced)?;
        let Some(merged) = merge(standing, replaced.as_ref(), new, now) else {
            return Ok(Ok(Upserted::Conflict));
        };
        let replaces = new.replaced_key();
        let args = Args::default()
            .with(*new.key().as_bytes())
            .with(read.row)
            .with(replaces.map_or_else(Vec::new, |key| key.as_bytes().to_vec()))
            .with(read.replaced)
            .with(pack_row(&merged.record))
            .number(limits.total)
            .number(limits.per_principal)
            .number(limits.unproven);
        let mut answer = Reply::of(self.run(&UPSERT, &args).await?)?;
        match answer.bytes()?.as_slice() {
            b"stored" => Ok(Ok(merged.into())),
            b"again" => Ok(Err(Standing {
                row: answer.bytes()?,
                replaced: answer.bytes()?,
            })),
            b"full" => Err(StoreErrorKind::Full.into()),
            b"unproven" => Err(StoreError::too_many_unproven()),
            // S1: ids are unique.
            b"taken" => Err(misconfigured("the id is another row's")),
            _ => Err(unexpected()),
        }
    }

    async fn purge(
        &self,
        before: Timestamp,
        expired_before: Timestamp,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let args = Args::at(now).time(before).time(expired_before);
        let args = args.with(RetireReason::Expired.as_str());
        let mut purged = 0;
        while purged < STEP as u64 {
            let some = number(self.run(&PURGE, &args).await?)?;
            purged += some;
            if some == 0 {
                break;
            }
        }
        Ok(purged)
    }

    /// Makes changes that are not purges.
    async fn change(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError> {
        let mut changed = 0;
        for changes in changes.chunks(CHANGED_AT_ONCE) {
            let args = changes.iter().fold(Args::at(now), push_change);
            changed += number(self.run(&APPLY, &args).await?)?;
        }
        Ok(changed)
    }
}

/// Pushes the six arguments of a change. Purges, which have a script of their own, have none.
fn push_change(args: Args, change: &Change) -> Args {
    let nothing = String::new;
    let (kind, key, first, second) = match change {
        Change::Delete {
            key,
            principal,
            observed_at,
        } => {
            let principal = principal_text(principal.as_ref());
            ("delete", key, millis(*observed_at), principal)
        }
        Change::Retire {
            key,
            reason,
            observed_at,
            ..
        } => {
            let reason = reason.as_str().to_owned();
            ("retire", key, millis(*observed_at), reason)
        }
        Change::Stale {
            key, observed_at, ..
        } => ("stale", key, millis(*observed_at), nothing()),
        Change::Accepted(key) => ("accepted", key, Vec::new(), nothing()),
        Change::Failed { key, .. } => ("failed", key, Vec::new(), nothing()),
        Change::UseVapidKey { key, vapid_key } => {
            let vapid_key = vapid_key.as_bytes().to_vec();
            ("vapid_key", key, vapid_key, nothing())
        }
        Change::Purge { .. } => return args,
    };
    let failure = change.failure().copied().unwrap_or_default();
    let why = failure.reason.as_ref().map_or("", ReasonWord::as_str);
    args.with(kind)
        .with(*key.as_bytes())
        .with(first)
        .with(second)
        .with(status_text(&failure))
        .with(why)
}

fn millis(at: Timestamp) -> Vec<u8> {
    at.as_millis().to_string().into_bytes()
}

#[async_trait]
impl SubscriptionStore for RedisStore {
    async fn upsert(
        &self,
        new: &NewSubscription,
        limits: &SubscriptionLimits,
        now: Timestamp,
    ) -> Result<Upserted, StoreError> {
        // Most subscriptions are new: a wrong guess costs as much as a look. One that replaces another or is assigned has rows.
        let mut read = match new.replaced_key().is_some() || new.assign.is_some() {
            true => self.standing(new).await?,
            false => Standing::default(),
        };
        for _ in 0..TRIES {
            match self.try_upsert(new, read, limits, now).await? {
                Ok(upserted) => return Ok(upserted),
                Err(changed) => read = changed,
            }
        }
        Err(outrun())
    }

    async fn get(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError> {
        self.rows(which).await
    }

    async fn page(
        &self,
        audience: &Audience,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.live_page(audience, after, limit, now).await
    }

    async fn owned_by(
        &self,
        principal: &Principal,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.owned_page(principal, after, limit).await
    }

    async fn list_subscriptions(
        &self,
        filter: &SubscriptionFilter,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<SubscriptionPage, StoreError> {
        self.subscriptions_page(filter, after, limit, now).await
    }

    async fn count(&self, filter: &CountFilter, now: Timestamp) -> Result<u64, StoreError> {
        self.count_rows(filter, now).await
    }

    async fn count_live(&self, keys: &[KeyId], now: Timestamp) -> Result<LiveCounts, StoreError> {
        self.count_live_rows(keys, now).await
    }

    async fn apply(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError> {
        let mut changed = 0;
        // Purges run in order, between the changes before and after them.
        for part in changes.split_inclusive(|change| matches!(change, Change::Purge { .. })) {
            match part {
                [
                    rest @ ..,
                    Change::Purge {
                        before,
                        expired_before,
                    },
                ] => {
                    changed += self.change(rest, now).await?;
                    changed += self.purge(*before, *expired_before, now).await?;
                }
                rest => changed += self.change(rest, now).await?,
            }
        }
        Ok(changed)
    }
}
