//! The progress of a broadcast, as a stream.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::time::{Instant, sleep, timeout_at};

use super::Engine;
use crate::broadcast::{BroadcastId, BroadcastStatus};
use crate::store::StoreError;

/// The shortest time between two items.
const PACE: Duration = Duration::from_millis(250);
/// The time between two polls: workers of other processes do not wake this one.
const POLL: Duration = Duration::from_secs(1);

/// A stream of a broadcast's [`BroadcastStatus`]: the present one, then each that differs from the last, at most four
/// times a second, until the broadcast is over. It ends at once if there is no such broadcast.
///
/// An error of the store is an item. The next item asks the store again.
///
/// # Examples
///
/// ```
/// # async fn example(push: tower_web_push::WebPush) -> Result<(), Box<dyn std::error::Error>> {
/// use tower_web_push::{Audience, Message};
///
/// let queued = push.enqueue(Audience::All, Message::new("hello")).await?;
/// let mut progress = push.progress(queued.broadcast);
/// while let Some(status) = progress.next().await {
///     let status = status?;
///     println!("{} of {}", status.counts.finished(), status.recipients);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "streams do nothing unless polled"]
pub struct Progress {
    engine: Engine,
    broadcast: BroadcastId,
    last: Option<BroadcastStatus>,
    asking: Option<Asking>,
    is_over: bool,
}

type Asking =
    Pin<Box<dyn Future<Output = Result<Option<BroadcastStatus>, StoreError>> + Send + 'static>>;

impl Progress {
    pub(crate) const fn new(engine: Engine, broadcast: BroadcastId) -> Self {
        Self {
            engine,
            broadcast,
            last: None,
            asking: None,
            is_over: false,
        }
    }

    /// Waits until the status differs from the last one, and for `pause` before the store is asked.
    fn changed(&self, pause: Duration) -> Asking {
        let (engine, last) = (self.engine.clone(), self.last.clone());
        Box::pin(changed(engine, self.broadcast, last, pause))
    }

    /// Waits for the next status; `None` at the end of the stream.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable. The next call asks it again.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the next call continues where this one was dropped.
    pub async fn next(&mut self) -> Option<Result<BroadcastStatus, StoreError>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Progress {
    type Item = Result<BroadcastStatus, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let this = &mut *self;
        let mut asking = this.asking.take().unwrap_or_else(|| {
            let pause = this.last.as_ref().map_or(Duration::ZERO, |_| PACE);
            this.changed(pause)
        });
        let Poll::Ready(answer) = asking.as_mut().poll(cx) else {
            this.asking = Some(asking);
            return Poll::Pending;
        };
        Poll::Ready(match answer {
            Ok(Some(status)) => {
                this.is_over = status.is_over();
                this.last = Some(status.clone());
                Some(Ok(status))
            }
            Ok(None) => {
                this.is_over = true;
                None
            }
            Err(error) => {
                // Not at once: a store in trouble gets one request a second.
                this.asking = Some(this.changed(POLL));
                Some(Err(error))
            }
        })
    }
}

async fn changed(
    engine: Engine,
    broadcast: BroadcastId,
    last: Option<BroadcastStatus>,
    pause: Duration,
) -> Result<Option<BroadcastStatus>, StoreError> {
    sleep(pause).await;
    loop {
        let settled = engine.signals.settled.notified();
        let status = engine.status(broadcast).await?;
        if status.is_none() || status != last {
            return Ok(status);
        }
        let _ = timeout_at(Instant::now() + POLL, settled).await;
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress")
            .field("broadcast", &self.broadcast)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}
