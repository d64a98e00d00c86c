//! S9, S10, S15 and S17: paging and counting.

use std::collections::BTreeSet;

use super::Handles;
use super::sample::{at, delete, endpoint, key_id, new, of, put, tag, tagged, unknown_id};
use crate::broadcast::{Audience, Principal};
use crate::push_service::PushService;
use crate::store::{
    Change, CountFilter, Failure, LiveCounts, Liveness, NewSubscription, RetireReason,
    SubscriptionRecord, SubscriptionStore,
};
use crate::subscription::{Endpoint, EndpointKey, Subscription};

/// Returns the keys of all pages of `limit` rows. Asserts that all but the last are full.
async fn walk<S: SubscriptionStore + ?Sized>(
    store: &S,
    audience: &Audience,
    limit: usize,
) -> Vec<EndpointKey> {
    let mut keys: Vec<EndpointKey> = Vec::new();
    loop {
        let page = store
            .page(audience, keys.last(), limit, at(0))
            .await
            .unwrap();
        assert!(page.len() <= limit);
        keys.extend(page.iter().map(|row| row.subscription.endpoint().key()));
        if page.len() < limit {
            assert!(keys.is_sorted());
            return keys;
        }
    }
}

fn keys_of(numbers: impl IntoIterator<Item = u32>) -> Vec<EndpointKey> {
    let keys: BTreeSet<_> = numbers.into_iter().map(|n| endpoint(n).key()).collect();
    keys.into_iter().collect()
}

/// S9: every row once, by key, for any page size.
pub async fn s9_a_walk_sees_every_row_once_in_order<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    for number in 0..12 {
        put(store, &new(number), at(0)).await;
    }
    for limit in [1, 4, 5, 12, 100] {
        assert_eq!(walk(store, &Audience::All, limit).await, keys_of(0..12));
    }
    let empty = store.page(&Audience::All, None, 0, at(0)).await.unwrap();
    assert_eq!(empty, []);
}

/// S9: each audience has its own pages.
pub async fn s9_each_audience_is_walked<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let mut ids = Vec::new();
    for number in 0..8 {
        let mut row = new(number);
        if number < 5 {
            row = of("alice", row);
        }
        if number % 2 == 0 {
            row = tagged(&["even", "all"], row);
        }
        ids.push(put(store, &row, at(0)).await.0.id);
    }
    put(store, &tagged(&["odd", "all"], of("bob", new(9))), at(0)).await;
    let some = vec![ids[6], unknown_id(), ids[1], ids[1], ids[3]];
    for (audience, expected) in [
        (Audience::user("alice"), keys_of(0..5)),
        (Audience::user("mallory"), vec![]),
        (Audience::Tag(tag("even")), keys_of([0, 2, 4, 6])),
        (Audience::Tag(tag("all")), keys_of([0, 2, 4, 6, 9])),
        (Audience::Tag(tag("none")), vec![]),
        (Audience::Ids(some), keys_of([1, 3, 6])),
        (Audience::Ids(vec![]), vec![]),
    ] {
        for limit in [1, 2, 100] {
            assert_eq!(
                walk(store, &audience, limit).await,
                expected,
                "{audience:?}"
            );
        }
        let filter = CountFilter::new(audience, Liveness::Live);
        let count = store.count(&filter, at(0)).await.unwrap();
        assert_eq!(count, expected.len() as u64, "{filter:?}");
    }
}

/// Seven rows: live, retired, stale, both, expired, expiring, expired and stale.
async fn in_every_state<S: SubscriptionStore + ?Sized>(store: &S) {
    for number in 0..7 {
        let mut row = tagged(&["a"], of("alice", new(number)));
        let expires = [(4, -1), (5, 1), (6, 0)];
        let expires = expires.iter().find(|(of, _)| *of == number);
        let expires = expires.map(|(_, secs)| at(*secs));
        row.subscription = row.subscription.with_expiration_time(expires);
        put(store, &row, at(-10)).await;
    }
    let retire = |number| Change::Retire {
        key: endpoint(number).key(),
        reason: RetireReason::Gone,
        observed_at: at(-5),
        failure: Failure::default(),
    };
    let stale = |number| Change::Stale {
        key: endpoint(number).key(),
        observed_at: at(-5),
        failure: Failure::default(),
    };
    let changes = [retire(1), stale(2), retire(3), stale(3), stale(6)];
    assert_eq!(store.apply(&changes, at(-5)).await.unwrap(), 5);
}

/// S9: retired, stale and expired rows are in no audience.
pub async fn s9_only_live_rows_are_walked<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    in_every_state(store).await;
    for audience in [
        Audience::All,
        Audience::user("alice"),
        Audience::Tag(tag("a")),
    ] {
        assert_eq!(
            walk(store, &audience, 1).await,
            keys_of([0, 5]),
            "{audience:?}"
        );
    }
}

/// S17: the principal's retired, stale and expired rows too, and no other's.
pub async fn s17_a_principal_owns_rows_in_every_state<S: SubscriptionStore + ?Sized>(
    h: &Handles<S>,
) {
    let store = h.store();
    in_every_state(store).await;
    put(store, &tagged(&["a"], of("bob", new(8))), at(0)).await;
    put(store, &new(9), at(0)).await;
    let alice = Principal::from("alice");
    for limit in [1, 3, 7, 100] {
        let mut rows: Vec<SubscriptionRecord> = Vec::new();
        loop {
            let after = rows.last().map(|row| row.subscription.endpoint().key());
            let page = store.owned_by(&alice, after.as_ref(), limit).await.unwrap();
            assert!(page.len() <= limit);
            let is_last = page.len() < limit;
            rows.extend(page);
            if is_last {
                break;
            }
        }
        let keys = rows.iter().map(|row| row.subscription.endpoint().key());
        assert_eq!(keys.collect::<Vec<_>>(), keys_of(0..7), "{limit}");
        let states =
            |is: fn(&SubscriptionRecord) -> bool| rows.iter().filter(|row| is(row)).count();
        assert_eq!(states(|row| row.retired.is_some()), 2);
        assert_eq!(states(|row| row.stale_since.is_some()), 3);
    }
    let none = store.owned_by(&Principal::from("mallory"), None, 9).await;
    assert_eq!(none.unwrap(), []);
}

