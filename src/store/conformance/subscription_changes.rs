//! S11 to S13, S18: changes to subscriptions.

use super::Handles;
use super::sample::{at, delete, endpoint, key_id, new, of, purge, put, rekeyed, row, tag, tagged};
use crate::broadcast::Audience;
use crate::clock::Timestamp;
use crate::push_service::PushService;
use crate::store::{
    Change, CountFilter, Failure, LastFailure, Liveness, NewSubscription, ReasonWord, RetireReason,
    Retired, STEP, SubscriptionLimits, SubscriptionRef, SubscriptionStore,
};

fn retire(number: u32, observed_at: Timestamp) -> Change {
    Change::Retire {
        key: endpoint(number).key(),
        reason: RetireReason::Gone,
        observed_at,
        failure: Failure::default(),
    }
}

fn stale(number: u32, observed_at: Timestamp) -> Change {
    Change::Stale {
        key: endpoint(number).key(),
        observed_at,
        failure: Failure::default(),
    }
}

/// S11: changes are applied in order.
pub async fn s11_changes_are_made_in_order<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let key = endpoint(1).key();
    for number in [1, 2] {
        put(store, &tagged(&["a"], new(number)), at(0)).await;
    }
    let changes = [
        Change::Failed {
            key,
            failure: Failure::default(),
        },
        Change::Accepted(key),
        Change::Failed {
            key,
            failure: Failure::default(),
        },
        Change::Failed {
            key,
            failure: Failure::default(),
        },
        Change::UseVapidKey {
            key,
            vapid_key: key_id(5),
        },
        delete(endpoint(2).key()),
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

/// S11: a retired row keeps its reason, for every reason.
pub async fn s11_every_reason_to_retire_is_kept<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    for (number, &reason) in (1..).zip(RetireReason::ALL) {
        put(store, &new(number), at(0)).await;
        let retire = Change::Retire {
            key: endpoint(number).key(),
            reason,
            observed_at: at(1),
            failure: Failure::default(),
        };
        assert_eq!(store.apply(&[retire], at(2)).await.unwrap(), 1);
        let retired = row(store, number).await.unwrap().retired;
        assert_eq!(retired, Some(Retired::new(at(2), reason)));
    }
}

/// S11: unknown rows are not changed.
pub async fn s11_an_unknown_row_changes_nothing<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let (record, _) = put(store, &new(1), at(0)).await;
    let key = endpoint(2).key();
    let vapid_key = key_id(5);
    let changes = [
        delete(key),
        retire(2, at(9)),
        stale(2, at(9)),
        Change::Accepted(key),
        Change::Failed {
            key,
            failure: Failure::default(),
        },
        Change::UseVapidKey { key, vapid_key },
        purge(99),
    ];
    assert_eq!(store.apply(&changes, at(9)).await.unwrap(), 0);
    assert_eq!(row(store, 1).await, Some(record));
    assert_eq!(row(store, 2).await, None);
}

/// S18: a row that has changed hands since it was read is not deleted.
pub async fn s18_a_row_that_changed_hands_is_not_deleted<S>(h: &Handles<S>)
where
    S: SubscriptionStore + ?Sized,
{
    let store = h.store();
    let (alone, owned) = (new(1), of("alice", new(2)));
    let (alone, _) = put(store, &alone, at(10)).await;
    let (owned, _) = put(store, &owned, at(10)).await;
    let delete = |number: u32, principal: Option<&str>, observed_at| Change::Delete {
        key: endpoint(number).key(),
        principal: principal.map(Into::into),
        observed_at,
    };
    for other in [
        // Of another principal, or of none.
        delete(1, Some("alice"), Timestamp::MAX),
        delete(1, Some(""), Timestamp::MAX),
        delete(2, Some("alicia"), Timestamp::MAX),
        delete(2, None, Timestamp::MAX),
        // Registered again since.
        delete(1, None, at(9)),
        delete(2, Some("alice"), at(9)),
    ] {
        let changed = store.apply(std::slice::from_ref(&other), at(20)).await;
        assert_eq!(changed.unwrap(), 0, "{other:?}");
    }
    assert_eq!(row(store, 1).await.as_ref(), Some(&alone));
    assert_eq!(row(store, 2).await.as_ref(), Some(&owned));
    // Beside others in one call.
    let some = [delete(2, None, at(10)), delete(1, None, at(10))];
    assert_eq!(h.second().apply(&some, at(20)).await.unwrap(), 1);
    assert_eq!(row(store, 1).await, None);
    let (again, _) = put(store, &of("bob", new(2)), at(15)).await;
    assert_eq!(
        store
            .apply(&[Change::delete(&owned)], at(20))
            .await
            .unwrap(),
        0
    );
    let twice = [Change::delete(&again), Change::delete(&again)];
    assert_eq!(store.apply(&twice, at(20)).await.unwrap(), 1);
    assert_eq!(row(store, 2).await, None);
}

