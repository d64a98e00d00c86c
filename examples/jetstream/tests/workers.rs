//! Tests of worker processes, one of which is killed: recipients, repeats, dead letters.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod support;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, AckKind};
use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tower_web_push::broadcast::Audience;
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::encryption;
use tower_web_push::engine::KeyRing;
use tower_web_push::p256::{self, UaSecretKey};
use tower_web_push::store::{
    CountFilter, Liveness, NewSubscription, SqliteStore, SubscriptionLimits, SubscriptionStore as _,
};
use tower_web_push::subscription::{AuthSecret, Subscription};
use tower_web_push::vapid::KeyEncryptionKeys;

use support::nats::Nats;
use support::program::Program;
use support::push_service::{Answer, Arrival, PushService};

const SUBSCRIPTIONS: usize = 5_000;
/// This number of them is gone.
const GONE: usize = 50;
/// And this number is at a push service that limits requests for a while.
const LIMITED: usize = 20;
/// The number of requests that this push service refuses, and its `Retry-After`.
const REFUSED: usize = 3;
const RETRY_AFTER: u32 = 2;

/// The flags of the workers.
const JOBS: usize = 2;
const PART: usize = 50;
const ACK_WAIT: &str = "4";

/// One user agent for all subscriptions.
struct Browser {
    secret: UaSecretKey,
    auth: AuthSecret,
}

