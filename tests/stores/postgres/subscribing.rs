//! New subscriptions are stored by one statement, which keeps the limits and the numbers.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use tower_web_push::store::{
    NewSubscription, PostgresStore, StoreError, StoreErrorKind, SubscriptionLimits,
    SubscriptionStore as _, Upserted,
};

use super::world::{Schema, at, subscription};

/// Rows of all tables that a subscription is written to, with the kept numbers.
const WRITTEN: &str = "SELECT (SELECT count(*) FROM web_push.subscription) * 1000000 \
     + (SELECT count(*) FROM web_push.subscription_tag) * 10000 \
     + (SELECT sum(number)::bigint FROM web_push.subscription_count) * 100 \
     + (SELECT sum(unproven)::bigint FROM web_push.subscription_count)";
const NUMBERED: &str =
    "SELECT coalesce(sum(number), 0)::bigint FROM web_push.subscription_number WHERE kind =";

fn tagged(number: u32, tags: &[&str]) -> NewSubscription {
    let mut new = subscription(number);
    let tags = tags.iter().map(|tag| tag.parse().unwrap());
    new.tags = Some(tags.collect::<BTreeSet<_>>());
    new
}

async fn put(
    store: &PostgresStore,
    new: &NewSubscription,
    limits: SubscriptionLimits,
) -> Result<Upserted, StoreErrorKind> {
    let upserted = store.upsert(new, &limits, at(0)).await;
    upserted.map_err(|error: StoreError| error.kind())
}

async fn numbered(schema: &Schema, kind: &str) -> i64 {
    schema.number(&format!("{NUMBERED} '{kind}'")).await
}

#[tokio::test]
async fn many_at_the_same_time_are_counted_each_once() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let limits = SubscriptionLimits::default();
    // Each of forty endpoints twice.
    let all = (0..80).map(|number| tagged(number % 40, &["news", "sport"]));
    let all: Vec<_> = all.collect();
    let stored = join_all(all.iter().map(|new| put(&store, new, limits))).await;
    let created =
        |stored: &&Result<_, _>| matches!(stored, Ok(Upserted::Stored { created: true, .. }));
    assert!(stored.iter().all(Result::is_ok), "{stored:?}");
    assert_eq!(stored.iter().filter(created).count(), 40);
    assert_eq!(
        schema.number(WRITTEN).await,
        40_000_000 + 800_000 + 4_000 + 40
    );
    assert_eq!(
        (
            numbered(&schema, "live").await,
            numbered(&schema, "tag").await
        ),
        (40, 80)
    );
}

#[tokio::test]
async fn one_that_a_limit_refuses_leaves_nothing() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let limits = SubscriptionLimits::new(3, 8).with_unproven(2);
    for number in 0..2 {
        put(&store, &tagged(number, &["news"]), limits)
            .await
            .unwrap();
    }
    let full = Err(StoreErrorKind::Full);
    let before = schema.number(WRITTEN).await;
    // The limit of unproven ones.
    assert_eq!(put(&store, &tagged(2, &["news"]), limits).await, full);
    assert_eq!(schema.number(WRITTEN).await, before);
    // One of a principal is none.
    let mut owned = tagged(3, &["news"]);
    owned.principal = Some("alice".into());
    put(&store, &owned, limits).await.unwrap();
    let before = schema.number(WRITTEN).await;
    // The limit of all.
    let mut other = tagged(4, &["news"]);
    other.principal = Some("bob".into());
    assert_eq!(put(&store, &other, limits).await, full);
    assert_eq!(schema.number(WRITTEN).await, before);
    assert_eq!(
        (
            numbered(&schema, "live").await,
            numbered(&schema, "tag").await
        ),
        (3, 3)
    );
    // A known one is updated though there are too many.
    let less = SubscriptionLimits::new(1, 8).with_unproven(1);
    put(&store, &tagged(0, &["sport"]), less).await.unwrap();
    assert_eq!(schema.number(WRITTEN).await, before);
}

/// A principal's row above the limit evicts another one, for which the statement is not enough.
#[tokio::test]
async fn one_above_the_limit_of_its_principal_takes_the_place_of_another() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let limits = SubscriptionLimits::new(100, 4);
    // One above the limit, and many.
    for (principal, numbers) in [("alice", 0..5), ("bob", 10..22)] {
        let owned = numbers.map(|number| {
            let mut new = tagged(number, &["news"]);
            new.principal = Some(principal.into());
            new
        });
        let all: Vec<_> = owned.collect();
        let stored = join_all(all.iter().map(|new| put(&store, new, limits))).await;
        assert!(stored.iter().all(Result::is_ok), "{stored:?}");
        let rows =
            format!("SELECT count(*) FROM web_push.subscription WHERE principal = '{principal}'");
        assert_eq!(schema.number(&rows).await, 4, "{principal}");
    }
    assert_eq!(schema.number(WRITTEN).await, 8_080_800);
    assert_eq!(
        (
            numbered(&schema, "live").await,
            numbered(&schema, "tag").await
        ),
        (8, 8)
    );
}

/// Tags that stay are not written again, and those that go leave no row.
#[tokio::test]
async fn a_known_one_gets_the_tags_that_it_is_given() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let limits = SubscriptionLimits::default();
    let tags = "SELECT count(*) FROM web_push.subscription_tag WHERE tag =";
    let versions = "SELECT xmin::text::bigint FROM web_push.subscription_tag WHERE tag = 'stays'";
    put(&store, &tagged(1, &["goes", "stays"]), limits)
        .await
        .unwrap();
    put(&store, &tagged(2, &["goes", "stays2"]), limits)
        .await
        .unwrap();
    let version = schema.number(versions).await;
    put(&store, &tagged(1, &["comes", "stays"]), limits)
        .await
        .unwrap();
    assert_eq!(schema.number(versions).await, version);
    for (tag, rows) in [("goes", 1), ("stays", 1), ("comes", 1), ("stays2", 1)] {
        assert_eq!(
            schema.number(&format!("{tags} '{tag}'")).await,
            rows,
            "{tag}"
        );
    }
    assert_eq!(numbered(&schema, "tag").await, 4);
    // One whose entry was lost gets it again.
    schema.run("DELETE FROM web_push.subscription_tag").await;
    put(&store, &tagged(1, &["comes", "stays"]), limits)
        .await
        .unwrap();
    assert_eq!(
        schema
            .number("SELECT count(*) FROM web_push.subscription_tag")
            .await,
        2
    );
}
