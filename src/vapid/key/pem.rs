//! PEM (RFC 7468): one private key among other blocks.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use base64ct::{Base64, Encoding as _};
use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::pkcs8::DecodePublicKey as _;
use zeroize::Zeroizing;

use super::{VapidKey, base64_lines};
use crate::vapid::{VapidError, VapidErrorKind, VapidPublicKey};

impl VapidKey {
    /// Takes PEM in that holds exactly one private key, PKCS#8 or SEC1.
    ///
    /// A public key beside it must be its own; other blocks, such as the `EC PARAMETERS` that
    /// `openssl ecparam -genkey` prints, are passed over. Line lengths do not matter, nor whether line
    /// breaks are breaks, blanks, or `\n` spelled out.
    ///
    /// # Errors
    ///
    /// [`InvalidPrivateKey`](VapidErrorKind::InvalidPrivateKey),
    /// [`NotP256`](VapidErrorKind::NotP256), [`PublicKeyGiven`](VapidErrorKind::PublicKeyGiven),
    /// [`PasswordProtected`](VapidErrorKind::PasswordProtected),
    /// [`InvalidPublicKey`](VapidErrorKind::InvalidPublicKey) or
    /// [`KeyPairMismatch`](VapidErrorKind::KeyPairMismatch).
    pub(super) fn from_pem(text: &str) -> Result<Self, VapidError> {
        let invalid = || VapidError::from(VapidErrorKind::InvalidPrivateKey);
        let mut key: Option<Self> = None;
        let mut public_key = None;
        let mut rest = text;
        while let Some((_, after)) = rest.split_once(BEGIN) {
            let block = Block::read(after).ok_or_else(invalid)?;
            rest = block.rest;
            let found = match block.label {
                PKCS8 => Self::from_pkcs8_der(&block.octets()?)?,
                SEC1 => Self::from_sec1_der(&block.octets()?)?,
                "ENCRYPTED PRIVATE KEY" => return Err(VapidErrorKind::PasswordProtected.into()),
                "RSA PRIVATE KEY" | "DSA PRIVATE KEY" => return Err(VapidErrorKind::NotP256.into()),
                "PUBLIC KEY" => {
                    public_key = Some(spki(&block.octets()?)?);
                    continue;
                }
                _ => continue,
            };
            // Two keys would leave open which one is meant.
            if key.replace(found).is_some() {
                return Err(invalid());
            }
        }
        match (key, public_key) {
            (Some(key), None) => Ok(key),
            (Some(key), Some(public_key)) => key.stated(&public_key),
            (None, Some(_)) => Err(VapidErrorKind::PublicKeyGiven.into()),
            (None, None) => Err(invalid()),
        }
    }

    /// PKCS#8 in PEM, lines of 64 characters ended by `\n`.
    #[must_use]
    pub fn secret_to_pkcs8_pem(&self) -> Zeroizing<String> {
        armour(&self.secret_to_pkcs8_der())
    }
}

const PKCS8: &str = "PRIVATE KEY";
const SEC1: &str = "EC PRIVATE KEY";
/// The start of each block.
pub(super) const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

struct Block<'a> {
    label: &'a str,
    body: &'a str,
    rest: &'a str,
}

impl<'a> Block<'a> {
    /// Reads a block from behind its `-----BEGIN `.
    fn read(text: &'a str) -> Option<Self> {
        let (label, text) = text.split_once(DASHES)?;
        let (body, text) = text.split_once(END)?;
        let (end, rest) = text.split_once(DASHES)?;
        (label == end).then_some(Self { label, body, rest })
    }

    fn octets(&self) -> Result<Zeroizing<Vec<u8>>, VapidError> {
        // The old way to protect a key by a password: header fields before the base64, which may spell that word too, but has no colon.
        if self.body.contains(':') && self.body.contains("ENCRYPTED") {
            return Err(VapidErrorKind::PasswordProtected.into());
        }
        base64_lines(self.body).ok_or_else(|| VapidErrorKind::InvalidPrivateKey.into())
    }
}

fn spki(der: &[u8]) -> Result<VapidPublicKey, VapidError> {
    let point = p256::PublicKey::from_public_key_der(der)
        .map_err(|source| VapidError::with_source(VapidErrorKind::InvalidPublicKey, source))?;
    VapidPublicKey::from_bytes(point.to_sec1_point(false).as_bytes())
}

fn armour(der: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(Base64::encode_string(der));
    // Large enough for any key of this crate, so that it never grows and leaves a copy behind.
    let mut pem = Zeroizing::new(String::with_capacity(512));
    pem.push_str(&format!("{BEGIN}{PKCS8}{DASHES}\n"));
    let mut rest = base64.as_str();
    while let Some((line, after)) = rest.split_at_checked(64) {
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    if !rest.is_empty() {
        pem.push_str(rest);
        pem.push('\n');
    }
    pem.push_str(&format!("{END}{PKCS8}{DASHES}\n"));
    pem
}
