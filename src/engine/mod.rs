//! The engine below [`WebPush`](crate::WebPush): accepts, registers, expands, attempts, settles.
//!
//! The public parts are for applications with a queue of their own: [`KeyRing`] holds the VAPID keys, [`Attempt`] makes
//! an attempt and returns its consequence, [`Effects`] writes what the responses said of subscriptions and origins. The
//! guide's page [driving it yourself](crate::guide::driving_it_yourself) puts them together.

mod accept;
mod assign;
mod attempt;
pub mod check;
mod chores;
mod clock_skew;
mod confirmation;
mod consequence;
pub mod copy;
#[cfg(test)]
#[cfg(feature = "testing")]
mod counted_tests;
mod daily;
mod devices;
mod direct;
mod draining;
mod effects;
mod ending;
mod expand;
mod expanding;
mod forget;
#[cfg(feature = "metrics")]
mod gauges;
mod guarded_clock;
mod health;
pub mod import;
mod job;
mod key_ring;
mod late;
mod listing;
mod lost_leases;
mod missing_keys;
mod open_files;
mod outage;
mod outbox;
mod pacer;
mod parked;
mod pauses;
mod places;
mod portions;
mod progress;
mod prune_breaker;
#[cfg(any(feature = "api", feature = "metrics"))]
mod readiness;
mod records;
mod register;
mod reminders;
mod renew;
mod report;
mod responses;
mod rotate;
mod run;
mod schedules;
mod schedules_of;
mod send_test;
mod settling;
#[cfg(any(feature = "api", feature = "metrics"))]
mod shared_read;
mod shutdown;
mod take;
#[cfg(test)]
#[cfg(feature = "testing")]
mod test_world;
mod unreadable;
mod worker;

pub use accept::{SendError, SendErrorKind};
pub use attempt::Attempt;
pub(crate) use clock_skew::ClockSkew;
pub use consequence::Consequence;
pub use devices::{Device, DeviceState};
pub use effects::Effects;
pub use forget::Forgotten;
#[cfg(feature = "metrics")]
pub(crate) use gauges::describe;
pub(crate) use guarded_clock::GuardedClock;
pub(crate) use health::Health;
pub use key_ring::KeyRing;
pub use listing::{FailedRecipient, SubscriptionInfo, SubscriptionList};
pub(crate) use parked::Parked;
pub use progress::Progress;
pub use prune_breaker::PruneBreaker;
pub use register::{RegisterError, RegisterErrorKind, Registered, Registration};
#[cfg(feature = "api")]
pub(crate) use reminders::HoldsLines;
pub use renew::Renewal;
pub use report::{FailedSend, Queued, Report};
pub use run::{RunError, RunErrorKind, Tick};
pub(crate) use unreadable::Unreadable;

use ending::Endings;
use late::Late;
use lost_leases::LostLeases;
use missing_keys::MissingKeys;
use open_files::FileWatch;
use reminders::Reminders;
use responses::Refusals;
#[cfg(any(feature = "api", feature = "metrics"))]
use shared_read::SharedRead;

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use crate::broadcast::Audience;
use crate::clock::{Clock, Timestamp};
use crate::deliver::{EndpointPolicy, HostCheck, OriginGates, RetryPolicy, Sender};
use crate::observe;
use crate::schedule::Compose;
#[cfg(any(feature = "metrics", feature = "tracing"))]
use crate::store::SlowCalls;
use crate::store::{
    CountFilter, Liveness, ScheduleStore, StoreError, SubscriptionLimits, SubscriptionStore,
};
use crate::vapid::{Contact, KeyId};

/// The engine of one `WebPush`. Cheap to clone; clones share everything.
#[derive(Clone)]
pub(crate) struct Engine(Arc<Parts>);

