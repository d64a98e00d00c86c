//! P-256 by AWS-LC: about five times as fast.

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};

use super::{Agreement, CryptoError, P256, SharedSecret, UaSecretKey, require_uncompressed};
use crate::secret::SecretBytes;
use crate::subscription::UaPublicKey;

/// The `aws-lc-rs` crate: C and assembly, written to be constant-time; the library that rustls uses for TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the name of a backend, no state")]
pub struct AwsLc;

impl P256 for AwsLc {
    fn agree(&self, peer: &UaPublicKey) -> Result<Agreement, CryptoError> {
        let pair = PrivateKey::generate(&ECDH_P256).map_err(|_| CryptoError)?;
        let as_public = pair.compute_public_key().map_err(|_| CryptoError)?;
        Ok(Agreement::new(
            as_public.as_ref().try_into().map_err(|_| CryptoError)?,
            shared(&pair, peer.as_bytes())?,
        ))
    }

    fn agree_with(
        &self,
        own: &UaSecretKey,
        as_public: &[u8; 65],
    ) -> Result<SharedSecret, CryptoError> {
        require_uncompressed(as_public)?;
        let own = PrivateKey::from_private_key(&ECDH_P256, own.secret_bytes())
            .map_err(|_| CryptoError)?;
        shared(&own, as_public)
    }
}

/// Checks that the point is on the curve on the way (RFC 8291 section 7).
fn shared(own: &PrivateKey, peer: &[u8; 65]) -> Result<SharedSecret, CryptoError> {
    let peer = UnparsedPublicKey::new(&ECDH_P256, peer);
    agree(own, peer, CryptoError, |x| {
        SecretBytes::from_slice(x)
            .map(SharedSecret::new)
            .ok_or(CryptoError)
    })
}
