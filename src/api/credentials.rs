//! The built-in authorizer: a bearer token, a password, or both.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use http::request::Parts;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;

use super::PeerAddr;
use super::authorizer::{AdminAction, Authorizer, Denied};
use super::wrong_passwords::WrongPasswords;
use crate::encoding::base64_any;

/// An administrator with all rights, identified by a bearer token, by Basic `admin:PASSWORD`, or both.
///
/// Without either every request is answered [`NotConfigured`](Denied::NotConfigured). There is no default password.
///
/// # Security
///
/// Only SHA-256 digests are kept, and they are compared in constant time.
///
/// After 10 wrong passwords from one [`PeerAddr`] within a minute, Basic credentials from this peer are refused
/// without a comparison until the minute is over. Other peers are not affected, so an attacker cannot lock the
/// administrator out. Requests without a [`PeerAddr`] in their extensions share one limit: behind a proxy, or in a
/// server that does not set it, an attacker can use it up. The bearer token still works then.
///
/// At most 100,000 peers are counted within a minute. Further peers share the limit of requests without an address.
/// So at most 1,000,010 passwords a minute are compared, from any number of addresses: 12 random characters of
/// `a-z0-9` would withstand that for more than four million years on average. A password in a list of common ones
/// would not withstand it for a day.
///
/// A bearer token has no such limit: it has to be random, which cannot be checked here.
///
/// # Examples
///
/// ```
/// use tower_web_push::api::AdminCredentials;
///
/// let credentials = AdminCredentials::new()
///     .with_bearer_token("h9Jm3pXq7vTz2LkB")?
///     .with_password("correct horse battery staple")?;
/// assert!(AdminCredentials::new().with_password("admin").is_err());
/// # Ok::<(), tower_web_push::api::CredentialsError>(())
/// ```
#[derive(Default)]
pub struct AdminCredentials {
    bearer: Option<[u8; 32]>,
    basic: Option<[u8; 32]>,
    wrong_passwords: Mutex<WrongPasswords>,
}

impl AdminCredentials {
    /// The shortest password and the shortest bearer token, in characters.
    const MIN_LENGTH: usize = 12;

    /// Makes a value without credentials, which admits no request.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows requests with `Authorization: Bearer TOKEN`: at least 128 random bits, in hexadecimal digits or base64.
    ///
    /// # Errors
    ///
    /// Returns an error if the token has fewer than 12 characters, begins or ends with a blank or a line break, or
    /// contains a character that is not visible ASCII.
    pub fn with_bearer_token(mut self, token: &str) -> Result<Self, CredentialsError> {
        if is_padded(token) {
            return Err(CredentialsError::PaddedToken);
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(CredentialsError::MalformedToken);
        }
        if token.len() < Self::MIN_LENGTH {
            return Err(CredentialsError::ShortToken);
        }
        self.bearer = Some(digest(token.as_bytes()));
        Ok(self)
    }

    /// Allows requests with Basic credentials of the user `admin` and this password.
    ///
    /// Blanks and line breaks at its start or end are refused, not removed. They usually come from a file or a shell,
    /// and a typed password would never match.
    ///
    /// # Errors
    ///
    /// Returns an error if the password has fewer than 12 characters, or begins or ends with a blank or a line break.
    pub fn with_password(mut self, password: &str) -> Result<Self, CredentialsError> {
        if is_padded(password) {
            return Err(CredentialsError::PaddedPassword);
        }
        if password.chars().count() < Self::MIN_LENGTH {
            return Err(CredentialsError::ShortPassword);
        }
        let mut hash = Sha256::new();
        hash.update(b"admin:");
        hash.update(password.as_bytes());
        self.basic = Some(hash.finalize().into());
        Ok(self)
    }

    /// Whether a token or a password is set.
    #[must_use]
    pub const fn is_configured(&self) -> bool {
        self.bearer.is_some() || self.basic.is_some()
    }

