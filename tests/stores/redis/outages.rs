//! Servers that stop, hang or are full while the store is in use.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tower_web_push::broadcast::{Audience, BroadcastId, BroadcastState, FinalOutcome};
use tower_web_push::message::Message;
use tower_web_push::schedule::{DailyTime, NotifyType, Plan, Schedule};
use tower_web_push::store::{
    Change, CountFilter, Cursor, DeliveryLedger, Liveness, NewBroadcast, NewDelivery, Page,
    PageWrite, Pause, PauseReason, PortableStore as _, RedisStore, ScheduleStore, Settled,
    Settlement, StoreErrorKind, SubscriptionLimits, SubscriptionRecord, SubscriptionRef,
    SubscriptionStore as _, Tally,
};

use super::world::{ask, at, claim, endpoint, sending, status, subscription};
use crate::support::servers::{Kind, Port, Server};

const ACCEPTED: Settlement = Settlement::Finished(FinalOutcome::Accepted);

/// A store with long timeouts, so that a slow machine does not end a call.
async fn patient(server: &Server) -> RedisStore {
    RedisStore::builder()
        .connect_timeout(Duration::from_secs(60))
        .response_timeout(Duration::from_secs(60))
        .connect(&server.url())
        .await
        .unwrap()
}

/// A store with short timeouts.
async fn impatient(server: &Server) -> RedisStore {
    let builder = RedisStore::builder()
        .connect_timeout(Duration::from_millis(500))
        .response_timeout(Duration::from_millis(500));
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match builder.clone().connect(&server.url()).await {
            Ok(store) => return store,
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
    }
}

/// Opens broadcasts until one fails, and tells the number of acknowledged ones, which it returns.
async fn open_until_it_fails(
    store: &RedisStore,
    acknowledged: &watch::Sender<usize>,
) -> Vec<BroadcastId> {
    let mut opened = Vec::new();
    loop {
        let new = NewBroadcast::new(Audience::All, Message::new("x"), at(3600));
        match store.open(&new, at(0)).await {
            Ok(_) => {
                opened.push(new.id);
                acknowledged.send_replace(opened.len());
            }
            Err(error) => {
                assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
                return opened;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_loses_nothing_that_was_acknowledged() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let Some(mut server) = Server::start(kind, &[]).await else {
            continue;
        };
        let store = patient(&server).await;
        let id = sending(&store, 20, 2).await;
        let held = claim(&store, 5, at(0)).await;
        for way in ["killed", "stopped"] {
            let (acknowledged, mut number) = watch::channel(0);
            let writer = tokio::spawn({
                let store = store.clone();
                async move { open_until_it_fails(&store, &acknowledged).await }
            });
            number.wait_for(|number| *number >= 5).await.unwrap();
            match way {
                "killed" => server.kill().await,
                _ => server.stop().await,
            }
            let opened = writer.await.unwrap();
            let away = store.status(id, at(0)).await.unwrap_err();
            assert_eq!(away.kind(), StoreErrorKind::Unavailable);
            server.start_again().await;
            // The server loads its data first.
            let deadline = Instant::now() + Duration::from_secs(30);
            while store.status(id, at(0)).await.is_err() {
                assert!(Instant::now() < deadline, "{kind:?} does not come back");
            }
            for opened in &opened {
                assert!(
                    store.status(*opened, at(0)).await.unwrap().is_some(),
                    "{way}"
                );
            }
        }
        let ends: Vec<_> = held.iter().map(|row| (row.token, ACCEPTED)).collect();
        assert_eq!(
            store.settle(&ends, at(1)).await.unwrap(),
            [Settled::Done; 5]
        );
        assert_eq!(status(&store, id, at(1)).await.counts.accepted, 5);
        assert_eq!(claim(&store, 100, at(1)).await.len(), 15);
    }
}

#[tokio::test]
async fn a_restart_between_two_calls_goes_unnoticed() {
    let Some(mut server) = Server::start(Kind::Redis, &[]).await else {
        return;
    };
    let store = patient(&server).await;
    let id = sending(&store, 3, 1).await;
    server.stop().await;
    server.start_again().await;
    // The close of the idle connection arrives.
    let deadline = Instant::now() + Duration::from_secs(30);
    while store.status(id, at(0)).await.is_err() {
        assert!(Instant::now() < deadline);
    }
    // The server's script cache is empty.
    assert_eq!(claim(&store, 9, at(0)).await.len(), 3);
}

#[tokio::test]
async fn a_server_that_hangs_costs_no_more_than_the_limits() {
    let Some(server) = Server::start(Kind::Redis, &[]).await else {
        return;
    };
    let id = sending(&patient(&server).await, 3, 1).await;
    let store = impatient(&server).await;
    server.freeze().await;
    for _ in 0..2 {
        let started = Instant::now();
        let error = store.status(id, at(0)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        // Both timeouts are half a second. The rest allows for a slow machine.
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{:?}",
            started.elapsed()
        );
    }
    server.thaw().await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while store.status(id, at(0)).await.is_err() {
        assert!(Instant::now() < deadline, "it does not recover");
    }
    let store = patient(&server).await;
    assert_eq!(claim(&store, 9, at(0)).await.len(), 3);
}

#[tokio::test]
async fn a_full_server_takes_nothing_in_and_goes_on_with_what_it_has() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let Some(server) = Server::start(kind, &[]).await else {
            continue;
        };
        let store = patient(&server).await;
        let id = sending(&store, 30, 2).await;
        let _: String = ask(&server.url(), &["CONFIG", "SET", "maxmemory", "1"]).await;
        let new = NewBroadcast::new(Audience::All, Message::new("x"), at(3600));
        let refused = store.open(&new, at(0)).await.unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::Full, "{refused:?}");
        // A new process, whose scripts are not cached, can free memory.
        let store = patient(&server).await;
        let rows = claim(&store, 20, at(0)).await;
        assert_eq!(rows.len(), 20);
        let origin = &rows[0].origin;
        let pause = Pause::new(origin.clone(), at(9), PauseReason::RateLimited);
        store.pause(&pause, at(1)).await.unwrap();
        assert_eq!(store.pauses(at(1)).await.unwrap().len(), 1);
        let tally = Tally::new(1, 0);
        store
            .tally(&[(origin.clone(), tally)], at(1))
            .await
            .unwrap();
        store.record_run(at(1)).await.unwrap();
        let (ended, back) = rows.split_at(10);
        let ends: Vec<_> = ended.iter().map(|row| (row.token, ACCEPTED)).collect();
        assert_eq!(
            store.settle(&ends, at(1)).await.unwrap(),
            [Settled::Done; 10]
        );
        let tokens: Vec<_> = back.iter().map(|row| row.token).collect();
        store.release(&tokens, at(1)).await.unwrap();
        assert_eq!(status(&store, id, at(1)).await.counts.accepted, 10);
        let cancelled = store.cancel(id, at(2)).await.unwrap().unwrap();
        assert_eq!(
            (cancelled.counts.cancelled, cancelled.counts.pending),
            (20, 0)
        );
        assert_eq!(store.prune(at(3)).await.unwrap().broadcasts, 1);
        let _: String = ask(&server.url(), &["CONFIG", "SET", "maxmemory", "0"]).await;
        store.open(&new, at(4)).await.unwrap();
    }
}

