//! One run: drives the replicas through a plan, and looks at the promises after each stretch of time.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::mem;
use std::panic;
use std::sync::{Arc, Mutex, MutexGuard, Once};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::clock::HostClock;
use super::duties::ASKED;
use super::host::{Host, Surroundings, builder, runtime};
use super::plan::{Event, HOSTS, Mail, Plan, Stranger, What};
use super::push_services::{Network, endpoint};
use super::rng::Rng;
use super::store::Database;
use super::world::{Recipient, START, World};
use crate::broadcast::{Audience, Broadcast, BroadcastId, Principal};
use crate::deliver::Jitter;
use crate::message::{Message, Topic, Ttl, Urgency};
use crate::schedule::{DailyTime, ScheduleLabel};
use crate::store::{
    MemoryStore, NewSubscription, SubscriptionLimits, SubscriptionStore as _, Upserted,
};
use crate::subscription::{AuthSecret, Endpoint, Subscription, SubscriptionId, UaPublicKey};
use crate::vapid::VapidPublicKey;
use crate::web_push::WebPush;

/// The user agent's key of RFC 8291 appendix A.
const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
/// Everything is over this long after the last fault: a pause lasts an hour at most.
const OVER: Duration = Duration::from_secs(3 * 3600);
/// A run is not shorter than this, so that there is a daily notification.
const AT_LEAST: Duration = Duration::from_secs(180);
/// The stretches of time between two looks at the counts.
const COUNT_EVERY: u32 = 4;
/// The pause of a caller whose call failed.
const CALL_AGAIN: Duration = Duration::from_secs(2);

/// The result of a run.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Ended {
    /// The promise that was broken.
    pub(super) broken: Option<String>,
    pub(super) trace: Vec<String>,
    pub(super) requests: u64,
    /// Calls to the store that failed, and events that are faults.
    pub(super) faults: u64,
    pub(super) lasted: Duration,
    /// What the random source of the world would give next: each call to the store and each request has drawn from it.
    pub(super) drawn: u64,
}

impl Ended {
    /// A number that is the same in each process, if the run is.
    pub(super) fn print(&self) -> u64 {
        // Its keys are constants, other than those of maps.
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// A call of the application, until it succeeds.
struct Errand {
    what: Call,
    host: usize,
    not_before: Duration,
    task: Option<JoinHandle<bool>>,
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Send(usize),
    /// Pauses a broadcast, and lets it go on after a time.
    Hold(BroadcastId, Duration),
    Resume(BroadcastId),
    Cancel(BroadcastId),
    Rotate,
    Schedule,
}

struct Run {
    plan: Plan,
    around: Surroundings,
    rng: Rng,
    hosts: Vec<Host>,
    now: Duration,
    /// The time that all machines slept, by which events are later.
    nights: Duration,
    events: usize,
    steps: u32,
    errands: Vec<Errand>,
    vapid_key: VapidPublicKey,
}

thread_local! {
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// Runs a plan until everything is over or a promise is broken.
pub(super) fn simulate(plan: &Plan) -> Ended {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            usual(info);
        }));
    });
    PANICS.set(0);
    Jitter::draw_from(plan.seed);
    let mut run = Run::new(plan);
    while !run.is_over() {
        run.step();
    }
    let (now, faults) = (run.now, plan.faults() as u64);
    // Before the world is taken apart: tasks end with their processes.
    run.hosts.clear();
    let mut world = run.world();
    if world.broken.is_none() {
        world.conclude(&run.around.memory);
    }
    Ended {
        broken: world.broken.take(),
        trace: mem::take(&mut world.trace),
        requests: world.requests.len() as u64,
        faults: faults + world.injected,
        lasted: now,
        drawn: world.rng.next(),
    }
}

