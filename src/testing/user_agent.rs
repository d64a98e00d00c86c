//! A user agent as RFC 8030 defines it: the part of a browser that Web Push needs.

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

/// A browser with one page: it subscribes at its push service and decrypts the messages it receives.
///
/// Made by [`TestPushService::user_agent`]. Clones are the same browser. Dropping it removes nothing: the push
/// service keeps its subscription, as that of a closed browser.
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

    /// `pushManager.subscribe({applicationServerKey})`: only the holder of `key` can send from now on (RFC 8292
    /// section 4).
    ///
    /// Returns an existing subscription to the same key. One to another key is removed first, as a page has to do:
    /// its endpoint answers 410 from then on, and the new one has another endpoint and new keys.
    ///
    /// # Errors
    ///
    /// Returns a [`CryptoError`] if the operating system has no randomness.
    pub fn subscribe(&self, key: &VapidPublicKey) -> Result<Subscription, CryptoError> {
        self.replace(Some(*key))
    }

    /// `pushManager.subscribe({})`: anyone who knows the endpoint can send. Mozilla's push service has such
    /// subscriptions; Google's, Apple's and Microsoft's require VAPID of every sender.
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

    /// `subscription.unsubscribe()`: the endpoint answers 410 from now on. Returns whether there was a subscription.
    pub fn unsubscribe(&self) -> bool {
        let ended = self.current().take();
        if let Some(registration) = &ended {
            registration.end();
        }
        ended.is_some()
    }

    /// Closes the connection to the push service. Messages are stored for their TTL, a message replaces a stored one
    /// of its topic, and one with TTL 0 is dropped (RFC 8030 section 5).
    pub fn go_offline(&self) {
        self.inbox.go_offline();
    }

    /// Opens the connection. Stored messages that have not expired arrive at once, in order.
    pub fn go_online(&self) {
        let expired = self.inbox.go_online(self.service.now());
        self.service.count_expired(expired);
    }

    /// Returns the received messages, the oldest first, as far as the service's [`Recording`](super::Recording) keeps
    /// them.
    #[must_use]
    pub fn messages(&self) -> Vec<ReceivedPush> {
        self.inbox.messages()
    }

    /// Waits for the next message that this method has not returned yet. With
    /// [`Recording::Counts`](super::Recording::Counts) there are none.
    ///
    /// # Cancel safety
    ///
    /// A dropped future takes no message.
    pub async fn next(&self) -> ReceivedPush {
        self.inbox.next().await
    }

    /// Returns the next message if there is one.
    #[must_use]
    pub fn try_next(&self) -> Option<ReceivedPush> {
        self.inbox.try_next()
    }

    /// Decrypts a body with the current subscription's keys, however it was received.
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
