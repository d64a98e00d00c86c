//! S16: the limit for unproven rows.

use super::Handles;
use super::sample::{at, delete, endpoint, new, of, purge, put, rekeyed, row};
use crate::store::{
    Change, Failure, NewSubscription, RetireReason, StoreError, StoreErrorKind, SubscriptionLimits,
    SubscriptionStore, Upserted,
};

/// A distinct row.
const PROBE: u32 = 99;

async fn upsert<S: SubscriptionStore + ?Sized>(
    store: &S,
    new: &NewSubscription,
    unproven: u64,
) -> Result<Upserted, StoreError> {
    let limits = SubscriptionLimits::default().with_unproven(unproven);
    store.upsert(new, &limits, at(50)).await
}

async fn is_refused<S: SubscriptionStore + ?Sized>(
    store: &S,
    new: &NewSubscription,
    unproven: u64,
) -> bool {
    let Err(error) = upsert(store, new, unproven).await else {
        return false;
    };
    assert_eq!(error.kind(), StoreErrorKind::Full);
    true
}

/// Asserts the number of unproven rows, found by which inserts are accepted. Leaves the store unchanged.
async fn has_unproven<S: SubscriptionStore + ?Sized>(store: &S, expected: u64, what: &str) {
    assert!(is_refused(store, &new(PROBE), expected).await, "{what}");
    assert_eq!(row(store, PROBE).await, None, "{what}");
    assert!(
        !is_refused(store, &new(PROBE), expected + 1).await,
        "{what}"
    );
    let delete = delete(endpoint(PROBE).key());
    store.apply(&[delete], at(50)).await.unwrap();
}

async fn apply<S: SubscriptionStore + ?Sized>(store: &S, change: &Change) {
    let change = std::slice::from_ref(change);
    store.apply(change, at(10)).await.unwrap();
}

/// All changes after which a row is not unproven.
fn verdicts(number: u32) -> [Change; 4] {
    let (key, observed_at) = (endpoint(number).key(), at(10));
    let reason = RetireReason::Gone;
    [
        Change::Accepted(key),
        Change::Stale {
            key,
            observed_at,
            failure: Failure::default(),
        },
        Change::Retire {
            key,
            reason,
            observed_at,
            failure: Failure::default(),
        },
        delete(key),
    ]
}

/// S16: inserts above the limit are refused and change nothing. Updates, replacements and principals' rows are not refused.
pub async fn s16_unproven_rows_have_a_limit<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    assert!(is_refused(store, &new(1), 0).await);
    for number in [1, 2] {
        assert!(!is_refused(store, &new(number), 2).await);
    }
    assert!(is_refused(store, &new(3), 2).await);
    assert_eq!(row(store, 3).await, None);

    assert!(!is_refused(store, &new(2), 0).await, "a known one");
    assert_eq!(row(store, 2).await.unwrap().last_seen_at, at(50));
    assert!(!is_refused(store, &of("alice", new(4)), 0).await);
    let mut renewed = new(5);
    renewed.replaces = Some(endpoint(1).key());
    assert!(!is_refused(store, &renewed, 0).await, "a replacement");
    assert_eq!(row(store, 1).await, None);
    let mut unknown = new(6);
    unknown.replaces = Some(endpoint(1).key());
    assert!(is_refused(store, &unknown, 2).await, "it replaces nothing");
    has_unproven(store, 2, "rows 2 and 5").await;
}

/// S16: an acceptance, retirement, staleness or a principal takes a row out of the count once.
pub async fn s16_a_verdict_takes_a_row_out_of_the_count<S: SubscriptionStore + ?Sized>(
    h: &Handles<S>,
) {
    let store = h.store();
    for verdict in verdicts(1) {
        for number in [1, 2] {
            put(store, &new(number), at(0)).await;
        }
        has_unproven(store, 2, "before").await;
        let key = endpoint(1).key();
        apply(
            store,
            &Change::Failed {
                key,
                failure: Failure::default(),
            },
        )
        .await;
        let vapid_key = super::sample::key_id(7);
        apply(store, &Change::UseVapidKey { key, vapid_key }).await;
        has_unproven(store, 2, "no verdict").await;
        for _ in 0..2 {
            apply(store, &verdict).await;
            has_unproven(store, 1, &format!("{verdict:?}")).await;
        }
        // Further changes do not count again.
        for other in verdicts(1) {
            apply(store, &other).await;
            has_unproven(store, 1, &format!("{verdict:?}, then {other:?}")).await;
        }
    }
    put(store, &of("alice", new(2)), at(0)).await;
    has_unproven(store, 0, "passed to a principal").await;
}

/// S16: a revived row counts again, unless a push was accepted before.
pub async fn s16_a_revived_row_counts_again<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let [accepted, stale, retire, _] = verdicts(1);
    for verdict in [&stale, &retire] {
        put(store, &new(1), at(0)).await;
        apply(store, verdict).await;
        has_unproven(store, 0, "before").await;
        assert!(!is_refused(store, &new(1), 0).await, "a known one");
        has_unproven(store, 1, "revived").await;
    }
    apply(store, &accepted).await;
    apply(store, &retire).await;
    put(store, &new(1), at(50)).await;
    has_unproven(store, 0, "revived, and proven").await;

    // It was replaced by another endpoint, for which no push was accepted.
    let mut renewed = new(2);
    renewed.replaces = Some(endpoint(1).key());
    put(store, &renewed, at(51)).await;
    has_unproven(store, 1, "replaced").await;
    apply(store, &delete(endpoint(2).key())).await;
    apply(store, &purge(99)).await;
    has_unproven(store, 0, "purged").await;
}

/// S16: the count is exact after concurrent inserts, refusals, conflicts and changes.
pub async fn s16_concurrent_changes_keep_the_count<S: SubscriptionStore + ?Sized>(h: &Handles<S>) {
    const ROWS: u32 = 6;
    h.race(8, |store, task| async move {
        for round in 0..3 {
            for number in 0..ROWS {
                let number = (number + u32::try_from(task).unwrap()) % ROWS;
                let _ = upsert(&*store, &new(number), 4).await;
                let _ = upsert(&*store, &rekeyed(new(number)), 4).await;
                let which = task + usize::try_from(number).unwrap() + round;
                let [.., retire, delete] = verdicts(number);
                match which % 3 {
                    0 => apply(&*store, &delete).await,
                    1 => apply(&*store, &retire).await,
                    _ => {}
                }
            }
        }
    })
    .await;
    let store = h.second();
    let mut unproven = 0;
    for number in 0..ROWS {
        let row = row(store, number).await;
        unproven += u64::from(row.is_some_and(|row| row.is_unproven()));
    }
    has_unproven(store, unproven, "afterwards").await;
    for number in 0..ROWS {
        apply(store, &delete(endpoint(number).key())).await;
        put(store, &new(number), at(60)).await;
    }
    has_unproven(store, ROWS.into(), "all of them").await;
    h.race(8, |store, task| async move {
        let [accepted, ..] = verdicts(u32::try_from(task).unwrap() % ROWS);
        apply(&*store, &accepted).await;
    })
    .await;
    has_unproven(store, 0, "all accepted").await;
}
