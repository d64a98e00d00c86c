//! L14: the time of the next work.

use super::Handles;
use super::sample::{LEASE, at, broadcast, claim, delivery, origin, sending, sending_as};
use crate::broadcast::{Audience, FinalOutcome};
use crate::clock::Timestamp;
use crate::message::Message;
use crate::store::{DeliveryLedger, NewBroadcast, Pause, PauseReason, STEP, Settlement};

/// Returns `next_due`. Asserts that it is `now` only if there is work, and never later than the next work.
async fn next_due<L: DeliveryLedger + ?Sized>(ledger: &L, secs: i64) -> Option<Timestamp> {
    let next = ledger.next_due(at(secs)).await.unwrap();
    assert!(next.is_none_or(|next| next >= at(secs)));
    next
}

/// L14: `None`, then broadcasts as they become due.
pub async fn l14_a_scheduled_broadcast_is_due_then<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    assert_eq!(next_due(ledger, 0).await, None);
    let mut later = broadcast();
    later.send_at = Some(at(50));
    ledger.open(&later, at(0)).await.unwrap();
    assert_eq!(next_due(ledger, 0).await, Some(at(50)));
    assert_eq!(next_due(ledger, 51).await, Some(at(51)));
    let now = broadcast();
    ledger.open(&now, at(10)).await.unwrap();
    assert_eq!(next_due(ledger, 10).await, Some(at(10)));
    ledger.cancel(now.id, at(10)).await.unwrap();
    assert_eq!(next_due(ledger, 10).await, Some(at(50)));
    ledger.cancel(later.id, at(10)).await.unwrap();
    assert_eq!(next_due(ledger, 10).await, None);
}

/// L14: rows as they become due, leases as they end.
pub async fn l14_rows_are_due_as_they_can_be_claimed<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    sending(ledger, &[delivery("a", 1), delivery("b", 2)], at(0)).await;
    assert_eq!(next_due(ledger, 0).await, Some(at(0)));
    let claimed = claim(ledger, 9, at(0)).await;
    assert_eq!(next_due(ledger, 1).await, Some(at(0) + LEASE));
    let retry = [(claimed[0].token, Settlement::RetryAt(at(20)))];
    ledger.settle(&retry, at(1)).await.unwrap();
    assert_eq!(next_due(h.second(), 1).await, Some(at(20)));
    let ended = Settlement::Finished(FinalOutcome::Accepted);
    ledger
        .settle(&[(claimed[1].token, ended)], at(1))
        .await
        .unwrap();
    ledger
        .pause(
            &Pause::new(claimed[0].origin.clone(), at(70), PauseReason::RateLimited),
            at(2),
        )
        .await
        .unwrap();
    assert_eq!(next_due(ledger, 30).await, Some(at(70)), "it is paused");
    let last = claim(ledger, 9, at(70)).await;
    ledger
        .settle(&[(last[0].token, ended)], at(71))
        .await
        .unwrap();
    assert_eq!(next_due(ledger, 71).await, None);
}

/// L14: a worker that waits for `next_due` does not spin, even if everything is late.
pub async fn l14_what_is_late_and_leased_is_not_due<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let new = NewBroadcast::new(Audience::All, Message::new("x"), at(10));
    sending_as(ledger, &new, &[delivery("a", 1)], at(0)).await;
    claim(ledger, 9, at(0)).await;
    ledger.expire(9, at(20)).await.unwrap();
    assert_eq!(next_due(ledger, 20).await, Some(at(0) + LEASE));
}

/// L14: origins that were paused while they could be claimed from do not hide the rows of another.
pub async fn l14_paused_origins_hide_no_other<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let paused = STEP as u32 + 5;
    let name = |number: u32| format!("a{number:04}");
    let mut rows: Vec<_> = (0..paused)
        .map(|number| delivery(&name(number), number))
        .collect();
    rows.push(delivery("b", paused));
    rows.push(delivery("b", paused + 1));
    sending(ledger, &rows, at(0)).await;
    // All are among those that can be claimed from.
    for _ in 0..2 {
        let claimed = claim(ledger, 1, at(1)).await;
        let tokens: Vec<_> = claimed.iter().map(|row| row.token).collect();
        ledger.release(&tokens, at(1)).await.unwrap();
    }
    for number in 0..paused {
        let pause = Pause::new(origin(&name(number)), at(600), PauseReason::RateLimited);
        ledger.pause(&pause, at(2)).await.unwrap();
    }
    assert_eq!(ledger.next_due(at(2)).await.unwrap(), Some(at(2)));
    let claimed = claim(ledger, 8, at(2)).await;
    assert_eq!(claimed.len(), 2);
}

/// L14: paused origins whose rows have ended hide none whose pause ends later.
pub async fn l14_paused_origins_without_rows_hide_no_other<L>(h: &Handles<L>)
where
    L: DeliveryLedger + ?Sized,
{
    const TASKS: usize = 8;
    let ledger = h.store();
    let number = STEP as u32;
    let name = |number: u32| format!("a{number:04}");
    let rows = (0..number).map(|number| delivery(&name(number), number));
    let cancelled = sending(ledger, &rows.collect::<Vec<_>>(), at(0)).await;
    sending(ledger, &[delivery("b", number)], at(0)).await;
    h.race(TASKS, |ledger, task| async move {
        for number in (0..number).skip(task).step_by(TASKS) {
            let pause = Pause::new(origin(&name(number)), at(50), PauseReason::RateLimited);
            ledger.pause(&pause, at(1)).await.unwrap();
        }
    })
    .await;
    let longer = Pause::new(origin("b"), at(60), PauseReason::RateLimited);
    ledger.pause(&longer, at(1)).await.unwrap();
    for _ in 0..number {
        let status = ledger.cancel(cancelled, at(2)).await.unwrap();
        if status.unwrap().counts.pending == 0 {
            break;
        }
    }
    assert_eq!(ledger.stats(at(10)).await.unwrap().depth, 1);
    let next = next_due(ledger, 10).await;
    assert!(next.is_some_and(|next| next <= at(60)), "{next:?}");
}
