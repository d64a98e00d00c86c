//! Many recipients, and push services with faults: no message is lost, and none is sent twice.

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::{Semaphore, oneshot, watch};
use tower_service::Service as _;
use tower_web_push::broadcast::{BroadcastId, BroadcastState, BroadcastStatus, Counts};
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::deliver::{EndpointPolicy, RetryPolicy};
use tower_web_push::store::{
    MemoryStore, NewSubscription, SqliteStore, SubscriptionLimits, SubscriptionRecord,
    SubscriptionRef, SubscriptionStore as _,
};
use tower_web_push::subscription::{Endpoint, Origin};
use tower_web_push::testing::{MountedPushService, Recording, TestPushService};
use tower_web_push::vapid::KeyId;
use tower_web_push::{Audience, Message, WebPush};

use crate::support::push_server::{Answer, BOTH, Broken, HTTP1, PushServer, answer};

const ORIGINS: usize = 20;
const PER_ORIGIN: usize = 1_000;
const ALL: u64 = (ORIGINS * PER_ORIGIN) as u64;
/// One in a hundred.
const GONE: u64 = ALL / 100;
/// Few enough that no request waits for long on a slow machine.
const IN_FLIGHT: usize = 25;
/// The time until a request to a black hole is given up. Nothing else may take so long.
const TIMEOUT: Duration = Duration::from_secs(15);
const RETRY_AFTER: Duration = Duration::from_secs(8);
/// Timers and clocks count in milliseconds.
const ROUNDING: Duration = Duration::from_millis(50);

/// The behaviour of the push service for one recipient. All but `Gone` happen to the first attempt only, and before
/// the message is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fault {
    /// 429 with `Retry-After`.
    Busy,
    /// 503.
    Down,
    /// 410, always.
    Gone,
    /// The connection breaks; over HTTP/2 the stream does.
    Reset,
    /// No response.
    BlackHole,
}

impl Fault {
    /// By the position in the order of the endpoints' keys, which is the order of sending.
    ///
    /// There are always acceptances between them, so the origins are not paused.
    fn at(place: usize) -> Option<Self> {
        match place {
            400..405 | 700..705 => Some(Self::Busy),
            _ if place % 100 == 50 => Some(Self::Down),
            _ if place % 100 == 20 => Some(Self::Gone),
            _ if place % 200 == 80 => Some(Self::Reset),
            _ if place % 200 == 180 => Some(Self::BlackHole),
            _ => None,
        }
    }
}

/// All push services: their faults, and their requests.
struct PushServices {
    service: TestPushService,
    servers: Vec<PushServer>,
    watched: Arc<Watched>,
}

#[derive(Default)]
struct Watched {
    mounted: OnceLock<MountedPushService>,
    /// By path; whether it happened.
    faults: OnceLock<HashMap<String, (Fault, AtomicBool)>>,
    /// When a row was asked to wait, by path.
    asked_to_wait: Mutex<HashMap<String, Instant>>,
    /// Requests of rows that had been asked to wait and did not.
    impatient: AtomicU64,
    /// Requests that came again after a fault, by fault.
    again: Mutex<HashMap<Fault, u64>>,
}

impl PushServices {
    async fn start() -> Self {
        let service = TestPushService::builder()
            .recording(Recording::Counts)
            .build();
        let watched = Arc::new(Watched::default());
        watched.mounted.set(service.mount()).unwrap();
        let servers = stream::iter(0..ORIGINS)
            .then(|number| {
                // Over HTTP/1.1 the whole connection breaks.
                let alpn = if number % 4 == 3 { HTTP1 } else { BOTH };
                let watched = Arc::clone(&watched);
                PushServer::start(alpn, move |request| {
                    let watched = Arc::clone(&watched);
                    Box::pin(async move { watched.answer(request).await })
                })
            })
            .collect()
            .await;
        Self {
            service,
            servers,
            watched,
        }
    }

    /// The certificates of all of them.
    fn ca_pem(&self) -> String {
        self.servers
            .iter()
            .map(|server| server.ca_pem.as_str())
            .collect()
    }