/// S11: repeated changes have no further effect, except failures.
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
    assert_eq!(once.stale_since, Some(at(2)));
    store.apply(&changes, at(50)).await.unwrap();
    assert_eq!(
        row(store, 1).await,
        Some(once),
        "the moment is the first one"
    );
    for streak in [1, 2] {
        store
            .apply(
                &[Change::Failed {
                    key,
                    failure: Failure::default(),
                }],
                at(3),
            )
            .await
            .unwrap();
        let row = row(store, 1).await.unwrap();
        assert_eq!(
            (row.failure_streak, row.failing_since),
            (streak, Some(at(3)))
        );
    }
}

/// S11: failures count from the first one after an acceptance or an upsert.
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
        store
            .apply(
                &[Change::Failed {
                    key,
                    failure: Failure::default(),
                }],
                at(secs),
            )
            .await
            .unwrap();
    }
    assert_eq!(failures().await, (2, Some(at(5))));
    store.apply(&[Change::Accepted(key)], at(11)).await.unwrap();
    assert_eq!(failures().await, (0, None));
    store
        .apply(
            &[Change::Failed {
                key,
                failure: Failure::default(),
            }],
            at(13),
        )
        .await
        .unwrap();
    assert_eq!(failures().await, (1, Some(at(13))));
    put(store, &new(1), at(20)).await;
    assert_eq!(failures().await, (0, None), "its page posted it");
}

/// S11: a success is noted in every state, and revives nothing.
pub async fn s11_a_success_is_noted_in_every_state<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    for number in [1, 2] {
        put(store, &new(number), at(0)).await;
    }
    let verdicts = [stale(1, at(5)), retire(2, at(5))];
    assert_eq!(store.apply(&verdicts, at(5)).await.unwrap(), 2);
    let accepted = [1, 2].map(|number| Change::Accepted(endpoint(number).key()));
    assert_eq!(store.apply(&accepted, at(6)).await.unwrap(), 2);
    for number in [1, 2] {
        let row = row(store, number).await.unwrap();
        assert_eq!(row.last_success_at, Some(at(6)));
        assert!(!row.is_live(at(6)));
    }
}

/// S12: a row that was seen after the observation is not changed.
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
    assert_eq!(changed.stale_since, Some(at(11)));
}

/// S13: the purge deletes rows that were retired before, and no others.
pub async fn s13_only_rows_retired_before_are_purged<S: SubscriptionStore + ?Sized>(
    h: &Handles<S>,
) {
    only_rows_changed_before_are_purged(h, retire).await;
}

/// S13: the purge deletes rows that are stale since before, and no others.
pub async fn s13_only_rows_stale_before_are_purged<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    only_rows_changed_before_are_purged(h, stale).await;
}

