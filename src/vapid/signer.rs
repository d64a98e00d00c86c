//! A cache of one `Authorization` value per origin (RFC 8292 section 5).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use lru::LruCache;

use super::token::{self, TOKEN_LIFETIME};
use super::{Contact, KeyId, VapidError, VapidKey};
use crate::clock::Timestamp;
use crate::subscription::Origin;

/// A signer that caches its tokens: one per origin, key and contact.
///
/// A token is valid for twelve hours and replaced after eight, so that it does not expire in flight and is signed
/// less often than once an hour, which Apple asks for. Concurrent callers that need the same token wait for one of
/// them to sign it; other origins do not wait. The 16,384 most recently used tokens are kept, of less than 1 KiB
/// each: the cache grows with the number of origins that messages are sent to.
///
/// Share it in an `Arc`. A hit costs two short locks and no allocation.
pub struct Signer {
    tokens: Mutex<LruCache<Slot, Arc<Mutex<Option<Token>>>>>,
}

type Slot = (Origin, KeyId, Contact);

struct Token {
    value: HeaderValue,
    signed: Timestamp,
}

impl Token {
    /// Whether it is neither due for renewal nor from the future: after a clock was set back by more than
    /// [`SET_BACK`], `exp` would be too far ahead (RFC 8292 section 4.2).
    fn is_fresh(&self, now: Timestamp) -> bool {
        now < self.signed + RENEW_AFTER && self.signed <= now + SET_BACK
    }
}

impl Signer {
    /// Makes an empty cache.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tokens: Mutex::new(LruCache::unbounded()),
        }
    }

    /// Returns the `Authorization` value for a message to `origin`, marked sensitive: `vapid t=TOKEN, k=KEY` (RFC
    /// 8292 section 3). It is a clone of the cached value, or a newly signed one.
    ///
    /// The token is a JWT with `typ` JWT and `alg` ES256 in its header and the claims `aud`, `exp` (12 hours after
    /// `now`) and `sub`, nothing else. Signing takes a fraction of a millisecond. With the feature `jwt-simple` that
    /// crate signs, else `aws-lc-rs` if its feature is on, else `p256`.
    ///
    /// # Errors
    ///
    /// [`Signing`](super::VapidErrorKind::Signing) if the library fails. No input of these types is known to cause
    /// it.
    ///
    /// # Panics
    ///
    /// With the feature `jwt-simple`, panics if the operating system gives no randomness when that crate asks for it:
    /// for the first token that a thread signs, and again for each 64 KiB of random octets that the thread has used. On
    /// Linux that takes a kernel or a sandbox without `getrandom` and without `/dev/urandom`. The cache stays usable.
    pub fn authorization(
        &self,
        key: &VapidKey,
        origin: &Origin,
        contact: &Contact,
        now: Timestamp,
    ) -> Result<HeaderValue, VapidError> {
        let entry = self.entry((origin.clone(), key.id(), contact.clone()));
        let mut token = lock(&entry);
        if let Some(token) = token.as_ref().filter(|token| token.is_fresh(now)) {
            return Ok(token.value.clone());
        }
        let value = token::authorization(key, origin, contact, now)?;
        *token = Some(Token {
            value: value.clone(),
            signed: now,
        });
        Ok(value)
    }

    fn entry(&self, slot: Slot) -> Arc<Mutex<Option<Token>>> {
        let mut tokens = lock(&self.tokens);
        let entry = Arc::clone(tokens.get_or_insert(slot, Arc::default));
        if tokens.len() > CAPACITY {
            tokens.pop_lru();
        }
        entry
    }
}

impl Default for Signer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = lock(&self.tokens).len();
        f.debug_struct("Signer").field("tokens", &tokens).finish()
    }
}

