//! The result of an attempt: [`Accepted`] or [`DeliveryError`].

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use http::header::LOCATION;
use http::{HeaderMap, StatusCode};

use super::classify::printable;
use super::endpoint_policy::PolicyError;
use super::resolver::{ResolveError, ResolveErrorKind};
use super::{Closed, Outcome, PushService, Verdict};
use crate::clock::Timestamp;
use crate::error::BoxError;
use crate::message::Ttl;
use crate::push_request::Push;

/// The push service accepted the message: it is stored or being delivered, not necessarily shown.
///
/// # Security
///
/// The location is a capability, like the endpoint (RFC 8030 section 8.3): `Debug` omits it.
#[derive(Clone)]
pub struct Accepted {
    push_service: PushService,
    status: StatusCode,
    location: Option<Box<str>>,
    ttl: Option<Ttl>,
    diagnostics: Diagnostics,
}

impl Accepted {
    pub(crate) fn new(push_service: PushService, status: StatusCode, headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name)?.to_str().ok();
        Self {
            push_service,
            status,
            location: text(LOCATION.as_str()).map(Into::into),
            ttl: text("ttl").and_then(|ttl| ttl.trim().parse().ok()),
            diagnostics: Diagnostics::of(headers),
        }
    }

    /// The push service that accepted the message.
    #[must_use]
    pub const fn push_service(&self) -> PushService {
        self.push_service
    }

    /// The status: 201 by RFC 8030 section 5. Any 2xx counts, since gateways answer 200.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The message resource (RFC 8030 section 5), as in the response. Mozilla cancels the message on a `DELETE` of it.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }

    /// How long the push service keeps the message, if the response says so (RFC 8030 section 5.2).
    #[must_use]
    pub const fn ttl(&self) -> Option<Ttl> {
        self.ttl
    }

    /// The push service's own identifiers of this exchange, for its support: header name and value.
    pub fn diagnostics(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.diagnostics.iter()
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted")
            .field("push_service", &self.push_service)
            .field("status", &self.status)
            .field("location", &self.location.is_some())
            .field("ttl", &self.ttl)
            .field("diagnostics", &self.diagnostics)
            .finish()
    }
}

/// A message was not accepted: [`outcome`](Self::outcome) says what to do next.
///
/// Neither `Display` nor `Debug` shows the endpoint.
pub struct DeliveryError(Box<Inner>);

struct Inner {
    outcome: Outcome,
    push_service: PushService,
    status: Option<StatusCode>,
    reason: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    closed: Option<Closed>,
    is_host_not_found: bool,
    diagnostics: Diagnostics,
    source: Option<BoxError>,
}

impl DeliveryError {
    pub(crate) fn new(outcome: Outcome, push_service: PushService) -> Self {
        Self(Box::new(Inner {
            outcome,
            push_service,
            status: None,
            reason: None,
            retry_after: None,
            closed: None,
            is_host_not_found: false,
            diagnostics: Diagnostics::default(),
            source: None,
        }))
    }

    /// A response that is not an acceptance.
    pub(crate) fn answered(
        push_service: PushService,
        status: StatusCode,
        headers: &HeaderMap,
        verdict: Verdict,
    ) -> Self {
        let mut error = Self::new(verdict.outcome, push_service);
        error.0.status = Some(status);
        error.0.reason = verdict.reason;
        error.0.retry_after = verdict.retry_after;
        error.0.diagnostics = Diagnostics::of(headers);
        error
    }

