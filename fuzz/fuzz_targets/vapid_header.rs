//! Any value of `Authorization`.
//!
//! The first octet chooses whether the input is the header itself, or the two JSON texts of a token
//! (divided by a line break) that is then signed, so that the fuzzer reaches beyond the signature.
//!
//! Invariants: nothing panics; a verified token is signed by the key it shows, expires within 24 hours, and does not
//! verify outside its lifetime, nor with another signature. Before the first input: this build links no library that signs
//! but `p256`, and signs the deterministic vectors (RFC 6979) octet for octet.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use libfuzzer_sys::fuzz_target;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use tower_web_push::clock::Timestamp;
use tower_web_push::subscription::Origin;
use tower_web_push::vapid::{Contact, Signer as VapidSigner, VapidKey, verify};

struct Sender {
    signing: SigningKey,
    key: VapidKey,
    origin: Origin,
}

static SENDER: LazyLock<Sender> = LazyLock::new(|| Sender {
    signing: SigningKey::from_slice(&[0x41; 32]).expect("a number below the order"),
    key: VapidKey::from_secret_bytes(&[0x41; 32]).expect("a number below the order"),
    origin: Origin::parse("https://push.example.net").expect("an origin"),
});

const NOW: Timestamp = Timestamp::from_secs(1_453_500_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Panics unless the tokens of the vectors are signed as they are.
fn sign_the_vectors() {
    let file = include_str!("../../tests/vectors/vapid_es256_deterministic.json");
    let vectors: serde_json::Value = serde_json::from_str(file).expect("JSON");
    let key = vectors["private_key"].as_str().expect("a key");
    let key = VapidKey::parse(key).expect("a key");
    let mut signed = 0;
    for case in vectors["cases"].as_array().expect("cases") {
        let claims = case["jwt_claims_json"].as_str().expect("claims");
        let claims: serde_json::Value = serde_json::from_str(claims).expect("claims");
        // A contact is optional in RFC 8292, and not in this crate.
        let Some(contact) = claims["sub"].as_str() else {
            continue;
        };
        let contact = Contact::parse(contact).expect("a contact");
        let origin = Origin::parse(claims["aud"].as_str().expect("an origin")).expect("an origin");
        // Tokens end twelve hours after they are signed.
        let now = Timestamp::from_secs(claims["exp"].as_i64().expect("a time")) - DAY / 2;
        let value = VapidSigner::new().authorization(&key, &origin, &contact, now);
        assert_eq!(
            value.expect("a token"),
            *case["authorization"].as_str().expect("a value")
        );
        signed += 1;
    }
    assert_eq!(signed, 2);
}

fuzz_target!(init: sign_the_vectors(), |input: &[u8]| {
    let Some((mode, input)) = input.split_first() else {
        return;
    };
    let sender = &*SENDER;
    if mode & 1 == 0 {
        if let Ok(verified) = verify(input, &sender.origin, NOW) {
            assert!(verified.expires() >= NOW && verified.expires() <= NOW + DAY);
        }
        return;
    }

    let at = input
        .iter()
        .position(|octet| *octet == b'\n')
        .unwrap_or(input.len());
    let (header, claims) = input.split_at(at);
    let [header, claims] =
        [header, claims.get(1..).unwrap_or_default()].map(Base64UrlUnpadded::encode_string);
    let token = format!("{header}.{claims}");
    let signature: Signature = sender.signing.sign(token.as_bytes());
    let public_key = sender.key.public_key();
    let value = |signature: &[u8]| {
        let signature = Base64UrlUnpadded::encode_string(signature);
        format!("vapid t={token}.{signature}, k={public_key}")
    };
    let genuine = value(&signature.to_bytes());
    let Ok(verified) = verify(&genuine, &sender.origin, NOW) else {
        return;
    };
    assert_eq!(verified.public_key(), public_key);
    let expires = verified.expires();
    assert!(expires >= NOW && expires <= NOW + DAY);
    let tick = Duration::from_millis(1);
    assert!(verify(&genuine, &sender.origin, expires + tick).is_err());
    assert!(verify(&genuine, &sender.origin, expires - DAY - tick).is_err());
    let mut forged = signature.to_bytes();
    forged[63] ^= 1;
    assert!(verify(value(&forged), &sender.origin, NOW).is_err());
});
