//! Signs of life of the workers of a server: the rows of one that is dead are due at once (L19).
//!
//! A store that claims is a worker. At its first claim it enlists at the server under a number, which its rows name from then
//! on. A thread of its own, with a connection of its own, writes a beat four times a second, whatever the application
//! does with its runtime. It also looks at the beats of the others. A claim makes the rows of a dead worker due, after having
//! marked it: a worker that finds itself marked enlists under another number and begins another epoch.

mod beats;
mod standing;

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use std::{io, thread};

use async_trait::async_trait;
use tokio::runtime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use self::beats::Beat;
pub(crate) use self::beats::Moment;
use self::standing::Standing;
use super::StoreError;
use crate::clock::Timestamp;
use crate::observe;

/// The number of a worker.
pub(crate) type WorkerId = i32;

const BETWEEN_BEATS: Duration = Duration::from_millis(250);
/// The beats between two looks at the others.
const LOOK_EVERY: u32 = 4;
/// The longest wait of the first claim for a number.
const FIRST: Duration = Duration::from_secs(2);
/// The pause after a beat failed. Much shorter than the grace: after a restart of the server all beat again before
/// one of them is judged.
const PAUSE: Duration = Duration::from_millis(500);
/// After an outage of this length the pause is longer: no request of before it is in flight.
const OUTAGE: Duration = Duration::from_secs(60);
const LONG_PAUSE: Duration = Duration::from_secs(5);
/// The time between two looks of an idle worker at the rows of others.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Another worker, as the server knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Other {
    pub(crate) id: WorkerId,
    /// Its last beat, by the server's clock.
    pub(crate) beat_at: Timestamp,
    /// Whether it is marked as dead.
    pub(crate) is_dead: bool,
}

/// Workers that are dead.
#[derive(Clone, Debug)]
pub(crate) struct Silent {
    pub(crate) workers: Vec<WorkerId>,
    /// Of those that are not marked yet, the ones whose last beat is before this moment of the server's clock are marked.
    /// `None` if all of them are marked.
    pub(crate) horizon: Option<Timestamp>,
}

/// A connection of its own to the server.
#[async_trait]
pub(crate) trait Pulse: Send + 'static {
    /// Enters a worker. Returns its number, which is given once, and the server's time.
    async fn enlist(&mut self) -> Result<(WorkerId, Timestamp), StoreError>;

    /// Writes a beat. Returns the server's time, or `None` for a worker that is marked as dead or not known.
    async fn beat(&mut self, id: WorkerId) -> Result<Option<Timestamp>, StoreError>;

    /// Reads the other workers.
    async fn others(&mut self, id: WorkerId) -> Result<Vec<Other>, StoreError>;
}

/// The heartbeat of a store. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    standing: Arc<Mutex<Standing>>,
    /// Whether the server has answered or failed once. Empty before the thread was started.
    first: OnceLock<watch::Receiver<bool>>,
    /// Its end stops the thread.
    alive: watch::Sender<()>,
}

impl Heartbeat {
    pub(super) fn new() -> Self {
        Self {
            standing: Arc::default(),
            first: OnceLock::new(),
            alive: watch::Sender::new(()),
        }
    }

    /// A heartbeat for a simulation: a future instead of a thread.
    #[cfg(test)]
    pub(crate) fn simulated(pulse: impl Pulse) -> (Self, impl Future<Output = ()> + Send) {
        let heartbeat = Self::new();
        let (first, is_over) = watch::channel(false);
        let _ = heartbeat.first.set(is_over);
        let standing = Arc::clone(&heartbeat.standing);
        (heartbeat, async move {
            beat(pulse, &standing, &first).await;
        })
    }

    /// The number that a claim names, after enlisting at the first call. `None` if claims have to name none.
    pub(crate) async fn worker<P: Pulse>(
        &self,
        pulse: impl FnOnce() -> P + Send,
    ) -> Option<WorkerId> {
        let first = self.first.get_or_init(|| self.begin(pulse()));
        // An error means that there is no thread.
        let _ = timeout(FIRST, first.clone().wait_for(|is_over| *is_over)).await;
        self.standing().worker(Moment::now())
    }

