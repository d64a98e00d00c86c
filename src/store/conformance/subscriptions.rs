//! S1 to S4, S6 to S8, S14: rows, their ids and keys, and upserts.

use super::Handles;
use super::sample::{at, endpoint, key_id, new, of, put, rekeyed, row, tagged, tags, unknown_id};
use crate::broadcast::{Audience, Principal};
use crate::store::{
    Change, CountFilter, Failure, Liveness, NewSubscription, RetireReason, StoreErrorKind,
    SubscriptionLimits, SubscriptionRef, SubscriptionStore, Upserted,
};

/// Counts all rows.
async fn rows<S: SubscriptionStore + ?Sized>(store: &S) -> u64 {
    let every = CountFilter::new(Audience::All, Liveness::Any);
    store.count(&every, at(0)).await.unwrap()
}

/// S1: key and id name the same row.
pub async fn s1_a_row_is_known_by_key_and_by_id<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    put(store, &new(2), at(0)).await;
    let (record, _) = put(store, &tagged(&["a"], of("alice", new(1))), at(0)).await;
    let key = SubscriptionRef::Key(endpoint(1).key());
    let found = store
        .get(&[SubscriptionRef::Id(record.id), key])
        .await
        .unwrap();
    assert_eq!(found, [Some(record.clone()), Some(record)]);
}

/// S1: a second row of one id is an error, and changes nothing.
pub async fn s1_an_id_names_one_row<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let (first, _) = put(store, &new(1), at(0)).await;
    let mut second = new(2);
    second.id = first.id;
    let limits = SubscriptionLimits::default();
    assert!(store.upsert(&second, &limits, at(1)).await.is_err());
    assert_eq!(row(store, 1).await, Some(first));
    assert_eq!(row(store, 2).await, None);
}

/// S2: an unknown endpoint becomes a row, exactly as given.
pub async fn s2_an_unknown_endpoint_is_inserted<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let mut wanted = tagged(&["a", "b"], of("alice", new(1)));
    wanted.subscription = wanted.subscription.with_expiration_time(Some(at(99)));
    wanted.vapid_key = Some(key_id(7));
    let (record, created) = put(store, &wanted, at(5)).await;
    assert!(created);
    assert_eq!(record.id, wanted.id);
    assert_eq!(record.subscription, wanted.subscription);
    assert_eq!(record.principal, Some(Principal::from("alice")));
    assert_eq!(record.tags, tags(&["a", "b"]));
    assert_eq!(record.vapid_key, key_id(7));
    let times = (
        record.created_at,
        record.keys_changed_at,
        record.last_seen_at,
    );
    assert_eq!(times, (at(5), at(5), at(5)));
    assert_eq!((record.last_success_at, record.failure_streak), (None, 0));
    assert_eq!((record.stale_since, record.retired), (None, None));
    assert_eq!(row(store, 1).await, Some(record));

    let longest: String = (0..)
        .map(|number| format!("{number:04}"))
        .take(256)
        .collect();
    let (owned, _) = put(store, &of(&longest, new(3)), at(5)).await;
    assert_eq!(owned.principal, Some(Principal::from(longest)));
    assert_eq!(row(store, 3).await, Some(owned));

    let (plain, _) = put(store, &new(2), at(5)).await;
    assert_eq!(
        plain.vapid_key,
        key_id(1),
        "the default where none is named"
    );
    assert_eq!((plain.principal, plain.tags), (None, tags(&[])));
}

/// S2: one of several concurrent upserts of an endpoint inserts, and all return its row.
pub async fn s2_one_of_many_concurrent_upserts_inserts<S: SubscriptionStore + ?Sized>(
    h: &Handles<S>,
) {
    let answers = h
        .race(
            8,
            |store, _| async move { put(&*store, &new(1), at(0)).await },
        )
        .await;
    let created = answers.iter().filter(|(_, created)| *created).count();
    assert_eq!(created, 1);
    let stored = row(h.second(), 1).await.unwrap();
    assert!(answers.iter().all(|(record, _)| record.id == stored.id));
    assert_eq!(rows(h.store()).await, 1);
}

