//! AWS-LC: randomized ECDSA.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

use super::{Claims, jws};
use crate::vapid::{VapidError, VapidErrorKind, VapidKey};

pub(super) fn sign(key: &VapidKey, claims: &Claims<'_>) -> Result<String, VapidError> {
    let pair = EcdsaKeyPair::from_private_key_and_public_key(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        key.secret_bytes().as_slice(),
        key.public_key().as_bytes(),
    )
    .map_err(|source| VapidError::with_source(VapidErrorKind::Signing, source))?;
    jws(claims, |input| pair.sign(&SystemRandom::new(), input))
}
