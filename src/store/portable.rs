//! The contract of a subscriptions table that can be copied.

use async_trait::async_trait;

use super::{StoreError, SubscriptionRecord, SubscriptionStore};
use crate::clock::Timestamp;
use crate::subscription::EndpointKey;

/// A subscriptions table from which, and to which, whole rows can be copied: for [`Copy`](crate::copy::Copy).
///
/// [`SubscriptionStore`] alone does not suffice for it: its pages leave out rows that are retired or stale, and an upsert
/// takes the times of a row from `now`.
///
/// # Stability
///
/// Open to implementations outside this crate: see [the module](crate::store#implementing-them). Before 1.0 a minor
/// version may add a required method.
///
/// # Contract
///
/// - **C1** [`unreachable`](Self::unreachable) returns the rows that are retired, or those that are stale, retired or not, in
///   the order of the times since which they are, and of their keys among equal times, strictly after `after`, at most
///   `limit`. Fewer than `limit` means that there are no more. A row that is neither added, removed nor changed during a walk
///   is returned exactly once. One that cannot be read is left out, and its place is taken by the next one.
/// - **C2** [`put`](Self::put) writes rows as they are: with their ids, times and states. A row is written if each stored row
///   with its endpoint or its id [is older](super::rules::is_newer), or cannot be read; these are removed. Else it changes
///   nothing. So repeating a call changes nothing, and of two registrations of a browser the later one stays, whichever
///   store it came from.
/// - **C3** `put` of at most [`STEP`](super::STEP) rows is one transaction. It obeys no limits
///   ([`SubscriptionLimits`](super::SubscriptionLimits)) but those of the back end itself.
#[async_trait]
pub trait PortableStore: SubscriptionStore {
    /// Returns the next rows that are in no audience (C1).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn unreachable(
        &self,
        state: Unreachable,
        after: Option<(Timestamp, EndpointKey)>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError>;

    /// Writes whole rows, no two with the same endpoint or id (C2, C3). Returns for each, in order, whether it was written.
    ///
    /// # Errors
    ///
    /// Returns [`Full`](super::StoreErrorKind::Full) if the back end has no room, or an error if the store is unavailable.
    async fn put(&self, rows: &[SubscriptionRecord]) -> Result<Vec<bool>, StoreError>;
}

/// Why rows are in no audience.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "stores handle every part: see `store`"
)]
pub enum Unreachable {
    /// They are retired.
    Retired,
    /// They are stale: no live VAPID key matches.
    Stale,
}

impl Unreachable {
    /// Returns since when a row is in this state, or `None` if it is not.
    #[must_use]
    pub fn since(self, row: &SubscriptionRecord) -> Option<Timestamp> {
        match self {
            Self::Retired => row.retired.map(|retired| retired.at),
            Self::Stale => row.stale_since,
        }
    }
}
