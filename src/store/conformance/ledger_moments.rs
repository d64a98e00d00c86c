//! L3, L5, L9, L12 to L14 and L18: retries and leases that have ended, deadlines, the age of tallies, and clocks that differ.

use super::Handles;
use super::sample::{
    LEASE, at, broadcast, claim, claim_as, delivery, origin, recipient, sending, sending_as,
};
use crate::broadcast::{BroadcastState, FinalOutcome};
use crate::clock::Timestamp;
use crate::store::{
    ClaimRequest, Cursor, DeliveryLedger, LONGEST_WAIT, Pause, PauseReason, Settled, Settlement,
    Tally,
};

/// L3: a broadcast that was expanded by a process with a faster clock is due for the others too.
pub async fn l3_a_faster_clock_hides_no_broadcast<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let new = broadcast();
    ledger.open(&new, at(0)).await.unwrap();
    let next = Cursor::After(recipient(1));
    let rows = [delivery("a", 1)];
    ledger
        .enqueue_page(new.id, &Cursor::Start, &rows, &next, at(60))
        .await
        .unwrap();
    let found = h.second().expandable(9, at(1)).await.unwrap();
    let found: Vec<_> = found.iter().map(|one| (one.id, one.cursor)).collect();
    assert_eq!(found, [(new.id, next)]);
    assert_eq!(ledger.next_due(at(1)).await.unwrap(), Some(at(1)));
}

/// L3: a broadcast that a process with a faster clock expanded before its time is due at its time for the others.
pub async fn l3_a_faster_clock_makes_no_broadcast_due<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let mut new = broadcast();
    new.send_at = Some(at(30));
    ledger.open(&new, at(0)).await.unwrap();
    let next = Cursor::After(recipient(1));
    let rows = [delivery("a", 1)];
    ledger
        .enqueue_page(new.id, &Cursor::Start, &rows, &next, at(60))
        .await
        .unwrap();
    for secs in [1, 29] {
        let found = h.second().expandable(9, at(secs)).await.unwrap();
        assert_eq!(found, [], "{secs}");
    }
    let found = h.second().expandable(9, at(30)).await.unwrap();
    let found: Vec<_> = found.iter().map(|one| (one.id, one.cursor)).collect();
    assert_eq!(found, [(new.id, next)]);
}

/// L18: of several broadcasts with rows that are due again, the next row of each comes first.
pub async fn l18_the_next_rows_of_several_broadcasts_are_first<L>(h: &Handles<L>)
where
    L: DeliveryLedger + ?Sized,
{
    let ledger = h.store();
    sending(ledger, &[delivery("a", 1), delivery("a", 2)], at(0)).await;
    let retries = claim(ledger, 9, at(0)).await.into_iter().map(|row| {
        let again = if row.token.key == recipient(1) {
            20
        } else {
            40
        };
        (row.token, Settlement::RetryAt(at(again)))
    });
    let retries: Vec<_> = retries.collect();
    ledger.settle(&retries, at(1)).await.unwrap();
    sending(ledger, &[delivery("a", 3)], at(30)).await;
    let rows = claim(h.second(), 2, at(50)).await;
    let mut keys: Vec<_> = rows.iter().map(|row| row.token.key).collect();
    let mut next = [recipient(1), recipient(3)];
    keys.sort_unstable();
    next.sort_unstable();
    assert_eq!(keys, next);
}

/// L5: a time to send that is over at acceptance is the time of acceptance.
pub async fn l5_what_is_sent_late_is_due_when_it_was_accepted<L>(h: &Handles<L>)
where
    L: DeliveryLedger + ?Sized,
{
    let ledger = h.store();
    let mut new = broadcast();
    new.send_at = Some(at(-50));
    sending_as(ledger, &new, &[delivery("a", 1)], at(7)).await;
    let request = ClaimRequest::new(9, LEASE);
    let claims = h.second().claim(&request, at(8)).await.unwrap();
    assert_eq!(claims.messages[&new.id].due_at, at(7));
}

