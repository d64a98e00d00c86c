//! Housekeeping: steps that run beside the deliveries and cannot hold them up.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, timeout};

use super::Engine;
use super::daily::{Daily, fire_due};
use super::health::Step;
use super::pacer::STORE_PAUSE;
use crate::broadcast::{Audience, FinalOutcome};
use crate::clock::Timestamp;
use crate::observe;
use crate::store::{Change, CountFilter, DayCount, Liveness, STEP, StoreError, StoreErrorKind};

/// The most rows expired in one transaction.
pub(super) const EXPIRED_AT_ONCE: usize = 1000;
/// Retention of finished broadcasts.
const FINISHED_KEPT: Duration = Duration::from_secs(7 * 86_400);
/// Retention of retired and stale subscriptions: a browser that subscribes again in this time keeps its id.
const UNREACHABLE_KEPT: Duration = Duration::from_secs(30 * 86_400);
/// Retention of subscriptions after their `expirationTime`: clocks differ. Unproven ones are deleted at once: anyone can write
/// many of them.
const EXPIRED_KEPT: Duration = Duration::from_secs(86_400);
/// How often subscriptions that have expired are set apart from live ones.
const PURGE_EVERY: Duration = Duration::from_secs(60);
/// How often broadcasts and keys are purged too.
const PURGE_ALL_EVERY: Duration = Duration::from_secs(3600);
/// The most steps of a purge in a row, and the pause before the next ones: other writers write in between.
const PURGE_STEPS: usize = 8;
const PURGE_PAUSE: Duration = Duration::from_secs(1);
/// Time limit of a step beside the deliveries. Longer than the callback for daily notifications and the store's own time
/// limits need: it is for a store that never responds.
const STEP_WITHIN: Duration = Duration::from_secs(120);
/// The longest pause of a chore that fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The chores, and the time from one to the next of its kind.
const CHORES: [(Step, Duration); 6] = [
    // As often as the pauses are read, so that a store that cannot be written is noticed within 5 s of a poll.
    (Step::Record, Engine::PAUSES_KEPT),
    (Step::Schedules, Duration::from_secs(1)),
    (Step::Expire, Engine::PAUSES_KEPT),
    // Another process may have made a new key, or the store may have lost them.
    (Step::Keys, Engine::PAUSES_KEPT),
    (Step::Purge, PURGE_EVERY),
    (Step::Report, Duration::from_secs(1)),
];

/// The result of one chore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chore {
    /// What was fired and skipped.
    pub(super) daily: Daily,
    /// Rows whose deadline has passed.
    pub(super) expired: u64,
    /// Whether there may be more to do at once.
    pub(super) more: bool,
    /// When the next schedule is due, if the schedules were read.
    next_fire: Option<Option<Timestamp>>,
}

/// The chores of a worker: at most one task of each kind.
#[derive(Debug)]
pub(super) struct Chores {
    engine: Engine,
    tasks: JoinSet<Result<Chore, StoreError>>,
    /// What each task does, should it panic.
    steps: HashMap<task::Id, Step>,
    timings: BTreeMap<Step, Timing>,
    /// When the next schedule is due, as last read.
    next_fire: Option<Timestamp>,
    /// When the next purge is one of broadcasts and keys too, as [`Timing::next`].
    next_purge_of_all: Option<(Instant, Timestamp)>,
    /// The first error since it was last taken.
    error: Option<StoreError>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Timing {
    is_running: bool,
    is_hastened: bool,
    /// Due when either of the clocks says so; `None` at once. A wall clock that was set back does not put it off.
    next: Option<(Instant, Timestamp)>,
    /// The pause after a failure, or after a part of a long purge.
    pause: Duration,
}

impl Chores {
    pub(super) fn new(engine: Engine) -> Self {
        Self {
            engine,
            tasks: JoinSet::new(),
            steps: HashMap::new(),
            timings: BTreeMap::new(),
            next_fire: None,
            next_purge_of_all: None,
            error: None,
        }
    }