    fn check(&self, parts: &Parts) -> Result<(), Denied> {
        if !self.is_configured() {
            return Err(Denied::NotConfigured);
        }
        let mut values = parts.headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Denied::WrongCredentials);
        };
        let value = value.to_str().map_err(|_| Denied::WrongCredentials)?;
        let (scheme, credentials) = value.split_once(' ').ok_or(Denied::WrongCredentials)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            matches(self.bearer, credentials.trim().as_bytes())
        } else if scheme.eq_ignore_ascii_case("basic") {
            self.check_basic(credentials.trim(), parts.extensions.get().copied())
        } else {
            Err(Denied::WrongCredentials)
        }
    }

    fn check_basic(&self, credentials: &str, peer: Option<PeerAddr>) -> Result<(), Denied> {
        let pair = base64_any(credentials).ok_or(Denied::WrongCredentials)?;
        // An empty password, which a browser sends before it asks its user, is not a guess.
        let mut halves = pair.splitn(2, |byte| *byte == b':');
        let complete = |half: Option<&[u8]>| half.is_some_and(|half| !half.is_empty());
        if !complete(halves.next()) || !complete(halves.next()) {
            return Err(Denied::WrongCredentials);
        }
        // Held during the comparison: otherwise many concurrent guesses would pass before the first is counted.
        let wrong = self.wrong_passwords.lock();
        let mut wrong = wrong.unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        wrong.check(peer, now)?;
        matches(self.basic, &pair).inspect_err(|_| wrong.count(peer, now))
    }
}

#[async_trait]
impl Authorizer for AdminCredentials {
    async fn authorize(&self, _: AdminAction, parts: &Parts) -> Result<(), Denied> {
        self.check(parts)
    }
}

impl fmt::Debug for AdminCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminCredentials")
            .field("bearer", &self.bearer.is_some())
            .field("basic", &self.basic.is_some())
            .finish()
    }
}

fn digest(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// Compares digests in constant time. Credentials that are not configured match nothing.
fn matches(expected: Option<[u8; 32]>, given: &[u8]) -> Result<(), Denied> {
    let equal = expected.is_some_and(|expected| expected.ct_eq(&digest(given)).into());
    if equal {
        Ok(())
    } else {
        Err(Denied::WrongCredentials)
    }
}

/// Whether it begins or ends with blanks or line breaks.
fn is_padded(secret: &str) -> bool {
    secret.trim() != secret
}

/// Credentials that are too weak or malformed to be configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredentialsError {
    /// A password of fewer than 12 characters.
    ShortPassword,
    /// A password that begins or ends with a blank or a line break.
    PaddedPassword,
    /// A token of fewer than 12 characters.
    ShortToken,
    /// A token that begins or ends with a blank or a line break.
    PaddedToken,
    /// A token with a character that is not visible ASCII, which a header cannot carry.
    MalformedToken,
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ShortPassword => "the admin password has fewer than 12 characters",
            Self::PaddedPassword => {
                "the admin password begins or ends with a blank or a line break: remove it"
            }
            Self::ShortToken => "the admin token has fewer than 12 characters",
            Self::PaddedToken => {
                "the admin token begins or ends with a blank or a line break: remove it"
            }
            Self::MalformedToken => {
                "the admin token contains a character that is not visible ASCII"
            }
        })
    }
}

impl std::error::Error for CredentialsError {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64ct::{Base64, Encoding as _};
    use http::Request;

    use super::*;

    const PASSWORD: &str = "correct horse";

    fn both() -> AdminCredentials {
        let token = AdminCredentials::new().with_bearer_token("an-admin-token");
        token.unwrap().with_password(PASSWORD).unwrap()
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", Base64::encode_string(pair.as_bytes()))
    }

    fn check(credentials: &AdminCredentials, authorization: &str) -> Result<(), Denied> {
        check_from(credentials, None, authorization)
    }

    fn check_from(
        credentials: &AdminCredentials,
        peer: Option<PeerAddr>,
        authorization: &str,
    ) -> Result<(), Denied> {
        let request = Request::get("/").header(AUTHORIZATION, authorization);
        let mut parts = request.body(()).unwrap().into_parts().0;
        if let Some(peer) = peer {
            parts.extensions.insert(peer);
        }
        credentials.check(&parts)
    }

