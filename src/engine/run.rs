//! The future that `run` returns, which drives a worker; `tick` takes one step of it.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::draining::Draining;
use super::health::Step;
use super::pacer::{Outlook, Pacer, SHORTEST_PAUSE, STORE_PAUSE};
use super::shutdown::{Shutdown, drain};
use super::worker::{Ended, Progress, Worker};
use super::{ClockSkew, Engine};
use crate::error::error_struct;
use crate::store::StoreError;

/// The result of one [`tick`](crate::WebPush::tick).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tick {
    /// Recipients written into the ledger. Those of a small audience were written when the message was accepted.
    pub expanded: usize,
    /// Deliveries claimed and attempted.
    pub attempted: usize,
    /// Deliveries whose deadline has passed.
    pub expired: u64,
    /// Daily notifications that were due and became broadcasts.
    pub fired: u64,
    /// Daily notifications that were too late, or that could not be composed.
    pub skipped: u64,
}

impl Tick {
    /// Whether there was nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        *self == Self::default()
    }
}

impl Engine {
    /// Takes one step and waits until its attempts are settled.
    pub(crate) async fn tick(&self) -> Result<Tick, RunError> {
        if self.has_contact {
            tick(self).await
        } else {
            Ok(Tick::default())
        }
    }

    /// Drives deliveries until `shutdown`, then finishes what is in flight.
    pub(crate) fn run(
        &self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = Result<(), RunError>> + Send + 'static {
        // Counted from the call on: a server that listens already must accept what this future will deliver.
        let alive = self.has_contact.then(|| self.worker_guard());
        let engine = self.clone();
        async move {
            match alive {
                Some(_alive) => run(engine, shutdown).await,
                // Without a contact every claimed row would be refused, and its message lost.
                None => {
                    shutdown.await;
                    Ok(())
                }
            }
        }
    }
}

async fn tick(engine: &Engine) -> Result<Tick, RunError> {
    let mut worker = Worker::new(engine.clone());
    worker.look_at_outbox().await;
    let progress = worker.step().await;
    while worker.attempt_ended().await.is_some() {}
    // Housekeeping does not depend on it.
    let settled = worker.finish().await;
    let mut tick = Tick {
        expanded: progress.expanded,
        attempted: progress.claimed,
        ..Tick::default()
    };
    worker.start_chores(false);
    while let Some(chore) = worker.chores.ended().await {
        tick.expired += chore.expired;
        tick.fired += chore.daily.fired;
        tick.skipped += chore.daily.skipped;
        // A full batch of schedules without a subscription fires nothing, and more may be due behind it.
        if chore.daily.more && chore.daily.is_empty() {
            worker.start_chores(false);
        }
    }
    match settled.err().or_else(|| worker.take_error()) {
        Some(error) => Err(error.into()),
        None => Ok(tick),
    }
}

