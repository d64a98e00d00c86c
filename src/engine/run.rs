//! The one driving future: expand, claim, deliver, settle, purge; `tick` is one step of it.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::daily::Daily;
use super::outage::Outage;
use super::shutdown::{STORE_PATIENCE, Shutdown};
use super::worker::{Ended, Worker};
use super::{ClockSkew, Engine};
use crate::error::error_struct;
use crate::observe;
use crate::store::StoreError;

/// Ends are written together: at most so many, at most so late.
const SETTLE_AT: usize = 256;
const SETTLE_WITHIN: Duration = Duration::from_millis(20);
/// So many places are taken again at once: whoever answers fast waits for nobody who does not.
const WORTH_A_STEP: usize = 50;
/// Between two looks at the store while attempts are under way and few have ended.
const SHORTEST_STEP: Duration = Duration::from_millis(5);
/// The pause after the store failed, so that a dead store is not hammered.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How long the last ends are tried to be written at shutdown.
const SETTLE_AT_LAST: Duration = Duration::from_secs(5);
/// The shortest pause while due rows wait for a gate.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// What one [`tick`](crate::WebPush::tick) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tick {
    /// Recipients written into the ledger.
    pub expanded: usize,
    /// Deliveries claimed and attempted.
    pub attempted: usize,
    /// Deliveries given up because of their deadline.
    pub expired: u64,
    /// Daily notifications that became due, and are broadcasts now.
    pub fired: u64,
    /// Daily notifications that were too late, or that nobody could compose.
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
    /// One step, to its end: what `run` does, without running on.
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
        // From the call on: a server that listens already must not refuse what this will deliver in a moment.
        let alive = self.has_contact.then(|| self.worker_guard());
        let engine = self.clone();
        async move {
            match alive {
                Some(_alive) => run(engine, shutdown).await,
                // A claimed row would be refused by the policy, and its message would be lost.
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
    let mut settle_by: Option<Instant> = None;
    let mut next_step = Instant::now();
    let mut wake = next_step;
    // Each may fail while the others go well.
    let (mut looking, mut settling, mut firing) = <(Outage, Outage, Outage)>::default();
    loop {
        // Ends come in by the thousand: not each is worth another look at the store, but some dozens are.
        if worker.in_flight() == 0
            || worker.ended_lately() >= WORTH_A_STEP
            || Instant::now() >= next_step
        {
            let step = async {
                let progress = worker.step().await?;
                if progress.is_behind {
                    return Ok(Duration::ZERO);
                }
                Ok::<_, StoreError>(pause(&engine, progress.more, worker.in_flight() == 0).await)
            };
            let Some(step) = shutdown.or_give_up(step).await else {
                break;
            };
            let pause = match step {
                Ok(pause) => {
                    looking.went_well();
                    pause
                }
                Err(error) => {
                    looking.failed(&error, "cannot look for work");
                    STORE_PAUSE
                }
            };
            next_step = Instant::now() + SHORTEST_STEP;
            wake = Instant::now() + pause;
        }
        if worker.unsettled() > 0 {
            settle_by.get_or_insert_with(|| Instant::now() + SETTLE_WITHIN);
        }
        tokio::select! {
            biased;
            () = shutdown.asked() => break,
            () = sleep_until(settle_by.unwrap_or(wake)), if settle_by.is_some() => {}
            Some(ended) = worker.ended() => match ended {
                // There is room for others now, also where some that never end are under way.
                Ok(Ended::Attempts) => wake = wake.min(next_step),
                Ok(Ended::Daily(_)) => {
                    firing.went_well();
                    next_step = Instant::now();
                }
                Err(error) => firing.failed(&error, "cannot fire what is due"),
            },
            () = engine.signals.wake.notified() => {
                worker.look_at_schedules();
                next_step = Instant::now();
            }
            // Others' news, and our own once more: never sooner than a step that nobody asked for.
            () = changes.next() => {
                worker.look_at_schedules();
                wake = wake.min(next_step);
            }
            () = sleep_until(wake.max(next_step)) => {}
        }
        let due = settle_by.is_some_and(|by| by <= Instant::now());
        let idle = worker.in_flight() == 0;
        if worker.unsettled() > 0 && (due || idle || worker.unsettled() >= SETTLE_AT) {
            settle_by = None;
            let Some(settled) = shutdown.or_give_up(worker.settle()).await else {
                break;
            };
            match settled {
                Ok(()) => settling.went_well(),
                Err(error) => {
                    settling.failed(&error, "cannot settle");
                    wake = Instant::now() + STORE_PAUSE;
                    next_step = wake;
                    settle_by = Some(wake);
                }
            }
        }
    }
    drain(&engine, worker).await
}

async fn prepare(engine: &Engine) -> Result<(), RunError> {
    check_clock(engine).await?;
    // Whoever was refused under another contact is asked again.
    let own = engine.contact.as_str();
    engine
        .lift_sender_faults(|pause| pause.contact.as_deref() != Some(own))
        .await?;
    Ok(())
}

/// Nothing new is claimed; what is in flight ends within one request timeout and is settled.
async fn drain(engine: &Engine, mut worker: Worker) -> Result<(), RunError> {
    worker.stop();
    let limit = Instant::now() + engine.request_timeout + STORE_PAUSE;
    let mut is_written = true;
    loop {
        match timeout_at(limit, worker.attempt_ended()).await {
            Ok(Some(())) => {}
            Ok(None) => break,
            Err(_) => {
                observe::event!(
                    WARN,
                    left = worker.in_flight(),
                    "attempts left behind; their leases end by themselves"
                );
                break;
            }
        }
        let together = limit.min(Instant::now() + SETTLE_WITHIN);
        let _ = timeout_at(together, async {
            while worker.attempt_ended().await.is_some() {}
        })
        .await;
        // Written as they come: whoever stops this process may have less patience than the slowest request, and
        // what is given back is another process's at once. A store in trouble is left to the tries below.
        let settled = timeout(STORE_PATIENCE, worker.settle());
        is_written = is_written && matches!(settled.await, Ok(Ok(())));
    }
    // What is not settled now is sent again when its lease ends: worth a few tries.
    let limit = Instant::now() + SETTLE_AT_LAST;
    loop {
        match timeout_at(limit, worker.finish()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if Instant::now() + STORE_PAUSE >= limit => return Err(error.into()),
            Err(silence) => return Err(RunError::with_source(RunErrorKind::Store, silence)),
            Ok(Err(error)) => {
                observe::event!(ERROR, error = %observe::causes(&error), "cannot settle; trying again");
                let _ = error;
            }
        }
        sleep(STORE_PAUSE).await;
    }
}

/// How long there is nothing to do, unless somebody wakes us or an attempt ends.
async fn pause(engine: &Engine, more: bool, idle: bool) -> Duration {
    let longest = engine.poll_interval;
    let now = engine.now();
    let next_due = engine.ledger.next_due(now).await;
    let next_fire = engine.ledger.next_fire_at().await;
    let longest = match next_fire {
        // Due already: it is being fired, and its end wakes us.
        Ok(Some(at)) => at.since(now).max(STORE_PAUSE).min(longest),
        Ok(None) => longest,
        Err(_) => STORE_PAUSE,
    };
    match next_due {
        Ok(Some(at)) if more && at <= now => Duration::ZERO,
        // Due, yet not claimed: its gate is busy; or, when nothing is under way, closed by this process.
        Ok(Some(at)) => {
            let shortest = if idle { STORE_PAUSE } else { SHORTEST_PAUSE };
            let shortest = if at <= now { shortest } else { SHORTEST_PAUSE };
            at.since(now).clamp(shortest, longest.max(shortest))
        }
        Ok(None) => longest,
        Err(_) => STORE_PAUSE,
    }
}

async fn check_clock(engine: &Engine) -> Result<(), RunError> {
    match ClockSkew::of(&*engine.clock, &*engine.ledger).await? {
        Some(skew) => Err(RunError::with_source(RunErrorKind::ClockSkew, skew)),
        None => Ok(()),
    }
}

error_struct! {
    /// Why the driving future ended, or a step of it failed.
    RunError, RunErrorKind
}

/// What made the driving future end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RunErrorKind {
    /// This machine's clock and the database server's differ by more than 10 seconds: see the source.
    ClockSkew,
    /// The store failed: at start, in a [`tick`](crate::WebPush::tick), or while what was in flight was written down.
    Store,
}

impl fmt::Display for RunErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClockSkew => "the clock is not the store's",
            Self::Store => "the store failed",
        })
    }
}

impl From<StoreError> for RunError {
    fn from(source: StoreError) -> Self {
        Self::with_source(RunErrorKind::Store, source)
    }
}
