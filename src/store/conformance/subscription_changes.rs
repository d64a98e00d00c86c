//! S11 to S13: what deliveries teach about subscriptions.

use super::Handles;
use super::sample::{at, endpoint, key_id, new, put, row, tag, tagged};
use crate::broadcast::Audience;
use crate::clock::Timestamp;
use crate::store::{Change, RetireReason, Retired, SubscriptionRef, SubscriptionStore};

fn retire(number: u32, observed_at: Timestamp) -> Change {
    Change::Retire {
        key: endpoint(number).key(),
        reason: RetireReason::Gone,
        observed_at,
    }
}

fn stale(number: u32, observed_at: Timestamp) -> Change {
    Change::Stale {
        key: endpoint(number).key(),
        observed_at,
    }
}

/// S11: each change does what it says, in order.
pub async fn s11_changes_are_made_in_order<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let key = endpoint(1).key();
    for number in [1, 2] {
        put(store, &tagged(&["a"], new(number)), at(0)).await;
    }
    let changes = [
        Change::Failed(key),
        Change::Accepted(key),
        Change::Failed(key),
        Change::Failed(key),
        Change::UseVapidKey {
            key,
            vapid_key: key_id(5),
        },
        Change::Delete(endpoint(2).key()),
    ];
    assert_eq!(store.apply(&changes, at(7)).await.unwrap(), 6);
    let changed = row(store, 1).await.unwrap();
    assert_eq!(changed.last_success_at, Some(at(7)));
    assert_eq!(
        (changed.failure_streak, changed.failing_since),
        (2, Some(at(7)))
    );
    assert_eq!(changed.vapid_key, key_id(5));
    assert_eq!((changed.last_seen_at, changed.created_at), (at(0), at(0)));
    assert_eq!(row(store, 2).await, None);
    let page = Audience::Tag(tag("a"));
    let page = store.page(&page, None, 9, at(7)).await.unwrap();
    assert_eq!(page, [changed], "a deleted row leaves no tag behind");
    assert_eq!(store.apply(&[], at(7)).await.unwrap(), 0);
}

/// S11: a row keeps the reason for which it is retired, for every reason there is.
pub async fn s11_every_reason_to_retire_is_kept<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    for (number, reason) in (1..).zip(RetireReason::ALL) {
        put(store, &new(number), at(0)).await;
        let retire = Change::Retire {
            key: endpoint(number).key(),
            reason,
            observed_at: at(1),
        };
        assert_eq!(store.apply(&[retire], at(2)).await.unwrap(), 1);
        let retired = row(store, number).await.unwrap().retired;
        assert_eq!(retired, Some(Retired::new(at(2), reason)));
    }
}

/// S11: what is not there cannot be changed.
pub async fn s11_an_unknown_row_changes_nothing<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let (record, _) = put(store, &new(1), at(0)).await;
    let key = endpoint(2).key();
    let vapid_key = key_id(5);
    let changes = [
        Change::Delete(key),
        retire(2, at(9)),
        stale(2, at(9)),
        Change::Accepted(key),
        Change::Failed(key),
        Change::UseVapidKey { key, vapid_key },
        Change::PurgeRetired { before: at(99) },
    ];
    assert_eq!(store.apply(&changes, at(9)).await.unwrap(), 0);
    assert_eq!(row(store, 1).await, Some(record));
    assert_eq!(row(store, 2).await, None);
}

/// S11: twice is once, later too, but for the failures.
pub async fn s11_applying_twice_is_applying_once<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let key = endpoint(1).key();
    let vapid_key = key_id(5);
    put(store, &new(1), at(0)).await;
    let changes = [
        retire(1, at(1)),
        stale(1, at(1)),
        Change::UseVapidKey { key, vapid_key },
    ];
    assert_eq!(store.apply(&changes, at(2)).await.unwrap(), 3);
    let once = row(store, 1).await.unwrap();
    assert_eq!(once.retired, Some(Retired::new(at(2), RetireReason::Gone)));
    assert!(once.stale);
    store.apply(&changes, at(50)).await.unwrap();
    assert_eq!(
        row(store, 1).await,
        Some(once),
        "the moment is the first one"
    );
    for streak in [1, 2] {
        store.apply(&[Change::Failed(key)], at(3)).await.unwrap();
        let row = row(store, 1).await.unwrap();
        assert_eq!(
            (row.failure_streak, row.failing_since),
            (streak, Some(at(3)))
        );
    }
}

/// S11: failures count from the first one since an acceptance or a post.
pub async fn s11_failures_count_from_their_first<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let (record, _) = put(store, &new(1), at(0)).await;
    let key = record.subscription.endpoint().key();
    let failures = async || {
        let row = row(store, 1).await.unwrap();
        (row.failure_streak, row.failing_since)
    };
    assert_eq!(failures().await, (0, None));
    for secs in [5, 9] {
        store.apply(&[Change::Failed(key)], at(secs)).await.unwrap();
    }
    assert_eq!(failures().await, (2, Some(at(5))));
    store.apply(&[Change::Accepted(key)], at(11)).await.unwrap();
    assert_eq!(failures().await, (0, None));
    store.apply(&[Change::Failed(key)], at(13)).await.unwrap();
    assert_eq!(failures().await, (1, Some(at(13))));
    put(store, &new(1), at(20)).await;
    assert_eq!(failures().await, (0, None), "its page posted it");
}

/// S12: a row that was seen after the observation began is left alone.
pub async fn s12_an_observation_can_be_out_of_date<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    put(store, &new(1), at(0)).await;
    let (record, _) = put(store, &new(1), at(10)).await;
    let late = [retire(1, at(9)), stale(1, at(9))];
    assert_eq!(store.apply(&late, at(11)).await.unwrap(), 0);
    assert_eq!(row(store, 1).await, Some(record));
    let same = [stale(1, at(10)), retire(1, at(10))];
    assert_eq!(store.apply(&same, at(11)).await.unwrap(), 2);
    let changed = row(store, 1).await.unwrap();
    assert_eq!(changed.retired.map(|retired| retired.at), Some(at(11)));
    assert!(changed.stale);
}

/// S13: the purge takes what was retired before, and nothing else.
pub async fn s13_only_rows_retired_before_are_purged<S: SubscriptionStore + ?Sized>(
    h: &Handles<S>,
) {
    let store = h.store();
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(put(store, &tagged(&["a"], new(number)), at(0)).await.0.id);
    }
    store.apply(&[retire(0, at(1))], at(10)).await.unwrap();
    store.apply(&[retire(1, at(1))], at(11)).await.unwrap();
    store.apply(&[retire(2, at(1))], at(10)).await.unwrap();
    store.apply(&[stale(3, at(1))], at(1)).await.unwrap();
    // Who came back is not retired any more.
    put(store, &new(2), at(12)).await;
    let purge = [Change::PurgeRetired { before: at(11) }];
    assert_eq!(store.apply(&purge, at(99)).await.unwrap(), 1);
    let ids: Vec<_> = ids.into_iter().map(SubscriptionRef::Id).collect();
    let left = store.get(&ids).await.unwrap();
    let left: Vec<_> = left.iter().map(Option::is_some).collect();
    assert_eq!(left, [false, true, true, true, true]);
}
