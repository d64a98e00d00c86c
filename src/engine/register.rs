//! Registering a subscription.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::Engine;
use crate::broadcast::{Principal, Tag};
use crate::clock::Timestamp;
use crate::deliver::Unverified;
use crate::error::error_struct;
use crate::observe::event;
use crate::schedule::{Daily, Plan, Schedule};
use crate::store::rules::{Merged, merge};
use crate::store::{
    Change, NewSubscription, StoreError, StoreErrorKind, SubscriptionRecord, SubscriptionRef,
    Upserted,
};
use crate::subscription::{Endpoint, EndpointKey, Subscription, SubscriptionId};
use crate::vapid::{KeyId, VapidError, VapidPublicKey};

/// A subscription to store, with its owner, tags and daily notification: for
/// [`WebPush::subscribe`](crate::WebPush::subscribe).
///
/// # Examples
///
/// ```
/// # async fn example(push: tower_web_push::WebPush, body: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
/// use tower_web_push::{Registration, Subscription};
///
/// // In a handler of the application, which knows the signed-in user.
/// let registration = Registration::new(Subscription::from_json(body)?).principal("alice");
/// let registered = push.subscribe(registration).await?;
/// println!("subscription {}", registered.id);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a registration does nothing until it is given to `subscribe`"]
pub struct Registration {
    subscription: Subscription,
    principal: Option<Principal>,
    tags: Option<BTreeSet<Tag>>,
    vapid_key: Option<VapidPublicKey>,
    daily: Option<Daily>,
}

impl Registration {
    /// Makes a registration without a user and tags, for the active VAPID key.
    pub const fn new(subscription: Subscription) -> Self {
        Self {
            subscription,
            principal: None,
            tags: None,
            vapid_key: None,
            daily: None,
        }
    }

    /// Sets the owner. The caller has authenticated this user. A stored subscription without an owner gets it; one of
    /// another user changes its owner if the keys are the same, which only the browser itself knows, and loses its tags and
    /// daily notifications, unless this registration gives them.
    pub fn principal(mut self, principal: impl Into<Principal>) -> Self {
        self.principal = Some(principal.into());
        self
    }

    /// Sets the tags, at most 32. They replace the stored ones.
    pub fn tags(mut self, tags: impl IntoIterator<Item = Tag>) -> Self {
        self.tags = Some(tags.into_iter().collect());
        self
    }

    /// Sets the VAPID key that the browser subscribed with, its `applicationServerKey`. Default: the active key for a
    /// new subscription, the stored one for a known subscription.
    pub fn vapid_key(mut self, key: VapidPublicKey) -> Self {
        self.vapid_key = Some(key);
        self
    }

    /// Sets a daily notification. It replaces the subscription's daily notification of the same type.
    pub fn daily(mut self, daily: Daily) -> Self {
        self.daily = Some(daily);
        self
    }

    /// The key of its push resource.
    #[cfg(feature = "api")]
    pub(crate) fn resource_key(&self) -> EndpointKey {
        self.subscription.endpoint().resource_key()
    }

    #[cfg(feature = "api")]
    pub(crate) const fn has_daily(&self) -> bool {
        self.daily.is_some()
    }

    pub(super) const fn owner(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }
}

/// The result of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Registered {
    /// The subscription's id.
    pub id: SubscriptionId,
    /// Whether its endpoint was unknown before.
    pub created: bool,
    /// Whether its VAPID key is not the active one, or unknown, because no key fitted it and the registration names none: the
    /// page should subscribe again with [`vapid_public_key`](crate::WebPush::vapid_public_key).
    pub stale_key: bool,
}

/// The schedules of a row that another principal takes over.
#[derive(Debug)]
struct Former {
    id: SubscriptionId,
    schedules: Vec<Schedule>,
    /// Whether there may be others, which the store cannot read.
    has_unreadable: bool,
}