/// L9: a row whose lease has ended is not leased, and ends with the others.
pub async fn l9_cancel_ends_rows_whose_lease_has_ended<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let id = sending(ledger, &[delivery("a", 1), delivery("b", 2)], at(0)).await;
    assert_eq!(claim(ledger, 1, at(0)).await.len(), 1);
    let answer = h.second().cancel(id, at(0) + LEASE).await;
    let answer = answer.unwrap().unwrap();
    assert_eq!(answer.state, BroadcastState::Cancelled);
    assert_eq!((answer.counts.cancelled, answer.counts.pending), (2, 0));

    // Of one that was cancelled while the row was leased, and is past its deadline.
    let mut new = broadcast();
    new.deadline = at(10);
    sending_as(ledger, &new, &[delivery("a", 1)], at(0)).await;
    assert_eq!(claim(ledger, 9, at(5)).await.len(), 1);
    for (now, pending) in [(at(6), 1), (at(5) + LEASE, 0)] {
        let answer = ledger.cancel(new.id, now).await.unwrap().unwrap();
        assert_eq!(
            (answer.counts.pending, answer.counts.cancelled),
            (pending, 1 - pending)
        );
    }
}

/// L12: a row of a cancelled broadcast that is past its deadline when its lease ends is counted in the answer.
pub async fn l12_expire_counts_rows_of_cancelled_broadcasts<L: DeliveryLedger + ?Sized>(
    h: &Handles<L>,
) {
    let ledger = h.store();
    let mut new = broadcast();
    new.deadline = at(10);
    sending_as(ledger, &new, &[delivery("a", 1)], at(0)).await;
    assert_eq!(claim(ledger, 9, at(5)).await.len(), 1);
    ledger.cancel(new.id, at(6)).await.unwrap();
    assert_eq!(ledger.expire(9, at(10)).await.unwrap(), 0, "it is leased");
    assert_eq!(h.second().expire(9, at(5) + LEASE).await.unwrap(), 1);
    let end = ledger.status(new.id, at(99)).await.unwrap().unwrap();
    assert_eq!((end.counts.cancelled, end.counts.expired), (1, 0));
}

/// L12: a broadcast of which no row was written expires, however few rows may end.
pub async fn l12_a_broadcast_without_rows_expires<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let opened = [20, 25].map(|secs| {
        let mut new = broadcast();
        new.deadline = at(secs);
        new.recipients = 2;
        new
    });
    for new in &opened {
        ledger.open(new, at(0)).await.unwrap();
    }
    assert_eq!(h.second().expire(1, at(30)).await.unwrap(), 0, "no row");
    for new in &opened {
        let end = ledger.status(new.id, at(30)).await.unwrap().unwrap();
        let ended = (end.state, end.counts.expired, end.counts.pending);
        assert_eq!(ended, (BroadcastState::Done, 2, 0));
    }
}

/// L13: a tally is kept as long as it is young.
pub async fn l13_a_young_tally_is_kept<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let counts = Tally::new(3, 1);
    ledger
        .tally(&[(origin("a"), counts)], at(10))
        .await
        .unwrap();
    ledger.prune(at(9)).await.unwrap();
    let kept = h.second().tallies().await.unwrap();
    assert_eq!(kept, [(origin("a"), counts)]);
    ledger.prune(at(10)).await.unwrap();
    assert_eq!(h.second().tallies().await.unwrap(), []);
}

/// L13: a pause is kept as long as it is young. It is as old as its end.
pub async fn l13_a_young_pause_is_kept<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let reason = PauseReason::RateLimited;
    let pause = Pause::new(origin("a"), at(20), reason);
    ledger.pause(&pause, at(0)).await.unwrap();
    for ended_before in [9, 19] {
        ledger.prune(at(ended_before)).await.unwrap();
        let kept = h.second().pauses(at(10)).await.unwrap();
        assert_eq!(kept, std::slice::from_ref(&pause), "{ended_before}");
    }
    ledger.prune(at(20)).await.unwrap();
    // As of a moment before its end, it would be listed if it were still stored.
    assert_eq!(h.second().pauses(at(10)).await.unwrap(), []);
}

