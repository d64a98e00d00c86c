//! The number of commits of a store whose disk is slow.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{Request, Response};
use tokio::time::sleep;
use tower::service_fn;
use tower_web_push::push_request::PushBody;

use super::order::tampered_with;
use super::world::*;

const RECIPIENTS: u64 = 6_000;
/// The middle of the backlog, as numbers of requests.
const FROM: u64 = 2_000;
const TO: u64 = 5_000;
/// At 100 milliseconds each they are 10,000 a second, with those that wait for the disk.
const IN_FLIGHT: usize = 1_200;

/// While a commit is under way, outcomes collect and places become free. The next commit writes all of them.
#[tokio::test(start_paused = true)]
async fn many_messages_share_a_commit_of_a_slow_disk() {
    let world = World::at(FCM).await;
    world
        .subscribers(usize::try_from(RECIPIENTS).unwrap())
        .await;
    let requests = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&requests);
    let client = service_fn(move |_: Request<PushBody>| {
        // From 1 to 200 milliseconds, spread evenly.
        let number = counter.fetch_add(1, Ordering::Relaxed);
        let takes = Duration::from_millis(1 + number * 37 % 200);
        async move {
            sleep(takes).await;
            let mut response = Response::new(String::new());
            *response.status_mut() = StatusCode::CREATED;
            Ok::<_, Infallible>(response)
        }
    });
    let (store, push) = tampered_with(&world, |builder| {
        builder
            .client(client)
            .in_flight_per_origin(IN_FLIGHT)
            .in_flight_per_origin_at_least(IN_FLIGHT)
    })
    .await;
    store.join_writes();
    store.set_commit(Duration::from_millis(5));
    // The first message of the day changes each subscription, the second one does not.
    for is_first in [true, false] {
        let before = requests.load(Ordering::Relaxed);
        let commits_at = async |number| {
            while requests.load(Ordering::Relaxed) - before < number {
                sleep(Duration::from_millis(1)).await;
            }
            store.commits()
        };
        let queued = push.enqueue(Audience::All, Message::new("x"));
        let id = queued.await.unwrap().broadcast;
        let waiting = push.clone();
        let over = async move { drop(waiting.wait_until_over(id, MINUTE).await) };
        let counted = async {
            let from = commits_at(FROM).await;
            commits_at(TO).await - from
        };
        let (commits, ran) = tokio::join!(counted, push.run(over));
        ran.unwrap();
        let accepted = world.status(id).await.counts.accepted;
        assert_eq!(accepted, RECIPIENTS);
        let share = (TO - FROM) / commits;
        assert!(share >= 200, "{share} for each, first: {is_first}");
    }
}
