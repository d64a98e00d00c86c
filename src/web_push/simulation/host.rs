//! A replica: a process with a runtime of its own, whose time passes when the simulation says so.
//!
//! Ending the runtime is a kill: no task of it is polled again. A process that is stopped is not polled either, and finds
//! itself later when it goes on.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, sleep, sleep_until};

use super::beats::{Beating, Workers};
use super::clock::HostClock;
use super::plan::FRONT;
use super::push_services::Network;
use super::store::Database;
use super::world::{REQUEST_TIMEOUT, Shared};
use crate::deliver::{EndpointPolicy, RetryPolicy};
use crate::store::MemoryStore;
use crate::store::heartbeat::{Heartbeat, Moment};
use crate::web_push::{WebPush, WebPushBuilder};

/// The pause of the supervisor before it starts a process again.
const RESTART: Duration = Duration::from_secs(1);

/// Longer than the attempts and the writing of a process that was asked to end.
const LONG_DRAIN: Duration = Duration::from_secs(30);

/// A worker polls its signal less often than this without any time passing.
const SPINS: u32 = 100_000;

/// What all replicas share.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub(super) world: Shared,
    pub(super) memory: Arc<MemoryStore>,
    pub(super) hints: Arc<watch::Sender<u64>>,
    pub(super) workers: Arc<Mutex<Workers>>,
}

/// A machine with one process.
#[derive(Debug)]
pub(super) struct Host {
    number: usize,
    around: Surroundings,
    lives: u32,
    process: Option<Process>,
    /// When it is started again, if there is no process.
    starts: Duration,
    stands: Option<Standstill>,
    starves_until: Duration,
    /// What the wall clock is wrong by, and until when.
    wrong: Option<(i64, Duration)>,
}

#[derive(Debug)]
struct Process {
    clock: Arc<HostClock>,
    push: Arc<Mutex<Option<WebPush>>>,
    stop: watch::Sender<bool>,
    main: JoinHandle<()>,
    runtime: Runtime,
}

/// A time in which the process does not run.
#[derive(Clone, Copy, Debug)]
struct Standstill {
    until: Duration,
    /// The machine sleeps, and its monotonic clock with it.
    is_sleep: bool,
}

impl Host {
    pub(super) fn new(number: usize, around: Surroundings) -> Self {
        Self {
            number,
            around,
            lives: 0,
            process: None,
            starts: Duration::ZERO,
            stands: None,
            starves_until: Duration::ZERO,
            wrong: None,
        }
    }

    /// Runs the process from `now` on until `until`.
    pub(super) fn run(&mut self, now: Duration, until: Duration) {
        self.wind_clock(now);
        if let Some(Standstill { until: end, .. }) = self.stands {
            if end > now {
                return;
            }
            self.go_on(now);
        }
        if self.process.is_none() {
            if self.starts > now {
                return;
            }
            self.start(now);
        }
        let Some(process) = &self.process else { return };
        let runs_until = match now < self.starves_until {
            true => now + (until - now) / 4,
            false => until,
        };
        let clock = Arc::clone(&process.clock);
        Moment::simulate(Arc::clone(&clock) as _);
        process.runtime.block_on(async {
            sleep_until(clock.instant(runs_until)).await;
            if runs_until < until {
                advance(until - runs_until).await;
            }
        });
        if process.main.is_finished() {
            self.process = None;
            self.starts = until + RESTART;
        }
    }

    fn go_on(&mut self, now: Duration) {
        let (Some(stands), Some(process)) = (self.stands.take(), &self.process) else {
            return;
        };
        let clock = &process.clock;
        Moment::simulate(Arc::clone(clock) as _);
        process.runtime.block_on(async {
            let missed = now.saturating_sub(clock.true_now());
            match stands.is_sleep {
                true => clock.sleep(missed),
                false => advance(missed).await,
            }
        });
    }

    fn start(&mut self, now: Duration) {
        self.lives += 1;
        let runtime = runtime();
        let wrong_by = self.wrong.map_or(0, |(millis, _)| millis);
        let clock = {
            let _within = runtime.enter();
            Arc::new(HostClock::start(now, wrong_by))
        };
        let (stop, asked) = watch::channel(false);
        let push = Arc::new(Mutex::new(None));
        let mut database = Database {
            memory: Arc::clone(&self.around.memory),
            host: self.number,
            life: self.lives,
            clock: Arc::clone(&clock),
            world: Arc::clone(&self.around.world),
            hints: Arc::clone(&self.around.hints),
            beats: None,
        };
        let is_front = self.number == FRONT;
        if !is_front && self.around.world.lock().unwrap().plan.has_beats {
            let workers = Arc::clone(&self.around.workers);
            let (heartbeat, beats) = Heartbeat::simulated(Beating {
                database: database.clone(),
                workers: Arc::clone(&workers),
            });
            // It ends with the process.
            drop(runtime.spawn(beats));
            database.beats = Some((Arc::new(heartbeat), workers));
        }
        let by = (self.number, self.lives);
        let network = Network::new(by, &clock, &self.around.world);
        let main = runtime.spawn(main(database, network, Arc::clone(&push), asked));
        self.process = Some(Process {
            clock,
            push,
            stop,
            main,
            runtime,
        });
    }

