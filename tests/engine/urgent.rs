//! How long a message waits behind a broadcast to the same origin, in simulated time, to the millisecond.
//!
//! In memory only: a database works in threads of its own, and simulated time would advance meanwhile.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use http::request::Parts;
use tokio::time::{Instant, sleep};
use tower_web_push::broadcast::Principal;
use tower_web_push::clock::{Clock, Timestamp};
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::message::{Topic, Urgency};
use tower_web_push::store::{
    MemoryStore, NewSubscription, SubscriptionLimits, SubscriptionStore as _,
};
use tower_web_push::subscription::{Endpoint, Subscription};
use tower_web_push::testing::{Answer, TestPushService, When};
use tower_web_push::vapid::KeyId;
use tower_web_push::{Audience, Message, WebPush};

const RECIPIENTS: usize = 4_000;
/// The response times of the push service: this number of different ones.
const TIMES: usize = 100;
const ORIGIN: &str = "https://busy.example.com";

/// Wall time that advances with tokio's.
#[derive(Debug)]
struct Simulated(Instant);

impl Clock for Simulated {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_800_000_000) + self.0.elapsed()
    }
}

type Requested = Arc<Mutex<Vec<(String, Instant)>>>;

/// Sends to everyone at an origin that responds after `fastest` and, in equal steps, up to twice that time. Returns how
/// long an urgent message to one of them, and then one that is not urgent, wait for their requests meanwhile.
async fn waits(fastest: Duration) -> [Duration; 2] {
    let service = TestPushService::builder()
        .clock(Simulated(Instant::now()))
        .build();
    let store = Arc::new(MemoryStore::new());
    let push = WebPush::builder("mailto:ops@example.com")
        .store(Arc::clone(&store))
        .client(service.clone())
        .clock(Simulated(Instant::now()))
        .endpoint_policy(EndpointPolicy::public_hosts())
        .build()
        .await
        .unwrap();
    let key = push.vapid_public_key();
    let someone = service.user_agent().subscribe(&key).unwrap();
    for number in 0..RECIPIENTS {
        let endpoint = Endpoint::parse(&format!("{ORIGIN}/{number}")).unwrap();
        // It is not decrypted, so any keys will do.
        let keys = (*someone.ua_public(), someone.auth().clone());
        let subscription = Subscription::new(endpoint, keys.0, keys.1);
        let mut new = NewSubscription::new(subscription, KeyId::of(&key));
        new.principal = (number == 0).then(|| Principal::from("alice"));
        let (limits, now) = (
            SubscriptionLimits::default(),
            Timestamp::from_secs(1_799_999_000),
        );
        store.upsert(&new, &limits, now).await.unwrap();
    }
    let requested = Requested::default();
    for time in 0..TIMES {
        let requested = Arc::clone(&requested);
        let is_one = move |request: &Parts| {
            let path = request.uri.path().trim_start_matches('/');
            let is_one = path.parse::<usize>().unwrap() % TIMES == time;
            if is_one {
                let topic = request.headers.get("topic");
                let topic = topic.map_or("", |topic| topic.to_str().unwrap());
                let request = (topic.to_owned(), Instant::now());
                requested.lock().unwrap().push(request);
            }
            is_one
        };
        let after =
            fastest + fastest * u32::try_from(time).unwrap() / u32::try_from(TIMES).unwrap();
        let answer = Answer::status(StatusCode::CREATED).after(after);
        service.script(When::head(is_one), answer);
    }
    let running = tokio::spawn(push.run(pending()));
    let message = Message::new("to everybody");
    push.enqueue(Audience::All, message).await.unwrap();
    while requested.lock().unwrap().len() < RECIPIENTS / 3 {
        sleep(Duration::from_millis(1)).await;
    }
    let mut waits = [Duration::ZERO; 2];
    for (wait, urgency) in waits.iter_mut().zip([Urgency::High, Urgency::Normal]) {
        let topic = Topic::parse(urgency.as_str()).unwrap();
        let message = Message::new("to one").with_urgency(urgency);
        let message = message.with_topic(topic);
        let asked = Instant::now();
        push.enqueue(Audience::user("alice"), message)
            .await
            .unwrap();
        *wait = loop {
            sleep(Duration::from_millis(1)).await;
            let requested = requested.lock().unwrap();
            let found = requested.iter().find(|one| one.0 == urgency.as_str());
            if let Some((_, at)) = found {
                break *at - asked;
            }
        };
    }
    assert!(
        requested.lock().unwrap().len() < RECIPIENTS - 1_000,
        "the broadcast goes on"
    );
    running.abort();
    waits
}

#[tokio::test(start_paused = true)]
async fn a_message_does_not_wait_for_a_broadcast() {
    for millis in [50, 2_000] {
        let [urgent, normal] = waits(Duration::from_millis(millis)).await;
        println!("responses of {millis} ms: urgent {urgent:?}, normal {normal:?}");
        // One of the 100 requests in flight has to end.
        let most = Duration::from_millis(60 + millis / 8);
        assert!(urgent <= most && normal <= most, "{urgent:?}, {normal:?}");
    }
}