/// The parts of the engine.
pub(crate) struct Parts {
    pub(crate) subscriptions: Arc<dyn SubscriptionStore>,
    pub(crate) ledger: Arc<dyn ScheduleStore>,
    /// Whether both are the same store.
    pub(crate) is_one_store: bool,
    pub(crate) key_ring: KeyRing,
    pub(crate) clock: Arc<GuardedClock>,
    pub(crate) endpoint_policy: EndpointPolicy,
    pub(crate) host_check: HostCheck,
    pub(crate) limits: SubscriptionLimits,
    pub(crate) gates: OriginGates,
    pub(crate) sender: Arc<dyn Sender>,
    pub(crate) retry: RetryPolicy,
    pub(crate) contact: Contact,
    /// Whether a contact is configured. Without one nothing is sent.
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

/// State that calls and workers of this process share.
pub(crate) struct Signals {
    /// The number of running `run` futures.
    workers: AtomicUsize,
    /// Notified when new work may be due.
    wake: Notify,
    /// Notified when rows were settled.
    settled: Notify,
    /// When the shared pauses were last read, in milliseconds since the Unix epoch.
    pauses_read: AtomicI64,
    /// The day of which this process has kept the number of subscriptions, or found that there is one.
    recorded_day: AtomicI64,
    /// Whether other processes settled entries of the outbox that this one had read.
    has_rivals: AtomicBool,
    /// Whether the pauses of another contact or VAPID key were ended.
    are_faults_lifted: AtomicBool,
    pub(crate) health: Health,
    pub(crate) parked: Parked,
    pub(crate) unreadable: Unreadable,
    missing_keys: MissingKeys,
    refusals: Refusals,
    late: Late,
    lost: LostLeases,
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    pub(crate) slow_calls: Arc<SlowCalls>,
    open_files: FileWatch,
    endings: Endings,
    pub(crate) reminders: Reminders,
    /// What `GET /ready`, the gauges and `GET /ping` ask the store.
    #[cfg(any(feature = "api", feature = "metrics"))]
    pub(crate) readiness: SharedRead<(bool, Option<Timestamp>)>,
    #[cfg(feature = "api")]
    pub(crate) last_run: SharedRead<Result<Option<Timestamp>, Arc<StoreError>>>,
    /// The numbers of subscriptions that the gauges show.
    #[cfg(feature = "metrics")]
    counted: gauges::Counted,
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
            recorded_day: AtomicI64::new(i64::MIN),
            has_rivals: AtomicBool::new(false),
            are_faults_lifted: AtomicBool::new(false),
            health: Health::default(),
            parked: Parked::default(),
            unreadable: Unreadable::default(),
            missing_keys: MissingKeys::default(),
            refusals: Refusals::default(),
            late: Late::default(),
            lost: LostLeases::default(),
            #[cfg(any(feature = "metrics", feature = "tracing"))]
            slow_calls: Arc::default(),
            open_files: FileWatch::default(),
            endings: Endings::default(),
            reminders: Reminders::default(),
            #[cfg(any(feature = "api", feature = "metrics"))]
            readiness: SharedRead::default(),
            #[cfg(feature = "api")]
            last_run: SharedRead::default(),
            #[cfg(feature = "metrics")]
            counted: gauges::Counted::default(),
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
        engine.know_keys();
        engine
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Effects of attempts, written to the engine's stores.
    pub(crate) fn effects(&self) -> Effects {
        let subscriptions = Arc::clone(&self.subscriptions);
        let ledger = Arc::clone(&self.ledger) as _;
        let mut effects = Effects::new(subscriptions, ledger, self.prune_breaker, &self.contact);
        effects.set_key(self.key_ring.active().id());
        effects
    }

    /// Logs which store this is.
    pub(crate) async fn report_start(&self, is_new: bool) -> Result<(), StoreError> {
        let now = self.now();
        let filter = CountFilter::new(Audience::All, Liveness::Any);
        let subscriptions = self.subscriptions.count(&filter, now).await?;
        let pending = self.ledger.stats(now).await?.depth;
        observe::event!(
            INFO,
            version = env!("CARGO_PKG_VERSION"),
            store = %self.ledger.description(),
            key = %self.key_ring.active().id(),
            keys = self.key_ring.live().len(),
            subscriptions,
            pending,
            is_new,
            policy = %self.endpoint_policy,
            most_subscriptions = self.limits.total,
            most_unproven = self.limits.unproven,
            in_flight_per_origin = self.gates.most(),
            request_timeout = ?self.request_timeout,
            lease = ?self.lease,
            poll_interval = ?self.poll_interval,
            has_contact = self.has_contact,
            "store opened"
        );
        let _ = (subscriptions, pending, is_new);
        Ok(())
    }

    /// Whether a worker delivers what this process accepts.
    pub(crate) fn has_worker(&self) -> bool {
        self.remote_workers || self.has_own_worker()
    }

    /// Whether a worker runs in this process.
    pub(crate) fn has_own_worker(&self) -> bool {
        self.signals.workers.load(Ordering::Relaxed) > 0
    }

    /// Records that a call found the store unavailable, and has the worker write to it.
    #[cfg(feature = "api")]
    pub(crate) fn suspect_store(&self) {
        self.signals.health.suspect();
        self.signals.wake.notify_one();
    }

    /// Tells what is due in the log without another event.
    fn tell_due(&self) {
        let signals = &self.signals;
        signals.reminders.tell_due();
        signals.late.tell_due();
        #[cfg(any(feature = "metrics", feature = "tracing"))]
        signals.slow_calls.tell_due();
        signals.open_files.look();
    }

    pub(crate) fn worker_guard(&self) -> WorkerGuard {
        self.signals.workers.fetch_add(1, Ordering::Relaxed);
        observe::event!(INFO, "worker started");
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

/// Counts as a running `run` until it is dropped.
pub(crate) struct WorkerGuard(Engine);

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        let signals = &self.0.signals;
        // Also if `run` was dropped, of which nothing else tells.
        observe::event!(INFO, "worker stopped");
        if signals.workers.fetch_sub(1, Ordering::Relaxed) == 1 {
            // No step follows that could show the end of a failure.
            signals.health.clear();
        }
    }
}
