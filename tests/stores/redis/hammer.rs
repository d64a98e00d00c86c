//! Concurrent workers on two handles: no call fails, nothing is lost and nothing is left over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tower_web_push::broadcast::{Audience, BroadcastId, FinalOutcome, Principal};
use tower_web_push::message::Message;
use tower_web_push::store::{
    Change, Cursor, DeliveryLedger, Failure, NewBroadcast, NewDelivery, Pause, PauseReason,
    RedisStore, RetireReason, Settlement, SubscriptionLimits, SubscriptionRef, SubscriptionStore,
};
use tower_web_push::subscription::Origin;

use super::world::{
    at, claim, delivery, endpoint, fresh_prefix, keys, status, store, subscription,
};
use crate::support::servers::{Kind, shared};

const SUBSCRIPTIONS: usize = 40;
/// The calls of each worker, at least: on a busy machine there are few in some seconds.
const ROUNDS: i64 = 100;

/// A small pseudorandom number generator.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % sides
    }
}

async fn work(store: RedisStore, seed: u64, stop: Arc<AtomicBool>) -> Vec<BroadcastId> {
    let mut dice = Dice(seed);
    let mut opened = Vec::new();
    let mut round = 0;
    while round < ROUNDS || !stop.load(Ordering::Relaxed) {
        round += 1;
        let now = at(round);
        match dice.roll(8) {
            0 => opened.push(open(&store, &mut dice, round).await),
            1 | 2 => deliver(&store, &mut dice, round).await,
            3 => {
                if let Some(id) = opened.get(usize::try_from(dice.roll(9)).unwrap()) {
                    store.cancel(*id, now).await.unwrap();
                }
            }
            4 => drop(store.expire(20, now).await.unwrap()),
            5 => {
                let origin =
                    Origin::parse(&format!("https://push{}.example", dice.roll(3))).unwrap();
                let pause = Pause::new(
                    origin,
                    at(round + 3),
                    PauseReason::ALL[usize::try_from(dice.roll(3)).unwrap()],
                );
                store.pause(&pause, now).await.unwrap();
                store.next_due(now).await.unwrap();
                store.stats(now).await.unwrap();
            }
            _ => subscribe(&store, &mut dice, round).await,
        }
    }
    opened
}

async fn open(store: &RedisStore, dice: &mut Dice, round: i64) -> BroadcastId {
    let deadline = at(round + 5 + i64::try_from(dice.roll(2000)).unwrap());
    let mut new = NewBroadcast::new(Audience::All, Message::new("x"), deadline);
    new.recipients = 30;
    store.open(&new, at(round)).await.unwrap();
    let rows: Vec<NewDelivery> = (0..30).map(|n| delivery(n, 3)).collect();
    let middle = Cursor::After(rows[19].key);
    store
        .enqueue_page(new.id, &Cursor::Start, &rows[..20], &middle, at(round))
        .await
        .unwrap();
    if dice.roll(3) > 0 {
        store
            .enqueue_page(new.id, &middle, &rows[10..], &Cursor::End, at(round))
            .await
            .unwrap();
    }
    new.id
}

async fn deliver(store: &RedisStore, dice: &mut Dice, round: i64) {
    let rows = claim(store, 25, at(round)).await;
    let mut ends = Vec::new();
    let mut released = Vec::new();
    for row in rows {
        match dice.roll(6) {
            0 => released.push(row.token),
            1 => ends.push((row.token, Settlement::RetryAt(at(round + 2)))),
            // Its worker died.
            2 => {}
            place => {
                let outcome = FinalOutcome::ALL[usize::try_from(place).unwrap() - 3];
                ends.push((row.token, Settlement::Finished(outcome)));
            }
        }
    }
    store.settle(&ends, at(round)).await.unwrap();
    store.release(&released, at(round)).await.unwrap();
}

/// One of three, or none.
fn principal(number: u64) -> Option<Principal> {
    (number < 3).then(|| Principal::from(format!("user-{number}").as_str()))
}

