//! `Deliver` with any client, as a trait object.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use http_body::Body;
use tower_service::Service;

use super::{Accepted, Begin, Deliver, DeliverFuture, DeliveryError, OriginGate};
use crate::error::BoxError;
use crate::push_request::{Push, PushBody};

/// Sends one push. [`WebPush`](crate::WebPush) holds it as a trait object, so that it does not depend on the type of the
/// client.
#[async_trait]
pub(crate) trait Sender: fmt::Debug + Send + Sync {
    /// Makes one attempt through the gate of the push's origin.
    async fn send(
        &self,
        push: Push,
        gate: Arc<OriginGate>,
        begin: Begin,
    ) -> Result<Accepted, DeliveryError>;
}

#[async_trait]
impl<C, B> Sender for Deliver<C>
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
    async fn send(
        &self,
        push: Push,
        gate: Arc<OriginGate>,
        begin: Begin,
    ) -> Result<Accepted, DeliveryError> {
        DeliverFuture::new(self, push, Some((gate, begin))).await
    }
}