#[tokio::test]
async fn a_full_server_takes_no_subscriptions_in_and_changes_those_it_has() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let Some(server) = Server::start(kind, &[]).await else {
            continue;
        };
        let store = patient(&server).await;
        let limits = SubscriptionLimits::default();
        let upsert = async |number| store.upsert(&subscription(number), &limits, at(1)).await;
        upsert(0).await.unwrap();
        let filter = CountFilter::new(Audience::All, Liveness::Any);
        let before = store.count(&filter, at(1)).await.unwrap();
        let keys: i64 = ask(&server.url(), &["DBSIZE"]).await;
        let _: String = ask(&server.url(), &["CONFIG", "SET", "maxmemory", "1"]).await;
        let refused = upsert(1).await.unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::Full, "{refused:?}");
        let standing = SubscriptionRef::Key(endpoint(0).key());
        let row = store.get(&[standing]).await.unwrap().remove(0).unwrap();
        let as_row = |number| {
            let new = subscription(number);
            SubscriptionRecord::new(new.id, new.subscription, row.vapid_key, at(2))
        };
        let newer = SubscriptionRecord {
            last_seen_at: at(3),
            ..row
        };
        // A row that is written anew makes no room for others.
        for rows in [vec![as_row(1)], vec![newer.clone(), as_row(1), as_row(2)]] {
            let refused = store.put(&rows).await.unwrap_err();
            assert_eq!(refused.kind(), StoreErrorKind::Full, "{refused:?}");
        }
        assert_eq!(store.count(&filter, at(1)).await.unwrap(), before);
        assert_eq!(ask::<i64>(&server.url(), &["DBSIZE"]).await, keys);
        // What is known changes.
        upsert(0).await.unwrap();
        assert_eq!(store.put(&[newer]).await.unwrap(), [true]);
        assert_eq!(store.count(&filter, at(1)).await.unwrap(), before);
    }
}

