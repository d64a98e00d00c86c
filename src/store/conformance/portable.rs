//! C1 to C3: whole rows.

use super::Handles;
use super::sample::{at, key_id, new, of, put, row, tagged, unknown_id};
use crate::broadcast::{Audience, Tag};
use crate::clock::Timestamp;
use crate::store::{
    Change, CountFilter, Failure, LastFailure, Liveness, PortableStore, RetireReason, Retired,
    SubscriptionRecord, SubscriptionStore, Unreachable,
};
use crate::subscription::EndpointKey;

/// A row in every detail, as no upsert makes it. Each part is named, so that the compiler asks for a new one.
fn whole(number: u32) -> SubscriptionRecord {
    let new = tagged(&["news", "sport"], of("alice", new(number)));
    SubscriptionRecord {
        id: new.id,
        subscription: new.subscription.with_expiration_time(Some(at(9_000))),
        principal: new.principal,
        tags: new.tags.unwrap_or_default(),
        vapid_key: key_id(7),
        created_at: at(1),
        keys_changed_at: at(2),
        last_seen_at: at(3),
        last_success_at: Some(at(4)),
        failure_streak: 5,
        failing_since: Some(at(6)),
        stale_since: None,
        retired: None,
        last_failure: Some(LastFailure::new(
            at(7),
            Failure::new(Some(429), Some("TooManyRequests")),
        )),
    }
}

fn stale(number: u32, since: Timestamp) -> SubscriptionRecord {
    let mut row = whole(number);
    row.stale_since = Some(since);
    row
}

fn retired(number: u32, since: Timestamp) -> SubscriptionRecord {
    let mut row = whole(number);
    row.retired = Some(Retired::new(since, RetireReason::HostNotFound));
    row
}

fn place(state: Unreachable, row: &SubscriptionRecord) -> (Timestamp, EndpointKey) {
    let since = state.since(row).unwrap();
    (since, row.subscription.endpoint().key())
}

async fn count<S: SubscriptionStore + ?Sized>(store: &S, liveness: Liveness) -> u64 {
    let filter = CountFilter::new(Audience::All, liveness);
    store.count(&filter, at(10)).await.unwrap()
}

/// C1: every row once, by time and by key, for any page size.
pub async fn c1_unreachable_rows_are_walked_in_order<S: PortableStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    put(store, &new(0), at(0)).await;
    let mut rows = Vec::new();
    // Many of one time.
    for number in 1..8 {
        rows.push(retired(number, at(20)));
        rows.push(stale(number + 10, at(20)));
    }
    rows.push(retired(30, at(19)));
    rows.push(retired(31, at(21)));
    rows.push(stale(32, at(18)));
    let mut both = retired(33, at(25));
    both.stale_since = Some(at(22));
    rows.push(both);
    assert_eq!(store.put(&rows).await.unwrap(), vec![true; rows.len()]);
    for state in [Unreachable::Retired, Unreachable::Stale] {
        let mut expected: Vec<_> = rows
            .iter()
            .filter(|row| state.since(row).is_some())
            .map(|row| (place(state, row), row.clone()))
            .collect();
        expected.sort_unstable_by_key(|(place, _)| *place);
        let expected: Vec<_> = expected.into_iter().map(|(_, row)| row).collect();
        for limit in [1, 3, 4, 100] {
            let mut walked: Vec<SubscriptionRecord> = Vec::new();
            loop {
                let after = walked.last().map(|row| place(state, row));
                let page = store.unreachable(state, after, limit).await.unwrap();
                assert!(page.len() <= limit);
                let is_last = page.len() < limit;
                walked.extend(page);
                if is_last {
                    break;
                }
            }
            assert_eq!(walked, expected, "{state:?} {limit}");
        }
    }
}

/// C1: the row after which a page begins may be gone.
pub async fn c1_a_walk_goes_on_behind_a_row_that_is_gone<S: PortableStore + ?Sized>(
    h: &Handles<S>,
) {
    let store = h.store();
    let mut rows: Vec<_> = (0..5).map(|number| retired(number, at(20))).collect();
    rows.sort_by_key(|row| place(Unreachable::Retired, row));
    store.put(&rows).await.unwrap();
    let last = &rows[2];
    store.apply(&[Change::delete(last)], at(30)).await.unwrap();
    let after = Some(place(Unreachable::Retired, last));
    let page = store.unreachable(Unreachable::Retired, after, 9).await;
    assert_eq!(page.unwrap(), rows[3..]);
}

/// C2: a row is written with all that it has, and is counted and indexed by it.
pub async fn c2_a_row_is_written_whole<S: PortableStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let mut plain = whole(3);
    plain.tags.clear();
    plain.principal = None;
    plain.subscription = plain.subscription.with_expiration_time(None);
    plain.last_success_at = None;
    let rows = [whole(0), stale(1, at(8)), retired(2, at(7)), plain];
    assert_eq!(store.put(&rows).await.unwrap(), [true; 4]);
    for (number, expected) in (0..).zip(&rows) {
        assert_eq!(row(store, number).await.as_ref(), Some(expected));
    }
    for (liveness, rows) in [
        (Liveness::Any, 4),
        (Liveness::Live, 2),
        (Liveness::Stale, 1),
        (Liveness::Retired, 1),
    ] {
        assert_eq!(count(store, liveness).await, rows, "{liveness:?}");
    }
    let news = Audience::Tag(Tag::parse("news").unwrap());
    let of_tag = store.page(&news, None, 9, at(10)).await.unwrap();
    assert_eq!(of_tag, rows[..1]);
    let owned = store.owned_by(&"alice".into(), None, 9).await.unwrap();
    assert_eq!(owned.len(), 3);
    // And is purged as others are.
    let purge = Change::Purge {
        before: at(9),
        expired_before: at(9),
    };
    assert_eq!(store.apply(&[purge], at(10)).await.unwrap(), 2);
    assert_eq!(count(store, Liveness::Any).await, 2);
}

