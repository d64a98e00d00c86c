//! Settings of the HTTP API.

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

/// Access rules and limits of the HTTP API: for [`WebPushService::with`](super::WebPushService::with).
///
/// # Examples
///
/// ```
/// # async fn example(push: tower_web_push::WebPush) -> Result<(), Box<dyn std::error::Error>> {
/// use tower_web_push::api::{AdminCredentials, ApiSettings};
///
/// // Two mounts of one application: one for the public network, one for the internal network only.
/// let public = push.service().with(ApiSettings::new().require_principal(true));
/// let operators = AdminCredentials::new().with_bearer_token("h9Jm3pXq7vTz2LkB")?;
/// let internal = push.service().with(ApiSettings::new().authorizer(operators));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct ApiSettings {
    /// Decides who is an administrator.
    pub(super) authorizer: Arc<dyn Authorizer>,
    /// Origins of other hosts whose pages may act for a signed-in user.
    pub(super) allowed_origins: Vec<Origin>,
    /// Tags that anyone may subscribe to.
    pub(super) public_tags: BTreeSet<Tag>,
    /// Whether only signed-in users may subscribe.
    pub(super) require_principal: bool,
    /// Whether a new subscriber of a daily notification gets a confirmation push.
    pub(super) confirmation: bool,
    /// The server's version in `/ping`.
    pub(super) version: String,
    /// Requests of each peer to the public POST routes.
    pub(super) requests: PeerLimit,
    /// Pushes that each peer may cause: tests and confirmations.
    pub(super) pushes: PeerLimit,
    pub(super) body_limits: BodyLimits,
    pub(super) tests: TestThrottle,
    pub(super) confirmations: TestThrottle,
}

impl ApiSettings {
    /// Not more than one a second, so that one peer needs a day to reach the default of
    /// [`SubscriptionLimits::unproven`](crate::store::SubscriptionLimits::unproven). A page sends one request when a
    /// person subscribes, so this is enough for hundreds of persons behind one address (a campus, an office).
    const REQUESTS_PER_MINUTE: u32 = 60;
    /// Pushes go to the push services, which limit a sender that floods them.
    const PUSHES_PER_MINUTE: u32 = 20;

    /// Makes the default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets who is an administrator: credentials ([`AdminCredentials`](crate::api::AdminCredentials)), or the
    /// application's own rule. Default: no request is allowed.
    pub fn authorizer(mut self, authorizer: impl Authorizer) -> Self {
        self.authorizer = Arc::new(authorizer);
        self
    }

    /// Sets origins of other sites whose pages may change things in the name of the visitor, for example
    /// `https://shop.example`. Default: none.
    ///
    /// A state-changing request with a cookie, Basic credentials or a signed-in user, or to an administrator's route without
    /// a bearer token, is refused with `cross_site` if it comes from another site. A request whose only `Origin` header is in this list passes, with any
    /// `Sec-Fetch-Site`. An entry is compared whole: scheme, host and port, without wildcards, and a subdomain is
    /// an origin of its own. Listed pages are trusted as much as the application's own. The browser also needs the
    /// answers of a CORS layer, which this crate does not set: see `tower_http::cors`.
    pub fn allowed_origins(mut self, origins: impl IntoIterator<Item = Origin>) -> Self {
        self.allowed_origins = origins.into_iter().collect();
        self
    }

    /// Sets the tags that anyone may subscribe to. Default: none.
    pub fn public_tags(mut self, tags: impl IntoIterator<Item = Tag>) -> Self {
        self.public_tags = tags.into_iter().collect();
        self
    }

    /// Sets whether only signed-in users, those with a [`Principal`](crate::broadcast::Principal) in the request's
    /// extensions, may subscribe. Default: `false`.
    pub const fn require_principal(mut self, required: bool) -> Self {
        self.require_principal = required;
        self
    }

    /// Sets whether a new subscriber of a daily notification gets a confirmation push. Default: `true`.
    pub const fn confirmation(mut self, confirmation: bool) -> Self {
        self.confirmation = confirmation;
        self
    }

    /// Limits how many requests a minute each [`PeerAddr`](crate::api::PeerAddr) may make to `POST /subscribe`,
    /// `/renew`, `/unsubscribe` and `/send-test` together. Default: 60. 0: no limit.
    ///
    /// The same number may come at once: a bucket of that size, refilled evenly. A request above it is answered with
    /// 429 `too_many_requests` before its body is read. The default is enough for hundreds of persons behind one
    /// address who each subscribe once. Requests without a `PeerAddr` in their extensions are not limited.
    pub fn public_requests_per_minute(mut self, requests: u32) -> Self {
        self.requests = PeerLimit::per_minute(requests);
        self
    }

    /// Limits how many pushes a minute each [`PeerAddr`](crate::api::PeerAddr) may cause: tests (`/send-test`) and
    /// confirmations together. Default: 20. 0: no limit.
    ///
    /// A test above it is answered with 429 `too_many_requests`. A confirmation above it is not sent, and its
    /// subscription is stored all the same. So this server cannot be used to flood a push service. Requests without a
    /// `PeerAddr` in their extensions are not limited.
    pub fn public_pushes_per_minute(mut self, pushes: u32) -> Self {
        self.pushes = PeerLimit::per_minute(pushes);
        self
    }

    /// Sets the server's version in `/ping`. Default: this crate's version.
    pub fn server_version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
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
            requests: PeerLimit::per_minute(Self::REQUESTS_PER_MINUTE),
            pushes: PeerLimit::per_minute(Self::PUSHES_PER_MINUTE),
            body_limits: BodyLimits::default(),
            tests: TestThrottle::default(),
            confirmations: TestThrottle::default(),
        }
    }
}

/// The time of the last test, or of the last confirmation, of each subscription.
pub(super) struct TestThrottle(Mutex<LruCache<EndpointKey, Instant>>);

impl TestThrottle {
    const PAUSE: Duration = Duration::from_secs(10);
    /// Above this number of subscriptions the one tested longest ago is forgotten.
    const MOST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

    /// Takes a subscription's turn, or returns how long to wait for it.
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

    /// Puts an unused turn back.
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