    /// The client failed. A [`PolicyError`] among the causes is a refusal; any other failure is transient. An error of this
    /// process says nothing about the host.
    pub(crate) fn client(push_service: PushService, source: BoxError) -> Self {
        let refusal = find_source::<PolicyError>(source.as_ref()).map(PolicyError::kind);
        let lookup = find_source::<ResolveError>(source.as_ref()).map(ResolveError::kind);
        let mut error = match refusal {
            Some(_) => Self::new(Outcome::Refused, push_service),
            None => Self::new(Outcome::Transient, push_service),
        };
        let is_local = refusal.is_none() && is_local(source.as_ref());
        let is_not_found = lookup == Some(ResolveErrorKind::NotFound);
        error.0.is_host_not_found = refusal.is_none() && !is_local && is_not_found;
        error.0.reason = match refusal {
            Some(kind) => Some(kind.code().into()),
            None => error.0.is_host_not_found.then(|| HOST_NOT_FOUND.into()),
        };
        if is_local {
            error.0.reason = Some(LOCAL.into());
        }
        error.0.source = Some(source);
        error
    }

    /// Whether this machine could not send, or its client ended meanwhile: neither the push service nor the subscription
    /// failed.
    pub(crate) fn is_local(&self) -> bool {
        self.0.status.is_none() && self.reason() == Some(LOCAL)
    }

    /// Whether the client lost a connection that it had. Of any client but our own that is not known: it is what
    /// happens to many requests at once.
    pub(super) fn has_broken_off(&self) -> bool {
        let Some(source) = self.0.source.as_deref() else {
            return false;
        };
        #[cfg(feature = "client")]
        let is_dial = find_source::<super::dialled::DialError>(source).is_some();
        #[cfg(not(feature = "client"))]
        let is_dial = {
            let _ = source;
            false
        };
        !is_dial
    }

    /// Whether the push service asked the client's connection to be calm (RFC 9113 section 7).
    pub(super) fn is_asked_to_be_calm(&self) -> bool {
        #[cfg(feature = "client")]
        if let Some(source) = self.0.source.as_deref() {
            return find_source::<h2::Error>(source).is_some_and(super::unprocessed::asks_for_calm);
        }
        false
    }

    pub(super) fn refused(push_service: PushService, source: PolicyError) -> Self {
        Self::client(push_service, source.into())
    }

    /// The gate is closed: nothing was sent.
    pub(crate) fn closed_gate(push_service: PushService, closed: Closed, now: Timestamp) -> Self {
        let mut error = Self::new(Outcome::RateLimited, push_service);
        error.0.reason = Some(closed.reason.as_str().into());
        error.0.retry_after = Some(closed.until.since(now));
        error.0.closed = Some(closed);
        error
    }

    /// The deadline or a limit of the caller came first: nothing was sent.
    pub(crate) fn not_begun(push: &Push, now: Timestamp) -> Self {
        let push_service = PushService::of(push.subscription().endpoint());
        let reason = if now >= push.deadline() {
            TOO_LATE
        } else {
            NOT_BEGUN
        };
        Self::new(Outcome::Transient, push_service).with_reason(reason)
    }

    pub(crate) fn is_too_late(&self) -> bool {
        self.0.status.is_none() && self.reason() == Some(TOO_LATE)
    }

    fn is_not_begun(&self) -> bool {
        self.0.status.is_none() && self.reason() == Some(NOT_BEGUN)
    }

    /// Whether nothing was sent, for a reason that is not the push's own.
    pub(crate) fn is_unasked(&self) -> bool {
        self.closed().is_some() || self.is_too_late() || self.is_not_begun() || self.is_local()
    }

    pub(super) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(super) fn with_reason(mut self, reason: &'static str) -> Self {
        self.0.reason = Some(reason.into());
        self
    }

    /// What to do next; never [`Outcome::Accepted`].
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// The status of the response; `None` if there was none, or nothing was sent.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// The shortest wait before the next attempt: from `Retry-After` or its WNS equivalent, at most a day (an hour for a
    /// host that is no known push service); for a closed gate the time until it opens.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The push service of the endpoint.
    #[must_use]
    pub fn push_service(&self) -> PushService {
        self.0.push_service
    }

