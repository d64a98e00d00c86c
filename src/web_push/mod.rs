//! `WebPush`: the facade of the engine.

mod build;
mod build_error;
mod builder;
mod client;

pub use build_error::{BuildError, BuildErrorKind};
pub use builder::WebPushBuilder;

use std::fmt;

use crate::broadcast::{Audience, BroadcastId, BroadcastStatus};
use crate::clock::Timestamp;
use crate::deliver::{Accepted, DeliveryError};
use crate::engine::import::Import;
use crate::engine::{
    BroadcastRequest, Engine, Opening, Progress, Queued, Report, RunError, SendError,
    SendErrorKind, Tick,
};
use crate::message::Message;
use crate::schedule::{DailyTime, Schedule, ScheduleLabel};
use crate::store::StoreError;
use crate::subscription::Subscription;
use crate::vapid::{KeyId, VapidError, VapidPublicKey};

/// Web Push for one application: subscriptions, keys, deliveries. Cheap to clone; clones share everything.
///
/// - [`service`](Self::service) and [`layer`](Self::layer) answer the HTTP API (feature `api`).
/// - [`enqueue`](Self::enqueue) accepts a message durably, [`send`](Self::send) makes one attempt now.
/// - [`run`](Self::run) is the one future that drives all deliveries: spawn it once per process.
#[derive(Clone)]
pub struct WebPush {
    engine: Engine,
}

impl WebPush {
    /// Starts a configuration. The contact is the `sub` claim of every token (RFC 8292 section 2.1): a `mailto:` or
    /// `https:` URI at which push services can reach the operator.
    pub fn builder(contact: impl Into<String>) -> WebPushBuilder {
        WebPushBuilder::new(Some(contact.into()))
    }

    /// Starts a configuration without a contact: nothing is sent until the server is started with one.
    ///
    /// The other settings may be complete already, but the endpoint policy is
    /// [`EndpointPolicy::nowhere`](crate::deliver::EndpointPolicy::nowhere), whatever is set: no subscription is accepted.
    /// [`run`](Self::run) and [`tick`](Self::tick) claim nothing, so what is queued in the store stays queued, and
    /// `/ready` answers 503 with `"contact": false`.
    pub fn builder_without_contact() -> WebPushBuilder {
        WebPushBuilder::new(None)
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
        match self.engine.open(request).await? {
            Opening::New(status) | Opening::Repeat(status) => {
                Ok(Queued::new(status.id, status.recipients))
            }
            // Without an idempotency key there is nothing to be in conflict with.
            Opening::Conflict => Err(SendErrorKind::Store.into()),
        }
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
        self.engine.send(&to.into(), message.into()).await
    }

