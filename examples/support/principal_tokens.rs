//! Tokens in which the application's backend names the signed-in user: JSON Web Tokens (RFC 7519).

use std::collections::HashSet;

use jwt_simple::prelude::{
    Duration, ECDSAP256PublicKeyLike as _, ES256PublicKey, HS256Key, MACLike as _, NoCustomClaims,
    VerificationOptions,
};
use tower_web_push::Principal;

/// How far the clocks of the backend and of this server may differ, in seconds.
const LEEWAY: u64 = 60;
/// The longest token, in octets. A request head has 16 KiB.
const LONGEST: usize = 8 * 1024;
/// The shortest secret of HS256, in octets (RFC 7518 section 3.2).
const SHORTEST_SECRET: usize = 32;

/// Checks tokens with one key, by one algorithm.
///
/// The algorithm is the setting's. A token that names another one, or `none`, is refused before its signature is checked
/// (RFC 8725 section 3.1), so that a public key is never taken for the secret of an HMAC.
pub(crate) struct PrincipalTokens {
    key: Key,
    audiences: HashSet<String>,
}

enum Key {
    Hs256(HS256Key),
    Es256(ES256PublicKey),
}

impl PrincipalTokens {
    /// Parses the key. `audience` is the `aud` that each token needs, so that a token for another service is not accepted.
    ///
    /// # Errors
    ///
    /// Returns an error without the key if the key does not fit the algorithm.
    pub(crate) fn new(algorithm: Algorithm, key: &str, audience: &str) -> Result<Self, String> {
        let is_pem = key.contains("-----BEGIN ");
        let key = match algorithm {
            Algorithm::Hs256 if is_pem => {
                return Err(
                    "it is a PEM file, and HS256 needs a secret; for a public key set \
                     PRINCIPAL_TOKEN_ALGORITHM=ES256"
                        .to_owned(),
                );
            }
            Algorithm::Hs256 if key.len() < SHORTEST_SECRET => {
                return Err(format!(
                    "HS256 needs a secret of at least {SHORTEST_SECRET} octets, such as `openssl rand -hex 32` makes"
                ));
            }
            Algorithm::Hs256 => Key::Hs256(HS256Key::from_bytes(key.as_bytes())),
            Algorithm::Es256 => Key::Es256(ES256PublicKey::from_pem(key).map_err(|_| {
                "not a public key of P-256 in PEM, such as `openssl ec -in key.pem -pubout` makes"
                    .to_owned()
            })?),
        };
        Ok(Self {
            key,
            audiences: HashSet::from([audience.to_owned()]),
        })
    }

    /// Returns the user that a token names as its `sub`. The token also needs the audience and an `exp`, which may be a minute
    /// in the past.
    ///
    /// # Errors
    ///
    /// Returns the reason, for the log.
    pub(super) fn principal(&self, token: &str) -> Result<Principal, String> {
        let options = VerificationOptions {
            allowed_audiences: Some(self.audiences.clone()),
            time_tolerance: Some(Duration::from_secs(LEEWAY)),
            max_token_length: Some(LONGEST),
            ..VerificationOptions::default()
        };
        let claims = match &self.key {
            Key::Hs256(key) => key.verify_token::<NoCustomClaims>(token, Some(options)),
            Key::Es256(key) => key.verify_token::<NoCustomClaims>(token, Some(options)),
        }
        .map_err(|error| error.to_string())?;
        if claims.expires_at.is_none() {
            // A token without an end would be valid for ever, wherever it was copied to.
            return Err("it has no exp".to_owned());
        }
        match claims.subject {
            Some(user) if !user.trim().is_empty() => Ok(Principal::from(user)),
            _ => Err("it has no sub".to_owned()),
        }
    }
}

/// The algorithm of the tokens' signatures (RFC 7518 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// HMAC with SHA-256: backend and server have the same secret.
    Hs256,
    /// ECDSA with P-256 and SHA-256: the backend has the private key, the server the public one.
    Es256,
}

impl Algorithm {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "HS256" => Ok(Self::Hs256),
            "ES256" => Ok(Self::Es256),
            _ => Err(format!("neither HS256 nor ES256: {text}")),
        }
    }
}

/// Whether a bearer token has the form of a JSON Web Token: three parts. An ADMIN_TOKEN must not.
pub(crate) fn is_token(text: &str) -> bool {
    text.split('.').count() == 3
}
