//! What is said to be wiped on drop is gone from the place in memory where it was, read back from the operating system.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ptr;

use tower_web_push::p256::{P256 as _, RustCrypto, UaSecretKey};
use tower_web_push::secret::SecretBytes;
use tower_web_push::subscription::AuthSecret;

/// A pattern that is nowhere else: the number of the test and of the octet.
fn pattern<const N: usize>(test: u8) -> [u8; N] {
    std::array::from_fn(|at| {
        test.wrapping_mul(31)
            .wrapping_add(at as u8)
            .wrapping_mul(167)
            | 1
    })
}

/// The place of a value, without a reference to it.
struct Place {
    at: u64,
    memory: File,
    octets: Vec<u8>,
}

impl Place {
    fn of<T: ?Sized>(value: &T) -> Self {
        Self {
            at: ptr::from_ref(value).cast::<u8>() as usize as u64,
            memory: File::open("/proc/self/mem").unwrap(),
            // Not later: the allocator could take the place that is looked at.
            octets: vec![0; size_of_val(value)],
        }
    }

    /// Whether eight octets of a secret in a row are there, in either order: numbers are kept with their last octets first.
    fn has(&mut self, secret: &[u8]) -> bool {
        self.memory.seek(SeekFrom::Start(self.at)).unwrap();
        self.memory.read_exact(&mut self.octets).unwrap();
        let found = |part: &[u8]| {
            self.octets
                .windows(8)
                .any(|octets| octets == part || octets.iter().rev().eq(part))
        };
        secret.windows(8).any(found)
    }
}

/// `hold` returns what contains the octets: the value itself, or what it has on the heap.
fn is_wiped<T>(value: T, secret: &[u8], hold: impl Fn(&T) -> Place) {
    let value = Box::new(value);
    let mut place = hold(&value);
    assert!(place.has(secret), "it was never there");
    drop(value);
    assert!(!place.has(secret), "it is still there");
}

/// Otherwise the tests below could not fail. Another thread may take the place in between, now and then.
#[test]
fn what_is_not_wiped_is_found() {
    let secret = pattern::<64>(1);
    let is_found = || {
        let value = Box::new(secret);
        let mut place = Place::of(&*value);
        drop(value);
        place.has(&secret)
    };
    assert!((0..1_000).any(|_| is_found()));
}

#[test]
fn secret_octets_are_wiped() {
    let secret = pattern::<64>(2);
    is_wiped(SecretBytes::new(secret), &secret, Place::of);
}

#[test]
fn authentication_secrets_are_wiped() {
    let secret = pattern::<16>(3);
    is_wiped(AuthSecret::from_bytes(&secret).unwrap(), &secret, Place::of);
}

#[test]
fn keys_of_user_agents_and_what_they_agree_on_are_wiped() {
    let secret = pattern::<32>(4);
    let own = UaSecretKey::from_bytes(&secret).unwrap();
    let peer = UaSecretKey::from_bytes(&pattern::<32>(5)).unwrap();
    let shared = RustCrypto
        .agree_with(&own, peer.public().as_bytes())
        .unwrap();
    let octets = *shared.secret_bytes();
    is_wiped(shared, &octets, Place::of);
    is_wiped(own, &secret, Place::of);
}

#[cfg(feature = "vapid")]
#[test]
fn vapid_keys_and_their_texts_are_wiped() {
    use tower_web_push::vapid::{SealedVapidKey, VapidKey};

    let secret = pattern::<32>(6);
    let key = VapidKey::from_secret_bytes(&secret).unwrap();
    let (raw, pem) = (key.secret_to_raw_base64url(), key.secret_to_pkcs8_pem());
    for text in [raw.to_string(), pem.to_string()] {
        let secret = text.clone();
        let last = &secret.as_bytes()[secret.len() / 2..];
        is_wiped(SealedVapidKey::new(text), last, |sealed| {
            Place::of(sealed.secret_str())
        });
    }
    for text in [raw, pem] {
        let secret = text.to_string();
        let last = &secret.as_bytes()[secret.len() / 2..];
        is_wiped(text, last, |text| Place::of(text.as_str()));
    }
    is_wiped(key, &secret, Place::of);
}
