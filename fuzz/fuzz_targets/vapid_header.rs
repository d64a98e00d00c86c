//! Any value of `Authorization`.
//!
//! The first octet chooses whether the input is the header itself, or the two JSON texts of a token
//! (divided by a line break) that is then signed, so that the fuzzer reaches beyond the signature.
//!
//! Invariants: nothing panics; a verified token is signed by the key it shows, expires within 24 hours, and does not
//! verify outside its lifetime, nor with another signature.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use libfuzzer_sys::fuzz_target;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use tower_web_push::clock::Timestamp;
use tower_web_push::subscription::Origin;
use tower_web_push::vapid::{VapidKey, verify};

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

fuzz_target!(|input: &[u8]| {
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
