//! Values that a subscriptions table reads and returns.

use std::collections::BTreeSet;

use super::{Failure, LastFailure};
use crate::broadcast::{Audience, Principal, Tag};
use crate::clock::Timestamp;
use crate::push_service::PushService;
use crate::subscription::{Endpoint, EndpointKey, Subscription, SubscriptionId};
use crate::vapid::KeyId;

/// A reference to one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "S1: a row has these two names")]
pub enum SubscriptionRef {
    /// By its id.
    Id(SubscriptionId),
    /// By its endpoint.
    Key(EndpointKey),
}

impl From<SubscriptionId> for SubscriptionRef {
    fn from(id: SubscriptionId) -> Self {
        Self::Id(id)
    }
}

impl From<&Endpoint> for SubscriptionRef {
    fn from(endpoint: &Endpoint) -> Self {
        Self::Key(endpoint.key())
    }
}

/// A stored subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct SubscriptionRecord {
    /// Its id.
    pub id: SubscriptionId,
    /// The subscription as the browser made it.
    pub subscription: Subscription,
    /// The user it belongs to.
    pub principal: Option<Principal>,
    /// Its labels.
    pub tags: BTreeSet<Tag>,
    /// The VAPID key that the browser subscribed with.
    pub vapid_key: KeyId,
    /// When the row was inserted.
    pub created_at: Timestamp,
    /// When its `p256dh` or `auth` last changed.
    pub keys_changed_at: Timestamp,
    /// When the browser last registered it.
    pub last_seen_at: Timestamp,
    /// When a push service last accepted a message for it, at most a day too early: the engine writes it once a day.
    pub last_success_at: Option<Timestamp>,
    /// Failed attempts since the later of the last acceptance and `last_seen_at`: network errors, 5xx, refused
    /// credentials, and the responses 400 and 405.
    pub failure_streak: u32,
    /// When the first of these attempts failed. `None` without failures.
    pub failing_since: Option<Timestamp>,
    /// The last failed attempt that changed the row. An acceptance does not clear it: compare its time with that of
    /// `last_success_at`. Failures that change nothing about the row, of a message that is too large for example, are not
    /// written.
    pub last_failure: Option<LastFailure>,
    /// Since when no live VAPID key matches. Such a row is in no audience until its browser subscribes again.
    pub stale_since: Option<Timestamp>,
    /// Since when and why it is retired. It is purged later.
    pub retired: Option<Retired>,
}

impl SubscriptionRecord {
    /// Makes a row as it is inserted.
    #[must_use]
    pub const fn new(
        id: SubscriptionId,
        subscription: Subscription,
        vapid_key: KeyId,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            subscription,
            principal: None,
            tags: BTreeSet::new(),
            vapid_key,
            created_at: now,
            keys_changed_at: now,
            last_seen_at: now,
            last_success_at: None,
            failure_streak: 0,
            failing_since: None,
            last_failure: None,
            stale_since: None,
            retired: None,
        }
    }

    /// Whether it is unproven (S16): it has no principal, no push was ever accepted for it, and it is neither retired
    /// nor stale, both of which need a response of the push service.
    #[must_use]
    pub const fn is_unproven(&self) -> bool {
        self.principal.is_none()
            && self.last_success_at.is_none()
            && self.retired.is_none()
            && self.stale_since.is_none()
    }

    /// Whether it has expired at `now` and is neither retired nor stale. A purge deletes or retires it (S13).
    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.retired.is_none() && self.stale_since.is_none() && !self.is_live(now)
    }

    /// Whether [`Change::Purge`] with these times deletes it (S13).
    pub(crate) fn is_purged(
        &self,
        before: Timestamp,
        expired_before: Timestamp,
        now: Timestamp,
    ) -> bool {
        let is_before = |at: Option<Timestamp>, end| at.is_some_and(|at| at < end);
        is_before(self.retired.map(|retired| retired.at), before)
            || is_before(self.stale_since, before)
            || is_before(self.subscription.expiration_time(), expired_before)
            || (self.is_unproven() && self.is_expired(now))
    }

    /// Whether it is in audiences: not retired, not stale, not expired at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.retired.is_none()
            && self.stale_since.is_none()
            && self
                .subscription
                .expiration_time()
                .is_none_or(|at| at > now)
    }
}

/// The time and reason of a retirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct Retired {
    /// Since when.
    pub at: Timestamp,
    /// Why.
    pub reason: RetireReason,
}

impl Retired {
    /// Makes a value of the two.
    #[must_use]
    pub const fn new(at: Timestamp, reason: RetireReason) -> Self {
        Self { at, reason }
    }
}

