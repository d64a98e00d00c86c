//! The future of one attempt.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf as _;
use http::response::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use super::admission::{Admission, Begin};
use super::calm::Calm;
use super::classify::{BODY_LIMIT, classify};
use super::evidence::Row;
use super::flow::Load;
#[cfg(feature = "client")]
use super::http2_stream::Delayed;
use super::service::Settings;
use super::standing::Observation;
use super::{Accepted, Deliver, DeliveryError, OriginGate, Outcome, Permit, PushService};
use crate::clock::Timestamp;
use crate::error::BoxError;
use crate::push_request::{Push, PushBody};

pin_project! {
    /// The future of [`Deliver`](super::Deliver).
    ///
    /// # Cancel safety
    ///
    /// Dropping it returns the permit and drops the client's future. Whether the push service accepted the message is
    /// then unknown, as after a timeout.
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
        asked: Asked,
        settings: Arc<Settings>,
    }
}

pin_project! {
    #[project = StepProj]
    enum Step<C, F, B> {
        // Waiting for the permit, the client, or both.
        Waiting { admission: Admission<C> },
        // The client has the request.
        Requesting { #[pin] response: F, calm: Calm },
        // The response is no acceptance; its body has the reason.
        Reading {
            #[pin] body: B,
            head: Parts,
            read: Vec<u8>,
            // Octets left to read. A frame counts as one at least, since frames can be empty.
            left: usize,
        },
        Done,
    }
}

impl<C, B> DeliverFuture<C, B>
where
    C: Service<Request<PushBody>> + Clone,
{
    /// One attempt; where the caller has the gate of the push's origin, also within a limit of its own.
    pub(super) fn new(
        deliver: &Deliver<C>,
        push: Push,
        at: Option<(Arc<OriginGate>, Begin)>,
    ) -> Self {
        Self {
            asked: Asked::of(&push),
            step: Step::Waiting {
                admission: Admission::new(deliver.client.clone(), push, at),
            },
            timer: None,
            permit: None,
            settings: Arc::clone(&deliver.settings),
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
        // Drops the permit, the timer and the rest of the response at once.
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
        let push_service = this.asked.push_service;
        loop {
            match this.step.as_mut().project() {
                StepProj::Waiting { admission } => {
                    let begun = ready!(admission.poll(this.settings, cx))?;
                    this.asked.began = begun.at;
                    *this.permit = Some(begun.permit);
                    this.timer
                        .set(Some(tokio::time::sleep(this.settings.timeout)));
                    this.step.set(Step::Requesting {
                        response: begun.response,
                        calm: begun.calm,
                    });
                }
                StepProj::Requesting { response, calm } => match response.poll(cx) {
                    Poll::Pending => {
                        ready!(elapsed(this.timer.as_mut(), cx));
                        let error = DeliveryError::new(Outcome::Transient, push_service);
                        let error = error.with_reason("timeout");
                        let permit = this.permit.as_ref();
                        let load = match calm.is_asked() {
                            true => Load::Excessive,
                            false => Load::Overloaded,
                        };
                        let error = this.settings.silence(this.asked, permit, load, error);
                        return Poll::Ready(Err(error));
                    }
                    Poll::Ready(Err(error)) => {
                        let error = DeliveryError::client(push_service, error.into());
                        let permit = this.permit.as_ref();
                        let load = match calm.is_asked() || error.is_asked_to_be_calm() {
                            true => Load::Excessive,
                            false => Load::Nothing,
                        };
                        let error = this.settings.silence(this.asked, permit, load, error);
                        return Poll::Ready(Err(error));
                    }
                    Poll::Ready(Ok(response)) => {
                        let (head, body) = response.into_parts();
                        if let Some(permit) = this.permit.as_ref().filter(|_| calm.is_asked()) {
                            let now = this.settings.clock.now();
                            permit.learn(&this.asked.row, Load::Excessive, now);
                        }
                        #[cfg(feature = "client")]
                        if let Some(permit) = this.permit.as_mut()
                            && let Some(Delayed(delay)) = head.extensions.get()
                        {
                            permit.was_delayed(*delay);
                        }
                        if head.status.is_success() {
                            let permit = this.permit.as_ref();
                            let result = this.settings.judge(this.asked, permit, &head, &[]);
                            return Poll::Ready(result);
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
                    // It does not matter why reading stops (end, limit, error or timeout): the status is known, and
                    // the text only refines it.
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
                    let permit = this.permit.as_ref();
                    return Poll::Ready(this.settings.judge(this.asked, permit, head, read));
                }
                #[expect(clippy::panic, reason = "what every future does")]
                StepProj::Done => panic!("`DeliverFuture` polled after completion"),
            }
        }
    }
}

impl Settings {
    pub(super) fn check_gate(&self, gate: &OriginGate, push: &Push) -> Result<(), DeliveryError> {
        let now = self.clock.now();
        let push_service = PushService::of(push.subscription().endpoint());
        gate.closed_at(now).map_or(Ok(()), |closed| {
            Err(DeliveryError::closed_gate(push_service, closed, now))
        })
    }

    /// Classifies the response for the caller and reports it to the gate.
    fn judge(
        &self,
        asked: &Asked,
        permit: Option<&Permit>,
        head: &Parts,
        body: &[u8],
    ) -> Result<Accepted, DeliveryError> {
        let (push_service, headers) = (asked.push_service, &head.headers);
        let now = self.clock.now();
        let mut verdict = classify(push_service, head.status, headers, body, now);
        let mut seen = asked.saw(verdict.outcome, true, verdict.retry_after);
        if asked.has_other_keys && may_mean_the_key(push_service, head.status) {
            verdict.outcome = Outcome::KeyMismatch;
            // A row that this key was accepted for does not belong to another one.
            if !asked.row.has_same_key {
                seen.outcome = Outcome::KeyMismatch;
            }
        }
        if let Some(permit) = permit {
            permit.learn(&asked.row, load(head.status, seen.outcome), now);
            permit.gate().observe(&seen, now);
        }
        if verdict.outcome == Outcome::Accepted {
            return Ok(Accepted::new(push_service, head.status, headers));
        }
        Err(DeliveryError::answered(
            push_service,
            head.status,
            headers,
            verdict,
        ))
    }

    /// Reports to the gate that there is no response.
    fn silence(
        &self,
        asked: &Asked,
        permit: Option<&Permit>,
        load: Load,
        error: DeliveryError,
    ) -> DeliveryError {
        let Some(permit) = permit else {
            return error;
        };
        let gate = permit.gate();
        permit.learn(&asked.row, load, self.clock.now());
        if error.is_local() || error.outcome() != Outcome::Transient {
            // An error of this process, or a refusal of the endpoint policy, says nothing about the push service.
            gate.withdraw(&asked.row, asked.began);
        } else {
            let mut seen = asked.saw(Outcome::Transient, false, None);
            seen.broke_off = error.has_broken_off();
            gate.observe(&seen, self.clock.now());
        }
        error
    }
}

/// The request that is under way: push service, row and start.
#[derive(Clone, Copy, Debug)]
struct Asked {
    push_service: PushService,
    row: Row,
    began: Timestamp,
    /// Whether the sender has other keys to try.
    has_other_keys: bool,
}

/// What a response says about the load on the push service.
fn load(status: StatusCode, outcome: Outcome) -> Load {
    match outcome {
        Outcome::Accepted => Load::Accepted,
        Outcome::RateLimited => Load::Limited,
        _ if status == StatusCode::SERVICE_UNAVAILABLE => Load::Overloaded,
        _ if status.is_server_error() => Load::Nothing,
        _ => Load::Answered,
    }
}

/// WNS answers 401 without a reason to the wrong key, and to any other fault of the token.
fn may_mean_the_key(push_service: PushService, status: StatusCode) -> bool {
    push_service == PushService::Wns && status == StatusCode::UNAUTHORIZED
}

impl Asked {
    fn of(push: &Push) -> Self {
        let endpoint = push.subscription().endpoint();
        Self {
            has_other_keys: push.has_other_keys(),
            push_service: PushService::of(endpoint),
            row: Row::of(push),
            began: Timestamp::MIN,
        }
    }

    fn saw(
        &self,
        outcome: Outcome,
        has_answered: bool,
        retry_after: Option<Duration>,
    ) -> Observation {
        Observation {
            row: self.row,
            began: self.began,
            outcome,
            has_answered,
            broke_off: false,
            retry_after,
        }
    }
}

/// Ready when the timer fires; never without a timer.
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

impl<C, B> fmt::Debug for DeliverFuture<C, B>
where
    C: Service<Request<PushBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliverFuture")
            .field("push_service", &self.asked.push_service)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

impl<C, F, B> fmt::Debug for Step<C, F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting { .. } => "Waiting",
            Self::Requesting { .. } => "Requesting",
            Self::Reading { .. } => "Reading",
            Self::Done => "Done",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What halves the limit of an origin, what lets it grow, and what says nothing.
    #[test]
    fn a_status_says_this_about_the_load() {
        let said = [
            (201, Outcome::Accepted, Load::Accepted),
            (429, Outcome::RateLimited, Load::Limited),
            (503, Outcome::Transient, Load::Overloaded),
            (500, Outcome::Transient, Load::Nothing),
            (502, Outcome::Transient, Load::Nothing),
            (504, Outcome::Transient, Load::Nothing),
            (410, Outcome::Gone, Load::Answered),
            (404, Outcome::Gone, Load::Answered),
            (400, Outcome::BadRequest, Load::Answered),
            (403, Outcome::SenderFault, Load::Answered),
            (413, Outcome::TooLarge, Load::Answered),
            // A service that names its limit in a body.
            (503, Outcome::RateLimited, Load::Limited),
        ];
        let differs = |(status, outcome, expected): &(u16, Outcome, Load)| {
            load(StatusCode::from_u16(*status).unwrap(), *outcome) != *expected
        };
        let wrong: Vec<_> = said.into_iter().filter(differs).collect();
        assert_eq!(wrong, []);
    }
}
