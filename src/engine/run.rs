//! The future that `run` returns, which drives a worker; `tick` takes one step of it.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::daily::Daily;
use super::outage::Outage;
use super::pacer::{Outlook, Pacer, STORE_PAUSE};
use super::shutdown::{Shutdown, drain};
use super::worker::{Ended, Worker};
use super::{ClockSkew, Engine};
use crate::error::error_struct;
use crate::store::StoreError;

/// The result of one [`tick`](crate::WebPush::tick).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tick {
    /// Recipients written into the ledger.
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
    let progress = worker.step().await;
    while worker.attempt_ended().await.is_some() {}
    worker.finish().await?;
    let mut daily = Daily::default();
    while let Some(Ended::Daily(ended)) = worker.ended().await.transpose()? {
        daily = ended;
        // So many with nothing to say, or nobody to tell, look like none: there is more behind them.
        if daily.more && daily.fired == 0 && daily.skipped == 0 {
            worker.fire(engine.now()).await?;
        }
    }
    let progress = progress?;
    Ok(Tick {
        fired: daily.fired,
        skipped: daily.skipped,
        expanded: progress.expanded,
        attempted: progress.claimed,
        expired: progress.expired,
    })
}

async fn run(engine: Engine, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let shutdown = pin!(shutdown);
    let mut shutdown = Shutdown::new(shutdown);
    match shutdown.or_give_up(prepare(&engine)).await {
        Some(prepared) => prepared?,
        None => return Ok(()),
    }
    let mut changes = engine.ledger.changes();
    let mut worker = Worker::new(engine.clone());
    let mut pacer = Pacer::new(Instant::now());
    // Each may fail while the others succeed.
    let (mut looking, mut settling, mut firing) = <(Outage, Outage, Outage)>::default();
    loop {
        if pacer.is_step_due(worker.in_flight(), worker.ended_lately(), Instant::now()) {
            let Some(pause) = shutdown.or_give_up(step(&engine, &mut worker)).await else {
                break;
            };
            let pause = match pause {
                Ok(pause) => {
                    looking.went_well();
                    pause
                }
                Err(error) => {
                    looking.failed(&error, "cannot look for work");
                    STORE_PAUSE
                }
            };
            pacer.stepped(pause, Instant::now());
        }
        pacer.settle_soon(worker.unsettled(), Instant::now());
        tokio::select! {
            biased;
            () = shutdown.asked() => break,
            Some(ended) = worker.ended() => match ended {
                // Places are free, whatever the attempts that are still in flight do.
                Ok(Ended::Attempts) => pacer.step_soon(),
                Ok(Ended::Daily(_)) => {
                    firing.went_well();
                    pacer.step_now(Instant::now());
                }
                Err(error) => firing.failed(&error, "cannot fire what is due"),
            },
            () = engine.signals.wake.notified() => {
                worker.look_at_schedules();
                pacer.step_now(Instant::now());
            }
            // Changes made by other processes, and by this one again: never before the shortest time between steps.
            () = changes.next() => {
                worker.look_at_schedules();
                pacer.step_soon();
            }
            () = sleep_until(pacer.next()) => {}
        }
        if pacer.is_settlement_due(worker.unsettled(), worker.in_flight(), Instant::now()) {
            let Some(settled) = shutdown.or_give_up(worker.settle()).await else {
                break;
            };
            match settled {
                Ok(()) => settling.went_well(),
                Err(error) => {
                    settling.failed(&error, "cannot settle");
                    pacer.settlement_failed(Instant::now());
                }
            }
        }
    }
    drain(&engine, worker).await
}

/// Takes a step. Returns the pause after it, which a new broadcast or the end of an attempt cuts short.
async fn step(engine: &Engine, worker: &mut Worker) -> Result<Duration, StoreError> {
    let progress = worker.step().await?;
    if progress.is_behind {
        return Ok(Duration::ZERO);
    }
    let now = engine.now();
    let outlook = Outlook {
        more: progress.more,
        is_idle: worker.in_flight() == 0,
        next_due: engine.ledger.next_due(now).await,
        next_fire: engine.ledger.next_fire_at().await,
    };
    Ok(outlook.pause(engine.poll_interval, now))
}

async fn prepare(engine: &Engine) -> Result<(), RunError> {
    check_clock(engine).await?;
    // Push services that refused another contact are asked again.
    let own = engine.contact.as_str();
    engine
        .lift_sender_faults(|pause| pause.contact.as_deref() != Some(own))
        .await?;
    Ok(())
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
