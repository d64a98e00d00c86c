//! The kept numbers of subscriptions: one that has become zero is no row any more.

use std::collections::BTreeSet;

use tower_web_push::store::{Change, SubscriptionLimits, SubscriptionRef, SubscriptionStore as _};

use super::world::{Schema, at, subscription};

/// Tags have their names from applications: without this there would be a row of each that was ever used.
#[tokio::test]
async fn a_tag_that_no_subscription_has_leaves_no_number() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let numbers = "SELECT count(*) FROM web_push.subscription_number";
    let limits = SubscriptionLimits::default();
    let tagged = |number: u32, tags: &[String]| {
        let mut new = subscription(number);
        let tags = tags.iter().map(|tag| tag.parse().unwrap());
        new.tags = Some(tags.collect::<BTreeSet<_>>());
        new
    };
    for number in 0..3 {
        let tags = ["news".to_owned(), format!("tag{number}")];
        let new = tagged(number, &tags);
        store.upsert(&new, &limits, at(0)).await.unwrap();
    }
    assert!(schema.number(numbers).await >= 4);
    // Its tags are replaced.
    let of_tag = "SELECT count(*) FROM web_push.subscription_number WHERE name = 'tag0'";
    assert_eq!(schema.number(of_tag).await, 1);
    let other = tagged(0, &["other".to_owned()]);
    store.upsert(&other, &limits, at(1)).await.unwrap();
    assert_eq!(schema.number(of_tag).await, 0);
    for number in 0..3 {
        let key = subscription(number).subscription.endpoint().key();
        let row = store.get(&[SubscriptionRef::Key(key)]).await.unwrap();
        let gone = Change::delete(row[0].as_ref().unwrap());
        store.apply(&[gone], at(2)).await.unwrap();
    }
    assert_eq!(schema.number(numbers).await, 0);
}
