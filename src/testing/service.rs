//! The push service as a Tower service.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::LOCATION;
use http::request::Parts as Head;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tower_service::Service;

use super::checks;
use super::dialect;
use super::inbox::Fate;
use super::push_service::{Inner, ServiceCounts, TestPushService};
use super::received::{Parts, ReceivedPush};
use super::refusal::{Refusal, RefusalReason as Reason};
use super::registration::Registration;
use super::script::What;
use crate::deliver::PushService;
use crate::error::BoxError;
use crate::subscription::Origin;

impl<B> Service<Request<B>> for TestPushService
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<AnswerBody>;
    type Error = Disconnected;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        AnswerFuture(Box::pin(async move { answer(&inner, request).await }))
    }
}

/// A [`TestPushService`] without errors, for servers. If a script breaks the connection, the response body fails
/// instead.
#[derive(Clone, Debug)]
pub struct MountedPushService(TestPushService);

impl MountedPushService {
    pub(super) const fn new(service: TestPushService) -> Self {
        Self(service)
    }
}

impl<B> Service<Request<B>> for MountedPushService
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = MountedAnswerFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        MountedAnswerFuture(self.0.call(request))
    }
}

async fn answer<B>(inner: &Inner, request: Request<B>) -> Result<Response<AnswerBody>, Disconnected>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let _in_flight = InFlight::new(&inner.counts);
    let (head, body) = request.into_parts();
    if let Some(answer) = inner.scripted(&head) {
        let ordinary = matches!(answer.what, What::Ordinary);
        if !ordinary {
            inner.counts.send_modify(|counts| counts.scripted += 1);
        }
        if !answer.delay.is_zero() {
            tokio::time::sleep(answer.delay).await;
        }
        match answer.what {
            What::Ordinary => {}
            What::Response {
                status,
                headers,
                body,
            } => {
                let mut response = Response::new(AnswerBody::whole(body));
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                return Ok(response);
            }
            What::Disconnect => return Err(Disconnected),
            What::Never => std::future::pending().await,
        }
    }

    let Some(registration) = find(inner, &head) else {
        let host = head.uri.host().unwrap_or_default();
        return Ok(refuse(
            inner,
            PushService::of_host(host),
            Reason::UnknownPath,
            None,
        ));
    };
    Ok(match accept(inner, &registration, head, body).await {
        Ok(response) => response,
        Err(reason) => refuse(inner, registration.dialect(), reason, Some(&registration)),
    })
}

/// Returns the subscription that a request names. Before HTTP/2 a server sees no scheme and host; if it does, they
/// must be those of the endpoint.
fn find(inner: &Inner, head: &Head) -> Option<Arc<Registration>> {
    let registration = inner.find(head.uri.path_and_query()?.as_str())?;
    let asked = Origin::of(&head.uri);
    let there = asked.is_none_or(|origin| origin == *registration.endpoint().origin());
    there.then_some(registration)
}

/// Checks a request by RFC 8030 and RFC 8292, and answers it with 201.
async fn accept<B>(
    inner: &Inner,
    registration: &Registration,
    head: Head,
    body: B,
) -> Result<Response<AnswerBody>, Reason>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    if registration.is_gone() {
        return Err(Reason::Gone);
    }
    let dialect = registration.dialect();
    let checked = checks::Head::check(dialect, &head.method, &head.headers)?;
    let body = checks::read(body).await?;
    checks::content_encoding(&head.headers, &body)?;

    let origin = registration.endpoint().origin();
    let now = inner.clock.now();
    let vapid = checks::authorization(&head.headers, registration.needs_credentials())?
        .map(|credentials| inner.vapid.verify(credentials, origin, now))
        .transpose()
        .map_err(Reason::of_vapid)?;
    if let Some(vapid) = &vapid {
        let key = vapid.public_key();
        if registration.restricted_to().is_some_and(|only| only != key) {
            return Err(Reason::KeyMismatch);
        }
        if checks::sender_key(&body) == Some(key.as_bytes()) {
            return Err(Reason::ReusedKey);
        }
    }

    let body_len = body.len();
    let data = if body.is_empty() {
        None
    } else {
        let data = registration.decrypt(&body);
        Some(data.map_err(|_| Reason::Undecryptable)?.into())
    };
    let ttl = inner.effective_ttl(checked.ttl);
    let push = ReceivedPush(Arc::new(Parts {
        endpoint: registration.endpoint().clone(),
        headers: head.headers,
        ttl: checked.ttl,
        urgency: checked.urgency,
        topic: checked.topic,
        vapid,
        data,
        body_len,
        at: now,
    }));
    let fate = registration.inbox.accept(&push);
    registration.count();
    inner.record_accepted(push);
    inner.counts.send_modify(|counts| {
        counts.accepted += 1;
        counts.replaced += u64::from(fate == Fate::Stored { replaced: true });
        counts.expired += u64::from(fate == Fate::Dropped);
    });

    let mut response = Response::new(AnswerBody::whole(Bytes::new()));
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert("ttl", HeaderValue::from(ttl.as_secs()));
    if let Some(location) = inner.location(origin) {
        headers.insert(LOCATION, location);
    }
    Ok(response)
}

fn refuse(
    inner: &Inner,
    dialect: PushService,
    reason: Reason,
    registration: Option<&Registration>,
) -> Response<AnswerBody> {
    let response = dialect::answer(dialect, reason);
    inner.record_refusal(Refusal {
        reason,
        status: response.status(),
        endpoint: registration.map(|registration| registration.endpoint().clone()),
        at: inner.clock.now(),
    });
    inner.counts.send_modify(|counts| counts.refused += 1);
    response.map(AnswerBody::whole)
}

/// A request without an answer yet.
struct InFlight<'a>(&'a watch::Sender<ServiceCounts>);

impl<'a> InFlight<'a> {
    fn new(counts: &'a watch::Sender<ServiceCounts>) -> Self {
        counts.send_modify(|counts| {
            counts.requests += 1;
            counts.in_flight += 1;
            counts.peak_in_flight = counts.peak_in_flight.max(counts.in_flight);
        });
        Self(counts)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|counts| counts.in_flight -= 1);
    }
}

/// The future of a [`TestPushService`].
#[must_use = "futures do nothing unless polled"]
pub struct AnswerFuture(Answering);

type Answering = Pin<Box<dyn Future<Output = Result<Response<AnswerBody>, Disconnected>> + Send>>;

impl Future for AnswerFuture {
    type Output = Result<Response<AnswerBody>, Disconnected>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for AnswerFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerFuture").finish_non_exhaustive()
    }
}

/// The future of a [`MountedPushService`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct MountedAnswerFuture(AnswerFuture);

impl Future for MountedAnswerFuture {
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(Ok(answer.unwrap_or_else(|Disconnected| {
            Response::new(AnswerBody(Content::Broken))
        })))
    }
}

/// The body of an answer.
#[derive(Debug)]
pub struct AnswerBody(Content);

#[derive(Debug)]
enum Content {
    Whole(Option<Bytes>),
    Broken,
}

impl AnswerBody {
    fn whole(bytes: Bytes) -> Self {
        Self(Content::Whole((!bytes.is_empty()).then_some(bytes)))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Disconnected;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Disconnected>>> {
        Poll::Ready(match &mut self.0 {
            Content::Whole(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Content::Broken => Some(Err(Disconnected)),
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Content::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Broken => SizeHint::default(),
        }
    }
}

/// The connection broke before an answer, by a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disconnected;

impl fmt::Display for Disconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection broke")
    }
}

impl std::error::Error for Disconnected {}
