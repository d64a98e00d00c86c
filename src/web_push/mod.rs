//! `WebPush`: ties the rooms together.

mod build_error;
mod builder;
mod direct;
mod pauses;
mod progress;
mod schedules;

pub use build_error::{BuildError, BuildErrorKind};
pub use builder::Builder;
pub use progress::Progress;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
#[cfg(feature = "api")]
use tokio::time::{Instant, timeout_at};

use crate::broadcast::{
    self, Audience, BroadcastId, BroadcastRequest, BroadcastStatus, Opening, Queued, Report,
    SendError,
};
use crate::clock::{Clock, Timestamp};
#[cfg(feature = "api")]
use crate::deliver::HostCheck;
use crate::deliver::{
    Accepted, Begin, DeliveryError, EndpointPolicy, OriginGates, PruneBreaker, PushService,
    RetryPolicy, Sender,
};
use crate::import::Import;
use crate::message::Message;
use crate::observe;
use crate::push_request::Push;
use crate::run::{self, RunError, Tick};
use crate::schedule::Compose;
#[cfg(feature = "api")]
use crate::store::SubscriptionRecord;
use crate::store::{ScheduleStore, StoreError, SubscriptionLimits, SubscriptionStore};
use crate::subscription::Subscription;
use crate::vapid::{Contact, KeyId, KeyRing, VapidError, VapidPublicKey};

/// Web Push for one application: subscriptions, keys, deliveries. Cheap to clone; clones share everything.
///
/// - [`service`](Self::service) and [`layer`](Self::layer) answer the HTTP API (feature `api`).
/// - [`enqueue`](Self::enqueue) accepts a message durably, [`send`](Self::send) makes one attempt now.
/// - [`run`](Self::run) is the one future that drives all deliveries: spawn it once per process.
#[derive(Clone)]
pub struct WebPush {
    inner: Arc<Inner>,
}

struct Inner {
    subscriptions: Arc<dyn SubscriptionStore>,
    ledger: Arc<dyn ScheduleStore>,
    key_ring: KeyRing,
    clock: Arc<dyn Clock>,
    endpoint_policy: EndpointPolicy,
    limits: SubscriptionLimits,
    gates: OriginGates,
    in_flight_per_origin: usize,
    sender: Arc<dyn Sender>,
    retry: RetryPolicy,
    contact: Contact,
    has_contact: bool,
    prune_breaker: PruneBreaker,
    stable_topic: bool,
    composer: Option<Arc<dyn Compose>>,
    daily_text: String,
    request_timeout: Duration,
    lease: Duration,
    poll_interval: Duration,
    #[cfg_attr(not(feature = "api"), expect(dead_code, reason = "for the HTTP API"))]
    remote_workers: bool,
    workers: AtomicUsize,
    wake: Notify,
    /// When the shared pauses were last read, in milliseconds.
    pauses_read: AtomicI64,
    settled: Notify,
    #[cfg(feature = "api")]
    host_check: HostCheck,
    #[cfg(feature = "api")]
    api: crate::api::ApiSettings,
}

impl WebPush {
    /// Starts to configure: the contact is the `sub` claim of every token (RFC 8292 section 2.1), a `mailto:` or
    /// `https:` URI that the push services can reach somebody at.
    pub fn builder(contact: impl Into<String>) -> Builder {
        Builder::new(Some(contact.into()))
    }

    /// Starts to configure a server that sends nothing, because it has no contact to give to the push services.
    ///
    /// The endpoint policy is [`EndpointPolicy::nowhere`], whatever is set: no subscription is accepted.
    /// [`run`](Self::run) and [`tick`](Self::tick) claim nothing, so what is queued in the store stays queued, and
    /// `/ready` answers 503 with `"contact": false`.
    pub fn builder_without_contact() -> Builder {
        Builder::new(None)
    }

    /// The HTTP API as a Tower service, for any server that speaks `http` types.
    #[cfg(feature = "api")]
    #[must_use]
    pub fn service(&self) -> crate::api::WebPushService {
        crate::api::WebPushService::new(self.clone())
    }

    /// The HTTP API as middleware under prefixes of your choice.
    #[cfg(feature = "api")]
    #[must_use]
    pub fn layer(&self) -> crate::api::WebPushLayer {
        crate::api::WebPushLayer::new(self.clone())
    }