/// The reason why a row was retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RetireReason {
    /// The push service answered that it does not exist (404, 410).
    Gone,
    /// The endpoint's host name does not exist.
    HostNotFound,
    /// The push service refused every request for weeks (400, 405).
    BadRequest,
    /// Its `expirationTime` has passed (S13).
    Expired,
}

impl RetireReason {
    /// All reasons.
    pub const ALL: &'static [Self] = &[
        Self::Gone,
        Self::HostNotFound,
        Self::BadRequest,
        Self::Expired,
    ];

    /// Returns the stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::HostNotFound => "host_not_found",
            Self::BadRequest => "bad_request",
            Self::Expired => "expired",
        }
    }

    /// Returns the reason of a stored name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == name)
    }
}

/// A subscription to insert or update.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct NewSubscription {
    /// The id of a new row.
    pub id: SubscriptionId,
    /// The subscription as the browser made it.
    pub subscription: Subscription,
    /// The user it belongs to, if the caller is authenticated.
    pub principal: Option<Principal>,
    /// The labels. `None`: those stored stay.
    pub tags: Option<BTreeSet<Tag>>,
    /// The VAPID key that the browser subscribed with.
    pub vapid_key: Option<KeyId>,
    /// The VAPID key of a new row if `vapid_key` is `None`: the active one.
    pub default_vapid_key: KeyId,
    /// The row that this one replaces (S5). The caller has checked the right to do so.
    pub replaces: Option<EndpointKey>,
    /// Whether a known endpoint is a conflict (S14).
    pub only_if_unknown: bool,
    /// What to set of a known row, and nothing else (S21).
    pub assign: Option<Assignment>,
}

/// What an administrator sets of a row (S21).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct Assignment {
    /// The user, `Some(None)` for none. `None`: the stored one stays.
    pub principal: Option<Option<Principal>>,
    /// The labels. `None`: those stored stay.
    pub tags: Option<BTreeSet<Tag>>,
}

impl NewSubscription {
    /// Makes a value without principal and tags, with a new id.
    #[must_use]
    pub fn new(subscription: Subscription, default_vapid_key: KeyId) -> Self {
        Self {
            id: SubscriptionId::random(),
            subscription,
            principal: None,
            tags: None,
            vapid_key: None,
            default_vapid_key,
            replaces: None,
            only_if_unknown: false,
            assign: None,
        }
    }

    /// Makes a value that sets principal and tags of a row as it was read (S21).
    #[must_use]
    pub fn assigning(row: &SubscriptionRecord, assignment: Assignment) -> Self {
        Self {
            id: row.id,
            assign: Some(assignment),
            ..Self::new(row.subscription.clone(), row.vapid_key)
        }
    }

    /// Returns the key of the row to insert or update.
    #[must_use]
    pub fn key(&self) -> EndpointKey {
        self.subscription.endpoint().key()
    }

    /// Returns the row to remove (S5): `replaces`, unless that is the row itself.
    #[must_use]
    pub fn replaced_key(&self) -> Option<EndpointKey> {
        self.replaces.filter(|replaced| *replaced != self.key())
    }
}

/// Limits of the number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct SubscriptionLimits {
    /// All rows (S7).
    pub total: u64,
    /// Rows of one principal (S6).
    pub per_principal: u32,
    /// Rows without a principal and without an accepted push (S16). Default: 100,000, about 100 MB.
    ///
    /// Unauthenticated callers can write such rows, so this bounds what a flood of them costs: space in the store,
    /// and requests of the next broadcast. A broadcast to all removes them from the count: for each row a push is
    /// accepted, or the row is retired. If the flood is so large that the
    /// [`PruneBreaker`](crate::engine::PruneBreaker) opens, this takes 25 broadcasts and three days. Until then no
    /// further unproven rows are inserted; rows of principals are.
    pub unproven: u64,
}

impl SubscriptionLimits {
    /// Makes limits for all rows and for those of one principal, with the default for unproven ones.
    #[must_use]
    pub const fn new(total: u64, per_principal: u32) -> Self {
        Self {
            total,
            per_principal,
            unproven: 100_000,
        }
    }

    /// Sets the limit of unproven rows.
    #[must_use]
    pub const fn with_unproven(mut self, unproven: u64) -> Self {
        self.unproven = unproven;
        self
    }
}

impl Default for SubscriptionLimits {
    /// Ten million in all, 32 of one principal, 100,000 unproven ones.
    fn default() -> Self {
        Self::new(10_000_000, 32)
    }
}

