//! The sign to a connection's task that the connection has to be closed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

/// Whether a connection has to be closed, and the task that drives it.
#[derive(Debug, Default)]
pub(super) struct Closing {
    has_begun: AtomicBool,
    driver: Mutex<Option<Waker>>,
}

impl Closing {
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::SeqCst)
    }

    pub(super) fn begin(&self) {
        self.has_begun.store(true, Ordering::SeqCst);
        if let Some(driver) = self.driver().take() {
            driver.wake();
        }
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> bool {
        if self.has_begun() {
            return true;
        }
        let mut driver = self.driver();
        if !driver
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *driver = Some(cx.waker().clone());
        }
        drop(driver);
        // It may have begun before the task was stored.
        self.has_begun()
    }

    fn driver(&self) -> MutexGuard<'_, Option<Waker>> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
