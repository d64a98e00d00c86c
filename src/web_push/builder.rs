//! How a `WebPush` is configured; `build` validates everything.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use tower_service::Service;

use super::{BuildError, BuildErrorKind, WebPush};
use crate::clock::{Clock, SystemClock};
use crate::deliver::{
    Deliver, EndpointPolicy, HostCheck, OriginGates, Resolver, RetryPolicy, Sender,
};
use crate::engine::{ClockSkew, Engine, KeyRing, Parts, PruneBreaker, Signals};
use crate::error::BoxError;
use crate::p256::P256;
use crate::push_request::PushBody;
use crate::schedule::Compose;
use crate::store::{
    MemoryStore, ScheduleStore, SubscriptionLimits, SubscriptionStore, VapidKeyStore,
};
use crate::vapid::{Contact, KeyEncryptionKeys, VapidKey};

/// Configures a [`WebPush`].
///
/// Where nothing is said: subscriptions in memory, messages to the known push services only, the HTTP client of
/// feature `client`.
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
#[must_use = "nothing happens before `build`"]
pub struct WebPushBuilder {
    contact: Option<String>,
    insecure_local_contact: bool,
    /// Elsewhere than in the store of the rest.
    subscriptions: Option<Arc<dyn SubscriptionStore>>,
    store: Option<Store>,
    sender: Option<MakeSender>,
    resolver: Option<Arc<dyn Resolver>>,
    clock: Arc<dyn Clock>,
    p256: Arc<dyn P256>,
    endpoint_policy: EndpointPolicy,
    limits: SubscriptionLimits,
    vapid_private_key: Option<VapidKey>,
    key_encryption_keys: KeyEncryptionKeys,
    extra_root_ca_pem: Option<Bytes>,
    in_flight_per_origin: usize,
    retry: RetryPolicy,
    prune_breaker: PruneBreaker,
    stable_topic: bool,
    composer: Option<Arc<dyn Compose>>,
    daily_text: String,
    request_timeout: Duration,
    lease: Option<Duration>,
    poll_interval: Duration,
    remote_workers: bool,
}

/// One store, as each of its contracts.
struct Store {
    subscriptions: Arc<dyn SubscriptionStore>,
    vapid_keys: Arc<dyn VapidKeyStore>,
    ledger: Arc<dyn ScheduleStore>,
}

impl Store {
    fn new(store: impl SubscriptionStore + VapidKeyStore + ScheduleStore) -> Self {
        let store = Arc::new(store);
        Self {
            subscriptions: Arc::clone(&store) as _,
            vapid_keys: Arc::clone(&store) as _,
            ledger: store,
        }
    }
}

/// A client is given before the policy and the clock are known.
type MakeSender = Box<dyn FnOnce(Shared) -> Arc<dyn Sender> + Send>;

/// What every delivery shares, whatever the client.
struct Shared {
    contact: Contact,
    policy: EndpointPolicy,
    gates: OriginGates,
    p256: Arc<dyn P256>,
    clock: Arc<dyn Clock>,
    timeout: Duration,
}

