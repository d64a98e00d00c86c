//! A subscription, as its push service and its user agent know it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::inbox::Inbox;
use crate::deliver::PushService;
use crate::encryption::{DecryptError, decrypt};
use crate::p256::{self, CryptoError, UaSecretKey};
use crate::subscription::{AuthSecret, Endpoint, Subscription};
use crate::vapid::VapidPublicKey;

#[derive(Debug)]
pub(super) struct Registration {
    pub(super) subscription: Subscription,
    pub(super) inbox: Arc<Inbox>,
    secret: UaSecretKey,
    restricted_to: Option<VapidPublicKey>,
    gone: AtomicBool,
    accepted: AtomicU64,
}

impl Registration {
    pub(super) fn new(
        endpoint: Endpoint,
        restricted_to: Option<VapidPublicKey>,
        inbox: Arc<Inbox>,
    ) -> Result<Self, CryptoError> {
        let secret = UaSecretKey::random()?;
        let auth = AuthSecret::from_bytes(&random::<{ AuthSecret::LEN }>()?)
            .map_err(|_| CryptoError::new())?;
        Ok(Self {
            subscription: Subscription::new(endpoint, *secret.public(), auth),
            inbox,
            secret,
            restricted_to,
            gone: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
        })
    }

    pub(super) const fn endpoint(&self) -> &Endpoint {
        self.subscription.endpoint()
    }

    /// Returns the push service whose answers this endpoint gives.
    pub(super) fn dialect(&self) -> PushService {
        PushService::of(self.endpoint())
    }

    pub(super) const fn restricted_to(&self) -> Option<&VapidPublicKey> {
        self.restricted_to.as_ref()
    }

    /// Whether a sender must authenticate (RFC 8292 section 4; all large push services except Mozilla's require it).
    pub(super) fn needs_credentials(&self) -> bool {
        let always = [PushService::Fcm, PushService::Apple, PushService::Wns];
        self.restricted_to.is_some() || always.contains(&self.dialect())
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    pub(super) fn end(&self) {
        self.gone.store(true, Ordering::SeqCst);
        self.inbox.forget(self.endpoint());
    }

    pub(super) fn count(&self) {
        self.accepted.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }

    pub(super) fn decrypt(&self, body: &[u8]) -> Result<Vec<u8>, DecryptError> {
        let auth = self.subscription.auth();
        decrypt(p256::fastest(), &self.secret, auth, body)
    }
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], CryptoError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| CryptoError::new())?;
    Ok(bytes)
}
