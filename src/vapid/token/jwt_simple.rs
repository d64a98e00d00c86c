//! The `jwt-simple` crate.

use jwt_simple::algorithms::{ECDSAP256KeyPairLike as _, ES256KeyPair};
use jwt_simple::claims::JWTClaims;

use super::Claims;
use crate::vapid::{VapidError, VapidErrorKind, VapidKey};

/// ECDSA by `p256` below: RFC 6979 with added randomness.
pub(super) fn sign(key: &VapidKey, claims: &Claims<'_>) -> Result<String, VapidError> {
    // `Claims::create` would add `iat` and `nbf` from a clock of its own, and `JWTClaims`' own members are
    // written in another order and end in 2106.
    let claims = JWTClaims {
        issued_at: None,
        expires_at: None,
        invalid_before: None,
        issuer: None,
        subject: None,
        audiences: None,
        jwt_id: None,
        nonce: None,
        custom: claims,
    };
    ES256KeyPair::from_bytes(key.secret_bytes().as_slice())
        .and_then(|pair| pair.sign(claims))
        .map_err(|source| VapidError::with_source(VapidErrorKind::Signing, source))
}
