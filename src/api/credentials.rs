//! The built-in administrator: a bearer token, a password, or both.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use http::request::Parts;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;

use super::authorizer::{AdminAction, Authorizer, Denied};
use crate::encoding::base64_any;

/// One administrator who may do everything, known by a bearer token, by Basic `admin:PASSWORD`, or both.
///
/// Without either nobody is an administrator, and every request is answered
/// [`NotConfigured`](Denied::NotConfigured). There is no default password.
///
/// # Security
///
/// Only SHA-256 digests are kept and compared, in constant time. After 10 wrong passwords within a minute
/// Basic credentials are refused without comparing until that minute ends: the limit is for everybody,
/// since behind a proxy all callers look alike. A bearer token keeps working meanwhile, and has no such limit: it has
/// to be long and random, which nothing here can check.
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
    failures: Mutex<Failures>,
}

impl AdminCredentials {
    /// The shortest password, in characters.
    pub const MIN_PASSWORD: usize = 12;

    /// Nobody yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whoever sends `Authorization: Bearer TOKEN`: 128 random bits at least, in hexadecimal digits or base64.
    ///
    /// # Errors
    ///
    /// When the token is empty or holds anything but visible ASCII characters.
    pub fn with_bearer_token(mut self, token: &str) -> Result<Self, CredentialsError> {
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(CredentialsError::MalformedToken);
        }
        self.bearer = Some(digest(token.as_bytes()));
        Ok(self)
    }

    /// Whoever sends Basic credentials of the user `admin` with this password.
    ///
    /// # Errors
    ///
    /// When the password has fewer than [`MIN_PASSWORD`](Self::MIN_PASSWORD) characters.
    pub fn with_password(mut self, password: &str) -> Result<Self, CredentialsError> {
        if password.chars().count() < Self::MIN_PASSWORD {
            return Err(CredentialsError::ShortPassword);
        }
        let mut hash = Sha256::new();
        hash.update(b"admin:");
        hash.update(password.as_bytes());
        self.basic = Some(hash.finalize().into());
        Ok(self)
    }

    /// Whether anybody can be an administrator.
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
            self.check_basic(credentials.trim())
        } else {
            Err(Denied::WrongCredentials)
        }
    }

    fn check_basic(&self, credentials: &str) -> Result<(), Denied> {
        let pair = base64_any(credentials).ok_or(Denied::WrongCredentials)?;
        // What a browser sends before it has asked its user is not a guess.
        let mut halves = pair.splitn(2, |byte| *byte == b':');
        let complete = |half: Option<&[u8]>| half.is_some_and(|half| !half.is_empty());
        if !complete(halves.next()) || !complete(halves.next()) {
            return Err(Denied::WrongCredentials);
        }
        // Held while comparing: otherwise many guesses at once would pass before the first is counted.
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        failures.check(now)?;
        matches(self.basic, &pair).inspect_err(|_| failures.count(now))
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

/// Compares digests in constant time; whatever was not configured matches nothing.
fn matches(expected: Option<[u8; 32]>, given: &[u8]) -> Result<(), Denied> {
    let equal = expected.is_some_and(|expected| expected.ct_eq(&digest(given)).into());
    if equal {
        Ok(())
    } else {
        Err(Denied::WrongCredentials)
    }
}

/// The wrong passwords of the current minute.
#[derive(Debug, Default)]
struct Failures {
    first: Option<Instant>,
    number: u32,
}

impl Failures {
    const MOST: u32 = 10;
    const WINDOW: Duration = Duration::from_secs(60);

    fn check(&mut self, now: Instant) -> Result<(), Denied> {
        let Some(first) = self.first else {
            return Ok(());
        };
        let left = Self::WINDOW.saturating_sub(now.saturating_duration_since(first));
        if left.is_zero() {
            *self = Self::default();
        } else if self.number >= Self::MOST {
            return Err(Denied::TooManyFailures { retry_after: left });
        }
        Ok(())
    }

    fn count(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.number = self.number.saturating_add(1);
    }
}

/// Credentials that are too weak or malformed to be configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredentialsError {
    /// A password of fewer than 12 characters.
    ShortPassword,
    /// A token that is empty, or that no header can carry.
    MalformedToken,
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ShortPassword => "the admin password has fewer than 12 characters",
            Self::MalformedToken => "the admin token is empty or not visible ASCII",
        })
    }
}

impl std::error::Error for CredentialsError {}

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Encoding as _};
    use http::Request;

    use super::*;

    const PASSWORD: &str = "correct horse";

    fn both() -> AdminCredentials {
        let token = AdminCredentials::new().with_bearer_token("t0ken");
        token.unwrap().with_password(PASSWORD).unwrap()
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", Base64::encode_string(pair.as_bytes()))
    }

    fn check(credentials: &AdminCredentials, authorization: &str) -> Result<(), Denied> {
        let request = Request::get("/").header(AUTHORIZATION, authorization);
        credentials.check(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn either_is_enough_and_nothing_else_is() {
        let both = both();
        assert_eq!(check(&both, "bearer t0ken"), Ok(()));
        assert_eq!(check(&both, &basic("admin:correct horse")), Ok(()));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer t0ken2",
            "Bearer correct horse",
            "Basic",
            "Basic !",
            "Digest t0ken",
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
            .header(AUTHORIZATION, "Bearer t0ken")
            .header(AUTHORIZATION, "Bearer t0ken");
        let parts = request.body(()).unwrap().into_parts().0;
        assert_eq!(both().check(&parts), Err(Denied::WrongCredentials));
    }

    #[test]
    fn what_is_not_configured_matches_nothing() {
        assert_eq!(
            check(&AdminCredentials::new(), "Bearer x"),
            Err(Denied::NotConfigured)
        );
        let token = AdminCredentials::new().with_bearer_token("t0ken").unwrap();
        assert_eq!(
            check(&token, &basic("admin:t0ken")),
            Err(Denied::WrongCredentials)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn ten_wrong_passwords_close_the_door_until_the_minute_ends() {
        let both = both();
        for _ in 0..10 {
            tokio::time::advance(Duration::from_secs(1)).await;
            let guess = check(&both, &basic("admin:wrong"));
            assert_eq!(guess, Err(Denied::WrongCredentials));
        }
        let right = basic("admin:correct horse");
        let retry_after = Duration::from_secs(51);
        assert_eq!(
            check(&both, &right),
            Err(Denied::TooManyFailures { retry_after })
        );
        assert_eq!(check(&both, "Bearer t0ken"), Ok(()), "bearer is not Basic");
        tokio::time::advance(Duration::from_secs(51)).await;
        assert_eq!(check(&both, &right), Ok(()));
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
        let short = AdminCredentials::new()
            .with_password("eleven char")
            .unwrap_err();
        assert_eq!(short, CredentialsError::ShortPassword);
        assert!(
            AdminCredentials::new()
                .with_password("twelve chars")
                .is_ok()
        );
        for token in ["", "a b", "tök"] {
            assert!(
                AdminCredentials::new().with_bearer_token(token).is_err(),
                "{token}"
            );
        }
    }

    #[test]
    fn debug_shows_neither() {
        let debug = format!("{:?}", both());
        assert_eq!(debug, "AdminCredentials { bearer: true, basic: true }");
    }
}
