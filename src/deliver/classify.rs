//! The classification of a response: status, headers and the first octets of the body to one [`Outcome`].
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::retry_after::retry_after;
use super::{Outcome, PushService};
use crate::clock::Timestamp;

/// The classification of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// What the sender does next.
    pub outcome: Outcome,
    /// The reason in the push service's own words: an errno, a reason, a header. Printable ASCII, at most 128 octets.
    pub reason: Option<Cow<'static, str>>,
    /// The wait that the push service asks for; only with an outcome that is retried.
    pub retry_after: Option<Duration>,
}

/// The number of octets that are read of the body of a failed response.
pub(super) const BODY_LIMIT: usize = 8 * 1024;

/// Classifies a response.
///
/// Responses of known services are classified by status and text, without regard to case, and by status if the text is
/// unknown; those of any other host by status alone. Only the first 8 KiB of `body` count. `now` is used if the response
/// has no `Date`.
#[must_use]
pub fn classify(
    service: PushService,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Verdict {
    let body = body.get(..BODY_LIMIT).unwrap_or(body);
    let (outcome, reason) = match service {
        PushService::Fcm => fcm(status, body),
        PushService::Mozilla => mozilla(status, body),
        PushService::Apple => apple(status, body),
        PushService::Wns => wns(status, headers),
        PushService::Meta | PushService::Other => (by_status(status), None),
    };
    let retry_after = outcome
        .is_retryable()
        .then(|| retry_after(service, headers, now))
        .flatten();
    Verdict {
        outcome,
        reason,
        retry_after,
    }
}

type Meaning = (Outcome, Option<Cow<'static, str>>);

/// The outcome by status alone: RFC 8030 sections 5, 7.2, 7.3 and 8.4, RFC 8292 section 4.2.
fn by_status(status: StatusCode) -> Outcome {
    match status.as_u16() {
        200..=299 => Outcome::Accepted,
        401 | 403 => Outcome::SenderFault,
        404 | 410 => Outcome::Gone,
        408 | 425 => Outcome::Transient,
        413 => Outcome::TooLarge,
        429 => Outcome::RateLimited,
        // ntfy answers 507 if a topic has no active subscriber.
        500.. => Outcome::Transient,
        // Other 4xx, and any redirect: following one would leave the checked host, so the endpoint is bad.
        _ => Outcome::BadRequest,
    }
}

/// Plain text or HTML, recognised by fragments; the same fragment may come with more than one status.
fn fcm(status: StatusCode, body: &[u8]) -> Meaning {
    const TOO_LARGE: &str = "binary data passed in the request must be less than";
    static MISMATCH: [&str; 3] = [
        "UnauthorizedRegistration",
        "MismatchSenderId",
        "do not correspond",
    ];
    static REASONS: [&str; 4] = [
        "InvalidTtlParameter",
        "NotRegistered",
        "push subscription has unsubscribed or expired",
        "invalid JWT provided",
    ];
    let first = |texts: &'static [&'static str]| {
        let found = texts.iter().find(|text| contains(body, text));
        found.map(|text| Cow::Borrowed(*text))
    };
    let outcome = by_status(status);
    match status.as_u16() {
        400 if contains(body, TOO_LARGE) => (Outcome::TooLarge, Some(TOO_LARGE.into())),
        400 | 403 => first(&MISMATCH).map_or_else(
            || (outcome, first(&REASONS)),
            |text| (Outcome::KeyMismatch, Some(text)),
        ),
        200..=299 => (outcome, None),
        _ => (outcome, first(&REASONS)),
    }
}

/// JSON with an `errno`, which can be null (autopush).
fn mozilla(status: StatusCode, body: &[u8]) -> Meaning {
    #[derive(Deserialize)]
    struct Answer {
        errno: Option<u32>,
    }
    let errno = serde_json::from_slice(body)
        .ok()
        .and_then(|answer: Answer| answer.errno);
    let reason = errno.map(|errno| errno.to_string().into());
    // Every VAPID failure is 401 with errno 109; only the message distinguishes a mismatch.
    let outcome = match status.as_u16() {
        401 if contains(body, "key mismatch") => Outcome::KeyMismatch,
        _ => by_status(status),
    };
    (outcome, reason)
}

/// JSON with a `reason`.
fn apple(status: StatusCode, body: &[u8]) -> Meaning {
    #[derive(Deserialize)]
    struct Answer {
        reason: String,
    }
    let reason = serde_json::from_slice(body)
        .ok()
        .and_then(|answer: Answer| printable(answer.reason.as_bytes()));
    let is = |word: &str| {
        reason
            .as_deref()
            .is_some_and(|reason| reason.eq_ignore_ascii_case(word))
    };
    // Apple does not document the status of each reason, so 400, 401 and 403 are treated alike.
    let outcome = match status.as_u16() {
        400 | 401 | 403 if is("VapidPkHashMismatch") => Outcome::KeyMismatch,
        400 if is("BadVapidPublicKey") || is("BadAuthorizationHeader") || is("BadJwtToken") => {
            Outcome::SenderFault
        }
        400..=499 if is("IdleTimeout") => Outcome::Transient,
        _ => by_status(status),
    };
    (outcome, reason)
}

/// Headers only; the body is empty.
fn wns(status: StatusCode, headers: &HeaderMap) -> Meaning {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|value| printable(value.as_bytes()))
    };
    let delivery = header("x-wns-status");
    let is = |word: &str| {
        delivery
            .as_deref()
            .is_some_and(|status| status.eq_ignore_ascii_case(word))
    };
    let outcome = match status.as_u16() {
        // The message was taken and dropped at once.
        200..=299 if is("dropped") || is("channelthrottled") || is("appthrottled") => {
            Outcome::RateLimited
        }
        406 => Outcome::RateLimited,
        // 401 has no reason and covers a mismatch too; a sender fault retires no row.
        _ => by_status(status),
    };
    let reason = header("x-wns-error-description")
        .or_else(|| header("x-wns-notificationstatus"))
        .or(delivery);
    (outcome, reason)
}

/// Whether `body` contains `text`, without regard to ASCII case.
fn contains(body: &[u8], text: &str) -> bool {
    body.windows(text.len())
        .any(|window| window.eq_ignore_ascii_case(text.as_bytes()))
}

/// The text if it is short printable ASCII: nothing else of a response gets into errors and logs.
pub(super) fn printable(text: &[u8]) -> Option<Cow<'static, str>> {
    let plain = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    if text.is_empty() || text.len() > 128 || !text.iter().all(plain) {
        return None;
    }
    String::from_utf8(text.to_vec()).ok().map(Cow::Owned)
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
