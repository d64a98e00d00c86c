//! `Deliver`: one attempt per call, over any HTTP client.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::future::DeliverFuture;
use super::{Accepted, DeliveryError, EndpointPolicy, OriginGates, Permit};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::BoxError;
use crate::p256::{self, P256};
use crate::push_request::{Push, PushBody};
use crate::vapid::{Contact, Signer};

/// Sends a [`Push`] over an HTTP client `C`: [`Accepted`], or a [`DeliveryError`] with its outcome.
///
/// Each call is one attempt: the endpoint policy is asked, then the origin's gate; the message is
/// signed and encrypted, sent, and the answer classified. A closed gate refuses at once
/// ([`DeliveryError::closed`]), a full one makes the call wait for a permit, after which a push whose
/// [deadline](Push::with_deadline) has come is not sent. No redirect is followed. The
/// answer's body is read on failure only, and at most 8 KiB of it.
///
/// Answers that mean the whole origin close its gate, for every clone: too many requests, eight distinct
/// subscriptions in a row that are refused as sender faults or get no answer
/// ([the rules](crate::guide::what_the_push_service_said)). Retries are the caller's: every attempt must come
/// through here again, since each one is encrypted anew.
///
/// # Layers
///
/// Limits on calls go around `Deliver`. What is around `C` sees the finished request; a retry layer must
/// not be there, it would send one encryption twice. Readiness is `C`'s own.
///
/// # Runtime
///
/// The time limit needs tokio's timer.
///
/// # Examples
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use std::convert::Infallible;
/// use std::sync::Arc;
/// use tower::{ServiceExt as _, service_fn};
/// use tower_web_push::deliver::Deliver;
/// use tower_web_push::message::Message;
/// use tower_web_push::push_request::{Push, PushBody};
/// use tower_web_push::subscription::Subscription;
/// use tower_web_push::vapid::{Contact, VapidKey};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Any client will do; this one plays the push service itself.
/// let client = service_fn(async |request: Request<PushBody>| {
///     assert!(request.headers().contains_key("authorization"));
///     let mut response = Response::new(PushBody::default());
///     *response.status_mut() = StatusCode::CREATED;
///     Ok::<_, Infallible>(response)
/// });
/// let deliver = Deliver::new(client, Contact::parse("mailto:ops@example.com")?);
///
/// let subscription = Subscription::from_json(br#"{
///     "endpoint": "https://updates.push.services.mozilla.com/wpush/v2/gAAAAABk",
///     "keys": {
///         "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
///         "auth": "BTBZMqHH6r4Tts7J_aSIgg"
///     }
/// }"#)?;
/// let push = Push::new(subscription, Message::new("hello"), Arc::new(VapidKey::generate()?));
/// let accepted = deliver.oneshot(push).await?;
/// assert_eq!(accepted.status(), StatusCode::CREATED);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Deliver<C> {
    client: C,
    settings: Arc<Settings>,
}

/// What all clones share.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) policy: EndpointPolicy,
    pub(super) gates: OriginGates,
    pub(super) p256: Arc<dyn P256>,
    pub(super) signer: Arc<Signer>,
    pub(super) contact: Contact,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) timeout: Duration,
}

impl<C> Deliver<C> {
    /// The longest attempt where nothing else is said, from the request to the end of the answer.
    pub const TIMEOUT: Duration = Duration::from_secs(15);

    /// Delivery over `client`, to the push services of the browsers, signed with `contact`.
    #[must_use]
    pub fn new(client: C, contact: Contact) -> Self {
        Self {
            client,
            settings: Arc::new(Settings {
                policy: EndpointPolicy::default(),
                gates: OriginGates::new(),
                p256: Arc::new(p256::fastest()),
                signer: Arc::new(Signer::new()),
                contact,
                clock: Arc::new(SystemClock::new()),
                timeout: Self::TIMEOUT,
            }),
        }
    }

    /// Sends where this policy says instead.
    ///
    /// A client that resolves names must ask the same policy again, for every address:
    /// [`EndpointPolicy::check_addr`].
    #[must_use]
    pub fn with_policy(self, policy: EndpointPolicy) -> Self {
        self.with(|settings| settings.policy = policy)
    }

    /// Shares these gates.
    #[must_use]
    pub fn with_gates(self, gates: OriginGates) -> Self {
        self.with(|settings| settings.gates = gates)
    }

    /// Encrypts with this backend instead of the fastest one.
    #[must_use]
    pub fn with_p256(self, p256: Arc<dyn P256>) -> Self {
        self.with(|settings| settings.p256 = p256)
    }

    /// Reads this clock.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        self.with(|settings| settings.clock = clock)
    }

    /// Gives up on an attempt after this time, from the request to the end of the answer; waiting for a
    /// permit does not count.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        self.with(|settings| settings.timeout = timeout)
    }

    /// Where it may send.
    #[must_use]
    pub fn policy(&self) -> &EndpointPolicy {
        &self.settings.policy
    }

    /// The gates.
    #[must_use]
    pub fn gates(&self) -> &OriginGates {
        &self.settings.gates
    }

    /// The tokens.
    #[must_use]
    pub fn signer(&self) -> &Arc<Signer> {
        &self.settings.signer
    }

    /// The longest attempt.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    pub(super) fn now(&self) -> Timestamp {
        self.settings.clock.now()
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }
}

impl<C, B> Service<Push> for Deliver<C>
where
    C: Service<Request<PushBody>, Response = Response<B>> + Clone,
    C::Error: Into<BoxError>,
    B: Body,
{
    type Response = Accepted;
    type Error = DeliveryError;
    type Future = DeliverFuture<C, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DeliveryError>> {
        self.client
            .poll_ready(cx)
            .map_err(|error| DeliveryError::client(None, error.into()))
    }

    fn call(&mut self, push: Push) -> Self::Future {
        self.call_with(push, None)
    }
}

impl<C> Deliver<C>
where
    C: Service<Request<PushBody>> + Clone,
{
    /// The same with a permit of the origin's gate that the caller has already.
    pub(super) fn call_with<B>(
        &mut self,
        push: Push,
        permit: Option<Permit>,
    ) -> DeliverFuture<C, B> {
        // The request starts later, so the client that is ready moves into the future.
        let clone = self.client.clone();
        let ready = std::mem::replace(&mut self.client, clone);
        let settings = Arc::clone(&self.settings);
        DeliverFuture::new(ready, push, permit, settings)
    }
}

impl<C> fmt::Debug for Deliver<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliver")
            .field("policy", &self.settings.policy)
            .field("gates", &self.settings.gates)
            .field("contact", &self.settings.contact)
            .field("timeout", &self.settings.timeout)
            .finish_non_exhaustive()
    }
}