/// The result of an upsert.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "S2 to S5 and S14 name both ends")]
pub enum Upserted {
    /// The row is stored.
    Stored {
        /// The row after the change.
        record: Box<SubscriptionRecord>,
        /// Whether the endpoint was unknown before.
        created: bool,
        /// The id that the row at the new endpoint had before it took over another (S5).
        superseded: Option<SubscriptionId>,
        /// The ids of the rows that belonged to another principal until now, the row's own or `superseded` (S3, S5): the
        /// caller removes their schedules.
        handed_over: Vec<SubscriptionId>,
        /// Whether the row was stale until now (S3), or the row that it replaces if the endpoint was unknown (S5): no live
        /// VAPID key fitted its subscription.
        was_stale: bool,
    },
    /// The endpoint is stored with other keys, and the caller may not change them (S4); or it is stored, and only a
    /// new row was wanted (S14).
    Conflict,
}

/// A filter of the rows to count.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct CountFilter {
    /// Of this audience.
    pub audience: Audience,
    /// In this state.
    pub liveness: Liveness,
    /// At this push service.
    pub push_service: Option<PushService>,
    /// Of this VAPID key.
    pub vapid_key: Option<KeyId>,
}

impl CountFilter {
    /// Makes a filter for all rows of an audience in one state.
    #[must_use]
    pub const fn new(audience: Audience, liveness: Liveness) -> Self {
        Self {
            audience,
            liveness,
            push_service: None,
            vapid_key: None,
        }
    }
}

/// The states of rows that can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "stores handle every part: see `store`"
)]
pub enum Liveness {
    /// Every row.
    Any,
    /// Neither retired nor stale nor expired: the rows that [`page`](super::SubscriptionStore::page) returns.
    Live,
    /// Stale and not retired: no live VAPID key matches.
    Stale,
    /// Retired.
    Retired,
}

/// One change to stored subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "stores handle every part: see `store`"
)]
pub enum Change {
    /// Deletes a row: its user unsubscribed. A row that has changed hands since it was read stays (S18).
    Delete {
        /// Its key.
        key: EndpointKey,
        /// Its principal, as it was read.
        principal: Option<Principal>,
        /// The latest `last_seen_at` that it may have: as it was read, or [`Timestamp::MAX`] if it does not matter
        /// whether the same principal has registered it again.
        observed_at: Timestamp,
    },
    /// Retires a row. It is purged later.
    Retire {
        /// Its key.
        key: EndpointKey,
        /// Why.
        reason: RetireReason,
        /// When the attempt that showed it began (S12).
        observed_at: Timestamp,
        /// What the push service answered.
        failure: Failure,
    },
    /// Marks a row as stale: no live VAPID key matches.
    Stale {
        /// Its key.
        key: EndpointKey,
        /// When the attempt that showed it began (S12).
        observed_at: Timestamp,
        /// What the push service answered.
        failure: Failure,
    },
    /// Records an accepted message: sets `last_success_at` to `now` and resets the failure streak.
    Accepted(EndpointKey),
    /// Records a failed attempt: adds one to the failure streak, and sets `failing_since` to `now` if it is the
    /// first.
    Failed {
        /// Its key.
        key: EndpointKey,
        /// Why it failed.
        failure: Failure,
    },
    /// Sets the VAPID key of a row to another live one, which the push service accepted.
    UseVapidKey {
        /// Its key.
        key: EndpointKey,
        /// The VAPID key.
        vapid_key: KeyId,
    },
    /// Deletes rows that have been unreachable for some time, and unproven rows that have expired, and retires other rows
    /// that have expired: at most [`STEP`](super::STEP) of them (S13). A page that subscribes again later gets a new row.
    Purge {
        /// Deletes rows that have been retired or stale since before this moment.
        before: Timestamp,
        /// Deletes rows whose `expirationTime` is before this moment.
        expired_before: Timestamp,
    },
}

impl Change {
    /// Makes the deletion of a row as it was read: one that was registered again since then stays (S18).
    #[must_use]
    pub fn delete(row: &SubscriptionRecord) -> Self {
        Self::Delete {
            key: row.subscription.endpoint().key(),
            principal: row.principal.clone(),
            observed_at: row.last_seen_at,
        }
    }

    /// Returns the failure that it records (S19).
    #[must_use]
    pub const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed { failure, .. }
            | Self::Retire { failure, .. }
            | Self::Stale { failure, .. } => Some(failure),
            Self::Delete { .. }
            | Self::Accepted(_)
            | Self::UseVapidKey { .. }
            | Self::Purge { .. } => None,
        }
    }

    /// Returns the row that it changes, or `None` if it may be any.
    #[must_use]
    pub const fn key(&self) -> Option<&EndpointKey> {
        match self {
            Self::Delete { key, .. }
            | Self::Retire { key, .. }
            | Self::Stale { key, .. }
            | Self::Accepted(key)
            | Self::Failed { key, .. }
            | Self::UseVapidKey { key, .. } => Some(key),
            Self::Purge { .. } => None,
        }
    }
}