#[tokio::test(flavor = "multi_thread")]
async fn despite_a_killed_worker_all_are_reached_and_only_its_requests_in_flight_are_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let Some(nats) = Nats::start(&folder.path().join("nats")).await else {
        return;
    };
    let program = Program::new(folder.path(), nats.url());
    // After some requests the first three workers get no answers: so all have requests in flight.
    let push_service = PushService::start(|arrival, before| {
        if arrival.path.starts_with("/gone/") {
            Answer::Now(StatusCode::GONE)
        } else if before.len() >= 1_500 && arrival.sender != "mailto:fourth@example.com" {
            Answer::Held
        } else {
            Answer::Now(StatusCode::CREATED)
        }
    })
    .await;
    let limited = PushService::start(|_, before| match before.len() {
        ..REFUSED => Answer::Later(StatusCode::TOO_MANY_REQUESTS, RETRY_AFTER),
        _ => Answer::Now(StatusCode::CREATED),
    })
    .await;
    let store = SqliteStore::open(program.store()).await.unwrap();
    let (open, limits) = (push_service.origin().as_str(), limited.origin().as_str());
    let endpoints = (0..SUBSCRIPTIONS).map(|number| match number {
        ..GONE => format!("{open}/gone/{number}"),
        number if number < GONE + LIMITED => format!("{limits}/{number}"),
        number => format!("{open}/{number}"),
    });
    let browser = subscribe(&store, endpoints).await;

    // One of the jobs is malformed.
    let jetstream = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    program.run(&["dead-letters"]).await; // makes the streams
    jetstream
        .publish("push.jobs", "poison".into())
        .await
        .unwrap()
        .await
        .unwrap();

    let (jobs, part) = (JOBS.to_string(), PART.to_string());
    let arguments = [
        "--jobs",
        &jobs,
        "--part",
        &part,
        "--ack-wait",
        ACK_WAIT,
        "--max-deliver",
        "2",
    ];
    let [first, second, third] =
        ["first", "second", "third"].map(|name| program.worker(name, &arguments));
    let produced = program.run(&["produce", "hello", "--ttl", "600"]).await;
    assert!(
        produced.ends_with("5000 recipients in 10 jobs\n"),
        "{produced}"
    );

    push_service
        .wait_until("each worker has something in hand", |arrivals| {
            let holders: HashSet<_> = held(arrivals).map(|arrival| &arrival.sender).collect();
            holders.len() == 3
        })
        .await;
    first.kill().await;
    let at_the_kill = push_service.arrivals();
    let lost: HashSet<_> = held(&at_the_kill)
        .filter(|arrival| arrival.sender == "mailto:first@example.com")
        .map(|arrival| arrival.path.clone())
        .collect();
    let fourth = program.worker("fourth", &arguments);
    push_service
        .wait_until("the jobs of the dead worker come to another", |arrivals| {
            let again = arrivals[at_the_kill.len()..].iter();
            let again: HashSet<_> = again.map(|arrival| arrival.path.clone()).collect();
            lost.is_subset(&again)
        })
        .await;
    // The other workers have held their jobs for longer than the time without a progress message.
    push_service.release();
    all_done(&jetstream).await;

    // Every live subscription got the message, with the remaining TTL.
    let arrivals = push_service.arrivals();
    let mut accepted: HashMap<&str, Vec<&Arrival>> = HashMap::new();
    for arrival in arrivals
        .iter()
        .filter(|arrival| arrival.answer == Some(StatusCode::CREATED))
    {
        accepted.entry(&arrival.path).or_default().push(arrival);
    }
    assert_eq!(accepted.len(), SUBSCRIPTIONS - GONE - LIMITED);
    let text = |arrival: &Arrival| {
        let text = encryption::decrypt(
            &p256::fastest(),
            &browser.secret,
            &browser.auth,
            &arrival.body,
        );
        String::from_utf8(text.unwrap()).unwrap()
    };
    for arrival in arrivals.iter().step_by(500) {
        let text = text(arrival);
        assert!(text.contains("hello"), "{text}");
        assert!((540..=600).contains(&arrival.ttl), "{}", arrival.ttl);
    }

    // Only what the dead worker had in flight was sent twice, under the same tag.
    let mut asked: HashMap<&str, Vec<&Arrival>> = HashMap::new();
    for arrival in &arrivals {
        asked.entry(&arrival.path).or_default().push(arrival);
    }
    let twice: Vec<_> = asked
        .values()
        .filter(|requests| requests.len() > 1)
        .collect();
    assert!(
        twice.len() >= lost.len() && twice.len() <= JOBS * PART,
        "{}",
        twice.len()
    );
    for requests in twice {
        assert_eq!(requests.len(), 2, "{requests:?}");
        assert_eq!(requests[0].sender, "mailto:first@example.com");
        assert_ne!(requests[1].sender, "mailto:first@example.com");
        let first = text(requests[0]);
        assert!(first.contains("\"tag\":\""), "{first}");
        assert_eq!(first, text(requests[1]));
    }
    assert!(arrivals.iter().all(|arrival| !arrival.has_topic));

    // No delayed recipient got a request early.
    let arrivals = limited.arrivals();
    let reached = arrivals
        .iter()
        .filter(|arrival| arrival.answer == Some(StatusCode::CREATED));
    assert_eq!(
        reached
            .map(|arrival| &arrival.path)
            .collect::<HashSet<_>>()
            .len(),
        LIMITED
    );
    for (number, refused) in arrivals.iter().enumerate().take(REFUSED) {
        let later = arrivals[number + 1..].iter();
        let again = later
            .clone()
            .find(|arrival| arrival.path == refused.path)
            .unwrap();
        assert!(again.at - refused.at >= Duration::from_secs(RETRY_AFTER.into()));
    }

    // Retired subscriptions are in no audience.
    let now = SystemClock::new().now();
    for (liveness, rows) in [
        (Liveness::Retired, GONE),
        (Liveness::Live, SUBSCRIPTIONS - GONE),
    ] {
        let filter = CountFilter::new(Audience::All, liveness);
        assert_eq!(store.count(&filter, now).await.unwrap(), rows as u64);
    }

    // The malformed job is a dead letter, and can be put back.
    let letters = program.run(&["dead-letters"]).await;
    assert_eq!(letters.lines().count(), 1, "{letters}");
    assert!(letters.contains("not a job"), "{letters}");
    for worker in [second, third, fourth] {
        assert!(worker.terminate().await.success());
    }
    program.run(&["dead-letters", "--replay"]).await;
    assert_eq!(program.run(&["dead-letters"]).await, "");
    assert_eq!(messages(&jetstream).await, 1);
}

