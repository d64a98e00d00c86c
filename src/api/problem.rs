//! Refusals: problem details (RFC 9457) with a stable `code`.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::ApiBody;
use crate::broadcast::{InvalidMember, Refusal};
use crate::store::{StoreError, StoreErrorKind};
use crate::subscription::{SubscriptionError, SubscriptionErrorKind};
use crate::vapid::VapidError;

macro_rules! problem_kinds {
    ($($name:ident, $status:ident, $code:literal, $detail:literal;)*) => {
        /// The reason why a request was refused. It is also in the response's extensions, so that an outer layer can
        /// distinguish refusals.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ProblemKind {
            $(#[doc = concat!("`", $code, "`: ", $detail)] $name,)*
        }

        impl ProblemKind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the stable word, `code` in the document.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// Returns the status of the response.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            const fn detail(self) -> &'static str {
                match self { $(Self::$name => $detail,)* }
            }
        }
    };
}

problem_kinds! {
    InvalidJson, BAD_REQUEST, "invalid_json", "The body is not a JSON object.";
    InvalidMember, BAD_REQUEST, "invalid_member", "A member has the wrong type or value.";
    InvalidQuery, BAD_REQUEST, "invalid_query", "A parameter of the query is unknown or has the wrong value.";
    IncompleteBody, BAD_REQUEST, "incomplete_body", "The body could not be read to its end.";
    MissingEndpoint, BAD_REQUEST, "missing_endpoint", "Missing endpoint information";
    InvalidEndpoint, BAD_REQUEST, "invalid_endpoint", "The endpoint is not an absolute http or https URL with a plain host.";
    EndpointTooLong, BAD_REQUEST, "endpoint_too_long", "The endpoint is longer than 2048 octets.";
    MissingKeys, BAD_REQUEST, "missing_keys", "Missing subscription keys information";
    InvalidP256dh, BAD_REQUEST, "invalid_p256dh", "keys.p256dh is not an uncompressed P-256 point of 65 octets in base64.";
    InvalidAuth, BAD_REQUEST, "invalid_auth", "The auth secret is not 16 octets in base64.";
    InvalidExpirationTime, BAD_REQUEST, "invalid_expiration_time", "expirationTime is neither null nor a number.";
    SubscriptionExpired, BAD_REQUEST, "subscription_expired", "The subscription's expirationTime is past.";
    InvalidApplicationServerKey, BAD_REQUEST, "invalid_application_server_key", "applicationServerKey is not an uncompressed P-256 point of 65 octets in base64.";
    InvalidId, BAD_REQUEST, "invalid_id", "The id is not a UUID.";
    MissingClientUuid, BAD_REQUEST, "missing_client_uuid", "client_uuid is required";
    InvalidTag, BAD_REQUEST, "invalid_tag", "A tag is 1 to 64 of the characters A-Z a-z 0-9 . _ : -";
    MissingNotifyTime, BAD_REQUEST, "missing_notify_time", "Missing notifyTime information";
    InvalidNotifyTime, BAD_REQUEST, "invalid_notify_time", "notifyTime is neither {\"utcHour\": 0 to 23, \"minute\"?: 0 to 59} nor {\"hour\", \"minute\"?, \"zone\", \"weekdays\"?: [\"mon\", …]}.";
    InvalidNotifyType, BAD_REQUEST, "invalid_notify_type", "Invalid notifyType";
    MessageTooLong, BAD_REQUEST, "message_too_long", "Message is too long. Max 100 characters.";
    MissingContent, BAD_REQUEST, "missing_content", "The message has neither title nor payload.";
    AmbiguousContent, BAD_REQUEST, "ambiguous_content", "The message has both title and payload.";
    InvalidTtl, BAD_REQUEST, "invalid_ttl", "ttl is not a whole number of seconds from 0.";
    InvalidUrgency, BAD_REQUEST, "invalid_urgency", "urgency is not one of very-low, low, normal and high.";
    InvalidSendAt, BAD_REQUEST, "invalid_send_at", "sendAt is not an RFC 3339 date and time with an offset.";
    InvalidPace, BAD_REQUEST, "invalid_pace", "pace is not {\"perSecond\": a whole number from 1}.";
    InvalidState, BAD_REQUEST, "invalid_state", "state is neither \"paused\" nor \"sending\".";
    InvalidAudience, BAD_REQUEST, "invalid_audience", "audience is none of \"all\", {\"user\": name}, {\"tag\": tag} and {\"ids\": ids}.";
    InvalidIdempotencyKey, BAD_REQUEST, "invalid_idempotency_key", "Idempotency-Key is not 1 to 255 visible ASCII characters.";
    WrongCredentials, UNAUTHORIZED, "wrong_credentials", "Wrong password";
    AdminNotConfigured, FORBIDDEN, "admin_not_configured", "No admin credentials are configured.";
    Forbidden, FORBIDDEN, "forbidden", "The caller is not allowed to do this.";
    CrossSite, FORBIDDEN, "cross_site", "The request comes from another site.";
    PrincipalRequired, FORBIDDEN, "principal_required", "Only signed-in users may subscribe.";
    NotFound, NOT_FOUND, "not_found", "There is nothing at this path.";
    UnknownSubscription, NOT_FOUND, "unknown_subscription", "Subscription not found";
    UnknownBroadcast, NOT_FOUND, "unknown_broadcast", "There is no broadcast with this id.";
    MethodNotAllowed, METHOD_NOT_ALLOWED, "method_not_allowed", "The path does not allow this method.";
    BodyTimeout, REQUEST_TIMEOUT, "body_timeout", "The body took too long to arrive.";
    UnknownVapidKey, CONFLICT, "unknown_vapid_key", "The subscription was made with an applicationServerKey that is not known here: subscribe again.";
    SubscriptionConflict, CONFLICT, "subscription_conflict", "The endpoint is registered with other keys, and only its owner may change them.";
    IdempotencyConflict, CONFLICT, "idempotency_conflict", "The Idempotency-Key was used for another request.";
    BodyTooLarge, PAYLOAD_TOO_LARGE, "body_too_large", "The body is larger than 64 KiB.";
    UnsupportedMediaType, UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body is not declared as application/json.";
    UnsupportedContentEncoding, UNSUPPORTED_MEDIA_TYPE, "unsupported_content_encoding", "The body has a Content-Encoding. Only bodies without one are read.";
    EndpointNotAllowed, UNPROCESSABLE_ENTITY, "endpoint_not_allowed", "The endpoint is not at a push service that this server sends to.";
    PrincipalTooLong, UNPROCESSABLE_ENTITY, "principal_too_long", "The name of the user is longer than 1024 octets.";
    TooManyTags, UNPROCESSABLE_ENTITY, "too_many_tags", "A subscription has at most 32 tags.";
    TagNotPublic, UNPROCESSABLE_ENTITY, "tag_not_public", "A tag is not among the public tags.";
    UnknownZone, UNPROCESSABLE_ENTITY, "unknown_zone", "The time zone is not in the IANA database.";
    ZonesUnsupported, UNPROCESSABLE_ENTITY, "zones_unsupported", "This server accepts notifyTime in UTC only: {\"utcHour\", \"minute\"?}.";
    PayloadTooLarge, UNPROCESSABLE_ENTITY, "payload_too_large", "The message is larger than 3993 octets.";
    InvalidTopic, UNPROCESSABLE_ENTITY, "invalid_topic", "topic is not 1 to 32 base64url characters whose number modulo 4 is not 1.";
    SendAtTooFarAhead, UNPROCESSABLE_ENTITY, "send_at_too_far_ahead", "sendAt is more than 30 days ahead.";
    TooManyFailures, TOO_MANY_REQUESTS, "too_many_failures", "Too many wrong passwords: try again later.";
    TooManyRequests, TOO_MANY_REQUESTS, "too_many_requests", "Too many requests from this address: try again later.";
    TooManyTests, TOO_MANY_REQUESTS, "too_many_tests", "This subscription was tested in the last 10 seconds: try again later.";
    NoWorker, SERVICE_UNAVAILABLE, "no_worker", "No worker is running to deliver the message.";
    EndpointUnverified, SERVICE_UNAVAILABLE, "endpoint_unverified", "The endpoint's push service could not be looked up: try again later.";
    StoreFull, SERVICE_UNAVAILABLE, "store_full", "The store is full.";
    StoreUnavailable, SERVICE_UNAVAILABLE, "store_unavailable", "The store is unavailable.";
    AuthorizerUnavailable, SERVICE_UNAVAILABLE, "authorizer_unavailable", "The credentials could not be checked.";
    VapidUnavailable, SERVICE_UNAVAILABLE, "vapid_unavailable", "The VAPID key could not be made or read.";
}

