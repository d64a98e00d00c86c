//! The row that an upsert stores and its limits, without a store: stores of other crates rely on these rules too.

use tower_web_push::broadcast::{Principal, Tag};
use tower_web_push::clock::Timestamp;
use tower_web_push::store::rules::{Applied, Merged, apply, evicted, merge};
use tower_web_push::store::{
    Assignment, Change, NewSubscription, RetireReason, Retired, StoreErrorKind, SubscriptionLimits,
    SubscriptionRecord,
};
use tower_web_push::subscription::{AuthSecret, Endpoint, EndpointKey, Subscription, UaPublicKey};
use tower_web_push::vapid::KeyId;

/// The user agent's key of RFC 8291 appendix A.
const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const LATER: Timestamp = Timestamp::from_secs(1_800_000_060);

fn new(number: u8) -> NewSubscription {
    let endpoint = Endpoint::parse(&format!("https://push.example/{number}")).unwrap();
    let auth = AuthSecret::from_bytes(&[number; AuthSecret::LEN]).unwrap();
    let subscription = Subscription::new(endpoint, UaPublicKey::parse(P256DH).unwrap(), auth);
    NewSubscription::new(subscription, KeyId::from_bytes([1; KeyId::LEN]))
}

fn inserted(number: u8) -> SubscriptionRecord {
    merge(None, None, &new(number), NOW).unwrap().record
}

#[test]
fn the_least_recently_seen_go_until_the_new_row_has_a_place() {
    let key = |number: u8| EndpointKey::from_bytes([number; 32]);
    let seen = |number: u8| (Timestamp::from_secs(i64::from(number)), key(number));
    let evicted = |most| evicted([2, 3, 1].map(seen), &SubscriptionLimits::new(100, most));
    assert_eq!(evicted(4), []);
    assert_eq!(evicted(3), [key(1)]);
    assert_eq!(evicted(2), [key(1), key(2)]);
    // The new row stays, even if the limit permits none.
    for most in [1, 0] {
        assert_eq!(evicted(most), [key(1), key(2), key(3)], "{most}");
    }
}

#[test]
fn a_limit_refuses_only_rows_that_add_to_what_it_bounds() {
    let limits = SubscriptionLimits::new(10, 32).with_unproven(5);
    let refuses = |merged: &Merged, others, unproven| {
        let refused = merged.check(&limits, others, unproven);
        refused.is_err_and(|error| error.kind() == StoreErrorKind::Full)
    };
    let added = merge(None, None, &new(2), NOW).unwrap();
    assert!(added.created && !added.was_stale);
    assert!(!refuses(&added, 9, 4));
    assert!(refuses(&added, 10, 4) && refuses(&added, 9, 5));
    // It takes the place of a row that is unproven too.
    let mut old = inserted(1);
    let replacing = merge(None, Some(&old), &new(2), NOW).unwrap();
    assert!(replacing.created && !refuses(&replacing, 9, 5));
    let mut owned = new(2);
    owned.principal = Some(Principal::new("alice"));
    let owned = merge(None, None, &owned, NOW).unwrap();
    assert!(!refuses(&owned, 9, 5));
    for last_success_at in [None, Some(NOW)] {
        old.last_success_at = last_success_at;
        let again = merge(Some(old.clone()), None, &new(1), LATER).unwrap();
        assert!(!refuses(&again, 10, 5));
    }
}

#[test]
fn a_browser_that_subscribes_again_ends_what_was_wrong_with_its_row() {
    let mut row = inserted(1);
    row.stale_since = Some(NOW);
    row.failing_since = Some(NOW);
    row.failure_streak = 7;
    let merged = merge(Some(row.clone()), None, &new(1), LATER).unwrap();
    assert!(merged.was_stale && !merged.created && merged.record.is_live(LATER));
    let after = &merged.record;
    assert_eq!((after.stale_since, after.failing_since), (None, None));
    assert_eq!((after.failure_streak, after.last_seen_at), (0, LATER));
    // With another endpoint too.
    let moved = merge(None, Some(&row), &new(2), LATER).unwrap();
    assert!(moved.was_stale && moved.created && moved.record.id == row.id);

    row.stale_since = None;
    row.retired = Some(Retired::new(NOW, RetireReason::Gone));
    let merged = merge(Some(row), None, &new(1), LATER).unwrap();
    assert!(!merged.was_stale && merged.record.is_live(LATER));
}

#[test]
fn an_assignment_says_nothing_about_the_browser() {
    let mut row = inserted(1);
    row.stale_since = Some(NOW);
    let mut assign = new(1);
    (assign.id, assign.assign) = (row.id, Some(Assignment::default()));
    let assigned = merge(Some(row.clone()), None, &assign, LATER).unwrap();
    assert_eq!(assigned.record, row);
    assert!(!assigned.was_stale && !assigned.created);
    assert_eq!((assigned.superseded, assigned.handed_over.len()), (None, 0));
    // To the row that is meant, and no other.
    assert_eq!(merge(Some(inserted(1)), None, &assign, LATER), None);
    assert_eq!(merge(None, None, &assign, LATER), None);
}

#[test]
fn labels_go_with_the_user_who_had_them() {
    let tags = [Tag::parse("news").unwrap()];
    let mut row = inserted(1);
    row.principal = Some(Principal::new("alice"));
    row.tags = tags.into();
    let mut same = new(1);
    same.principal = Some(Principal::new("alice"));
    let merged = merge(Some(row.clone()), None, &same, LATER).unwrap();
    assert_eq!(
        (merged.record.tags, merged.handed_over),
        (row.tags.clone(), vec![])
    );
    let mut other = new(1);
    other.principal = Some(Principal::new("bob"));
    let merged = merge(Some(row.clone()), None, &other, LATER).unwrap();
    assert_eq!(
        (merged.record.tags.len(), merged.handed_over),
        (0, vec![row.id])
    );
}

#[test]
fn a_purge_retires_what_has_expired_and_deletes_it_later() {
    let mut row = inserted(1);
    row.principal = Some(Principal::new("alice"));
    let at = |secs: i64| Timestamp::from_secs(1_800_000_000 + secs);
    row.subscription = row.subscription.with_expiration_time(Some(at(10)));
    let mut purge = |before, expired_before, now| {
        let (before, expired_before) = (at(before), at(expired_before));
        let purge = Change::Purge {
            before,
            expired_before,
        };
        let applied = apply(&purge, &mut row, at(now));
        (applied, row.retired)
    };
    assert_eq!(purge(0, 0, 9), (Applied::Unchanged, None));
    let retired = Some(Retired::new(at(20), RetireReason::Expired));
    assert_eq!(purge(0, 0, 20), (Applied::Updated, retired));
    // Until both times have passed.
    assert_eq!(purge(20, 10, 30), (Applied::Unchanged, retired));
    assert_eq!(purge(0, 11, 30).0, Applied::Deleted);
}