/// What ends or removes something works on a full server, called first by a process whose scripts are not cached.
#[tokio::test]
async fn a_full_server_lets_everything_end() {
    const DAY: i64 = 86_400;
    for kind in [Kind::Redis, Kind::Valkey] {
        let Some(server) = Server::start(kind, &[]).await else {
            continue;
        };
        let store = patient(&server).await;
        let paused = sending(&store, 30, 2).await;
        let limits = SubscriptionLimits::default();
        let mut of_alice = subscription(0);
        of_alice.principal = Some("alice".into());
        let expiring = {
            let mut new = subscription(1);
            new.subscription = new.subscription.with_expiration_time(Some(at(5)));
            // It is retired and not deleted, which writes more than it removes.
            new.principal = Some("carol".into());
            new
        };
        for new in [&of_alice, &expiring] {
            store.upsert(new, &limits, at(0)).await.unwrap();
        }
        let mut to_alice = NewBroadcast::new(Audience::user("alice"), Message::new("x"), at(9999));
        to_alice.recipients = 1;
        store.open(&to_alice, at(0)).await.unwrap();
        let row = NewDelivery::new(endpoint(0).key(), endpoint(0).origin().clone());
        let written = store
            .enqueue_page(to_alice.id, &Cursor::Start, &[row], &Cursor::End, at(0))
            .await;
        assert_eq!(written.unwrap(), PageWrite::Stored);
        // Of a user without subscriptions nothing is removed before the broadcast is marked.
        let mut to_bob = NewBroadcast::new(Audience::user("bob"), Message::new("x"), at(9999));
        to_bob.recipients = 1;
        let row = NewDelivery::new(endpoint(2).key(), endpoint(2).origin().clone());
        to_bob.page = Some(Page::new(vec![row], Cursor::End));
        store.open(&to_bob, at(0)).await.unwrap();
        let plan = Plan::Subscriber {
            subscription: of_alice.id,
            notify_type: NotifyType::DirectNotification,
            message: None,
        };
        let schedule = Schedule::new(plan, DailyTime::new(9, 0).unwrap(), at(DAY));
        store.put_schedule(&schedule).await.unwrap();
        let _: String = ask(&server.url(), &["CONFIG", "SET", "maxmemory", "1"]).await;

        let mut refused = Vec::new();
        for is_held in [true, false] {
            let held = patient(&server).await.hold(paused, is_held, at(1)).await;
            match held {
                Ok(held) => {
                    let is_paused = held.unwrap().state == BroadcastState::Paused;
                    assert_eq!(is_paused, is_held);
                }
                Err(error) => refused.push(("hold", error.kind())),
            }
        }
        let moving = patient(&server).await;
        match moving.move_schedules(of_alice.id, expiring.id).await {
            Ok(()) => {
                let left = moving.schedules(Some(of_alice.id)).await.unwrap();
                let there = moving.schedules(Some(expiring.id)).await.unwrap();
                assert_eq!((left.len(), there.len()), (0, 1));
            }
            Err(error) => refused.push(("move_schedules", error.kind())),
        }
        let row = SubscriptionRef::Key(endpoint(0).key());
        let row = store.get(&[row]).await.unwrap().remove(0).unwrap();
        let erasing = patient(&server).await;
        match erasing.erase(&"alice".into(), &[row], at(1)).await {
            Ok(erased) => assert_eq!((erased.deliveries, erased.broadcasts), (1, 1)),
            Err(error) => refused.push(("erase", error.kind())),
        }
        match patient(&server)
            .await
            .erase(&"bob".into(), &[], at(1))
            .await
        {
            Ok(erased) => {
                assert_eq!(erased.broadcasts, 1);
                let left = status(&store, to_bob.id, at(1)).await.counts;
                assert_eq!((left.cancelled, left.pending), (1, 0));
            }
            Err(error) => refused.push(("erase without rows", error.kind())),
        }
        match patient(&server).await.expire(100, at(3600)).await {
            Ok(expired) => assert_eq!(expired, 30),
            Err(error) => refused.push(("expire", error.kind())),
        }
        let purge = Change::Purge {
            before: at(0),
            expired_before: at(0),
        };
        match patient(&server).await.apply(&[purge], at(10)).await {
            Ok(purged) => {
                assert_eq!(purged, 1);
                let row = SubscriptionRef::Key(endpoint(1).key());
                let row = store.get(&[row]).await.unwrap().remove(0).unwrap();
                assert!(row.retired.is_some());
            }
            Err(error) => refused.push(("purge", error.kind())),
        }
        assert_eq!(refused, []);
    }
}

#[tokio::test]
async fn a_server_that_has_become_a_replica_is_asked_again_when_it_is_none() {
    let Some(server) = Server::start(Kind::Redis, &[]).await else {
        return;
    };
    let store = patient(&server).await;
    let nobodys = Port::free();
    let port = nobodys.number().to_string();
    let _: String = ask(&server.url(), &["REPLICAOF", "127.0.0.1", &port]).await;
    let new = NewBroadcast::new(Audience::All, Message::new("x"), at(3600));
    let refused = store.open(&new, at(0)).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Unavailable, "{refused:?}");
    let _: String = ask(&server.url(), &["REPLICAOF", "NO", "ONE"]).await;
    store.open(&new, at(0)).await.unwrap();
}
