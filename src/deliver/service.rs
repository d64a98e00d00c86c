//! `Deliver`: one attempt per call, over any HTTP client.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::future::DeliverFuture;
use super::{Accepted, DeliveryError, EndpointPolicy, OriginGates};
use crate::clock::{Clock, SystemClock};
use crate::error::BoxError;
use crate::p256::{self, P256};
use crate::push_request::{Push, PushBody};
use crate::vapid::{Contact, Signer};

/// Sends a [`Push`] over an HTTP client `C`: [`Accepted`], or a [`DeliveryError`] with its outcome.
///
/// Each call is one attempt: the endpoint policy is checked, then the origin's gate, then the readiness of the client;
/// the message is signed, encrypted and sent, and the response classified. A closed gate refuses at once
/// ([`DeliveryError::closed`]), a full one makes the call wait for a permit. After the waits, a push whose
/// [deadline](Push::with_deadline) has passed is not sent. No redirect is followed. The body of the response is read on
/// failure only, and at most 8 KiB of it.
///
/// Responses that together are evidence against the whole origin close its gate, for every clone: limits, refusals or no
/// response for eight distinct subscriptions that were accepted before ([`Push::with_history`]) and none between
/// ([the rules](crate::guide::what_the_push_service_said)). The caller retries: every attempt is a call of its own, since
/// each one is encrypted anew.
///
/// # Layers
///
/// Limits on calls go around `Deliver`. Layers around `C` see the finished request. No retry layer may be there: it would
/// send the same encryption twice.
///
/// `Deliver` is always ready. A call waits first for a permit of its origin and then for `C`, so a limit around `C` counts
/// requests: a call that waits for a full origin does not count.
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
/// // Any client works; this one answers as the push service.
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
    pub(super) client: C,
    pub(super) settings: Arc<Settings>,
}

/// Layer that wraps an HTTP client in a [`Deliver`], for [`ServiceBuilder`](https://docs.rs/tower/latest/tower/struct.ServiceBuilder.html).
///
/// All services of one layer and of its clones share gates and VAPID tokens.
///
/// # Examples
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use std::convert::Infallible;
/// use std::time::Duration;
/// use tower::ServiceBuilder;
/// use tower_web_push::deliver::DeliverLayer;
/// use tower_web_push::push_request::PushBody;
/// use tower_web_push::vapid::Contact;
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let contact = Contact::parse("mailto:ops@example.com")?;
/// let client = tower::service_fn(async |_: Request<PushBody>| {
///     Ok::<_, Infallible>(Response::new(PushBody::default()))
/// });
/// let deliver = ServiceBuilder::new()
///     .concurrency_limit(512) // calls, those that wait for their origin included
///     .layer(DeliverLayer::new(contact).with_timeout(Duration::from_secs(10)))
///     .concurrency_limit(256) // requests
///     .service(client);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DeliverLayer {
    settings: Arc<Settings>,
}

/// Settings and state that all clones share.
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

/// The settings of `Deliver` and of its layer.
macro_rules! settings {
    () => {
        /// Sends to the endpoints that this policy admits. Default: [`EndpointPolicy::known_push_services`].
        ///
        /// A client that resolves names must check every address with the same policy:
        /// [`EndpointPolicy::check_addr`].
        #[must_use]
        pub fn with_policy(self, policy: EndpointPolicy) -> Self {
            self.with(|settings| settings.policy = policy)
        }

        /// Uses these gates.
        #[must_use]
        pub fn with_gates(self, gates: OriginGates) -> Self {
            self.with(|settings| settings.gates = gates)
        }

        /// Encrypts with this backend. Default: the fastest one compiled in.
        #[must_use]
        pub fn with_p256(self, p256: Arc<dyn P256>) -> Self {
            self.with(|settings| settings.p256 = p256)
        }

        /// Uses this clock.
        #[must_use]
        pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
            self.with(|settings| settings.clock = clock)
        }

        /// Gives up on an attempt after this time, from the request to the end of the response. The wait for a permit or
        /// for the client does not count. Default: 15 s.
        #[must_use]
        pub fn with_timeout(self, timeout: Duration) -> Self {
            self.with(|settings| settings.timeout = timeout)
        }

        fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
            change(Arc::make_mut(&mut self.settings));
            self
        }
    };
}

impl DeliverLayer {
    /// Delivery to the push services of the browsers, signed with `contact`.
    #[must_use]
    pub fn new(contact: Contact) -> Self {
        Self {
            settings: Arc::new(Settings {
                policy: EndpointPolicy::default(),
                gates: OriginGates::new(),
                p256: Arc::new(p256::fastest()),
                signer: Arc::new(Signer::new()),
                contact,
                clock: Arc::new(SystemClock::new()),
                timeout: TIMEOUT,
            }),
        }
    }

    settings!();
}

impl<C> Layer<C> for DeliverLayer {
    type Service = Deliver<C>;

    fn layer(&self, client: C) -> Deliver<C> {
        let settings = Arc::clone(&self.settings);
        Deliver { client, settings }
    }
}

impl<C> Deliver<C> {
    /// Delivery over `client`, to the push services of the browsers, signed with `contact`.
    #[must_use]
    pub fn new(client: C, contact: Contact) -> Self {
        DeliverLayer::new(contact).layer(client)
    }

    settings!();

    /// The gates.
    #[must_use]
    pub fn gates(&self) -> &OriginGates {
        &self.settings.gates
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

    /// Always ready: the origin that a call waits for is not known before the call.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), DeliveryError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, push: Push) -> Self::Future {
        DeliverFuture::new(self, push, None)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("policy", &self.policy)
            .field("gates", &self.gates)
            .field("contact", &self.contact)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl<C> fmt::Debug for Deliver<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Deliver").field(&self.settings).finish()
    }
}

/// The default time limit of an attempt.
const TIMEOUT: Duration = Duration::from_secs(15);
