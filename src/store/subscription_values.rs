//! What goes into a subscriptions table and what comes out.

use std::collections::BTreeSet;

use crate::broadcast::{Audience, Principal, Tag};
use crate::clock::Timestamp;
use crate::push_service::PushService;
use crate::subscription::{Endpoint, EndpointKey, Subscription, SubscriptionId};
use crate::vapid::KeyId;

/// Names one row.
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
    reason = "stores handle all of it: see `store`"
)]
pub struct SubscriptionRecord {
    /// Its name.
    pub id: SubscriptionId,
    /// What the browser handed over.
    pub subscription: Subscription,
    /// Who it belongs to.
    pub principal: Option<Principal>,
    /// Its labels.
    pub tags: BTreeSet<Tag>,
    /// The VAPID key that the browser subscribed with.
    pub vapid_key: KeyId,
    /// When its id was made.
    pub created_at: Timestamp,
    /// When its `p256dh` or `auth` last changed.
    pub keys_changed_at: Timestamp,
    /// When the browser last posted it.
    pub last_seen_at: Timestamp,
    /// When a push service last took a message for it.
    pub last_success_at: Option<Timestamp>,
    /// Failed attempts since the later of the last acceptance and `last_seen_at`: without an acceptance at the network, at
    /// the push service (5xx) or for the sender's credentials, or answered with 400 or 405.
    pub failure_streak: u32,
    /// When the first of these failed; `None` without any.
    pub failing_since: Option<Timestamp>,
    /// Since when no live VAPID key fits. Such a row is in no audience until its browser subscribes again.
    pub stale_since: Option<Timestamp>,
    /// Gone, and to be purged later.
    pub retired: Option<Retired>,
}

impl SubscriptionRecord {
    /// A row as it is when it is inserted.
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
            stale_since: None,
            retired: None,
        }
    }

    /// Whether it could be any stranger's (S16): it belongs to no principal, no push was ever accepted for it, and it is
    /// neither retired nor stale, which would be an answer too.
    #[must_use]
    pub const fn is_unproven(&self) -> bool {
        self.principal.is_none()
            && self.last_success_at.is_none()
            && self.retired.is_none()
            && self.stale_since.is_none()
    }

    /// Whether [`Change::Purge`] with these moments deletes it (S13).
    #[must_use]
    pub fn is_purged(&self, before: Timestamp, expired_before: Timestamp) -> bool {
        let is_before = |at: Option<Timestamp>, end| at.is_some_and(|at| at < end);
        is_before(self.retired.map(|retired| retired.at), before)
            || is_before(self.stale_since, before)
            || is_before(self.subscription.expiration_time(), expired_before)
    }

    /// Whether it belongs to an audience at all: not retired, not stale, not expired at `now`.
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

/// Since when and why a row is retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle all of it: see `store`"
)]
pub struct Retired {
    /// Since when.
    pub at: Timestamp,
    /// Why.
    pub reason: RetireReason,
}

impl Retired {
    /// Retired at a moment for a reason.
    #[must_use]
    pub const fn new(at: Timestamp, reason: RetireReason) -> Self {
        Self { at, reason }
    }
}

/// Why a row was retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RetireReason {
    /// The push service answered that it is gone (404, 410).
    Gone,
    /// The endpoint's host name does not exist.
    HostNotFound,
    /// The push service has refused every request for weeks (400, 405).
    BadRequest,
}

impl RetireReason {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Gone, Self::HostNotFound, Self::BadRequest];

    /// The name that stores use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::HostNotFound => "host_not_found",
            Self::BadRequest => "bad_request",
        }
    }

    /// The reason of a stored name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == name)
    }
}

/// What to insert or update.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle all of it: see `store`"
)]
pub struct NewSubscription {
    /// The id that a new row gets.
    pub id: SubscriptionId,
    /// What the browser handed over.
    pub subscription: Subscription,
    /// Who it belongs to, where the caller is somebody.
    pub principal: Option<Principal>,
    /// The labels, where they are given.
    pub tags: Option<BTreeSet<Tag>>,
    /// The VAPID key that the browser named.
    pub vapid_key: Option<KeyId>,
    /// The VAPID key that a new row gets when none was named: the active one.
    pub default_vapid_key: KeyId,
    /// The row that this one takes the place of (S5). The caller has checked that it may.
    pub replaces: Option<EndpointKey>,
    /// Insert it, or change nothing (S14).
    pub only_if_unknown: bool,
}

