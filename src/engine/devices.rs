//! A user's subscriptions: list and remove.

use std::collections::BTreeSet;

use super::Engine;
use crate::broadcast::{Principal, Tag};
use crate::clock::Timestamp;
use crate::push_service::PushService;
use crate::schedule::{NotifyType, Schedule, ScheduleName};
use crate::store::{
    LastFailure, RetireReason, Retired, StoreError, SubscriptionRecord, SubscriptionRef,
};
use crate::subscription::SubscriptionId;
use crate::text::as_text;

/// The number of subscriptions read at once.
const PAGE: usize = 100;

/// One subscription of a user, as it may be shown to that user: without endpoint and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// The subscription's id.
    pub id: SubscriptionId,
    /// The push service of its endpoint.
    pub push_service: PushService,
    /// Whether it gets messages.
    pub state: DeviceState,
    /// Its tags.
    pub tags: BTreeSet<Tag>,
    /// When it was first registered.
    pub created_at: Timestamp,
    /// When the browser last registered it.
    pub last_seen_at: Timestamp,
    /// When the push service last accepted a message for it, at most a day too early: it is written once a day.
    pub last_success_at: Option<Timestamp>,
    /// The last failure that was written, whether or not a message was accepted since.
    pub last_failure: Option<LastFailure>,
    /// Its daily notifications, by type.
    pub schedules: Vec<Schedule>,
}

impl Device {
    pub(super) fn new(row: SubscriptionRecord, schedules: Vec<Schedule>, now: Timestamp) -> Self {
        Self {
            id: row.id,
            push_service: PushService::of(row.subscription.endpoint()),
            state: DeviceState::of(&row, now),
            created_at: row.created_at,
            last_seen_at: row.last_seen_at,
            last_success_at: row.last_success_at,
            last_failure: row.last_failure,
            schedules,
            tags: row.tags,
        }
    }
}

/// Whether a subscription gets messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceState {
    /// It gets messages.
    Live,
    /// No live VAPID key fits: it gets messages again once the browser subscribes again.
    Stale,
    /// The push service no longer knows it. It is deleted after a while.
    Retired,
    /// Its `expirationTime` is past.
    Expired,
}

impl DeviceState {
    /// Returns the word that JSON uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Stale => "stale",
            Self::Retired => "retired",
            Self::Expired => "expired",
        }
    }

    pub(crate) fn of(row: &SubscriptionRecord, now: Timestamp) -> Self {
        let is_expired = |retired: &Retired| retired.reason == RetireReason::Expired;
        if row.retired.as_ref().is_some_and(is_expired) {
            Self::Expired
        } else if row.retired.is_some() {
            Self::Retired
        } else if row.stale_since.is_some() {
            Self::Stale
        } else if row.is_live(now) {
            Self::Live
        } else {
            Self::Expired
        }
    }
}

as_text!(DeviceState: Display);

impl Engine {
    /// Lists a user's subscriptions in every state.
    pub(crate) async fn devices(&self, user: &Principal) -> Result<Vec<Device>, StoreError> {
        let now = self.now();
        let mut devices = Vec::new();
        for row in self.rows_of(user).await? {
            let schedules = self.ledger.schedules(Some(row.id)).await?;
            devices.push(Device::new(row, schedules, now));
        }
        devices.sort_by_key(|device| (device.created_at, device.id));
        Ok(devices)
    }

    /// Removes one of a user's subscriptions. Returns `false` if the user has no subscription of this id.
    pub(crate) async fn remove(
        &self,
        user: &Principal,
        id: SubscriptionId,
    ) -> Result<bool, StoreError> {
        let row = self.row(SubscriptionRef::Id(id)).await?;
        let Some(row) = row.filter(|row| row.principal.as_ref() == Some(user)) else {
            return Ok(false);
        };
        self.remove_row(&row).await
    }

    /// Removes a row and then its schedules, unless it has changed hands since it was read: then both are its new owner's.
    /// If this is interrupted, the schedules are removed when they are due, since their subscription is missing.
    async fn remove_row(&self, row: &SubscriptionRecord) -> Result<bool, StoreError> {
        let is_removed = self.delete(row, Timestamp::MAX).await?;
        if is_removed {
            // Without a condition: no registration gets the id of a deleted row.
            self.ledger.remove_schedules(row.id).await?;
        }
        Ok(is_removed)
    }

    /// Removes a subscription and its daily notifications. Returns `false` if there was none.
    pub(crate) async fn unsubscribe(&self, which: SubscriptionRef) -> Result<bool, StoreError> {
        match (self.row(which).await?, which) {
            (Some(row), _) => self.remove_row(&row).await,
            // An interrupted call may have left schedules.
            (None, SubscriptionRef::Id(id)) => {
                self.ledger.remove_schedules(id).await?;
                Ok(false)
            }
            (None, SubscriptionRef::Key(_)) => Ok(false),
        }
    }

    /// Removes one daily notification, and its subscription if that has no user, no tags and no other one.
    pub(crate) async fn unsubscribe_daily(
        &self,
        which: SubscriptionRef,
        notify_type: NotifyType,
    ) -> Result<bool, StoreError> {
        let Some(row) = self.row(which).await? else {
            return Ok(false);
        };
        let name = ScheduleName::Subscriber(row.id, notify_type);
        let schedules = self.ledger.schedules(Some(row.id)).await?;
        let is_last = matches!(schedules.as_slice(), [only] if only.name() == name);
        // A row with a user or a tag gets messages without a schedule too. One that was registered since may have them.
        if is_last
            && row.principal.is_none()
            && row.tags.is_empty()
            && self.delete(&row, row.last_seen_at).await?
        {
            return Ok(self.ledger.remove_schedules(row.id).await? > 0);
        }
        // Whatever it is by now: the browser has asked for the removal of this type, and for nothing that was read.
        self.ledger.remove_schedule(&name).await
    }

    /// Lists a user's rows in every state. Their number is bounded by the limit of a principal.
    pub(super) async fn rows_of(
        &self,
        user: &Principal,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let mut rows: Vec<SubscriptionRecord> = Vec::new();
        loop {
            let after = rows.last().map(|row| row.subscription.endpoint().key());
            let page = self
                .subscriptions
                .owned_by(user, after.as_ref(), PAGE)
                .await?;
            let is_last = page.len() < PAGE;
            rows.extend(page);
            if is_last {
                return Ok(rows);
            }
        }
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
#[path = "devices_tests.rs"]
mod tests;
