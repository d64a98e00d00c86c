//! One attempt, step by step.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Buf as _;
use http::response::Parts;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use super::classify::{BODY_LIMIT, classify};
use super::service::Settings;
use super::{Accepted, DeliveryError, OriginGate, Outcome, PauseScope, Permit, PushService};
use crate::error::BoxError;
use crate::push_request::{Push, PushBody, PushRequestError, PushRequestErrorKind};
use crate::store::PauseReason;

pin_project! {
    /// The future of [`Deliver`](super::Deliver).
    ///
    /// # Cancel safety
    ///
    /// Dropping it gives the permit back and drops the client's future. Whether the push service took
    /// the message is then unknown, as it is after a timeout.
    #[must_use = "futures do nothing unless polled"]
    pub struct DeliverFuture<C, B>
    where
        C: Service<Request<PushBody>>,
    {
        #[pin]
        step: Step<C, C::Future, B>,
        #[pin]
        timer: Option<Sleep>,
        permit: Option<Permit>,
        gate: Option<OriginGate>,
        push_service: PushService,
        settings: Arc<Settings>,
    }
}

pin_project! {
    #[project = StepProj]
    enum Step<C, F, B> {
        // Nothing happened yet, or all permits were out.
        Start {
            start: Option<(C, Push)>,
            waiting: Option<Waiting>,
        },
        // The client has the request.
        Requesting { #[pin] response: F },
        // The answer is no acceptance, and says why.
        Reading {
            #[pin] body: B,
            head: Parts,
            read: Vec<u8>,
            // Octets left to read, a frame counting for one at least: frames can be empty for ever.
            left: usize,
        },
        Done,
    }
}

/// Waiting is rare enough for a box.
type Waiting = Pin<Box<dyn Future<Output = Permit> + Send + Sync>>;

impl<C, B> DeliverFuture<C, B>
where
    C: Service<Request<PushBody>>,
{
    pub(super) fn new(
        client: C,
        push: Push,
        permit: Option<Permit>,
        settings: Arc<Settings>,
    ) -> Self {
        Self {
            push_service: PushService::of(push.subscription().endpoint()),
            step: Step::Start {
                start: Some((client, push)),
                waiting: None,
            },
            timer: None,
            permit,
            gate: None,
            settings,
        }
    }
}

impl<C, B> Future for DeliverFuture<C, B>
where
    C: Service<Request<PushBody>, Response = Response<B>>,
    C::Error: Into<BoxError>,
    B: Body,
{
    type Output = Result<Accepted, DeliveryError>;

    /// # Panics
    ///
    /// When polled again after it was ready, or first polled outside a tokio runtime with a timer.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.as_mut().advance(cx));
        let mut this = self.project();
        // Whatever is left goes at once: the permit, the timer, the rest of the answer.
        this.step.set(Step::Done);
        this.timer.set(None);
        *this.permit = None;
        Poll::Ready(result)
    }
}

