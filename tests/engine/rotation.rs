//! The application server's key changes while messages are being sent, and none is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinHandle, yield_now};
use tower::{ServiceExt as _, service_fn};
use tower_service::Service as _;
use tower_web_push::api::{AdminCredentials, ApiSettings, WebPushService};
use tower_web_push::clock::Timestamp;
use tower_web_push::engine::KeyRing;
use tower_web_push::push_request::PushBody;
use tower_web_push::store::{
    MemoryStore, ScheduleStore, SqliteStore, SubscriptionRecord, SubscriptionRef,
    SubscriptionStore, VapidKeyStore,
};
use tower_web_push::subscription::Origin;
use tower_web_push::testing::{
    ManualClock, ReceivedPush, Refusal, RefusalReason, TestPushService, UserAgent,
};
use tower_web_push::vapid::{KeyId, VapidPublicKey};
use tower_web_push::{Audience, Message, RunError, WebPush};

const FCM: &str = "https://fcm.googleapis.com";
const MOZILLA: &str = "https://updates.push.services.mozilla.com";
const APPLE: &str = "https://web.push.apple.com";
const WNS: &str = "https://wns2-db5p.notify.windows.com";

/// Longer only if a test fails.
const LIMIT: Duration = Duration::from_secs(60);

/// One process: its HTTP API over a store, and the push services that it sends to.
struct App {
    push: WebPush,
    api: WebPushService,
    service: TestPushService,
    /// This many requests are sent, each with a permit.
    permits: Arc<Semaphore>,
}

impl App {
    async fn new<S>(store: S, service: &TestPushService, clock: &ManualClock) -> Self
    where
        S: SubscriptionStore + VapidKeyStore + ScheduleStore,
    {
        let permits = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS / 2));
        let client = service_fn({
            let (service, permits) = (service.clone(), Arc::clone(&permits));
            move |request: Request<PushBody>| {
                let (mut service, permits) = (service.clone(), Arc::clone(&permits));
                async move {
                    permits.acquire().await.unwrap().forget();
                    service.call(request).await
                }
            }
        });
        let credentials = AdminCredentials::new().with_bearer_token("an-admin-token");
        let push = WebPush::builder("mailto:ops@example.com")
            .store(store)
            .client(client)
            .clock(clock.clone())
            .remote_workers(true)
            .build()
            .await
            .unwrap();
        Self {
            api: push
                .service()
                .with(ApiSettings::new().authorizer(credentials.unwrap())),
            push,
            service: service.clone(),
            permits,
        }
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Value {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", "Bearer an-admin-token")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap();
        let answer = self.api.clone().oneshot(request).await;
        let (head, body) = answer.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        assert!(head.status.is_success(), "{path}: {body:?}");
        serde_json::from_slice(&body).unwrap()
    }

    /// The key that a page gets to subscribe with.
    async fn key(&self) -> VapidPublicKey {
        let answer = self.call(Method::GET, "/vapid", &Value::Null).await;
        VapidPublicKey::parse(answer["vapidKey"].as_str().unwrap()).unwrap()
    }

    /// The new key.
    async fn rotate(&self) -> VapidPublicKey {
        let answer = self
            .call(Method::POST, "/regenerate-vapid", &json!({}))
            .await;
        let key = self.key().await;
        assert_eq!(answer["keyId"], KeyId::of(&key).to_string());
        key
    }

    /// Subscribes a page with `key` and posts the subscription. `names_key`: whether it posts the key too.
    async fn subscribe(&self, origin: &str, key: &VapidPublicKey, names_key: bool) -> UserAgent {
        let browser = self.service.user_agent_at(&Origin::parse(origin).unwrap());
        browser.subscribe(key).unwrap();
        self.post(&browser, names_key.then_some(key)).await;
        browser
    }

    async fn post(&self, browser: &UserAgent, key: Option<&VapidPublicKey>) {
        let mut body: Value = serde_json::from_str(&browser.subscription_json().unwrap()).unwrap();
        if let Some(key) = key {
            body["applicationServerKey"] = json!(key.to_base64url());
        }
        self.call(Method::POST, "/subscribe", &body).await;
    }

    /// Accepts a message to everyone. Returns its address and the number of recipients.
    async fn notify(&self) -> (String, u64) {
        let queued = self
            .call(Method::POST, "/notify", &json!({"title": "Hello"}))
            .await;
        let path = format!("/broadcasts/{}", queued["broadcast"].as_str().unwrap());
        (path, queued["recipients"].as_u64().unwrap())
    }

    /// Waits until the state of a broadcast, as JSON, changes.
    async fn wait_while(&self, broadcast: &str, states: &[&str]) -> Value {
        let began = Instant::now();
        let mut look = tokio::time::interval(Duration::from_millis(5));
        loop {
            look.tick().await;
            let status = self.call(Method::GET, broadcast, &Value::Null).await;
            if !states.contains(&status["state"].as_str().unwrap()) {
                return status;
            }
            let refusals = self.service.refusals();
            assert!(began.elapsed() < LIMIT, "{status}, {refusals:?}");
        }
    }

    /// Every recipient has it.
    async fn arrived(&self, (broadcast, recipients): &(String, u64)) {
        let states = ["scheduled", "expanding", "sending"];
        let status = self.wait_while(broadcast, &states).await;
        assert_eq!(status["state"], "done", "{status}");
        assert_eq!(status["counts"]["accepted"], *recipients, "{status}");
    }

    /// Drives deliveries until the sender is dropped.
    fn run(&self) -> (oneshot::Sender<()>, JoinHandle<Result<(), RunError>>) {
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { stopped.await.unwrap_or_default() };
        (stop, tokio::spawn(self.push.run(shutdown)))
    }

    /// Ticks until there is nothing to do. Returns the number of attempts.
    async fn settle(&self) -> usize {
        let mut attempted = 0;
        loop {
            let tick = self.push.tick().await.unwrap();
            if tick.is_idle() {
                return attempted;
            }
            attempted += tick.attempted;
        }
    }
}

