//! The signal after which no request begins.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// A signal that all its clones share. It wakes those that wait for it in the order in which they came, so that a run of the
/// simulation can be repeated: `tokio::sync::watch` wakes them in a random one.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Arc<Semaphore>);

impl Stop {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Gives the signal, for ever.
    pub(crate) fn stop(&self) {
        self.0.close();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.0.is_closed()
    }

    /// Completes after the signal.
    pub(crate) async fn stopped(&self) {
        // There are no permits: only closing it ends the wait.
        let _ = self.0.acquire().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn it_wakes_all_in_their_order() {
        for _ in 0..20 {
            let (stop, woken) = (Stop::new(), Arc::new(Mutex::new(Vec::new())));
            let mut tasks = tokio::task::JoinSet::new();
            for number in 0..8 {
                let (stop, woken) = (stop.clone(), Arc::clone(&woken));
                tasks.spawn(async move {
                    stop.stopped().await;
                    woken.lock().unwrap().push(number);
                });
            }
            tokio::task::yield_now().await;
            assert!(!stop.is_stopped() && woken.lock().unwrap().is_empty());
            stop.stop();
            assert!(stop.is_stopped());
            tasks.join_all().await;
            assert_eq!(*woken.lock().unwrap(), (0..8).collect::<Vec<_>>());
            stop.stopped().await;
        }
    }
}