    /// Accepts a message for every live subscription of an audience. Once it returns, the message is as durable
    /// as the store, and a [`run`](Self::run) delivers it, here or on another machine.
    ///
    /// The audience is resolved while the broadcast is expanded: whoever subscribes before that is reached, too.
    ///
    /// # Errors
    ///
    /// A payload above [`Message::MAX_PAYLOAD`], or a store that does not answer; nothing is sent then.
    ///
    /// # Cancel safety
    ///
    /// Dropped while the store is writing, the message may have been accepted: for the whole audience, or not at
    /// all. A worker that pauses is not woken then, and finds it with its next look.
    pub async fn enqueue(
        &self,
        to: impl Into<Audience> + Send,
        message: impl Into<Message> + Send,
    ) -> Result<Queued, SendError> {
        let request = BroadcastRequest::new(to.into(), message.into());
        self.enqueue_request(request).await
    }

    /// Accepts a message to be sent at a moment, at most 30 days ahead. The audience is resolved then.
    ///
    /// # Errors
    ///
    /// As [`enqueue`](Self::enqueue), and a moment that is too far ahead.
    ///
    /// # Cancel safety
    ///
    /// As [`enqueue`](Self::enqueue).
    pub async fn enqueue_at(
        &self,
        at: Timestamp,
        to: impl Into<Audience> + Send,
        message: impl Into<Message> + Send,
    ) -> Result<Queued, SendError> {
        let mut request = BroadcastRequest::new(to.into(), message.into());
        request.send_at = Some(at);
        self.enqueue_request(request).await
    }

    async fn enqueue_request(&self, request: BroadcastRequest) -> Result<Queued, SendError> {
        match self.open(request).await? {
            Opening::New(status) | Opening::Repeat(status) => {
                Ok(Queued::new(status.id, status.recipients))
            }
            // Without an idempotency key there is nothing to be in conflict with.
            Opening::Conflict => Err(broadcast::SendErrorKind::Store.into()),
        }
    }

    pub(crate) async fn open(&self, request: BroadcastRequest) -> Result<Opening, SendError> {
        let opening =
            broadcast::open(self.subscriptions(), self.ledger(), request, self.now()).await?;
        self.inner.wake.notify_one();
        Ok(opening)
    }

    /// Makes one attempt for every live subscription of an audience, and waits for all of them.
    ///
    /// Nothing is stored but what the push services said of the subscriptions, and nothing is tried again: what is
    /// lost with the process is lost. An origin whose gate is closed is not asked. No request begins at the message's
    /// deadline or later ([`Ttl::deadline`](crate::message::Ttl::deadline), counted from this call): in a long
    /// audience such attempts count as expired.
    ///
    /// # Errors
    ///
    /// A payload above [`Message::MAX_PAYLOAD`], or a store that does not answer; some may have been sent by then.
    ///
    /// # Cancel safety
    ///
    /// Dropping it stops all attempts that are under way.
    pub async fn send(
        &self,
        to: impl Into<Audience> + Send,
        message: impl Into<Message> + Send,
    ) -> Result<Report, SendError> {
        direct::send(self, &to.into(), message.into()).await
    }

    /// Makes one attempt for a subscription that need not be stored, with the active VAPID key.
    ///
    /// Pauses that other replicas stored are obeyed, and what this attempt shows of the push service is stored for
    /// them, as far as the store answers.
    ///
    /// # Errors
    ///
    /// What the push service, or the endpoint policy, had against it; a transient error with the reason `deadline` if the
    /// message's deadline ([`Ttl::deadline`](crate::message::Ttl::deadline)) came before there was a permit.
    ///
    /// # Cancel safety
    ///
    /// Dropped while the request is under way, the push service may have taken the message.
    pub async fn deliver(
        &self,
        to: &Subscription,
        message: Message,
    ) -> Result<Accepted, DeliveryError> {
        // What the other replicas know of the push service is worth a try; without it this one finds out itself.
        let _ = self.refresh_pauses(self.now()).await;
        let now = self.now();
        let deadline = message.ttl().deadline(now);
        let push = Push::new(to.clone(), message, self.key_ring().active())
            .with_ttl_since(now)
            .with_deadline(deadline);
        let result = self
            .deliver_push(push, Begin::before(deadline))
            .await
            .unwrap_or_else(|| Err(DeliveryError::too_late(PushService::of(to.endpoint()))));
        direct::share_news(self, to.endpoint().origin()).await;
        result
    }

