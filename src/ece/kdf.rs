//! HKDF with SHA-256 (RFC 5869), for output sizes that are known at compile time.
//!
//! What is held here is wiped: the pseudorandom key, the state of HMAC, the output. `hkdf` and `hmac` leave the last block
//! and the padded key in their stack frames, and so would HMAC written here: `sha2` copies its results too.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize as _, Zeroizing};

/// HKDF-Extract; the pseudorandom key stays inside, in the state of HMAC, which `sha2` wipes.
pub(crate) fn extract(salt: &[u8], ikm: &[u8]) -> Hkdf<Sha256> {
    let (mut prk, hkdf) = Hkdf::extract(Some(salt), ikm);
    prk.as_mut_slice().zeroize();
    hkdf
}

/// HKDF-Expand; the parts of `info` count as one.
pub(crate) fn expand<const N: usize>(prk: &Hkdf<Sha256>, info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 255 * 32, "RFC 5869 section 2.3") };
    let mut okm = Zeroizing::new([0; N]);
    #[expect(
        clippy::expect_used,
        reason = "only N can make it fail, and that is checked at compile time"
    )]
    prk.expand_multi_info(info, okm.as_mut_slice())
        .expect("N is at most 255 blocks");
    okm
}
