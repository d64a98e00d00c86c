//! Whatever is set as the private key, or lies in its file: any bytes, meant as PEM, DER, base64, hex or JSON.
//!
//! Invariants: nothing panics; what parses is written in every form and read back as the same key, by
//! the general parser and by the one of that form.
#![no_main]

use base64ct::{Base64, Encoding as _};
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

    let (pkcs8, sec1) = (key.secret_to_pkcs8_der(), key.secret_to_sec1_der());
    same(VapidKey::parse(pkcs8.as_slice()));
    same(VapidKey::from_pkcs8_der(&pkcs8));
    same(VapidKey::parse(sec1.as_slice()));
    same(VapidKey::from_sec1_der(&sec1));
    let (pkcs8, sec1) = (key.secret_to_pkcs8_pem(), key.secret_to_sec1_pem());
    same(VapidKey::parse(pkcs8.as_str()));
    same(VapidKey::from_pem(&pkcs8));
    same(VapidKey::parse(sec1.as_str()));
    same(VapidKey::from_pem(&sec1));
    // A whole file in base64, as environment files hold it.
    same(VapidKey::parse(Base64::encode_string(pkcs8.as_bytes())));
    let (raw, jwk) = (key.secret_to_raw_base64url(), key.secret_to_jwk());
    same(VapidKey::parse(raw.as_str()));
    same(VapidKey::from_raw_base64(&raw));
    same(VapidKey::parse(jwk.as_str()));
    same(VapidKey::parse(Base64::encode_string(jwk.as_bytes())));
    let pair = format!(r#"{{"publicKey":{},"privateKey":{}}}"#, *jwk, *jwk);
    same(VapidKey::parse(pair));
    let hex: String = key
        .secret_bytes()
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    same(VapidKey::parse(hex));
    same(VapidKey::from_jwk(&jwk));
    same(VapidKey::from_secret_bytes(key.secret_bytes().as_slice()));
    same(VapidKey::parse_pair(
        raw.as_str(),
        &key.public_key().to_base64url(),
    ));
});