impl Shared {
    fn deliver<C>(self, client: C) -> Deliver<C> {
        Deliver::new(client, self.contact)
            .with_policy(self.policy)
            .with_gates(self.gates)
            .with_p256(self.p256)
            .with_clock(self.clock)
            .with_timeout(self.timeout)
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
            endpoint_policy: EndpointPolicy::known_push_services(),
            limits: SubscriptionLimits::default(),
            vapid_private_key: None,
            key_encryption_keys: KeyEncryptionKeys::default(),
            extra_root_ca_pem: None,
            in_flight_per_origin: OriginGates::IN_FLIGHT,
            retry: RetryPolicy::default(),
            prune_breaker: PruneBreaker::default(),
            stable_topic: false,
            composer: None,
            daily_text: "Here is your daily notification.".to_owned(),
            request_timeout: Duration::from_secs(15),
            lease: None,
            poll_interval: Duration::from_secs(60),
            remote_workers: false,
        }
    }

    /// Keeps everything in one store. Memory where nothing is said.
    pub fn store<S>(mut self, store: S) -> Self
    where
        S: SubscriptionStore + VapidKeyStore + ScheduleStore,
    {
        self.store = Some(Store::new(store));
        self
    }

    /// Keeps subscriptions elsewhere than in the [`store`](Self::store): in the application's own table.
    pub fn subscriptions(mut self, subscriptions: impl SubscriptionStore) -> Self {
        self.subscriptions = Some(Arc::new(subscriptions));
        self
    }

    /// Sends through another HTTP client: any Tower service.
    ///
    /// It must not follow redirects, and must check resolved addresses with the
    /// [`EndpointPolicy`] where endpoints come from outside.
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
        self.sender = Some(Box::new(move |shared| Arc::new(shared.deliver(client))));
        self
    }

    /// Looks host names up with this instead of the operating system: the built-in client before it connects, and the HTTP
    /// API before it stores an endpoint at a host that has not answered this process yet.
    ///
    /// With a [`client`](Self::client) of your own and without this, the API stores such endpoints without a lookup. It
    /// limits how many different hosts there are below one suffix in either case
    /// ([the rules](crate::guide::what_the_push_service_said)).
    pub fn resolver(mut self, resolver: impl Resolver) -> Self {
        self.resolver = Some(Arc::new(resolver));
        self
    }

    /// Takes the time from elsewhere.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Uses another P-256; the fastest one compiled in where nothing is said.
    pub fn p256(mut self, p256: impl P256) -> Self {
        self.p256 = Arc::new(p256);
        self
    }

    /// Which endpoints may be registered and sent to. Default: [`EndpointPolicy::known_push_services`].
    pub fn endpoint_policy(mut self, policy: EndpointPolicy) -> Self {
        self.endpoint_policy = policy;
        self
    }

    /// Takes a contact with a local name, for push services on the same machine. The real ones refuse it.
    pub const fn insecure_local_contact(mut self) -> Self {
        self.insecure_local_contact = true;
        self
    }

    /// How many subscriptions there may be.
    pub const fn subscription_limits(mut self, limits: SubscriptionLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Adopts a VAPID key: it becomes live, and active where there is none yet.
    pub fn vapid_private_key(mut self, key: VapidKey) -> Self {
        self.vapid_private_key = Some(key);
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

    /// Trusts the certificates of a PEM file beside the usual roots. Only the built-in client reads it.
    pub fn extra_root_ca_pem(mut self, pem: impl Into<Bytes>) -> Self {
        self.extra_root_ca_pem = Some(pem.into());
        self
    }

    /// How many requests may be in flight to one origin; 100 where nothing is said.
    pub const fn in_flight_per_origin(mut self, requests: usize) -> Self {
        self.in_flight_per_origin = requests;
        self
    }

    /// How often and how slowly messages are tried again.
    pub const fn retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// No subscription of a push service is retired while more than so many percent of its latest answers, of at
    /// least 50, say that theirs is gone; 30 where nothing is said, 100 retires whatever they say.
    ///
    /// A push service that says so of every third subscriber has a fault of its own more often than not. Until it
    /// is over, the subscriptions are kept and asked again with the next message; the log and `/stats` tell.
    pub const fn retire_at_most(mut self, percent: u8) -> Self {
        self.prune_breaker = PruneBreaker::new(percent);
        self
    }

    /// Gives each delivery of a message without a topic a topic of its own, the same at every attempt
    /// (RFC 8030 section 5.4). Default: `false`, no topic that was not asked for.
    ///
    /// With `true` a repeated attempt replaces the first one on the push service if that is not delivered yet. A
    /// repeat happens if an answer is lost.
    ///
    /// The cost: push services store fewer messages with topics for a browser that is offline. FCM turns a topic into
    /// a collapse key and keeps four different ones per subscription, without a rule which; it keeps 100 messages
    /// without a topic. Mozilla delivers messages without a topic in order, and those with one in the order of their
    /// topics. So an offline browser loses messages with `true` that it gets with `false`. A notification's
    /// [`tag`](crate::Notification::tag) hides the repeat without this cost.
    pub const fn stable_topic(mut self, stable: bool) -> Self {
        self.stable_topic = stable;
        self
    }

    /// Asks this callback what each daily notification says, at the moment it is due.
    pub fn compose(mut self, callback: impl Compose) -> Self {
        self.composer = Some(Arc::new(callback));
        self
    }

    /// What a subscriber's daily notification of the type `DIRECT_NOTIFICATION` says when it was scheduled without a
    /// message.
    pub fn daily_text(mut self, text: impl Into<String>) -> Self {
        self.daily_text = text.into();
        self
    }

    /// How long one request may take in all; 15 s where nothing is said.
    pub const fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long a claimed delivery is one worker's: longer than the request timeout, by 30 s where nothing is
    /// said, by 5 s at least. No request begins that could outlast its lease, so what is left beside the timeout
    /// is the time to wait for a permit: where it passes, the delivery is put back.
    pub const fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// The longest pause between two looks at due work; 60 s where nothing is said.
    pub const fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Another process on the same store delivers: `/notify` accepts although no [`run`](WebPush::run) is alive here.
    pub const fn remote_workers(mut self, remote: bool) -> Self {
        self.remote_workers = remote;
        self
    }

    /// Makes it, with the first VAPID key where the store has none.
    ///
    /// # Errors
    ///
    /// One kind per thing that can be wrong: see [`BuildErrorKind`].
    pub async fn build(self) -> Result<WebPush, BuildError> {
        let lease = self
            .lease
            .unwrap_or_else(|| self.request_timeout.saturating_add(PERMIT_WAIT));
        if lease.saturating_sub(self.request_timeout) < SHORTEST_PERMIT_WAIT {
            return Err(BuildErrorKind::LeaseTooShort.into());
        }
        let has_contact = self.contact.is_some();
        let (contact, endpoint_policy) = match self.contact {
            Some(contact) if self.insecure_local_contact => (
                Contact::insecure_allow_local(&contact),
                self.endpoint_policy,
            ),
            Some(contact) => (Contact::parse(&contact), self.endpoint_policy),
            // No token is ever signed with it, since no endpoint passes this policy.
            None => (
                Contact::insecure_allow_local("mailto:nobody@localhost"),
                EndpointPolicy::nowhere(),
            ),
        };
        let contact = contact
            .map_err(|error| BuildError::with_source(BuildErrorKind::InvalidContact, error))?;
        let Store {
            subscriptions,
            vapid_keys,
            ledger,
        } = self.store.unwrap_or_else(|| Store::new(MemoryStore::new()));
        if let Some(skew) = ClockSkew::of(self.clock.as_ref(), ledger.as_ref()).await? {
            return Err(BuildError::with_source(BuildErrorKind::ClockSkew, skew));
        }
        let key_ring = KeyRing::open(
            vapid_keys,
            self.key_encryption_keys,
            self.vapid_private_key,
            self.clock.now(),
        )
        .await?;
        let gates = OriginGates::with_in_flight(self.in_flight_per_origin);
        let (make_sender, resolver) = match self.sender {
            Some(make_sender) => (make_sender, self.resolver),
            None => default_client(
                &endpoint_policy,
                self.extra_root_ca_pem.as_ref(),
                self.resolver,
            )?,
        };
        let host_check = HostCheck::new(resolver, endpoint_policy.clone(), gates.clone());
        let sender = make_sender(Shared {
            contact: contact.clone(),
            policy: endpoint_policy.clone(),
            gates: gates.clone(),
            p256: self.p256,
            clock: Arc::clone(&self.clock),
            timeout: self.request_timeout,
        });
        let engine = Engine::new(Parts {
            subscriptions: self.subscriptions.unwrap_or(subscriptions),
            ledger,
            key_ring,
            clock: self.clock,
            endpoint_policy,
            limits: self.limits,
            gates,
            in_flight_per_origin: self.in_flight_per_origin.max(1),
            sender,
            retry: self.retry,
            contact,
            has_contact,
            prune_breaker: self.prune_breaker,
            stable_topic: self.stable_topic,
            composer: self.composer,
            daily_text: self.daily_text,
            request_timeout: self.request_timeout,
            lease,
            poll_interval: self.poll_interval,
            remote_workers: self.remote_workers,
            signals: Signals::default(),
            host_check,
        });
        Ok(WebPush { engine })
    }
}

/// What a lease leaves beside the request itself.
const PERMIT_WAIT: Duration = Duration::from_secs(30);
/// Less would let no request begin on a busy machine, and its deliveries be claimed and put back for ever.
const SHORTEST_PERMIT_WAIT: Duration = Duration::from_secs(5);

/// The built-in client, and what it looks names up with.
type DefaultClient = (MakeSender, Option<Arc<dyn Resolver>>);

#[cfg(feature = "client")]
fn default_client(
    policy: &EndpointPolicy,
    extra_root_ca_pem: Option<&Bytes>,
    resolver: Option<Arc<dyn Resolver>>,
) -> Result<DefaultClient, BuildError> {
    let resolver = resolver.unwrap_or_else(|| Arc::new(crate::deliver::SystemResolver));
    let mut client = crate::deliver::HttpClient::builder()
        .policy(policy.clone())
        .resolver(Arc::clone(&resolver));
    if let Some(pem) = extra_root_ca_pem {
        client = client.extra_root_ca_pem(pem.clone());
    }
    let client = client
        .build()
        .map_err(|error| BuildError::with_source(BuildErrorKind::InvalidRootCa, error))?;
    let make_sender: MakeSender = Box::new(move |shared| Arc::new(shared.deliver(client)));
    Ok((make_sender, Some(resolver)))
}

#[cfg(not(feature = "client"))]
fn default_client(
    _policy: &EndpointPolicy,
    _extra_root_ca_pem: Option<&Bytes>,
    _resolver: Option<Arc<dyn Resolver>>,
) -> Result<DefaultClient, BuildError> {
    Err(BuildErrorKind::NoClient.into())
}

impl fmt::Debug for WebPushBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebPushBuilder")
            .field("contact", &self.contact)
            .field("endpoint_policy", &self.endpoint_policy)
            .finish_non_exhaustive()
    }
}