/// S3: the same keys keep id and creation time. Given values replace stored ones.
pub async fn s3_the_same_keys_update_the_row<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let (first, _) = put(store, &tagged(&["a"], of("alice", new(1))), at(0)).await;
    let mut again = tagged(&["b"], of("bob", new(1)));
    again.vapid_key = Some(key_id(2));
    again.subscription = again.subscription.with_expiration_time(Some(at(99)));
    let (second, created) = put(store, &again, at(9)).await;
    assert!(!created);
    assert_eq!(second.id, first.id);
    assert_eq!((second.created_at, second.keys_changed_at), (at(0), at(0)));
    assert_eq!(second.last_seen_at, at(9));
    assert_eq!(second.principal, Some(Principal::from("bob")));
    assert_eq!(second.tags, tags(&["b"]));
    assert_eq!(second.vapid_key, key_id(2));
    assert_eq!(second.subscription.expiration_time(), Some(at(99)));
    assert_eq!(row(store, 1).await, Some(second));
}

/// S3: another principal does not get the tags of the one before.
pub async fn s3_another_principal_gets_no_stored_tags<S: SubscriptionStore + ?Sized>(
    h: &Handles<S>,
) {
    let store = h.store();
    let (first, _) = put(store, &tagged(&["a"], new(1)), at(0)).await;
    let limits = SubscriptionLimits::default();
    for (secs, wanted, expected, is_handed_over) in [
        // A row without a principal is that of the first one.
        (1, of("alice", new(1)), tags(&["a"]), false),
        (2, of("alice", new(1)), tags(&["a"]), false),
        (3, new(1), tags(&["a"]), false),
        (4, of("bob", new(1)), tags(&[]), true),
        (5, tagged(&["b"], of("carol", new(1))), tags(&["b"]), true),
    ] {
        let answer = store.upsert(&wanted, &limits, at(secs)).await.unwrap();
        let Upserted::Stored {
            record,
            handed_over,
            ..
        } = answer
        else {
            panic!("the upsert was refused");
        };
        assert_eq!(record.tags, expected, "{secs}");
        assert_eq!(handed_over == [first.id], is_handed_over, "{secs}");
        assert_eq!(handed_over.is_empty(), !is_handed_over, "{secs}");
        assert_eq!(row(store, 1).await, Some(*record));
    }
    // An audience is read where the tags are kept for it.
    let tagged = CountFilter::new(Audience::Tag(super::sample::tag("a")), Liveness::Any);
    assert_eq!(store.count(&tagged, at(9)).await.unwrap(), 0);
}

/// S3: absent values keep stored ones, except the expiration.
pub async fn s3_absent_parts_leave_the_stored_ones<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let mut first = tagged(&["a"], of("alice", new(1)));
    first.vapid_key = Some(key_id(2));
    first.subscription = first.subscription.with_expiration_time(Some(at(99)));
    put(store, &first, at(0)).await;
    let (second, _) = put(store, &new(1), at(9)).await;
    assert_eq!(second.principal, Some(Principal::from("alice")));
    assert_eq!(second.tags, tags(&["a"]));
    assert_eq!(second.vapid_key, key_id(2));
    assert_eq!(second.subscription.expiration_time(), None);
    // An empty list of tags counts as given.
    let (third, _) = put(store, &tagged(&[], new(1)), at(10)).await;
    assert_eq!(third.tags, tags(&[]));
}

/// S3: an upsert revives a retired or stale row.
pub async fn s3_a_retired_or_stale_row_revives<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let (first, _) = put(store, &new(1), at(0)).await;
    let key = endpoint(1).key();
    let observed_at = at(1);
    let changes = [
        Change::Accepted(key),
        Change::Failed {
            key,
            failure: Failure::default(),
        },
        Change::Stale {
            key,
            observed_at,
            failure: Failure::default(),
        },
        Change::Retire {
            key,
            reason: RetireReason::Gone,
            observed_at,
            failure: Failure::default(),
        },
    ];
    assert_eq!(store.apply(&changes, at(2)).await.unwrap(), 4);
    let (second, created) = put(store, &new(1), at(9)).await;
    assert!(!created);
    assert_eq!((second.id, second.last_seen_at), (first.id, at(9)));
    assert_eq!((second.retired, second.stale_since), (None, None));
    assert_eq!(second.failure_streak, 0);
    assert_eq!(second.last_success_at, Some(at(2)), "that stays true");
}

