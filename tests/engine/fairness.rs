//! The cost of a silent or busy push service for others, in simulated time, to the millisecond.
//!
//! In memory only: a database works in threads of its own, and simulated time would advance meanwhile.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::request::Parts;
use tokio::time::Instant;
use tower_web_push::broadcast::{BroadcastId, BroadcastState};
use tower_web_push::clock::{Clock, Timestamp};
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::store::{
    MemoryStore, NewSubscription, SubscriptionLimits, SubscriptionStore as _,
};
use tower_web_push::subscription::{Endpoint, Origin, Subscription};
use tower_web_push::testing::{Answer, TestPushService, When};
use tower_web_push::vapid::KeyId;
use tower_web_push::{Audience, Message, WebPush};

/// Recipients at each of the two push services that work.
const HEALTHY: usize = 1_500;
/// The time until their response.
const LATENCY: Duration = Duration::from_millis(50);

/// The default.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Wall time that advances with tokio's.
#[derive(Debug)]
struct Simulated(Instant);

impl Simulated {
    fn starting() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Simulated {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_800_000_000) + self.0.elapsed()
    }
}

/// Push services that do not work, each with this number of recipients.
#[derive(Clone)]
struct Sick {
    origins: usize,
    recipients: usize,
    answer: Answer,
    /// Whether they accepted the broadcast before this one.
    worked_before: bool,
}

/// The result of one broadcast to everyone.
#[derive(Debug)]
struct Sent {
    /// The time when the last recipient of a push service that works had it.
    took: Duration,
    /// Requests to the others until then.
    wasted: u64,
}

async fn send(sick: &[Sick]) -> Sent {
    let service = TestPushService::builder()
        .clock(Simulated::starting())
        .build();
    let store = Arc::new(MemoryStore::new());
    let push = WebPush::builder("mailto:ops@example.com")
        .store(Arc::clone(&store))
        .client(service.clone())
        .clock(Simulated::starting())
        .endpoint_policy(EndpointPolicy::public_hosts())
        .build()
        .await
        .unwrap();
    let key = push.vapid_public_key();
    let limits = SubscriptionLimits::default();
    let put = async |subscription: Subscription| {
        let new = NewSubscription::new(subscription, KeyId::of(&key));
        let now = Timestamp::from_secs(1_799_999_000);
        store.upsert(&new, &limits, now).await.unwrap();
    };
    for number in 0..2 {
        let origin = Origin::parse(&format!("https://well-{number}.example.com")).unwrap();
        for _ in 0..HEALTHY {
            put(service.user_agent_at(&origin).subscribe(&key).unwrap()).await;
        }
    }
    let someone = service.user_agent().subscribe(&key).unwrap();
    let mut origins = Vec::new();
    for (kind, sick) in sick.iter().enumerate() {
        for number in 0..sick.origins {
            let origin = format!("https://sick-{kind}-{number}.example.com");
            origins.push((Origin::parse(&origin).unwrap(), sick));
            for recipient in 0..sick.recipients {
                let endpoint = Endpoint::parse(&format!("{origin}/{recipient}")).unwrap();
                // It is not decrypted, so any keys will do.
                put(Subscription::new(
                    endpoint,
                    *someone.ua_public(),
                    someone.auth().clone(),
                ))
                .await;
            }
        }
    }

    let running = tokio::spawn(push.run(pending()));
    if sick.iter().any(|sick| sick.worked_before) {
        service.script(When::head(is_sick), Answer::status(StatusCode::CREATED));
        let queued = enqueue(&push).await;
        let mut look = tokio::time::interval(LATENCY);
        while push.status(queued).await.unwrap().unwrap().state != BroadcastState::Done {
            look.tick().await;
        }
    }
    service.clear_script();
    service.script(When::head(is_well), Answer::ordinary().after(LATENCY));
    for (origin, sick) in &origins {
        service.script(When::origin(origin), sick.answer.clone());
    }

    let before = service.counts();
    let began = Instant::now();
    enqueue(&push).await;
    let all = 2 * HEALTHY as u64;
    let counts = service
        .wait_until(|counts| counts.accepted == before.accepted + all)
        .await;
    let took = began.elapsed();
    running.abort();
    assert_eq!(counts.refused, 0);
    Sent {
        took,
        wasted: counts.requests - before.requests - all,
    }
}

