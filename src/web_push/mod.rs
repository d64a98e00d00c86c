//! `WebPush`: the facade of the engine.

mod build;
mod build_error;
mod builder;
mod client;

pub use build_error::{BuildError, BuildErrorKind};
pub use builder::WebPushBuilder;

use std::fmt;
use std::time::Duration;

use crate::broadcast::{
    Audience, Broadcast, BroadcastId, BroadcastStatus, FinalOutcome, Principal,
};
use crate::deliver::{Accepted, DeliveryError};
use crate::engine::import::Import;
use crate::engine::{
    Device, Engine, Forgotten, Progress, Queued, RegisterError, Registered, Registration, Renewal,
    Report, RunError, SendError, Tick,
};
use crate::message::Message;
use crate::schedule::{DailyTime, NotifyType, Schedule, ScheduleLabel};
use crate::store::{StoreError, SubscriptionRef};
use crate::subscription::{Subscription, SubscriptionId};
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
        self.engine.enqueue(Broadcast::to(to, message)).await
    }

    /// Accepts a broadcast: [`enqueue`](Self::enqueue) with a time and an idempotency key.
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn example(push: tower_web_push::WebPush) -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_web_push::{Audience, Broadcast, Notification};
    ///
    /// let shipped = || {
    ///     Broadcast::to(Audience::user("alice"), Notification::new("Shipped"))
    ///         .idempotency_key("order-7-shipped")
    /// };
    /// let first = push.enqueue_broadcast(shipped()).await?;
    /// let again = push.enqueue_broadcast(shipped()).await?;
    /// assert!(again.is_repeat && again.broadcast == first.broadcast);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`enqueue`](Self::enqueue); a moment that is too far ahead; an idempotency key that is malformed, or was used
    /// for another broadcast.
    ///
    /// # Cancel safety
    ///
    /// As [`enqueue`](Self::enqueue). With an idempotency key the call can be repeated.
    pub async fn enqueue_broadcast(&self, broadcast: Broadcast) -> Result<Queued, SendError> {
        self.engine.enqueue(broadcast).await
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

    /// Waits until a broadcast is over, at most for this time; its status then.
    ///
    /// # Errors
    ///
    /// A store that does not answer.
    pub async fn wait_until_over(
        &self,
        id: BroadcastId,
        at_most: Duration,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        self.engine.wait_until_over(id, at_most).await
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
    /// No further request begins once this returns. Up to 20,000 waiting recipients count as cancelled in the status that
    /// is returned; of a larger broadcast a running worker ends the rest, 1,000 at a time, and until then they are pending.
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

/// Subscriptions and their users: what the HTTP API does, with the same rules.
impl WebPush {
    /// Stores a subscription, as `POST /subscribe` does: endpoint policy, host check, VAPID key, ownership and limits.
    ///
    /// It is idempotent by endpoint. With the same keys it updates the stored subscription and revives it. With other
    /// keys it does so only for the principal that owns it; so no caller can take over another user's subscription.
    /// Which [tags](Registration::tags) the caller may use, and whether it must be signed in, is for the application to say.
    ///
    /// # Errors
    ///
    /// The rule that the registration breaks; nothing is stored then. The
    /// [kind's code](crate::engine::RegisterErrorKind::code) is that of the HTTP API.
    ///
    /// # Cancel safety
    ///
    /// Dropped while the store is writing, the subscription may be stored, without its daily notification. The call can
    /// be repeated.
    pub async fn subscribe(&self, registration: Registration) -> Result<Registered, RegisterError> {
        self.engine.register(registration, None).await
    }

    /// Stores a subscription in the place of an old one, as `POST /renew` does: id, tags, principal and daily notifications
    /// move if the caller knows the old `auth` secret or owns the old subscription. Else it is
    /// [`subscribe`](Self::subscribe), and the answer does not tell which it was.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Self::subscribe).
    ///
    /// # Cancel safety
    ///
    /// As [`subscribe`](Self::subscribe).
    pub async fn renew(&self, renewal: Renewal) -> Result<Registered, RegisterError> {
        self.engine.renew(renewal).await
    }

    /// Ends a subscription, by its id or its endpoint, with its daily notifications; `false` if it was unknown. For
    /// whoever holds the subscription: a user's own list is for [`remove`](Self::remove).
    ///
    /// # Errors
    ///
    /// A store that does not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropped while the store is writing, some of it may be done. The call can be repeated.
    pub async fn unsubscribe(
        &self,
        which: impl Into<SubscriptionRef> + Send,
    ) -> Result<bool, StoreError> {
        self.engine.unsubscribe(which.into()).await
    }

    /// Ends a subscription's daily notification of one type; `false` if there was none. A subscription of no user and
    /// without tags ends with its last daily notification.
    ///
    /// # Errors
    ///
    /// A store that does not answer.
    ///
    /// # Cancel safety
    ///
    /// As [`unsubscribe`](Self::unsubscribe).
    pub async fn unsubscribe_daily(
        &self,
        which: impl Into<SubscriptionRef> + Send,
        notify_type: NotifyType,
    ) -> Result<bool, StoreError> {
        self.engine
            .unsubscribe_daily(which.into(), notify_type)
            .await
    }

    /// A user's subscriptions in every state, the oldest first.
    ///
    /// # Errors
    ///
    /// A store that does not answer.
    pub async fn devices(&self, user: &Principal) -> Result<Vec<Device>, StoreError> {
        self.engine.devices(user).await
    }

    /// Removes one of a user's subscriptions with its daily notifications; `false` if this user has none of this id.
    ///
    /// # Errors
    ///
    /// A store that does not answer.
    ///
    /// # Cancel safety
    ///
    /// As [`unsubscribe`](Self::unsubscribe).
    pub async fn remove(&self, user: &Principal, id: SubscriptionId) -> Result<bool, StoreError> {
        self.engine.remove(user, id).await
    }

    /// Erases a user: all subscriptions in every state, their daily notifications, the application's
    /// [schedules](Self::schedule) to this user alone, and what is pending: messages to these subscriptions, and
    /// broadcasts to this user alone, whose content is wiped.
    ///
    /// What stays names no user: the counts and idempotency keys of broadcasts, for 7 days after their end. An attempt
    /// that is under way in some process is not interrupted. Broadcasts to several users' subscriptions by id keep those ids.
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn example(push: tower_web_push::WebPush) -> Result<(), Box<dyn std::error::Error>> {
    /// // The user has closed the account.
    /// let forgotten = push.forget(&"alice".into()).await?;
    /// println!("{} subscriptions erased", forgotten.subscriptions);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// A store that does not answer; some of it may be done. The call can be repeated.
    ///
    /// # Cancel safety
    ///
    /// Dropped, some of it may be done. The call can be repeated.
    pub async fn forget(&self, user: &Principal) -> Result<Forgotten, StoreError> {
        self.engine.forget(user).await
    }

    /// Makes one attempt for a stored subscription, with its own VAPID key, as `POST /send-test` does. `None` if it is
    /// unknown, is stored with other keys or is retired.
    ///
    /// # Errors
    ///
    /// A store that does not answer; nothing was sent.
    ///
    /// # Security
    ///
    /// The outcome tells a stranger which host names exist inside the server's network; the HTTP API answers one word for
    /// refused, expired and failed.
    ///
    /// # Cancel safety
    ///
    /// As [`deliver`](Self::deliver).
    pub async fn send_test(
        &self,
        to: &Subscription,
        message: impl Into<Message> + Send,
    ) -> Result<Option<FinalOutcome>, StoreError> {
        let message = message.into();
        Ok(match self.engine.held(to).await? {
            Some(row) => Some(self.engine.send_to(row, message).await.outcome),
            None => None,
        })
    }
}

/// The HTTP API (feature `api`).
#[cfg(feature = "api")]
impl WebPush {
    /// The HTTP API as a Tower service, for any server that speaks `http` types.
    ///
    /// Each call makes a service with settings and limits of its own ([`with`](crate::api::WebPushService::with)): a public
    /// mount and one for administrators are two services. Call it once for each mount and clone the service. A service
    /// made for each request would begin to count anew, and so limit nothing.
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