async fn record(store: &impl SubscriptionStore, browser: &UserAgent) -> SubscriptionRecord {
    let subscription = browser.subscription().unwrap();
    let which = SubscriptionRef::Key(subscription.endpoint().key());
    store.get(&[which]).await.unwrap().remove(0).unwrap()
}

async fn live_keys(store: &impl VapidKeyStore) -> Vec<KeyId> {
    let keys = store.keys().await.unwrap();
    keys.into_iter().map(|key| key.id).collect()
}

/// The keys that the tokens of a browser's messages were signed with, the oldest message first.
fn signed_with(browser: &UserAgent) -> Vec<VapidPublicKey> {
    let messages = browser.messages();
    let key = |message: &ReceivedPush| {
        *message
            .vapid()
            .expect("every message is signed")
            .public_key()
    };
    messages.iter().map(key).collect()
}

fn world() -> (Arc<MemoryStore>, TestPushService, ManualClock) {
    let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
    let service = TestPushService::builder().clock(clock.clone()).build();
    (Arc::new(MemoryStore::new()), service, clock)
}

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn a_rotation_during_a_broadcast_loses_no_message() {
    let (store, service, clock) = world();
    let app = App::new(Arc::clone(&store), &service, &clock).await;
    let first = app.key().await;
    let mut early = Vec::new();
    for number in 0..2_000 {
        let origin = [FCM, MOZILLA, APPLE, WNS][number % 4];
        early.push(app.subscribe(origin, &first, true).await);
    }
    let (stop, running) = app.run();

    // The first half is sent, the second waits.
    app.permits.forget_permits(Semaphore::MAX_PERMITS);
    app.permits.add_permits(1_000);
    let broadcast = app.notify().await;
    assert_eq!(broadcast.1, 2_000);
    app.wait_while(&broadcast.0, &["expanding"]).await;
    service.wait_until(|counts| counts.accepted == 1_000).await;
    let second = app.rotate().await;
    assert_ne!(second, first);
    let mut late = Vec::new();
    for number in 0..600 {
        let origin = [FCM, MOZILLA, APPLE, WNS][number % 4];
        late.push(app.subscribe(origin, &second, true).await);
    }
    // Some pages had read the key before it changed.
    for number in 0..100 {
        let origin = [FCM, MOZILLA, APPLE, WNS][number % 4];
        let browser = app.subscribe(origin, &first, true).await;
        assert_eq!(record(&store, &browser).await.vapid_key, first.id());
        late.push(browser);
    }
    assert_eq!(service.counts().accepted, 1_000);
    app.permits.add_permits(Semaphore::MAX_PERMITS / 2);
    app.arrived(&broadcast).await;

    let broadcast = app.notify().await;
    assert_eq!(broadcast.1, 2_700);
    app.arrived(&broadcast).await;
    drop(stop);
    running.await.unwrap().unwrap();

    for browser in &early {
        assert_eq!(signed_with(browser), [first; 2]);
    }
    for (number, browser) in late.iter().enumerate() {
        let own = if number < 600 { second } else { first };
        assert_eq!(signed_with(browser), [own]);
    }
    assert!(service.refusals().is_empty(), "{:?}", service.refusals());
    assert_eq!(service.counts().requests, 4_700);
}

