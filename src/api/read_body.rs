//! Request bodies, read with a limit of size and time.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body::Body;

use super::problem::{Problem, ProblemKind};
use crate::json::without_bom;

/// The limits of a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// Octets.
    pub(crate) size: usize,
    /// The time from the first poll of the body to its end.
    pub(crate) time: Duration,
}

impl Default for BodyLimits {
    /// 64 KiB within 10 seconds.
    fn default() -> Self {
        Self {
            size: 64 * 1024,
            time: Duration::from_secs(10),
        }
    }
}

/// Refuses a body that is declared as anything other than plain JSON, before any of it is read. Returns whether the
/// type is declared.
pub(super) fn check_head(headers: &HeaderMap) -> Result<bool, Problem> {
    let is_declared = check_type(headers)?;
    check_coding(headers)?;
    Ok(is_declared)
}

/// Reads the JSON text of a request whose head [was checked](check_head). Returns no octets for a request without a
/// body.
///
/// Only a body needs a `Content-Type` (RFC 9110 section 8.3): without one, the first octet is refused. An HTML form of
/// another site can send neither JSON nor a body without a type, so this is a part of the defence against cross-site
/// requests.
///
/// Needs a tokio runtime with its timer enabled.
pub(super) async fn read_json<B>(
    headers: &HeaderMap,
    is_declared: bool,
    body: B,
    limits: BodyLimits,
) -> Result<Vec<u8>, Problem>
where
    B: Body + Send,
    B::Data: Send,
{
    if is_declared {
        let mut body = read_body(headers, body, limits).await?;
        let mark = body.len().saturating_sub(without_bom(&body).len());
        body.drain(..mark);
        return Ok(body);
    }
    let nothing = BodyLimits { size: 0, ..limits };
    read_body(headers, body, nothing)
        .await
        .map_err(|problem| match problem.kind() {
            ProblemKind::BodyTooLarge => ProblemKind::UnsupportedMediaType.into(),
            _ => problem,
        })
}

/// Returns whether a body is declared as JSON: `false` without a `Content-Type`, an error for another one.
fn check_type(headers: &HeaderMap) -> Result<bool, Problem> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let Some(declared) = types.next() else {
        return Ok(false);
    };
    // RFC 9110 section 8.3.1: parameters such as charset may follow, the type ignores case.
    let essence = declared.to_str().unwrap_or_default().split(';').next();
    match essence.map(str::trim) {
        Some(essence)
            if essence.eq_ignore_ascii_case("application/json") && types.next().is_none() =>
        {
            Ok(true)
        }
        _ => Err(ProblemKind::UnsupportedMediaType.into()),
    }
}

/// Refuses a body that would have to be decoded first (RFC 9110 section 8.4). The refusal names the coding.
fn check_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let codings = headers.get_all(CONTENT_ENCODING).iter();
    let coding = codings
        .flat_map(|value| value.as_bytes().split(|octet| *octet == b','))
        .map(<[u8]>::trim_ascii)
        .find(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
    let Some(coding) = coding else {
        return Ok(());
    };
    let problem = Problem::from(ProblemKind::UnsupportedContentEncoding);
    let is_name = coding.len() <= LONGEST_NAMED_CODING && coding.iter().all(is_token);
    Err(match std::str::from_utf8(coding) {
        Ok(name) if is_name => problem.with_detail(format!(
            "Content-Encoding {name} is not supported: send the body without an encoding."
        )),
        _ => problem,
    })
}

/// `tchar` of RFC 9110 section 5.6.2, as far as names of codings use it.
const fn is_token(octet: &u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(*octet, b'-' | b'_' | b'.' | b'+')
}

/// The longest name of a coding that a refusal repeats, in octets. Registered ones have at most 12.
const LONGEST_NAMED_CODING: usize = 32;

/// Reads a body to its end.
async fn read_body<B>(headers: &HeaderMap, body: B, limits: BodyLimits) -> Result<Vec<u8>, Problem>
where
    B: Body + Send,
    B::Data: Send,
{
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let at_least = body.size_hint().lower().max(declared.unwrap_or(0));
    if usize::try_from(at_least).map_or(true, |least| least > limits.size) {
        return Err(ProblemKind::BodyTooLarge.into());
    }
    match tokio::time::timeout(limits.time, collect(body, limits.size)).await {
        Ok(read) => read,
        Err(_) => Err(ProblemKind::BodyTimeout.into()),
    }
}