    /// Stores this number of subscriptions at each origin, and chooses the fault of each.
    async fn subscribe(&self, push: &WebPush, store: &SqliteStore) -> Vec<(Endpoint, bool)> {
        let key = push.vapid_public_key();
        let limits = SubscriptionLimits::default();
        // A row younger than a minute is retried before it is retired.
        let now = SystemClock::new().now() - Duration::from_secs(120);
        let mut faults = HashMap::new();
        let mut endpoints = Vec::new();
        for server in &self.servers {
            let origin = Origin::parse(&format!("https://localhost:{}", server.port())).unwrap();
            let mut subscriptions: Vec<_> = (0..PER_ORIGIN)
                .map(|_| self.service.user_agent_at(&origin).subscribe(&key).unwrap())
                .collect();
            subscriptions.sort_by_cached_key(|subscription| subscription.endpoint().key());
            for (place, subscription) in subscriptions.iter().enumerate() {
                let endpoint = subscription.endpoint();
                let fault = Fault::at(place);
                if fault == Some(Fault::Gone) {
                    assert!(self.service.expire(endpoint));
                } else if let Some(fault) = fault {
                    let path = endpoint.uri().path().to_owned();
                    faults.insert(path, (fault, AtomicBool::new(false)));
                }
                endpoints.push((endpoint.clone(), fault == Some(Fault::Gone)));
            }
            stream::iter(subscriptions)
                .for_each_concurrent(64, |subscription| {
                    let new = NewSubscription::new(subscription, KeyId::of(&key));
                    async move {
                        store.upsert(&new, &limits, now).await.unwrap();
                    }
                })
                .await;
        }
        self.watched.faults.set(faults).unwrap();
        endpoints
    }
}