    /// Starts the chores that are due, and those that were hastened unless the worker `is_busy`: thousands of hints a second
    /// are about broadcasts.
    pub(super) fn start(&mut self, is_busy: bool) {
        let (now, wall) = (Instant::now(), self.engine.now());
        let is_suspected = self.engine.signals.health.is_suspected();
        let is_past = |next: Option<(Instant, Timestamp)>| {
            next.is_none_or(|(next, next_wall)| next <= now || next_wall <= wall)
        };
        for (step, _) in CHORES {
            let timing = self.timings.entry(step).or_default();
            let is_due = is_past(timing.next)
                || (step == Step::Record && is_suspected)
                || (timing.is_hastened && !is_busy);
            if is_due && !timing.is_running {
                timing.is_running = true;
                timing.is_hastened = false;
                let engine = self.engine.clone();
                let all = step == Step::Purge && is_past(self.next_purge_of_all);
                if all {
                    self.next_purge_of_all = Some((now + PURGE_ALL_EVERY, wall + PURGE_ALL_EVERY));
                }
                let task = self
                    .tasks
                    .spawn(async move { within_limit(run(&engine, step, all)).await });
                self.steps.insert(task.id(), step);
            }
        }
    }

    /// Lets a chore start with the next step that finds nothing to do.
    pub(super) fn hasten(&mut self, step: Step) {
        self.timings.entry(step).or_default().is_hastened = true;
    }

    /// The longest pause before a step that starts a chore: until the next schedule is due or a broadcast may be over, at most
    /// `longest`.
    pub(super) fn pause(&self, longest: Duration, now: Timestamp) -> Duration {
        let paused = self
            .timings
            .values()
            .filter(|timing| !timing.pause.is_zero());
        let retry = paused.filter_map(|timing| timing.next).min();
        let retry = retry.map_or(longest, |(at, _)| {
            at.saturating_duration_since(Instant::now())
                .max(STORE_PAUSE)
        });
        let next_fire = self.next_fire.map_or(longest, |at| {
            // If it is due, it is being fired, and the end of that causes a step.
            at.since(now).max(STORE_PAUSE)
        });
        let report = match self.engine.signals.endings.is_waiting() {
            true => STORE_PAUSE,
            false => longest,
        };
        longest.min(retry).min(next_fire).min(report)
    }

    /// The first error since the last call.
    pub(super) const fn take_error(&mut self) -> Option<StoreError> {
        self.error.take()
    }

    /// Waits until a chore ends; `None` if none is running.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a chore that ended is returned by the next call.
    pub(super) async fn ended(&mut self) -> Option<Chore> {
        let ended = self.tasks.join_next_with_id().await?;
        Some(self.note(ended))
    }