impl Run {
    fn new(plan: &Plan) -> Self {
        let around = Surroundings {
            world: Arc::new(Mutex::new(World::new(plan))),
            memory: Arc::new(MemoryStore::new()),
            hints: Arc::new(watch::Sender::new(0)),
            workers: Arc::default(),
        };
        let vapid_key = first_key(&around);
        let processes = HOSTS + usize::from(plan.has_front);
        let hosts = (0..processes).map(|number| Host::new(number, around.clone()));
        let mut run = Self {
            plan: plan.clone(),
            rng: Rng::new(plan.seed ^ 0x0073_7465_7073),
            hosts: hosts.collect(),
            now: Duration::ZERO,
            nights: Duration::ZERO,
            events: 0,
            steps: 0,
            errands: Vec::new(),
            vapid_key,
            around,
        };
        for (service, stranger) in plan.recipients.clone() {
            run.subscribe(service, stranger);
        }
        run.errand(Call::Schedule, 0, Duration::ZERO);
        run
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.around.world.lock().unwrap()
    }

    /// Runs all replicas for a stretch of time, one after the other.
    fn step(&mut self) {
        while let Some(event) = self.plan.events.get(self.events).copied()
            && event.at + self.nights <= self.now
        {
            self.events += 1;
            self.happens(event);
        }
        self.run_errands();
        self.steps += 1;
        let until = self.now + self.stretch();
        let mut order: Vec<_> = (0..self.hosts.len()).collect();
        self.rng.shuffle(&mut order);
        for host in order {
            self.hosts[host].run(self.now, until);
        }
        self.now = until;
        let mut world = self.world();
        world.now = until;
        world.check();
        if PANICS.get() > 0 {
            world.broke(until, format_args!("a task panicked"));
        }
    }

    /// The next stretch: short while there is something to do.
    fn stretch(&mut self) -> Duration {
        let is_busy = {
            let world = self.world();
            let is_young = |row| {
                let lease = world.rows[row].lease;
                lease.is_some_and(|lease| lease.at + Duration::from_secs(2) > self.now)
            };
            world.open.iter().any(is_young)
        };
        let calls = self.errands.iter().any(|errand| errand.task.is_some());
        let is_recovering = self.events == self.plan.events.len();
        let stretch = match (is_busy || calls, is_recovering) {
            (true, _) => self.rng.millis(10, 250),
            (false, false) => self.rng.millis(100, 1_500),
            (false, true) => self.rng.millis(500, 8_000),
        };
        // Replicas run one after the other: at the end of its stretch one takes others for as silent.
        let stretch = match self.plan.has_beats {
            true => stretch.min(Duration::from_secs(1)),
            false => stretch,
        };
        let next = self.plan.events.get(self.events);
        next.map_or(stretch, |event| {
            let at = event.at + self.nights;
            stretch
                .min(at.saturating_sub(self.now))
                .max(Duration::from_millis(1))
        })
    }

    fn is_over(&self) -> bool {
        let mut world = self.world();
        if world.broken.is_some() {
            return true;
        }
        if !self.steps.is_multiple_of(COUNT_EVERY) {
            return false;
        }
        let are_over = world.count(&self.around.memory);
        let rest = match self.plan.is_slow() {
            true => ASKED + Duration::from_secs(10),
            false => Duration::ZERO,
        };
        let is_quiet = self.now > world.quiet_since() + rest && self.now > AT_LEAST;
        let is_done = self.events == self.plan.events.len() && self.errands.is_empty();
        if !is_done || !is_quiet {
            return false;
        }
        if self.now > world.quiet_since() + OVER {
            world.broke(self.now, format_args!("it is not over after {OVER:?}"));
            return true;
        }
        are_over && !world.fired.is_empty()
    }

