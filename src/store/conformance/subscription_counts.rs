//! S10: counts after changes, for stores that keep numbers.

use super::Handles;
use super::sample::{at, delete, endpoint, key_id, new, of, put, tag, tagged};
use crate::broadcast::Audience;
use crate::store::{
    Change, CountFilter, Failure, Liveness, NewSubscription, RetireReason, SubscriptionLimits,
    SubscriptionStore,
};

/// The counts of all live rows, of those of key 1, of those with the tags `a` and `b`, and of all stale and retired rows.
async fn counts<S: SubscriptionStore + ?Sized>(store: &S, secs: i64) -> [u64; 6] {
    let tagged = |text| Audience::Tag(tag(text));
    let mut of_key = CountFilter::new(Audience::All, Liveness::Live);
    of_key.vapid_key = Some(key_id(1));
    let filters = [
        CountFilter::new(Audience::All, Liveness::Live),
        of_key,
        CountFilter::new(tagged("a"), Liveness::Live),
        CountFilter::new(tagged("b"), Liveness::Live),
        CountFilter::new(Audience::All, Liveness::Stale),
        CountFilter::new(Audience::All, Liveness::Retired),
    ];
    let mut counts = [0; 6];
    for (count, filter) in counts.iter_mut().zip(filters) {
        *count = store.count(&filter, at(secs)).await.unwrap();
    }
    counts
}

fn retire(number: u32) -> Change {
    Change::Retire {
        key: endpoint(number).key(),
        reason: RetireReason::Gone,
        observed_at: at(60),
        failure: Failure::default(),
    }
}

fn stale(number: u32) -> Change {
    Change::Stale {
        key: endpoint(number).key(),
        observed_at: at(60),
        failure: Failure::default(),
    }
}

/// S10: no change leaves a count behind.
pub async fn s10_counts_follow_every_change<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let change = async |changes: &[Change], changed, secs| {
        let done = store.apply(changes, at(secs)).await.unwrap();
        assert_eq!(done, changed, "{changes:?}");
        counts(store, secs).await
    };
    assert_eq!(counts(store, 0).await, [0; 6]);
    let row = |number, tags: &[&str]| tagged(tags, of("alice", new(number)));
    put(store, &row(1, &["a", "b"]), at(1)).await;
    put(store, &row(2, &["a"]), at(2)).await;
    put(store, &row(3, &[]), at(3)).await;
    assert_eq!(counts(store, 3).await, [3, 3, 2, 1, 0, 0]);
    // The same row again, with other tags, and one with another key.
    put(store, &row(1, &["b"]), at(4)).await;
    let mut other = row(2, &["a", "b"]);
    other.vapid_key = Some(key_id(2));
    put(store, &other, at(5)).await;
    assert_eq!(counts(store, 5).await, [3, 2, 1, 2, 0, 0]);
    let moved = Change::UseVapidKey {
        key: endpoint(2).key(),
        vapid_key: key_id(1),
    };
    assert_eq!(change(&[moved], 1, 6).await, [3, 3, 1, 2, 0, 0]);
    // It expires by itself, and not for ever.
    let mut expiring = row(2, &["a", "b"]);
    expiring.subscription = expiring.subscription.with_expiration_time(Some(at(8)));
    put(store, &expiring, at(7)).await;
    assert_eq!(counts(store, 7).await, [3, 3, 1, 2, 0, 0]);
    assert_eq!(counts(store, 8).await, [2, 2, 0, 1, 0, 0]);
    assert_eq!(change(&[retire(2)], 1, 8).await, [2, 2, 0, 1, 0, 1]);
    put(store, &row(2, &["a"]), at(9)).await;
    assert_eq!(counts(store, 9).await, [3, 3, 1, 1, 0, 0]);
    // A retired row may become stale too: it counts as retired.
    let both = [stale(1), retire(1), retire(2), stale(2)];
    assert_eq!(change(&both, 4, 50).await, [1, 1, 0, 0, 0, 2]);
    assert_eq!(change(&[stale(3)], 1, 50).await, [0, 0, 0, 0, 1, 2]);
    for number in [1, 3] {
        put(store, &row(number, &["b"]), at(51)).await;
    }
    assert_eq!(counts(store, 51).await, [2, 2, 0, 2, 0, 1]);
    // One takes over another, and one makes room.
    let mut replacing: NewSubscription = new(4);
    replacing.replaces = Some(endpoint(1).key());
    put(store, &replacing, at(52)).await;
    assert_eq!(counts(store, 52).await, [2, 2, 0, 2, 0, 1]);
    let limits = SubscriptionLimits::new(10, 3);
    let fifth = row(5, &["a"]);
    store.upsert(&fifth, &limits, at(53)).await.unwrap();
    assert_eq!(counts(store, 53).await, [3, 3, 1, 2, 0, 0]);
    // In one call, and of a row that is gone already.
    let gone = Change::Delete {
        key: endpoint(4).key(),
        principal: Some("alice".into()),
        observed_at: at(60),
    };
    let purge = Change::Purge {
        before: at(60),
        expired_before: at(60),
    };
    let all = [retire(3), gone.clone(), purge, gone, stale(5)];
    let done = store.apply(&all, at(54)).await.unwrap();
    assert_eq!(done, 4);
    assert_eq!(counts(store, 54).await, [0, 0, 0, 0, 1, 0]);
}

/// S10: no concurrent change is lost or counted twice.
pub async fn s10_concurrent_changes_are_all_counted<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    h.race(48, |store, number| async move {
        let number = u32::try_from(number).unwrap();
        put(&*store, &tagged(&["a"], new(number % 24)), at(1)).await;
        let key = endpoint(number % 24).key();
        let change = match number % 3 {
            0 => Change::Retire {
                key,
                reason: RetireReason::Gone,
                observed_at: at(1),
                failure: Failure::default(),
            },
            1 => Change::Stale {
                key,
                observed_at: at(1),
                failure: Failure::default(),
            },
            _ => delete(key),
        };
        store.apply(&[change], at(2)).await.unwrap();
    })
    .await;
    let store = h.store();
    let mut rows = [0; 3];
    for number in 0..24 {
        if let Some(row) = super::sample::row(store, number).await {
            let state = match (row.retired, row.stale_since) {
                (Some(_), _) => 2,
                (None, Some(_)) => 1,
                (None, None) => 0,
            };
            rows[state] += 1;
        }
    }
    let [live, stale, retired] = rows;
    assert_eq!(
        counts(store, 2).await,
        [live, live, live, 0, stale, retired]
    );
}