async fn only_rows_changed_before_are_purged<S: SubscriptionStore + ?Sized>(
    h: &Handles<S>,
    change: fn(u32, Timestamp) -> Change,
) {
    let store = h.store();
    for number in 0..4 {
        put(store, &tagged(&["a"], new(number)), at(0)).await;
    }
    for (number, secs) in [(0, 10), (1, 11), (2, 10)] {
        let change = [change(number, at(1))];
        assert_eq!(store.apply(&change, at(secs)).await.unwrap(), 1);
    }
    // Its page has come back.
    put(store, &new(2), at(12)).await;
    assert_eq!(store.apply(&[purge(11)], at(99)).await.unwrap(), 1);
    assert_eq!(left(store, 4).await, [1, 2, 3]);
    assert_eq!(store.apply(&[purge(11)], at(99)).await.unwrap(), 0);
    assert_eq!(store.apply(&[purge(99)], at(99)).await.unwrap(), 1);
    assert_eq!(left(store, 4).await, [2, 3]);
}

/// S13: a retired and stale row is deleted once one of both is old enough.
pub async fn s13_the_first_reason_counts<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    for number in 0..3 {
        put(store, &new(number), at(0)).await;
    }
    let changes = [stale(0, at(1)), retire(1, at(1)), stale(2, at(1))];
    store.apply(&changes, at(10)).await.unwrap();
    let changes = [retire(0, at(1)), stale(1, at(1))];
    store.apply(&changes, at(20)).await.unwrap();
    assert_eq!(store.apply(&[purge(10)], at(99)).await.unwrap(), 0);
    assert_eq!(store.apply(&[purge(15)], at(99)).await.unwrap(), 3);
    let any = CountFilter::new(Audience::All, Liveness::Any);
    assert_eq!(store.count(&any, at(99)).await.unwrap(), 0);
}

/// S13: the purge deletes rows that expired before its second time, in every state.
pub async fn s13_only_rows_expired_before_are_purged<S: SubscriptionStore + ?Sized>(
    h: &Handles<S>,
) {
    let store = h.store();
    let expiring = |number: u32, secs: Option<i64>| {
        let mut new = tagged(&["a"], new(number));
        new.subscription = new.subscription.with_expiration_time(secs.map(at));
        new
    };
    for (number, secs) in [(0, 49), (1, 50), (2, 49), (3, 49), (4, 49)] {
        put(store, &expiring(number, Some(secs)), at(0)).await;
    }
    put(store, &expiring(5, None), at(0)).await;
    // One was renewed with a later expiration, another without any.
    put(store, &expiring(3, Some(99)), at(1)).await;
    put(store, &expiring(4, None), at(1)).await;
    let changes = [retire(2, at(1)), Change::Accepted(endpoint(1).key())];
    store.apply(&changes, at(2)).await.unwrap();
    let purge = [Change::Purge {
        before: at(1),
        expired_before: at(50),
    }];
    // Another has expired since, and is retired.
    assert_eq!(store.apply(&purge, at(60)).await.unwrap(), 3);
    assert_eq!(left(store, 6).await, [1, 3, 4, 5]);
    let page = store.page(&Audience::Tag(tag("a")), None, 9, at(60)).await;
    assert_eq!(page.unwrap().len(), 3);
    let mut live = CountFilter::new(Audience::All, Liveness::Live);
    live.push_service = Some(PushService::Mozilla);
    assert_eq!(store.count(&live, at(60)).await.unwrap(), 3);
    // Three unproven rows are left.
    let limits = SubscriptionLimits::default();
    let upserted = async |unproven| {
        let limits = limits.with_unproven(unproven);
        store.upsert(&new(9), &limits, at(61)).await
    };
    assert!(upserted(3).await.is_err());
    assert!(upserted(4).await.is_ok());
}

