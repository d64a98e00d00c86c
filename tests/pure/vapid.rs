//! VAPID against the vectors: the example of RFC 8292, RFC 6979 tokens, and tokens that a push service must refuse.

use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use http::HeaderValue;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::{Value, json};
use tower_web_push::clock::Timestamp;
use tower_web_push::subscription::Origin;
use tower_web_push::vapid::{self, Contact, Signer, VapidErrorKind, VapidKey};

const RFC_8292: &str = include_str!("../vectors/rfc8292_2_4.json");
const DETERMINISTIC: &str = include_str!("../vectors/vapid_es256_deterministic.json");
const EXP: i64 = 1_453_523_768;
const DAY: Duration = Duration::from_secs(86_400);

fn origin(text: &str) -> Origin {
    Origin::parse(text).unwrap()
}

fn example() -> (String, Origin) {
    let file: Value = serde_json::from_str(RFC_8292).unwrap();
    let header = file["authorization_header"].as_str().unwrap().to_owned();
    (header, origin("https://push.example.net"))
}

/// A sender that signs any claims.
struct Forger {
    key: SigningKey,
    public_key: String,
}

impl Forger {
    fn new() -> Self {
        let key = VapidKey::generate().unwrap();
        Self {
            key: SigningKey::from_slice(key.secret_bytes().as_slice()).unwrap(),
            public_key: key.public_key().to_base64url(),
        }
    }

    fn token(&self, header: &str, claims: &str) -> String {
        let [header, claims] = [header, claims].map(|part| base64url(part.as_bytes()));
        let input = format!("{header}.{claims}");
        let signature: Signature = self.key.sign(input.as_bytes());
        format!("{input}.{}", base64url(&signature.to_bytes()))
    }

    fn authorization(&self, header: &str, claims: &str) -> String {
        format!(
            "vapid t={}, k={}",
            self.token(header, claims),
            self.public_key
        )
    }