    fn note(&mut self, ended: Result<(task::Id, Result<Chore, StoreError>), JoinError>) -> Chore {
        let (id, result) = ended.unwrap_or_else(|error| {
            // The application's store or callback panicked.
            observe::event!(ERROR, error = %error, "housekeeping panicked");
            let id = error.id();
            (id, Err(StoreError::new(StoreErrorKind::Unavailable, error)))
        });
        let Some(step) = self.steps.remove(&id) else {
            return Chore::default();
        };
        let in_pause = |pause| (Instant::now() + pause, self.engine.now() + pause);
        let health = &self.engine.signals.health;
        health.note(step, result.as_ref().map(|_| ()), self.engine.now());
        let every = CHORES.iter().find(|(known, _)| *known == step);
        let every = every.map_or(LONGEST_PAUSE, |(_, every)| *every);
        if step == Step::Purge && result.as_ref().map_or(true, |chore| chore.more) {
            // It may not have come to the rest.
            self.next_purge_of_all = None;
        }
        let timing = self.timings.entry(step).or_default();
        timing.is_running = false;
        match result {
            Ok(chore) => {
                let is_long = chore.more && step == Step::Purge;
                timing.pause = if is_long { PURGE_PAUSE } else { Duration::ZERO };
                timing.next = match chore.more {
                    true if is_long => Some(in_pause(PURGE_PAUSE)),
                    true => None,
                    false => Some(in_pause(every)),
                };
                if let Some(next_fire) = chore.next_fire {
                    self.next_fire = next_fire;
                }
                chore
            }
            Err(error) => {
                // The write that tells when the store works again is not put off, nor are the schedules that become due
                // beside one that cannot be read.
                let is_damaged = error.kind() == StoreErrorKind::Corrupt;
                let longest = match step {
                    Step::Record => STORE_PAUSE,
                    Step::Schedules if is_damaged => STORE_PAUSE,
                    _ => LONGEST_PAUSE,
                };
                timing.pause = (2 * timing.pause).clamp(STORE_PAUSE, longest);
                timing.next = Some(in_pause(timing.pause));
                // The keys in memory stay in use, and a missing key is read by its id.
                if step != Step::Keys {
                    self.error.get_or_insert(error);
                }
                Chore::default()
            }
        }
    }
}

/// Gives up a step that takes too long, so that it is tried again.
pub(super) async fn within_limit<T>(
    step: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = |elapsed| Err(StoreError::new(StoreErrorKind::Unavailable, elapsed));
    timeout(STEP_WITHIN, step).await.unwrap_or_else(late)
}

async fn run(engine: &Engine, step: Step, all: bool) -> Result<Chore, StoreError> {
    let now = engine.now();
    let mut chore = Chore::default();
    match step {
        Step::Record => engine.ledger.record_run(now).await?,
        Step::Schedules => {
            let next = engine.ledger.next_fire_at().await?;
            chore.next_fire = Some(next);
            if next.is_some_and(|at| at <= now) {
                chore.daily = fire_due(engine.clone()).await?;
                // Fired ones have moved on, so the next time is not known.
                chore.more = true;
            }
        }
        Step::Expire => {
            chore.expired = engine.ledger.expire(EXPIRED_AT_ONCE, now).await?;
            chore.more = chore.expired >= EXPIRED_AT_ONCE as u64;
            observe::count_finished(FinalOutcome::Expired.as_str(), chore.expired);
        }
        Step::Keys => {
            let read = engine.refresh_keys().await;
            read.map_err(|error| StoreError::new(StoreErrorKind::Unavailable, error))?;
        }
        Step::Purge => chore.more = purge(engine, all, now).await?,
        Step::Report => {
            engine.tell_due();
            engine.tell_endings().await?;
            // Last: it asks the subscriptions, which may be another store.
            engine.count_lost().await?;
        }
        Step::Pauses | Step::Expand | Step::Outbox | Step::Claim | Step::Settle => {}
    }
    Ok(chore)
}

/// Deletes a part of what is past its retention: subscriptions, and, if it is to purge `all`, broadcasts and unused keys. Returns
/// whether there is more.
async fn purge(engine: &Engine, all: bool, now: Timestamp) -> Result<bool, StoreError> {
    let purge = [Change::Purge {
        before: now - UNREACHABLE_KEPT,
        expired_before: now - EXPIRED_KEPT,
    }];
    let (mut prunes, mut purges) = (all, true);
    for _ in 0..PURGE_STEPS {
        if prunes {
            let pruned = engine.ledger.prune(now - FINISHED_KEPT).await?;
            observe::count_purged("broadcasts", pruned.broadcasts);
            prunes = pruned.more;
        }
        if purges {
            let purged = engine.subscriptions.apply(&purge, now).await?;
            observe::count_purged("subscriptions", purged);
            purges = purged >= STEP as u64;
        }
        if !prunes && !purges {
            break;
        }
    }
    if prunes || purges {
        return Ok(true);
    }
    if !all {
        return Ok(false);
    }
    // An unused key does no harm.
    let keys = &engine.key_ring;
    if let Err(error) = keys.forget_unused(&*engine.subscriptions, now).await {
        observe::event!(WARN, error = %observe::causes(&error), "cannot remove unused VAPID keys");
        let _ = error;
    }
    engine.forget_missing_keys_without_rows(now).await?;
    // Nothing else depends on it.
    if let Err(error) = record_day(engine, now).await {
        observe::event!(WARN, error = %observe::causes(&error), "cannot keep the number of subscriptions of today");
        let _ = error;
    }
    Ok(false)
}

/// Keeps the number of live subscriptions for today, unless there is one: the first worker that comes to it after midnight does.
async fn record_day(engine: &Engine, now: Timestamp) -> Result<(), StoreError> {
    let recorded = &engine.signals.recorded_day;
    let today = DayCount::new(0, now).day.as_millis();
    if recorded.load(Ordering::Relaxed) == today {
        return Ok(());
    }
    let live = CountFilter::new(Audience::All, Liveness::Live);
    let live = engine.subscriptions.count(&live, now).await?;
    engine
        .ledger
        .record_days(&[DayCount::new(live, now)])
        .await?;
    recorded.store(today, Ordering::Relaxed);
    Ok(())
}
