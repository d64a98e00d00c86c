//! P-256 in pure Rust.

use p256::ecdh::{EphemeralSecret, SharedSecret as RawSecret};
use p256::elliptic_curve::Generate as _;
use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::{PublicKey, SecretKey};

use super::{Agreement, CryptoError, P256, SharedSecret, UaSecretKey, require_uncompressed};
use crate::secret::SecretBytes;
use crate::subscription::UaPublicKey;

/// The `p256` crate: pure Rust, no C compiler, written to be constant-time, and never audited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the name of a backend, no state")]
pub struct RustCrypto;

impl P256 for RustCrypto {
    fn agree(&self, peer: &UaPublicKey) -> Result<Agreement, CryptoError> {
        let peer = parse(peer.as_bytes())?;
        let pair = EphemeralSecret::try_generate().map_err(|_| CryptoError)?;
        let as_public = pair.public_key().to_sec1_point(false);
        Ok(Agreement::new(
            as_public.as_bytes().try_into().map_err(|_| CryptoError)?,
            shared(&pair.diffie_hellman(&peer))?,
        ))
    }

    fn agree_with(
        &self,
        own: &UaSecretKey,
        as_public: &[u8; 65],
    ) -> Result<SharedSecret, CryptoError> {
        require_uncompressed(as_public)?;
        let peer = parse(as_public)?;
        let own = SecretKey::from_slice(own.secret_bytes()).map_err(|_| CryptoError)?;
        shared(&own.diffie_hellman(&peer))
    }
}

/// Checks that the point is on the curve on the way (RFC 8291 section 7).
fn parse(point: &[u8; 65]) -> Result<PublicKey, CryptoError> {
    PublicKey::from_sec1_bytes(point).map_err(|_| CryptoError)
}

fn shared(secret: &RawSecret) -> Result<SharedSecret, CryptoError> {
    SecretBytes::from_slice(secret.raw_secret_bytes())
        .map(SharedSecret::new)
        .ok_or(CryptoError)
}