impl<C, B> DeliverFuture<C, B>
where
    C: Service<Request<PushBody>, Response = Response<B>>,
    C::Error: Into<BoxError>,
    B: Body,
{
    fn advance(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Accepted, DeliveryError>> {
        let mut this = self.project();
        let push_service = *this.push_service;
        loop {
            match this.step.as_mut().project() {
                StepProj::Start { start, waiting } => {
                    if let (None, Some((_, push))) = (&this.gate, &start) {
                        let endpoint = push.subscription().endpoint();
                        this.settings
                            .policy
                            .check(endpoint)
                            .map_err(|error| DeliveryError::refused(push_service, error))?;
                        let gate = this.settings.gates.gate(endpoint.origin());
                        this.settings.check_gate(&gate, push_service)?;
                        if this.permit.is_none() {
                            *this.permit = gate.try_acquire();
                        }
                        if this.permit.is_none() {
                            let full = gate.clone();
                            *waiting = Some(Box::pin(async move { full.acquire().await }));
                        }
                        *this.gate = Some(gate);
                    }
                    if let (Some(acquire), Some(gate)) = (waiting, &this.gate) {
                        *this.permit = Some(ready!(acquire.as_mut().poll(cx)));
                        // It may have been closed meanwhile.
                        this.settings.check_gate(gate, push_service)?;
                    }
                    let Some((mut client, push)) = start.take() else {
                        this.step.set(Step::Done);
                        continue;
                    };
                    let request = this
                        .settings
                        .request(&push)
                        .map_err(|error| not_made(push_service, error))?;
                    let response = client.call(request);
                    this.timer
                        .set(Some(tokio::time::sleep(this.settings.timeout)));
                    this.step.set(Step::Requesting { response });
                }
                StepProj::Requesting { response } => match response.poll(cx) {
                    Poll::Pending => {
                        ready!(elapsed(this.timer.as_mut(), cx));
                        let error = DeliveryError::new(Outcome::Transient, push_service);
                        return Poll::Ready(Err(error.with_reason("timeout")));
                    }
                    Poll::Ready(Err(error)) => {
                        let error = DeliveryError::client(Some(push_service), error.into());
                        return Poll::Ready(Err(error));
                    }
                    Poll::Ready(Ok(response)) => {
                        let (head, body) = response.into_parts();
                        if head.status.is_success() {
                            return Poll::Ready(this.settings.judge(
                                push_service,
                                this.gate.as_ref(),
                                &head,
                                &[],
                            ));
                        }
                        this.step.set(Step::Reading {
                            body,
                            head,
                            read: Vec::new(),
                            left: BODY_LIMIT,
                        });
                    }
                },
                StepProj::Reading {
                    mut body,
                    head,
                    read,
                    left,
                } => {
                    // However the body ends, by its end, the limit, an error or the time: the status is
                    // known, and the text is only a closer reading of it.
                    while *left > 0 {
                        match body.as_mut().poll_frame(cx) {
                            Poll::Pending => {
                                ready!(elapsed(this.timer.as_mut(), cx));
                                break;
                            }
                            Poll::Ready(Some(Ok(frame))) => {
                                let before = read.len();
                                if let Ok(mut data) = frame.into_data() {
                                    take(read, &mut data, *left);
                                }
                                let taken = read.len().saturating_sub(before);
                                *left = left.saturating_sub(taken.max(1));
                            }
                            Poll::Ready(Some(Err(_)) | None) => break,
                        }
                    }
                    return Poll::Ready(this.settings.judge(
                        push_service,
                        this.gate.as_ref(),
                        head,
                        read,
                    ));
                }
                #[expect(clippy::panic, reason = "what every future does")]
                StepProj::Done => panic!("`DeliverFuture` polled after completion"),
            }
        }
    }
}

impl Settings {
    fn request(&self, push: &Push) -> Result<Request<PushBody>, PushRequestError> {
        let now = self.clock.now();
        push.request(&*self.p256, &self.signer, &self.contact, now)
    }

    fn check_gate(
        &self,
        gate: &OriginGate,
        push_service: PushService,
    ) -> Result<(), DeliveryError> {
        let now = self.clock.now();
        gate.closed_at(now).map_or(Ok(()), |closed| {
            let wait = closed.until.since(now);
            Err(DeliveryError::closed_gate(push_service, closed, wait))
        })
    }

    /// What the answer means, for the caller and for the gate.
    fn judge(
        &self,
        push_service: PushService,
        gate: Option<&OriginGate>,
        head: &Parts,
        body: &[u8],
    ) -> Result<Accepted, DeliveryError> {
        let now = self.clock.now();
        let verdict = classify(push_service, head.status, &head.headers, body, now);
        if verdict.outcome == Outcome::Accepted {
            return Ok(Accepted::new(push_service, head.status, &head.headers));
        }
        if let (Outcome::RateLimited, PauseScope::Origin, Some(wait), Some(gate)) = (
            verdict.outcome,
            push_service.pause_scope(),
            verdict.retry_after,
            gate,
        ) {
            gate.pause(now + wait, PauseReason::RateLimited);
        }
        Err(DeliveryError::answered(
            push_service,
            head.status,
            &head.headers,
            verdict,
        ))
    }
}

/// Ready when the time is up; without a timer there is no end.
fn elapsed(timer: Pin<&mut Option<Sleep>>, cx: &mut Context<'_>) -> Poll<()> {
    timer
        .as_pin_mut()
        .map_or(Poll::Pending, |timer| timer.poll(cx))
}

/// Copies at most `limit` octets, chunk by chunk.
fn take(read: &mut Vec<u8>, data: &mut impl bytes::Buf, mut limit: usize) {
    while data.has_remaining() && limit > 0 {
        let chunk = data.chunk();
        let chunk = chunk.get(..limit).unwrap_or(chunk);
        read.extend_from_slice(chunk);
        let taken = chunk.len();
        data.advance(taken);
        limit = limit.saturating_sub(taken);
    }
}

fn not_made(push_service: PushService, error: PushRequestError) -> DeliveryError {
    let outcome = match error.kind() {
        PushRequestErrorKind::TooLarge => Outcome::TooLarge,
        PushRequestErrorKind::Signing => Outcome::SenderFault,
        PushRequestErrorKind::Backend => Outcome::Transient,
    };
    DeliveryError::new(outcome, push_service).with_source(error)
}

impl<C, B> fmt::Debug for DeliverFuture<C, B>
where
    C: Service<Request<PushBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliverFuture")
            .field("push_service", &self.push_service)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

impl<C, F, B> fmt::Debug for Step<C, F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start { waiting: None, .. } => "Start",
            Self::Start { .. } => "Waiting",
            Self::Requesting { .. } => "Requesting",
            Self::Reading { .. } => "Reading",
            Self::Done => "Done",
        })
    }
}