/// The guarded values are consistent after every statement, so a poisoned lock can be used.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The most tokens that are kept. A walk over more origins than this signs a token for each message.
const CAPACITY: usize = 16_384;
const RENEW_AFTER: Duration = Duration::from_secs(8 * 3600);
const SET_BACK: Duration = Duration::from_secs(3600);
const _: () = assert!(RENEW_AFTER.as_secs() < TOKEN_LIFETIME.as_secs());
const _: () = assert!(TOKEN_LIFETIME.as_secs() + SET_BACK.as_secs() < 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_453_480_568);

    struct Fixture {
        signer: Signer,
        key: VapidKey,
        contact: Contact,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                signer: Signer::new(),
                key: VapidKey::generate().unwrap(),
                contact: Contact::parse("mailto:push@example.com").unwrap(),
            }
        }

        fn at(&self, origin: &str, now: Timestamp) -> HeaderValue {
            self.signer
                .authorization(
                    &self.key,
                    &Origin::parse(origin).unwrap(),
                    &self.contact,
                    now,
                )
                .unwrap()
        }
    }

    const ORIGIN: &str = "https://push.example.net";
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_is_reused_for_eight_hours_and_then_replaced() {
        let fixture = Fixture::new();
        let first = fixture.at(ORIGIN, START);
        // Signatures are randomised: equal values are the same token.
        let still = fixture.at(ORIGIN, START + HOUR * 8 - Duration::from_millis(1));
        assert_eq!(first, still);
        assert!(still.is_sensitive());
        let renewed = fixture.at(ORIGIN, START + HOUR * 8);
        assert_ne!(first, renewed);
        assert_eq!(renewed, fixture.at(ORIGIN, START + HOUR * 9));
    }

    #[test]
    fn a_clock_set_back_far_gets_a_new_token() {
        let fixture = Fixture::new();
        let first = fixture.at(ORIGIN, START);
        assert_eq!(first, fixture.at(ORIGIN, START - HOUR));
        assert_ne!(first, fixture.at(ORIGIN, START - HOUR * 2));
    }

    #[test]
    fn every_origin_key_and_contact_has_its_own_token() {
        let mut fixture = Fixture::new();
        let first = fixture.at(ORIGIN, START);
        assert_ne!(first, fixture.at("https://push.example.net:8443", START));
        let contact = std::mem::replace(
            &mut fixture.contact,
            Contact::parse("https://example.com/contact").unwrap(),
        );
        assert_ne!(first, fixture.at(ORIGIN, START));
        fixture.contact = contact;
        assert_eq!(first, fixture.at(ORIGIN, START));
        fixture.key = VapidKey::generate().unwrap();
        assert_ne!(first, fixture.at(ORIGIN, START));
    }

    #[test]
    fn callers_at_the_same_time_share_one_signature() {
        let fixture = Fixture::new();
        let barrier = std::sync::Barrier::new(8);
        let values: Vec<HeaderValue> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        fixture.at(ORIGIN, START)
                    })
                })
                .collect();
            workers.into_iter().map(|w| w.join().unwrap()).collect()
        });
        assert!(values.iter().all(|value| *value == values[0]));
    }

    #[test]
    fn an_origin_being_signed_does_not_hold_up_another() {
        let fixture = Fixture::new();
        let slot = |origin: &str| {
            (
                Origin::parse(origin).unwrap(),
                fixture.key.id(),
                fixture.contact.clone(),
            )
        };
        let busy = fixture.signer.entry(slot("https://busy.example.net"));
        let _signing = lock(&busy);
        fixture.at(ORIGIN, START);
    }

    #[test]
    fn the_least_recently_used_token_makes_room() {
        let signer = Signer::new();
        let key = VapidKey::generate().unwrap().id();
        let contact = Contact::parse("mailto:push@example.com").unwrap();
        let slot = |n: usize| {
            let origin = Origin::parse(&format!("https://p{n}.example.net")).unwrap();
            (origin, key, contact.clone())
        };
        let first = signer.entry(slot(0));
        let second = signer.entry(slot(1));
        for n in 2..CAPACITY {
            signer.entry(slot(n));
        }
        assert!(Arc::ptr_eq(&first, &signer.entry(slot(0))));
        signer.entry(slot(CAPACITY));
        assert_eq!(lock(&signer.tokens).len(), CAPACITY);
        assert!(Arc::ptr_eq(&first, &signer.entry(slot(0))));
        assert!(!Arc::ptr_eq(&second, &signer.entry(slot(1))));
    }
}