    /// Makes one attempt for a subscription that need not be stored, with the active VAPID key.
    ///
    /// Pauses that other replicas stored are obeyed, and what this attempt shows of the push service is stored for
    /// them, as far as the store answers.
    ///
    /// # Errors
    ///
    /// The push service or the endpoint policy refused it; a transient error with the reason `deadline` if the
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
        self.engine.deliver(to, message).await
    }

    /// Where a broadcast stands; `None` when there is none of this id, or no longer.
    ///
    /// # Errors
    ///
    /// A store that does not answer.
    pub async fn status(&self, id: BroadcastId) -> Result<Option<BroadcastStatus>, StoreError> {
        self.engine.status(id).await
    }

    /// How a broadcast goes on, until it is over: a stream of where it stands.
    pub fn progress(&self, id: BroadcastId) -> Progress {
        Progress::new(self.engine.clone(), id)
    }

    /// Broadcasts that are not over, at most so many, in the order of their deadlines.
    ///
    /// # Errors
    ///
    /// A store that does not answer.
    pub async fn underway(&self, limit: usize) -> Result<Vec<BroadcastStatus>, StoreError> {
        self.engine.ledger.underway(limit, self.engine.now()).await
    }

    /// Cancels the deliveries of a broadcast that are not in flight. Returns `None` if the id is unknown.
    ///
    /// # Errors
    ///
    /// A store that does not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropped while the store is writing, it may have been cancelled. Calling it again does no harm.
    pub async fn cancel(&self, id: BroadcastId) -> Result<Option<BroadcastStatus>, StoreError> {
        self.engine.cancel(id).await
    }

    /// The active VAPID key's public half: what pages subscribe with, as `applicationServerKey`.
    #[must_use]
    pub fn vapid_public_key(&self) -> VapidPublicKey {
        *self.engine.key_ring.active().public_key()
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
        self.engine.rotate_vapid_key().await
    }

    /// Runs everything: fires daily notifications, expands broadcasts, delivers, retries, purges. Spawn it once per
    /// process.
    ///
    /// It runs until `shutdown` is ready. Then no new request begins, requests in flight finish within one request
    /// timeout, and the future completes. If the store fails, it is tried again after a second; messages wait.
    ///
    /// # Errors
    ///
    /// A clock that differs from the store's, or an unavailable store, at the start; a store that failed while the last
    /// outcomes were written.
    ///
    /// # Cancel safety
    ///
    /// Dropping it aborts the attempts in flight. Nothing is lost: they are repeated when their leases expire, so a push
    /// service may get such a message twice.
    pub fn run(
        &self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = Result<(), RunError>> + Send + 'static {
        self.engine.run(shutdown)
    }

    /// Makes one step of [`run`](Self::run): for tests, and for an application's own scheduler.
    ///
    /// # Errors
    ///
    /// A store that does not answer.
    ///
    /// # Cancel safety
    ///
    /// As [`run`](Self::run).
    pub async fn tick(&self) -> Result<Tick, RunError> {
        self.engine.tick().await
    }

    /// Imports what another library or server has stored: its VAPID keys first, then its subscriptions.
    #[must_use]
    pub fn import(&self) -> Import {
        Import::new(self.engine.clone())
    }

    /// Whether accepted messages are delivered: by a [`run`](Self::run) in this process, or
    /// [in another one](WebPushBuilder::remote_workers). If not, `POST /notify` answers 503 `no_worker`.
    #[must_use]
    pub fn has_worker(&self) -> bool {
        self.engine.has_worker()
    }

    /// Sends a message every day at a time, to whoever is in the audience then. A schedule of this name is replaced.
    ///
    /// What it says can be decided when it is due: [`WebPushBuilder::compose`]. Missed while nothing ran, an occurrence is
    /// sent up to 24 hours late, and skipped after that; no local date has two, unless
    /// another time is said in between.
    ///
    /// # Errors
    ///
    /// A payload above [`Message::MAX_PAYLOAD`], a zone that is not known here, or a store that does not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropped while the store is writing, the schedule may be there.
    pub async fn schedule(
        &self,
        label: ScheduleLabel,
        time: DailyTime,
        to: impl Into<Audience> + Send,
        message: impl Into<Message> + Send,
    ) -> Result<(), SendError> {
        let (to, message) = (to.into(), message.into());
        self.engine.schedule(label, time, to, message).await
    }

    /// Ends a schedule; whether there was one.
    ///
    /// # Errors
    ///
    /// A store that does not answer.
    pub async fn unschedule(&self, label: &ScheduleLabel) -> Result<bool, StoreError> {
        self.engine.unschedule(label).await
    }

    /// The application's schedules, by name.
    ///
    /// # Errors
    ///
    /// A store that does not answer.
    pub async fn schedules(&self) -> Result<Vec<Schedule>, StoreError> {
        self.engine.ledger.schedules(None).await
    }
}

/// The HTTP API (feature `api`).
#[cfg(feature = "api")]
impl WebPush {
    /// The HTTP API as a Tower service, for any server that speaks `http` types.
    ///
    /// Each has settings and limits of its own ([`with`](crate::api::WebPushService::with)): a public mount and one for
    /// administrators are two services. Clones of one share them.
    #[must_use]
    pub fn service(&self) -> crate::api::WebPushService {
        crate::api::WebPushService::new(self.engine.clone())
    }

    /// The HTTP API as middleware under prefixes of your choice. Requests to other paths reach the inner service with
    /// this `WebPush` in their extensions.
    #[must_use]
    pub fn layer(&self) -> crate::api::WebPushLayer {
        let mut handle = http::Extensions::new();
        handle.insert(self.clone());
        crate::api::WebPushLayer::new(self.service(), handle)
    }
}

impl fmt::Debug for WebPush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WebPush").field(&self.engine).finish()
    }
}
