//! Signed tokens (RFC 8292 section 2), by `jwt-simple`.

use std::time::Duration;

use http::HeaderValue;
use jwt_simple::algorithms::ECDSAP256KeyPairLike as _;
use jwt_simple::claims::JWTClaims;
use serde::Serialize;

use super::{Contact, VapidError, VapidErrorKind, VapidKey};
use crate::clock::Timestamp;
use crate::subscription::Origin;

/// How long a token is valid: half of what RFC 8292 section 2 allows, so that no clock difference makes
/// it look longer than 24 hours, and a stolen one ends soon.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Signs a token for `origin` and returns the `Authorization` value, marked sensitive:
/// `vapid t=TOKEN, k=KEY` (RFC 8292 section 3).
///
/// The token is a JWT with `typ` JWT and `alg` ES256 in its header and the claims `aud`, `exp` (now
/// plus [`TOKEN_LIFETIME`]) and `sub`, nothing else. Signing takes a fraction of a millisecond; a
/// [`Signer`](super::Signer) does it once per origin instead of once per message.
///
/// # Errors
///
/// [`Signing`](VapidErrorKind::Signing) if the JWT library fails. No input of these types is known to
/// cause it.
///
/// # Panics
///
/// Panics if the operating system gives no randomness when `jwt-simple` asks for it: for the first token
/// that a thread signs, and again for each 64 KiB of random octets that the thread has used. On Linux that
/// takes a kernel or a sandbox without `getrandom` and without `/dev/urandom`.
pub fn authorization(
    key: &VapidKey,
    origin: &Origin,
    contact: &Contact,
    now: Timestamp,
) -> Result<HeaderValue, VapidError> {
    let token = sign(key, origin, contact, now + TOKEN_LIFETIME)?;
    let value = format!("vapid t={token}, k={}", key.public_key());
    let mut value = HeaderValue::try_from(value)
        .map_err(|source| VapidError::with_source(VapidErrorKind::Signing, source))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The claims, in the order of the example in RFC 8292 section 2.4.
///
/// `exp` is an integer and `aud` one string: Mozilla refuses other spellings. `JWTClaims` would write the
/// same members in another order, and its clock type ends in 2106.
#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    exp: u64,
    sub: &'a str,
}

fn sign(
    key: &VapidKey,
    origin: &Origin,
    contact: &Contact,
    expires: Timestamp,
) -> Result<String, VapidError> {
    let custom = Claims {
        aud: origin.as_str(),
        exp: u64::try_from(expires.as_secs()).unwrap_or(0),
        sub: contact.as_str(),
    };
    // By hand: `Claims::create` would add `iat` and `nbf` from a clock of its own.
    let claims = JWTClaims {
        issued_at: None,
        expires_at: None,
        invalid_before: None,
        issuer: None,
        subject: None,
        audiences: None,
        jwt_id: None,
        nonce: None,
        custom,
    };
    // RFC 6979 with added randomness: not reproducible, and safe should either of the two fail.
    key.signing()
        .sign(claims)
        .map_err(|source| VapidError::with_source(VapidErrorKind::Signing, source))
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::signature::Signer as _;
    use p256::ecdsa::{Signature, SigningKey};

    use super::*;
    use crate::encoding::{base64_any, base64url};

    /// Header and claims of a token, as they were signed.
    fn parts(token: &str) -> Vec<String> {
        let text = |part| String::from_utf8(base64_any(part).unwrap().to_vec()).unwrap();
        token.split('.').take(2).map(text).collect()
    }

    #[test]
    fn the_claims_equal_the_vectors_octet_for_octet() {
        let file = include_str!("../../tests/vectors/vapid_es256_deterministic.json");
        let file: serde_json::Value = serde_json::from_str(file).unwrap();
        let key = VapidKey::parse(file["private_key"].as_str().unwrap()).unwrap();
        assert_eq!(
            key.public_key().to_base64url(),
            file["public_key"].as_str().unwrap()
        );
        let mut compared = 0;
        for case in file["cases"].as_array().unwrap() {
            let claims: serde_json::Value =
                serde_json::from_str(case["jwt_claims_json"].as_str().unwrap()).unwrap();
            // Ours always carry a contact.
            let Some(sub) = claims["sub"].as_str() else {
                continue;
            };
            let token = sign(
                &key,
                &Origin::parse(claims["aud"].as_str().unwrap()).unwrap(),
                &Contact::parse(sub).unwrap(),
                Timestamp::from_secs(claims["exp"].as_i64().unwrap()),
            )
            .unwrap();
            let [ours, theirs] = [&token, case["jwt"].as_str().unwrap()].map(parts);
            assert_eq!(ours[1], theirs[1]);
            // `jwt-simple` writes `alg` first; there is nothing else in it.
            let header = |parts: &[String]| -> serde_json::Value {
                serde_json::from_str(&parts[0]).unwrap()
            };
            assert_eq!(header(&ours), header(&theirs));
            compared += 1;
        }
        assert_eq!(compared, 2);
    }

    #[test]
    fn the_key_reproduces_the_deterministic_signatures() {
        let file = include_str!("../../tests/vectors/vapid_es256_deterministic.json");
        let file: serde_json::Value = serde_json::from_str(file).unwrap();
        let key = VapidKey::parse(file["private_key"].as_str().unwrap()).unwrap();
        let key = SigningKey::from_slice(key.secret_bytes().as_slice()).unwrap();
        for case in file["cases"].as_array().unwrap() {
            let signature: Signature = key.sign(case["signing_input"].as_str().unwrap().as_bytes());
            assert_eq!(
                base64url(&signature.to_bytes()),
                case["signature"].as_str().unwrap()
            );
        }
    }

    #[test]
    fn the_value_is_sensitive() {
        let value = authorization(
            &VapidKey::generate().unwrap(),
            &Origin::parse("https://push.example.net").unwrap(),
            &Contact::parse("mailto:push@example.com").unwrap(),
            Timestamp::from_secs(1_453_480_568),
        )
        .unwrap();
        assert!(value.is_sensitive());
        assert_eq!(format!("{value:?}"), "Sensitive");
    }

    #[test]
    fn the_port_stays_in_the_audience_and_exp_is_twelve_hours_ahead() {
        let value = authorization(
            &VapidKey::generate().unwrap(),
            &Origin::parse("https://push.example.net:8443").unwrap(),
            &Contact::parse("mailto:push@example.com").unwrap(),
            Timestamp::from_millis(1_453_480_568_999),
        )
        .unwrap();
        let token = value.to_str().unwrap().strip_prefix("vapid t=").unwrap();
        assert_eq!(
            parts(token)[1],
            r#"{"aud":"https://push.example.net:8443","exp":1453523768,"sub":"mailto:push@example.com"}"#
        );
    }

    #[test]
    fn a_clock_before_1970_does_not_panic() {
        assert!(
            authorization(
                &VapidKey::generate().unwrap(),
                &Origin::parse("https://push.example.net").unwrap(),
                &Contact::parse("mailto:push@example.com").unwrap(),
                Timestamp::MIN,
            )
            .is_ok()
        );
    }
}
