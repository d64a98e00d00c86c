//! Small audiences that are read at the same time share a statement, and get what each would get alone.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;
use tower_web_push::broadcast::Audience;
use tower_web_push::store::{
    Change, Failure, NewSubscription, PostgresStore, RetireReason, SubscriptionLimits,
    SubscriptionRecord, SubscriptionStore as _,
};
use tower_web_push::subscription::SubscriptionId;

use super::world::{Schema, at, client, subscription};

/// Larger than what shares a statement.
const MANY: u32 = 130;

async fn put(store: &PostgresStore, number: u32, principal: Option<&str>) -> NewSubscription {
    let mut new = subscription(number);
    new.principal = principal.map(Into::into);
    let limits = SubscriptionLimits::new(10_000, 1_000);
    store.upsert(&new, &limits, at(0)).await.unwrap();
    new
}

/// The keys of the first page, which are in their order.
fn keys(rows: &[SubscriptionRecord]) -> Vec<[u8; 32]> {
    let keys = rows
        .iter()
        .map(|row| *row.subscription.endpoint().key().as_bytes());
    keys.collect()
}

/// Five users with few rows, one with many, one with none, some rows that are not live, and lists of ids.
async fn filled(store: &PostgresStore) -> Vec<Audience> {
    let mut ids = Vec::new();
    for number in 0..20 {
        let principal = format!("user{}", number % 5);
        ids.push(put(store, number, Some(&principal)).await.id);
    }
    for number in 100..100 + MANY {
        put(store, number, Some("many")).await;
    }
    let mut expiring = subscription(20);
    expiring.principal = Some("user0".into());
    let until = expiring
        .subscription
        .clone()
        .with_expiration_time(Some(at(5)));
    expiring.subscription = until;
    let limits = SubscriptionLimits::default();
    store.upsert(&expiring, &limits, at(0)).await.unwrap();
    let gone = subscription(1).subscription.endpoint().key();
    let retire = Change::Retire {
        key: gone,
        reason: RetireReason::Gone,
        observed_at: at(1),
        failure: Failure::default(),
    };
    assert_eq!(store.apply(&[retire], at(1)).await.unwrap(), 1);
    let mut audiences: Vec<_> = (0..5)
        .map(|user| Audience::user(format!("user{user}")))
        .collect();
    audiences.push(Audience::user("many"));
    audiences.push(Audience::user("nobody"));
    audiences.extend(ids.iter().map(|id| Audience::Ids(vec![*id])));
    let twice = ids.iter().chain(&ids).copied().collect();
    audiences.push(Audience::Ids(twice));
    audiences.push(Audience::Ids(vec![SubscriptionId::random(), expiring.id]));
    audiences.push(Audience::Ids(Vec::new()));
    audiences
}

#[tokio::test]
async fn each_gets_what_it_would_get_alone() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let audiences = filled(&store).await;
    for (limit, now) in [(100, 4), (100, 5), (3, 4), (1, 6), (500, 4)] {
        let mut alone = Vec::new();
        for audience in &audiences {
            let page = store.page(audience, None, limit, at(now)).await.unwrap();
            alone.push(keys(&page));
        }
        assert!(alone.iter().any(|page| page.len() >= limit.min(20)));
        let together = audiences
            .iter()
            .map(async |audience| store.page(audience, None, limit, at(now)).await.unwrap());
        let together: Vec<_> = join_all(together).await;
        let together: Vec<_> = together.iter().map(|page| keys(page)).collect();
        assert_eq!(together, alone, "{limit} at {now}");
    }
}

/// Calls at the same time may have clocks of their own.
#[tokio::test]
async fn each_is_read_at_its_own_time() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    filled(&store).await;
    let audience = Audience::user("user0");
    let at_its_time = |now| store.page(&audience, None, 100, at(now));
    let pages = join_all((0..10).map(at_its_time)).await;
    let numbers: Vec<_> = pages
        .iter()
        .map(|page| page.as_ref().unwrap().len())
        .collect();
    assert_eq!(numbers, [5, 5, 5, 5, 5, 4, 4, 4, 4, 4]);
}