impl Engine {
    /// Stores a registration, in the place of another row if the caller has checked the right to replace it.
    pub(crate) async fn register(
        &self,
        registration: Registration,
        replaces: Option<EndpointKey>,
    ) -> Result<Registered, RegisterError> {
        let Registration {
            subscription,
            principal,
            tags,
            vapid_key,
            daily,
        } = registration;
        let now = self.now();
        if subscription.expiration_time().is_some_and(|at| at <= now) {
            return Err(RegisterErrorKind::SubscriptionExpired.into());
        }
        check_labels(principal.as_ref(), tags.as_ref())?;
        let endpoint = subscription.endpoint();
        self.endpoint_policy.check(endpoint).map_err(|refused| {
            RegisterError::with_source(RegisterErrorKind::EndpointNotAllowed, refused)
        })?;
        let vapid_key = match vapid_key {
            Some(key) => Some(self.live_key(key.id()).await?),
            None => None,
        };
        // The last check, since it costs a lookup.
        self.check_host(endpoint).await?;
        // Read after the lookup of the named key, which may have shown that another process rotated.
        let active = self.key_ring.active().id();
        let mut new = NewSubscription::new(subscription, active);
        new.principal = principal;
        new.tags = tags;
        new.vapid_key = vapid_key;
        new.replaces = replaces;

        let now = self.now();
        // A registration that is refused changes nothing.
        let schedule = match daily {
            Some(daily) => Some(
                daily
                    .schedule(new.id, now)
                    .ok_or(RegisterErrorKind::NeverDue)?,
            ),
            None => None,
        };
        let former = self.prepare_schedules(&new, now).await?;
        let upserted = self.subscriptions.upsert(&new, &self.limits, now).await?;
        let Upserted::Stored {
            record,
            created,
            superseded,
            handed_over,
            was_stale,
        } = upserted
        else {
            return Err(RegisterErrorKind::Conflict.into());
        };
        for id in handed_over {
            match former.iter().find(|former| former.id == id) {
                // Another registration of the new owner may have come with one since.
                Some(former) if !self.is_as_stored(&record).await? => {
                    self.remove_those_read(former).await?;
                }
                // The former user may have set one since they were read, or nothing tells whose they are.
                _ => {
                    self.ledger.remove_schedules(id).await?;
                }
            }
        }
        if let Some(superseded) = superseded {
            self.ledger.move_schedules(superseded, record.id).await?;
        }
        if let Some(mut schedule) = schedule {
            if let Plan::Subscriber { subscription, .. } = &mut schedule.plan {
                *subscription = record.id;
            }
            if let Err(error) = self.put_schedule(&schedule).await {
                // A row that existed before, here or at the endpoint that it replaces, has kept its id.
                if record.id == new.id {
                    self.undo(&record).await;
                }
                return Err(error.into());
            }
        }
        Ok(Registered {
            id: record.id,
            created,
            // The stored key of a stale row is not the one that its subscription was made with.
            stale_key: record.vapid_key != active || (was_stale && new.vapid_key.is_none()),
        })
    }

    /// Removes the schedules of rows that another principal takes over, and copies those of the row at the new endpoint to the
    /// row that it replaces, whose id stays. If the call is interrupted after the upsert, nothing tells any more whose they
    /// were. Returns those of the former principal, as they were read.
    async fn prepare_schedules(
        &self,
        new: &NewSubscription,
        now: Timestamp,
    ) -> Result<Vec<Former>, StoreError> {
        let mut former = Vec::new();
        if new.principal.is_none() && new.replaces.is_none() {
            return Ok(former);
        }
        // A registration that is refused here shows no user another's schedules, and removes none. If the store refuses it after
        // this, the former user's are gone, which is better than the next one having them.
        let Some((mut ids, mut merged)) = self.merged(new, now).await? else {
            return Ok(former);
        };
        if !merged.handed_over.is_empty() {
            for id in &merged.handed_over {
                former.push(self.former_schedules(*id).await?);
            }
            // Again: what was read is the former principal's if the row is by now.
            let Some(again) = self.merged(new, now).await? else {
                return Ok(Vec::new());
            };
            (ids, merged) = again;
            former.retain(|former| merged.handed_over.contains(&former.id));
        }
        for former in &former {
            if former.has_unreadable {
                self.ledger.remove_schedules(former.id).await?;
            } else {
                self.remove_those_read(former).await?;
            }
        }
        match ids {
            [Some(from), Some(to)] if !merged.handed_over.contains(&from) => {
                self.share_schedules(from, to).await?;
            }
            _ => {}
        }
        Ok(former)
    }