    /// Where a broadcast stands; `None` when there is none of this id, or no longer.
    ///
    /// # Errors
    ///
    /// A store that does not answer.
    pub async fn status(&self, id: BroadcastId) -> Result<Option<BroadcastStatus>, StoreError> {
        self.ledger().status(id, self.now()).await
    }

    /// How a broadcast goes on, until it is over: a stream of where it stands.
    pub fn progress(&self, id: BroadcastId) -> Progress {
        Progress::new(self.clone(), id)
    }

    /// Broadcasts that are not over, at most so many, in the order of their deadlines.
    ///
    /// # Errors
    ///
    /// A store that does not answer.
    pub async fn underway(&self, limit: usize) -> Result<Vec<BroadcastStatus>, StoreError> {
        self.ledger().underway(limit, self.now()).await
    }

    /// Cancels what of a broadcast is not under way yet; `None` when there is none of this id.
    ///
    /// # Errors
    ///
    /// A store that does not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropped while the store is writing, it may have been cancelled. Calling it again does no harm.
    pub async fn cancel(&self, id: BroadcastId) -> Result<Option<BroadcastStatus>, StoreError> {
        let status = self.ledger().cancel(id, self.now()).await?;
        self.settled();
        Ok(status)
    }

    /// The active VAPID key's public half: what pages subscribe with, as `applicationServerKey`.
    #[must_use]
    pub fn vapid_public_key(&self) -> VapidPublicKey {
        *self.key_ring().active().public_key()
    }

    /// Makes a new active VAPID key. The old ones stay usable for the subscriptions that were made with them.
    ///
    /// Push services that refused us as a sender are asked again.
    ///
    /// # Errors
    ///
    /// A store that does not answer, or a system without randomness.
    ///
    /// # Cancel safety
    ///
    /// Dropped while the store is writing, there may be a new key. This process learns of it as the others do:
    /// within a minute, where [`run`](Self::run) is alive.
    pub async fn rotate_vapid_key(&self) -> Result<KeyId, VapidError> {
        let id = self.key_ring().rotate(self.now()).await?.id();
        // The key is made: whether the push services are asked at once or by the next probe is of less weight.
        if let Err(error) = self.lift_sender_faults(|_| true).await {
            observe::event!(WARN, error = %observe::causes(&error), "cannot lift the pauses of refused senders");
            let _ = error;
        }
        Ok(id)
    }

    /// Drives everything: fires daily notifications, expands broadcasts, delivers, tries again, gives up, purges.
    /// Spawn it once per process.
    ///
    /// It goes on until `shutdown` is ready; then nothing new is begun, what is in flight ends within one request
    /// timeout, and the future is ready. A store that fails is asked again after a second; messages wait meanwhile.
    ///
    /// # Errors
    ///
    /// A clock that differs from the store's, or a store that does not answer, at start; a store that failed while
    /// the last ends were written.
    ///
    /// # Cancel safety
    ///
    /// Dropping it stops the attempts that are under way. Nothing is lost: their leases end, and they are made
    /// again; a push service that had taken such a message gets it twice.
    pub fn run(
        &self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = Result<(), RunError>> + Send + 'static {
        // From the call on: a server that listens already must not refuse what this will deliver in a moment.
        let alive = self.has_contact().then(|| self.worker_guard());
        run::run(self.clone(), alive, shutdown)
    }

    /// One step of [`run`](Self::run), to its end: for tests, and for schedulers of your own.
    ///
    /// # Errors
    ///
    /// A store that does not answer.
    ///
    /// # Cancel safety
    ///
    /// As [`run`](Self::run).
    pub async fn tick(&self) -> Result<Tick, RunError> {
        if !self.has_contact() {
            return Ok(Tick::default());
        }
        run::tick(self.clone()).await
    }

    /// Answers `None` where the request could not begin in time.
    pub(crate) async fn deliver_push(
        &self,
        push: Push,
        begin: Begin,
    ) -> Option<Result<Accepted, DeliveryError>> {
        self.inner.sender.send(push, begin).await
    }

