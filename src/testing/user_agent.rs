//! A user agent, in the sense of RFC 8030: what Web Push needs of a browser.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::TestPushService;
use super::inbox::Inbox;
use super::received::ReceivedPush;
use super::registration::Registration;
use crate::encryption::{DecryptError, DecryptErrorKind};
use crate::p256::CryptoError;
use crate::subscription::{Origin, Subscription};
use crate::vapid::VapidPublicKey;

/// A browser with one page: subscribes at its push service, and decrypts what arrives.
///
/// Made by [`TestPushService::user_agent`]. Clones are the same browser. Dropping it ends nothing: the
/// push service keeps its subscription, as a closed browser's.
#[derive(Clone)]
pub struct UserAgent {
    service: TestPushService,
    origin: Origin,
    inbox: Arc<Inbox>,
    current: Arc<Mutex<Option<Arc<Registration>>>>,
}

impl UserAgent {
    pub(super) fn new(service: TestPushService, origin: Origin, inbox: Arc<Inbox>) -> Self {
        Self {
            service,
            origin,
            inbox,
            current: Arc::default(),
        }
    }

    /// `pushManager.subscribe({applicationServerKey})`: from now on only the holder of `key` can send
    /// (RFC 8292 section 4).
    ///
    /// A subscription to the same key is given back as it is. One to another key is ended first, as a page
    /// has to do: its endpoint answers 410 from then on, and the new one has another endpoint and new keys.
    ///
    /// # Errors
    ///
    /// [`CryptoError`] when the operating system gives no randomness.
    pub fn subscribe(&self, key: &VapidPublicKey) -> Result<Subscription, CryptoError> {
        self.replace(Some(*key))
    }

    /// `pushManager.subscribe({})`: anybody who knows the endpoint can send. Mozilla's service has such
    /// subscriptions; Google's, Apple's and Microsoft's ask every sender for VAPID all the same.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Self::subscribe).
    pub fn subscribe_unrestricted(&self) -> Result<Subscription, CryptoError> {
        self.replace(None)
    }

    fn replace(&self, key: Option<VapidPublicKey>) -> Result<Subscription, CryptoError> {
        let mut current = self.current();
        if let Some(registration) = current.as_deref() {
            if registration.restricted_to() == key.as_ref() && !registration.is_gone() {
                return Ok(registration.subscription.clone());
            }
            registration.end();
        }
        let registration = self
            .service
            .register(&self.origin, key, Arc::clone(&self.inbox))?;
        let subscription = registration.subscription.clone();
        *current = Some(registration);
        Ok(subscription)
    }

    /// `pushManager.getSubscription()`. It serializes as the browser's JSON.
    #[must_use]
    pub fn subscription(&self) -> Option<Subscription> {
        self.current()
            .as_deref()
            .map(|registration| registration.subscription.clone())
    }

    /// `JSON.stringify(subscription)`: what a page sends to its server. `None` while not subscribed.
    #[must_use]
    pub fn subscription_json(&self) -> Option<String> {
        serde_json::to_string(&self.subscription()?).ok()
    }

    /// `subscription.unsubscribe()`: the endpoint answers 410 from now on. Gives back whether there was one.
    pub fn unsubscribe(&self) -> bool {
        let ended = self.current().take();
        if let Some(registration) = &ended {
            registration.end();
        }
        ended.is_some()
    }

    /// Closes the connection to the push service: messages are stored for their TTL, a message replaces a
    /// stored one of its topic, and TTL 0 is dropped (RFC 8030 section 5).
    pub fn go_offline(&self) {
        self.inbox.go_offline();
    }

    /// Comes back: what is stored and has not expired arrives at once, in order.
    pub fn go_online(&self) {
        let expired = self.inbox.go_online(self.service.now());
        self.service.count_expired(expired);
    }

    /// Everything that arrived, the oldest first, as far as the service's
    /// [`Recording`](super::Recording) keeps it.
    #[must_use]
    pub fn messages(&self) -> Vec<ReceivedPush> {
        self.inbox.messages()
    }

    /// Waits for the next message that this method has not given back yet. Nothing arrives here with
    /// [`Recording::Counts`](super::Recording::Counts).
    ///
    /// # Cancel safety
    ///
    /// A dropped future takes no message with it.
    pub async fn next(&self) -> ReceivedPush {
        self.inbox.next().await
    }

    /// The same without waiting.
    #[must_use]
    pub fn try_next(&self) -> Option<ReceivedPush> {
        self.inbox.try_next()
    }

    /// Decrypts a body with the current subscription's keys, whatever way it came.
    ///
    /// # Errors
    ///
    /// As [`encryption::decrypt`](crate::encryption::decrypt); [`NotAuthentic`](DecryptErrorKind::NotAuthentic) while not subscribed.
    pub fn decrypt(&self, body: &[u8]) -> Result<Vec<u8>, DecryptError> {
        let registration = self.current().clone();
        let registration = registration.ok_or(DecryptErrorKind::NotAuthentic)?;
        registration.decrypt(body)
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Registration>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for UserAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserAgent")
            .field("origin", &self.origin)
            .field("subscription", &self.subscription())
            .finish_non_exhaustive()
    }
}
