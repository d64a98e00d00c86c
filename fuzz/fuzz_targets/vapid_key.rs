//! Any octets as a private key: PEM, DER, base64, hex or JSON.
//!
//! Invariants: nothing panics; what parses is read back as the same key from every form.
#![no_main]

use base64ct::{Base64, Base64UrlUnpadded, Encoding as _};
use libfuzzer_sys::fuzz_target;
use tower_web_push::vapid::{VapidError, VapidKey};

fuzz_target!(|input: &[u8]| {
    let Ok(key) = VapidKey::parse(input) else {
        return;
    };
    let same = |again: Result<VapidKey, VapidError>| {
        let again = again.expect("our own output parses");
        assert_eq!(again.public_key(), key.public_key());
        assert_eq!(again.id(), key.id());
        assert_eq!(*again.secret_bytes(), *key.secret_bytes());
    };

    let pem = key.secret_to_pkcs8_pem();
    same(VapidKey::parse(pem.as_str()));
    // A whole file in base64, as environment files hold it.
    same(VapidKey::parse(Base64::encode_string(pem.as_bytes())));
    // The base64 of the DER, without its armour.
    let lines = pem.lines().filter(|line| !line.starts_with('-'));
    let der = lines.collect::<String>();
    same(VapidKey::parse(&der));
    same(VapidKey::parse(Base64::decode_vec(&der).expect("base64")));
    let raw = key.secret_to_raw_base64url();
    same(VapidKey::parse(raw.as_str()));
    let (x, y) = key.public_key().as_bytes()[1..].split_at(32);
    let [x, y] = [x, y].map(Base64UrlUnpadded::encode_string);
    let jwk = format!(
        r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}","d":"{}"}}"#,
        *raw
    );
    same(VapidKey::parse(jwk.as_str()));
    same(VapidKey::parse(Base64::encode_string(jwk.as_bytes())));
    let pair = format!(r#"{{"publicKey":{},"privateKey":{}}}"#, jwk, jwk);
    same(VapidKey::parse(pair));
    let hex: String = key
        .secret_bytes()
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    same(VapidKey::parse(hex));
    same(VapidKey::from_secret_bytes(key.secret_bytes().as_slice()));
    same(VapidKey::parse_pair(
        raw.as_str(),
        &key.public_key().to_base64url(),
    ));
});