impl ProblemKind {
    /// The default of `Retry-After`. Every 429 and 503 has one.
    const fn retry_after(self) -> Option<Duration> {
        let secs = match self {
            Self::TooManyFailures => 60,
            Self::TooManyRequests
            | Self::TooManyTests
            | Self::NoWorker
            | Self::EndpointUnverified => 10,
            Self::StoreFull => 3600,
            Self::StoreUnavailable | Self::AuthorizerUnavailable | Self::VapidUnavailable => 5,
            _ => return None,
        };
        Some(Duration::from_secs(secs))
    }
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A refusal, before it becomes a response. Of the request it holds a member's name or a content coding at most.
#[derive(Debug)]
pub(crate) struct Problem {
    kind: ProblemKind,
    detail: Option<Cow<'static, str>>,
    member: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    allow: Option<&'static str>,
    /// The error of this server, for the log.
    #[cfg(feature = "tracing")]
    cause: Option<String>,
}

impl From<ProblemKind> for Problem {
    fn from(kind: ProblemKind) -> Self {
        Self {
            kind,
            detail: None,
            member: None,
            retry_after: kind.retry_after(),
            allow: None,
            #[cfg(feature = "tracing")]
            cause: None,
        }
    }
}

impl Problem {
    /// Makes a refusal of a member of the wrong type, with the expected one.
    pub(super) fn member(name: impl Into<Cow<'static, str>>, expected: &str) -> Self {
        let name = name.into();
        let detail = format!("{name} is not {expected}.");
        Self::from(ProblemKind::InvalidMember)
            .with_member(name)
            .with_detail(detail)
    }

