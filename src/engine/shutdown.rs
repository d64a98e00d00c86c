//! The wish to end, heard while the store is waited for too; and what is done then.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::pacer::{SETTLE_WITHIN, STORE_PAUSE};
use super::worker::Worker;
use super::{Engine, RunError, RunErrorKind};
use crate::observe;

/// How long a call to the store may go on after the wish to end: longer than a healthy one takes.
const STORE_PATIENCE: Duration = Duration::from_secs(2);
/// How long the last outcomes are tried to be written.
const SETTLE_AT_LAST: Duration = Duration::from_secs(5);

/// The future that ends when the process shall.
pub(super) struct Shutdown<'a, F> {
    future: Pin<&'a mut F>,
    is_asked: bool,
}

impl<'a, F: Future<Output = ()>> Shutdown<'a, F> {
    pub(super) const fn new(future: Pin<&'a mut F>) -> Self {
        Self {
            future,
            is_asked: false,
        }
    }

    /// Ends when the process shall end, at once where that was asked before.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub(super) async fn asked(&mut self) {
        if !self.is_asked {
            self.future.as_mut().await;
            self.is_asked = true;
        }
    }

    /// What the store answers; `None` where the process shall end and the store does not answer for a while.
    ///
    /// What was claimed by a call that was given up stays leased until its lease ends.
    pub(super) async fn or_give_up<T>(&mut self, call: impl Future<Output = T>) -> Option<T> {
        let mut call = std::pin::pin!(call);
        tokio::select! {
            biased;
            answer = &mut call => Some(answer),
            () = self.asked() => timeout(STORE_PATIENCE, call).await.ok(),
        }
    }
}

/// Nothing new is claimed; what is in flight ends within one request timeout and is settled.
pub(super) async fn drain(engine: &Engine, mut worker: Worker) -> Result<(), RunError> {
    worker.stop();
    let limit = Instant::now() + engine.request_timeout + STORE_PAUSE;
    let mut is_written = true;
    loop {
        match timeout_at(limit, worker.attempt_ended()).await {
            Ok(Some(())) => {}
            Ok(None) => break,
            Err(_) => {
                observe::event!(
                    WARN,
                    left = worker.in_flight(),
                    "attempts left behind; their leases end by themselves"
                );
                break;
            }
        }
        let together = limit.min(Instant::now() + SETTLE_WITHIN);
        let _ = timeout_at(together, async {
            while worker.attempt_ended().await.is_some() {}
        })
        .await;
        // Written as they come: whoever stops this process may have less patience than the slowest request, and
        // what is given back is another process's at once. A store in trouble is left to the tries below.
        let settled = timeout(STORE_PATIENCE, worker.settle());
        is_written = is_written && matches!(settled.await, Ok(Ok(())));
    }
    // What is not settled now is sent again when its lease ends: worth a few tries.
    let limit = Instant::now() + SETTLE_AT_LAST;
    loop {
        match timeout_at(limit, worker.finish()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if Instant::now() + STORE_PAUSE >= limit => return Err(error.into()),
            Err(silence) => return Err(RunError::with_source(RunErrorKind::Store, silence)),
            Ok(Err(error)) => {
                observe::event!(ERROR, error = %observe::causes(&error), "cannot settle; trying again");
                let _ = error;
            }
        }
        sleep(STORE_PAUSE).await;
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
#[path = "shutdown_tests.rs"]
mod tests;
