use std::sync::Arc;

use serde_json::{Value, json};
use tower_web_push::broadcast::Tag;
use tower_web_push::store::{ScheduleStore as _, StoreErrorKind};

use super::{Answer, World, news, with};
use crate::support::tampered_store::TamperedStore;

async fn world() -> World {
    World::with_api(|s| s.public_tags([Tag::parse("news").unwrap()])).await
}

/// A row with everything that can move.
async fn old(world: &World) -> (Value, Answer) {
    let (_, json) = world.browser();
    let everything = with(
        &json,
        json!({"tags": news(), "notifyTime": {"utcHour": 8, "minute": 0}}),
    );
    let answer = world.post_as("alice", "/subscribe", &everything).await;
    assert_eq!(answer.status, 200);
    (json, answer)
}

fn renewal(old: &Value, old_auth: &Value, new: &Value) -> Value {
    json!({"oldEndpoint": old["endpoint"], "oldAuth": old_auth, "subscription": new})
}

#[tokio::test]
async fn a_caller_with_the_old_secret_keeps_everything() {
    let world = world().await;
    let (old, before) = old(&world).await;
    let (_, new) = world.browser();
    let answer = world
        .post("/renew", &renewal(&old, &old["keys"]["auth"], &new))
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.id(), before.id());
    assert!(world.row(&old).await.is_none());
    let row = world.row(&new).await.unwrap();
    assert_eq!(row.principal, Some("alice".into()));
    assert_eq!(row.tags.len(), 1);
    assert_eq!(world.store.schedules(Some(row.id)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_owner_keeps_everything_without_the_secret() {
    let world = world().await;
    let (old, before) = old(&world).await;
    let (_, new) = world.browser();
    let body = renewal(&old, &Value::Null, &new);
    assert_eq!(
        world.post_as("alice", "/renew", &body).await.id(),
        before.id()
    );
}

#[tokio::test]
async fn other_callers_subscribe_and_are_not_told() {
    let world = world().await;
    let (old, before) = old(&world).await;
    let (_, proof) = world.browser();
    let moved = {
        let (_, other) = world.browser();
        world.post("/subscribe", &other).await;
        let (_, new) = world.browser();
        world
            .post("/renew", &renewal(&other, &other["keys"]["auth"], &new))
            .await
    };
    for auth in [&Value::Null, &proof["keys"]["auth"]] {
        for principal in [None, Some("bob")] {
            let (_, new) = world.browser();
            let body = renewal(&old, auth, &new);
            let answer = match principal {
                None => world.post("/renew", &body).await,
                Some(name) => world.post_as(name, "/renew", &body).await,
            };
            assert_eq!(answer.status, 200);
            assert_ne!(answer.id(), before.id());
            let same = |answer: &Answer| with(&answer.json(), json!({"id": null}));
            assert_eq!(same(&answer), same(&moved));
            assert!(world.row(&old).await.is_some(), "the old row is left alone");
            assert!(world.row(&new).await.unwrap().tags.is_empty());
        }
    }
}

#[tokio::test]
async fn an_unknown_old_endpoint_is_a_plain_subscribe() {
    let world = world().await;
    let (_, old) = world.browser();
    let (_, new) = world.browser();
    let answer = world
        .post("/renew", &renewal(&old, &old["keys"]["auth"], &new))
        .await;
    assert_eq!(
        (answer.status, &answer.json()["created"]),
        (200, &json!(true))
    );
    let same = world
        .post("/renew", &renewal(&new, &new["keys"]["auth"], &new))
        .await;
    assert_eq!(same.id(), answer.id());
    let (_, newer) = world.browser();
    let forgotten = json!({"oldEndpoint": null, "subscription": newer});
    assert_eq!(world.post("/renew", &forgotten).await.status, 200);
}

#[tokio::test]
async fn two_rows_become_one_with_the_schedules_of_both() {
    let world = world().await;
    let (old, before) = old(&world).await;
    let (_, new) = world.browser();
    let direct =
        json!({"notifyTime": {"utcHour": 9, "minute": 0}, "notifyType": "DIRECT_NOTIFICATION"});
    let superseded = world.post("/subscribe", &with(&new, direct)).await.id();
    let answer = world
        .post("/renew", &renewal(&old, &old["keys"]["auth"], &new))
        .await;
    assert_eq!(answer.id(), before.id());
    assert_eq!(
        world
            .store
            .schedules(Some(before.id()))
            .await
            .unwrap()
            .len(),
        2
    );
    assert!(
        world
            .store
            .schedules(Some(superseded))
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(world.count().await, 1);
}

/// Their subscription is gone by then, and nothing tells whose they were.
#[tokio::test]
async fn a_renewal_that_is_repeated_after_a_failure_keeps_the_schedules_of_both() {
    for fails in ["move_schedules", "upsert", "put_schedule", "schedules"] {
        let tampered = Arc::new(TamperedStore::default());
        let world = World {
            store: Arc::new(tampered.memory.clone()),
            ..World::made(
                |builder| builder.store(Arc::clone(&tampered)),
                |s| s.public_tags([Tag::parse("news").unwrap()]),
            )
            .await
        };
        let (old, before) = old(&world).await;
        let (_, new) = world.browser();
        let direct =
            json!({"notifyTime": {"utcHour": 9, "minute": 0}, "notifyType": "DIRECT_NOTIFICATION"});
        assert_eq!(
            world.post("/subscribe", &with(&new, direct)).await.status,
            200
        );
        let body = renewal(&old, &old["keys"]["auth"], &new);
        tampered.fail(fails);
        assert_eq!(world.post("/renew", &body).await.status, 503, "{fails}");
        tampered.fail(None);
        assert_eq!(world.post("/renew", &body).await.id(), before.id());
        let schedules = world.store.schedules(Some(before.id())).await.unwrap();
        assert_eq!(schedules.len(), 2, "{fails}");
    }
}

/// They are moved without being read.
#[tokio::test]
async fn schedules_that_cannot_be_read_keep_no_renewal_from_being_stored() {
    let tampered = Arc::new(TamperedStore::default());
    let world = World {
        store: Arc::new(tampered.memory.clone()),
        ..World::made(
            |builder| builder.store(Arc::clone(&tampered)),
            |s| s.public_tags([Tag::parse("news").unwrap()]),
        )
        .await
    };
    let (old, before) = old(&world).await;
    let (_, new) = world.browser();
    let direct =
        json!({"notifyTime": {"utcHour": 9, "minute": 0}, "notifyType": "DIRECT_NOTIFICATION"});
    let body = with(&new, direct);
    assert_eq!(world.post("/subscribe", &body).await.status, 200);
    tampered.fail_as(StoreErrorKind::Corrupt, "schedules");
    let body = renewal(&old, &old["keys"]["auth"], &new);
    assert_eq!(world.post("/renew", &body).await.id(), before.id());
    let schedules = world.store.schedules(Some(before.id())).await.unwrap();
    assert_eq!(schedules.len(), 2);
}

#[tokio::test]
async fn a_renewal_that_is_refused_moves_no_schedule() {
    let world = world().await;
    let (old, before) = old(&world).await;
    let (_, new) = world.browser();
    let direct =
        json!({"notifyTime": {"utcHour": 9, "minute": 0}, "notifyType": "DIRECT_NOTIFICATION"});
    let theirs = world
        .post_as("bob", "/subscribe", &with(&new, direct))
        .await;
    let (_, other) = world.browser();
    let keys = with(&new, json!({"keys": other["keys"]}));
    let body = renewal(&old, &old["keys"]["auth"], &keys);
    let answer = world.post_as("alice", "/renew", &body).await;
    answer.is(409, "subscription_conflict");
    for id in [before.id(), theirs.id()] {
        assert_eq!(world.store.schedules(Some(id)).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_malformed_renewal_changes_nothing() {
    let world = world().await;
    let (old, _) = old(&world).await;
    let (_, new) = world.browser();
    let good = renewal(&old, &old["keys"]["auth"], &new);
    for (members, code) in [
        (json!({"oldEndpoint": null}), "missing_endpoint"),
        (json!({"oldEndpoint": ""}), "missing_endpoint"),
        (json!({"oldEndpoint": 1}), "invalid_member"),
        (json!({"oldEndpoint": "x"}), "invalid_endpoint"),
        (json!({"oldAuth": 1}), "invalid_member"),
        (json!({"oldAuth": "AAAA"}), "invalid_auth"),
        (json!({"subscription": null}), "missing_endpoint"),
        (json!({"subscription": "x"}), "invalid_member"),
        (json!({"subscription": {}}), "missing_endpoint"),
        (
            json!({"subscription": {"endpoint": new["endpoint"]}}),
            "missing_keys",
        ),
    ] {
        world
            .post("/renew", &with(&good, members))
            .await
            .is(400, code);
        assert!(world.row(&new).await.is_none() && world.row(&old).await.is_some());
    }
}