/// A statement that was already under way would not see it.
#[tokio::test]
async fn each_sees_what_was_written_before_it_began() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let rounds = (0..16).map(async |user: u32| {
        let name = format!("user{user}");
        let audience = Audience::user(name.as_str());
        for round in 0..10 {
            let new = put(&store, user * 100 + round, Some(&name)).await;
            let ids = Audience::Ids(vec![new.id]);
            for audience in [&audience, &ids] {
                let page = store.page(audience, None, 100, at(1)).await.unwrap();
                assert_eq!(keys(&page), [*new.key().as_bytes()]);
            }
            let gone = Change::Delete {
                key: new.key(),
                principal: new.principal.clone(),
                observed_at: at(1),
            };
            assert_eq!(store.apply(&[gone], at(1)).await.unwrap(), 1);
            for audience in [&audience, &ids] {
                let page = store.page(audience, None, 100, at(1)).await.unwrap();
                assert_eq!(keys(&page), [] as [[u8; 32]; 0]);
            }
        }
    });
    join_all(rounds).await;
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_left_out_of_its_page_only() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    filled(&store).await;
    schema
        .run("UPDATE web_push.subscription SET auth = 'x' WHERE endpoint = 'https://push.example.net/7'")
        .await;
    let users: Vec<_> = (0..5)
        .map(|user| Audience::user(format!("user{user}")))
        .collect();
    let pages = join_all(users.iter().map(|user| store.page(user, None, 100, at(6)))).await;
    let numbers: Vec<_> = pages
        .iter()
        .map(|page| page.as_ref().unwrap().len())
        .collect();
    // The first row of user1 is retired, and one of user2 is damaged.
    assert_eq!(numbers, [4, 3, 3, 4, 4]);
}

#[tokio::test]
async fn a_call_that_is_dropped_takes_no_other_with_it() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    filled(&store).await;
    let audience = Audience::user("user3");
    let read = || store.page(&audience, None, 100, at(6));
    // One that goes alone and stands still, and one that shares a statement.
    let mut first = Box::pin(read());
    begin(first.as_mut());
    begin(pin!(read()));
    let pages = join_all((0..5).map(|_| read())).await;
    assert!(pages.iter().all(|page| page.as_ref().unwrap().len() == 4));
    drop(first);
    assert_eq!(read().await.unwrap().len(), 4);
}

/// Begins a call.
fn begin(call: impl Future) {
    let mut call = pin!(call);
    let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
}

/// A statement that waits for a lock fails soon, for all of its calls.
#[tokio::test]
async fn those_whose_statement_failed_are_read_alone() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let builder = schema.builder().pool_size(2);
    let store = builder.connect(&schema.url).await.unwrap();
    filled(&store).await;
    let users: Vec<_> = (0..5)
        .map(|user| Audience::user(format!("user{user}")))
        .collect();
    let read = || join_all(users.iter().map(|user| store.page(user, None, 100, at(6))));
    // Preparing a statement waits for the lock too.
    for _ in 0..12 {
        read().await;
    }
    let other = client(&schema.url).await;
    let lock = "BEGIN; LOCK TABLE web_push.subscription IN ACCESS EXCLUSIVE MODE";
    let lock = lock.replace("web_push.", &format!("{}.", schema.name));
    other.batch_execute(&lock).await.unwrap();
    let unlock = async {
        sleep(Duration::from_millis(700)).await;
        other.batch_execute("COMMIT").await.unwrap();
    };
    let (pages, ()) = tokio::join!(read(), unlock);
    let numbers: Vec<_> = pages
        .iter()
        .map(|page| page.as_ref().unwrap().len())
        .collect();
    assert_eq!(numbers, [4, 3, 4, 4, 4]);
}
