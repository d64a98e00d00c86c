//! Whether the store can be used: what `GET /ready` and the gauge `web_push_store_up` say.

use super::Engine;
use crate::broadcast::Audience;
use crate::clock::Timestamp;

impl Engine {
    /// Whether the store responds, and the last claim, settlement and write of this process succeeded; and when a worker last
    /// polled for due work, if the store says so.
    pub(crate) async fn is_store_up(&self) -> (bool, Option<Timestamp>) {
        let read = self.signals.readiness.get(|| read(self.clone()));
        let (responds, last_run) = read.await.unwrap_or((false, None));
        let forget_after = (!self.has_own_worker()).then_some(self.poll_interval);
        let is_up = responds && self.signals.health.is_store_usable(forget_after);
        (is_up, last_run)
    }
}

/// Whether both stores can be read, and the last run.
async fn read(engine: Engine) -> (bool, Option<Timestamp>) {
    let now = engine.now();
    let reads = tokio::join!(
        engine.ledger.last_run(),
        engine.subscriptions.page(&Audience::All, None, 1, now),
        engine.ledger.pauses(now)
    );
    match reads {
        (Ok(last_run), Ok(_), Ok(_)) => (true, last_run),
        // A part of the answers would be misleading.
        _ => (false, None),
    }
}
