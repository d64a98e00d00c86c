//! The decision who may call an administrator's route.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Response;
use http::header::AUTHORIZATION;
use http::request::Parts;

use super::ApiBody;
use super::problem::{Problem, ProblemKind};

/// A decision on every request to an administrator's route.
///
/// [`AdminCredentials`](super::AdminCredentials) is the built-in one. An application with roles of its own reads what
/// its authentication layer put into `parts.extensions`.
///
/// # Examples
///
/// ```
/// use tower_web_push::api::{AdminAction, Authorizer, Denied};
///
/// /// What the application's own layer puts into the extensions.
/// #[derive(Clone)]
/// struct Role(&'static str);
///
/// #[derive(Debug)]
/// struct ByRole;
///
/// #[async_trait::async_trait]
/// impl Authorizer for ByRole {
///     async fn authorize(
///         &self,
///         action: AdminAction,
///         parts: &http::request::Parts,
///     ) -> Result<(), Denied> {
///         match (parts.extensions.get::<Role>(), action) {
///             (Some(Role("admin")), _) | (Some(Role("editor")), AdminAction::Notify) => Ok(()),
///             (Some(_), _) => Err(Denied::Forbidden),
///             (None, _) => Err(Denied::WrongCredentials),
///         }
///     }
/// }
/// ```
#[async_trait]
pub trait Authorizer: fmt::Debug + Send + Sync + 'static {
    /// Checks whether the caller may do it.
    ///
    /// # Errors
    ///
    /// Returns why not.
    async fn authorize(&self, action: AdminAction, parts: &Parts) -> Result<(), Denied>;
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Authorizer + ?Sized> Authorizer for Arc<A> {
    async fn authorize(&self, action: AdminAction, parts: &Parts) -> Result<(), Denied> {
        (**self).authorize(action, parts).await
    }
}

/// An action of an administrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AdminAction {
    /// Send a broadcast.
    Notify,
    /// Show the status of a broadcast.
    ShowBroadcast,
    /// Cancel a broadcast.
    CancelBroadcast,
    /// Pause a broadcast, or let it go on.
    PauseBroadcast,
    /// Set the user and the tags of a subscription.
    ChangeSubscription,
    /// Make a new active VAPID key.
    RegenerateVapid,
    /// Show statistics and metrics.
    ShowStats,
    /// Count the recipients that a broadcast would have.
    EstimateRecipients,
    /// End the pause of a push service.
    OpenGate,
}

impl AdminAction {
    /// The name in logs.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Notify => "notify",
            Self::ShowBroadcast => "show_broadcast",
            Self::CancelBroadcast => "cancel_broadcast",
            Self::PauseBroadcast => "pause_broadcast",
            Self::ChangeSubscription => "change_subscription",
            Self::RegenerateVapid => "regenerate_vapid",
            Self::ShowStats => "show_stats",
            Self::EstimateRecipients => "estimate_recipients",
            Self::OpenGate => "open_gate",
        }
    }
}

/// The reason why an administrator's request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Denied {
    /// 401: the credentials are missing or wrong.
    WrongCredentials,
    /// 403: the caller may not do this.
    Forbidden,
    /// 403: no credentials are configured, so no request is allowed.
    NotConfigured,
    /// 429: too many wrong passwords; nothing was compared.
    TooManyFailures {
        /// When to try again.
        retry_after: Duration,
    },
    /// 503: the credentials could not be checked.
    Unavailable,
}

impl Denied {
    /// The names of all reasons.
    #[cfg(feature = "metrics")]
    pub(super) const NAMES: [&'static str; 6] = [
        Self::NO_CREDENTIALS,
        "wrong_credentials",
        "forbidden",
        "not_configured",
        "too_many_failures",
        "unavailable",
    ];

    /// The name in logs and metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::WrongCredentials => "wrong_credentials",
            Self::Forbidden => "forbidden",
            Self::NotConfigured => "not_configured",
            Self::TooManyFailures { .. } => "too_many_failures",
            Self::Unavailable => "unavailable",
        }
    }

    /// The reason of a request without credentials. It is no attempt: browsers send one before they ask for a password.
    pub(super) const NO_CREDENTIALS: &'static str = "no_credentials";

    /// The reason why a request was refused, in logs and metrics.
    pub(super) fn reason(self, of: &Parts) -> &'static str {
        match self {
            Self::WrongCredentials if !of.headers.contains_key(AUTHORIZATION) => {
                Self::NO_CREDENTIALS
            }
            denied => denied.as_str(),
        }
    }

    /// Returns the response of the service's own routes, for an application's routes beside them.
    #[must_use]
    pub fn into_response(self) -> Response<ApiBody> {
        Problem::from(self).into_response()
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongCredentials => "the credentials are missing or wrong",
            Self::Forbidden => "the caller is not allowed to do this",
            Self::NotConfigured => "no admin credentials are configured",
            Self::TooManyFailures { .. } => "too many wrong passwords",
            Self::Unavailable => "the credentials could not be checked",
        })
    }
}

impl std::error::Error for Denied {}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::WrongCredentials => ProblemKind::WrongCredentials.into(),
            Denied::Forbidden => ProblemKind::Forbidden.into(),
            Denied::NotConfigured => ProblemKind::AdminNotConfigured.into(),
            Denied::TooManyFailures { retry_after } => {
                Self::from(ProblemKind::TooManyFailures).with_retry_after(retry_after)
            }
            Denied::Unavailable => ProblemKind::AuthorizerUnavailable.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trait_stays_dyn_compatible() {
        fn takes(_: Option<Arc<dyn Authorizer>>) {}
        takes(None);
    }

    #[test]
    fn every_denial_has_its_status() {
        let retry_after = Duration::from_millis(30_500);
        for (denied, status) in [
            (Denied::WrongCredentials, 401),
            (Denied::Forbidden, 403),
            (Denied::NotConfigured, 403),
            (Denied::TooManyFailures { retry_after }, 429),
            (Denied::Unavailable, 503),
        ] {
            assert_eq!(denied.into_response().status(), status, "{denied}");
        }
        let response = Denied::TooManyFailures { retry_after }.into_response();
        assert_eq!(response.headers()["retry-after"], "31");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
}