/// C2: of two registrations the later one stays, of two versions of one the one that knows more.
pub async fn c2_the_newer_version_holds<S: PortableStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let first = whole(0);
    assert_eq!(
        store.put(std::slice::from_ref(&first)).await.unwrap(),
        [true]
    );
    let mut later = first.clone();
    later.failing_since = None;
    later.failure_streak = 0;
    later.last_seen_at = at(50);
    later.tags.clear();
    let mut fails = later.clone();
    fails.failing_since = Some(at(51));
    fails.failure_streak = 1;
    let mut fails_more = fails.clone();
    fails_more.failure_streak = 2;
    let mut lost = fails_more.clone();
    lost.stale_since = Some(at(52));
    let mut ends = fails_more.clone();
    ends.retired = Some(Retired::new(at(53), RetireReason::Gone));
    let mut revived = later.clone();
    revived.last_seen_at = at(54);
    let versions = [first, later, fails, fails_more, lost, ends, revived];
    for (number, version) in versions.iter().enumerate() {
        let is_first = number == 0;
        let written = store.put(std::slice::from_ref(version)).await.unwrap();
        assert_eq!(written, [!is_first], "{number}");
        // No older one holds against it, nor does it itself.
        for older in &versions[..=number] {
            let written = store.put(std::slice::from_ref(older)).await.unwrap();
            assert_eq!(written, [false], "{number}");
        }
        assert_eq!(row(store, 0).await.as_ref(), Some(version));
    }
    assert_eq!(count(store, Liveness::Any).await, 1);
    assert_eq!(count(store, Liveness::Live).await, 1);
}

/// C2: a registration by a browser is a version as others are.
pub async fn c2_a_later_registration_holds<S: PortableStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let (registered, _) = put(store, &new(0), at(40)).await;
    assert_eq!(store.put(&[whole(0)]).await.unwrap(), [false]);
    assert_eq!(row(store, 0).await, Some(registered));
}

/// C2: ids are unique. Where an id has moved, the newer of the two rows stays.
pub async fn c2_an_id_that_has_moved_names_one_row<S: PortableStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let old = whole(0);
    let mut renewed = whole(1);
    renewed.id = old.id;
    renewed.last_seen_at = at(60);
    store.put(std::slice::from_ref(&old)).await.unwrap();
    let written = store.put(std::slice::from_ref(&renewed)).await.unwrap();
    assert_eq!(written, [true]);
    assert_eq!(row(store, 0).await, None);
    let by_id = store.get(&[renewed.id.into()]).await.unwrap();
    assert_eq!(by_id, [Some(renewed.clone())]);
    assert_eq!(store.put(&[old]).await.unwrap(), [false]);
    assert_eq!(row(store, 0).await, None);
    assert_eq!(count(store, Liveness::Any).await, 1);
    // It takes the place of two.
    let other = whole(2);
    let mut both = other.clone();
    both.id = renewed.id;
    both.last_seen_at = at(61);
    store.put(&[other]).await.unwrap();
    assert_eq!(
        store.put(std::slice::from_ref(&both)).await.unwrap(),
        [true]
    );
    assert_eq!(row(store, 1).await, None);
    assert_eq!(row(store, 2).await, Some(both));
    assert_eq!(count(store, Liveness::Any).await, 1);
    assert_eq!(store.get(&[unknown_id().into()]).await.unwrap(), [None]);
}

/// C3: a whole step of rows, repeated.
pub async fn c3_many_rows_are_one_call<S: PortableStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    assert!(store.put(&[]).await.unwrap().is_empty());
    let rows: Vec<_> = (0..crate::store::STEP)
        .map(|number| whole(u32::try_from(number).unwrap()))
        .collect();
    assert_eq!(store.put(&rows).await.unwrap(), vec![true; rows.len()]);
    assert_eq!(store.put(&rows).await.unwrap(), vec![false; rows.len()]);
    assert_eq!(count(store, Liveness::Any).await, rows.len() as u64);
    assert_eq!(row(store, 999).await.as_ref(), rows.last());
}

/// C2: of concurrent copies of one row the newest stays, and all are counted once.
pub async fn c2_concurrent_versions_leave_the_newest<S: PortableStore + ?Sized + 'static>(
    h: &Handles<S>,
) {
    let rows: Vec<_> = (0..16)
        .map(|version| {
            let mut row = whole(0);
            row.last_seen_at = at(100 + i64::from(version));
            row
        })
        .collect();
    let newest = rows[15].clone();
    h.race(16, move |store, number| {
        let row = rows[number].clone();
        async move { store.put(&[row]).await.unwrap() }
    })
    .await;
    assert_eq!(row(h.store(), 0).await, Some(newest));
    assert_eq!(count(h.store(), Liveness::Any).await, 1);
}
