//! What [`WebPush`](crate::WebPush) does, below it: accepting, registering, expanding, attempting, settling.
//!
//! Public are the parts that a queue of one's own is built from: [`KeyRing`] has the VAPID keys, [`Attempt`] makes an
//! attempt and says what follows from the answers, [`Effects`] writes down what was learned. The guide's page
//! [driving it yourself](crate::guide::driving_it_yourself) puts them together.

mod accept;
mod attempt;
mod clock_skew;
mod daily;
mod devices;
mod direct;
mod effects;
mod expand;
mod forget;
pub mod import;
mod job;
mod key_ring;
mod missing_keys;
mod outage;
mod pacer;
mod pauses;
mod progress;
mod prune_breaker;
mod register;
mod renew;
mod report;
mod rotate;
mod run;
mod schedules;
mod send_test;
mod shutdown;
#[cfg(test)]
#[cfg(feature = "testing")]
mod test_world;
mod worker;

pub use accept::{SendError, SendErrorKind};
pub use attempt::{Attempt, Consequence, Next};
pub(crate) use clock_skew::ClockSkew;
pub use devices::{Device, DeviceState};
pub use effects::Effects;
pub use forget::Forgotten;
pub use key_ring::KeyRing;
pub use progress::Progress;
pub use prune_breaker::PruneBreaker;
pub use register::{RegisterError, RegisterErrorKind, Registered, Registration};
pub use renew::Renewal;
pub use report::{Failure, Queued, Report};
pub use run::{RunError, RunErrorKind, Tick};

use missing_keys::MissingKeys;

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::{Clock, Timestamp};
use crate::deliver::{EndpointPolicy, HostCheck, OriginGates, RetryPolicy, Sender};
use crate::schedule::Compose;
use crate::store::{ScheduleStore, SubscriptionLimits, SubscriptionStore};
use crate::vapid::{Contact, KeyId};

/// The engine of one application. Cheap to clone; clones share everything.
#[derive(Clone)]
pub(crate) struct Engine(Arc<Parts>);

/// What the engine is made of.
pub(crate) struct Parts {
    pub(crate) subscriptions: Arc<dyn SubscriptionStore>,
    pub(crate) ledger: Arc<dyn ScheduleStore>,
    pub(crate) key_ring: KeyRing,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) endpoint_policy: EndpointPolicy,
    pub(crate) host_check: HostCheck,
    pub(crate) limits: SubscriptionLimits,
    pub(crate) gates: OriginGates,
    pub(crate) in_flight_per_origin: usize,
    pub(crate) sender: Arc<dyn Sender>,
    pub(crate) retry: RetryPolicy,
    pub(crate) contact: Contact,
    /// Whether there is a contact for the push services. Without one nothing is sent.
    pub(crate) has_contact: bool,
    pub(crate) prune_breaker: PruneBreaker,
    pub(crate) stable_topic: bool,
    pub(crate) composer: Option<Arc<dyn Compose>>,
    pub(crate) daily_text: String,
    pub(crate) request_timeout: Duration,
    pub(crate) lease: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) remote_workers: bool,
    pub(crate) signals: Signals,
}

/// What the calls and the workers of this process tell each other.
pub(crate) struct Signals {
    /// How many `run` are alive.
    workers: AtomicUsize,
    /// Something new may be due.
    wake: Notify,
    /// Rows came to their end.
    settled: Notify,
    /// When the shared pauses were last read, in milliseconds.
    pauses_read: AtomicI64,
    missing_keys: MissingKeys,
    /// The live VAPID keys that the last pauses for sender faults were judged by.
    known_keys: Mutex<Vec<KeyId>>,
}

impl Default for Signals {
    fn default() -> Self {
        Self {
            workers: AtomicUsize::new(0),
            wake: Notify::new(),
            settled: Notify::new(),
            pauses_read: AtomicI64::new(i64::MIN),
            missing_keys: MissingKeys::default(),
            known_keys: Mutex::default(),
        }
    }
}

impl Deref for Engine {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Engine {
    pub(crate) fn new(parts: Parts) -> Self {
        let engine = Self(Arc::new(parts));
        engine.has_new_key();
        engine
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What attempts find out, to be written to the engine's stores.
    pub(crate) fn effects(&self) -> Effects {
        let subscriptions = Arc::clone(&self.subscriptions);
        let ledger = Arc::clone(&self.ledger) as _;
        Effects::new(subscriptions, ledger, self.prune_breaker, &self.contact)
    }

    /// Whether somebody delivers what is accepted here.
    pub(crate) fn has_worker(&self) -> bool {
        self.remote_workers || self.signals.workers.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn worker_guard(&self) -> WorkerGuard {
        self.signals.workers.fetch_add(1, Ordering::Relaxed);
        WorkerGuard(self.clone())
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("subscriptions", &self.subscriptions)
            .field("ledger", &self.ledger)
            .field("endpoint_policy", &self.endpoint_policy)
            .finish_non_exhaustive()
    }
}

/// Counts as a living `run` until it is dropped.
pub(crate) struct WorkerGuard(Engine);

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        self.0.signals.workers.fetch_sub(1, Ordering::Relaxed);
    }
}