    /// The reason behind the outcome, printable ASCII of at most 128 octets: Mozilla's errno, Apple's reason, a header of
    /// WNS, a known phrase of FCM; `endpoint_not_allowed` for a refusal; `host_not_found`; `timeout`; `deadline` if it
    /// passed before the request could begin; `not_begun` if the wait for a permit or the client was too long for the
    /// caller; `local` if this machine had no file handles or memory left to send, its resolver does not work or gives a
    /// push service an address that is not public, or the client was shut down; the name of a [`PauseReason`](crate::store::PauseReason) for a closed gate.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    /// Whether nothing was sent because the endpoint's host name does not exist: a
    /// [`ResolveError`] of the kind [`NotFound`](ResolveErrorKind::NotFound) is among the causes. The outcome is
    /// [`Transient`](Outcome::Transient).
    ///
    /// The built-in client reports this only while its resolver finds other names. A client of your own must be as
    /// careful: in the long run the subscription is retired.
    #[must_use]
    pub fn is_host_not_found(&self) -> bool {
        self.0.is_host_not_found
    }

    /// The end and the reason of the pause if the origin's gate was closed. Nothing was sent, and the attempt does not
    /// count.
    #[must_use]
    pub fn closed(&self) -> Option<Closed> {
        self.0.closed
    }

    /// The push service's own identifiers of this exchange, for its support: header name and value, never the endpoint.
    pub fn diagnostics(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.diagnostics.iter()
    }
}

/// The reason of a push whose deadline passed before its request could begin.
const TOO_LATE: &str = "deadline";
/// The reason of a push whose request could not begin while its row was leased, or before the worker stopped.
const NOT_BEGUN: &str = "not_begun";
/// The reason of a push that this machine could not send.
const LOCAL: &str = "local";

impl fmt::Debug for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        let mut debug = f.debug_struct("DeliveryError");
        debug.field("outcome", &inner.outcome);
        debug.field("push_service", &inner.push_service);
        if let Some(status) = inner.status {
            debug.field("status", &status.as_u16());
        }
        if let Some(reason) = &inner.reason {
            debug.field("reason", reason);
        }
        if let Some(retry_after) = inner.retry_after {
            debug.field("retry_after", &retry_after);
        }
        if let Some(closed) = inner.closed {
            debug.field("closed", &closed);
        }
        if !inner.diagnostics.0.is_empty() {
            debug.field("diagnostics", &inner.diagnostics);
        }
        // The cause is the client's and may contain the URL: it is available as `source` only.
        debug.finish_non_exhaustive()
    }
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.closed.is_some() {
            return f.write_str("requests to the push service are paused");
        }
        if self.is_too_late() {
            return f.write_str("the deadline passed before the request could begin");
        }
        if self.is_not_begun() {
            return f.write_str("the request could not begin in time");
        }
        if self.is_local() {
            return f.write_str("this machine lacks what it needs to send: file handles, memory, ports, or a resolver that works");
        }
        f.write_str(match self.0.outcome {
            Outcome::Accepted => "the push service accepted the message",
            Outcome::Gone => "the subscription no longer exists",
            Outcome::KeyMismatch => "the subscription was made with another VAPID key",
            Outcome::SenderFault => "the push service refuses the VAPID token",
            Outcome::TooLarge => "the message is larger than the push service accepts",
            Outcome::BadRequest => "the push service will never accept this request",
            Outcome::RateLimited => "the push service limits requests",
            Outcome::Transient => "the push service could not be reached or failed",
            Outcome::Refused => "the endpoint policy forbids sending there",
        })
    }
}

impl StdError for DeliveryError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.0.source.as_deref()?;
        Some(source)
    }
}

const HOST_NOT_FOUND: &str = "host_not_found";

/// Header names and values that identify an exchange without the endpoint.
#[derive(Clone, Default)]
struct Diagnostics(Vec<(&'static str, Cow<'static, str>)>);

