//! Paused broadcasts: many in front of another one, and rows of processes that have ended.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower_web_push::broadcast::{Audience, BroadcastState};
use tower_web_push::message::{Message, Urgency};
use tower_web_push::store::{
    ClaimRequest, Cursor, DeliveryLedger as _, NewBroadcast, Opened, Page, PageWrite,
};

use super::world::{ask, at, delivery, fresh_prefix, sending, status, store, worker};
use crate::support::servers::{Kind, shared};

/// More than one claim puts aside.
const PAUSED: usize = 600;

#[tokio::test]
async fn a_claim_says_that_rows_may_stand_behind_many_paused_broadcasts() {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let store = store(&url, &fresh_prefix()).await;
    let open = async |number: usize| {
        let mut new = NewBroadcast::new(Audience::All, Message::new("hello"), at(3600));
        new.page = Some(Page::new(vec![delivery(number, 1)], Cursor::End));
        assert_eq!(store.open(&new, at(0)).await.unwrap(), Opened::New);
        new.id
    };
    for number in 0..PAUSED {
        let id = open(number).await;
        store.hold(id, true, at(0)).await.unwrap();
    }
    let other = open(PAUSED).await;
    let request = ClaimRequest::new(1, Duration::from_secs(45));
    let mut claims = store.claim(&request, at(1)).await.unwrap();
    while claims.rows.is_empty() && claims.more {
        claims = store.claim(&request, at(1)).await.unwrap();
    }
    let of: Vec<_> = claims.rows.iter().map(|row| row.token.broadcast).collect();
    assert_eq!(of, [other]);
    assert!(!store.claim(&request, at(1)).await.unwrap().more);
}

/// Rows of a worker that has ended wait for a paused broadcast, and end with a cancelled one. Nobody owns them any more.
#[tokio::test]
async fn rows_of_a_dead_worker_are_put_aside_or_end() {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let (ended, other) = (worker(&url, &prefix).await, worker(&url, &prefix).await);
    let paused = sending(&ended, 7, 2).await;
    let cancelled = sending(&ended, 5, 2).await;
    let long = ClaimRequest::new(99, Duration::from_secs(3600));
    assert_eq!(ended.claim(&long, at(0)).await.unwrap().rows.len(), 12);
    ended.hold(paused, true, at(1)).await.unwrap();
    ended.cancel(cancelled, at(1)).await.unwrap();
    assert!(other.claim(&long, at(1)).await.unwrap().rows.is_empty());
    drop(ended);
    let owned = format!("{{{prefix}}}:owned");
    let is_left = async {
        while ask::<u64>(&url, &["ZCARD", &owned]).await > 0 {
            assert!(other.claim(&long, at(2)).await.unwrap().rows.is_empty());
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), is_left).await.unwrap();
    assert!(other.claim(&long, at(2)).await.unwrap().rows.is_empty());
    let end = status(&other, cancelled, at(2)).await;
    assert_eq!((end.counts.cancelled, end.counts.pending), (5, 0));
    let waits = status(&other, paused, at(2)).await;
    let told = (waits.state, waits.counts.pending);
    assert_eq!(told, (BroadcastState::Paused, 7));
    assert!(other.next_due(at(2)).await.unwrap() > Some(at(2)));
    other.hold(paused, false, at(3)).await.unwrap();
    let again = other.claim(&long, at(3)).await.unwrap().rows;
    assert_eq!(again.len(), 7);
    assert!(again.iter().all(|row| row.attempt == 2));
}

/// Each look for broadcasts to expand would read them all.
#[tokio::test]
async fn a_look_for_expansions_does_not_read_paused_broadcasts() {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let store = store(&url, &prefix).await;
    let key = |name: &str| format!("{{{prefix}}}:{name}");
    let sizes = async || {
        let mut sizes = Vec::new();
        for name in ["new", "run", "new:urgent", "run:urgent", "held"] {
            sizes.push(ask::<u64>(&url, &["ZCARD", &key(name)]).await);
        }
        sizes
    };
    let listed = async || {
        let listed = store.expandable(10, at(1)).await.unwrap();
        listed.iter().map(|one| one.id).collect::<Vec<_>>()
    };
    let open = async |urgency: Urgency| {
        let message = Message::new("hello").with_urgency(urgency);
        let new = NewBroadcast::new(Audience::All, message, at(3600));
        assert_eq!(store.open(&new, at(0)).await.unwrap(), Opened::New);
        new.id
    };
    for (urgency, new, started) in [
        (Urgency::Normal, [1, 0, 0, 0, 0], [0, 1, 0, 0, 0]),
        (Urgency::High, [0, 0, 1, 0, 0], [0, 0, 0, 1, 0]),
    ] {
        let id = open(urgency).await;
        for expected in [new, started] {
            assert_eq!(sizes().await, expected);
            for _ in 0..2 {
                store.hold(id, true, at(1)).await.unwrap();
                assert_eq!(sizes().await, [0, 0, 0, 0, 1]);
                assert_eq!(listed().await, []);
            }
            for _ in 0..2 {
                store.hold(id, false, at(1)).await.unwrap();
                assert_eq!(sizes().await, expected);
                assert_eq!(listed().await, [id]);
            }
            if expected == new {
                let rows = [delivery(1, 1)];
                let next = Cursor::After(rows[0].key);
                let written = store.enqueue_page(id, &Cursor::Start, &rows, &next, at(1));
                assert_eq!(written.await.unwrap(), PageWrite::Stored);
            }
        }
        store.hold(id, true, at(1)).await.unwrap();
        store.cancel(id, at(1)).await.unwrap();
        assert_eq!(sizes().await, [0; 5]);
    }
    // At its deadline too.
    let id = open(Urgency::Low).await;
    store.hold(id, true, at(1)).await.unwrap();
    assert_eq!(sizes().await, [0, 0, 0, 0, 1]);
    store.expire(10, at(3600)).await.unwrap();
    assert_eq!(sizes().await, [0; 5]);
}

/// At more origins than one script puts aside, or brings back.
#[tokio::test]
async fn a_broadcast_at_very_many_origins_goes_on_at_all_of_them() {
    const ORIGINS: usize = 600;
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let store = store(&url, &fresh_prefix()).await;
    let id = sending(&store, ORIGINS, ORIGINS).await;
    let claimed = async |secs: i64| {
        let request = ClaimRequest::new(10_000, Duration::from_secs(45));
        let mut rows = 0;
        loop {
            let claims = store.claim(&request, at(secs)).await.unwrap();
            rows += claims.rows.len();
            if claims.rows.is_empty() && !claims.more {
                return rows;
            }
        }
    };
    store.hold(id, true, at(1)).await.unwrap();
    assert_eq!(claimed(1).await, 0);
    store.hold(id, false, at(2)).await.unwrap();
    assert_eq!(claimed(2).await, ORIGINS);
}