/// S13: unproven rows that have expired are deleted, and others are retired.
pub async fn s13_expired_rows_are_no_longer_with_live_ones<S: SubscriptionStore + ?Sized>(
    h: &Handles<S>,
) {
    let store = h.store();
    let expiring = |new: NewSubscription, secs| {
        let mut new = tagged(&["a"], new);
        new.subscription = new.subscription.with_expiration_time(Some(at(secs)));
        new
    };
    put(store, &expiring(of("alice", new(1)), 50), at(0)).await;
    for (number, secs) in [(0, 50), (2, 50), (3, 51), (4, 50), (5, 50)] {
        put(store, &expiring(new(number), secs), at(0)).await;
    }
    let accepted = Change::Accepted(endpoint(2).key());
    let changes = [accepted, stale(4, at(1)), retire(5, at(1))];
    store.apply(&changes, at(2)).await.unwrap();
    let purge = |before| {
        [Change::Purge {
            before: at(0),
            expired_before: at(before),
        }]
    };
    assert_eq!(store.apply(&purge(0), at(49)).await.unwrap(), 0);
    assert_eq!(store.apply(&purge(0), at(50)).await.unwrap(), 3);
    assert_eq!(left(store, 6).await, [1, 2, 3, 4, 5]);
    let expired = Some(Retired::new(at(50), RetireReason::Expired));
    let gone = Some(Retired::new(at(2), RetireReason::Gone));
    for (number, retired) in [(1, expired), (2, expired), (3, None), (4, None), (5, gone)] {
        let row = row(store, number).await.unwrap();
        assert_eq!(row.retired, retired, "{number}");
        assert_eq!(row.stale_since.is_some(), number == 4, "{number}");
    }
    let count = async |audience: &Audience, liveness, secs| {
        let filter = CountFilter::new(audience.clone(), liveness);
        store.count(&filter, at(secs)).await.unwrap()
    };
    for audience in [Audience::All, Audience::Tag(tag("a"))] {
        for (liveness, rows) in [
            (Liveness::Live, 1),
            (Liveness::Stale, 1),
            (Liveness::Retired, 3),
        ] {
            assert_eq!(count(&audience, liveness, 50).await, rows, "{audience:?}");
        }
        let page = store.page(&audience, None, 9, at(50)).await.unwrap();
        assert_eq!(page.len(), 1, "{audience:?}");
    }
    assert_eq!(store.apply(&purge(0), at(50)).await.unwrap(), 0);
    // Its page comes back.
    let (revived, created) = put(store, &expiring(of("alice", new(1)), 99), at(55)).await;
    assert_eq!((revived.retired, created), (None, false));
    assert_eq!(count(&Audience::All, Liveness::Live, 55).await, 1);
    // The others a while later, and the unproven one that has expired since.
    assert_eq!(store.apply(&purge(51), at(60)).await.unwrap(), 4);
    assert_eq!(left(store, 6).await, [1]);
    let limits = SubscriptionLimits::default().with_unproven(1);
    let upserted = store.upsert(&new(9), &limits, at(61)).await;
    assert!(upserted.is_ok(), "no unproven row is left");
}

/// S9, S10, S13: very many rows that expire together delay no call, and are gone after purges.
pub async fn s13_many_expired_rows_take_steps<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    const ROWS: u32 = STEP as u32 + 7;
    let store = h.store();
    for number in 1..=ROWS {
        let mut new = tagged(&["a"], new(number));
        new.subscription = new.subscription.with_expiration_time(Some(at(50)));
        put(store, &new, at(0)).await;
    }
    put(store, &tagged(&["a"], of("alice", new(0))), at(0)).await;
    for audience in [Audience::All, Audience::Tag(tag("a"))] {
        for limit in [1, 9] {
            let page = store.page(&audience, None, limit, at(50)).await.unwrap();
            let keys: Vec<_> = page
                .iter()
                .map(|row| row.subscription.endpoint().key())
                .collect();
            assert_eq!(keys, [endpoint(0).key()], "{audience:?} {limit}");
        }
        let live = CountFilter::new(audience, Liveness::Live);
        let counted = store.count(&live, at(50)).await.unwrap();
        assert!((1..=8).contains(&counted), "{counted}");
    }
    let purge = [purge(0)];
    for purged in [STEP, 7, 0] {
        let changed = store.apply(&purge, at(50)).await.unwrap();
        assert_eq!(changed, purged as u64);
    }
    for audience in [Audience::All, Audience::Tag(tag("a"))] {
        let any = CountFilter::new(audience, Liveness::Any);
        assert_eq!(store.count(&any, at(50)).await.unwrap(), 1);
    }
}

