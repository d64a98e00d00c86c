//! Tests: every library signs, and verifies the signatures of the others.

use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use serde_json::Value;

use super::*;
use crate::encoding::base64_any;
use crate::vapid::verify;

const NOW: Timestamp = Timestamp::from_millis(1_453_480_568_999);

struct Vectors(Value);

impl Vectors {
    fn load() -> Self {
        let file = include_str!("../../../tests/vectors/vapid_es256_deterministic.json");
        Self(serde_json::from_str(file).unwrap())
    }

    fn key(&self) -> VapidKey {
        let key = VapidKey::parse(self.0["private_key"].as_str().unwrap()).unwrap();
        assert_eq!(key.public_key().to_base64url(), self.0["public_key"]);
        key
    }

    /// The cases with a contact, which this crate always has.
    fn cases(&self) -> impl Iterator<Item = (&Value, Origin, Contact, Timestamp)> {
        let cases = self.0["cases"].as_array().unwrap().iter();
        cases.filter_map(|case| {
            let claims: Value = serde_json::from_str(case["jwt_claims_json"].as_str()?).unwrap();
            Some((
                case,
                Origin::parse(claims["aud"].as_str()?).unwrap(),
                Contact::parse(claims["sub"].as_str()?).unwrap(),
                Timestamp::from_secs(claims["exp"].as_i64()?) - TOKEN_LIFETIME,
            ))
        })
    }
}

fn origin() -> Origin {
    Origin::parse("https://push.example.net:8443").unwrap()
}

fn contact() -> Contact {
    Contact::parse("mailto:push@example.com").unwrap()
}

/// Returns `t` of the header's value.
fn token(authorization: &HeaderValue) -> &str {
    let value = authorization.to_str().unwrap();
    let (token, _) = value
        .strip_prefix("vapid t=")
        .unwrap()
        .split_once(", k=")
        .unwrap();
    token
}

/// Returns a part of a token as it was signed: 0 is the header, 1 the claims, 2 the signature.
fn part(token: &str, at: usize) -> Vec<u8> {
    base64_any(token.split('.').nth(at).unwrap())
        .unwrap()
        .to_vec()
}

#[test]
fn p256_reproduces_the_deterministic_tokens_octet_for_octet() {
    let vectors = Vectors::load();
    let mut compared = 0;
    for (case, origin, contact, now) in vectors.cases() {
        let ours = authorization_by(rust_crypto::sign, &vectors.key(), &origin, &contact, now);
        assert_eq!(ours.unwrap().to_str().unwrap(), case["authorization"]);
        compared += 1;
    }
    assert_eq!(compared, 2);
}

/// The feature `jwt-simple` comes before other libraries. It writes `alg` first. That `p256` signs where it is alone is checked by the
/// fuzz target `vapid_header`.
#[test]
fn the_preferred_library_signs() {
    let key = VapidKey::generate().unwrap();
    let value = authorization(&key, &origin(), &contact(), NOW).unwrap();
    let expected: &[u8] = match cfg!(feature = "jwt-simple") {
        true => br#"{"alg":"ES256","typ":"JWT"}"#,
        false => br#"{"typ":"JWT","alg":"ES256"}"#,
    };
    assert_eq!(part(token(&value), 0), expected);
}

#[test]
fn all_libraries_sign_the_claims_of_the_vectors_octet_for_octet() {
    let vectors = Vectors::load();
    for sign in SIGNERS {
        for (case, origin, contact, now) in vectors.cases() {
            let ours = authorization_by(*sign, &vectors.key(), &origin, &contact, now).unwrap();
            let (ours, theirs) = (token(&ours), case["jwt"].as_str().unwrap());
            assert_eq!(part(ours, 1), part(theirs, 1));
            let [ours, theirs] = [ours, theirs].map(|token| part(token, 0));
            let header = |octets: &[u8]| serde_json::from_slice::<Value>(octets).unwrap();
            assert_eq!(header(&ours), header(&theirs));
        }
    }
}

#[test]
fn each_library_verifies_what_each_signed() {
    let key = VapidKey::generate().unwrap();
    let other = VapidKey::generate().unwrap();
    for sign in SIGNERS {
        let value = authorization_by(*sign, &key, &origin(), &contact(), NOW).unwrap();
        let verified = verify(&value, &origin(), NOW).unwrap();
        assert_eq!(verified.public_key(), key.public_key());
        assert_eq!(verified.subject(), Some("mailto:push@example.com"));
        assert_eq!(verified.expires(), Timestamp::from_secs(1_453_523_768));
        for verifies in VERIFIERS {
            assert!(verifies(&key, token(&value)));
            assert!(!verifies(&other, token(&value)));
        }
    }
}

type Verifies = fn(&VapidKey, &str) -> bool;

/// The verifier of each library in `SIGNERS`.
const VERIFIERS: &[Verifies] = &[
    #[cfg(feature = "jwt-simple")]
    |key, token| {
        use ::jwt_simple::prelude::*;
        let key = ES256PublicKey::from_bytes(key.public_key().as_bytes()).unwrap();
        let options = VerificationOptions {
            artificial_time: Some(UnixTimeStamp::from_secs(1_453_480_568)),
            allowed_audiences: Some(HashSet::from_strings(&[origin().as_str()])),
            ..VerificationOptions::default()
        };
        let claims = key.verify_token::<NoCustomClaims>(token, Some(options));
        claims.is_ok_and(|claims| claims.subject.as_deref() == Some(contact().as_str()))
    },
    #[cfg(feature = "aws-lc-rs")]
    |key, token| {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
        let (input, _) = token.rsplit_once('.').unwrap();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key().as_bytes())
            .verify(input.as_bytes(), &part(token, 2))
            .is_ok()
    },
    |key, token| {
        let (input, _) = token.rsplit_once('.').unwrap();
        let key = VerifyingKey::from_sec1_bytes(key.public_key().as_bytes()).unwrap();
        let signature = Signature::from_slice(&part(token, 2)).unwrap();
        key.verify(input.as_bytes(), &signature).is_ok()
    },
];

#[test]
fn the_value_is_sensitive() {
    let key = VapidKey::generate().unwrap();
    let value = authorization(&key, &origin(), &contact(), NOW).unwrap();
    assert!(value.is_sensitive());
    assert_eq!(format!("{value:?}"), "Sensitive");
}

#[test]
fn the_port_stays_in_the_audience_and_exp_is_twelve_hours_ahead() {
    let key = VapidKey::generate().unwrap();
    for sign in SIGNERS {
        let value = authorization_by(*sign, &key, &origin(), &contact(), NOW).unwrap();
        assert_eq!(
            String::from_utf8(part(token(&value), 1)).unwrap(),
            r#"{"aud":"https://push.example.net:8443","exp":1453523768,"sub":"mailto:push@example.com"}"#
        );
    }
}

#[test]
fn a_clock_before_1970_or_beyond_2106_does_not_panic() {
    let key = VapidKey::generate().unwrap();
    for sign in SIGNERS {
        for now in [Timestamp::MIN, Timestamp::MAX] {
            assert!(authorization_by(*sign, &key, &origin(), &contact(), now).is_ok());
        }
    }
}
