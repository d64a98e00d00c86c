//! `WebPush`: the facade of the engine.

mod build;
mod build_error;
mod builder;
mod client;
#[cfg(test)]
#[cfg(any(feature = "postgres", feature = "redis"))]
mod simulation;

pub use build_error::{BuildError, BuildErrorKind};
pub use builder::WebPushBuilder;

use std::fmt;
use std::time::Duration;

use crate::broadcast::{
    Audience, Broadcast, BroadcastId, BroadcastStatus, FinalOutcome, Principal,
};
use crate::deliver::{Accepted, DeliveryError};
use crate::engine::check::Finding;
use crate::engine::import::Import;
use crate::engine::{
    Device, Engine, FailedRecipient, Forgotten, Progress, Queued, RegisterError, Registered,
    Registration, Renewal, Report, RunError, SendError, SubscriptionInfo, SubscriptionList, Tick,
};
use crate::message::Message;
use crate::schedule::{DailyTime, NotifyType, Schedule, ScheduleLabel};
use crate::store::{
    Assignment, BroadcastCursor, BroadcastFilter, BroadcastPage, RefusedEntry, StoreError,
    SubscriptionFilter, SubscriptionRecord, SubscriptionRef,
};
use crate::subscription::{EndpointKey, Origin, Subscription, SubscriptionId};
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
    /// Makes a builder. The contact is the `sub` claim of every token (RFC 8292 section 2.1): a `mailto:` or `https:`
    /// URI at which push services can reach the operator.
    pub fn builder(contact: impl Into<String>) -> WebPushBuilder {
        WebPushBuilder::new(Some(contact.into()))
    }

    /// Makes a builder without a contact: nothing is sent until the server is started with one.
    ///
    /// The other settings may be complete already, but for those that say what may be sent to: no subscription is accepted, and an
    /// [`endpoint_policy`](WebPushBuilder::endpoint_policy) is an error of [`build`](WebPushBuilder::build).
    /// [`run`](Self::run) and [`tick`](Self::tick) claim nothing, so what is queued in the store stays queued, and
    /// `/ready` answers 503 with `"contact": false`.
    pub fn builder_without_contact() -> WebPushBuilder {
        WebPushBuilder::new(None)
    }

    /// Accepts a message for every live subscription of an audience. Once it returns, the message is as durable as
    /// the store, and a [`run`](Self::run) of this or another process delivers it.
    ///
    /// The audience is resolved while the broadcast is expanded: subscriptions made before that are included.
    ///
    /// # Errors
    ///
    /// Returns an error if the payload is above [`Message::MAX_PAYLOAD`] or the store is unavailable. Nothing is sent
    /// then.
    ///
    /// # Cancel safety
    ///
    /// If dropped while the store writes, the message is accepted for the whole audience or not at all. A waiting
    /// worker is not woken then, and finds it at its next poll.
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
    /// As [`enqueue`](Self::enqueue). Also if the time is too far ahead, or if the idempotency key is malformed or
    /// was used for another broadcast.
    ///
    /// # Cancel safety
    ///
    /// As [`enqueue`](Self::enqueue). With an idempotency key the call can be repeated.
    pub async fn enqueue_broadcast(&self, broadcast: Broadcast) -> Result<Queued, SendError> {
        self.engine.enqueue(broadcast).await
    }

    /// Returns the number of live subscriptions of an audience, to show it before something is sent. Of all and of a
    /// tag the number is kept, not counted.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    pub async fn estimate(&self, to: impl Into<Audience> + Send) -> Result<u64, StoreError> {
        self.engine.estimate(&to.into()).await
    }

    /// Makes one attempt for every live subscription of an audience, and waits for all of them.
    ///
    /// Nothing is stored except what the responses mean for the subscriptions, and nothing is retried. Origins with a
    /// closed gate get no request. No request begins at the message's deadline or later
    /// ([`Ttl::deadline`](crate::message::Ttl::deadline), counted from this call): in a long audience such attempts
    /// count as expired.
    ///
    /// # Errors
    ///
    /// Returns an error if the payload is above [`Message::MAX_PAYLOAD`] or the store is unavailable. Some messages
    /// may have been sent by then.
    ///
    /// # Cancel safety
    ///
    /// Dropping it stops all attempts in flight.
    pub async fn send(
        &self,
        to: impl Into<Audience> + Send,
        message: impl Into<Message> + Send,
    ) -> Result<Report, SendError> {
        self.engine.send(&to.into(), message.into()).await
    }

    /// Makes one attempt for a subscription that need not be stored, with the active VAPID key.
    ///
    /// It obeys pauses that other replicas stored, and stores for them what the response shows of the push service,
    /// if the store is available.
    ///
    /// # Errors
    ///
    /// Returns an error if the push service or the endpoint policy refused it; a transient error with the reason
    /// `deadline` if the message's deadline ([`Ttl::deadline`](crate::message::Ttl::deadline)) came before a permit.
    ///
    /// # Cancel safety
    ///
    /// If dropped while the request is in flight, the push service may have accepted the message.
    pub async fn deliver(
        &self,
        to: &Subscription,
        message: Message,
    ) -> Result<Accepted, DeliveryError> {
        self.engine.deliver(to, message).await
    }

    /// Returns the status of a broadcast, or `None` if the id is unknown or was removed.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    pub async fn status(&self, id: BroadcastId) -> Result<Option<BroadcastStatus>, StoreError> {
        self.engine.status(id).await
    }

    /// Lists recipients that a broadcast did not reach, as samples: the latest first, at most
    /// [`SAMPLES`](crate::store::SAMPLES), shared out over the different outcomes, statuses and reasons. Empty if the id is
    /// unknown or was removed.
    ///
    /// The numbers are in the [status](Self::status). Recipients for which no request was made, as after a deadline, are in
    /// the numbers only.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    pub async fn failures(&self, id: BroadcastId) -> Result<Vec<FailedRecipient>, StoreError> {
        self.engine.failures(id).await
    }

    /// Waits until a broadcast is over, at most for this time. Returns its status then.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    pub async fn wait_until_over(
        &self,
        id: BroadcastId,
        at_most: Duration,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        self.engine.wait_until_over(id, at_most).await
    }

    /// Returns a stream of a broadcast's status, until it is over.
    pub fn progress(&self, id: BroadcastId) -> Progress {
        Progress::new(self.engine.clone(), id)
    }

    /// Lists broadcasts that are not over, at most `limit`, in the order of their deadlines.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    pub async fn underway(&self, limit: usize) -> Result<Vec<BroadcastStatus>, StoreError> {
        self.engine.ledger.underway(limit, self.engine.now()).await
    }

    /// Lists broadcasts, the newest first, at most `limit` (1 to 1,000). `after` is the
    /// [`next`](BroadcastPage::next) of the page before.
    ///
    /// Broadcasts are kept for 7 days after their end. One call looks at no more than 1,000 of them: where few match, a page
    /// has few, or none, although the list goes on.
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn example(push: tower_web_push::WebPush) -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_web_push::broadcast::BroadcastState;
    /// use tower_web_push::store::BroadcastFilter;
    ///
    /// // What is to be sent later, to cancel some of it.
    /// let mut scheduled = BroadcastFilter::default();
    /// scheduled.states = vec![BroadcastState::Scheduled];
    /// let mut after = None;
    /// loop {
    ///     let page = push.broadcasts(&scheduled, after.as_ref(), 100).await?;
    ///     for broadcast in &page.broadcasts {
    ///         println!("{} at {:?}", broadcast.id, broadcast.send_at);
    ///     }
    ///     let Some(next) = page.next else { break };
    ///     after = Some(next);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    pub async fn broadcasts(
        &self,
        filter: &BroadcastFilter,
        after: Option<&BroadcastCursor>,
        limit: usize,
    ) -> Result<BroadcastPage, StoreError> {
        self.engine.broadcasts(filter, after, limit).await
    }

    /// Cancels the deliveries of a broadcast that no worker has claimed. Returns `None` if the id is unknown.
    ///
    /// No process claims more of them once this returns. Requests of what workers have claimed already are still made: within
    /// moments, or after the pause of a push service that limits its requests, 30 seconds at most. Up to 20,000 waiting recipients count as cancelled in the status that
    /// is returned; of a larger broadcast a running worker ends the rest, 1,000 at a time, and until then they are pending.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    ///
    /// # Cancel safety
    ///
    /// If dropped while the store writes, the broadcast may be cancelled. The call can be repeated.
    pub async fn cancel(&self, id: BroadcastId) -> Result<Option<BroadcastStatus>, StoreError> {
        self.engine.cancel(id).await
    }

    /// Pauses a broadcast, whatever its state. Returns `None` if the id is unknown.
    ///
    /// No process claims more of its messages, and no more of its recipients become due, until it is
    /// [resumed](Self::resume): also after a restart. Requests that workers have claimed already are still sent. Its
    /// [state](crate::broadcast::BroadcastState::Paused) says so, and its deadline stays: what is pending then expires. Other
    /// broadcasts do not wait for it. Repeating it changes nothing, nor does a call for a broadcast that is done or cancelled.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    ///
    /// # Cancel safety
    ///
    /// If dropped while the store writes, the broadcast may be paused. The call can be repeated.
    pub async fn pause(&self, id: BroadcastId) -> Result<Option<BroadcastStatus>, StoreError> {
        self.engine.hold(id, true).await
    }

    /// Lets a [paused](Self::pause) broadcast go on. Returns `None` if the id is unknown.
    ///
    /// Its messages take turns with those of other broadcasts as if they were new. What has a [pace](crate::Broadcast::pace)
    /// goes on at this pace. For a broadcast that is not paused it changes nothing.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    ///
    /// # Cancel safety
    ///
    /// If dropped while the store writes, the broadcast may go on. The call can be repeated.
    pub async fn resume(&self, id: BroadcastId) -> Result<Option<BroadcastStatus>, StoreError> {
        self.engine.hold(id, false).await
    }

    /// Ends the [pause](crate::store::Pause) of a push service before its time, for example after a fault was repaired. Returns
    /// `false` if it was not paused.
    ///
    /// This process sends to it at once, the others within 5 seconds. If the reason of the pause is still there, the push
    /// service is paused again.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    ///
    /// # Cancel safety
    ///
    /// If dropped while the store writes, the pause may have ended. The call can be repeated.
    pub async fn open_gate(&self, origin: &Origin) -> Result<bool, StoreError> {
        self.engine.open_gate(origin).await
    }

    /// Lists entries of the store's outbox that cannot be sent, at most `limit`, each with the reason. See
    /// [in your own transaction](crate::guide::in_your_own_transaction).
    ///
    /// Empty for a store without an outbox.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    pub async fn refused_outbox(&self, limit: usize) -> Result<Vec<RefusedEntry>, StoreError> {
        self.engine.ledger.refused_outbox(limit).await
    }

    /// Lets a refused entry of the outbox wait again, by its [`seq`](crate::store::OutboxEntry::seq), for example after an
    /// upgrade. Returns `false` if there is none of this number.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    ///
    /// # Cancel safety
    ///
    /// If dropped while the store writes, the entry may wait again. The call can be repeated.
    pub async fn retry_outbox(&self, seq: i64) -> Result<bool, StoreError> {
        self.engine.retry_outbox(seq).await
    }

    /// Removes a refused entry of the outbox, by its [`seq`](crate::store::OutboxEntry::seq). Returns `false` if there is
    /// none of this number.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    ///
    /// # Cancel safety
    ///
    /// If dropped while the store writes, the entry may be removed. The call can be repeated.
    pub async fn drop_outbox(&self, seq: i64) -> Result<bool, StoreError> {
        self.engine.ledger.drop_outbox(seq).await
    }

    /// Returns the public half of the active VAPID key, which pages subscribe with as `applicationServerKey`.
    #[must_use]
    pub fn vapid_public_key(&self) -> VapidPublicKey {
        *self.engine.key_ring.active().public_key()
    }

    /// Makes a new active VAPID key. The old ones stay usable for the subscriptions that were made with them.
    ///
    /// Push services that refused the sender's credentials get requests again.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable or the system has no randomness.
    ///
    /// # Cancel safety
    ///
    /// If dropped while the store writes, there may be a new key. This process learns of it as the others do: within
    /// a minute if [`run`](Self::run) is alive.
    pub async fn rotate_vapid_key(&self) -> Result<KeyId, VapidError> {
        self.engine.rotate_vapid_key().await
    }

    /// Gives up a VAPID key that is lost for good: marks the subscriptions that were made with it as stale, and returns their
    /// number. Their pages subscribe again at the next visit.
    ///
    /// While its key is missing a subscription is not judged, since the key may come back: each message to it waits until its
    /// deadline. So restore the key if there is any copy of it, and give it up only if there is none.
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn example(push: tower_web_push::WebPush) -> Result<(), Box<dyn std::error::Error>> {
    /// // `GET /stats` and the log name it.
    /// let given_up = push.give_up_key("4rW0v4bCTYy2lX3HnJhQbA".parse()?).await?;
    /// println!("{given_up} subscriptions are stale");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::store::StoreErrorKind::Misconfigured) if the store has the key. Also if the store is unavailable:
    /// part of it may be done, and the call can be repeated.
    ///
    /// # Cancel safety
    ///
    /// If dropped, part of it may be done. The call can be repeated.
    pub async fn give_up_key(&self, id: KeyId) -> Result<u64, StoreError> {
        self.engine.give_up_key(id).await
    }

    /// Looks for what keeps messages from being sent, in words: the contact, the clocks, the steps of this process's worker that
    /// fail, the store, its queue and outbox, paused push services, and subscriptions whose VAPID key is missing. Each finding
    /// says what to do. Nothing is changed.
    ///
    /// The command `check` of the example servers prints them, with what it finds in its settings.
    /// [`check_store`](crate::check::check_store) checks a store before a `WebPush` is built on it.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_web_push::check::FindingKind;
    ///
    /// # async fn example(push: tower_web_push::WebPush) {
    /// for finding in push.check().await {
    ///     if finding.kind == FindingKind::Wrong {
    ///         eprintln!("{}: {}", finding.text, finding.hint);
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn check(&self) -> Vec<Finding> {
        self.engine.check().await
    }

    /// Says whether a subscription gets messages, and why not: its state, its VAPID key, its last failure, whether its push
    /// service is paused, and whether the endpoint policy allows it. Nothing is sent.
    pub async fn check_subscription(
        &self,
        which: impl Into<SubscriptionRef> + Send,
    ) -> Vec<Finding> {
        self.engine.check_subscription(which.into()).await
    }

    /// Runs everything: fires daily notifications, expands broadcasts, delivers, retries, purges. Spawn it once per
    /// process.
    ///
    /// It runs until `shutdown` is ready. Then no new request begins, requests in flight finish within one request
    /// timeout, and the future completes. If the store fails, it is tried again after a second; messages wait.
    ///
    /// # Errors
    ///
    /// Returns an error at the start if the clock differs from the store's or the store is unavailable; at the end if
    /// the store failed while the last outcomes were written.
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

    /// Makes one step of [`run`](Self::run), for tests and for an application's own scheduler.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    ///
    /// # Cancel safety
    ///
    /// As [`run`](Self::run).
    pub async fn tick(&self) -> Result<Tick, RunError> {
        self.engine.tick().await
    }

    /// Sets the gauges among the metrics, for the recorder of the process: call it before each scrape.
    ///
    /// Counters and histograms need no call. What the store does not say within 3 s becomes NaN, and
    /// `web_push_store_up` 0, so this never fails. [Watching it](crate::guide::watching_it) lists the metrics.
    #[cfg(feature = "metrics")]
    pub async fn refresh_metrics(&self) {
        self.engine.refresh_metrics().await;
    }

    /// Imports VAPID keys, then subscriptions, that another library or server stored.
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

    /// Sends a message every day at a time to the audience of that moment. Replaces the schedule of this name.
    ///
    /// Its content can be composed when it is due: [`WebPushBuilder::compose`]. An occurrence missed during a
    /// downtime is sent up to 24 hours late, and skipped after that. No local date has two occurrences, unless the
    /// time is changed in between.
    ///
    /// # Errors
    ///
    /// Returns an error if the payload is above [`Message::MAX_PAYLOAD`], the zone is unknown, or the store is
    /// unavailable.
    ///
    /// # Cancel safety
    ///
    /// If dropped while the store writes, the schedule may be stored.
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

    /// Removes a schedule. Returns whether it existed.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    pub async fn unschedule(&self, label: &ScheduleLabel) -> Result<bool, StoreError> {
        self.engine.unschedule(label).await
    }

    /// Lists the application's schedules by name.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    pub async fn schedules(&self) -> Result<Vec<Schedule>, StoreError> {
        self.engine.ledger.schedules(None).await
    }
}

