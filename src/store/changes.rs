//! Hints that there is something to do: what a ledger on a server can tell and nobody relies on.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

/// Hints of a [`DeliveryLedger`](super::DeliveryLedger) to whoever works on it: each item says that somebody,
/// here or on another machine, may have given it something to do.
///
/// Hints are no truth. One may come for nothing, or be lost: a worker looks by itself when
/// [`next_due`](super::DeliveryLedger::next_due) says so and after its longest pause, and with hints it looks
/// earlier. Several that nobody has asked for yet are one.
///
/// What it takes to hear them (a connection that listens, say) belongs to this value, is driven by polling it,
/// and ends with it.
#[must_use = "hints come only while it is polled"]
pub struct Changes(Option<Pin<Box<dyn Stream<Item = ()> + Send>>>);

impl Changes {
    /// No hints at all: right for every ledger.
    pub const fn none() -> Self {
        Self(None)
    }

    /// The hints of a store of your own.
    pub fn new(hints: impl Stream<Item = ()> + Send + 'static) -> Self {
        Self(Some(Box::pin(hints)))
    }

    /// Waits for the next hint; for ever, where there are none.
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

    /// So many hints, and an end.
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
