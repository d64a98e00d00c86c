//! The steps of a push before its request: endpoint policy, permit of the origin, ready client, gate.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Request;
use tower_service::Service;

use super::calm::Calm;
use super::evidence::Row;
use super::service::Settings;
use super::stop::Stop;
use super::{DeliveryError, OriginGate, Outcome, Permit, PushService};
use crate::clock::Timestamp;
use crate::error::BoxError;
use crate::push_request::{Push, PushBody, PushRequestError, PushRequestErrorKind};

/// A limit on how long a request may wait for a permit and for the client.
#[derive(Clone)]
pub(crate) struct Begin {
    before: Timestamp,
    stop: Option<Stop>,
    condition: Option<Condition>,
}

type Condition = Arc<dyn Fn() -> bool + Send + Sync>;

impl Begin {
    /// The request begins before this moment or not at all.
    pub(crate) const fn before(before: Timestamp) -> Self {
        Self {
            before,
            stop: None,
            condition: None,
        }
    }

    /// Nor does it begin after the signal.
    pub(crate) fn unless(self, stop: Option<Stop>) -> Self {
        Self { stop, ..self }
    }

    /// Nor does it begin if this is false when it could.
    pub(crate) fn only_if(self, condition: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        let condition = Some(Arc::new(condition) as Condition);
        Self { condition, ..self }
    }

    fn is_over(&self, now: Timestamp) -> bool {
        now >= self.before
            || self.stop.as_ref().is_some_and(Stop::is_stopped)
            || self.condition.as_ref().is_some_and(|holds| !holds())
    }

    /// Completes when the request may no longer begin.
    async fn over(self, now: Timestamp) {
        let stopped = async {
            match self.stop {
                Some(stop) => stop.stopped().await,
                None => pending().await,
            }
        };
        // Both the timeout and the signal end the wait.
        let _ = tokio::time::timeout(self.before.since(now), stopped).await;
    }
}

/// Waits until a push may be sent: first for a permit of its origin, then for the client. A push that waits for a full
/// origin holds no capacity of the client, which all origins share.
///
/// # Cancel safety
///
/// Dropping it releases what it holds.
pub(super) struct Admission<C> {
    /// `None` once it is over.
    start: Option<(C, Push)>,
    /// The gate of the push's origin, if the caller had it.
    gate: Option<Arc<OriginGate>>,
    begin: Option<Begin>,
    permit: Option<Permit>,
    // Waiting is rare enough for boxes.
    queue: Option<Wait<Permit>>,
    over: Option<Wait<()>>,
}

type Wait<T> = Pin<Box<dyn Future<Output = T> + Send + Sync>>;

impl<C> Admission<C> {
    /// `at` is the gate of the push's origin and the caller's limit, if the caller has them.
    pub(super) fn new(client: C, push: Push, at: Option<(Arc<OriginGate>, Begin)>) -> Self {
        let (gate, begin) = at.unzip();
        Self {
            start: Some((client, push)),
            gate,
            begin,
            permit: None,
            queue: None,
            over: None,
        }
    }

    /// Returns whether a permit is held.
    ///
    /// # Errors
    ///
    /// Returns an error if the endpoint policy refuses the endpoint, or if the gate is full and closed.
    fn poll_permit(
        &mut self,
        push: &Push,
        settings: &Settings,
        cx: &mut Context<'_>,
    ) -> Result<bool, DeliveryError> {
        if self.permit.is_none() {
            let queue = match &mut self.queue {
                Some(queue) => queue,
                None => {
                    let endpoint = push.subscription().endpoint();
                    let policy = settings.policy.check(endpoint);
                    policy.map_err(|error| DeliveryError::refused(push_service(push), error))?;
                    let gate = self.gate.take();
                    let gate = gate.unwrap_or_else(|| settings.gates.gate(endpoint.origin()));
                    self.permit = gate.try_acquire();
                    if self.permit.is_some() {
                        return Ok(true);
                    }
                    // A closed gate refuses at once, however full it is.
                    settings.check_gate(&gate, push)?;
                    self.queue
                        .insert(Box::pin(async move { gate.acquire().await }))
                }
            };
            if let Poll::Ready(permit) = queue.as_mut().poll(cx) {
                self.permit = Some(permit);
            }
        }
        Ok(self.permit.is_some())
    }