/// L14: the deadline of rows that wait for a paused origin is something to do.
pub async fn l14_a_deadline_is_due<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let mut new = broadcast();
    new.deadline = at(20);
    sending_as(ledger, &new, &[delivery("a", 1)], at(0)).await;
    let pause = Pause::new(origin("a"), at(500), PauseReason::RateLimited);
    ledger.pause(&pause, at(0)).await.unwrap();
    assert_eq!(h.second().next_due(at(1)).await.unwrap(), Some(at(20)));
    assert_eq!(ledger.expire(9, at(20)).await.unwrap(), 1);
    assert_eq!(h.second().next_due(at(20)).await.unwrap(), None);
}

/// L12: the due time of a row, or the end of its lease, that no correct clock wrote counts as over.
pub async fn l12_what_is_due_later_than_any_wait_is_due<L>(h: &Handles<L>)
where
    L: DeliveryLedger + ?Sized,
{
    let ledger = h.store();
    let mut new = broadcast();
    let days = |days: i64| at(days * 86_400);
    new.deadline = days(28);
    let rows = [delivery("a", 1), delivery("a", 2), delivery("b", 3)];
    sending_as(ledger, &new, &rows, at(0)).await;
    let retries = claim(ledger, 9, at(0)).await.into_iter().map(|row| {
        let again = if row.token.key == recipient(1) {
            at(2) + LONGEST_WAIT
        } else {
            days(20)
        };
        (row.token, Settlement::RetryAt(again))
    });
    let retries: Vec<_> = retries.collect();
    ledger.settle(&retries, at(1)).await.unwrap();
    assert_eq!(claim(h.second(), 9, at(2)).await.len(), 0);
    assert_eq!(ledger.expire(100, at(2)).await.unwrap(), 0);
    assert_eq!(ledger.next_due(at(2)).await.unwrap(), Some(at(2)));
    let long = ClaimRequest::new(9, days(20).since(at(0)));
    let rows = claim_as(h.second(), &long, at(2)).await;
    assert!(rows.iter().all(|row| row.token.key != recipient(1)));
    assert_eq!(rows.len(), 2);

    // A lease too.
    assert_eq!(claim(ledger, 9, at(3)).await.len(), 0);
    assert_eq!(ledger.expire(100, at(3)).await.unwrap(), 0);
    assert_eq!(claim(ledger, 9, at(4)).await.len(), 2);
}

/// L12, L21: a row that is due in the farthest future was written by a wrong clock too, and is none that was put aside.
pub async fn l12_no_due_time_is_that_of_a_row_put_aside<L>(h: &Handles<L>)
where
    L: DeliveryLedger + ?Sized,
{
    let ledger = h.store();
    for far in [Timestamp::from_millis(1 << 62), Timestamp::MAX] {
        let new = broadcast();
        sending_as(ledger, &new, &[delivery("a", 1)], at(0)).await;
        let ends = async |settlement, secs| {
            let rows = claim(h.second(), 9, at(secs)).await;
            let tokens: Vec<_> = rows.iter().map(|row| (row.token, settlement)).collect();
            assert_eq!(tokens.len(), 1, "{far:?}");
            assert_eq!(tokens[0].0.broadcast, new.id);
            let settled = ledger.settle(&tokens, at(secs)).await.unwrap();
            assert_eq!(settled, [Settled::Done]);
        };
        ends(Settlement::RetryAt(far), 1).await;
        assert_eq!(claim(h.second(), 9, at(2)).await.len(), 0);
        assert_eq!(ledger.expire(100, at(2)).await.unwrap(), 0);
        ends(Settlement::Finished(FinalOutcome::Accepted), 3).await;
    }
}
