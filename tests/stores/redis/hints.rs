//! Hints: received by all listeners, and again after an outage of the server.

use std::time::Duration;

use tokio::time::timeout;
use tower_web_push::broadcast::Audience;
use tower_web_push::message::Message;
use tower_web_push::schedule::{DailyTime, Plan, Schedule, ScheduleLabel};
use tower_web_push::store::{
    DeliveryLedger, Fired, Firing, NewBroadcast, RedisStore, ScheduleStore as _,
};

use super::world::{at, claim, fresh_prefix, sending, store};
use crate::support::servers::{Kind, Server, shared};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

async fn open(store: &RedisStore) {
    let new = NewBroadcast::new(Audience::All, Message::new("x"), at(3600));
    store.open(&new, at(0)).await.unwrap();
}

#[tokio::test]
async fn opening_or_releasing_on_another_handle_gives_a_hint() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let Some(url) = shared(kind) else {
            continue;
        };
        let prefix = fresh_prefix();
        let (here, there) = (store(&url, &prefix).await, store(&url, &prefix).await);
        let mut hints = here.changes();
        // The first hint means that it listens.
        timeout(LONG, hints.next()).await.unwrap();
        open(&there).await;
        timeout(LONG, hints.next()).await.unwrap();
        assert!(timeout(SHORT, hints.next()).await.is_err(), "for nothing");
        sending(&there, 2, 1).await;
        timeout(LONG, hints.next()).await.unwrap();
        let rows = claim(&there, 2, at(0)).await;
        assert!(timeout(SHORT, hints.next()).await.is_err(), "nobody cares");
        there.release(&[rows[0].token], at(1)).await.unwrap();
        timeout(LONG, hints.next()).await.unwrap();
        // Another prefix is another store.
        let other = store(&url, &fresh_prefix()).await;
        open(&other).await;
        assert!(
            timeout(SHORT, hints.next()).await.is_err(),
            "it is not ours"
        );
    }
}

/// Pausing is no work for others. Letting go on is, and so are a schedule and what it fires.
#[tokio::test]
async fn letting_go_on_scheduling_or_firing_on_another_handle_gives_a_hint() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let Some(url) = shared(kind) else {
            continue;
        };
        let prefix = fresh_prefix();
        let (here, there) = (store(&url, &prefix).await, store(&url, &prefix).await);
        let mut hints = here.changes();
        timeout(LONG, hints.next()).await.unwrap();
        let id = sending(&there, 2, 1).await;
        timeout(LONG, hints.next()).await.unwrap();
        there.hold(id, true, at(0)).await.unwrap();
        assert!(timeout(SHORT, hints.next()).await.is_err(), "for a pause");
        there.hold(id, false, at(0)).await.unwrap();
        let mut unheard = Vec::new();
        let mut is_heard = async |what| {
            if timeout(LONG, hints.next()).await.is_err() {
                unheard.push(what);
            }
        };
        is_heard("it goes on").await;
        let plan = Plan::Application {
            label: ScheduleLabel::parse("digest").unwrap(),
            to: Audience::All,
            message: Message::new("x"),
        };
        let schedule = Schedule::new(plan, DailyTime::new(9, 0).unwrap(), at(60));
        there.put_schedule(&schedule).await.unwrap();
        is_heard("a schedule").await;
        let new = NewBroadcast::new(Audience::All, Message::new("x"), at(3600));
        let firing = Firing::new(&schedule, at(86_460), Some(new));
        let fired = there.fire(&[firing], at(60)).await.unwrap();
        assert_eq!(fired, [Fired::Fired]);
        is_heard("it has fired").await;
        assert_eq!(unheard, [""; 0]);
    }
}

#[tokio::test]
async fn either_protocol_serves_a_store_and_its_hints() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let Some(url) = shared(kind) else {
            continue;
        };
        for protocol in ["2", "3", "resp3"] {
            let prefix = fresh_prefix();
            let here = store(&format!("{url}/0?protocol={protocol}"), &prefix).await;
            let there = store(&url, &prefix).await;
            let mut hints = here.changes();
            timeout(LONG, hints.next()).await.unwrap();
            sending(&there, 2, 1).await;
            timeout(LONG, hints.next()).await.unwrap();
            assert_eq!(claim(&here, 2, at(0)).await.len(), 2);
        }
    }
}

#[tokio::test]
async fn hints_come_back_with_the_server() {
    let Some(mut server) = Server::start(Kind::Redis, &[]).await else {
        return;
    };
    let store = store(&server.url(), "web-push").await;
    let mut hints = store.changes();
    timeout(LONG, hints.next()).await.unwrap();
    server.kill().await;
    assert!(timeout(SHORT, hints.next()).await.is_err());
    server.start_again().await;
    timeout(LONG, hints.next()).await.unwrap();
    open(&store).await;
    timeout(LONG, hints.next()).await.unwrap();
}