    pub(super) fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(super) fn with_member(mut self, member: impl Into<Cow<'static, str>>) -> Self {
        self.member = Some(member.into());
        self
    }

    pub(super) const fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub(super) const fn with_allow(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// Adds the error of this server that the request met, for the log. The response does not show it.
    #[cfg(feature = "tracing")]
    pub(super) fn because(mut self, error: &(dyn Error + 'static)) -> Self {
        self.cause = Some(crate::observe::causes(error));
        self
    }

    /// Without a log the error is dropped.
    #[cfg(not(feature = "tracing"))]
    pub(super) const fn because(self, _: &(dyn Error + 'static)) -> Self {
        self
    }

    /// The error of this server, in one line; `None` without a log.
    pub(super) fn cause(&self) -> Option<&str> {
        #[cfg(feature = "tracing")]
        return self.cause.as_deref();
        #[cfg(not(feature = "tracing"))]
        None
    }

    pub(super) const fn kind(&self) -> ProblemKind {
        self.kind
    }

    pub(super) fn into_response(self) -> Response<ApiBody> {
        let status = self.kind.status();
        let detail = self.detail.as_deref().unwrap_or(self.kind.detail());
        let document = Document {
            // RFC 9457 section 4.2.1: the title is the status's own phrase, `code` tells more.
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            code: self.kind.code(),
            detail,
            success: false,
            message: detail,
            error: (status == StatusCode::UNAUTHORIZED).then_some(WRONG_PASSWORD),
            member: self.member.as_deref(),
        };
        let json = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(ApiBody::new(json));
        *response.status_mut() = status;
        response.extensions_mut().insert(self.kind);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        // Caches may keep a 404 or 405 otherwise (RFC 9110 section 15.1).
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = self.retry_after {
            headers.insert(RETRY_AFTER, retry_after(wait));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.kind == ProblemKind::UnsupportedContentEncoding {
            // RFC 9110 section 12.5.3: a 415 for a coding lists the accepted ones.
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
        }
        super::reply::secured(response)
    }
}

/// Whole seconds, rounded up, so that a client that waits this long is not too early (RFC 9110 section 10.2.3).
pub(super) fn retry_after(wait: Duration) -> HeaderValue {
    let secs = wait
        .as_secs()
        .saturating_add(u64::from(wait.subsec_nanos() > 0));
    HeaderValue::from(secs.max(1))
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: &'a str,
    success: bool,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<&'a str>,
}

const PROBLEM_JSON: &str = "application/problem+json";
const CHALLENGE: &str = "Basic realm=\"Login Required\"";
const WRONG_PASSWORD: &str = "Wrong password";

impl From<SubscriptionError> for Problem {
    fn from(error: SubscriptionError) -> Self {
        let kind = match error.kind() {
            SubscriptionErrorKind::InvalidJson => ProblemKind::InvalidJson,
            SubscriptionErrorKind::MissingEndpoint => ProblemKind::MissingEndpoint,
            SubscriptionErrorKind::InvalidEndpoint => ProblemKind::InvalidEndpoint,
            SubscriptionErrorKind::EndpointTooLong => ProblemKind::EndpointTooLong,
            SubscriptionErrorKind::MissingKeys => ProblemKind::MissingKeys,
            SubscriptionErrorKind::InvalidP256dh => ProblemKind::InvalidP256dh,
            SubscriptionErrorKind::InvalidAuth => ProblemKind::InvalidAuth,
            SubscriptionErrorKind::InvalidExpirationTime => ProblemKind::InvalidExpirationTime,
            SubscriptionErrorKind::InvalidId => ProblemKind::InvalidId,
        };
        kind.into()
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal {
            Refusal::InvalidJson(_) => ProblemKind::InvalidJson,
            Refusal::InvalidMember(InvalidMember { name, detail }) => {
                let problem = Self::from(ProblemKind::InvalidMember).with_detail(detail);
                return match name {
                    Some(name) => problem.with_member(name),
                    None => problem,
                };
            }
            Refusal::BodyTooLarge => ProblemKind::BodyTooLarge,
            Refusal::MissingContent => ProblemKind::MissingContent,
            Refusal::AmbiguousContent => ProblemKind::AmbiguousContent,
            Refusal::PayloadTooLarge => ProblemKind::PayloadTooLarge,
            Refusal::InvalidTtl => ProblemKind::InvalidTtl,
            Refusal::InvalidUrgency => ProblemKind::InvalidUrgency,
            Refusal::InvalidTopic => ProblemKind::InvalidTopic,
            Refusal::InvalidSendAt => ProblemKind::InvalidSendAt,
            Refusal::InvalidPace => ProblemKind::InvalidPace,
            Refusal::InvalidAudience => ProblemKind::InvalidAudience,
            Refusal::InvalidIdempotencyKey => ProblemKind::InvalidIdempotencyKey,
            Refusal::InvalidId => ProblemKind::InvalidId,
        };
        kind.into()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::from(&error)
    }
}

impl From<&StoreError> for Problem {
    fn from(error: &StoreError) -> Self {
        let kind = match error.kind() {
            StoreErrorKind::Full => ProblemKind::StoreFull,
            _ => ProblemKind::StoreUnavailable,
        };
        Self::from(kind).because(error)
    }
}

impl From<VapidError> for Problem {
    fn from(error: VapidError) -> Self {
        Self::from(ProblemKind::VapidUnavailable).because(&error)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http_body_util::BodyExt as _;
    use serde_json::Value;

    use super::*;

    async fn document(problem: Problem) -> (Response<()>, Value) {
        let (parts, body) = problem.into_response().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (
            Response::from_parts(parts, ()),
            serde_json::from_slice(&bytes).unwrap(),
        )
    }

    #[test]
    fn every_code_is_its_own() {
        let codes: HashSet<_> = ProblemKind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes.len(), ProblemKind::ALL.len());
    }

    #[tokio::test]
    async fn every_429_and_503_says_when_to_come_back() {
        for &kind in ProblemKind::ALL {
            let (response, document) = document(kind.into()).await;
            let waits = matches!(kind.status().as_u16(), 429 | 503);
            assert_eq!(
                response.headers().contains_key(RETRY_AFTER),
                waits,
                "{kind}"
            );
            assert_eq!(document["status"], response.status().as_u16());
            assert_eq!(document["success"], false);
            assert_eq!(document["detail"], document["message"]);
            assert_eq!(response.extensions().get(), Some(&kind));
        }
    }

    #[tokio::test]
    async fn a_401_is_what_the_replaced_server_said() {
        let (response, document) = document(ProblemKind::WrongCredentials.into()).await;
        assert_eq!(document["error"], "Wrong password");
        assert_eq!(
            response.headers()[WWW_AUTHENTICATE],
            "Basic realm=\"Login Required\""
        );
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    }

    #[test]
    fn a_wait_is_rounded_up() {
        assert_eq!(retry_after(Duration::ZERO), "1");
        assert_eq!(retry_after(Duration::from_millis(9001)), "10");
    }

    #[test]
    fn a_broadcast_is_refused_as_an_outbox_refuses_it() {
        for refusal in [
            Refusal::InvalidJson("message"),
            Refusal::BodyTooLarge,
            Refusal::MissingContent,
            Refusal::AmbiguousContent,
            Refusal::PayloadTooLarge,
            Refusal::InvalidTtl,
            Refusal::InvalidUrgency,
            Refusal::InvalidTopic,
            Refusal::InvalidSendAt,
            Refusal::InvalidPace,
            Refusal::InvalidAudience,
            Refusal::InvalidIdempotencyKey,
            Refusal::InvalidId,
            Refusal::InvalidMember(InvalidMember {
                name: None,
                detail: String::new(),
            }),
        ] {
            let code = refusal.code();
            assert_eq!(Problem::from(refusal).kind().code(), code);
        }
    }

    #[test]
    fn the_codes_of_the_values_are_kept() {
        use SubscriptionErrorKind as Kind;
        for kind in [
            Kind::InvalidJson,
            Kind::MissingEndpoint,
            Kind::InvalidEndpoint,
            Kind::EndpointTooLong,
            Kind::MissingKeys,
            Kind::InvalidP256dh,
            Kind::InvalidAuth,
            Kind::InvalidExpirationTime,
            Kind::InvalidId,
        ] {
            assert_eq!(
                Problem::from(SubscriptionError::from(kind)).kind().code(),
                kind.code()
            );
        }
    }
}
