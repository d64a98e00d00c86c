//! The vectors of RFC 8188 and RFC 8291 and the cases built from them, once per backend that takes part. The unit
//! tests of `encryption` replay RFC 8291's salt and key pair.
//!
//! `aesgcm_draft04.json` is the previous content coding: it is not implemented, since current browsers support
//! `aes128gcm`, and its body must be refused.

use std::fs;
use std::path::Path;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::Value;
use tower_web_push::ece::{self, Delimiter, Header, Keys};
use tower_web_push::encryption::{DecryptErrorKind, RECORD_SIZE, decrypt};
#[cfg(feature = "aws-lc-rs")]
use tower_web_push::p256::AwsLc;
use tower_web_push::p256::{P256, RustCrypto, UaSecretKey};
use tower_web_push::subscription::{AuthSecret, UaPublicKey};

fn vector(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let text = fs::read(folder.join(name)).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn octets(value: &Value) -> Vec<u8> {
    Base64UrlUnpadded::decode_vec(value.as_str().unwrap()).unwrap()
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap().try_into().unwrap()
}

/// Makes one test of each function per backend.
macro_rules! per_backend {
    ($($name:ident)*) => {
        mod rust_crypto {
            $(#[test] fn $name() { super::$name(&super::RustCrypto); })*
        }
        #[cfg(feature = "aws-lc-rs")]
        mod aws_lc {
            $(#[test] fn $name() { super::$name(&super::AwsLc); })*
        }
    };
}

per_backend! {
    rfc8291_appendix_a_agrees_from_both_sides
    rfc8291_appendix_a_decrypts
    every_receiver_case_comes_out_as_listed
    only_points_on_the_curve_are_agreed_with
    the_legacy_coding_is_refused
}

fn rfc8188(name: &str) {
    let vector = vector(name);
    let (ikm, body) = (octets(&vector["ikm"]), octets(&vector["body"]));
    let salt = octets(&vector["salt"]).try_into().unwrap();
    let keyid = octets(&vector["keyid"]);

    let (header, _) = Header::decode(&body).unwrap();
    assert_eq!(header.salt(), &salt);
    assert_eq!(header.keyid(), keyid);
    assert_eq!(u64::from(header.record_size()), vector["rs"]);
    assert_eq!(
        ece::decrypt(&ikm, &body).unwrap(),
        octets(&vector["plaintext"])
    );

    // The other direction, record by record: the RFC pads the first of two.
    let mut written = Vec::new();
    Header::new(salt, header.record_size(), &keyid)
        .unwrap()
        .encode(&mut written);
    assert_eq!(written, octets(&vector["header"]));
    let keys = Keys::derive(&ikm, &salt);
    for record in vector["records"].as_array().unwrap() {
        let padded = octets(&record["padded_plaintext"]);
        let padding = number(&record["pad_zeros"]);
        let delimiter = match number(&record["delimiter"]) {
            1 => Delimiter::More,
            _ => Delimiter::Last,
        };
        let data = &padded[..padded.len() - padding - 1];
        let seq = record["seq"].as_u64().unwrap();
        let start = written.len();
        keys.seal(seq, data, delimiter, padding, &mut written)
            .unwrap();
        assert_eq!(written[start..], octets(&record["ciphertext"]));

        let mut opened = Vec::new();
        keys.open(seq, &written[start..], delimiter, &mut opened)
            .unwrap();
        assert_eq!(opened, data);
    }
    assert_eq!(written, body);
    assert_eq!(body.len(), number(&vector["body_len"]));
}

#[test]
fn rfc8188_3_1_both_ways() {
    rfc8188("rfc8188_3_1.json");
}

#[test]
fn rfc8188_3_2_both_ways() {
    rfc8188("rfc8188_3_2.json");
}

/// The keys of RFC 8291 Appendix A, which other files use too.
fn user_agent(vector: &Value) -> (UaSecretKey, AuthSecret) {
    let secret = UaSecretKey::from_bytes(&octets(&vector["ua_private"])).unwrap();
    assert_eq!(&secret.public().to_base64url(), &vector["ua_public"]);
    let auth = AuthSecret::from_bytes(&octets(&vector["auth_secret"])).unwrap();
    (secret, auth)
}

fn rfc8291_appendix_a_agrees_from_both_sides(p256: &dyn P256) {
    let vector = vector("rfc8291_appendix_a.json");
    for (own, peer) in [("ua_private", "as_public"), ("as_private", "ua_public")] {
        let own = UaSecretKey::from_bytes(&octets(&vector[own])).unwrap();
        let peer = octets(&vector[peer]).try_into().unwrap();
        let shared = p256.agree_with(&own, &peer).unwrap();
        assert_eq!(
            shared.secret_bytes()[..],
            octets(&vector["ecdh_secret"])[..]
        );
    }
}

fn rfc8291_appendix_a_decrypts(p256: &dyn P256) {
    let vector = vector("rfc8291_appendix_a.json");
    let (secret, auth) = user_agent(&vector);
    let body = octets(&vector["body"]);
    assert_eq!(
        decrypt(p256, &secret, &auth, &body).unwrap(),
        octets(&vector["plaintext"])
    );
    let (header, record) = Header::decode(&body).unwrap();
    assert_eq!(header.record_size(), RECORD_SIZE);
    assert_eq!(header.keyid(), octets(&vector["as_public"]));
    assert_eq!(record, octets(&vector["ciphertext"]));
    // The content coding below the message encryption.
    assert_eq!(
        ece::decrypt(&octets(&vector["ikm"]), &body).unwrap(),
        octets(&vector["plaintext"])
    );
}

fn every_receiver_case_comes_out_as_listed(p256: &dyn P256) {
    let vector = vector("aes128gcm_webpush_cases.json");
    let (secret, auth) = user_agent(&vector);
    let cases = vector["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 23);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let body = octets(&case["body"]);
        assert_eq!(body.len(), number(&case["body_len"]), "{name}");
        let decrypted = decrypt(p256, &secret, &auth, &body);
        if case["valid"] == true {
            assert_eq!(decrypted.unwrap(), octets(&case["plaintext"]), "{name}");
            continue;
        }
        // What is visible without keys, and what is not.
        let expected = match name {
            "no delimiter: record of zeros only"
            | "empty record content"
            | "delimiter 0x01 on the only record"
            | "delimiter 0x03"
            | "ciphertext shorter than tag+1"
            | "tag flipped" => DecryptErrorKind::NotAuthentic,
            _ => DecryptErrorKind::Malformed,
        };
        assert_eq!(decrypted.unwrap_err().kind(), expected, "{name}");
    }
}

#[test]
fn every_public_key_comes_out_as_listed() {
    let vector = vector("p256_public_keys.json");
    let cases = vector["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 19);
    for case in cases {
        let valid = case["valid"] == true;
        let parsed = UaPublicKey::from_bytes(&octets(&case["key"]));
        assert_eq!(parsed.is_ok(), valid, "{}", case["name"]);
        let parsed = UaPublicKey::parse(case["key"].as_str().unwrap());
        assert_eq!(parsed.is_ok(), valid, "{}", case["name"]);
    }
}

fn only_points_on_the_curve_are_agreed_with(p256: &dyn P256) {
    let vector = vector("p256_public_keys.json");
    let own = UaSecretKey::random().unwrap();
    let mut agreed_with = 0;
    for case in vector["cases"].as_array().unwrap() {
        // Other lengths are refused earlier.
        let Ok(point) = octets(&case["key"]).try_into() else {
            continue;
        };
        let valid = case["valid"] == true;
        let shared = p256.agree_with(&own, &point);
        assert_eq!(shared.is_ok(), valid, "{}", case["name"]);
        agreed_with += usize::from(valid);
    }
    assert_eq!(agreed_with, 3);
}

fn the_legacy_coding_is_refused(p256: &dyn P256) {
    let vector = vector("aesgcm_draft04.json");
    let (secret, auth) = user_agent(&vector);
    let body = octets(&vector["body"]);
    assert!(decrypt(p256, &secret, &auth, &body).is_err());
}