/// S3, S5: who registers a stale row is told, once.
pub async fn s3_a_row_is_said_to_have_been_stale<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let limits = SubscriptionLimits::default();
    let stale = |number| Change::Stale {
        key: endpoint(number).key(),
        observed_at: at(1),
        failure: Failure::default(),
    };
    put(store, &new(1), at(0)).await;
    put(store, &new(2), at(0)).await;
    assert_eq!(store.apply(&[stale(1), stale(2)], at(2)).await.unwrap(), 2);
    let mut renewed = new(3);
    renewed.replaces = Some(endpoint(2).key());
    for (wanted, expected) in [
        (new(1), true),
        (new(1), false),
        (renewed, true),
        (new(3), false),
        (new(4), false),
    ] {
        let answer = store.upsert(&wanted, &limits, at(9)).await.unwrap();
        let Upserted::Stored {
            record, was_stale, ..
        } = answer
        else {
            panic!("the upsert was refused");
        };
        assert_eq!((was_stale, record.stale_since), (expected, None));
    }
}

/// S4: other keys are accepted only from the row's own principal.
pub async fn s4_other_keys_need_the_same_principal<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let limits = SubscriptionLimits::default();
    let (first, _) = put(store, &of("alice", new(1)), at(0)).await;
    for stranger in [rekeyed(new(1)), of("bob", rekeyed(new(1)))] {
        let answer = store.upsert(&stranger, &limits, at(5)).await.unwrap();
        assert_eq!(answer, Upserted::Conflict);
        assert_eq!(row(store, 1).await.as_ref(), Some(&first));
    }
    let (second, created) = put(store, &of("alice", rekeyed(new(1))), at(5)).await;
    assert!(!created);
    assert_eq!((second.id, second.created_at), (first.id, at(0)));
    assert_eq!(second.keys_changed_at, at(5));
    assert!(second.subscription.same_keys(&rekeyed(new(1)).subscription));
}

/// S4: the keys of a row without a principal cannot be changed, even if it is retired.
pub async fn s4_nobody_changes_the_keys_of_a_row_of_nobody<S: SubscriptionStore + ?Sized>(
    h: &Handles<S>,
) {
    let store = h.store();
    let limits = SubscriptionLimits::default();
    put(store, &new(1), at(0)).await;
    let retire = Change::Retire {
        key: endpoint(1).key(),
        reason: RetireReason::Gone,
        observed_at: at(0),
        failure: Failure::default(),
    };
    for retired in [false, true] {
        if retired {
            store
                .apply(std::slice::from_ref(&retire), at(1))
                .await
                .unwrap();
        }
        let before = row(store, 1).await;
        for new in [rekeyed(new(1)), of("alice", rekeyed(new(1)))] {
            let answer = store.upsert(&new, &limits, at(5)).await.unwrap();
            assert_eq!(answer, Upserted::Conflict);
        }
        assert_eq!(row(store, 1).await, before);
    }
}

/// S6: the least recently seen rows of the same principal are removed, and no other's.
pub async fn s6_the_least_recently_seen_make_room<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let limits = SubscriptionLimits::new(100, 2);
    put(store, &of("bob", new(9)), at(0)).await;
    put(store, &new(8), at(0)).await;
    for (number, secs) in [(1, 1), (2, 2), (1, 3), (3, 4)] {
        let new = of("alice", new(number));
        store.upsert(&new, &limits, at(secs)).await.unwrap();
    }
    assert_eq!(row(store, 2).await, None, "seen before 1 was seen again");
    for number in [1, 3, 8, 9] {
        assert!(row(store, number).await.is_some(), "{number}");
    }
    // A row that passes to a principal counts for it, and is not removed.
    let adopted = of("alice", new(8));
    store.upsert(&adopted, &limits, at(5)).await.unwrap();
    assert_eq!(row(store, 1).await, None);
    assert!(row(store, 8).await.is_some());
}

/// S7: inserts above the total are refused and change nothing. Updates are not refused.
pub async fn s7_a_full_table_refuses_inserts<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let limits = SubscriptionLimits::new(2, 32);
    for number in [1, 2] {
        store.upsert(&new(number), &limits, at(0)).await.unwrap();
    }
    let retire = Change::Retire {
        key: endpoint(1).key(),
        reason: RetireReason::Gone,
        observed_at: at(0),
        failure: Failure::default(),
    };
    store.apply(&[retire], at(1)).await.unwrap();
    let refused = store.upsert(&new(3), &limits, at(2)).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Full);
    assert_eq!(row(store, 3).await, None);
    store.upsert(&new(2), &limits, at(3)).await.unwrap();
    assert_eq!(row(store, 2).await.unwrap().last_seen_at, at(3));
    assert_eq!(rows(store).await, 2);
}

