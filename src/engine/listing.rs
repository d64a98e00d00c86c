//! Lists for operators: broadcasts, and subscriptions of all users.

use std::cmp::Reverse;

use super::Engine;
use super::devices::Device;
use super::schedules_of::schedules_of;
use crate::broadcast::{BroadcastId, FinalOutcome, Principal};
use crate::clock::Timestamp;
use crate::push_service::PushService;
use crate::schedule::Schedule;
use crate::store::{
    BroadcastCursor, BroadcastFilter, BroadcastPage, Failure, RetireReason, STEP, StoreError,
    StoreErrorKind, SubscriptionFilter, SubscriptionRecord, SubscriptionRef,
};
use crate::subscription::{EndpointKey, SubscriptionId};
use crate::vapid::KeyId;

/// A stored subscription, as an operator may see it: without endpoint and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionInfo {
    /// What its user may see too.
    pub device: Device,
    /// The user it belongs to.
    pub user: Option<Principal>,
    /// The VAPID key that the browser subscribed with.
    pub vapid_key: KeyId,
    /// Failed attempts since the later of the last acceptance and the last registration.
    pub failure_streak: u32,
    /// Why it is retired, if it is.
    pub retire_reason: Option<RetireReason>,
    /// When it expires, as the browser said.
    pub expiration_time: Option<Timestamp>,
}

/// A page of a list of subscriptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionList {
    /// The subscriptions, in the order of their endpoints' keys. There may be more although these are few, or none.
    pub subscriptions: Vec<SubscriptionInfo>,
    /// Where the list goes on. `None`: there are no more.
    pub next: Option<EndpointKey>,
}

/// A recipient that a broadcast did not reach, as an example of others.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedRecipient {
    /// When it was finished.
    pub at: Timestamp,
    /// How it finished.
    pub outcome: FinalOutcome,
    /// The status and the reason of the last response.
    pub failure: Failure,
    /// The push service of its subscription.
    pub push_service: PushService,
    /// The subscription. `None` if it was deleted since.
    pub subscription: Option<SubscriptionId>,
}

impl Engine {
    /// Lists samples of the recipients that a broadcast did not reach, the latest first.
    pub(crate) async fn failures(
        &self,
        id: BroadcastId,
    ) -> Result<Vec<FailedRecipient>, StoreError> {
        let mut samples = self.ledger.failure_samples(id).await?;
        samples.sort_by_key(|sample| (Reverse(sample.at), sample.key));
        let mut failures = Vec::with_capacity(samples.len());
        for sample in samples {
            // One that cannot be read hides no other.
            let row = readable(self.row(SubscriptionRef::Key(sample.key)).await)?;
            failures.push(FailedRecipient {
                at: sample.at,
                outcome: sample.outcome,
                failure: sample.cause.failure,
                push_service: sample.cause.push_service,
                subscription: row.map(|row| row.id),
            });
        }
        Ok(failures)
    }

    /// Lists broadcasts, at most [`STEP`] at once.
    pub(crate) async fn broadcasts(
        &self,
        filter: &BroadcastFilter,
        after: Option<&BroadcastCursor>,
        limit: usize,
    ) -> Result<BroadcastPage, StoreError> {
        let (limit, now) = (limit.clamp(1, STEP), self.now());
        self.ledger.list_broadcasts(filter, after, limit, now).await
    }

    /// Lists subscriptions in every state, at most [`STEP`] at once.
    pub(crate) async fn subscriptions(
        &self,
        filter: &SubscriptionFilter,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<SubscriptionList, StoreError> {
        let (limit, now) = (limit.clamp(1, STEP), self.now());
        let page = self
            .subscriptions
            .list_subscriptions(filter, after, limit, now)
            .await?;
        let ids: Vec<_> = page.rows.iter().map(|row| row.id).collect();
        let schedules = schedules_of(&self.ledger, &ids).await?;
        let rows = page.rows.into_iter().zip(schedules);
        Ok(SubscriptionList {
            subscriptions: rows
                .map(|(row, schedules)| info(row, schedules, now))
                .collect(),
            next: page.next,
        })
    }

    /// Finds one subscription.
    pub(crate) async fn subscription(
        &self,
        which: SubscriptionRef,
    ) -> Result<Option<SubscriptionInfo>, StoreError> {
        let Some(row) = self.row(which).await? else {
            return Ok(None);
        };
        let schedules = self.ledger.schedules(Some(row.id)).await?;
        Ok(Some(info(row, schedules, self.now())))
    }
}

fn info(row: SubscriptionRecord, schedules: Vec<Schedule>, now: Timestamp) -> SubscriptionInfo {
    SubscriptionInfo {
        user: row.principal.clone(),
        vapid_key: row.vapid_key,
        failure_streak: row.failure_streak,
        retire_reason: row.retired.map(|retired| retired.reason),
        expiration_time: row.subscription.expiration_time(),
        device: Device::new(row, schedules, now),
    }
}

/// A row, or `None` if it cannot be read.
fn readable(
    row: Result<Option<SubscriptionRecord>, StoreError>,
) -> Result<Option<SubscriptionRecord>, StoreError> {
    match row {
        Err(error) if error.kind() == StoreErrorKind::Corrupt => Ok(None),
        row => row,
    }
}