    fn wind_clock(&mut self, now: Duration) {
        if self.wrong.is_some_and(|(_, until)| until <= now) {
            self.wrong = None;
            self.set_clock(0);
        }
    }

    fn set_clock(&self, wrong_by_millis: i64) {
        if let Some(process) = &self.process {
            process.clock.set_wrong_by(wrong_by_millis);
        }
    }

    /// Kills the process.
    pub(super) fn crash(&mut self, until: Duration) {
        self.process = None;
        self.stands = None;
        self.starts = until;
    }

    /// Asks the process to end.
    pub(super) fn stop(&self) {
        if let Some(process) = &self.process {
            process.stop.send_replace(true);
        }
    }

    pub(super) fn stand(&mut self, until: Duration, is_sleep: bool) {
        if self.stands.is_none() {
            self.stands = Some(Standstill { until, is_sleep });
        }
    }

    pub(super) fn starve(&mut self, until: Duration) {
        self.starves_until = until;
    }

    pub(super) fn step_clock(&mut self, millis: i64, until: Duration) {
        self.wrong = Some((millis, until));
        self.set_clock(millis);
    }

    /// Calls the application's part of this process, if it runs.
    pub(super) fn call<F, T>(&self, of: impl FnOnce(WebPush) -> F) -> Option<JoinHandle<T>>
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        if self.stands.is_some() {
            return None;
        }
        let process = self.process.as_ref()?;
        let push = process.push.lock().unwrap().clone()?;
        Some(process.runtime.spawn(of(push)))
    }
}

/// What the program of a replica does, under a supervisor that starts it again.
async fn main(
    database: Database,
    network: Network,
    slot: Arc<Mutex<Option<WebPush>>>,
    asked: watch::Receiver<bool>,
) {
    let (host, clock) = (database.host, Arc::clone(&database.clock));
    let world = Arc::clone(&database.world);
    loop {
        let builder = builder(database.clone(), network.clone());
        let ended = match builder.build().await {
            Ok(push) => {
                *slot.lock().unwrap() = Some(push.clone());
                let mut asked = asked.clone();
                let shutdown = async move { drop(asked.wait_for(|asked| *asked).await) };
                let shutdown = unless_it_spins(shutdown, host, Arc::clone(&world));
                let ended = match host {
                    FRONT => {
                        shutdown.await;
                        Ok(())
                    }
                    _ => push.run(shutdown).await,
                };
                *slot.lock().unwrap() = None;
                ended.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        note_end(&world, host, clock.true_now(), &ended);
        if *asked.borrow() {
            return;
        }
        sleep(RESTART).await;
    }
}

fn note_end(world: &Shared, host: usize, now: Duration, ended: &Result<(), String>) {
    let mut world = world.lock().unwrap();
    world.note(now, format_args!("host{host} ends: {ended:?}"));
    let is_calm = world.longest_calm(host, now.saturating_sub(RESTART), now) >= RESTART;
    if ended.is_err() || world.had_fault(host, now.saturating_sub(LONG_DRAIN), now) {
        // It may have had to leave what it could not write.
        world.crashed[host].push(now);
    }
    if ended.is_err() && is_calm {
        world.broke(
            now,
            format_args!("host{host} ended without a fault: {ended:?}"),
        );
    }
}

/// Ends a worker that polls its signal again and again while no time passes: the simulation would never go on.
async fn unless_it_spins(shutdown: impl Future<Output = ()>, host: usize, world: Shared) {
    let (mut shutdown, mut polled) = (pin!(shutdown), (Instant::now(), 0_u32));
    poll_fn(|cx| {
        let now = Instant::now();
        polled = match polled {
            (at, times) if at == now => (at, times + 1),
            _ => (now, 0),
        };
        if polled.1 >= SPINS {
            let mut world = world.lock().unwrap();
            let at = world.now;
            world.broke(at, format_args!("the worker of host{host} spins"));
            drop(world);
            panic!("a worker spins");
        }
        shutdown.as_mut().poll(cx)
    })
    .await;
}

/// The settings of the program.
pub(super) fn builder(database: Database, network: Network) -> WebPushBuilder {
    let in_flight = database.world.lock().unwrap().plan.in_flight;
    WebPush::builder("mailto:ops@example.com")
        .clock(Arc::clone(&database.clock))
        .store(database)
        .client(network)
        .endpoint_policy(EndpointPolicy::public_hosts())
        .request_timeout(REQUEST_TIMEOUT)
        .in_flight_per_origin(in_flight)
        .retry_policy(RetryPolicy::new(
            Duration::from_secs(2),
            Duration::from_secs(45),
            40,
        ))
}

pub(super) fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}
