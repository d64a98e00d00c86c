//! `Deliver` over any client, as one type.

use std::fmt;
use std::future::{pending, poll_fn};

use async_trait::async_trait;
use http_body::Body;
use tokio::sync::watch;
use tower_service::Service;

use super::{Accepted, Deliver, DeliveryError};
use crate::clock::Timestamp;
use crate::error::BoxError;
use crate::push_request::{Push, PushBody};

/// Sends one push. What [`WebPush`](crate::WebPush) holds, so that the client's type does not show.
#[async_trait]
pub(crate) trait Sender: fmt::Debug + Send + Sync {
    /// Answers `None`, and sends nothing, where the request could not begin in time.
    async fn send(&self, push: Push, begin: Begin) -> Option<Result<Accepted, DeliveryError>>;
}

/// How long a request may wait for the client and for a permit before it begins.
#[derive(Clone, Debug)]
pub(crate) struct Begin {
    before: Timestamp,
    stop: Option<watch::Receiver<bool>>,
}

impl Begin {
    /// Before this moment.
    pub(crate) const fn before(before: Timestamp) -> Self {
        Self { before, stop: None }
    }

    /// Nor once this is true, or its sender gone.
    pub(crate) fn unless(self, stop: Option<watch::Receiver<bool>>) -> Self {
        Self { stop, ..self }
    }

    fn is_over(&self, now: Timestamp) -> bool {
        now >= self.before || self.stop.as_ref().is_some_and(|stop| *stop.borrow())
    }

    /// Waits until a request may not begin any more.
    async fn over(&mut self, now: Timestamp) {
        let late = async {
            tokio::time::sleep(self.before.since(now)).await;
        };
        let stopped = async {
            match &mut self.stop {
                Some(stop) => drop(stop.wait_for(|stop| *stop).await),
                None => pending().await,
            }
        };
        tokio::select! {
            () = late => {}
            () = stopped => {}
        }
    }
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
    async fn send(&self, push: Push, mut begin: Begin) -> Option<Result<Accepted, DeliveryError>> {
        let mut deliver = self.clone();
        if begin.is_over(self.now()) {
            return None;
        }
        let gate = self.gates().gate(push.subscription().endpoint().origin());
        let ready = async {
            poll_fn(|cx| deliver.poll_ready(cx)).await?;
            // A closed gate refuses at once, however full it is.
            if gate.closed_at(self.now()).is_some() {
                return Ok(None);
            }
            Ok(Some(gate.acquire().await))
        };
        let permit = tokio::select! {
            biased;
            permit = ready => permit,
            () = begin.over(self.now()) => return None,
        };
        if begin.is_over(self.now()) {
            return None;
        }
        match permit {
            Ok(permit) => Some(deliver.call_with(push, permit).await),
            Err(error) => Some(Err(error)),
        }
    }
}