    fn claims(&self, claims: &Value) -> String {
        self.authorization(r#"{"typ":"JWT","alg":"ES256"}"#, &claims.to_string())
    }
}

fn base64url(octets: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(octets)
}

/// One minute before `EXP`, at the example's origin.
#[track_caller]
fn kind(authorization: &str) -> VapidErrorKind {
    let now = Timestamp::from_secs(EXP - 60);
    vapid::verify(authorization, &origin("https://push.example.net"), now)
        .unwrap_err()
        .kind()
}

#[test]
fn the_example_of_rfc_8292_verifies_for_24_hours() {
    let (header, origin) = example();
    let exp = Timestamp::from_secs(EXP);
    let tick = Duration::from_millis(1);
    for now in [exp - DAY, exp - DAY / 2, exp - tick] {
        let verified = vapid::verify(&header, &origin, now).unwrap();
        assert_eq!(verified.subject(), Some("mailto:push@example.com"));
        assert_eq!(verified.expires(), exp);
        assert!(header.ends_with(&verified.public_key().to_base64url()));
    }
    let kind = |now| vapid::verify(&header, &origin, now).unwrap_err().kind();
    // RFC 7519 section 4.1.4: "on or after" it.
    assert_eq!(kind(exp), VapidErrorKind::Expired);
    assert_eq!(kind(exp + tick), VapidErrorKind::Expired);
    assert_eq!(kind(exp - DAY - tick), VapidErrorKind::ExpiresTooLate);
    assert_eq!(kind(Timestamp::MAX), VapidErrorKind::Expired);
    assert_eq!(kind(Timestamp::MIN), VapidErrorKind::ExpiresTooLate);
}

#[test]
fn another_origin_is_refused() {
    let (header, _) = example();
    for other in [
        "https://push.example.com",
        "https://push.example.net:8443",
        "http://push.example.net",
    ] {
        let error =
            vapid::verify(&header, &origin(other), Timestamp::from_secs(EXP - 1)).unwrap_err();
        assert_eq!(error.kind(), VapidErrorKind::WrongAudience, "{other}");
    }
}

#[test]
fn the_rfc_6979_tokens_verify() {
    let file: Value = serde_json::from_str(DETERMINISTIC).unwrap();
    for case in file["cases"].as_array().unwrap() {
        let claims: Value =
            serde_json::from_str(case["jwt_claims_json"].as_str().unwrap()).unwrap();
        let verified = vapid::verify(
            case["authorization"].as_str().unwrap(),
            &origin(claims["aud"].as_str().unwrap()),
            Timestamp::from_secs(claims["exp"].as_i64().unwrap() - 1),
        )
        .unwrap();
        assert_eq!(verified.subject(), claims["sub"].as_str());
        assert_eq!(
            verified.public_key().to_string(),
            file["public_key"].as_str().unwrap()
        );
    }
}

#[test]
fn what_the_signer_makes_verifies_as_a_header_value_too() {
    let key = VapidKey::generate().unwrap();
    let contact = Contact::parse("mailto:push@example.com").unwrap();
    let now = Timestamp::from_millis(1_453_480_568_999);
    for at in ["https://push.example.net", "http://127.0.0.1:8090"] {
        let value: HeaderValue = Signer::new()
            .authorization(&key, &origin(at), &contact, now)
            .unwrap();
        let verified = vapid::verify(&value, &origin(at), now).unwrap();
        assert_eq!(verified.public_key(), key.public_key());
        assert_eq!(verified.subject(), Some(contact.as_str()));
        assert_eq!(verified.expires(), Timestamp::from_secs(EXP));
    }
}

#[test]
fn any_changed_character_of_the_token_is_detected() {
    let (header, origin) = example();
    let now = Timestamp::from_secs(EXP);
    let token = header.find("t=").unwrap() + 2..header.find(",k=").unwrap();
    for at in token {
        let mut changed = header.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        assert!(vapid::verify(&changed, &origin, now).is_err(), "{at}");
    }
}

#[test]
fn a_token_by_another_key_is_refused() {
    let (header, _) = example();
    let (token, _) = header.split_once(",k=").unwrap();
    let header = format!("{token}, k={}", Forger::new().public_key);
    assert_eq!(kind(&header), VapidErrorKind::BadSignature);
}

#[test]
fn a_signature_is_64_octets_and_never_der() {
    let forger = Forger::new();
    let good = forger.claims(&json!({"aud": "https://push.example.net", "exp": EXP}));
    let (input, rest) = good.rsplit_once('.').unwrap();
    let (signature, key) = rest.split_once(", ").unwrap();
    let octets = Base64UrlUnpadded::decode_vec(signature).unwrap();
    let der = Signature::from_slice(&octets).unwrap().to_der();
    for signature in [
        der.as_bytes(),
        &octets[..63],
        &[&octets[..], &[0]].concat(),
        &[],
        &[0; 64],
    ] {
        let header = format!("{input}.{}, {key}", base64url(signature));
        assert_eq!(kind(&header), VapidErrorKind::BadSignature);
    }
    let header = format!("{input}.{signature}=, {key}");
    assert_eq!(kind(&header), VapidErrorKind::InvalidToken);
}

#[test]
fn an_audience_may_be_a_list_and_exp_a_fraction() {
    let forger = Forger::new();
    for claims in [
        json!({"aud": ["https://a.example", "https://push.example.net"], "exp": EXP}),
        json!({"aud": "https://push.example.net", "exp": EXP as f64 + 0.5, "iat": 1, "x": {"y": []}}),
    ] {
        let now = Timestamp::from_secs(EXP) - Duration::from_millis(1);
        let header = forger.claims(&claims);
        let verified = vapid::verify(&header, &origin("https://push.example.net"), now).unwrap();
        assert_eq!(verified.subject(), None);
    }
}

#[test]
fn claims_of_the_wrong_kind_are_refused() {
    let forger = Forger::new();
    let aud = "https://push.example.net";
    for claims in [
        json!({"aud": aud}),
        json!({"exp": EXP}),
        json!({"aud": aud, "exp": EXP.to_string()}),
        json!({"aud": aud, "exp": null}),
        json!({"aud": null, "exp": EXP}),
        json!({"aud": [aud, 1], "exp": EXP}),
        json!({"aud": {"https://push.example.net": true}, "exp": EXP}),
        json!({"aud": aud, "exp": EXP, "sub": null}),
        json!({"aud": aud, "exp": EXP, "sub": 7}),
        json!([aud, EXP]),
        json!("text"),
    ] {
        // A JSON array is refused like any other non-object.
        assert_eq!(
            kind(&forger.claims(&claims)),
            VapidErrorKind::InvalidToken,
            "{claims}"
        );
    }
    for (claims, expected) in [
        (
            json!({"aud": [], "exp": EXP}),
            VapidErrorKind::WrongAudience,
        ),
        (
            json!({"aud": format!("{aud}/"), "exp": EXP}),
            VapidErrorKind::WrongAudience,
        ),
        (json!({"aud": aud, "exp": -1}), VapidErrorKind::Expired),
        (json!({"aud": aud, "exp": -1e300}), VapidErrorKind::Expired),
        (
            json!({"aud": aud, "exp": 1e300}),
            VapidErrorKind::ExpiresTooLate,
        ),
        (
            json!({"aud": aud, "exp": u64::MAX}),
            VapidErrorKind::ExpiresTooLate,
        ),
        (
            json!({"aud": aud, "exp": i64::MAX}),
            VapidErrorKind::ExpiresTooLate,
        ),
    ] {
        assert_eq!(kind(&forger.claims(&claims)), expected, "{claims}");
    }
}

#[test]
fn headers_that_are_not_es256_are_refused() {
    let forger = Forger::new();
    let claims = json!({"aud": "https://push.example.net", "exp": EXP}).to_string();
    for header in [
        r#"{"typ":"JWT","alg":"none"}"#,
        r#"{"typ":"JWT","alg":"HS256"}"#,
        r#"{"typ":"JWT","alg":"es256"}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"typ":"JOSE","alg":"ES256"}"#,
        r#"{"alg":"ES256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"ES256","crit":null}"#,
        r#"{"alg":"ES256","crit":[]}"#,
        r#"{"alg":"ES256","alg":"ES256"}"#,
        "[]",
        "",
    ] {
        let header_value = forger.authorization(header, &claims);
        assert_eq!(
            kind(&header_value),
            VapidErrorKind::InvalidToken,
            "{header}"
        );
    }
    for header in [
        r#"{"alg":"ES256"}"#,
        r#"{"alg":"ES256","typ":"jwt","kid":"1"}"#,
    ] {
        let now = Timestamp::from_secs(EXP - 1);
        let header = forger.authorization(header, &claims);
        assert!(vapid::verify(&header, &origin("https://push.example.net"), now).is_ok());
    }
}

#[test]
fn malformed_credentials_have_different_errors() {
    let forger = Forger::new();
    let claims = json!({"aud": "https://push.example.net", "exp": EXP});
    let token = forger.token(r#"{"typ":"JWT","alg":"ES256"}"#, &claims.to_string());
    let k = &forger.public_key;
    for (header, expected) in [
        (String::new(), VapidErrorKind::NoCredentials),
        (format!("WebPush {token}"), VapidErrorKind::NoCredentials),
        (
            format!("vapid t={token}"),
            VapidErrorKind::InvalidCredentials,
        ),
        (format!("vapid k={k}"), VapidErrorKind::InvalidCredentials),
        (
            format!("vapid t={token}, k={k}, k={k}"),
            VapidErrorKind::InvalidCredentials,
        ),
        (
            format!("vapid t={token}, k={k}="),
            VapidErrorKind::InvalidPublicKey,
        ),
        (
            format!("vapid t={token}, k={}", &k[..86]),
            VapidErrorKind::InvalidPublicKey,
        ),
        (
            format!("vapid t={token}, k=B{}", "A".repeat(86)),
            VapidErrorKind::InvalidPublicKey,
        ),
        (format!("vapid t=a, k={k}"), VapidErrorKind::InvalidToken),
        (format!("vapid t=.., k={k}"), VapidErrorKind::InvalidToken),
        (
            format!("vapid t={token}.a, k={k}"),
            VapidErrorKind::InvalidToken,
        ),
    ] {
        assert_eq!(kind(&header), expected, "{header}");
    }
}
