//! S20: lists of subscriptions.

use super::Handles;
use super::sample::{at, endpoint, new, of, put, tag, tagged};
use crate::broadcast::Principal;
use crate::clock::Timestamp;
use crate::push_service::PushService;
use crate::store::rules::lists;
use crate::store::{
    Change, Failure, Liveness, RetireReason, STEP, SubscriptionFilter, SubscriptionRecord,
    SubscriptionStore,
};
use crate::subscription::{EndpointKey, Subscription};

fn retire(number: u32) -> Change {
    Change::Retire {
        key: endpoint(number).key(),
        reason: RetireReason::Gone,
        observed_at: at(1),
        failure: Failure::new(Some(410), None),
    }
}

fn stale(number: u32) -> Change {
    Change::Stale {
        key: endpoint(number).key(),
        observed_at: at(1),
        failure: Failure::default(),
    }
}

fn keys(rows: &[SubscriptionRecord]) -> Vec<EndpointKey> {
    rows.iter()
        .map(|row| row.subscription.endpoint().key())
        .collect()
}

/// Walks a list in pages.
async fn walk<S: SubscriptionStore + ?Sized>(
    store: &S,
    filter: &SubscriptionFilter,
    limit: usize,
    now: Timestamp,
) -> Vec<SubscriptionRecord> {
    let (mut found, mut pages, mut after) = (Vec::new(), 0, None);
    loop {
        let page = store.list_subscriptions(filter, after.as_ref(), limit, now);
        let page = page.await.unwrap();
        assert!(page.rows.len() <= limit);
        found.extend(page.rows);
        pages += 1;
        assert!(pages < 1_000, "a list without an end");
        let Some(next) = page.next else {
            return found;
        };
        assert!(after.is_none_or(|after| next > after), "it moves on");
        after = Some(next);
    }
}

/// S20: each filter lists its rows in every state, once and by key.
pub async fn s20_every_filter_lists<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    assert_eq!(
        walk(store, &SubscriptionFilter::default(), 9, at(0)).await,
        []
    );
    let mut all = Vec::new();
    for number in 0..24 {
        let mut row = new(number);
        if number % 2 == 0 {
            row = of("alice", row);
        }
        if number % 3 == 0 {
            row = tagged(&["a", "b"], row);
        }
        if number % 4 == 0 {
            let subscription: &Subscription = &row.subscription;
            row.subscription = subscription.clone().with_expiration_time(Some(at(5)));
        }
        all.push(put(store, &row, at(0)).await.0);
    }
    let changes: Vec<_> = (0..24)
        .filter_map(|number| match number % 6 {
            1 | 2 => Some(vec![retire(number)]),
            3 => Some(vec![stale(number)]),
            4 => Some(vec![stale(number), retire(number)]),
            _ => None,
        })
        .flatten()
        .collect();
    store.apply(&changes, at(2)).await.unwrap();
    // One is back among the live ones.
    put(store, &new(1), at(3)).await;
    let refs = all.iter().map(|row| row.id.into()).collect::<Vec<_>>();
    let rows = store.get(&refs).await.unwrap();
    let mut rows: Vec<_> = rows.into_iter().flatten().collect();
    rows.sort_by_key(|row| row.subscription.endpoint().key());
    assert_eq!(rows.len(), 24);

    let mut listed = 0;
    for user in [None, Some(Principal::from("alice")), Some("mallory".into())] {
        for tag in [None, Some(tag("a")), Some(tag("c"))] {
            for push_service in [None, Some(PushService::Mozilla), Some(PushService::Fcm)] {
                for liveness in [
                    Liveness::Any,
                    Liveness::Live,
                    Liveness::Stale,
                    Liveness::Retired,
                ] {
                    let (user, tag) = (user.clone(), tag.clone());
                    let filter = SubscriptionFilter {
                        user,
                        tag,
                        push_service,
                        liveness,
                    };
                    let expected = rows.iter().filter(|row| lists(&filter, row, at(6)));
                    let expected: Vec<_> = expected.cloned().collect();
                    for limit in [1, 5, 99] {
                        let found = walk(store, &filter, limit, at(6)).await;
                        assert_eq!(keys(&found), keys(&expected), "{filter:?}");
                        assert_eq!(found, expected);
                    }
                    listed += expected.len();
                }
            }
        }
    }
    assert!(listed > 100, "{listed}");
}

/// S20: a row that is added, removed or changed meanwhile moves no other.
pub async fn s20_a_list_survives_changes<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    for number in 0..20 {
        put(store, &new(number), at(0)).await;
    }
    let all = SubscriptionFilter::default();
    let before = keys(&walk(store, &all, 99, at(1)).await);
    let first = store.list_subscriptions(&all, None, 10, at(1)).await;
    let first = first.unwrap();
    assert_eq!(first.next, Some(before[9]));
    for number in 0..10 {
        let change = match number % 2 {
            0 => retire(number),
            _ => super::sample::delete(endpoint(number).key()),
        };
        store.apply(&[change], at(2)).await.unwrap();
        put(store, &new(100 + number), at(2)).await;
    }
    let deleted: Vec<_> = (0..10).filter(|number| number % 2 == 1).collect();
    let is_deleted = |key: &&EndpointKey| deleted.iter().any(|of| endpoint(*of).key() == **key);
    let mut after = first.next;
    let mut rest = Vec::new();
    while let Some(next) = after {
        let page = store.list_subscriptions(&all, Some(&next), 3, at(3)).await;
        let page = page.unwrap();
        rest.extend(keys(&page.rows));
        after = page.next;
    }
    let of_old: Vec<_> = rest.iter().filter(|key| before.contains(key)).collect();
    let expected: Vec<_> = before[10..].iter().filter(|key| !is_deleted(key)).collect();
    assert_eq!(of_old, expected);
}

/// S20: where few rows match, a call looks at a bounded number, and the list goes on.
pub async fn s20_few_among_many_are_listed_in_steps<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let last = u32::try_from(STEP + 20).unwrap();
    for number in 0..last {
        put(store, &new(number), at(0)).await;
    }
    let changes: Vec<_> = (0..last).step_by(200).map(retire).collect();
    store.apply(&changes, at(2)).await.unwrap();
    let none = SubscriptionFilter {
        push_service: Some(PushService::Wns),
        ..SubscriptionFilter::default()
    };
    assert_eq!(walk(store, &none, 9, at(3)).await, []);
    let retired = SubscriptionFilter {
        liveness: Liveness::Retired,
        ..SubscriptionFilter::default()
    };
    assert_eq!(walk(store, &retired, 4, at(3)).await.len(), changes.len());
}