/// Subscriptions and their users: what the HTTP API does, with the same rules.
impl WebPush {
    /// Stores a subscription, as `POST /subscribe` does: endpoint policy, host check, VAPID key, ownership and limits.
    ///
    /// It is idempotent by endpoint. With the same keys it updates the stored subscription and revives it. With other
    /// keys it does so only for the principal that owns it, so no caller can take over another user's subscription.
    /// The application decides which [tags](Registration::tags) the caller may use, and whether it must be signed in.
    ///
    /// # Errors
    ///
    /// Returns the rule that the registration breaks. Nothing is stored then. The
    /// [kind's code](crate::engine::RegisterErrorKind::code) is that of the HTTP API.
    ///
    /// # Cancel safety
    ///
    /// If dropped while the store writes, the subscription may be stored without its daily notification. The call can
    /// be repeated.
    pub async fn subscribe(&self, registration: Registration) -> Result<Registered, RegisterError> {
        self.engine.register(registration, None).await
    }

    /// Stores a subscription in the place of an old one, as `POST /renew` does: id, tags, principal and daily
    /// notifications move if the caller knows the old `auth` secret or owns the old subscription. Else it is
    /// [`subscribe`](Self::subscribe), and the result does not tell which it was.
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

    /// Removes a subscription, by its id or its endpoint, with its daily notifications. Returns `false` if it was
    /// unknown. It does not check an owner: for a user's own list use [`remove`](Self::remove).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    ///
    /// # Cancel safety
    ///
    /// If dropped while the store writes, part of it may be done. The call can be repeated.
    pub async fn unsubscribe(
        &self,
        which: impl Into<SubscriptionRef> + Send,
    ) -> Result<bool, StoreError> {
        self.engine.unsubscribe(which.into()).await
    }

