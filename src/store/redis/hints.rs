//! Hints about new work: a channel, and a connection that listens to it.

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use redis::aio::{PubSub, PubSubSink, PubSubStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Inner, RedisStore};
use crate::store::Changes;

/// The pause between two attempts to listen.
const PAUSE: Duration = Duration::from_secs(1);
/// The time without a message after which the connection is checked.
const SILENCE: Duration = Duration::from_secs(30);

impl RedisStore {
    /// Listens on a connection of its own. Without an address there are only hints of this process.
    pub(super) fn hints(&self) -> Changes {
        match self.inner.listen {
            Some(_) => Changes::new(Hints::new(Arc::clone(&self.inner))),
            None => Changes::new(Own(Box::pin(changed(self.inner.own.subscribe())))),
        }
    }
}

impl Inner {
    /// Wakes the workers of this process if they do not listen: the caller of what was opened may have gone.
    pub(super) fn tell_own(&self) {
        if self.listen.is_none() {
            self.own.send_replace(());
        }
    }
}

/// The hints of this process.
struct Own(Pin<Box<dyn Future<Output = watch::Receiver<()>> + Send>>);

async fn changed(mut own: watch::Receiver<()>) -> watch::Receiver<()> {
    if own.changed().await.is_err() {
        pending::<()>().await;
    }
    own
}

impl Stream for Own {
    type Item = ();

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<()>> {
        let own = ready!(self.0.as_mut().poll(context));
        self.0 = Box::pin(changed(own));
        Poll::Ready(Some(()))
    }
}

type Listening = Option<(PubSubSink, PubSubStream)>;
type Step = dyn Future<Output = Listening> + Send;

/// The connection that listens. Replaced when it is lost.
struct Hints {
    inner: Arc<Inner>,
    /// Connects, or waits for the next message. Returns the connection while it works.
    step: Pin<Box<Step>>,
}

impl Hints {
    fn new(inner: Arc<Inner>) -> Self {
        let step = Box::pin(connect(Arc::clone(&inner)));
        Self { inner, step }
    }
}

impl Stream for Hints {
    type Item = ();

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<()>> {
        loop {
            match ready!(self.step.as_mut().poll(context)) {
                // A message, or a new connection, before which messages may have been missed.
                Some(listening) => {
                    self.step = Box::pin(next(self.inner.limits.answer, listening));
                    return Poll::Ready(Some(()));
                }
                None => self.step = Box::pin(connect(Arc::clone(&self.inner))),
            }
        }
    }
}

async fn connect(inner: Arc<Inner>) -> Listening {
    loop {
        let limit = inner.limits.connect;
        if let Ok(Some(listening)) = timeout(limit, listen(&inner)).await {
            return Some(listening);
        }
        sleep(PAUSE).await;
    }
}

async fn listen(inner: &Inner) -> Listening {
    let address = inner.listen.as_ref()?;
    let stream = address.dial().await.ok()?;
    let mut listening = PubSub::new(&address.settings, stream).await.ok()?;
    let channel = format!("{}:hints", inner.namespace);
    listening.subscribe(channel).await.ok()?;
    Some(listening.split())
}

/// Waits for a message. Returns `None` if the connection is lost, even without a close.
async fn next(limit: Duration, (mut sink, mut stream): (PubSubSink, PubSubStream)) -> Listening {
    loop {
        let message = poll_fn(|context| Pin::new(&mut stream).poll_next(context));
        match timeout(SILENCE, message).await {
            Ok(Some(_)) => {
                drain(&mut stream).await;
                return Some((sink, stream));
            }
            Ok(None) => return None,
            Err(_) => match timeout(limit, sink.ping::<redis::Value>()).await {
                Ok(Ok(_)) => {}
                _ => return None,
            },
        }
    }
}

/// Drops pending messages: several hints count as one.
async fn drain(stream: &mut PubSubStream) {
    poll_fn(|context| {
        while let Poll::Ready(Some(_)) = Pin::new(&mut *stream).poll_next(context) {}
        Poll::Ready(())
    })
    .await;
}