    /// One attempt for a stored subscription, with its own VAPID key.
    #[cfg(feature = "api")]
    pub(crate) async fn send_to(
        &self,
        record: &SubscriptionRecord,
        message: Message,
    ) -> direct::Attempted {
        direct::send_to(self, record.clone(), message).await
    }

    /// Waits until a broadcast is done, at most so long; where it stands then.
    #[cfg(feature = "api")]
    pub(crate) async fn wait_done(
        &self,
        id: BroadcastId,
        at_most: Duration,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        // Another machine's worker does not wake us.
        const LOOK_AGAIN: Duration = Duration::from_millis(250);
        let until = Instant::now() + at_most;
        loop {
            let settled = self.inner.settled.notified();
            let status = self.status(id).await?;
            let done = status.as_ref().is_none_or(BroadcastStatus::is_over);
            if done || Instant::now() >= until {
                return Ok(status);
            }
            let _ = timeout_at(until.min(Instant::now() + LOOK_AGAIN), settled).await;
        }
    }

    /// Takes over what another library or server has stored: its VAPID keys first, then its subscriptions.
    #[must_use]
    pub fn import(&self) -> Import {
        Import::new(self.clone())
    }

    pub(crate) fn subscriptions(&self) -> &dyn SubscriptionStore {
        &*self.inner.subscriptions
    }

    pub(crate) fn ledger(&self) -> &dyn ScheduleStore {
        &*self.inner.ledger
    }

    pub(crate) fn key_ring(&self) -> &KeyRing {
        &self.inner.key_ring
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        self.inner.clock.as_ref()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Whether there is a contact for the push services. Without one nothing is sent.
    pub(crate) fn has_contact(&self) -> bool {
        self.inner.has_contact
    }

    pub(crate) fn endpoint_policy(&self) -> &EndpointPolicy {
        &self.inner.endpoint_policy
    }

    pub(crate) fn subscription_limits(&self) -> &SubscriptionLimits {
        &self.inner.limits
    }

    pub(crate) fn gates(&self) -> &OriginGates {
        &self.inner.gates
    }

    pub(crate) fn in_flight_per_origin(&self) -> usize {
        self.inner.in_flight_per_origin
    }

    pub(crate) fn contact(&self) -> &Contact {
        &self.inner.contact
    }

    pub(crate) fn prune_breaker(&self) -> PruneBreaker {
        self.inner.prune_breaker
    }

    pub(crate) fn stable_topic(&self) -> bool {
        self.inner.stable_topic
    }

    pub(crate) fn composer(&self) -> Option<&dyn Compose> {
        self.inner.composer.as_deref()
    }

    pub(crate) fn daily_text(&self) -> &str {
        &self.inner.daily_text
    }

    pub(crate) fn retry_policy(&self) -> &RetryPolicy {
        &self.inner.retry
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.inner.request_timeout
    }

    pub(crate) fn lease(&self) -> Duration {
        self.inner.lease
    }

    pub(crate) fn poll_interval(&self) -> Duration {
        self.inner.poll_interval
    }

    #[cfg(feature = "api")]
    pub(crate) fn host_check(&self) -> &HostCheck {
        &self.inner.host_check
    }

    #[cfg(feature = "api")]
    pub(crate) fn api_settings(&self) -> &crate::api::ApiSettings {
        &self.inner.api
    }

    /// Whether somebody delivers what is accepted here.
    #[cfg(feature = "api")]
    pub(crate) fn worker_alive(&self) -> bool {
        self.inner.remote_workers || self.inner.workers.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn worker_guard(&self) -> WorkerGuard {
        self.inner.workers.fetch_add(1, Ordering::Relaxed);
        WorkerGuard(Arc::clone(&self.inner))
    }

    /// Something new may be due.
    pub(crate) async fn woken(&self) {
        self.inner.wake.notified().await;
    }

    /// Rows came to their end.
    pub(crate) fn settled(&self) {
        self.inner.settled.notify_waiters();
    }
}

impl fmt::Debug for WebPush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebPush")
            .field("subscriptions", &self.inner.subscriptions)
            .field("ledger", &self.inner.ledger)
            .field("endpoint_policy", &self.inner.endpoint_policy)
            .finish_non_exhaustive()
    }
}

/// Counts as a living `run` until it is dropped.
pub(crate) struct WorkerGuard(Arc<Inner>);

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        self.0.workers.fetch_sub(1, Ordering::Relaxed);
    }
}
