//! The looks at the outbox of a worker: one task, beside its other work.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Engine;
use super::chores::within_limit;
use super::health::Step;
use super::outbox::{Looked, look};
use super::pacer::STORE_PAUSE;
use crate::observe;
use crate::store::StoreError;

/// The pause after a look that found entries. It doubles with each look that finds none.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The shortest time between two looks that hints ask for: there may be thousands of hints a second.
const SHORTEST_LOOK: Duration = Duration::from_millis(25);

/// Looks at the outbox until it is dropped. Nothing waits for it, and its failures are its own.
#[derive(Debug)]
pub(super) struct Draining {
    hint: Arc<Notify>,
    _task: JoinSet<()>,
}

impl Draining {
    /// Starts to look, if the ledger has an outbox.
    pub(super) fn start(engine: &Engine) -> Self {
        let hint = Arc::new(Notify::new());
        let mut task = JoinSet::new();
        if engine.ledger.has_outbox() {
            task.spawn(drain(engine.clone(), Arc::clone(&hint)));
        }
        Self { hint, _task: task }
    }

    /// Looks soon: there may be new entries.
    pub(super) fn hasten(&self) {
        self.hint.notify_one();
    }
}

async fn drain(engine: Engine, hint: Arc<Notify>) {
    let mut pause = SHORTEST_PAUSE;
    loop {
        let started = Instant::now();
        let looked = match engine.clock.fault() {
            // Deadlines count from now.
            Some(_) => Ok(Looked::default()),
            None => look_once(&engine).await,
        };
        match looked {
            Ok(looked) => {
                if looked.more && looked.settled > 0 {
                    continue;
                }
                pause = match looked.settled {
                    0 => (2 * pause).min(LONGEST_PAUSE),
                    _ => SHORTEST_PAUSE,
                };
                if timeout(pause, hint.notified()).await.is_ok() {
                    sleep_until(started + SHORTEST_LOOK).await;
                }
            }
            // Hints do not add to the load of a store in trouble.
            Err(_) => sleep(STORE_PAUSE).await,
        }
    }
}

/// Looks at the outbox, in a task: a store or a subscriptions table of the application may panic.
async fn look_once(engine: &Engine) -> Result<Looked, StoreError> {
    let mut task = JoinSet::new();
    let of = engine.clone();
    task.spawn(async move { within_limit(look(&of, of.now())).await });
    let looked = match task.join_next().await {
        Some(Ok(looked)) => looked,
        Some(Err(error)) => {
            observe::event!(ERROR, error = %error, "looking at the outbox panicked");
            let _ = error;
            return Ok(Looked::default());
        }
        None => return Ok(Looked::default()),
    };
    let health = &engine.signals.health;
    health.note(Step::Outbox, looked.as_ref().map(|_| ()), engine.now());
    looked
}
