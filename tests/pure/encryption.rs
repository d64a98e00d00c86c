//! Properties of every message: backends agree, changes are detected, limits hold, salts and keys are fresh.

use std::collections::HashSet;
use std::num::NonZeroU16;

use proptest::prelude::*;
use tower_web_push::encryption::{EncryptErrorKind, MAX_BODY, OVERHEAD, decrypt, encrypt};
use tower_web_push::message::{Message, Padding};
#[cfg(feature = "aws-lc-rs")]
use tower_web_push::p256::AwsLc;
use tower_web_push::p256::{P256, RustCrypto, UaSecretKey};
use tower_web_push::subscription::{AuthSecret, Subscription};

const BACKENDS: &[&dyn P256] = &[
    &RustCrypto,
    #[cfg(feature = "aws-lc-rs")]
    &AwsLc,
];

/// The octets of the record size, which is not authenticated (RFC 8188 section 4.6).
const RECORD_SIZE_FIELD: std::ops::Range<usize> = 16..20;

struct UserAgent {
    secret: UaSecretKey,
    auth: AuthSecret,
}

impl UserAgent {
    fn new() -> Self {
        Self {
            secret: UaSecretKey::random().unwrap(),
            auth: AuthSecret::from_bytes(b"sixteen octets..").unwrap(),
        }
    }

    fn subscription(&self) -> Subscription {
        let endpoint = "https://push.example.net/p/1".parse().unwrap();
        Subscription::new(endpoint, *self.secret.public(), self.auth.clone())
    }

    fn open(&self, p256: &dyn P256, body: &[u8]) -> Option<Vec<u8>> {
        decrypt(p256, &self.secret, &self.auth, body).ok()
    }
}

fn any_padding() -> impl Strategy<Value = Padding> {
    prop_oneof![
        Just(Padding::None),
        Just(Padding::Max),
        any::<NonZeroU16>().prop_map(Padding::Multiple),
        Just(Padding::DEFAULT),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_backend_opens_what_each_sealed(
        plaintext in prop::collection::vec(any::<u8>(), 0..=Message::MAX_PAYLOAD),
        padding in any_padding(),
    ) {
        let user_agent = UserAgent::new();
        for sender in BACKENDS {
            let body = encrypt(*sender, &user_agent.subscription(), &plaintext, padding).unwrap();
            prop_assert_eq!(body.len(), OVERHEAD + plaintext.len() + padding.octets_for(plaintext.len()));
            prop_assert!(body.len() <= MAX_BODY);
            for receiver in BACKENDS {
                prop_assert_eq!(user_agent.open(*receiver, &body), Some(plaintext.clone()));
            }
        }
    }

    #[test]
    fn any_octets_are_an_error_not_a_panic(
        mut body in prop::collection::vec(any::<u8>(), 0..300),
        header in any::<bool>(),
    ) {
        let user_agent = UserAgent::new();
        if header && body.len() > 86 {
            // A valid header, so that the record is decrypted.
            body[16..21].copy_from_slice(&[0, 0, 16, 0, 65]);
            body[21..86].copy_from_slice(user_agent.secret.public().as_bytes());
        }
        for receiver in BACKENDS {
            prop_assert_eq!(user_agent.open(*receiver, &body), None);
        }
    }
}

/// A body in which every octet matters.
fn sealed() -> (UserAgent, Vec<u8>) {
    let user_agent = UserAgent::new();
    let subscription = user_agent.subscription();
    let body = encrypt(&RustCrypto, &subscription, b"hello", Padding::None).unwrap();
    (user_agent, body.into())
}

#[test]
fn a_body_cut_anywhere_is_refused() {
    let (user_agent, body) = sealed();
    for receiver in BACKENDS {
        for len in 0..body.len() {
            assert_eq!(user_agent.open(*receiver, &body[..len]), None, "{len}");
        }
    }
}

#[test]
fn a_body_with_something_behind_it_is_refused() {
    let (user_agent, mut body) = sealed();
    for octet in [0, 2, 0xff] {
        body.push(octet);
        assert_eq!(user_agent.open(&RustCrypto, &body), None);
    }
}

#[test]
fn a_flipped_bit_outside_the_record_size_is_refused() {
    let (user_agent, body) = sealed();
    for receiver in BACKENDS {
        for bit in 0..body.len() * 8 {
            let mut changed = body.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let opened = user_agent.open(*receiver, &changed);
            if RECORD_SIZE_FIELD.contains(&(bit / 8)) {
                // Either it still contains the one record, or it is refused.
                assert!(opened.is_none_or(|plaintext| plaintext == b"hello"));
            } else {
                assert_eq!(opened, None, "bit {bit}");
            }
        }
    }
}

#[test]
fn another_key_or_secret_opens_nothing() {
    let (mut user_agent, body) = sealed();
    assert_eq!(UserAgent::new().open(&RustCrypto, &body), None);
    user_agent.auth = AuthSecret::from_bytes(b"sixteen octets.,").unwrap();
    assert_eq!(user_agent.open(&RustCrypto, &body), None);
}

#[test]
fn a_payload_of_3993_octets_fits_and_3994_do_not() {
    let user_agent = UserAgent::new();
    let subscription = user_agent.subscription();
    for padding in [Padding::None, Padding::DEFAULT, Padding::Max] {
        let body = encrypt(&RustCrypto, &subscription, &[7; 3993], padding).unwrap();
        assert_eq!(body.len(), 4096);
        let error = encrypt(&RustCrypto, &subscription, &[7; 3994], padding).unwrap_err();
        assert_eq!(error.kind(), EncryptErrorKind::TooLarge);
    }
}

#[test]
fn every_message_has_its_own_salt_and_key() {
    let user_agent = UserAgent::new();
    let subscription = user_agent.subscription();
    for backend in BACKENDS {
        let (mut salts, mut keys) = (HashSet::new(), HashSet::new());
        for _ in 0..50 {
            let body = encrypt(*backend, &subscription, b"the same", Padding::None).unwrap();
            assert!(salts.insert(body.slice(..16)), "salt used twice");
            assert!(keys.insert(body.slice(21..86)), "key used twice");
        }
    }
}