    /// What an upsert would store by what is stored now, with the ids of the row at the endpoint and the one that it replaces.
    async fn merged(
        &self,
        new: &NewSubscription,
        now: Timestamp,
    ) -> Result<Option<([Option<SubscriptionId>; 2], Merged)>, StoreError> {
        let replaces = new.replaced_key();
        let keys = [Some(new.key()), replaces].into_iter().flatten();
        let keys: Vec<_> = keys.map(SubscriptionRef::Key).collect();
        let mut rows = self.subscriptions.get(&keys).await?.into_iter();
        let (standing, replaced) = (rows.next().flatten(), rows.next().flatten());
        let ids = [&standing, &replaced].map(|row| row.as_ref().map(|row| row.id));
        let merged = merge(standing, replaced.as_ref(), new, now);
        Ok(merged.map(|merged| (ids, merged)))
    }

    async fn former_schedules(&self, id: SubscriptionId) -> Result<Former, StoreError> {
        let read = async {
            let left_out = self.ledger.unreadable_schedules(Some(id)).await?;
            Ok::<_, StoreError>((left_out > 0, self.ledger.schedules(Some(id)).await?))
        };
        let (has_unreadable, schedules) = match read.await {
            Err(error) if error.kind() == StoreErrorKind::Corrupt => (true, Vec::new()),
            read => read?,
        };
        Ok(Former {
            id,
            schedules,
            has_unreadable,
        })
    }

    /// Whether it has not been registered again since.
    async fn is_as_stored(&self, record: &SubscriptionRecord) -> Result<bool, StoreError> {
        let row = self.row(SubscriptionRef::Id(record.id)).await?;
        Ok(row.is_some_and(|row| row.last_seen_at == record.last_seen_at))
    }

    /// Removes schedules unless they were replaced since they were read.
    async fn remove_those_read(&self, former: &Former) -> Result<(), StoreError> {
        for schedule in &former.schedules {
            self.ledger.remove_unchanged_schedule(schedule).await?;
        }
        Ok(())
    }

    async fn share_schedules(
        &self,
        from: SubscriptionId,
        to: SubscriptionId,
    ) -> Result<(), StoreError> {
        let both = [
            self.ledger.schedules(Some(to)).await,
            self.ledger.schedules(Some(from)).await,
        ];
        let is_corrupt = |error: &StoreError| error.kind() == StoreErrorKind::Corrupt;
        // Damaged ones are moved all the same, which does not read them.
        if both
            .iter()
            .filter_map(|read| read.as_ref().err())
            .any(is_corrupt)
        {
            return Ok(());
        }
        let [known, theirs] = both;
        let known = known?;
        let known: Vec<_> = known.iter().map(Schedule::name).collect();
        for mut schedule in theirs? {
            if let Plan::Subscriber { subscription, .. } = &mut schedule.plan {
                *subscription = to;
            }
            if known.contains(&schedule.name()) {
                continue;
            }
            match self.ledger.put_schedule(&schedule).await {
                // To move them takes no room.
                Err(error) if error.kind() == StoreErrorKind::Full => break,
                put => put?,
            }
        }
        Ok(())
    }

    async fn live_key(&self, id: KeyId) -> Result<KeyId, RegisterError> {
        let key = self.key_ring.find(&id, self.now()).await?;
        Ok(key.ok_or(RegisterErrorKind::UnknownVapidKey)?.id())
    }

    /// Checks the host of an endpoint, unless it has answered this process or the endpoint is stored.
    async fn check_host(&self, endpoint: &Endpoint) -> Result<(), RegisterError> {
        if !self.host_check.is_unproven(endpoint) {
            return Ok(());
        }
        let stored = self.row(SubscriptionRef::Key(endpoint.key())).await?;
        if stored.is_some_and(|row| row.retired.is_none()) {
            return Ok(());
        }
        let checked = self.host_check.check(endpoint, self.now()).await;
        checked.map_err(|unverified| match unverified {
            Unverified::NotAllowed => RegisterErrorKind::EndpointNotAllowed.into(),
            Unverified::TryAgain(retry_after) => {
                RegisterErrorKind::EndpointUnverified { retry_after }.into()
            }
        })
    }

    /// Removes the row of a failed call: subscriptions and schedules may be in two databases. A row that another call has
    /// registered since stays: that call succeeded.
    async fn undo(&self, record: &SubscriptionRecord) {
        if let Err(error) = self.delete(record, record.last_seen_at).await {
            event!(ERROR, error = %crate::observe::causes(&error), "a failed registration was not undone: its subscription stays without a schedule");
            let _ = error;
        }
    }