impl NewSubscription {
    /// A subscription of nobody in particular, under a fresh id.
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
        }
    }

    /// The key of the row that is inserted or updated.
    #[must_use]
    pub fn key(&self) -> EndpointKey {
        self.subscription.endpoint().key()
    }

    /// The row to remove (S5): `replaces`, unless that is the row itself.
    #[must_use]
    pub fn replaced_key(&self) -> Option<EndpointKey> {
        self.replaces.filter(|replaced| *replaced != self.key())
    }
}

/// How many rows there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle all of it: see `store`"
)]
pub struct SubscriptionLimits {
    /// In all (S7).
    pub total: u64,
    /// Of one principal (S6).
    pub per_principal: u32,
    /// Of no principal, and without an accepted push (S16). Default: 100,000, about 100 MB.
    ///
    /// Strangers can write such rows, so this bounds what a flood of them costs: room in the store, and requests of the
    /// next broadcast. Broadcasts to all end it: for each row a push is accepted, or the row is retired; but not with the
    /// first one where the flood is so large that the [`PruneBreaker`](crate::engine::PruneBreaker) opens. Then it
    /// takes 25 of them and three days. Until then no further rows are inserted, while those of principals are.
    pub unproven: u64,
}

impl SubscriptionLimits {
    /// Limits for all rows and for those of one principal, and the default for unproven ones.
    #[must_use]
    pub const fn new(total: u64, per_principal: u32) -> Self {
        Self {
            total,
            per_principal,
            unproven: 100_000,
        }
    }

    /// The same with another limit for unproven rows.
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

/// What an upsert came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "S2 to S5 and S14 name both ends")]
pub enum Upserted {
    /// There is a row now, and this is it.
    Stored {
        /// The row after the change.
        record: Box<SubscriptionRecord>,
        /// Whether its endpoint was unknown before.
        created: bool,
        /// The id that the row at the new endpoint had before it took over another (S5).
        superseded: Option<SubscriptionId>,
    },
    /// The endpoint is known with other keys, and the caller may not change them (S4); or it is known at all, and
    /// only a new row was wanted (S14).
    Conflict,
}

/// Which rows to count.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle all of it: see `store`"
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
    /// Every row of an audience that is in one state.
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

/// The states of a row that can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "stores handle all of it: see `store`"
)]
pub enum Liveness {
    /// Every row there is.
    Any,
    /// Neither retired nor stale nor expired: what [`page`](super::SubscriptionStore::page) walks.
    Live,
    /// Not retired, but no live VAPID key is accepted: the subscription is stale.
    Stale,
    /// Retired.
    Retired,
}

/// One change to stored subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "stores handle all of it: see `store`"
)]
pub enum Change {
    /// Deletes a row: its user unsubscribed.
    Delete(EndpointKey),
    /// Retires a row softly.
    Retire {
        /// Which.
        key: EndpointKey,
        /// Why.
        reason: RetireReason,
        /// When the attempt began that showed it (S12).
        observed_at: Timestamp,
    },
    /// No live VAPID key fits the row.
    Stale {
        /// Which.
        key: EndpointKey,
        /// When the attempt began that showed it (S12).
        observed_at: Timestamp,
    },
    /// A push service took a message: sets `last_success_at` to `now` and ends the failure streak.
    Accepted(EndpointKey),
    /// An attempt failed: adds one to the failure streak, and sets `failing_since` to `now` if it is the first of it.
    Failed(EndpointKey),
    /// Another live VAPID key turned out to be the row's own.
    UseVapidKey {
        /// Which row.
        key: EndpointKey,
        /// Its key.
        vapid_key: KeyId,
    },
    /// Deletes rows that no push can reach any more, some time after that is known, at most [`STEP`](super::STEP) of them
    /// (S13). A page that subscribes again later is inserted as a new row.
    Purge {
        /// Deletes rows that are retired or stale since before this moment.
        before: Timestamp,
        /// Deletes rows whose `expirationTime` is before this moment.
        expired_before: Timestamp,
    },
}

impl Change {
    /// The row that it is about; `None` if it may be about any.
    #[must_use]
    pub const fn key(&self) -> Option<&EndpointKey> {
        match self {
            Self::Delete(key)
            | Self::Retire { key, .. }
            | Self::Stale { key, .. }
            | Self::Accepted(key)
            | Self::Failed(key)
            | Self::UseVapidKey { key, .. } => Some(key),
            Self::Purge { .. } => None,
        }
    }
}