async fn run(engine: Engine, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let shutdown = pin!(shutdown);
    let mut shutdown = Shutdown::new(shutdown);
    match shutdown.or_give_up(check_clock(&engine)).await {
        Some(checked) => checked?,
        None => return Ok(()),
    }
    let mut changes = engine.ledger.changes();
    let draining = Draining::start(&engine);
    let mut worker = Worker::new(engine.clone());
    let mut pacer = Pacer::new(Instant::now());
    loop {
        let now = Instant::now();
        let (in_flight, unsettled) = (worker.in_flight(), worker.unsettled());
        let ended_lately = worker.ended_lately();
        let (settles, steps) = pacer.due(unsettled, in_flight, ended_lately, now);
        // Side by side while there is more to do: then a row that is given back is found by the next step.
        let is_beside = settles && steps && in_flight > 0;
        let mut settled = Ok(());
        if settles && !is_beside {
            match shutdown.or_give_up(worker.settle()).await {
                Some(done) => settled = done,
                None => break,
            }
        }
        if steps {
            let begun = Instant::now();
            let step = step(&engine, &mut worker, is_beside);
            let Some((stepped, beside)) = shutdown.or_give_up(step).await else {
                break;
            };
            pacer.stepped(stepped.pause, begun.elapsed(), Instant::now());
            if stepped.has_failed {
                pacer.claim_failed(Instant::now());
            }
            settled = settled.and(beside);
        }
        if settled.is_err() {
            pacer.settlement_failed(Instant::now());
        }
        pacer.settle_soon(worker.unsettled(), Instant::now());
        tokio::select! {
            biased;
            () = shutdown.asked() => break,
            Some(ended) = worker.ended() => match ended {
                // Places are free, whatever the attempts that are still in flight do.
                Ended::Attempts => pacer.step_soon(),
                Ended::Expansion(0) => {}
                // Their rows are not claimed yet.
                Ended::Expansion(_) => pacer.step_for_new(),
                Ended::Chore(chore) if chore.more => pacer.step_now(Instant::now()),
                Ended::Chore(_) => {
                    let pause = worker.chores.pause(engine.poll_interval, engine.now());
                    pacer.step_within(pause, Instant::now());
                }
            },
            () = engine.signals.wake.notified() => {
                draining.hasten();
                worker.expanding.expect();
                worker.chores.hasten(Step::Schedules);
                pacer.step_now(Instant::now());
            }
            () = engine.clock.jumped() => pacer.step_now(Instant::now()),
            // Changes made by other processes, and by this one again: never before the shortest time between steps.
            () = changes.next() => {
                draining.hasten();
                worker.expanding.expect();
                worker.chores.hasten(Step::Schedules);
                pacer.step_for_new();
            }
            () = sleep_until(pacer.next()) => {}
        }
    }
    drop(draining);
    drain(&engine, worker).await
}

/// A step that was taken.
struct Stepped {
    /// The pause after it, which a new broadcast or the end of an attempt cuts short.
    pause: Duration,
    /// Whether the claim failed.
    has_failed: bool,
}

/// Takes a step, and settles beside it if that is due. Returns the result of settling, too.
async fn step(
    engine: &Engine,
    worker: &mut Worker,
    settles: bool,
) -> (Stepped, Result<(), StoreError>) {
    let (progress, settled) = worker.step_beside(settles).await;
    worker.start_chores(progress.more);
    let stepped = Stepped {
        pause: pause(engine, worker, progress).await,
        has_failed: progress.has_failed,
    };
    (stepped, settled)
}

/// The pause after a step.
async fn pause(engine: &Engine, worker: &mut Worker, progress: Progress) -> Duration {
    if worker.take_error().is_some() || engine.clock.fault().is_some() {
        return STORE_PAUSE;
    }
    let now = engine.now();
    let is_idle = worker.in_flight() == 0;
    // While there is work the next step finds what is due, at the end of an attempt or after a short pause.
    if progress.more && !progress.is_full && !is_idle {
        return SHORTEST_PAUSE;
    }
    let next_due = match progress.is_full {
        true => Ok(Some(now)),
        false => engine.ledger.next_due(now).await,
    };
    let outlook = Outlook {
        more: progress.more,
        is_idle,
        next_due,
    };
    let longest = worker.chores.pause(engine.poll_interval, now);
    let longest = worker.longest_pause(longest, now);
    outlook.pause(longest, now)
}

async fn check_clock(engine: &Engine) -> Result<(), RunError> {
    match ClockSkew::of(&*engine.clock, &*engine.ledger).await? {
        Some(skew) => Err(RunError::with_source(RunErrorKind::ClockSkew, skew)),
        None => Ok(()),
    }
}

error_struct! {
    /// The error of [`run`](crate::WebPush::run) or [`tick`](crate::WebPush::tick).
    RunError, RunErrorKind
}

/// The cause of a [`RunError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RunErrorKind {
    /// This machine's clock and the database server's differ by more than 10 seconds; the source says by how much.
    ClockSkew,
    /// The store failed: at start, in a [`tick`](crate::WebPush::tick), or while outcomes were written at the end.
    Store,
}

impl fmt::Display for RunErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClockSkew => "the clock differs from the store's",
            Self::Store => "the store failed",
        })
    }
}

impl From<StoreError> for RunError {
    fn from(source: StoreError) -> Self {
        Self::with_source(RunErrorKind::Store, source)
    }
}
