//! A registration whose schedule cannot be stored: a refused request leaves nothing and deletes nothing.

use std::sync::Arc;

use serde_json::{Value, json};
use tower_web_push::broadcast::Tag;
use tower_web_push::schedule::Schedule;
use tower_web_push::store::{DeliveryLedger as _, ScheduleStore as _, SubscriptionRecord};

use super::{Answer, World, news, with};
use crate::support::tampered_store::TamperedStore;

/// A world with a store that fails on demand, and the memory store beneath it.
async fn world() -> (World, Arc<TamperedStore>) {
    let rows = tower_web_push::store::MemoryStore::new();
    let store = Arc::new(TamperedStore::over(&rows));
    let news = Tag::parse("news").unwrap();
    let mut world = World::made(
        |builder| builder.store(Arc::clone(&store)),
        |settings| settings.public_tags([news]),
    )
    .await;
    world.store = Arc::new(rows);
    (world, store)
}

/// A row with everything that can be lost.
async fn everything(world: &World, owner: Option<&str>) -> Value {
    let (_, json) = world.browser();
    let time = json!({"utcHour": 8, "minute": 0});
    let body = with(&json, json!({"tags": news(), "notifyTime": time}));
    assert_eq!(post(world, owner, "/subscribe", &body).await.status, 200);
    json
}

async fn post(world: &World, caller: Option<&str>, path: &str, body: &Value) -> Answer {
    match caller {
        Some(caller) => world.post_as(caller, path, body).await,
        None => world.post(path, body).await,
    }
}

/// The subscription with a time and a type that are not stored yet.
fn another_time(json: &Value) -> Value {
    let time = json!({"utcHour": 20, "minute": 0});
    let members = json!({"notifyTime": time, "notifyType": "DIRECT_NOTIFICATION"});
    with(json, members)
}

async fn schedules(world: &World, of: &SubscriptionRecord) -> Vec<Schedule> {
    world.store.schedules(Some(of.id)).await.unwrap()
}

#[tokio::test]
async fn a_new_row_is_not_stored_without_its_schedule() {
    let (world, store) = world().await;
    let (_, json) = world.browser();
    store.fail("put_schedule");
    for path in ["/subscribe", "/renew"] {
        let body = match path {
            "/renew" => json!({"oldEndpoint": null, "subscription": another_time(&json)}),
            _ => another_time(&json),
        };
        let refused = world.post(path, &body).await;
        refused.is(503, "store_unavailable");
        assert_eq!(world.count().await, 0, "{path}");
    }
    let now = tower_web_push::clock::Clock::now(&world.clock);
    let underway = world.store.underway(9, now).await.unwrap();
    assert!(underway.is_empty(), "no confirmation is sent");
    store.fail(None);
    assert_eq!(
        world.post("/subscribe", &another_time(&json)).await.status,
        200
    );
}

#[tokio::test]
async fn a_row_that_was_there_before_stays_with_its_schedules() {
    for owner in [None, Some("alice")] {
        let (world, store) = world().await;
        let json = everything(&world, owner).await;
        let before = world.row(&json).await.unwrap();
        let scheduled = schedules(&world, &before).await;
        store.fail("put_schedule");
        let refused = post(&world, owner, "/subscribe", &another_time(&json)).await;
        refused.is(503, "store_unavailable");
        assert_eq!(world.row(&json).await.unwrap(), before, "{owner:?}");
        assert_eq!(schedules(&world, &before).await, scheduled);
    }
}

#[tokio::test]
async fn a_row_that_moved_to_a_new_endpoint_stays_with_all_that_moved() {
    for owner in [None, Some("alice")] {
        let (world, store) = world().await;
        let old = everything(&world, owner).await;
        let before = world.row(&old).await.unwrap();
        let scheduled = schedules(&world, &before).await;
        let (_, new) = world.browser();
        let auth = &old["keys"]["auth"];
        let body = json!({"oldEndpoint": old["endpoint"], "oldAuth": auth, "subscription": another_time(&new)});
        store.fail("put_schedule");
        let refused = post(&world, owner, "/renew", &body).await;
        refused.is(503, "store_unavailable");
        // Its tags and its owner would be lost for good: the page does not know them.
        let row = world.row(&new).await.expect("it was there before");
        assert_eq!((row.id, &row.principal), (before.id, &before.principal));
        assert_eq!(row.tags, before.tags);
        assert_eq!(schedules(&world, &row).await, scheduled);
        assert_eq!(world.count().await, 1);
        // A repetition is not a renewal any more, and has the same result.
        store.fail(None);
        assert_eq!(post(&world, owner, "/renew", &body).await.id(), before.id);
        assert_eq!(schedules(&world, &row).await.len(), 2);
    }
}

#[tokio::test]
async fn two_rows_that_became_one_stay_one() {
    let (world, store) = world().await;
    let (old, new) = (
        everything(&world, None).await,
        everything(&world, None).await,
    );
    let before = world.row(&old).await.unwrap();
    let auth = &old["keys"]["auth"];
    let body = json!({"oldEndpoint": old["endpoint"], "oldAuth": auth, "subscription": another_time(&new)});
    store.fail("put_schedule");
    world
        .post("/renew", &body)
        .await
        .is(503, "store_unavailable");
    assert_eq!(world.row(&new).await.unwrap().id, before.id);
    assert_eq!(world.count().await, 1);
}