/// S13: one purge deletes at most a step of rows, and a repeated one deletes the rest.
pub async fn s13_a_large_purge_takes_steps<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    const ROWS: u32 = STEP as u32 + 7;
    let store = h.store();
    let mut changes = Vec::new();
    for number in 0..ROWS {
        put(store, &new(number), at(0)).await;
        changes.push(match number % 2 {
            0 => retire(number, at(1)),
            _ => stale(number, at(1)),
        });
    }
    store.apply(&changes, at(2)).await.unwrap();
    let first = store.apply(&[purge(9)], at(9)).await.unwrap();
    assert_eq!(first, STEP as u64);
    let rest = h.second().apply(&[purge(9)], at(9)).await.unwrap();
    assert_eq!(rest, 7);
    let any = CountFilter::new(Audience::All, Liveness::Any);
    assert_eq!(store.count(&any, at(9)).await.unwrap(), 0);
}

/// Returns which of the first endpoints have a row.
async fn left<S: SubscriptionStore + ?Sized>(store: &S, endpoints: u32) -> Vec<u32> {
    let which: Vec<_> = (0..endpoints)
        .map(|number| SubscriptionRef::Key(endpoint(number).key()))
        .collect();
    let rows = store.get(&which).await.unwrap();
    let numbers = (0..).zip(rows);
    numbers
        .filter_map(|(number, row)| row.map(|_| number))
        .collect()
}

/// S19: the last failure is kept with the change that records it, and nothing else modifies it.
pub async fn s19_the_last_failure_is_kept<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let key = endpoint(1).key();
    put(store, &new(1), at(0)).await;
    let last = async || row(store, 1).await.unwrap().last_failure;
    assert_eq!(last().await, None);
    let failed = |failure| Change::Failed { key, failure };
    let throttled = Failure::new(Some(429), Some("too many requests"));
    store.apply(&[failed(throttled)], at(1)).await.unwrap();
    let kept = Some(LastFailure::new(at(1), throttled));
    assert_eq!(last().await, kept);
    // Neither an acceptance nor another VAPID key nor the browser clears it.
    let use_key = Change::UseVapidKey {
        key,
        vapid_key: key_id(5),
    };
    let others = [Change::Accepted(key), use_key];
    store.apply(&others, at(2)).await.unwrap();
    put(store, &tagged(&["a"], of("alice", new(1))), at(3)).await;
    put(store, &of("alice", rekeyed(new(1))), at(4)).await;
    assert_eq!(last().await, kept);
    // A failure without a response replaces it whole.
    let changes = [failed(throttled), failed(Failure::default())];
    store.apply(&changes, at(5)).await.unwrap();
    assert_eq!(
        last().await,
        Some(LastFailure::new(at(5), Failure::default()))
    );
    // What is out of date (S12) records nothing.
    let longest = "x".repeat(ReasonWord::MAX_LEN);
    let failure = Failure::new(Some(410), Some(&longest));
    let retire = |observed_at| Change::Retire {
        key,
        reason: RetireReason::Gone,
        observed_at,
        failure,
    };
    assert_eq!(store.apply(&[retire(at(3))], at(6)).await.unwrap(), 0);
    assert_eq!(last().await.unwrap().at, at(5));
    let stale = Change::Stale {
        key,
        observed_at: at(4),
        failure: throttled,
    };
    assert_eq!(
        store
            .apply(std::slice::from_ref(&stale), at(7))
            .await
            .unwrap(),
        1
    );
    assert_eq!(last().await, Some(LastFailure::new(at(7), throttled)));
    assert_eq!(store.apply(&[retire(at(4))], at(8)).await.unwrap(), 1);
    let retired = Some(LastFailure::new(at(8), failure));
    assert_eq!(last().await, retired);
    assert_eq!(
        store.apply(&[stale, retire(at(4))], at(9)).await.unwrap(),
        0
    );
    assert_eq!(last().await, retired);
    // It was about another endpoint.
    let mut replacing = of("alice", new(2));
    replacing.replaces = Some(key);
    let (moved, _) = put(store, &replacing, at(10)).await;
    assert_eq!(moved.last_failure, None);
    assert_eq!(row(store, 2).await.unwrap().last_failure, None);
}
