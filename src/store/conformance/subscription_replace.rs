//! S5: a subscription that replaces another.

use super::Handles;
use super::sample::{at, endpoint, key_id, new, of, put, rekeyed, row, tagged, tags};
use crate::broadcast::{Audience, Principal};
use crate::store::{
    CountFilter, Liveness, NewSubscription, SubscriptionLimits, SubscriptionRecord,
    SubscriptionRef, SubscriptionStore, Upserted,
};
use crate::subscription::SubscriptionId;

fn replacing(old: u32, mut new: NewSubscription) -> NewSubscription {
    new.replaces = Some(endpoint(old).key());
    new
}

/// Returns the row, whether it is new, and its superseded id.
async fn replace<S: SubscriptionStore + ?Sized>(
    store: &S,
    new: &NewSubscription,
    secs: i64,
) -> (SubscriptionRecord, bool, Option<SubscriptionId>) {
    let limits = SubscriptionLimits::default();
    let answer = store.upsert(new, &limits, at(secs)).await.unwrap();
    let Upserted::Stored {
        record,
        created,
        superseded,
        ..
    } = answer
    else {
        panic!("the upsert was refused");
    };
    (*record, created, superseded)
}

/// Returns the row, and the ids of those that changed hands.
async fn handed<S: SubscriptionStore + ?Sized>(
    store: &S,
    new: &NewSubscription,
    secs: i64,
) -> (SubscriptionRecord, Vec<SubscriptionId>) {
    let limits = SubscriptionLimits::default();
    let answer = store.upsert(new, &limits, at(secs)).await.unwrap();
    let Upserted::Stored {
        record,
        handed_over,
        ..
    } = answer
    else {
        panic!("the upsert was refused");
    };
    (*record, handed_over)
}

/// S5: id, creation time, tags and principal pass to the new endpoint.
pub async fn s5_a_replacement_takes_over<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let mut old = tagged(&["a"], of("alice", new(1)));
    old.vapid_key = Some(key_id(3));
    let (old, _) = put(store, &old, at(0)).await;
    let renewed = replacing(1, rekeyed(new(2)));
    let (record, created, superseded) = replace(store, &renewed, 9).await;
    assert!(created);
    assert_eq!(superseded, None);
    assert_eq!((record.id, record.created_at), (old.id, at(0)));
    assert_eq!(record.principal, Some(Principal::from("alice")));
    assert_eq!(record.tags, tags(&["a"]));
    assert_eq!(record.vapid_key, key_id(3));
    assert_eq!(
        (record.keys_changed_at, record.last_seen_at),
        (at(9), at(9))
    );
    assert_eq!(row(store, 1).await, None);
    let by_id = store.get(&[SubscriptionRef::Id(old.id)]).await.unwrap();
    assert_eq!(by_id, [Some(record)]);
    // Only the new row has the tag.
    let tagged = CountFilter::new(Audience::Tag(super::sample::tag("a")), Liveness::Any);
    assert_eq!(store.count(&tagged, at(9)).await.unwrap(), 1);
}

/// S5: given tags, principal and VAPID key take precedence.
pub async fn s5_what_is_given_wins<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    put(store, &tagged(&["a"], of("alice", new(1))), at(0)).await;
    let mut renewed = replacing(1, tagged(&["b"], of("bob", new(2))));
    renewed.vapid_key = Some(key_id(4));
    let (record, ..) = replace(store, &renewed, 9).await;
    assert_eq!(record.principal, Some(Principal::from("bob")));
    assert_eq!(record.tags, tags(&["b"]));
    assert_eq!(record.vapid_key, key_id(4));
}

/// S5: tags do not pass to another principal, and the rows that change hands are named.
pub async fn s5_another_principal_takes_over_no_tags<S: SubscriptionStore + ?Sized>(
    h: &Handles<S>,
) {
    let store = h.store();
    let (old, _) = put(store, &tagged(&["a"], of("alice", new(1))), at(0)).await;
    let renewed = replacing(1, of("bob", new(2)));
    let (record, handed_over) = handed(store, &renewed, 9).await;
    assert_eq!(record.principal, Some(Principal::from("bob")));
    assert_eq!(
        (record.tags.clone(), handed_over),
        (tags(&[]), vec![old.id])
    );
    assert_eq!(row(store, 2).await, Some(record));

    // The row at the new endpoint is that of another principal, and the replaced one decides.
    let (theirs, _) = put(store, &tagged(&["b"], of("carol", new(3))), at(10)).await;
    let (record, handed_over) = handed(store, &replacing(2, new(3)), 11).await;
    assert_eq!(record.principal, Some(Principal::from("bob")));
    assert_eq!(
        (record.tags.clone(), handed_over),
        (tags(&[]), vec![theirs.id])
    );

    // What has no principal is the next one's.
    put(store, &tagged(&["a"], new(4)), at(12)).await;
    let (record, handed_over) = handed(store, &replacing(4, of("bob", new(5))), 13).await;
    assert_eq!((record.tags, handed_over), (tags(&["a"]), vec![]));
}

/// S5: an existing row of the new endpoint loses its id.
pub async fn s5_a_row_that_stood_there_is_superseded<S: SubscriptionStore + ?Sized>(
    h: &Handles<S>,
) {
    let store = h.store();
    let (old, _) = put(store, &new(1), at(0)).await;
    let (standing, _) = put(store, &new(2), at(1)).await;
    let (record, created, superseded) = replace(store, &replacing(1, new(2)), 9).await;
    assert!(!created);
    assert_eq!(superseded, Some(standing.id));
    assert_eq!((record.id, record.created_at), (old.id, at(0)));
    assert_eq!(row(store, 1).await, None);
    assert_eq!(row(store, 2).await, Some(record));
    let lost = store
        .get(&[SubscriptionRef::Id(standing.id)])
        .await
        .unwrap();
    assert_eq!(lost, [None]);

    // What belongs to a principal does not lose its owner to a row that has none.
    put(store, &new(3), at(10)).await;
    put(store, &of("alice", new(4)), at(10)).await;
    let (record, ..) = replace(store, &replacing(3, new(4)), 11).await;
    assert_eq!(record.principal, Some("alice".into()));
}

/// S5: replacing an unknown row or itself is a plain upsert.
pub async fn s5_nothing_to_replace_is_a_plain_upsert<S: SubscriptionStore + ?Sized>(
    h: &Handles<S>,
) {
    let store = h.store();
    let wanted = replacing(7, new(1));
    let (record, created, superseded) = replace(store, &wanted, 0).await;
    assert!(created);
    assert_eq!((record.id, superseded), (wanted.id, None));
    let (again, created, superseded) = replace(store, &replacing(1, new(1)), 9).await;
    assert!(!created);
    assert_eq!((again.id, superseded), (wanted.id, None));
    assert_eq!(again.last_seen_at, at(9));
}

/// S5, S4: a conflict at the new endpoint replaces nothing.
pub async fn s5_a_conflict_replaces_nothing<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let (old, _) = put(store, &of("alice", new(1)), at(0)).await;
    let (standing, _) = put(store, &new(2), at(0)).await;
    let takeover = replacing(1, of("alice", rekeyed(new(2))));
    let limits = SubscriptionLimits::default();
    let answer = store.upsert(&takeover, &limits, at(9)).await.unwrap();
    assert_eq!(answer, Upserted::Conflict);
    assert_eq!(row(store, 1).await, Some(old));
    assert_eq!(row(store, 2).await, Some(standing));
}