fn is_sick(request: &Parts) -> bool {
    request
        .uri
        .host()
        .is_some_and(|host| host.starts_with("sick"))
}

fn is_well(request: &Parts) -> bool {
    !is_sick(request)
}

async fn enqueue(push: &WebPush) -> BroadcastId {
    let message = Message::new("to everybody");
    push.enqueue(Audience::All, message)
        .await
        .unwrap()
        .broadcast
}

/// The additional time in percent, compared with the push services that work alone.
async fn loss(sick: &[Sick]) -> (f64, Sent) {
    let alone = send(&[]).await;
    let sent = send(sick).await;
    let percent = (sent.took.as_secs_f64() / alone.took.as_secs_f64() - 1.0) * 100.0;
    println!("alone {alone:?}, now {sent:?}: {percent:.1} %");
    (percent, sent)
}

#[tokio::test(start_paused = true)]
async fn a_push_service_that_never_answers_costs_the_others_nothing() {
    let black_hole = Sick {
        origins: 1,
        recipients: 5_000,
        answer: Answer::never(),
        worked_before: false,
    };
    let (percent, _) = loss(&[black_hole]).await;
    assert!(percent < 5.0);
}

#[tokio::test(start_paused = true)]
async fn a_push_service_with_a_long_retry_after_costs_the_others_nothing() {
    let busy = Sick {
        origins: 1,
        recipients: 20_000,
        answer: Answer::status(StatusCode::TOO_MANY_REQUESTS).with_retry_after(3600),
        worked_before: false,
    };
    let (percent, sent) = loss(&[busy]).await;
    assert!(percent < 5.0);
    // Eight at once, for the two seconds that evidence takes.
    assert!(sent.wasted <= 2_000, "{}", sent.wasted);
}

#[tokio::test(start_paused = true)]
async fn many_push_services_that_never_answer_cost_the_others_nothing() {
    for (origins, recipients) in [(20, 1_000), (200, 20)] {
        let black_holes = Sick {
            origins,
            recipients,
            answer: Answer::never(),
            worked_before: false,
        };
        let (percent, sent) = loss(&[black_holes]).await;
        assert!(percent < 5.0);
        // Of each only as many as it takes to close its gate.
        assert!(sent.wasted <= 8 * origins as u64, "{}", sent.wasted);
    }
}

/// They have too few recipients for evidence, so none of their gates closes. Without a bound on their sum they would have all
/// places of the worker until their requests time out.
#[tokio::test(start_paused = true)]
async fn hosts_with_few_recipients_that_never_answer_cost_the_others_two_round_trips_at_most() {
    let alone = send(&[]).await;
    // Those of 292 leave a few of the places that hosts of strangers may have.
    for origins in [275, 292, 600] {
        let black_holes = Sick {
            origins,
            recipients: 7,
            answer: Answer::never(),
            worked_before: false,
        };
        let sent = send(&[black_holes]).await;
        println!("alone {alone:?}, {origins}: {sent:?}");
        // They have their turns too, so that the others begin with fewer.
        assert!(sent.took <= alone.took + 2 * LATENCY, "{origins}");
        assert!(sent.wasted <= 3_072, "{origins}: {}", sent.wasted);
    }
}

/// All their gates are open at first, and each has as many requests in flight as one that works. Once those have
/// timed out, the gates are closed.
#[tokio::test(start_paused = true)]
async fn push_services_that_all_stop_answering_cost_the_others_one_request_timeout() {
    let silent = Sick {
        origins: 50,
        recipients: 200,
        answer: Answer::never(),
        worked_before: true,
    };
    let (_, sent) = loss(&[silent]).await;
    assert!(sent.took < REQUEST_TIMEOUT + Duration::from_secs(1));
}
