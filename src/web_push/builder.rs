//! The settings of a `WebPush`. `build` checks them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use tower_service::Service;

use super::client::MakeSender;
use crate::clock::{Clock, SystemClock};
use crate::deliver::{EndpointPolicy, OriginGates, Resolver, RetryPolicy};
use crate::error::BoxError;
use crate::p256::P256;
use crate::push_request::PushBody;
use crate::schedule::Compose;
#[cfg(any(feature = "metrics", feature = "tracing"))]
use crate::store::{Measured, SlowCalls};
use crate::store::{ScheduleStore, SubscriptionLimits, SubscriptionStore, VapidKeyStore};
use crate::vapid::{KeyEncryptionKeys, KeyId, VapidKey};

/// Configures a [`WebPush`](crate::WebPush).
///
/// Defaults: everything is stored in memory, messages go to the known push services only, through the HTTP client of
/// feature `client`.
///
/// The order of the calls does not matter. Of two calls of one method the later one counts. [`build`](Self::build)
/// refuses a value that is out of range and a setting that would have no effect.
///
/// # Examples
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_web_push::WebPush;
///
/// let push = WebPush::builder("mailto:ops@example.com").build().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing happens before `build`"]
pub struct WebPushBuilder {
    pub(super) contact: Option<String>,
    pub(super) insecure_local_contact: bool,
    /// Replaces the subscriptions of `store`.
    pub(super) subscriptions: Option<Arc<dyn SubscriptionStore>>,
    pub(super) store: Option<Store>,
    pub(super) sender: Option<MakeSender>,
    pub(super) resolver: Option<Arc<dyn Resolver>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) p256: Arc<dyn P256>,
    pub(super) endpoint_policy: Option<EndpointPolicy>,
    pub(super) limits: SubscriptionLimits,
    pub(super) vapid_private_key: Option<VapidKey>,
    pub(super) key_encryption_keys: KeyEncryptionKeys,
    pub(super) extra_root_ca_pem: Option<Bytes>,
    pub(super) in_flight_per_origin: usize,
    pub(super) in_flight_per_origin_at_least: usize,
    pub(super) retry: RetryPolicy,
    /// Percent.
    pub(super) retire_at_most: u8,
    pub(super) stable_topic: bool,
    pub(super) composer: Option<Arc<dyn Compose>>,
    pub(super) daily_text: String,
    pub(super) request_timeout: Duration,
    pub(super) lease: Option<Duration>,
    pub(super) poll_interval: Duration,
    pub(super) remote_workers: bool,
    pub(super) create_store: bool,
    pub(super) expected_vapid_key: Option<KeyId>,
}

/// One store, seen through each of its traits.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) subscriptions: Arc<dyn SubscriptionStore>,
    pub(super) vapid_keys: Arc<dyn VapidKeyStore>,
    pub(super) ledger: Arc<dyn ScheduleStore>,
}

impl Store {
    pub(super) fn new(store: impl SubscriptionStore + VapidKeyStore + ScheduleStore) -> Self {
        let store = Arc::new(store);
        Self {
            subscriptions: Arc::clone(&store) as _,
            vapid_keys: Arc::clone(&store) as _,
            ledger: store,
        }
    }

    /// The same store, with each call recorded.
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    pub(super) fn measured(self, slow_calls: &Arc<SlowCalls>) -> Self {
        let slow_calls = || Arc::clone(slow_calls);
        Self {
            subscriptions: Arc::new(Measured::new(self.subscriptions, slow_calls())),
            vapid_keys: Arc::new(Measured::new(self.vapid_keys, slow_calls())),
            ledger: Arc::new(Measured::new(self.ledger, slow_calls())),
        }
    }
}

impl WebPushBuilder {
    pub(super) fn new(contact: Option<String>) -> Self {
        Self {
            contact,
            insecure_local_contact: false,
            subscriptions: None,
            store: None,
            sender: None,
            resolver: None,
            clock: Arc::new(SystemClock::new()),
            p256: Arc::new(crate::p256::fastest()),
            endpoint_policy: None,
            limits: SubscriptionLimits::default(),
            vapid_private_key: None,
            key_encryption_keys: KeyEncryptionKeys::default(),
            extra_root_ca_pem: None,
            in_flight_per_origin: OriginGates::IN_FLIGHT,
            in_flight_per_origin_at_least: 1,
            retry: RetryPolicy::default(),
            retire_at_most: 30,
            stable_topic: false,
            composer: None,
            daily_text: "Here is your daily notification.".to_owned(),
            request_timeout: Duration::from_secs(15),
            lease: None,
            poll_interval: Duration::from_secs(60),
            remote_workers: false,
            create_store: true,
            expected_vapid_key: None,
        }
    }