async fn subscribe(store: &RedisStore, dice: &mut Dice, round: i64) {
    let number = usize::try_from(dice.roll(SUBSCRIPTIONS as u64)).unwrap();
    let key = endpoint(number).key();
    if dice.roll(2) == 0 {
        let mut new = subscription(number);
        new.principal = principal(dice.roll(3));
        new.tags = Some([tower_web_push::broadcast::Tag::parse("news").unwrap()].into());
        let expires = (dice.roll(2) == 0).then_some(at(round + 50));
        new.subscription = new.subscription.with_expiration_time(expires);
        if dice.roll(3) == 0 {
            let other = usize::try_from(dice.roll(SUBSCRIPTIONS as u64)).unwrap();
            new.replaces = Some(endpoint(other).key());
        }
        store
            .upsert(&new, &SubscriptionLimits::new(1000, 8), at(round))
            .await
            .unwrap();
    } else {
        let observed_at = at(round);
        let changes = [
            Change::Failed {
                key,
                failure: Failure::default(),
            },
            Change::Accepted(key),
            Change::Stale {
                key,
                observed_at,
                failure: Failure::default(),
            },
            Change::Retire {
                key,
                reason: RetireReason::Gone,
                observed_at,
                failure: Failure::default(),
            },
            Change::Delete {
                key,
                principal: principal(dice.roll(4)),
                observed_at,
            },
        ];
        let change = &changes[usize::try_from(dice.roll(5)).unwrap()];
        store
            .apply(std::slice::from_ref(change), at(round))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_workers_lose_nothing_and_leave_nothing_behind() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let Some(url) = shared(kind) else {
            continue;
        };
        let prefix = fresh_prefix();
        let handles = [store(&url, &prefix).await, store(&url, &prefix).await];
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for seed in 0..6 {
            let store = handles[seed % 2].clone();
            workers.spawn(work(store, seed as u64 + 1, Arc::clone(&stop)));
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
        stop.store(true, Ordering::Relaxed);
        let opened: Vec<_> = workers.join_all().await.into_iter().flatten().collect();
        println!("{} broadcasts", opened.len());
        assert!(opened.len() > 20, "{}", opened.len());

        let store = &handles[0];
        let later = at(1_000_000);
        while store.expire(1000, later).await.unwrap() > 0 {}
        for id in &opened {
            let end = status(store, *id, later).await;
            assert!(end.is_over(), "{end:?}");
            // Recipients that had ended before the second page was written are recipients again.
            assert!((30..=40).contains(&end.recipients), "{end:?}");
        }
        assert_eq!(store.stats(later).await.unwrap().depth, 0);
        assert_eq!(store.next_due(later).await.unwrap(), None);
        // Each call deletes at most 1,000 broadcasts, of which there are more on a fast machine.
        let mut pruned = 0;
        loop {
            let some = store.prune(later + Duration::from_secs(1)).await.unwrap();
            pruned += some.broadcasts;
            if !some.more {
                break;
            }
        }
        assert_eq!(pruned, opened.len() as u64);

        let named: Vec<_> = (0..SUBSCRIPTIONS)
            .map(|n| SubscriptionRef::Key(endpoint(n).key()))
            .collect();
        let rows = store.get(&named).await.unwrap();
        assert!(rows.iter().flatten().count() > 0);
        for row in rows.iter().flatten() {
            let by_id = store.get(&[SubscriptionRef::Id(row.id)]).await.unwrap();
            assert_eq!(by_id[0].as_ref(), Some(row));
        }
        let delete: Vec<_> = rows.iter().flatten().map(Change::delete).collect();
        store.apply(&delete, later).await.unwrap();
        // The version, and the last fence, so that no token is reused.
        assert_eq!(keys(&url, &prefix).await, ["format", "meta"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_changes_hands_is_never_of_the_other_user() {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let store = store(&url, &fresh_prefix()).await;
    let write = async |user: &str| {
        let mut new = subscription(1);
        new.principal = Some(user.into());
        let limits = SubscriptionLimits::default();
        store.upsert(&new, &limits, at(0)).await.unwrap();
    };
    write("alice").await;
    let walk = tokio::spawn({
        let store = store.clone();
        async move {
            for _ in 0..2000 {
                let page = store.page(&Audience::user("alice"), None, 9, at(0)).await;
                for row in page.unwrap() {
                    assert_eq!(row.principal, Some("alice".into()));
                }
            }
        }
    });
    while !walk.is_finished() {
        write("bob").await;
        write("alice").await;
    }
    walk.await.unwrap();
}
