//! The `p256` crate: deterministic ECDSA (RFC 6979), which needs no randomness.

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};

use super::{Claims, jws};
use crate::vapid::{VapidError, VapidKey};

pub(super) fn sign(key: &VapidKey, claims: &Claims<'_>) -> Result<String, VapidError> {
    let key = SigningKey::from(key.secret());
    jws(claims, |input| {
        let signature: Signature = key.try_sign(input)?;
        Ok::<_, p256::ecdsa::Error>(signature.to_bytes())
    })
}
