//! A new subscription in the place of an old one.

use super::{Engine, RegisterError, Registered, Registration};
use crate::broadcast::Principal;
use crate::store::{StoreError, SubscriptionRef};
use crate::subscription::{AuthSecret, Endpoint, EndpointKey};

/// A registration that replaces an old subscription: for [`WebPush::renew`](crate::WebPush::renew).
///
/// Browsers replace subscriptions (the `pushsubscriptionchange` event). The data of the application stays.
#[derive(Clone, Debug)]
#[must_use = "a renewal does nothing until it is given to `renew`"]
pub struct Renewal {
    old: Endpoint,
    old_auth: Option<AuthSecret>,
    registration: Registration,
}

impl Renewal {
    /// Makes a renewal of the subscription of an endpoint.
    pub const fn new(old: Endpoint, registration: Registration) -> Self {
        Self {
            old,
            old_auth: None,
            registration,
        }
    }

    /// Sets the old subscription's `auth` secret, which proves that the caller holds it. Not needed if the
    /// registration's [`principal`](Registration::principal) owns the old subscription.
    pub fn old_auth(mut self, auth: AuthSecret) -> Self {
        self.old_auth = Some(auth);
        self
    }
}

impl Engine {
    /// Moves id, tags, principal and schedules to the new endpoint if the caller knows the old one's secret or owns
    /// it. Else this is a plain registration, and the result does not tell which it was.
    pub(crate) async fn renew(&self, renewal: Renewal) -> Result<Registered, RegisterError> {
        let Renewal {
            old,
            old_auth,
            registration,
        } = renewal;
        let replaces = self.replaceable(&old, old_auth, registration.owner());
        let replaces = replaces.await?;
        self.register(registration, replaces).await
    }

    /// Returns the old row's key if the caller may replace it.
    async fn replaceable(
        &self,
        old: &Endpoint,
        old_auth: Option<AuthSecret>,
        caller: Option<&Principal>,
    ) -> Result<Option<EndpointKey>, StoreError> {
        let key = old.key();
        let row = self.row(SubscriptionRef::Key(key)).await?;
        let may = row.is_some_and(|row| {
            // Secrets compare in constant time.
            let knows = old_auth.is_some_and(|given| given == *row.subscription.auth());
            let owns = row.principal.is_some() && row.principal.as_ref() == caller;
            knows || owns
        });
        Ok(may.then_some(key))
    }
}
