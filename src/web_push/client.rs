//! The HTTP client of a `WebPush`: the application's, or the built-in one.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tower_layer::Layer as _;

use super::{BuildError, BuildErrorKind};
use crate::deliver::{Deliver, DeliverLayer, EndpointPolicy, Resolver, Sender};

/// A client that is built once the policy and the clock are known.
pub(super) struct MakeSender(Box<Make>);

type Make = dyn FnOnce(&DeliverLayer) -> Arc<dyn Sender> + Send;

impl MakeSender {
    pub(super) fn new<C>(client: C) -> Self
    where
        C: Send + 'static,
        Deliver<C>: Sender + 'static,
    {
        Self(Box::new(|settings| Arc::new(settings.layer(client))))
    }

    pub(super) fn make(self, settings: &DeliverLayer) -> Arc<dyn Sender> {
        (self.0)(settings)
    }
}

impl fmt::Debug for MakeSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MakeSender").finish_non_exhaustive()
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
    Ok((MakeSender::new(client), Some(resolver)))
}

#[cfg(not(feature = "client"))]
pub(super) fn default_client(
    _policy: &EndpointPolicy,
    _extra_root_ca_pem: Option<Bytes>,
    _resolver: Option<Arc<dyn Resolver>>,
) -> Result<DefaultClient, BuildError> {
    Err(BuildErrorKind::NoClient.into())
}
