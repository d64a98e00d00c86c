//! `Deliver` over any client, as one type.

use std::fmt;
use std::future::poll_fn;

use async_trait::async_trait;
use http_body::Body;
use tower_service::Service;

use super::{Accepted, Deliver, DeliveryError};
use crate::error::BoxError;
use crate::push_request::{Push, PushBody};

/// Sends one push. What [`WebPush`](crate::WebPush) holds, so that the client's type does not show.
#[async_trait]
pub(crate) trait Sender: fmt::Debug + Send + Sync {
    async fn send(&self, push: Push) -> Result<Accepted, DeliveryError>;
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
    async fn send(&self, push: Push) -> Result<Accepted, DeliveryError> {
        let mut deliver = self.clone();
        poll_fn(|cx| deliver.poll_ready(cx)).await?;
        deliver.call(push).await
    }
}
