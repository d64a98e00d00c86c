//! Fixed-size secret bytes: wiped on drop, compared in constant time, never printed.
//!
//! # What is wiped
//!
//! "Wiped on drop" means the octets that a value holds, at the place where it is dropped. Of the types of other crates that
//! stand behind it, the states of AES-GCM and SHA-256 and the numbers of `p256` are wiped by those crates. Not
//! wiped are:
//!
//! - copies that the compiler makes when a value moves, and what registers and stack frames keep: the padded key and
//!   the last block of HMAC and HKDF, the message schedule of SHA-256, intermediate results of curve arithmetic;
//! - what the application or a driver holds: environment variables, strings that a key was parsed from, rows on
//!   their way to or from a database;
//! - memory that the operating system swapped out or wrote into a core dump.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// `N` secret octets.
///
/// There is no derived `Debug`, `PartialEq` or serialization: comparing takes the same time whatever
/// the contents, and nothing prints them.
#[derive(Clone)]
pub struct SecretBytes<const N: usize>([u8; N]);

impl<const N: usize> SecretBytes<N> {
    /// Takes `N` octets in.
    #[must_use]
    pub const fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// Takes a slice in, when it has exactly `N` octets.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The octets themselves: keep them out of logs, errors and longer-lived buffers.
    #[must_use]
    pub const fn secret_bytes(&self) -> &[u8; N] {
        &self.0
    }
}

/// Only the octets in place: the [module](self) says what that leaves out.
impl<const N: usize> Drop for SecretBytes<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<const N: usize> ZeroizeOnDrop for SecretBytes<N> {}

impl<const N: usize> PartialEq for SecretBytes<N> {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl<const N: usize> Eq for SecretBytes<N> {}

impl<const N: usize> fmt::Debug for SecretBytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes<{N}>(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_size_only() {
        assert_eq!(
            format!("{:?}", SecretBytes::new([7; 4])),
            "SecretBytes<4>(..)"
        );
    }

    /// Compiles only where the crates behind our types wipe theirs: it is a feature of most.
    #[test]
    fn what_is_said_to_be_wiped_is_wiped_by_its_crate() {
        fn is_wiped<T: ZeroizeOnDrop>() {}
        is_wiped::<SecretBytes<32>>();
        is_wiped::<sha2::Sha256>();
        is_wiped::<aes_gcm::Aes128Gcm>();
        is_wiped::<aes_gcm::Aes256Gcm>();
        is_wiped::<p256::SecretKey>();
        // `jwt-simple` and the code without it both sign with this type.
        #[cfg(feature = "vapid")]
        is_wiped::<p256::ecdsa::SigningKey>();
    }

    #[test]
    fn a_slice_of_another_length_is_refused() {
        assert!(SecretBytes::<4>::from_slice(&[1, 2, 3]).is_none());
        assert!(
            SecretBytes::<4>::from_slice(&[1, 2, 3, 4]) == Some(SecretBytes::new([1, 2, 3, 4]))
        );
    }

    #[test]
    fn equal_means_every_octet() {
        let secret = SecretBytes::new([7; 16]);
        assert!(secret == SecretBytes::new([7; 16]));
        for at in 0..16 {
            for bit in 0..8 {
                let mut other = [7; 16];
                other[at] ^= 1 << bit;
                assert!(secret != SecretBytes::new(other), "octet {at}, bit {bit}");
            }
        }
    }
}
