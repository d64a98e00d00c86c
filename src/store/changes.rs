//! Hints that a ledger may have something to do.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

/// Hints of a [`DeliveryLedger`](super::DeliveryLedger) for its workers: each item means that another caller or
/// another machine may have given it something to do.
///
/// A hint may be wrong or be lost. A worker polls without hints too: when
/// [`next_due`](super::DeliveryLedger::next_due) says so and after its poll interval at the latest. A hint makes it
/// poll earlier. Hints that are not read yet are merged into one.
///
/// A back end's resources for hints, for example a listening connection, belong to this value. Polling it drives
/// them, and dropping it frees them.
#[must_use = "hints come only while it is polled"]
pub struct Changes(Option<Pin<Box<dyn Stream<Item = ()> + Send>>>);

impl Changes {
    /// An empty stream: right for every ledger.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Makes a value from a stream of hints, for a store of your own.
    pub fn new(hints: impl Stream<Item = ()> + Send + 'static) -> Self {
        Self(Some(Box::pin(hints)))
    }

    /// Waits for the next hint. Never completes if there are no more.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: the hint is there for the next call.
    pub async fn next(&mut self) {
        let next = poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await;
        if next.is_none() {
            std::future::pending().await
        }
    }
}

impl Stream for Changes {
    type Item = ();

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<()>> {
        let Some(hints) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let next = hints.as_mut().poll_next(context);
        if matches!(next, Poll::Ready(None)) {
            self.0 = None;
        }
        next
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use super::*;

    /// A stream of this many hints.
    struct Hints(usize);

    impl Stream for Hints {
        type Item = ();

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<()>> {
            assert_ne!(self.0, usize::MAX, "polled after its end");
            self.0 = self.0.wrapping_sub(1);
            Poll::Ready((self.0 != usize::MAX).then_some(()))
        }
    }

    fn is_ready(changes: &mut Changes) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(changes.next()).poll(&mut context).is_ready()
    }

    #[test]
    fn hints_that_end_are_waited_for_and_not_asked_again() {
        let mut changes = Changes::new(Hints(2));
        let answers = [(); 5].map(|()| is_ready(&mut changes));
        assert_eq!(answers, [true, true, false, false, false]);
        assert!(!is_ready(&mut Changes::none()));
    }
}
