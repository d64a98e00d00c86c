//! P-256 key agreement, the one expensive step of a message (RFC 8291 section 3.1).
//!
//! The backend is an argument, never a global: [`RustCrypto`] is always there, [`AwsLc`] with the
//! feature `aws-lc-rs`, and [`fastest`] picks. Their results are the same, only the time differs.

#[cfg(feature = "aws-lc-rs")]
mod aws_lc;
mod rust_crypto;
mod ua_secret_key;

#[cfg(feature = "aws-lc-rs")]
pub use aws_lc::AwsLc;
pub use rust_crypto::RustCrypto;
pub use ua_secret_key::UaSecretKey;

use std::fmt;
use std::sync::Arc;

use crate::secret::SecretBytes;
use crate::subscription::UaPublicKey;

/// Elliptic curve Diffie-Hellman on P-256.
///
/// # Examples
///
/// ```
/// use tower_web_push::p256::{self, P256, UaSecretKey};
///
/// let user_agent = UaSecretKey::random()?;
/// let agreement = p256::fastest().agree(user_agent.public())?;
/// let same = p256::fastest().agree_with(&user_agent, agreement.as_public())?;
/// assert_eq!(&same, agreement.shared_secret());
/// # Ok::<(), p256::CryptoError>(())
/// ```
pub trait P256: fmt::Debug + Send + Sync + 'static {
    /// The application server's side: makes a key pair, agrees with `peer` and forgets the secret key.
    ///
    /// Every call makes a fresh pair (RFC 8291 section 3.1): a pair used twice would link the messages
    /// and give up their separation.
    ///
    /// # Errors
    ///
    /// [`CryptoError`] when there is no randomness or the library fails; never because of `peer`.
    fn agree(&self, peer: &UaPublicKey) -> Result<Agreement, CryptoError>;

    /// The user agent's side: agrees with the public key that came in a message.
    ///
    /// # Errors
    ///
    /// [`CryptoError`] when `as_public` is not the uncompressed form (first octet `0x04`) of a point on
    /// the curve. An implementation must check that (RFC 8291 section 7): a point of another curve
    /// would leak the user agent's secret key.
    fn agree_with(
        &self,
        own: &UaSecretKey,
        as_public: &[u8; 65],
    ) -> Result<SharedSecret, CryptoError>;
}

#[deny(clippy::missing_trait_methods)]
impl<P: P256 + ?Sized> P256 for Arc<P> {
    fn agree(&self, peer: &UaPublicKey) -> Result<Agreement, CryptoError> {
        (**self).agree(peer)
    }

    fn agree_with(
        &self,
        own: &UaSecretKey,
        as_public: &[u8; 65],
    ) -> Result<SharedSecret, CryptoError> {
        (**self).agree_with(own, as_public)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<P: P256 + ?Sized> P256 for &'static P {
    fn agree(&self, peer: &UaPublicKey) -> Result<Agreement, CryptoError> {
        (**self).agree(peer)
    }

    fn agree_with(
        &self,
        own: &UaSecretKey,
        as_public: &[u8; 65],
    ) -> Result<SharedSecret, CryptoError> {
        (**self).agree_with(own, as_public)
    }
}

/// The fastest backend compiled in.
#[must_use]
pub fn fastest() -> &'static dyn P256 {
    #[cfg(feature = "aws-lc-rs")]
    {
        &AwsLc
    }
    #[cfg(not(feature = "aws-lc-rs"))]
    {
        &RustCrypto
    }
}

/// What the application server has after agreeing: its public key, which goes into the message, and
/// the secret that it shares with the user agent.
#[derive(Debug)]
pub struct Agreement {
    as_public: [u8; 65],
    shared_secret: SharedSecret,
}

impl Agreement {
    /// An agreement, as a backend hands it out: the fresh pair's public key, uncompressed, and the
    /// shared secret.
    #[must_use]
    pub const fn new(as_public: [u8; 65], shared_secret: SharedSecret) -> Self {
        Self {
            as_public,
            shared_secret,
        }
    }

    /// The application server's public key, uncompressed.
    #[must_use]
    pub const fn as_public(&self) -> &[u8; 65] {
        &self.as_public
    }

    /// The secret both sides compute.
    #[must_use]
    pub const fn shared_secret(&self) -> &SharedSecret {
        &self.shared_secret
    }
}

/// The x-coordinate of the agreed point, 32 octets: `ecdh_secret` in RFC 8291 section 3.4.
///
/// Wiped on drop, compared in constant time, never printed. Not uniformly random: input for a key
/// derivation, never a key itself.
#[derive(Debug, PartialEq, Eq)]
pub struct SharedSecret(SecretBytes<32>);

impl SharedSecret {
    /// Takes the x-coordinate in, big-endian.
    #[must_use]
    pub const fn new(x: SecretBytes<32>) -> Self {
        Self(x)
    }

    /// The x-coordinate, big-endian.
    #[must_use]
    pub const fn secret_bytes(&self) -> &[u8; 32] {
        self.0.secret_bytes()
    }
}

/// Key agreement failed.
///
/// It says nothing more: what a cryptographic library could add helps an attacker more than a caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CryptoError;

impl CryptoError {
    /// The error, for backends outside this crate.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl fmt::Display for CryptoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P-256 key agreement failed")
    }
}

impl std::error::Error for CryptoError {}

/// Refuses compressed and hybrid forms, which both libraries would take (RFC 8291 section 4 knows
/// the uncompressed form only).
fn require_uncompressed(point: &[u8; 65]) -> Result<(), CryptoError> {
    match point {
        [0x04, ..] => Ok(()),
        _ => Err(CryptoError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trait_is_dyn_compatible_and_forwards() {
        let shared: Arc<dyn P256> = Arc::new(fastest());
        let own = UaSecretKey::random().unwrap();
        let agreement = shared.agree(own.public()).unwrap();
        let same = RustCrypto.agree_with(&own, agreement.as_public()).unwrap();
        assert_eq!(&same, agreement.shared_secret());
    }

    #[test]
    fn nothing_secret_is_printed() {
        let own = UaSecretKey::from_bytes(&[0x41; 32]).unwrap();
        let agreement = fastest().agree(own.public()).unwrap();
        assert_eq!(format!("{own:?}"), "UaSecretKey(..)");
        assert_eq!(
            format!("{:?}", agreement.shared_secret()),
            "SharedSecret(SecretBytes<32>(..))"
        );
    }
}