    /// Removes a subscription's daily notification of one type. Returns `false` if there was none. A subscription
    /// without a user and tags is removed with its last daily notification.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
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

    /// Lists a user's subscriptions in every state, the oldest first.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    pub async fn devices(&self, user: &Principal) -> Result<Vec<Device>, StoreError> {
        self.engine.devices(user).await
    }

    /// Lists subscriptions of all users in every state, in the order of their endpoints' keys, at most `limit` (1 to 1,000).
    /// `after` is the [`next`](SubscriptionList::next) of the page before.
    ///
    /// The filter says of which user, with which tag, at which push service and in which state. One call looks at no more
    /// than 1,000 subscriptions: where few match, a page has few, or none, although the list goes on.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    pub async fn subscriptions(
        &self,
        filter: &SubscriptionFilter,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<SubscriptionList, StoreError> {
        self.engine.subscriptions(filter, after, limit).await
    }

    /// Finds a subscription of any user by its id or its endpoint: its state, and why its last attempt failed. Returns `None`
    /// if it is unknown.
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn example(
    /// #     push: tower_web_push::WebPush,
    /// #     id: tower_web_push::subscription::SubscriptionId,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// // Why did this user not get it?
    /// if let Some(found) = push.subscription(id).await? {
    ///     println!("{}: {:?}", found.device.state, found.device.last_failure);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    pub async fn subscription(
        &self,
        which: impl Into<SubscriptionRef> + Send,
    ) -> Result<Option<SubscriptionInfo>, StoreError> {
        self.engine.subscription(which.into()).await
    }

    /// Removes one of a user's subscriptions with its daily notifications. Returns `false` if this user has no
    /// subscription of this id.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    ///
    /// # Cancel safety
    ///
    /// As [`unsubscribe`](Self::unsubscribe).
    pub async fn remove(&self, user: &Principal, id: SubscriptionId) -> Result<bool, StoreError> {
        self.engine.remove(user, id).await
    }

    /// Sets the user and the tags of a subscription, as an administrator does: its tags need not be public, and the subscriber
    /// is not asked. Returns the row after it, or `None` if there is no subscription of this id.
    ///
    /// A user who has more subscriptions than the limit then loses the least recently seen ones. Messages that were accepted
    /// before are not taken back.
    ///
    /// # Errors
    ///
    /// [`PrincipalTooLong`](crate::engine::RegisterErrorKind::PrincipalTooLong),
    /// [`TooManyTags`](crate::engine::RegisterErrorKind::TooManyTags), or an error of the store.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the row is changed or not.
    pub async fn assign(
        &self,
        id: SubscriptionId,
        assignment: Assignment,
    ) -> Result<Option<SubscriptionRecord>, RegisterError> {
        self.engine.assign(id, assignment).await
    }

    /// Erases a user: all subscriptions in every state, their daily notifications, the application's
    /// [schedules](Self::schedule) to this user alone, and what is pending: messages to these subscriptions, and
    /// broadcasts to this user alone, whose content is wiped.
    ///
    /// What stays names no user: the counts and idempotency keys of broadcasts, for 7 days after their end. Attempts
    /// in flight are not interrupted. Broadcasts to several users' subscriptions by id keep those ids.
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
    /// Returns an error if the store is unavailable. Part of it may be done. The call can be repeated.
    ///
    /// # Cancel safety
    ///
    /// If dropped, part of it may be done. The call can be repeated.
    pub async fn forget(&self, user: &Principal) -> Result<Forgotten, StoreError> {
        self.engine.forget(user).await
    }

    /// Makes one attempt for a stored subscription, with its own VAPID key, as `POST /send-test` does. Returns `None`
    /// if it is unknown, is stored with other keys or is retired.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable. Nothing was sent.
    ///
    /// # Security
    ///
    /// The outcome tells an unauthenticated caller which host names exist inside the server's network. The HTTP API
    /// has one answer for refused, expired and failed.
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
    /// Returns the HTTP API as a Tower service, for any server that uses the types of `http`.
    ///
    /// Each call makes a service with settings and limits of its own ([`with`](crate::api::WebPushService::with)): a
    /// public mount and one for administrators are two services. Call it once for each mount and clone the service. A
    /// service made for each request starts with new counters, and so limits nothing.
    #[must_use]
    pub fn service(&self) -> crate::api::WebPushService {
        crate::api::WebPushService::new(self.engine.clone())
    }

    /// Returns the HTTP API as middleware under prefixes of your choice. Requests to other paths reach the inner
    /// service with this `WebPush` in their extensions.
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