impl Diagnostics {
    const HEADERS: [&'static str; 3] = ["apns-id", "x-wns-msg-id", "ms-cv"];

    fn of(headers: &HeaderMap) -> Self {
        let value = |name| Some((name, printable(headers.get(name)?.as_bytes())?));
        Self(Self::HEADERS.into_iter().filter_map(value).collect())
    }

    fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_ref()))
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Whether one of the causes is that this machine has no file handles, buffers, memory, connections of the client's budget
/// or lookup threads left, that its resolver finds no name at all, or that it is shutting down. The standard library has no
/// kind for these errors of Unix: ENOMEM, ENFILE, EMFILE, ENOBUFS (Linux, and BSD with macOS).
fn is_local(error: &(dyn StdError + 'static)) -> bool {
    #[cfg(feature = "client")]
    if find_source::<super::local_error::LocalError>(error).is_some() {
        return true;
    }
    #[cfg(feature = "client")]
    if find_source::<hyper::Error>(error).is_some_and(hyper::Error::is_user) {
        // What hyper calls the user is us: the task that drives the connection is gone, since the client or its runtime ends.
        return true;
    }
    const EXHAUSTED: [i32; 5] = [12, 23, 24, 105, 55];
    causes(error).any(|cause| {
        let code = cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error);
        cfg!(unix) && code.is_some_and(|code| EXHAUSTED.contains(&code))
    })
}