    /// Returns the row of a reference.
    pub(crate) async fn row(
        &self,
        which: SubscriptionRef,
    ) -> Result<Option<SubscriptionRecord>, StoreError> {
        let rows = self.subscriptions.get(&[which]).await?;
        Ok(rows.into_iter().flatten().next())
    }

    /// Deletes a row, not its schedules, unless it has changed hands or was registered after `observed_at` (S18). Returns
    /// whether it did.
    pub(super) async fn delete(
        &self,
        row: &SubscriptionRecord,
        observed_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let delete = Change::Delete {
            key: row.subscription.endpoint().key(),
            principal: row.principal.clone(),
            observed_at,
        };
        let deleted = self.subscriptions.apply(&[delete], self.now()).await?;
        Ok(deleted > 0)
    }
}

/// Checks what an application names a subscription by.
pub(super) fn check_labels(
    principal: Option<&Principal>,
    tags: Option<&BTreeSet<Tag>>,
) -> Result<(), RegisterError> {
    if principal.is_some_and(Principal::is_too_long) {
        return Err(RegisterErrorKind::PrincipalTooLong.into());
    }
    if tags.is_some_and(|tags| tags.len() > Tag::MAX_PER_SUBSCRIPTION) {
        return Err(RegisterErrorKind::TooManyTags.into());
    }
    Ok(())
}

error_struct! {
    /// The reason why a subscription was not stored.
    RegisterError, RegisterErrorKind
}

/// The rule that a registration breaks, or what failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RegisterErrorKind {
    /// The subscription's `expirationTime` is past.
    SubscriptionExpired,
    /// The principal is longer than [`Principal::MAX_LEN`].
    PrincipalTooLong,
    /// More than 32 tags.
    TooManyTags,
    /// A rule of the endpoint policy refuses the endpoint, or its host has no public address.
    EndpointNotAllowed,
    /// The endpoint's host is new to this process and could not be looked up now.
    EndpointUnverified {
        /// When to try again.
        retry_after: Duration,
    },
    /// The VAPID key is not one of this store: the page should subscribe again.
    UnknownVapidKey,
    /// The endpoint is stored with other keys, and the caller is not its owner.
    Conflict,
    /// The daily notification has no next occurrence: its zone is not known here.
    NeverDue,
    /// A limit of the store is reached: see [`SubscriptionLimits`](crate::store::SubscriptionLimits).
    StoreFull,
    /// The store is unavailable or failed: see the source.
    Store,
    /// The VAPID keys could not be read: see the source.
    Vapid,
}

impl RegisterErrorKind {
    /// Returns the stable word that HTTP responses carry as `code`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::SubscriptionExpired => "subscription_expired",
            Self::PrincipalTooLong => "principal_too_long",
            Self::TooManyTags => "too_many_tags",
            Self::EndpointNotAllowed => "endpoint_not_allowed",
            Self::EndpointUnverified { .. } => "endpoint_unverified",
            Self::UnknownVapidKey => "unknown_vapid_key",
            Self::Conflict => "subscription_conflict",
            Self::NeverDue => "invalid_notify_time",
            Self::StoreFull => "store_full",
            Self::Store => "store_unavailable",
            Self::Vapid => "vapid_unavailable",
        }
    }
}

impl fmt::Display for RegisterErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SubscriptionExpired => "the subscription's expirationTime is past",
            Self::PrincipalTooLong => "a principal has at most 1024 octets",
            Self::TooManyTags => "a subscription has at most 32 tags",
            Self::EndpointNotAllowed => "the endpoint is not at a push service that is sent to",
            Self::EndpointUnverified { .. } => "the endpoint's host could not be looked up now",
            Self::UnknownVapidKey => "the subscription was made with an unknown VAPID key",
            Self::Conflict => "the endpoint is stored with other keys and another owner",
            Self::NeverDue => "the daily time has no next occurrence",
            Self::StoreFull => "the store is full",
            Self::Store => "the store did not take the subscription",
            Self::Vapid => "the VAPID keys could not be read",
        })
    }
}

impl From<StoreError> for RegisterError {
    fn from(source: StoreError) -> Self {
        let kind = match source.kind() {
            StoreErrorKind::Full => RegisterErrorKind::StoreFull,
            _ => RegisterErrorKind::Store,
        };
        Self::with_source(kind, source)
    }
}

impl From<VapidError> for RegisterError {
    fn from(source: VapidError) -> Self {
        Self::with_source(RegisterErrorKind::Vapid, source)
    }
}