impl Watched {
    fn see(&self, path: &str) {
        let asked_to_wait = self.asked_to_wait.lock().unwrap();
        let is_early = |at: &Instant| at.elapsed() < RETRY_AFTER - ROUNDING;
        if asked_to_wait.get(path).is_some_and(is_early) {
            self.impatient.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn answer(&self, request: http::Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        self.see(&path);
        let fault = self.faults.get().unwrap().get(&path);
        if let Some((fault, happened)) = fault {
            if !happened.swap(true, Ordering::SeqCst) {
                return self.fail(*fault, path).await;
            }
            *self.again.lock().unwrap().entry(*fault).or_default() += 1;
        }
        let mut service = self.mounted.get().unwrap().clone();
        let answer = service.call(request).await.unwrap();
        answer.map(|body| body.map_err(io::Error::other).boxed())
    }

    async fn fail(&self, fault: Fault, path: String) -> Answer {
        match fault {
            Fault::Busy => {
                let after = RETRY_AFTER.as_secs().to_string();
                let mut asked_to_wait = self.asked_to_wait.lock().unwrap();
                asked_to_wait.insert(path, Instant::now());
                answer(429, &[("retry-after", &after)], "")
            }
            Fault::Down => answer(503, &[], ""),
            Fault::Gone => unreachable!("the push service itself answers that"),
            Fault::Reset => {
                let mut answer = answer(500, &[], "");
                answer.extensions_mut().insert(Broken);
                answer
            }
            Fault::BlackHole => pending().await,
        }
    }
}

/// Waits until a broadcast is over.
async fn done(push: &WebPush, id: BroadcastId) -> BroadcastStatus {
    let mut look = tokio::time::interval(Duration::from_millis(50));
    loop {
        look.tick().await;
        let status = push.status(id).await.unwrap().unwrap();
        if status.state == BroadcastState::Done {
            return status;
        }
    }
}

async fn records(store: &SqliteStore, endpoints: &[(Endpoint, bool)]) -> Vec<SubscriptionRecord> {
    let mut records = Vec::new();
    for some in endpoints.chunks(500) {
        let keys: Vec<_> = some
            .iter()
            .map(|(endpoint, _)| SubscriptionRef::Key(endpoint.key()))
            .collect();
        records.extend(store.get(&keys).await.unwrap());
    }
    records
        .into_iter()
        .map(|record| record.expect("no row is deleted"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn despite_faults_every_message_arrives_once_and_only_gone_rows_are_retired() {
    let folder = tempfile::tempdir().unwrap();
    let services = PushServices::start().await;
    let store = SqliteStore::open(folder.path().join("push.db"))
        .await
        .unwrap();
    let push = WebPush::builder("mailto:ops@example.com")
        .store(store.clone())
        .endpoint_policy(EndpointPolicy::insecure_allow_local())
        .extra_root_ca_pem(services.ca_pem())
        .in_flight_per_origin(IN_FLIGHT)
        .request_timeout(TIMEOUT)
        .retry_policy(RetryPolicy::new(
            Duration::from_millis(200),
            Duration::from_secs(2),
            8,
        ))
        .build()
        .await
        .unwrap();
    let began = Instant::now();
    let endpoints = services.subscribe(&push, &store).await;
    println!("{} subscriptions after {:?}", ALL, began.elapsed());

    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(push.run(async { stopped.await.unwrap_or_default() }));
    let queued = push
        .enqueue(Audience::All, Message::new("to everybody"))
        .await
        .unwrap();
    assert_eq!(queued.recipients, ALL);
    let status = done(&push, queued.broadcast).await;
    drop(stop);
    running.await.unwrap().unwrap();
    println!("delivered after {:?}", began.elapsed());

    let expected = Counts {
        accepted: ALL - GONE,
        gone: GONE,
        ..Counts::default()
    };
    assert_eq!(status.counts, expected);

    // No message is lost or sent twice.
    for (endpoint, is_gone) in &endpoints {
        let expected = u64::from(!is_gone);
        assert_eq!(
            services.service.accepted_for(endpoint),
            expected,
            "{endpoint:?}"
        );
    }
    // Every fault happened, and was followed by one more attempt; a 410 by none.
    let again = services.watched.again.lock().unwrap().clone();
    let (hundredth, two_hundredth) = (ALL / 100, ALL / 200);
    let expected = [
        (Fault::Busy, hundredth),
        (Fault::Down, hundredth),
        (Fault::Reset, two_hundredth),
        (Fault::BlackHole, two_hundredth),
    ];
    assert_eq!(again, HashMap::from(expected));
    let counts = services.service.counts();
    assert_eq!(
        (counts.accepted, counts.refused, counts.requests),
        (ALL - GONE, GONE, ALL),
        "{:?}",
        services.service.refusals()
    );
    // No row was asked while it waits.
    assert_eq!(services.watched.impatient.load(Ordering::SeqCst), 0);

    let now = SystemClock::new().now();
    for ((endpoint, is_gone), record) in endpoints.iter().zip(records(&store, &endpoints).await) {
        assert_eq!(record.retired.is_some(), *is_gone, "{endpoint:?}");
        assert_eq!(record.is_live(now), !is_gone, "{endpoint:?}");
        assert_eq!(record.failure_streak, 0, "{endpoint:?}");
    }
}

/// Requests that have arrived and wait for a permit, and those that were dropped meanwhile.
#[derive(Clone, Copy, Default)]
struct Waiting {
    now: usize,
    in_vain: usize,
}

/// One waiting request. Without a permit when it is dropped, it has waited in vain.
struct Wait<'a>(&'a watch::Sender<Waiting>, bool);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| {
            waiting.now -= 1;
            waiting.in_vain += usize::from(!self.1);
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_is_not_an_outage() {
    const RECIPIENTS: u64 = 2_000;
    const AT_ONCE: usize = 100;
    let service = TestPushService::builder()
        .recording(Recording::Counts)
        .build();
    let permits = Arc::new(Semaphore::new(1_000));
    let waiting = Arc::new(watch::Sender::new(Waiting::default()));
    let server = PushServer::start(BOTH, {
        let (mounted, permits, waiting) =
            (service.mount(), Arc::clone(&permits), Arc::clone(&waiting));
        move |request| {
            let (mut service, permits) = (mounted.clone(), Arc::clone(&permits));
            let waiting = Arc::clone(&waiting);
            Box::pin(async move {
                waiting.send_modify(|waiting| waiting.now += 1);
                let mut wait = Wait(&waiting, false);
                permits.acquire().await.unwrap().forget();
                wait.1 = true;
                drop(wait);
                let answer = service.call(request).await.unwrap();
                answer.map(|body| body.map_err(io::Error::other).boxed())
            })
        }
    })
    .await;
    let store = Arc::new(MemoryStore::new());
    let push = WebPush::builder("mailto:ops@example.com")
        .store(Arc::clone(&store))
        .endpoint_policy(EndpointPolicy::insecure_allow_local())
        .extra_root_ca_pem(server.ca_pem.clone())
        .in_flight_per_origin(AT_ONCE)
        .in_flight_per_origin_at_least(AT_ONCE)
        .build()
        .await
        .unwrap();
    let key = push.vapid_public_key();
    let origin = Origin::parse(&format!("https://localhost:{}", server.port())).unwrap();
    let mut endpoints = Vec::new();
    for _ in 0..RECIPIENTS {
        let subscription = service.user_agent_at(&origin).subscribe(&key).unwrap();
        endpoints.push(subscription.endpoint().clone());
        let new = NewSubscription::new(subscription, KeyId::of(&key));
        let (limits, now) = (SubscriptionLimits::default(), SystemClock::new().now());
        store.upsert(&new, &limits, now).await.unwrap();
    }
    let running = tokio::spawn(push.run(pending()));
    let queued = push
        .enqueue(Audience::All, Message::new("to everybody"))
        .await
        .unwrap();

    let mut seen = waiting.subscribe();
    service.wait_until(|counts| counts.accepted == 1_000).await;
    seen.wait_for(|waiting| waiting.now == AT_ONCE)
        .await
        .unwrap();
    server.break_connections();
    seen.wait_for(|waiting| waiting.in_vain == AT_ONCE)
        .await
        .unwrap();
    let broke = Instant::now();
    permits.add_permits(Semaphore::MAX_PERMITS / 2);
    let status = done(&push, queued.broadcast).await;
    running.abort();

    assert_eq!(status.counts.accepted, RECIPIENTS);
    for endpoint in &endpoints {
        assert_eq!(service.accepted_for(endpoint), 1);
    }
    // A push service that counts as unreachable gets no requests for 30 s.
    assert!(broke.elapsed() < Duration::from_secs(30));
}
