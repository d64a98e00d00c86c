//! The contract of a subscriptions table.

use std::fmt;

use async_trait::async_trait;

use super::{
    Change, CountFilter, LiveCounts, Liveness, NewSubscription, StoreError, SubscriptionLimits,
    SubscriptionRecord, SubscriptionRef, Upserted,
};
use crate::broadcast::{Audience, Principal};
use crate::clock::Timestamp;
use crate::subscription::EndpointKey;
use crate::vapid::KeyId;

/// Keeps subscriptions: six methods, and a seventh that can be left as it is.
///
/// # Stability
///
/// Open to implementations outside this crate: see [the module](crate::store#implementing-them). Before 1.0 a minor
/// version may add a required method.
///
/// # Contract
///
/// - **S1** A row is known by its endpoint's [`EndpointKey`] and by its
///   [`SubscriptionId`](crate::subscription::SubscriptionId); both are unique.
/// - **S2** [`upsert`](Self::upsert) of an unknown endpoint inserts a row with `new.id`. Of N concurrent
///   upserts of one endpoint exactly one inserts.
/// - **S3** `upsert` of a known endpoint with the same keys keeps its id and `created_at`, sets
///   `last_seen_at`, revives it (clears `retired` and `stale_since`, and the failure streak with `failing_since`), takes over the
///   expiration (none, when `new` has none), and replaces principal, tags and VAPID key by those that are given; an absent
///   principal, absent tags or an absent VAPID key leave the stored ones.
/// - **S4** `upsert` of a known endpoint with other keys does the same and sets `keys_changed_at`, but only
///   where the row has a principal and `new` names the same one; else it answers [`Upserted::Conflict`] and
///   changes nothing, retired or not.
/// - **S5** With `new.replaces` the row of that key is removed in the same transaction, and its id, `created_at`,
///   tags and principal pass to the row of the new endpoint (tags and principal as far as `new` gives none, and
///   its VAPID key where `new` gives none and no row stood there). A row that stood there loses its own id, which
///   the answer names as `superseded`. Where the row to be replaced is unknown, or is the new endpoint itself, it
///   is a plain upsert. S4 holds for the row at the new endpoint.
/// - **S6** An upsert that makes a principal have more than `limits.per_principal` rows removes that principal's
///   least recently seen others in the same transaction.
/// - **S7** An insert above `limits.total` rows is refused with [`StoreErrorKind::Full`](super::StoreErrorKind::Full).
///   Retired rows count too; rows that the same upsert removes (S5, S6) do not. A shared store may count with
///   some delay.
/// - **S8** [`get`](Self::get) answers in the order of the question, `None` for what is unknown; retired and stale
///   rows are shown.
/// - **S9** [`page`](Self::page) walks the *live* rows of an audience in the order of their keys, strictly after
///   `after`, at most `limit`. Fewer than `limit` means that the walk is over. Live: not retired, not stale, not
///   expired at `now`. A row that is neither added nor removed during a walk is seen exactly once.
/// - **S10** [`count`](Self::count) counts what the filter takes.
/// - **S11** [`apply`](Self::apply) makes all changes in one transaction, in their order, and answers how many
///   rows they changed. A change to an unknown row changes nothing. Applying one twice has no other effect than
///   applying it once, but for [`Change::Failed`], which counts: a row that is retired (or stale) already keeps
///   its moment and is not changed.
/// - **S12** [`Change::Retire`] and [`Change::Stale`] do nothing to a row whose `last_seen_at` is later than their
///   `observed_at`: what was learned of it is out of date.
/// - **S13** [`Change::Purge`] deletes rows that are retired or stale since before the first of its moments, and rows that
///   expired before the second, in whatever state; no other. One purge is a step: it deletes at most
///   [`STEP`](super::STEP) rows, and a caller repeats it until it deletes fewer.
/// - **S14** With `new.only_if_unknown` an `upsert` of a known endpoint answers [`Upserted::Conflict`] and changes nothing,
///   whatever its keys and its state.
/// - **S15** [`count_live`](Self::count_live) answers what `count` does for each push service, and for each of the VAPID
///   keys.
/// - **S16** An insert above `limits.unproven` *unproven* rows is refused with
///   [`StoreErrorKind::Full`](super::StoreErrorKind::Full). A row is unproven while it has no principal, no push was
///   accepted for it, and it is neither retired nor stale: [`SubscriptionRecord::is_unproven`]. The limit holds for inserts
///   of unproven rows only. It does not hold where the row takes the place of another one (S5), and known rows are
///   always updated. A shared store may count with some delay.
/// - **S17** [`owned_by`](Self::owned_by) walks the rows of a principal as S9 says, but in every state: retired, stale and
///   expired ones too.
#[async_trait]
pub trait SubscriptionStore: fmt::Debug + Send + Sync + 'static {
    /// Inserts or updates the row of an endpoint (S2 to S7, S14, S16).
    ///
    /// # Errors
    ///
    /// [`Full`](super::StoreErrorKind::Full), or what keeps the store from working.
    async fn upsert(
        &self,
        new: &NewSubscription,
        limits: &SubscriptionLimits,
        now: Timestamp,
    ) -> Result<Upserted, StoreError>;

    /// The rows of these ids or keys (S8).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn get(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError>;

    /// The next live rows of an audience (S9).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn page(
        &self,
        audience: &Audience,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError>;

    /// The next rows of a principal, in every state (S17).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn owned_by(
        &self,
        principal: &Principal,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError>;

    /// How many rows the filter takes (S10).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn count(&self, filter: &CountFilter, now: Timestamp) -> Result<u64, StoreError>;

    /// How many live rows there are at each push service, and of each of these VAPID keys (S15). Asked for whenever
    /// somebody looks at `/stats`.
    ///
    /// The default counts one after the other. A store that can group its rows does it in one go.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn count_live(&self, keys: &[KeyId], now: Timestamp) -> Result<LiveCounts, StoreError> {
        let mut counts = LiveCounts::none(keys);
        for (service, count) in &mut counts.by_push_service {
            let mut filter = CountFilter::new(Audience::All, Liveness::Live);
            filter.push_service = Some(*service);
            *count = self.count(&filter, now).await?;
        }
        for (key, count) in &mut counts.by_vapid_key {
            let mut filter = CountFilter::new(Audience::All, Liveness::Live);
            filter.vapid_key = Some(*key);
            *count = self.count(&filter, now).await?;
        }
        Ok(counts)
    }

    /// Makes changes (S11 to S13); answers how many rows changed.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn apply(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError>;
}