    /// The epoch of claims (L19).
    pub(crate) fn epoch(&self) -> Option<u64> {
        self.standing().epoch(Moment::now())
    }

    /// The other workers, as they were last looked at.
    pub(crate) fn others(&self) -> Vec<WorkerId> {
        self.standing().others()
    }

    /// Workers whose rows are to be made due.
    pub(crate) fn take_silent(&self) -> Option<Silent> {
        self.standing().take_silent()
    }

    /// They have more rows.
    pub(crate) fn put_back(&self, silent: Silent) {
        self.standing().put_back(silent);
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        lock(&self.standing)
    }

    fn begin(&self, pulse: impl Pulse) -> watch::Receiver<bool> {
        let (first, is_over) = watch::channel(false);
        let (standing, alive) = (Arc::clone(&self.standing), self.alive.subscribe());
        let work = move || {
            let mut runtime = runtime::Builder::new_current_thread();
            runtime
                .enable_all()
                .build()?
                .block_on(beat_while(alive, pulse, &standing, &first));
            Ok(())
        };
        let warned = move || work().unwrap_or_else(|error: io::Error| no_heartbeat(&error));
        let thread = thread::Builder::new().name("web-push-beat".to_owned());
        // Not joined: it ends by itself, and the drop of the store may not wait.
        if let Err(error) = thread.spawn(warned) {
            no_heartbeat(&error);
        }
        is_over
    }
}

async fn beat_while(
    mut alive: watch::Receiver<()>,
    pulse: impl Pulse,
    standing: &Mutex<Standing>,
    first: &watch::Sender<bool>,
) {
    tokio::select! {
        // Nothing is ever sent.
        _ = alive.changed() => {}
        () = beat(pulse, standing, first) => {}
    }
}

async fn beat(mut pulse: impl Pulse, standing: &Mutex<Standing>, first: &watch::Sender<bool>) {
    let mut id = None;
    let mut beats = 0_u32;
    let mut failing_since: Option<Instant> = None;
    loop {
        let looks = beats.is_multiple_of(LOOK_EVERY);
        let done = step(&mut pulse, standing, &mut id, looks).await;
        first.send_replace(true);
        let pause = match done {
            Ok(()) => {
                failing_since = None;
                beats = beats.wrapping_add(1);
                BETWEEN_BEATS
            }
            Err(error) => {
                if failing_since.is_none() {
                    no_heartbeat(&error);
                }
                let since = failing_since.get_or_insert_with(Instant::now);
                match since.elapsed() < OUTAGE {
                    true => PAUSE,
                    false => LONG_PAUSE,
                }
            }
        };
        sleep(pause).await;
    }
}

/// Enlists or beats, and looks at the others.
async fn step(
    pulse: &mut impl Pulse,
    standing: &Mutex<Standing>,
    id: &mut Option<WorkerId>,
    looks: bool,
) -> Result<(), StoreError> {
    let mut sent = Moment::now();
    let mut beaten = None;
    if let Some(own) = *id {
        beaten = pulse.beat(own).await?.map(|at| (own, at));
        if beaten.is_none() {
            *id = None;
            lock(standing).struck();
            observe::event!(
                WARN,
                worker = own,
                "no sign of life of this process came through for some seconds: others may have taken its messages in \
                 flight, and it begins none of them"
            );
        }
    }
    let (own, at) = match beaten {
        Some(beaten) => beaten,
        None => {
            sent = Moment::now();
            pulse.enlist().await?
        }
    };
    *id = Some(own);
    lock(standing).beaten(own, Beat { sent, at });
    if looks {
        let others = pulse.others(own).await?;
        lock(standing).looked(&others);
    }
    Ok(())
}

fn no_heartbeat(error: &(dyn Error + 'static)) {
    observe::event!(
        WARN,
        error = %observe::causes(error),
        "signs of life cannot be written: if this process is killed meanwhile, its messages in flight are sent again \
         when their leases end"
    );
    let _ = error;
}

fn lock(standing: &Mutex<Standing>) -> MutexGuard<'_, Standing> {
    standing.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "heartbeat_tests.rs"]
mod tests;
