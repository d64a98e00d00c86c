//! The checks that RFC 8030 and RFC 8292 require of a request, in the order of the text.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::refusal::RefusalReason as Reason;
use crate::deliver::PushService;
use crate::encryption::MAX_BODY;
use crate::error::BoxError;
use crate::message::{Ttl, Urgency};

/// The parsed headers.
pub(super) struct Head {
    pub(super) ttl: Ttl,
    pub(super) urgency: Urgency,
    pub(super) topic: Option<Box<str>>,
}

impl Head {
    /// Checks what is known before the body.
    pub(super) fn check(
        service: PushService,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Self, Reason> {
        if method != Method::POST {
            return Err(Reason::Method);
        }
        let ttl: Ttl = single(headers, &HeaderName::from_static("ttl"))
            .ok()
            .flatten()
            .and_then(|ttl| ttl.parse().ok())
            .ok_or(Reason::Ttl)?;
        let no_cache = HeaderValue::from_static("no-cache");
        if service == PushService::Wns
            && ttl == Ttl::ZERO
            && headers.get("x-wns-cache-policy") != Some(&no_cache)
        {
            return Err(Reason::CachePolicy);
        }
        let urgency = single(headers, &HeaderName::from_static("urgency"))
            .map_err(|_| Reason::Urgency)?
            .map_or(Ok(Urgency::Normal), str::parse)
            .map_err(|_| Reason::Urgency)?;
        let topic =
            single(headers, &HeaderName::from_static("topic")).map_err(|_| Reason::Topic)?;
        if topic.is_some_and(|topic| !is_topic(service, topic)) {
            return Err(Reason::Topic);
        }
        Ok(Self {
            ttl,
            urgency,
            topic: topic.map(Box::from),
        })
    }
}

/// RFC 8030 section 5.4. Apple decodes the topic, and a length of 4n + 1 cannot be decoded.
fn is_topic(service: PushService, topic: &str) -> bool {
    let base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=32).contains(&topic.len())
        && topic.bytes().all(base64url)
        && (service != PushService::Apple || topic.len() % 4 != 1)
}

/// Reads the whole body, up to the size that every push service must accept (RFC 8030 section 7.2).
pub(super) async fn read<B>(body: B) -> Result<Bytes, Reason>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(Reason::TooLarge);
    }
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Reason::TooLarge),
        Err(_) => Err(Reason::BrokenBody),
    }
}

/// RFC 8291 section 4: only this coding. An empty body needs none.
pub(super) fn content_encoding(headers: &HeaderMap, body: &Bytes) -> Result<(), Reason> {
    match single(headers, &CONTENT_ENCODING) {
        Ok(Some(coding)) if coding.eq_ignore_ascii_case("aes128gcm") => Ok(()),
        Ok(None) if body.is_empty() => Ok(()),
        _ => Err(Reason::ContentEncoding),
    }
}

/// Parses the credentials. Returns an error if they are required and missing.
pub(super) fn authorization(
    headers: &HeaderMap,
    required: bool,
) -> Result<Option<&HeaderValue>, Reason> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (None, _) if required => Err(Reason::NoCredentials),
        (None, _) => Ok(None),
        (Some(value), None) => Ok(Some(value)),
        (Some(_), Some(_)) => Err(Reason::BadCredentials(
            crate::vapid::VapidErrorKind::InvalidCredentials,
        )),
    }
}

/// Returns the octets of the sender's public key in a body (RFC 8291 section 4).
pub(super) fn sender_key(body: &[u8]) -> Option<&[u8]> {
    body.get(21..86)
}

/// Returns a header's only value. Several values, or one that is not text, are an error.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(());
    }
    value.to_str().map(Some).map_err(|_| ())
}