    fn happens(&mut self, event: Event) {
        let (now, what) = (self.now, event.what);
        let mut world = self.around.world.lock().unwrap();
        world.note(now, format_args!("{what:?}"));
        match what {
            What::Crash { host, down } => {
                world.fault(host, now, now + down);
                world.crashed[host].push(now);
                drop(world);
                // Its tasks end now.
                self.hosts[host].crash(now + down);
            }
            What::Deploy { host } => self.hosts[host].stop(),
            What::Freeze { host, lasts } => {
                world.fault(host, now, now + lasts);
                self.hosts[host].stand(now + lasts, false);
            }
            What::Sleep { host, lasts } => {
                world.fault(host, now, now + lasts);
                self.hosts[host].stand(now + lasts, true);
            }
            What::Night { lasts } => {
                world.fault_of_all(now, now + lasts);
                world.now += lasts;
                self.nights += lasts;
                self.now += lasts;
                for host in &mut self.hosts {
                    host.stand(self.now, true);
                }
            }
            What::Starve { host, lasts } => {
                world.fault(host, now, now + lasts);
                self.hosts[host].starve(now + lasts);
            }
            What::Cut { host, lasts } => {
                world.fault(host, now, now + lasts);
                world.cut[host] = now + lasts;
            }
            What::Busy { host, lasts } => {
                world.trouble([host], (now, now + lasts));
                world.busy[host] = now + lasts;
            }
            What::Unread { lasts } => {
                world.trouble(0..HOSTS, (now, now + lasts));
                world.unread = now + lasts;
            }
            What::Flaky { percent, lasts } => {
                world.fault_of_all(now, now + lasts);
                world.flaky = (percent, now + lasts);
            }
            What::Sluggish { up_to, lasts } => {
                world.fault_of_all(now, now + lasts);
                world.sluggish = (up_to, now + lasts);
            }
            What::Step {
                host,
                millis,
                lasts,
            } => {
                world.fault(host, now, now + lasts);
                self.hosts[host].step_clock(millis, now + lasts);
            }
            What::Weather {
                service,
                kind,
                lasts,
            } => world.turns(service, kind, (now, now + lasts)),
            What::Expire { user } => world.recipients[user].is_gone = true,
            What::Rotate { host } => {
                drop(world);
                self.errand(Call::Rotate, host, now);
            }
            What::Subscribe { service } => {
                drop(world);
                self.subscribe(service, None);
            }
            What::Send { host, mail } => {
                drop(world);
                self.errand(Call::Send(mail), host, now);
            }
            What::Hold { mail, lasts } => {
                if let Some(&(id, host, _)) = world.accepted.get(&mail) {
                    drop(world);
                    self.errand(Call::Hold(id, lasts), host, now);
                }
            }
            What::Cancel { mail } => {
                if let Some(&(id, host, _)) = world.accepted.get(&mail) {
                    drop(world);
                    self.errand(Call::Cancel(id), host, now);
                }
            }
        }
    }

    fn subscribe(&self, service: usize, stranger: Option<Stranger>) {
        let (now, memory) = (self.now, &self.around.memory);
        let mut world = self.around.world.lock().unwrap();
        let number = world.recipients.len();
        world.recipients.push(Recipient {
            service,
            stranger,
            vapid_key: self.vapid_key.to_base64url(),
            is_gone: false,
            since: now,
        });
        let name = world.name(number);
        let endpoint = Endpoint::parse(&endpoint(service, &name)).unwrap();
        world.by_key.insert(endpoint.key(), number);
        let auth = AuthSecret::from_bytes(&[1; AuthSecret::LEN]).unwrap();
        let subscription = Subscription::new(endpoint, UaPublicKey::parse(P256DH).unwrap(), auth);
        let mut new = NewSubscription::new(subscription, self.vapid_key.id());
        new.id = SubscriptionId::from_bytes([u8::try_from(number).unwrap(); 16]);
        new.principal = Some(Principal::new(name));
        // A row younger than a minute is retried before it is retired.
        let earlier = START + now - Duration::from_secs(3600);
        let limits = SubscriptionLimits::default();
        let upserted = memory.upsert(&new, &limits, earlier).now_or_never();
        assert!(matches!(upserted, Some(Ok(Upserted::Stored { .. }))));
    }

    fn errand(&mut self, what: Call, host: usize, not_before: Duration) {
        self.errands.push(Errand {
            what,
            host,
            not_before,
            task: None,
        });
    }

    fn run_errands(&mut self) {
        let mut errands = mem::take(&mut self.errands);
        errands.retain_mut(|errand| {
            let is_done = self.is_done(errand);
            if let (true, Call::Hold(id, lasts)) = (is_done, errand.what) {
                self.errand(Call::Resume(id), errand.host, self.now + lasts);
            }
            !is_done
        });
        self.errands.append(&mut errands);
    }