#[tokio::test]
async fn a_page_that_never_posts_its_key_costs_one_refusal() {
    let (store, service, clock) = world();
    let app = App::new(Arc::clone(&store), &service, &clock).await;
    let first = app.key().await;
    // Subscribed before the rotation, posted after it.
    let mut browsers = Vec::new();
    for number in 0..600 {
        let origin = [FCM, MOZILLA, APPLE, WNS][number % 4];
        let browser = service.user_agent_at(&Origin::parse(origin).unwrap());
        browser.subscribe(&first).unwrap();
        browsers.push(browser);
    }
    let second = app.rotate().await;
    for browser in &browsers {
        app.post(browser, None).await;
        assert_eq!(record(&store, browser).await.vapid_key, second.id());
    }

    let broadcast = app.notify().await;
    // The other key is tried in the same attempt.
    assert_eq!(app.settle().await, 600);
    app.arrived(&broadcast).await;
    let refusals = service.refusals();
    assert_eq!(refusals.len(), 600);
    for refusal in &refusals {
        assert_eq!(refusal.reason(), RefusalReason::KeyMismatch);
    }
    for browser in &browsers {
        assert_eq!(signed_with(browser), [first]);
        let subscription = browser.subscription().unwrap();
        let refused = |refusal: &&Refusal| refusal.endpoint() == Some(subscription.endpoint());
        assert_eq!(refusals.iter().filter(refused).count(), 1);
        let record = record(&store, browser).await;
        assert_eq!((record.vapid_key, record.stale_since), (first.id(), None));
        assert_eq!(record.failure_streak, 0);
    }

    let broadcast = app.notify().await;
    assert_eq!(app.settle().await, 600);
    app.arrived(&broadcast).await;
    assert_eq!(service.refusals().len(), 600);
    for browser in &browsers {
        assert_eq!(signed_with(browser), [first; 2]);
    }
    // A page that posts again, still without the key, changes nothing.
    app.post(&browsers[0], None).await;
    assert_eq!(record(&store, &browsers[0]).await.vapid_key, first.id());
}

