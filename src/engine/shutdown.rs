//! The shutdown signal, also while a call to the store is pending; and the drain after it.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::pacer::{SETTLE_WITHIN, STORE_PAUSE};
use super::worker::Worker;
use super::{Engine, RunError, RunErrorKind};
use crate::observe;

/// How long a pending call to the store may take after the shutdown signal: longer than a healthy store needs.
const STORE_PATIENCE: Duration = Duration::from_secs(2);
/// How long writing the last outcomes is tried.
const SETTLE_AT_LAST: Duration = Duration::from_secs(5);

/// The application's shutdown signal.
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

    /// Waits for the signal; returns at once if it came before.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn asked(&mut self) {
        if !self.is_asked {
            self.future.as_mut().await;
            self.is_asked = true;
        }
    }

    /// Waits for a call to the store. Returns `None` if the signal has come and the call took [`STORE_PATIENCE`] longer.
    ///
    /// Rows claimed by a dropped call stay leased until their lease ends.
    pub(super) async fn or_give_up<T>(&mut self, call: impl Future<Output = T>) -> Option<T> {
        let mut call = std::pin::pin!(call);
        tokio::select! {
            biased;
            answer = &mut call => Some(answer),
            () = self.asked() => timeout(STORE_PATIENCE, call).await.ok(),
        }
    }
}

/// Claims nothing more. Attempts in flight end within one request timeout and are settled.
pub(super) async fn drain(engine: &Engine, mut worker: Worker) -> Result<(), RunError> {
    worker.stop();
    let limit = Instant::now() + engine.request_timeout + STORE_PAUSE;
    loop {
        match timeout_at(limit, worker.attempt_ended()).await {
            Ok(Some(())) => {}
            Ok(None) => break,
            Err(_) => {
                observe::event!(
                    WARN,
                    left = worker.in_flight(),
                    "attempts did not end in time; their rows are claimed again when their leases end"
                );
                break;
            }
        }
        let together = limit.min(Instant::now() + SETTLE_WITHIN);
        let _ = timeout_at(together, async {
            while worker.attempt_ended().await.is_some() {}
        })
        .await;
        // Settle as attempts end: the process may be killed before the slowest request ends, and released rows are due
        // for other workers at once. If the store fails, the loop below tries again.
        let _ = timeout(STORE_PATIENCE, worker.settle()).await;
    }
    // A row that is not settled is sent again when its lease ends, so this tries a few times.
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
