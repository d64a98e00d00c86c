//! L23: changes of subscriptions and outcomes in one transaction.

use super::Handles;
use super::sample::{at, claim, endpoint, new, put, row, sending};
use crate::broadcast::FinalOutcome;
use crate::store::{
    Change, DeliveryLedger, Failure, NewDelivery, RetireReason, Settled, Settlement,
    SubscriptionStore,
};

/// L23: both are made, each as its own call makes it. A ledger that keeps no subscriptions does nothing.
pub async fn l23_changes_and_outcomes_are_written_together<S>(h: &Handles<S>)
where
    S: DeliveryLedger + SubscriptionStore + ?Sized,
{
    let store = h.store();
    let rows = [1, 2, 3].map(|number| {
        let endpoint = endpoint(number);
        NewDelivery::new(endpoint.key(), endpoint.origin().clone())
    });
    for number in [1, 2, 3] {
        put(store, &new(number), at(-9)).await;
    }
    let id = sending(store, &rows, at(0)).await;
    let claimed = claim(store, 3, at(0)).await;
    let [first, second, third] = [1, 2, 3].map(|number| {
        let key = endpoint(number).key();
        let of = claimed.iter().find(|row| row.token.key == key);
        of.unwrap().token
    });
    let changes = [
        Change::Accepted(first.key),
        Change::Retire {
            key: second.key,
            reason: RetireReason::Gone,
            observed_at: at(0),
            failure: Failure::default(),
        },
        // It was seen later than that.
        Change::Stale {
            key: third.key,
            observed_at: at(-10),
            failure: Failure::default(),
        },
    ];
    let mut lost = third;
    lost.fence = u64::MAX >> 1;
    let ends = [
        (first, Settlement::Finished(FinalOutcome::Accepted)),
        (second, Settlement::Finished(FinalOutcome::Gone)),
        (lost, Settlement::Finished(FinalOutcome::Accepted)),
        (third, Settlement::RetryAt(at(60))),
    ];
    let settled = store.settle_with(&changes, &ends, at(1)).await.unwrap();
    let status = store.status(id, at(1)).await.unwrap().unwrap();
    let stored = [
        row(store, 1).await,
        row(store, 2).await,
        row(store, 3).await,
    ];
    let [first, second, third] = stored.map(Option::unwrap);
    let Some(settled) = settled else {
        assert_eq!(status.counts.pending, 3);
        assert_eq!((first.last_success_at, second.retired), (None, None));
        return;
    };
    let done = Settled::Done;
    assert_eq!(settled, [done, done, Settled::Lost, done]);
    let counts = status.counts;
    assert_eq!((counts.accepted, counts.gone, counts.pending), (1, 1, 1));
    assert_eq!(first.last_success_at, Some(at(1)));
    assert_eq!(second.retired.map(|retired| retired.at), Some(at(1)));
    assert_eq!(third.stale_since, None);
    let again = claim(store, 9, at(60)).await;
    assert_eq!(again.len(), 1);
    let nothing = store.settle_with(&[], &[], at(61)).await.unwrap();
    assert_eq!(nothing, Some(Vec::new()));
}