/// Empty frames and trailers have no size, so their number is limited.
const MOST_FRAMES: usize = 64 * 1024;

async fn collect<B>(body: B, limit: usize) -> Result<Vec<u8>, Problem>
where
    B: Body + Send,
    B::Data: Send,
{
    let mut body = pin!(body);
    let mut read = Vec::new();
    let mut frames = 0_usize;
    loop {
        // Drops the error at once: it need not be `Send`.
        let next = poll_fn(|cx| {
            body.as_mut()
                .poll_frame(cx)
                .map(Option::transpose)
                .map_err(drop)
        });
        let frame = match next.await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(read),
            Err(()) => return Err(ProblemKind::IncompleteBody.into()),
        };
        frames = frames.saturating_add(1);
        if frames > MOST_FRAMES {
            return Err(ProblemKind::BodyTooLarge.into());
        }
        if let Ok(data) = frame.into_data() {
            if data.remaining() > limit.saturating_sub(read.len()) {
                return Err(ProblemKind::BodyTooLarge.into());
            }
            read.put(data);
        }
        // Lets the timeout run: a body that is always ready would starve it.
        if frames.is_multiple_of(64) {
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http::HeaderValue;
    use http_body::Frame;
    use http_body_util::{BodyExt as _, Full, StreamBody};

    use super::*;

    async fn read<B>(body: B) -> Result<Vec<u8>, ProblemKind>
    where
        B: Body + Send,
        B::Data: Send,
    {
        let read = read_body(&HeaderMap::new(), body, BodyLimits::default()).await;
        read.map_err(|problem| problem.kind())
    }

    /// Yields the same frame for ever, after a delay if there is one.
    struct Endless(
        &'static [u8],
        Option<Duration>,
        Option<Pin<Box<tokio::time::Sleep>>>,
    );

    impl Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if let Some(pause) = self.1 {
                let sleep = self
                    .2
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
                std::task::ready!(sleep.as_mut().poll(cx));
                self.2 = None;
            }
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(self.0)))))
        }
    }

    #[tokio::test]
    async fn the_limit_is_exact() {
        let body = |len: usize| Full::new(Bytes::from(vec![b' '; len]));
        assert_eq!(read(body(65_536)).await.unwrap().len(), 65_536);
        assert_eq!(read(body(65_537)).await, Err(ProblemKind::BodyTooLarge));
    }

    #[tokio::test]
    async fn a_declared_length_is_believed_before_anything_is_read() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("65537"));
        let body = Endless(b"", Some(Duration::from_secs(3600)), None);
        let refused = read_body(&headers, body, BodyLimits::default()).await;
        assert_eq!(refused.unwrap_err().kind(), ProblemKind::BodyTooLarge);
    }

    #[tokio::test]
    async fn odd_frames_are_put_together() {
        let frames: VecDeque<Result<_, Infallible>> = [
            Frame::data(Bytes::new()),
            Frame::data(Bytes::from_static(b"{")),
            Frame::data(Bytes::new()),
            Frame::data(Bytes::from_static(b"}")),
            Frame::trailers(HeaderMap::new()),
        ]
        .map(Ok)
        .into();
        let body = StreamBody::new(futures_util::stream::iter(frames));
        assert_eq!(read(body).await.unwrap(), b"{}");
    }

    #[tokio::test]
    async fn an_endless_body_is_cut_off_with_any_frames() {
        for frame in [&b""[..], b"x", b"a longer one"] {
            let body = Endless(frame, None, None);
            assert_eq!(read(body).await, Err(ProblemKind::BodyTooLarge));
        }
    }

    #[tokio::test]
    async fn frames_count_by_their_octets() {
        // Two frames without a declared length, together one octet too many.
        let frames = |last: usize| {
            let part = |len: usize| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b' '; len])));
            StreamBody::new(futures_util::stream::iter([part(40 * 1024), part(last)]))
        };
        assert_eq!(read(frames(24 * 1024)).await.unwrap().len(), 65_536);
        assert_eq!(
            read(frames(24 * 1024 + 1)).await,
            Err(ProblemKind::BodyTooLarge)
        );
        assert_eq!(
            read(frames(40 * 1024)).await,
            Err(ProblemKind::BodyTooLarge)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_ends_after_ten_seconds_in_all() {
        let began = tokio::time::Instant::now();
        let body = Endless(b"x", Some(Duration::from_secs(3)), None);
        assert_eq!(read(body).await, Err(ProblemKind::BodyTimeout));
        assert_eq!(began.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test]
    async fn a_body_that_fails_is_incomplete() {
        let frames = vec![Ok(Frame::data(Bytes::from_static(b"{"))), Err("cut off")];
        let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        assert_eq!(read(body).await, Err(ProblemKind::IncompleteBody));
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            let value = HeaderValue::from_static(value);
            (http::HeaderName::from_static(name), value)
        };
        let mut headers = HeaderMap::new();
        for (name, value) in fields.iter().map(field) {
            headers.append(name, value);
        }
        headers
    }

    async fn read_as<B>(
        fields: &[(&'static str, &'static str)],
        body: B,
    ) -> Result<Vec<u8>, ProblemKind>
    where
        B: Body + Send,
        B::Data: Send,
    {
        let headers = headers(fields);
        let is_declared = check_head(&headers).map_err(|problem| problem.kind())?;
        let read = read_json(&headers, is_declared, body, BodyLimits::default()).await;
        read.map_err(|problem| problem.kind())
    }

    #[test]
    fn json_is_told_by_its_essence() {
        let declared = |value| check_type(&headers(&[("content-type", value)])).is_ok();
        assert!(declared("application/json"));
        assert!(declared("Application/JSON; charset=utf-8"));
        assert!(!declared("text/plain"));
        assert!(!declared("application/json, text/plain"));
        assert!(!declared("application/x-www-form-urlencoded"));
        assert!(!declared(""));
        let twice = ("content-type", "application/json");
        assert!(check_type(&headers(&[twice, twice])).is_err());
    }

    #[tokio::test]
    async fn only_an_absent_body_needs_no_type() {
        let full = |text: &'static str| Full::new(Bytes::from(text));
        let json = ("content-type", "application/json");
        assert_eq!(read_as(&[], full("")).await.unwrap(), b"");
        assert_eq!(read_as(&[json], full("")).await.unwrap(), b"");
        let undeclared = Err(ProblemKind::UnsupportedMediaType);
        assert_eq!(read_as(&[], full("{}")).await, undeclared);
        assert_eq!(
            read_as(&[("content-length", "2")], full("{}")).await,
            undeclared
        );
        // One octet is enough.
        let endless = Endless(b"x", None, None);
        assert_eq!(read_as(&[], endless).await, undeclared);
        // HTTP/2 and chunked bodies do not say beforehand that they are empty.
        let frames = [b"", b""].map(|data| Ok::<_, Infallible>(Frame::data(&data[..])));
        let empty = StreamBody::new(futures_util::stream::iter(frames));
        assert_eq!(read_as(&[], empty).await.unwrap(), b"");
        let form = ("content-type", "application/x-www-form-urlencoded");
        assert_eq!(read_as(&[form], full("")).await, undeclared);
    }

    #[tokio::test]
    async fn a_byte_order_mark_is_no_part_of_the_body() {
        let json = ("content-type", "application/json");
        for (body, expected) in [("\u{feff}{}", "{}"), ("\u{feff}", ""), ("{}", "{}")] {
            let body = Full::new(Bytes::from(body));
            assert_eq!(read_as(&[json], body).await.unwrap(), expected.as_bytes());
        }
    }

    #[test]
    fn a_coding_is_refused_by_name() {
        let check = |values: &[&'static str]| {
            let fields: Vec<_> = values.iter().map(|v| ("content-encoding", *v)).collect();
            check_coding(&headers(&fields))
        };
        for plain in [&[][..], &[""], &["identity"], &["Identity, ,identity"]] {
            assert!(check(plain).is_ok(), "{plain:?}");
        }
        for (values, name) in [
            (&["gzip"][..], "gzip"),
            (&["identity, br"], "br"),
            (&["identity", "x-gzip"], "x-gzip"),
            (&["GZIP,deflate"], "GZIP"),
        ] {
            let refused = check(values).unwrap_err();
            assert_eq!(refused.kind(), ProblemKind::UnsupportedContentEncoding);
            let text = format!("{refused:?}");
            assert!(
                text.contains(&format!("Content-Encoding {name} ")),
                "{text}"
            );
            let response = refused.into_response();
            assert_eq!(response.headers()["accept-encoding"], "identity");
        }
        // A name that is not a token is not repeated.
        for odd in ["<b>", "a b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"] {
            let text = format!("{:?}", check(&[odd]).unwrap_err());
            assert!(!text.contains(odd), "{text}");
        }
    }
}
