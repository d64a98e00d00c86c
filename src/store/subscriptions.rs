//! The contract of a subscriptions table.

use std::fmt;

use async_trait::async_trait;

use super::{
    Change, CountFilter, LiveCounts, Liveness, NewSubscription, StoreError, SubscriptionFilter,
    SubscriptionLimits, SubscriptionPage, SubscriptionRecord, SubscriptionRef, Upserted,
};
use crate::broadcast::{Audience, Principal};
use crate::clock::Timestamp;
use crate::subscription::EndpointKey;
use crate::vapid::KeyId;

/// A store of subscriptions: seven methods and one with a default.
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
///   expiration (`None` clears it), and replaces principal, tags and VAPID key if they are given; an absent
///   principal, absent tags or an absent VAPID key leave the stored ones. If the principal replaces another one, absent
///   tags clear the stored ones, and the row's id is in `handed_over`. `was_stale` is true if this cleared `stale_since`.
/// - **S4** `upsert` of a known endpoint with other keys does the same and sets `keys_changed_at`, but only if the
///   row has a principal and `new` names the same one; else it returns [`Upserted::Conflict`] and changes nothing,
///   retired or not.
/// - **S5** With `new.replaces` the row of that key is removed in the same transaction. Its id, `created_at`, tags
///   and principal pass to the row of the new endpoint (tags and principal only if `new` gives none; its VAPID key if
///   `new` gives none and the endpoint had no row). A row that the endpoint had loses its id, which is returned as
///   `superseded`. If the new principal is not the one of a row with a principal, the replaced or the standing one, the id of
///   that row is in `handed_over`; the tags of the replaced one do not pass to another principal. If the row to replace is unknown, or is the new endpoint itself, the call is a plain upsert. S4
///   holds for the row at the new endpoint.
/// - **S6** If an upsert gives a principal more than `limits.per_principal` rows, it removes the least recently seen
///   other rows of this principal in the same transaction.
/// - **S7** An insert above `limits.total` rows is refused with [`StoreErrorKind::Full`](super::StoreErrorKind::Full).
///   Retired rows count too; rows that the same upsert removes (S5, S6) do not. A shared store may count with
///   some delay.
/// - **S8** [`get`](Self::get) returns rows in the order of the references, `None` for unknown ones. Retired and
///   stale rows are returned too. If one cannot be read, the error is
///   [`Corrupt`](super::StoreErrorKind::Corrupt).
/// - **S9** [`page`](Self::page) returns the *live* rows of an audience in the order of their keys, strictly after
///   `after`, at most `limit`. Fewer than `limit` means that there are no more. Live: not retired, not stale, not
///   expired at `now`. A row that is neither added nor removed during a walk is returned exactly once. One that cannot be
///   read is left out, and its place is taken by the next one.
/// - **S10** [`count`](Self::count) counts the rows that match the filter. Rows that have expired since the last purge (S13)
///   are no live rows; of more than [`STEP`](super::STEP) of them the rest may be counted as live until that purge.
/// - **S11** [`apply`](Self::apply) makes all changes in one transaction, in their order, and returns the number of
///   changed rows. A change to an unknown row changes nothing. Applying a change twice has the effect of applying it
///   once, except for [`Change::Failed`], which counts: a row that is retired (or stale) already keeps its time and
///   is not changed.
/// - **S12** [`Change::Retire`] and [`Change::Stale`] do not change a row whose `last_seen_at` is later than their
///   `observed_at`: the observation is out of date.
/// - **S13** [`Change::Purge`] deletes rows that have been retired or stale since before the first of its times, rows that
///   expired before the second, in any state, and unproven rows (S16) that have expired at `now`; no others. The other rows
///   that have expired at `now` and are neither retired nor stale it retires, with
///   [`RetireReason::Expired`](super::RetireReason::Expired). One purge is a step: it changes at most
///   [`STEP`](super::STEP) rows, and a caller repeats it until it changes fewer.
/// - **S14** With `new.only_if_unknown` an `upsert` of a known endpoint returns [`Upserted::Conflict`] and changes
///   nothing, with any keys and in any state.
/// - **S15** [`count_live`](Self::count_live) returns the result of `count` for each push service and for each of the
///   VAPID keys.
/// - **S16** An insert above `limits.unproven` *unproven* rows is refused with
///   [`StoreErrorKind::Full`](super::StoreErrorKind::Full). A row is unproven while it has no principal, no push was
///   accepted for it, and it is neither retired nor stale: [`SubscriptionRecord::is_unproven`]. The limit holds for inserts
///   of unproven rows only. It does not hold for a row that replaces another one (S5), and known rows are always
///   updated. A shared store may count with some delay.
/// - **S17** [`owned_by`](Self::owned_by) returns the rows of a principal as S9 says, but in every state: retired,
///   stale and expired ones too.
/// - **S18** [`Change::Delete`] deletes a row only if its principal is the given one, none included, and its
///   `last_seen_at` is not later than `observed_at`. Else the row has changed hands since it was read, and stays.
/// - **S19** [`Change::Failed`], [`Change::Retire`] and [`Change::Stale`] set `last_failure` to their failure with the time
///   `now`, if they change the row. No other change and no upsert modifies it. A row that replaces another one (S5) does not
///   take it over, since it was about another endpoint.
/// - **S20** [`list_subscriptions`](Self::list_subscriptions) returns rows that the filter
///   [takes](super::rules::lists), in the order of their keys, strictly after `after`, at most `limit`, and the key after
///   which the list goes on, or `None` if there are no more rows. One call looks at no more than [`STEP`](super::STEP) rows:
///   where few match, it returns few or none, and the key. A row that is neither added nor removed during a walk and that
///   the filter takes throughout is returned exactly once. One that cannot be read is left out.
/// - **S21** With `new.assign` an `upsert` of a known endpoint whose row has the id `new.id` replaces its principal and its tags
///   if they are given, by none too, and changes nothing else: the row stays retired, stale or expired if it is. S6 holds.
///   For another id and an unknown endpoint it returns [`Upserted::Conflict`] and changes nothing.
#[async_trait]
pub trait SubscriptionStore: fmt::Debug + Send + Sync + 'static {
    /// Inserts or updates the row of an endpoint (S2 to S7, S14, S16, S21).
    ///
    /// # Errors
    ///
    /// Returns [`Full`](super::StoreErrorKind::Full) (S7, S16), or an error if the store is unavailable.
    async fn upsert(
        &self,
        new: &NewSubscription,
        limits: &SubscriptionLimits,
        now: Timestamp,
    ) -> Result<Upserted, StoreError>;

    /// Returns the rows of these ids or keys (S8).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn get(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError>;

    /// Returns the next live rows of an audience (S9).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn page(
        &self,
        audience: &Audience,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError>;

    /// Returns the next rows of a principal, in every state (S17).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn owned_by(
        &self,
        principal: &Principal,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError>;

    /// Lists rows in every state for an operator, page by page (S20).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn list_subscriptions(
        &self,
        filter: &SubscriptionFilter,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<SubscriptionPage, StoreError>;

    /// Returns the number of rows that match the filter (S10). Accepting a broadcast waits for the number of live rows of its
    /// audience: keep those of all rows and of each tag, and do not count the rows. Nor should it read all rows that have
    /// expired: anyone can register rows that expire in the same minute.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn count(&self, filter: &CountFilter, now: Timestamp) -> Result<u64, StoreError>;

    /// Returns the numbers of live rows at each push service and of each of these VAPID keys (S15). `GET /stats`
    /// calls it.
    ///
    /// The default makes one call of [`count`](Self::count) for each number. Override it if the store can group its
    /// rows.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
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

    /// Makes changes (S11 to S13, S18, S19). Returns the number of changed rows.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn apply(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError>;
}
