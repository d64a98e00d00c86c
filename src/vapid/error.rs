//! Errors of keys, contacts and tokens.

use std::fmt;

use crate::error::error_struct;

error_struct! {
    /// The reason why a key, a contact or a token was refused.
    ///
    /// Neither `Display` nor `Debug` repeats the input: most of it is secret.
    VapidError, VapidErrorKind
}

/// The kind of a [`VapidError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VapidErrorKind {
    /// No known form of a private key, or a number outside 1 to n - 1.
    InvalidPrivateKey,
    /// A private key of another kind: another curve, RSA, Ed25519. VAPID keys are on P-256.
    NotP256,
    /// A public key where a private one is needed.
    PublicKeyGiven,
    /// The private key is protected by a password: decrypt it first.
    PasswordProtected,
    /// Not 65 octets of base64 holding an uncompressed point on P-256.
    InvalidPublicKey,
    /// The public key that came with the private key is not its own.
    KeyPairMismatch,
    /// Not a key id of 22 base64url characters.
    InvalidKeyId,
    /// The contact does not begin with `mailto:` or `https:`.
    ContactScheme,
    /// The contact is not a plain mail address or https URL.
    InvalidContact,
    /// The contact's host is a local name or a literal address, which push services refuse.
    LocalContact,
    /// The operating system has no randomness.
    NoRandomness,
    /// The cryptographic library could not sign the token. If randomness is missing, `jwt-simple` panics
    /// instead: see [`Signer::authorization`](super::Signer::authorization).
    Signing,
    /// There are no credentials of the `vapid` scheme (RFC 8292 section 4.2: 401).
    NoCredentials,
    /// `t` or `k` is missing, given twice or unreadable (RFC 8292 section 4.2: 403).
    InvalidCredentials,
    /// The token is not an ES256 JWT with a numeric `exp`, an `aud` and, if any, a textual `sub` (403).
    InvalidToken,
    /// The token's signature is not by `k` (403).
    BadSignature,
    /// The token has expired (403).
    Expired,
    /// The token expires more than 24 hours from now (403).
    ExpiresTooLate,
    /// The token is for another origin (403).
    WrongAudience,
    /// A key-encryption key is not 32 octets of base64 or hex.
    InvalidEncryptionKey,
    /// A key-encryption key is not random: all octets alike, a short pattern repeated, or a sequence.
    WeakEncryptionKey,
    /// A stored key was encrypted under a key-encryption key that is not configured.
    UnknownEncryptionKey,
    /// A stored key is in the clear although key-encryption keys are set: it was stored before they were set, or by
    /// an attacker. See [`seal_clear_keys`](super::KeyEncryptionKeys::seal_clear_keys).
    ClearKey,
    /// A stored key is malformed, was altered, or belongs to another public key.
    UnreadableKey,
    /// The store holds keys, and none of them is active.
    NoActiveKey,
    /// The key store failed; the cause is a `StoreError`.
    Store,
}

impl VapidErrorKind {
    /// Returns the stable word that HTTP responses and logs carry as `code`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::InvalidPrivateKey => "invalid_vapid_private_key",
            Self::NotP256 => "vapid_key_not_p256",
            Self::PublicKeyGiven => "vapid_public_key_given",
            Self::PasswordProtected => "vapid_key_password_protected",
            Self::InvalidPublicKey => "invalid_vapid_public_key",
            Self::KeyPairMismatch => "vapid_key_pair_mismatch",
            Self::InvalidKeyId => "invalid_vapid_key_id",
            Self::ContactScheme => "contact_scheme",
            Self::InvalidContact => "invalid_contact",
            Self::LocalContact => "local_contact",
            Self::NoRandomness => "no_randomness",
            Self::Signing => "vapid_signing",
            Self::NoCredentials => "no_vapid_credentials",
            Self::InvalidCredentials => "invalid_vapid_credentials",
            Self::InvalidToken => "invalid_vapid_token",
            Self::BadSignature => "bad_vapid_signature",
            Self::Expired => "vapid_token_expired",
            Self::ExpiresTooLate => "vapid_token_expires_too_late",
            Self::WrongAudience => "wrong_vapid_audience",
            Self::InvalidEncryptionKey => "invalid_key_encryption_key",
            Self::WeakEncryptionKey => "weak_key_encryption_key",
            Self::UnknownEncryptionKey => "unknown_key_encryption_key",
            Self::ClearKey => "clear_vapid_key",
            Self::UnreadableKey => "unreadable_vapid_key",
            Self::NoActiveKey => "no_active_vapid_key",
            Self::Store => "vapid_key_store",
        }
    }
}

impl fmt::Display for VapidErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidPrivateKey => {
                "the private key is damaged, or in no known form: PEM, DER, JWK, 32 octets, or base64 or hex of one of them"
            }
            Self::NotP256 => {
                "the private key is of another kind than VAPID keys are: EC on P-256 (prime256v1)"
            }
            Self::PublicKeyGiven => "this is a public key: the private key of the pair is needed",
            Self::PasswordProtected => {
                "the private key is protected by a password: decrypt it first (openssl pkcs8 -in FILE)"
            }
            Self::InvalidPublicKey => {
                "the public key is not an uncompressed P-256 point of 65 octets in base64"
            }
            Self::KeyPairMismatch => "the public key does not belong to the private key",
            Self::InvalidKeyId => "the key id is not 22 base64url characters",
            Self::ContactScheme => "the contact does not begin with mailto: or https:",
            Self::InvalidContact => "the contact is not a plain mail address or https URL",
            Self::LocalContact => "the contact's host is a local name or a literal address",
            Self::NoRandomness => "the operating system has no random numbers",
            Self::Signing => "the token could not be signed",
            Self::NoCredentials => "there are no vapid credentials",
            Self::InvalidCredentials => "the vapid credentials lack a readable t or k",
            Self::InvalidToken => "the token is not an ES256 JWT with the claims of VAPID",
            Self::BadSignature => "the token is not signed by k",
            Self::Expired => "the token has expired",
            Self::ExpiresTooLate => "the token expires more than 24 hours from now",
            Self::WrongAudience => "the token is for another origin",
            Self::InvalidEncryptionKey => "the key-encryption key is not 32 octets in base64 or hex",
            Self::WeakEncryptionKey => {
                "the key-encryption key is not random: make one with `openssl rand -base64 32`"
            }
            Self::UnknownEncryptionKey => {
                "the stored key is encrypted under a key-encryption key that is not configured"
            }
            Self::ClearKey => {
                "a stored VAPID key is in the clear, which is refused since key-encryption keys are set; if the store was used without them before, start once with SEAL_CLEAR_KEYS=true (in code: `seal_clear_keys`), which encrypts it; if not, the row was planted"
            }
            Self::UnreadableKey => "the stored key is malformed or was altered",
            Self::NoActiveKey => "the store has no active key",
            Self::Store => "the key store failed",
        })
    }
}