/// The worst moment for a crash: the rest of the job is published, and the job is not acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_dead_workers_job_is_published_once() {
    let folder = tempfile::tempdir().unwrap();
    let Some(nats) = Nats::start(&folder.path().join("nats")).await else {
        return;
    };
    let program = Program::new(folder.path(), nats.url());
    let push_service = PushService::start(|_, _| Answer::Now(StatusCode::CREATED)).await;
    let store = SqliteStore::open(program.store()).await.unwrap();
    let origin = push_service.origin().as_str();
    subscribe(&store, (0..3).map(|number| format!("{origin}/{number}"))).await;
    program.run(&["produce", "hello"]).await;

    // The test is the worker that dies: it has taken the job, and published the rest after the first recipient.
    let jetstream = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let jobs = jetstream.get_stream("PUSH_JOBS").await.unwrap();
    let workers = pull::Config {
        durable_name: Some("workers".to_owned()),
        ..pull::Config::default()
    };
    let workers = jobs.create_consumer(workers).await.unwrap();
    let mut batch = workers.batch().max_messages(1).messages().await.unwrap();
    let taken = batch.next().await.unwrap().unwrap();
    let mut rest: Value = serde_json::from_slice(&taken.payload).unwrap();
    rest["recipients"].as_array_mut().unwrap().remove(0);
    let rest = PublishMessage::build()
        .payload(rest.to_string().into())
        .message_id(format!("rest-of-{}", taken.info().unwrap().stream_sequence));
    jetstream
        .send_publish("push.jobs", rest)
        .await
        .unwrap()
        .await
        .unwrap();
    taken.ack_with(AckKind::Nak(None)).await.unwrap();

    let worker = program.worker("worker", &["--part", "1"]);
    all_done(&jetstream).await;
    assert!(worker.terminate().await.success());
    let paths: Vec<_> = push_service
        .arrivals()
        .into_iter()
        .map(|arrival| arrival.path)
        .collect();
    assert_eq!(paths.len(), 3, "{paths:?}");
    assert_eq!(paths.into_iter().collect::<HashSet<_>>().len(), 3);
}

fn held(arrivals: &[Arrival]) -> impl Iterator<Item = &Arrival> {
    arrivals.iter().filter(|arrival| arrival.answer.is_none())
}

/// Stores the subscriptions an hour ago: a "gone" for newer ones would not be believed.
async fn subscribe(store: &SqliteStore, endpoints: impl Iterator<Item = String>) -> Browser {
    let now = SystemClock::new().now() - Duration::from_secs(3600);
    let keys = Arc::new(store.clone());
    let keys = KeyRing::open(keys, KeyEncryptionKeys::none(), None, now);
    let key = keys.await.unwrap().active().id();
    let secret = UaSecretKey::random().unwrap();
    let auth = AuthSecret::from_bytes(b"sixteen octets..").unwrap();
    let limits = SubscriptionLimits::default();
    let rows: Vec<_> = endpoints
        .map(|endpoint| {
            Subscription::new(endpoint.parse().unwrap(), *secret.public(), auth.clone())
        })
        .map(|subscription| NewSubscription::new(subscription, key))
        .collect();
    stream::iter(&rows)
        .map(|row| store.upsert(row, &limits, now))
        .buffer_unordered(64)
        .for_each(async |stored| drop(stored.unwrap()))
        .await;
    Browser { secret, auth }
}

/// Waits until the queue is empty.
async fn all_done(jetstream: &jetstream::Context) {
    let wait = async {
        while messages(jetstream).await > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(40), wait)
        .await
        .expect("a job is left");
}

async fn messages(jetstream: &jetstream::Context) -> u64 {
    let jobs = jetstream.get_stream("PUSH_JOBS").await.unwrap();
    jobs.cached_info().state.messages
}