#[tokio::test]
async fn an_old_key_is_removed_with_the_last_row_that_names_it() {
    let (store, service, clock) = world();
    let app = App::new(Arc::clone(&store), &service, &clock).await;
    let first = app.key().await;
    let leaves = app.subscribe(FCM, &first, true).await;
    let retires = app.subscribe(FCM, &first, true).await;
    let stays = app.subscribe(FCM, &first, true).await;
    let second = app.rotate().await;
    clock.advance(30 * DAY);
    app.settle().await;
    assert_eq!(live_keys(&*store).await, [second.id(), first.id()]);

    // One unsubscribes, one is gone: such a row is kept for a while, and its key with it.
    let endpoint = leaves.subscription().unwrap().endpoint().uri().to_string();
    app.call(Method::POST, "/unsubscribe", &json!({"endpoint": endpoint}))
        .await;
    retires.unsubscribe();
    app.notify().await;
    app.settle().await;
    assert_eq!(signed_with(&stays), [first]);
    let endpoint = stays.subscription().unwrap().endpoint().uri().to_string();
    app.call(Method::POST, "/unsubscribe", &json!({"endpoint": endpoint}))
        .await;
    clock.advance(29 * DAY);
    app.settle().await;
    assert_eq!(live_keys(&*store).await, [second.id(), first.id()]);

    clock.advance(2 * DAY);
    app.settle().await;
    assert_eq!(live_keys(&*store).await, [second.id()]);
    // No page can subscribe with it any more, and the other key is still used.
    let report = app
        .push
        .send(Audience::All, Message::new("to nobody"))
        .await;
    assert_eq!(report.unwrap().counts.finished(), 0);
    let new = app.subscribe(FCM, &second, true).await;
    app.notify().await;
    app.settle().await;
    assert_eq!(signed_with(&new), [second]);
}

#[tokio::test]
async fn an_old_key_is_not_forgotten_while_pages_may_still_subscribe_with_it() {
    let (store, service, clock) = world();
    let app = App::new(Arc::clone(&store), &service, &clock).await;
    let first = app.key().await;
    clock.advance(30 * DAY);
    let second = app.rotate().await;
    clock.advance(7 * DAY - Duration::from_secs(1));
    app.settle().await;
    // A page that was open all the time.
    let browser = app.subscribe(FCM, &first, true).await;
    clock.advance(DAY);
    app.notify().await;
    app.settle().await;
    assert_eq!(signed_with(&browser), [first]);
    assert_eq!(live_keys(&*store).await, [second.id(), first.id()]);
}

#[tokio::test]
async fn a_rotation_in_another_process_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (_, service, clock) = world();
    let open = || async {
        let store = SqliteStore::open(folder.path().join("push.db"));
        App::new(store.await.unwrap(), &service, &clock).await
    };
    let (here, there) = (open().await, open().await);
    let first = here.key().await;
    assert_eq!(there.key().await, first);
    let early = there.subscribe(FCM, &first, true).await;
    let (stop, running) = here.run();
    let broadcast = here.notify().await;
    here.arrived(&broadcast).await;

    // The time stands still, so this process does not poll: it finds a row whose key it lacks.
    let second = there.rotate().await;
    let late = there.subscribe(FCM, &second, true).await;
    assert_eq!(here.key().await, first);
    let broadcast = here.notify().await;
    here.arrived(&broadcast).await;
    assert_eq!(signed_with(&early), [first; 2]);
    assert_eq!(signed_with(&late), [second]);
    assert_eq!(here.key().await, second);

    // A page that got its key from the other process.
    let third = there.rotate().await;
    clock.advance(KeyRing::LOOK_AGAIN);
    here.subscribe(FCM, &third, true).await;
    assert_eq!(here.key().await, third);

    // Only the time leads to this one.
    let fourth = there.rotate().await;
    assert_eq!(here.key().await, third);
    clock.advance(Duration::from_secs(61));
    let broadcast = here.notify().await;
    here.arrived(&broadcast).await;
    // The keys are read beside the deliveries.
    while here.key().await != fourth {
        yield_now().await;
    }
    drop(stop);
    running.await.unwrap().unwrap();
    assert!(service.refusals().is_empty(), "{:?}", service.refusals());
}