    /// Returns whether the request may no longer begin.
    fn poll_over(&mut self, is_ready: bool, now: Timestamp, cx: &mut Context<'_>) -> bool {
        let Some(begin) = &self.begin else {
            return false;
        };
        if is_ready {
            return begin.is_over(now);
        }
        let over = self
            .over
            .get_or_insert_with(|| Box::pin(begin.clone().over(now)));
        over.as_mut().poll(cx).is_ready()
    }
}

impl<C> Admission<C>
where
    C: Service<Request<PushBody>>,
    C::Error: Into<BoxError>,
{
    /// Ready once the request has begun.
    pub(super) fn poll(
        &mut self,
        settings: &Settings,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Begun<C::Future>, DeliveryError>> {
        let Some((mut client, push)) = self.start.take() else {
            return Poll::Pending;
        };
        let mut is_ready = false;
        if self.poll_permit(&push, settings, cx)? {
            let ready = client.poll_ready(cx);
            let client_error =
                |error: C::Error| DeliveryError::client(push_service(&push), error.into());
            is_ready = ready.map_err(client_error)?.is_ready();
        }
        let now = settings.clock.now();
        if self.poll_over(is_ready, now, cx) {
            return Poll::Ready(Err(DeliveryError::not_begun(&push, now)));
        }
        if let Some(permit) = self.permit.take_if(|_| is_ready) {
            return Poll::Ready(begin(client, &push, permit, settings));
        }
        // A push whose gate has closed does not wait for the client.
        if let Some(permit) = &self.permit {
            settings.check_gate(permit.gate(), &push)?;
        }
        self.start = Some((client, push));
        Poll::Pending
    }
}

/// A request that has begun.
pub(super) struct Begun<F> {
    pub(super) response: F,
    pub(super) permit: Permit,
    pub(super) at: Timestamp,
    pub(super) calm: Calm,
}

/// Passes the gate, signs, encrypts and calls.
fn begin<C: Service<Request<PushBody>>>(
    mut client: C,
    push: &Push,
    mut permit: Permit,
    settings: &Settings,
) -> Result<Begun<C::Future>, DeliveryError> {
    let at = settings.clock.now();
    let push_service = push_service(push);
    if at >= push.deadline() {
        return Err(DeliveryError::not_begun(push, at));
    }
    let gate = permit.gate();
    gate.admit(&Row::of(push), at)
        .map_err(|closed| DeliveryError::closed_gate(push_service, closed, at))?;
    let (signer, contact) = (&settings.signer, &settings.contact);
    let request = push.request(&*settings.p256, signer, contact, at);
    let mut request = request.map_err(|error| {
        // A request that cannot be made is no probe.
        gate.withdraw(&Row::of(push), at);
        not_made(push_service, error)
    })?;
    let calm = Calm::default();
    request.extensions_mut().insert(calm.clone());
    permit.begin();
    Ok(Begun {
        response: client.call(request),
        permit,
        at,
        calm,
    })
}

fn push_service(push: &Push) -> PushService {
    PushService::of(push.subscription().endpoint())
}

fn not_made(push_service: PushService, error: PushRequestError) -> DeliveryError {
    let outcome = match error.kind() {
        PushRequestErrorKind::TooLarge => Outcome::TooLarge,
        PushRequestErrorKind::Signing => Outcome::SenderFault,
        PushRequestErrorKind::Backend => Outcome::Transient,
    };
    DeliveryError::new(outcome, push_service).with_source(error)
}
