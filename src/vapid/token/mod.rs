//! Signed tokens (RFC 8292 section 2).
//!
//! One module per library that can sign. The feature `jwt-simple` is a choice of the application, so it comes
//! first; without it the library that [`p256::fastest`](crate::p256::fastest) picks for ECDH signs too.

#[cfg(feature = "aws-lc-rs")]
mod aws_lc;
#[cfg(feature = "jwt-simple")]
mod jwt_simple;
mod rust_crypto;

use std::time::Duration;

use http::HeaderValue;
use serde::Serialize;

use super::{Contact, VapidError, VapidErrorKind, VapidKey};
use crate::clock::Timestamp;
use crate::encoding::base64url;
use crate::error::BoxError;
use crate::subscription::Origin;

/// The lifetime of a token: half of what RFC 8292 section 2 allows, so that no clock difference makes it longer than
/// 24 hours, and a stolen token expires soon.
pub(super) const TOKEN_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Signs a token for `origin` and returns the `Authorization` value, marked sensitive:
/// `vapid t=TOKEN, k=KEY` (RFC 8292 section 3).
pub(super) fn authorization(
    key: &VapidKey,
    origin: &Origin,
    contact: &Contact,
    now: Timestamp,
) -> Result<HeaderValue, VapidError> {
    authorization_by(SIGN, key, origin, contact, now)
}

fn authorization_by(
    sign: Sign,
    key: &VapidKey,
    origin: &Origin,
    contact: &Contact,
    now: Timestamp,
) -> Result<HeaderValue, VapidError> {
    let expires = now + TOKEN_LIFETIME;
    let claims = Claims {
        aud: origin.as_str(),
        exp: u64::try_from(expires.as_secs()).unwrap_or(0),
        sub: contact.as_str(),
    };
    let token = sign(key, &claims)?;
    let value = format!("vapid t={token}, k={}", key.public_key());
    let mut value = HeaderValue::try_from(value)
        .map_err(|source| VapidError::with_source(VapidErrorKind::Signing, source))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Signs the claims and returns a token.
type Sign = fn(&VapidKey, &Claims<'_>) -> Result<String, VapidError>;

/// The compiled libraries, in the order of preference.
const SIGNERS: &[Sign] = &[
    #[cfg(feature = "jwt-simple")]
    jwt_simple::sign,
    #[cfg(feature = "aws-lc-rs")]
    aws_lc::sign,
    rust_crypto::sign,
];

const SIGN: Sign = SIGNERS[0];

/// The claims, in the order of the example in RFC 8292 section 2.4.
///
/// `exp` is an integer and `aud` one string: Mozilla refuses other spellings.
#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    exp: u64,
    sub: &'a str,
}

/// A JWS in compact serialization (RFC 7515 section 7.1). `sign` returns an ES256 signature: r and s, 32 octets
/// each, never DER (RFC 7518 section 3.4).
fn jws<S: AsRef<[u8]>, E: Into<BoxError>>(
    claims: &Claims<'_>,
    sign: impl FnOnce(&[u8]) -> Result<S, E>,
) -> Result<String, VapidError> {
    let failed = |source| VapidError::with_source(VapidErrorKind::Signing, source);
    let claims = serde_json::to_vec(claims).map_err(|error| failed(error.into()))?;
    let mut token = format!("{}.{}", base64url(HEADER), base64url(&claims));
    let signature = sign(token.as_bytes()).map_err(|error| failed(error.into()))?;
    token.push('.');
    token.push_str(&base64url(signature.as_ref()));
    Ok(token)
}

const HEADER: &[u8] = br#"{"typ":"JWT","alg":"ES256"}"#;

#[cfg(test)]
mod tests;