    /// Keeps subscriptions, VAPID keys and messages in one store. Default: a [`MemoryStore`](crate::store::MemoryStore).
    pub fn store<S>(mut self, store: S) -> Self
    where
        S: SubscriptionStore + VapidKeyStore + ScheduleStore,
    {
        self.store = Some(Store::new(store));
        self
    }

    /// Keeps subscriptions in a store of their own, for example the application's table, and only VAPID keys and
    /// messages in the [`store`](Self::store).
    pub fn subscriptions(mut self, subscriptions: impl SubscriptionStore) -> Self {
        self.subscriptions = Some(Arc::new(subscriptions));
        self
    }

    /// Sends through this HTTP client, a Tower service, instead of the built-in one.
    ///
    /// It must not follow redirects. If endpoints come from outside, it must check resolved addresses with
    /// [`EndpointPolicy::check_addr`].
    pub fn client<C, B>(mut self, client: C) -> Self
    where
        C: Service<http::Request<PushBody>, Response = http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        C::Error: Into<BoxError>,
        C::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        self.sender = Some(MakeSender::new(client));
        self
    }

    /// Resolves host names with this resolver instead of the operating system's: in the built-in client before it
    /// connects, and for a registration at a host that has not answered this process yet.
    ///
    /// With a [`client`](Self::client) and without a resolver, such endpoints are stored without a lookup. The number of
    /// different hosts below one suffix is limited in either case
    /// ([the rules](crate::guide::what_the_push_service_said)).
    pub fn resolver(mut self, resolver: impl Resolver) -> Self {
        self.resolver = Some(Arc::new(resolver));
        self
    }

    /// Reads the time from this clock. Default: [`SystemClock`].
    ///
    /// If it has a [monotonic](Clock::monotonic) clock, a jump of more than 10 s is not followed before the store's clock
    /// confirms it or, if the store has none, before it has lasted for 5 minutes. A worker does nothing until then.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Computes with this implementation of P-256. Default: the fastest one that is compiled in.
    pub fn p256(mut self, p256: impl P256) -> Self {
        self.p256 = Arc::new(p256);
        self
    }

    /// Sets which endpoints may be registered and sent to. Default: [`EndpointPolicy::known_push_services`].
    ///
    /// Without a contact no endpoint is admitted, and a policy is an error of [`build`](Self::build).
    pub fn endpoint_policy(mut self, policy: EndpointPolicy) -> Self {
        self.endpoint_policy = Some(policy);
        self
    }

    /// Accepts a contact with a local host name, for push services on the same machine. Public push services refuse such
    /// a contact.
    pub const fn insecure_local_contact(mut self) -> Self {
        self.insecure_local_contact = true;
        self
    }

    /// Limits how many subscriptions are stored. Default: [`SubscriptionLimits::default`].
    pub const fn subscription_limits(mut self, limits: SubscriptionLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Adds a VAPID key to the store. It becomes the active one if the store has none.
    pub fn vapid_private_key(mut self, key: VapidKey) -> Self {
        self.vapid_private_key = Some(key);
        self
    }

    /// Makes the first VAPID key in an empty store. Default: `true`.
    ///
    /// With `false`, [`build`](Self::build) refuses a store without a VAPID key: an empty one is the wrong one, as after
    /// a start with an empty volume or in another folder. For servers that have run before.
    pub const fn create_store(mut self, create: bool) -> Self {
        self.create_store = create;
        self
    }

    /// Refuses a store that does not have this VAPID key. Default: none.
    ///
    /// Browsers that subscribed with another key cannot be reached with the keys of the wrong store.
    pub const fn expect_vapid_key(mut self, key: KeyId) -> Self {
        self.expected_vapid_key = Some(key);
        self
    }

    /// Encrypts VAPID keys at rest. Default: none, and the store holds them in the clear.
    ///
    /// With at least one, a stored key in the clear is refused: a store that was used without needs one start with
    /// [`seal_clear_keys`](KeyEncryptionKeys::seal_clear_keys). A start without the key that stored keys were
    /// encrypted under is an error, and never makes new ones.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_web_push::WebPush;
    /// use tower_web_push::vapid::KeyEncryptionKeys;
    ///
    /// // 32 random octets, as `openssl rand -base64 32` prints them.
    /// let keys = KeyEncryptionKeys::parse(&std::env::var("KEY_ENCRYPTION_KEY")?)?;
    /// let push = WebPush::builder("mailto:ops@example.com").key_encryption_keys(keys).build().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn key_encryption_keys(mut self, keys: KeyEncryptionKeys) -> Self {
        self.key_encryption_keys = keys;
        self
    }

    /// Makes the built-in client trust the certificates of a PEM file in addition to the Mozilla roots. An error of
    /// [`build`](Self::build) together with [`client`](Self::client).
    pub fn extra_root_ca_pem(mut self, pem: impl Into<Bytes>) -> Self {
        self.extra_root_ca_pem = Some(pem.into());
        self
    }

    /// Sets the most requests in flight to one origin: 1 to
    /// [`Semaphore::MAX_PERMITS`](tokio::sync::Semaphore::MAX_PERMITS). Default:
    /// 600, what the built-in client carries over six HTTP/2 connections if the server allows 100 streams on each, as most do.
    ///
    /// Up to it the limit finds itself ([the rules](crate::guide::what_the_push_service_said)): it starts at 8, grows while
    /// the push service accepts as quickly as before, and is halved when it limits requests or does not answer in time.
    pub const fn in_flight_per_origin(mut self, requests: usize) -> Self {
        self.in_flight_per_origin = requests;
        self
    }

    /// Sets the number of requests in flight to one origin below which the limit does not fall: 1 to
    /// [`in_flight_per_origin`](Self::in_flight_per_origin). Default: 1.
    pub const fn in_flight_per_origin_at_least(mut self, requests: usize) -> Self {
        self.in_flight_per_origin_at_least = requests;
        self
    }

    /// Sets the number of attempts for a message and the pauses between them. Default: [`RetryPolicy::default`].
    ///
    /// At least one attempt, a base above zero and a cap of at least the base.
    pub const fn retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Suspends pruning for a push service while more than this percentage of its latest responses, of at least 50,
    /// are "gone" (404 or 410). 0 to 100; 100 never suspends. Default: 30.
    ///
    /// Such a share is usually a fault of the push service. Its subscriptions are kept until the share falls, and get
    /// the next message as well. The log and `GET /stats` report it.
    pub const fn retire_at_most(mut self, percent: u8) -> Self {
        self.retire_at_most = percent;
        self
    }

    /// Gives each delivery of a message without a topic its own topic, the same at every attempt (RFC 8030 section
    /// 5.4). Default: `false`.
    ///
    /// With `true` a repeated attempt replaces the first one on the push service if that is not delivered yet. An
    /// attempt is repeated if its response is lost.
    ///
    /// The cost: push services store fewer messages with topics for a browser that is offline. FCM turns a topic into
    /// a collapse key and keeps four different ones per subscription, without a documented order; it keeps 100
    /// messages without a topic. Mozilla delivers messages without a topic in order, and those with one in the order
    /// of their topics. So an offline browser loses messages with `true` that it receives with `false`. A
    /// notification's [`tag`](crate::Notification::tag) hides the repeat without this cost.
    pub const fn stable_topic(mut self, stable: bool) -> Self {
        self.stable_topic = stable;
        self
    }

    /// Composes each daily notification with this callback when it is due.
    pub fn compose(mut self, callback: impl Compose) -> Self {
        self.composer = Some(Arc::new(callback));
        self
    }

    /// Sets the text of daily notifications of the type `DIRECT_NOTIFICATION` that were scheduled without a message.
    /// It must fit into one message. Default: "Here is your daily notification."
    pub fn daily_text(mut self, text: impl Into<String>) -> Self {
        self.daily_text = text.into();
        self
    }

    /// Limits the total time of one request to a push service. Above zero, at most an hour. Default: 15 s.
    pub const fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Sets how long a claimed delivery belongs to one worker: at least 5 s longer than the request timeout, at most a
    /// day. Default: 30 s longer.
    ///
    /// No request begins that could outlast its lease. The difference is the time to wait for a permit of the origin;
    /// after that the delivery is put back.
    pub const fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Sets the longest time between two polls for due work. Above zero, at most a day. Default: 60 s.
    pub const fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Declares that another process on the same store delivers: `POST /notify` accepts although no
    /// [`run`](crate::WebPush::run) is alive in this one. Default: `false`.
    pub const fn remote_workers(mut self, remote: bool) -> Self {
        self.remote_workers = remote;
        self
    }
}