    /// Makes the call of an errand unless it is under way. A caller whose call failed tries another replica.
    fn is_done(&self, errand: &mut Errand) -> bool {
        match errand.task.as_mut().map(FutureExt::now_or_never) {
            Some(None) => return false,
            Some(Some(Ok(true))) => return true,
            Some(Some(_)) => {
                errand.task = None;
                errand.not_before = self.now + CALL_AGAIN;
                errand.host = (errand.host + 1) % HOSTS;
            }
            None => {}
        }
        if errand.not_before > self.now {
            return false;
        }
        let (what, host, around) = (errand.what, errand.host, self.around.clone());
        let mails = self.plan.mails.clone();
        errand.task = self.hosts[host].call(move |push| call(push, what, host, mails, around));
        if errand.task.is_none() {
            errand.host = (host + 1) % HOSTS;
        }
        false
    }
}

/// A call of the application. Returns whether it succeeded.
async fn call(
    push: WebPush,
    what: Call,
    host: usize,
    mails: Vec<Mail>,
    around: Surroundings,
) -> bool {
    match what {
        Call::Send(number) => {
            // The same at each try.
            let queued = push
                .enqueue_broadcast(broadcast(number, mails[number]))
                .await;
            let Ok(queued) = queued else { return false };
            let mut world = around.world.lock().unwrap();
            let now = world.now;
            world.note(now, format_args!("host{host} accepted m{number:03}"));
            world
                .accepted
                .entry(number)
                .or_insert((queued.broadcast, host, now));
            true
        }
        Call::Hold(id, _) => push.pause(id).await.is_ok(),
        Call::Resume(id) => push.resume(id).await.is_ok(),
        Call::Cancel(id) => push.cancel(id).await.is_ok(),
        Call::Rotate => {
            let is_rotated = push.rotate_vapid_key().await.is_ok();
            if is_rotated {
                let mut world = around.world.lock().unwrap();
                world.rotated = Some(world.now);
            }
            is_rotated
        }
        Call::Schedule => {
            let minute = around.world.lock().unwrap().plan.daily;
            let label = ScheduleLabel::parse("daily").unwrap();
            let time = DailyTime::new(8, minute).unwrap();
            let message = Message::without_payload().with_topic(Topic::parse("day0").unwrap());
            push.schedule(label, time, Audience::All, message)
                .await
                .is_ok()
        }
    }
}

fn broadcast(number: usize, mail: Mail) -> Broadcast {
    let topic = Topic::parse(&format!("m{number:03}")).unwrap();
    let mut message = Message::without_payload().with_topic(topic);
    if mail.is_urgent {
        message = message.with_urgency(Urgency::High);
    }
    if let Some(ttl) = mail.ttl {
        message = message.with_ttl(Ttl::from_secs(u64::from(ttl)));
    }
    let to = match mail.user {
        Some(user) => Audience::user(format!("user{user}")),
        None => Audience::All,
    };
    let mut broadcast = Broadcast::to(to, message).idempotency_key(format!("mail-{number}"));
    if let Some(later) = mail.later {
        broadcast = broadcast.at(START + later);
    }
    if let Some(pace) = mail.pace {
        broadcast = broadcast.pace(pace.try_into().unwrap());
    }
    broadcast
}

/// Makes the first VAPID key of the store.
fn first_key(around: &Surroundings) -> VapidPublicKey {
    let runtime = runtime();
    let _within = runtime.enter();
    let clock = Arc::new(HostClock::start(Duration::ZERO, 0));
    let database = Database {
        memory: Arc::clone(&around.memory),
        host: 0,
        life: 0,
        clock: Arc::clone(&clock),
        world: Arc::clone(&around.world),
        hints: Arc::clone(&around.hints),
        beats: None,
    };
    let network = Network::new((0, 0), &clock, &around.world);
    let push = runtime.block_on(builder(database, network).build());
    push.unwrap().vapid_public_key()
}