/// The first `T` among an error and its causes.
pub(super) fn find_source<'a, T: StdError + 'static>(
    error: &'a (dyn StdError + 'static),
) -> Option<&'a T> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// An error and its causes.
fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let cause = |error: &&'a (dyn StdError + 'static)| -> Option<&'a (dyn StdError + 'static)> {
        let error = *error;
        // The source of an `io::Error` is the source of the error it wraps, not that error itself.
        match error.downcast_ref::<std::io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
            None => error.source(),
        }
    };
    std::iter::successors(Some(error), cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::PolicyErrorKind;

    #[test]
    fn a_client_that_names_the_url_does_not_show_in_debug() {
        let source = "error sending request for url (https://push.example.net/secret)";
        let error = DeliveryError::client(PushService::Other, source.into());
        assert!(!format!("{error:?} {error}").contains("secret"));
        assert!(error.source().is_some());
    }

    /// Whatever a push service writes, it has answered.
    #[test]
    fn no_response_is_taken_for_a_request_that_was_not_sent() {
        for reason in [LOCAL, TOO_LATE, NOT_BEGUN] {
            let verdict = Verdict {
                outcome: Outcome::Gone,
                reason: Some(reason.into()),
                retry_after: None,
            };
            let headers = HeaderMap::new();
            let gone = StatusCode::GONE;
            let error = DeliveryError::answered(PushService::Other, gone, &headers, verdict);
            assert_eq!(error.reason(), Some(reason));
            assert!(!error.is_unasked(), "{reason}");
        }
    }

    #[test]
    fn debug_shows_neither_location_nor_other_headers() {
        let mut headers = HeaderMap::new();
        headers.insert(
            LOCATION,
            "https://push.example.com/m/secret".parse().unwrap(),
        );
        headers.insert("apns-id", "6F9C".parse().unwrap());
        headers.insert("ttl", "60".parse().unwrap());
        let accepted = Accepted::new(PushService::Apple, StatusCode::CREATED, &headers);
        assert_eq!(
            accepted.location(),
            Some("https://push.example.com/m/secret")
        );
        assert_eq!(accepted.ttl(), Some(Ttl::from_secs(60)));
        assert_eq!(
            accepted.diagnostics().collect::<Vec<_>>(),
            [("apns-id", "6F9C")]
        );
        let debug = format!("{accepted:?}");
        assert!(
            !debug.contains("secret") && debug.contains("6F9C"),
            "{debug}"
        );
    }

    /// As when the runtime ends that drives the connections.
    #[cfg(feature = "client")]
    #[tokio::test]
    async fn the_end_of_our_own_connection_task_is_local() {
        let (ours, theirs) = tokio::io::duplex(1024);
        let io = hyper_util::rt::TokioIo::new(ours);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(http::Request::new(String::new()));
        let answer = tokio::spawn(answer);
        let mut theirs = tokio::io::BufReader::new(theirs);
        tokio::io::AsyncReadExt::read_u8(&mut theirs).await.unwrap();
        connection.abort();
        let error = answer.await.unwrap().unwrap_err();
        let error = DeliveryError::client(PushService::Other, error.into());
        assert!(error.is_local(), "{error:?}");

        // A server that closes the connection is another thing.
        let (ours, theirs) = tokio::io::duplex(1024);
        let io = hyper_util::rt::TokioIo::new(ours);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let answer = sender.send_request(http::Request::new(String::new()));
        drop(theirs);
        let error = answer.await.unwrap_err();
        let error = DeliveryError::client(PushService::Other, error.into());
        assert!(!error.is_local(), "{error:?}");
    }

    /// Of any client over h2.
    #[cfg(feature = "client")]
    #[tokio::test]
    async fn a_reset_with_enhance_your_calm_asks_to_be_calm() {
        for (reason, is_asked) in [
            (h2::Reason::ENHANCE_YOUR_CALM, true),
            (h2::Reason::CANCEL, false),
        ] {
            let (ours, theirs) = tokio::io::duplex(1024);
            let server = tokio::spawn(async move {
                let mut server = h2::server::handshake(theirs).await.unwrap();
                while let Some(Ok((_, mut respond))) = server.accept().await {
                    respond.send_reset(reason);
                }
            });
            let (mut sender, connection) = h2::client::handshake(ours).await.unwrap();
            let connection = tokio::spawn(connection);
            let request = http::Request::get("https://push.example.com/");
            let request = request.body(()).unwrap();
            let (response, _) = sender.send_request(request, true).unwrap();
            let error = response.await.unwrap_err();
            let error = DeliveryError::client(PushService::Other, error.into());
            assert_eq!(error.is_asked_to_be_calm(), is_asked);
            server.abort();
            connection.abort();
        }
    }

    #[test]
    fn a_ttl_that_is_no_number_is_not_there() {
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static("ttl"),
            "soon".parse().unwrap(),
        )]);
        let accepted = Accepted::new(PushService::Other, StatusCode::OK, &headers);
        assert_eq!(accepted.ttl(), None);
    }

    #[test]
    fn a_refusal_is_found_however_deep_it_lies() {
        #[derive(Debug)]
        struct Outer(BoxError);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("outer")
            }
        }
        impl StdError for Outer {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(self.0.as_ref())
            }
        }
        let refusal = PolicyError::from(PolicyErrorKind::PrivateAddress);
        let io = std::io::Error::other(Outer(refusal.into()));
        let error = DeliveryError::client(PushService::Other, Outer(io.into()).into());
        assert_eq!(error.outcome(), Outcome::Refused);
        assert_eq!(error.reason(), Some("endpoint_not_allowed"));
        let other = DeliveryError::client(
            PushService::Other,
            Outer(std::io::Error::other("x").into()).into(),
        );
        assert_eq!(other.outcome(), Outcome::Transient);
        assert_eq!(other.source().unwrap().to_string(), "outer");
    }

    #[test]
    fn only_a_name_that_certainly_does_not_exist_is_not_found() {
        let found = |kind: ResolveErrorKind| {
            let dial = std::io::Error::other(ResolveError::from(kind));
            DeliveryError::client(PushService::Other, dial.into())
        };
        let error = found(ResolveErrorKind::NotFound);
        assert_eq!(error.outcome(), Outcome::Transient);
        assert!(error.is_host_not_found());
        assert_eq!(error.reason(), Some("host_not_found"));
        let error = found(ResolveErrorKind::Temporary);
        assert_eq!((error.is_host_not_found(), error.reason()), (false, None));
    }

    #[test]
    fn an_error_is_one_word_wide() {
        assert_eq!(size_of::<DeliveryError>(), size_of::<usize>());
    }
}
