//! The wish to end, heard while the store is waited for too.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::timeout;

/// How long a call to the store may go on after the wish to end: longer than a healthy one takes.
pub(super) const STORE_PATIENCE: Duration = Duration::from_secs(2);

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