/// S9: rows added and removed during a walk do not affect other rows.
pub async fn s9_a_walk_survives_changes<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let order = keys_of(0..20);
    let number = |key: &EndpointKey| (0..20).find(|n| endpoint(*n).key() == *key).unwrap();
    // Every second row exists from the beginning.
    for key in order.iter().step_by(2) {
        put(store, &new(number(key)), at(0)).await;
    }
    let first = store.page(&Audience::All, None, 4, at(0)).await.unwrap();
    let cursor = first[3].subscription.endpoint().key();
    assert_eq!(cursor, order[6]);
    // Before and after the cursor one row is added and one removed, and the cursor's own row is removed.
    let gone = [order[2], order[6], order[8]].map(delete);
    assert_eq!(store.apply(&gone, at(0)).await.unwrap(), 3);
    for key in [order[1], order[9]] {
        put(store, &new(number(&key)), at(0)).await;
    }
    let rest = store
        .page(&Audience::All, Some(&cursor), 100, at(0))
        .await
        .unwrap();
    let rest: Vec<_> = rest
        .iter()
        .map(|row| row.subscription.endpoint().key())
        .collect();
    let expected = [9, 10, 12, 14, 16, 18].map(|place: usize| order[place]);
    assert_eq!(rest, expected);
}

/// S10: rows are counted by state, push service and key.
pub async fn s10_every_filter_counts<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    in_every_state(store).await;
    let fcm = Endpoint::parse("https://fcm.googleapis.com/fcm/send/1").unwrap();
    let other = new(0).subscription;
    let fcm = Subscription::new(fcm, *other.ua_public(), other.auth().clone());
    put(store, &NewSubscription::new(fcm, key_id(2)), at(-10)).await;
    for (audience, liveness, service, key, expected) in [
        (Audience::All, Liveness::Any, None, None, 8),
        (Audience::All, Liveness::Live, None, None, 3),
        (Audience::All, Liveness::Stale, None, None, 2),
        (Audience::All, Liveness::Retired, None, None, 2),
        (Audience::user("alice"), Liveness::Any, None, None, 7),
        (Audience::user("alice"), Liveness::Stale, None, None, 2),
        (Audience::Tag(tag("a")), Liveness::Retired, None, None, 2),
        (Audience::Tag(tag("a")), Liveness::Live, None, None, 2),
        (
            Audience::All,
            Liveness::Live,
            Some(PushService::Fcm),
            None,
            1,
        ),
        (
            Audience::All,
            Liveness::Any,
            Some(PushService::Mozilla),
            None,
            7,
        ),
        (
            Audience::All,
            Liveness::Any,
            Some(PushService::Wns),
            None,
            0,
        ),
        (Audience::All, Liveness::Any, None, Some(2), 1),
        (Audience::All, Liveness::Retired, None, Some(1), 2),
        (
            Audience::All,
            Liveness::Live,
            Some(PushService::Mozilla),
            Some(1),
            2,
        ),
        (
            Audience::All,
            Liveness::Live,
            Some(PushService::Mozilla),
            Some(2),
            0,
        ),
        (
            Audience::user("alice"),
            Liveness::Any,
            Some(PushService::Fcm),
            None,
            0,
        ),
    ] {
        let mut filter = CountFilter::new(audience, liveness);
        filter.push_service = service;
        filter.vapid_key = key.map(key_id);
        assert_eq!(
            store.count(&filter, at(0)).await.unwrap(),
            expected,
            "{filter:?}"
        );
    }
}

/// S15: the live rows by push service and key, including zeros.
pub async fn s15_live_rows_are_counted_in_groups<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let keys = [1, 2, 3].map(key_id);
    let none = store.count_live(&keys, at(0)).await.unwrap();
    assert_eq!(none, LiveCounts::none(&keys));
    in_every_state(store).await;
    for (number, key) in [(1, 2), (2, 2), (3, 4)] {
        let endpoint = format!("https://fcm.googleapis.com/fcm/send/{number}");
        let other = new(0).subscription;
        let fcm = Endpoint::parse(&endpoint).unwrap();
        let fcm = Subscription::new(fcm, *other.ua_public(), other.auth().clone());
        put(store, &NewSubscription::new(fcm, key_id(key)), at(-10)).await;
    }
    let counts = store.count_live(&keys, at(0)).await.unwrap();
    let mut expected = LiveCounts::none(&keys);
    for (service, key, rows) in [
        (PushService::Mozilla, 1, 2),
        (PushService::Fcm, 2, 2),
        (PushService::Fcm, 4, 1),
    ] {
        expected.add(service.as_str(), &key_id(key), rows);
    }
    assert_eq!(counts, expected);
    // Another row has expired by then.
    let later = store.count_live(&keys, at(1)).await.unwrap();
    assert_eq!(later.total(), 4);
    let without = store.count_live(&[], at(0)).await.unwrap();
    assert_eq!(without.by_push_service, counts.by_push_service);
}