/// S7: rows that the same upsert removes do not count.
pub async fn s7_a_replacement_fits_into_a_full_table<S: SubscriptionStore + ?Sized>(
    h: &Handles<S>,
) {
    let store = h.store();
    let limits = SubscriptionLimits::new(1, 32);
    store.upsert(&new(1), &limits, at(0)).await.unwrap();
    let mut renewed = new(2);
    renewed.replaces = Some(endpoint(1).key());
    store.upsert(&renewed, &limits, at(1)).await.unwrap();
    assert_eq!(row(store, 1).await, None);
    assert!(row(store, 2).await.is_some());
}

/// S8: results are in the order of the request.
pub async fn s8_get_answers_in_order<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let (first, _) = put(store, &new(1), at(0)).await;
    let (second, _) = put(store, &new(2), at(0)).await;
    let retire = Change::Retire {
        key: endpoint(2).key(),
        reason: RetireReason::Gone,
        observed_at: at(0),
        failure: Failure::default(),
    };
    store.apply(&[retire], at(1)).await.unwrap();
    let questions = [
        SubscriptionRef::Key(endpoint(2).key()),
        SubscriptionRef::Id(unknown_id()),
        SubscriptionRef::Id(first.id),
        SubscriptionRef::Key(endpoint(7).key()),
        SubscriptionRef::Id(second.id),
    ];
    let answers = store.get(&questions).await.unwrap();
    let ids: Vec<_> = answers
        .iter()
        .map(|row| row.as_ref().map(|row| row.id))
        .collect();
    let expected = [Some(second.id), None, Some(first.id), None, Some(second.id)];
    assert_eq!(ids, expected);
    assert!(answers[0].as_ref().unwrap().retired.is_some());
    assert_eq!(store.get(&[]).await.unwrap(), []);
}

/// S14: a known row is not changed, in any state and with any keys. An unknown one is inserted.
pub async fn s14_only_an_unknown_endpoint_is_inserted<S: SubscriptionStore + ?Sized>(
    h: &Handles<S>,
) {
    let store = h.store();
    let limits = SubscriptionLimits::default();
    let only_new = |mut new: NewSubscription| {
        new.only_if_unknown = true;
        new
    };
    let wanted = only_new(tagged(&["a"], of("alice", new(1))));
    let (first, created) = put(store, &wanted, at(0)).await;
    assert!(created);
    assert_eq!(first.id, wanted.id);
    let retire = Change::Retire {
        key: endpoint(1).key(),
        reason: RetireReason::Gone,
        observed_at: at(1),
        failure: Failure::default(),
    };
    for retired in [false, true] {
        if retired {
            let retire = std::slice::from_ref(&retire);
            store.apply(retire, at(1)).await.unwrap();
        }
        let before = row(store, 1).await;
        for again in [
            new(1),
            tagged(&["b"], of("alice", new(1))),
            of("bob", new(1)),
            of("alice", rekeyed(new(1))),
        ] {
            let answer = store.upsert(&only_new(again), &limits, at(5)).await;
            assert_eq!(answer.unwrap(), Upserted::Conflict);
            assert_eq!(row(store, 1).await, before);
        }
    }
    let (back, created) = put(store, &new(1), at(6)).await;
    assert_eq!((back.id, created), (first.id, false));
}

/// S14: one of several concurrent inserts succeeds, and its row is complete.
pub async fn s14_one_of_many_concurrent_inserts_wins<S: SubscriptionStore + ?Sized>(
    h: &Handles<S>,
) {
    let limits = SubscriptionLimits::default();
    let answers = h
        .race(8, |store, number| async move {
            let mut new = of(&format!("user {number}"), new(1));
            new.only_if_unknown = true;
            store.upsert(&new, &limits, at(0)).await.unwrap()
        })
        .await;
    let stored: Vec<_> = answers
        .into_iter()
        .filter_map(|answer| match answer {
            Upserted::Stored { record, .. } => Some(*record),
            Upserted::Conflict => None,
        })
        .collect();
    assert_eq!(stored.len(), 1);
    assert_eq!(row(h.second(), 1).await.as_ref(), stored.first());
    assert_eq!(rows(h.store()).await, 1);
}