    #[test]
    fn either_is_enough_and_nothing_else_is() {
        let both = both();
        assert_eq!(check(&both, "bearer an-admin-token"), Ok(()));
        assert_eq!(check(&both, &basic("admin:correct horse")), Ok(()));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer an-admin-token2",
            "Bearer correct horse",
            "Basic",
            "Basic !",
            "Digest an-admin-token",
            &basic("admin:correct horse2"),
            &basic("root:correct horse"),
            &basic("admin"),
        ] {
            assert_eq!(
                check(&both, wrong),
                Err(Denied::WrongCredentials),
                "{wrong}"
            );
        }
        let none = Request::get("/").body(()).unwrap().into_parts().0;
        assert_eq!(both.check(&none), Err(Denied::WrongCredentials));
    }

    #[test]
    fn two_headers_are_no_credentials() {
        let request = Request::get("/")
            .header(AUTHORIZATION, "Bearer an-admin-token")
            .header(AUTHORIZATION, "Bearer an-admin-token");
        let parts = request.body(()).unwrap().into_parts().0;
        assert_eq!(both().check(&parts), Err(Denied::WrongCredentials));
    }

    #[test]
    fn what_is_not_configured_matches_nothing() {
        assert_eq!(
            check(&AdminCredentials::new(), "Bearer x"),
            Err(Denied::NotConfigured)
        );
        let token = AdminCredentials::new()
            .with_bearer_token("an-admin-token")
            .unwrap();
        assert_eq!(
            check(&token, &basic("admin:an-admin-token")),
            Err(Denied::WrongCredentials)
        );
    }

    #[test]
    fn a_password_alone_is_enough_and_may_have_colons() {
        for password in [PASSWORD, ":correct:horse:"] {
            let only = AdminCredentials::new().with_password(password).unwrap();
            assert!(only.is_configured());
            let right = basic(&format!("admin:{password}"));
            assert_eq!(check(&only, &right), Ok(()));
            let other_scheme = right.replace("Basic", "Digest");
            assert_eq!(
                check(&only, &other_scheme),
                Err(Denied::WrongCredentials),
                "{other_scheme}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ten_wrong_passwords_close_basic_for_their_peer_only() {
        let both = both();
        let [stranger, operator] = ["192.0.2.1", "2001:db8::1"].map(peer);
        let right = basic("admin:correct horse");
        for _ in 0..10 {
            tokio::time::advance(Duration::from_secs(1)).await;
            let guess = check_from(&both, stranger, &basic("admin:wrong"));
            assert_eq!(guess, Err(Denied::WrongCredentials));
        }
        let retry_after = Duration::from_secs(51);
        let refused = Err(Denied::TooManyFailures { retry_after });
        assert_eq!(check_from(&both, stranger, &right), refused);
        assert_eq!(check_from(&both, operator, &right), Ok(()));
        assert_eq!(check_from(&both, None, &right), Ok(()));
        let token = "Bearer an-admin-token";
        assert_eq!(check_from(&both, stranger, token), Ok(()), "not Basic");
        tokio::time::advance(retry_after).await;
        assert_eq!(check_from(&both, stranger, &right), Ok(()));
    }

    fn peer(address: &str) -> Option<PeerAddr> {
        Some(PeerAddr::new(address.parse().unwrap()))
    }

    #[test]
    fn requests_without_an_address_share_one_limit() {
        let both = both();
        let guess = || check(&both, &basic("admin:wrong"));
        for _ in 0..10 {
            assert_eq!(guess(), Err(Denied::WrongCredentials));
        }
        assert!(matches!(guess(), Err(Denied::TooManyFailures { .. })));
        let right = basic("admin:correct horse");
        assert_eq!(check_from(&both, peer("192.0.2.1"), &right), Ok(()));
    }

    #[test]
    fn what_is_no_guess_is_not_counted() {
        let both = both();
        for _ in 0..30 {
            for incomplete in [
                "Basic",
                "Basic ?",
                &basic("admin:"),
                &basic(":x"),
                &basic("x"),
            ] {
                assert_eq!(check(&both, incomplete), Err(Denied::WrongCredentials));
            }
            assert_eq!(check(&both, "Bearer wrong"), Err(Denied::WrongCredentials));
        }
        assert_eq!(check(&both, &basic("admin:correct horse")), Ok(()));
    }

    #[test]
    fn weak_and_malformed_credentials_cannot_be_configured() {
        use CredentialsError::*;
        for (password, error) in [
            ("", ShortPassword),
            ("eleven char", ShortPassword),
            ("correct horse battery staple\n", PaddedPassword),
            (" correct horse battery staple", PaddedPassword),
            ("            ", PaddedPassword),
        ] {
            let refused = AdminCredentials::new().with_password(password);
            assert_eq!(refused.unwrap_err(), error, "{password:?}");
        }
        for (token, error) in [
            ("", ShortToken),
            ("eleven-char", ShortToken),
            ("an-admin-token\n", PaddedToken),
            ("\tan-admin-token", PaddedToken),
            ("an admin token", MalformedToken),
            ("an-ädmin-token", MalformedToken),
        ] {
            let refused = AdminCredentials::new().with_bearer_token(token);
            assert_eq!(refused.unwrap_err(), error, "{token:?}");
        }
        let shortest = AdminCredentials::new().with_password("twelve chars");
        assert!(shortest.unwrap().with_bearer_token("twelve-chars").is_ok());
    }

    #[test]
    fn debug_shows_neither() {
        let debug = format!("{:?}", both());
        assert_eq!(debug, "AdminCredentials { bearer: true, basic: true }");
    }
}
