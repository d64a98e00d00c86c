//! A test message to a subscription, at once.

use subtle::ConstantTimeEq as _;

use super::Engine;
use crate::store::{StoreError, SubscriptionRecord, SubscriptionRef};
use crate::subscription::Subscription;

impl Engine {
    /// Returns the row of a subscription if the caller knows its keys; `None` if it is unknown, has other keys or is
    /// retired.
    pub(crate) async fn held(
        &self,
        given: &Subscription,
    ) -> Result<Option<SubscriptionRecord>, StoreError> {
        let row = self.row(SubscriptionRef::Key(given.endpoint().key()));
        // A retired row counts as unknown: the page subscribes again, which revives it.
        let is_held =
            |row: &SubscriptionRecord| row.retired.is_none() && is_same(given, &row.subscription);
        Ok(row.await?.filter(is_held))
    }
}

/// Compares both keys, always both, in constant time.
fn is_same(given: &Subscription, stored: &Subscription) -> bool {
    let ua_public = given
        .ua_public()
        .as_bytes()
        .ct_eq(stored.ua_public().as_bytes());
    let auth = given
        .auth()
        .secret_bytes()
        .ct_eq(stored.auth().secret_bytes());
    (ua_public & auth).into()
}
