//! The lines of an export: one JSON object each, with one member that names what it is.

use serde::{Deserialize, Serialize};

use crate::broadcast::{Principal, Tag};
use crate::clock::Timestamp;
use crate::error::BoxError;
use crate::push_service::PushService;
use crate::schedule::{DailyTime, NotifyType, Plan, Schedule, Weekdays, Zone};
use crate::store::{
    Failure, LastFailure, RetireReason, Retired, StoredVapidKey, SubscriptionRecord,
};
use crate::subscription::{AuthSecret, Endpoint, Subscription, SubscriptionId, UaPublicKey};
use crate::vapid::{KeyId, SealedVapidKey, VapidPublicKey};

/// The version of the format. A reader refuses others.
pub(super) const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Line {
    WebPushExport(Head),
    VapidKey(Key),
    Subscription(Box<Row>),
    Schedule(Daily),
    End(End),
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Head {
    pub(super) version: u32,
    pub(super) at: i64,
    /// Whether it has the secrets: without them it cannot be restored.
    pub(super) secrets: bool,
}

/// The last line: the numbers of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct End {
    pub(super) vapid_keys: u64,
    pub(super) subscriptions: u64,
    pub(super) schedules: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Key {
    id: String,
    public_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
    created_at: i64,
    active: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    id: SubscriptionId,
    push_service: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p256dh: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<String>,
    expiration_time: Option<i64>,
    user: Option<String>,
    tags: Vec<Tag>,
    vapid_key: String,
    created_at: i64,
    keys_changed_at: i64,
    last_seen_at: i64,
    last_success_at: Option<i64>,
    failure_streak: u32,
    failing_since: Option<i64>,
    stale_since: Option<i64>,
    retired_at: Option<i64>,
    retire_reason: Option<String>,
    last_failure: Option<Failed>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failed {
    at: i64,
    status: Option<u16>,
    reason: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Daily {
    subscription: SubscriptionId,
    #[serde(rename = "type")]
    notify_type: String,
    message: Option<String>,
    hour: u8,
    minute: u8,
    zone: String,
    weekdays: Vec<String>,
    next_fire_at: i64,
}

fn millis(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::as_millis)
}

fn moment(at: Option<i64>) -> Option<Timestamp> {
    at.map(Timestamp::from_millis)
}

impl Key {
    pub(super) fn of(key: &StoredVapidKey, secrets: bool) -> Self {
        Self {
            id: key.id.to_string(),
            public_key: key.public_key.to_string(),
            sealed: secrets.then(|| key.sealed.secret_str().to_owned()),
            created_at: key.created_at.as_millis(),
            active: key.active,
        }
    }

    pub(super) fn read(self) -> Result<StoredVapidKey, BoxError> {
        let public_key = VapidPublicKey::parse(&self.public_key)?;
        let id: KeyId = self.id.parse()?;
        if public_key.id() != id {
            return Err("the id of a VAPID key is not that of its public key".into());
        }
        let sealed = self.sealed.ok_or("a VAPID key without its private part")?;
        Ok(StoredVapidKey::new(
            id,
            public_key,
            SealedVapidKey::new(sealed),
            Timestamp::from_millis(self.created_at),
            self.active,
        ))
    }
}

impl Row {
    pub(super) fn of(row: &SubscriptionRecord, secrets: bool) -> Self {
        // Without `..`: the compiler asks what becomes of a new part.
        let SubscriptionRecord {
            id,
            subscription,
            principal,
            tags,
            vapid_key,
            created_at,
            keys_changed_at,
            last_seen_at,
            last_success_at,
            failure_streak,
            failing_since,
            stale_since,
            retired,
            last_failure,
        } = row;
        Self {
            id: *id,
            push_service: PushService::of(subscription.endpoint()).to_string(),
            endpoint: secrets.then(|| subscription.endpoint().as_str().to_owned()),
            p256dh: secrets.then(|| subscription.ua_public().to_base64url()),
            auth: secrets.then(|| subscription.auth().secret_to_base64url()),
            expiration_time: millis(subscription.expiration_time()),
            user: principal.as_ref().map(|user| user.as_str().to_owned()),
            tags: tags.iter().cloned().collect(),
            vapid_key: vapid_key.to_string(),
            created_at: created_at.as_millis(),
            keys_changed_at: keys_changed_at.as_millis(),
            last_seen_at: last_seen_at.as_millis(),
            last_success_at: millis(*last_success_at),
            failure_streak: *failure_streak,
            failing_since: millis(*failing_since),
            stale_since: millis(*stale_since),
            retired_at: millis(retired.map(|retired| retired.at)),
            retire_reason: retired.map(|retired| retired.reason.as_str().to_owned()),
            last_failure: last_failure.map(|LastFailure { at, failure }| Failed {
                at: at.as_millis(),
                status: failure.status,
                reason: failure.reason.map(|word| word.as_str().to_owned()),
            }),
        }
    }

    pub(super) fn read(self) -> Result<SubscriptionRecord, BoxError> {
        let missing = "a subscription without its endpoint and keys";
        let subscription = Subscription::new(
            Endpoint::parse(&self.endpoint.ok_or(missing)?)?,
            UaPublicKey::parse(&self.p256dh.ok_or(missing)?)?,
            AuthSecret::parse(&self.auth.ok_or(missing)?)?,
        )
        .with_expiration_time(moment(self.expiration_time));
        let created_at = Timestamp::from_millis(self.created_at);
        let vapid_key = self.vapid_key.parse()?;
        let mut row = SubscriptionRecord::new(self.id, subscription, vapid_key, created_at);
        row.principal = self.user.map(Principal::from);
        row.tags = self.tags.into_iter().collect();
        row.keys_changed_at = Timestamp::from_millis(self.keys_changed_at);
        row.last_seen_at = Timestamp::from_millis(self.last_seen_at);
        row.last_success_at = moment(self.last_success_at);
        row.failure_streak = self.failure_streak;
        row.failing_since = moment(self.failing_since);
        row.stale_since = moment(self.stale_since);
        row.retired = match (moment(self.retired_at), self.retire_reason) {
            (None, None) => None,
            (Some(at), Some(reason)) => {
                let reason = RetireReason::from_name(&reason);
                let reason = reason.ok_or("an unknown reason why a subscription is retired")?;
                Some(Retired::new(at, reason))
            }
            _ => return Err("a subscription that is half retired".into()),
        };
        row.last_failure = self.last_failure.map(|failed| {
            let failure = Failure::new(failed.status, failed.reason.as_deref());
            LastFailure::new(Timestamp::from_millis(failed.at), failure)
        });
        Ok(row)
    }
}

impl Daily {
    /// `None` for the application's own.
    pub(super) fn of(schedule: &Schedule) -> Option<Self> {
        let Plan::Subscriber {
            subscription,
            notify_type,
            message,
        } = &schedule.plan
        else {
            return None;
        };
        let names = schedule.time.weekdays().names();
        Some(Self {
            subscription: *subscription,
            notify_type: notify_type.to_string(),
            message: message.clone(),
            hour: schedule.time.hour(),
            minute: schedule.time.minute(),
            zone: schedule.time.zone().name().to_owned(),
            weekdays: names.map(str::to_owned).collect(),
            next_fire_at: schedule.next_fire_at.as_millis(),
        })
    }

    pub(super) fn read(self) -> Result<Schedule, BoxError> {
        let weekdays = Weekdays::parse(self.weekdays.iter().map(String::as_str))?;
        let time = DailyTime::new(self.hour, self.minute)?;
        let time = time.in_zone(Zone::stored(&self.zone)).on(weekdays);
        let notify_type: NotifyType = self.notify_type.parse()?;
        let plan = Plan::Subscriber {
            subscription: self.subscription,
            notify_type,
            message: self.message,
        };
        let next_fire_at = Timestamp::from_millis(self.next_fire_at);
        Ok(Schedule::new(plan, time, next_fire_at))
    }
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
