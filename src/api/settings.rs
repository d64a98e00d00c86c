//! What the routes need to know beside the stores.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use super::authorizer::Authorizer;
use super::credentials::AdminCredentials;
use super::peer_limit::PeerLimit;
use super::read_body::BodyLimits;
use crate::broadcast::Tag;
use crate::subscription::{EndpointKey, Origin};

/// The settings of the HTTP API, and the little state that it keeps.
#[derive(Debug)]
pub(crate) struct ApiSettings {
    /// Who is an administrator; nobody by default.
    pub(crate) authorizer: Arc<dyn Authorizer>,
    /// Origins of other hosts whose pages may act for a signed-in user.
    pub(crate) allowed_origins: Vec<Origin>,
    /// Tags that anyone may subscribe to.
    pub(crate) public_tags: BTreeSet<Tag>,
    /// Whether only signed-in users may subscribe.
    pub(crate) require_principal: bool,
    /// Whether a new subscriber of a daily notification gets a confirmation push.
    pub(crate) confirmation: bool,
    /// What `/ping` calls the server's version.
    pub(crate) version: String,
    /// How old the last look at due work may be for `/ready`: a few times the longest pause between two.
    pub(crate) scheduler_grace: Duration,
    /// Requests of each peer to the public POST routes.
    pub(super) requests: PeerLimit,
    /// Pushes that each peer causes by itself: tests and confirmations.
    pub(super) pushes: PeerLimit,
    pub(super) body_limits: BodyLimits,
    pub(super) tests: TestThrottle,
}

impl ApiSettings {
    /// Not one a second, so that a peer alone needs a day for the default of
    /// [`SubscriptionLimits::unproven`](crate::store::SubscriptionLimits::unproven). A page asks once when a person
    /// subscribes, so hundreds of persons behind one address (a campus, an office) find it enough.
    const REQUESTS_PER_MINUTE: u32 = 60;
    /// Pushes go to the push services, which limit a sender that floods them.
    const PUSHES_PER_MINUTE: u32 = 20;

    pub(crate) fn set_requests_per_minute(&mut self, requests: u32) {
        self.requests = PeerLimit::per_minute(requests);
    }

    pub(crate) fn set_pushes_per_minute(&mut self, pushes: u32) {
        self.pushes = PeerLimit::per_minute(pushes);
    }
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            authorizer: Arc::new(AdminCredentials::new()),
            allowed_origins: Vec::new(),
            public_tags: BTreeSet::new(),
            require_principal: false,
            confirmation: true,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            scheduler_grace: Duration::from_secs(5 * 60),
            requests: PeerLimit::per_minute(Self::REQUESTS_PER_MINUTE),
            pushes: PeerLimit::per_minute(Self::PUSHES_PER_MINUTE),
            body_limits: BodyLimits::default(),
            tests: TestThrottle::default(),
        }
    }
}

/// When which subscription was last sent a test.
pub(super) struct TestThrottle(Mutex<LruCache<EndpointKey, Instant>>);

impl TestThrottle {
    const PAUSE: Duration = Duration::from_secs(10);
    /// Beyond so many subscriptions under test the one tested longest ago is forgotten.
    const MOST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

    /// Takes a subscription's turn, or answers how long to wait for it.
    pub(super) fn take(&self, key: EndpointKey) -> Result<(), Duration> {
        let now = Instant::now();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = last.peek(&key) {
            let left = Self::PAUSE.saturating_sub(now.saturating_duration_since(*at));
            if !left.is_zero() {
                return Err(left);
            }
        }
        last.put(key, now);
        Ok(())
    }

    /// Gives a turn back that was not used.
    pub(super) fn give_back(&self, key: &EndpointKey) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.pop(key);
    }
}

impl Default for TestThrottle {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(Self::MOST)))
    }
}

impl fmt::Debug for TestThrottle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestThrottle").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_subscription_has_its_turn_every_ten_seconds() {
        let throttle = TestThrottle::default();
        let [one, other] = [1, 2].map(|byte| EndpointKey::from_bytes([byte; 32]));
        assert_eq!(throttle.take(one), Ok(()));
        assert_eq!(throttle.take(other), Ok(()));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(throttle.take(one), Err(Duration::from_secs(6)));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(throttle.take(one), Ok(()), "a refused turn does not count");
    }

    #[test]
    fn it_is_bounded() {
        let throttle = TestThrottle::default();
        for number in 0..5000_u32 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            throttle.take(EndpointKey::from_bytes(key)).unwrap();
        }
        assert_eq!(throttle.0.lock().unwrap().len(), 4096);
    }
}
