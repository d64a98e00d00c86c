//! The HTTP client of a `WebPush`: the application's, or the built-in one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{BuildError, BuildErrorKind};
use crate::clock::Clock;
use crate::deliver::{Deliver, EndpointPolicy, OriginGates, Resolver, Sender};
use crate::p256::P256;
use crate::vapid::Contact;

/// A client that is built once the policy and the clock are known.
pub(super) struct MakeSender(Box<dyn FnOnce(Shared) -> Arc<dyn Sender> + Send>);

impl MakeSender {
    pub(super) fn new(make: impl FnOnce(Shared) -> Arc<dyn Sender> + Send + 'static) -> Self {
        Self(Box::new(make))
    }

    pub(super) fn make(self, shared: Shared) -> Arc<dyn Sender> {
        (self.0)(shared)
    }
}

impl fmt::Debug for MakeSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MakeSender").finish_non_exhaustive()
    }
}

/// The parts that every delivery shares, with any client.
pub(super) struct Shared {
    pub(super) contact: Contact,
    pub(super) policy: EndpointPolicy,
    pub(super) gates: OriginGates,
    pub(super) p256: Arc<dyn P256>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) timeout: Duration,
}

impl Shared {
    pub(super) fn deliver<C>(self, client: C) -> Deliver<C> {
        Deliver::new(client, self.contact)
            .with_policy(self.policy)
            .with_gates(self.gates)
            .with_p256(self.p256)
            .with_clock(self.clock)
            .with_timeout(self.timeout)
    }
}

/// The built-in client and its resolver.
type DefaultClient = (MakeSender, Option<Arc<dyn Resolver>>);

#[cfg(feature = "client")]
pub(super) fn default_client(
    policy: &EndpointPolicy,
    extra_root_ca_pem: Option<Bytes>,
    resolver: Option<Arc<dyn Resolver>>,
) -> Result<DefaultClient, BuildError> {
    use crate::deliver::{HttpClient, HttpClientErrorKind, SystemResolver};

    let resolver = resolver.unwrap_or_else(|| Arc::new(SystemResolver));
    let mut client = HttpClient::builder()
        .policy(policy.clone())
        .resolver(Arc::clone(&resolver));
    if let Some(pem) = extra_root_ca_pem {
        client = client.extra_root_ca_pem(pem);
    }
    let client = client.build().map_err(|error| {
        let kind = match error.kind() {
            HttpClientErrorKind::InvalidRootCa => {
                BuildErrorKind::InvalidSetting("extra_root_ca_pem")
            }
            HttpClientErrorKind::Tls => BuildErrorKind::NoClient,
        };
        BuildError::with_source(kind, error)
    })?;
    let sender = MakeSender::new(|shared| Arc::new(shared.deliver(client)));
    Ok((sender, Some(resolver)))
}

#[cfg(not(feature = "client"))]
pub(super) fn default_client(
    _policy: &EndpointPolicy,
    _extra_root_ca_pem: Option<Bytes>,
    _resolver: Option<Arc<dyn Resolver>>,
) -> Result<DefaultClient, BuildError> {
    Err(BuildErrorKind::NoClient.into())
}
