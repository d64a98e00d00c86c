//! PKCS#8 (RFC 5208, RFC 5958) and SEC1 (RFC 5915) in DER.

use p256::elliptic_curve::ALGORITHM_OID;
use p256::pkcs8::der::asn1::OctetStringRef;
use p256::pkcs8::der::{self, Decode as _, Reader, SliceReader, TagMode, TagNumber};
use p256::pkcs8::spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};
use p256::pkcs8::{AssociatedOid as _, ObjectIdentifier, PrivateKeyInfoRef};
use p256::{NistP256, SecretKey};
use zeroize::Zeroizing;

use super::VapidKey;
use crate::vapid::{VapidError, VapidErrorKind, VapidPublicKey};

impl VapidKey {
    /// Takes PKCS#8 or SEC1.
    ///
    /// # Errors
    ///
    /// As [`from_pkcs8_der`](Self::from_pkcs8_der) and [`from_sec1_der`](Self::from_sec1_der).
    pub(super) fn from_der(der: &[u8]) -> Result<Self, VapidError> {
        // Both are sequences, but only PKCS#8 goes on with a version and an algorithm.
        if PrivateKeyInfoRef::try_from(der).is_ok() {
            return Self::from_pkcs8_der(der);
        }
        Self::from_sec1_der(der).map_err(|error| match what_else(der) {
            Some(kind) => kind.into(),
            None => error,
        })
    }

    /// Takes PKCS#8 in, with or without its public key.
    ///
    /// # Errors
    ///
    /// [`NotP256`](VapidErrorKind::NotP256) for another algorithm or curve;
    /// [`InvalidPrivateKey`](VapidErrorKind::InvalidPrivateKey) for anything else, and a public key
    /// inside that is not this key's;
    /// [`KeyPairMismatch`](VapidErrorKind::KeyPairMismatch) or
    /// [`InvalidPublicKey`](VapidErrorKind::InvalidPublicKey) for one at the end (RFC 5958).
    pub(super) fn from_pkcs8_der(der: &[u8]) -> Result<Self, VapidError> {
        let invalid = |source| VapidError::with_source(VapidErrorKind::InvalidPrivateKey, source);
        let info = PrivateKeyInfoRef::try_from(der).map_err(invalid)?;
        if is_other_algorithm(&info.algorithm) {
            return Err(VapidErrorKind::NotP256.into());
        }
        let public_key = info.public_key;
        let key = Self::from_secret(SecretKey::try_from(info).map_err(invalid)?)?;
        match public_key {
            None => Ok(key),
            Some(public_key) => key.stated(&VapidPublicKey::from_bytes(public_key.raw_bytes())?),
        }
    }

    /// Takes a SEC1 `ECPrivateKey` in, with or without its parameters and public key.
    ///
    /// # Errors
    ///
    /// [`NotP256`](VapidErrorKind::NotP256) for another curve;
    /// [`InvalidPrivateKey`](VapidErrorKind::InvalidPrivateKey) for anything else, and a public key
    /// inside that is not this key's.
    pub(super) fn from_sec1_der(der: &[u8]) -> Result<Self, VapidError> {
        let secret = SecretKey::from_sec1_der(der).map_err(|source| {
            match named_curve(der).is_ok_and(|curve| curve.is_some_and(|oid| oid != NistP256::OID))
            {
                true => VapidErrorKind::NotP256.into(),
                false => VapidError::with_source(VapidErrorKind::InvalidPrivateKey, source),
            }
        })?;
        Self::from_secret(secret)
    }

    /// PKCS#8 with the public key inside, as OpenSSL writes it: 138 octets.
    pub(super) fn secret_to_pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        concat(&[
            PKCS8_HEAD,
            self.secret_bytes().as_slice(),
            PUBLIC_HEAD,
            self.public_key.as_bytes(),
        ])
    }
}

/// RSA, Ed25519, or a curve that is named and is another one.
fn is_other_algorithm(algorithm: &AlgorithmIdentifierRef<'_>) -> bool {
    let curve = algorithm.parameters_oid();
    algorithm.oid != ALGORITHM_OID || curve.is_ok_and(|curve| curve != NistP256::OID)
}

/// The curve that SEC1 names, if it names one (RFC 5915 section 3).
fn named_curve(sec1: &[u8]) -> der::Result<Option<ObjectIdentifier>> {
    SliceReader::new(sec1)?.sequence(|reader| {
        u8::decode(reader)?;
        <&OctetStringRef>::decode(reader)?;
        let curve = reader.context_specific(TagNumber(0), TagMode::Explicit)?;
        // The public key.
        reader.read_slice(reader.remaining_len())?;
        Ok(curve)
    })
}

/// What octets are that are no private key, where that is known: the octets looked for could as well be part of a
/// key, so this is asked last.
fn what_else(octets: &[u8]) -> Option<VapidErrorKind> {
    if octets.windows(PBES2.len()).any(|at| at == PBES2) {
        return Some(VapidErrorKind::PasswordProtected);
    }
    let is_public = SubjectPublicKeyInfoRef::try_from(octets).is_ok()
        || VapidPublicKey::from_bytes(octets).is_ok();
    is_public.then_some(VapidErrorKind::PublicKeyGiven)
}

/// Joins without ever growing, so that no copy of the secret stays behind.
fn concat(parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let len = parts.iter().map(|part| part.len()).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(len));
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

// All lengths are fixed for this curve, so the DER around the numbers is constant.

/// Sequence, version 0, `id-ecPublicKey` with `prime256v1`; octet string, sequence, version 1; octet
/// string of 32.
const PKCS8_HEAD: &[u8] = b"\x30\x81\x87\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\
    \x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x6d\x30\x6b\x02\x01\x01\x04\x20";
/// `[1]` with a bit string of 65 octets.
const PUBLIC_HEAD: &[u8] = b"\xa1\x44\x03\x42\x00";
/// The identifier that every PKCS#8 key under a password begins with (RFC 8018 appendix A.4).
const PBES2: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d";
