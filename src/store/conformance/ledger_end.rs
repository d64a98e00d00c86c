//! L9, L10 and L12: how broadcasts end.

use super::Handles;
use super::sample::{
    LEASE, at, broadcast, claim, delivery, origin, recipient, sending, sending_as,
};
use crate::broadcast::{BroadcastId, BroadcastState, BroadcastStatus, FinalOutcome};
use crate::store::{
    Cursor, DeliveryLedger, Opened, Page, Pause, PauseReason, STEP, Settled, Settlement,
};

const ACCEPTED: Settlement = Settlement::Finished(FinalOutcome::Accepted);

/// Returns the status. Asserts that its counts add up.
async fn status<L: DeliveryLedger + ?Sized>(
    ledger: &L,
    id: BroadcastId,
    secs: i64,
) -> BroadcastStatus {
    let status = ledger.status(id, at(secs)).await.unwrap().unwrap();
    let sum = status.counts.pending + status.counts.finished();
    assert_eq!(sum, status.recipients, "{status:?}");
    status
}

/// L9: rows without a lease end as cancelled. Leased rows may end otherwise.
pub async fn l9_cancel_ends_what_is_not_leased<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let rows: Vec<_> = (0..5).map(|n| delivery("a", n)).collect();
    let id = sending(ledger, &rows, at(0)).await;
    let leased = claim(ledger, 3, at(0)).await;
    let answer = h.second().cancel(id, at(1)).await.unwrap().unwrap();
    assert_eq!(answer.state, BroadcastState::Cancelled);
    assert_eq!((answer.counts.cancelled, answer.counts.pending), (2, 3));
    assert_eq!(claim(ledger, 9, at(1)).await.len(), 0);
    let again = ledger.cancel(id, at(2)).await.unwrap().unwrap();
    assert_eq!(again, answer);

    let settlements = [
        (leased[0].token, ACCEPTED),
        (leased[1].token, Settlement::RetryAt(at(3))),
    ];
    let answers = ledger.settle(&settlements, at(2)).await.unwrap();
    assert_eq!(answers, [Settled::Done; 2]);
    ledger.release(&[leased[2].token], at(2)).await.unwrap();
    let end = status(ledger, id, 2).await;
    assert_eq!(end.state, BroadcastState::Cancelled);
    assert_eq!((end.counts.accepted, end.counts.cancelled), (1, 4));
    assert_eq!(end.counts.pending, 0);
    assert_eq!(claim(ledger, 9, at(9)).await.len(), 0);
}

/// L9: a row ends with its lease after the cancellation.
pub async fn l9_a_cancelled_row_is_not_claimed_again<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let id = sending(ledger, &[delivery("a", 1)], at(0)).await;
    let leased = claim(ledger, 9, at(0)).await;
    ledger.cancel(id, at(1)).await.unwrap();
    assert_eq!(claim(ledger, 9, at(0) + LEASE).await.len(), 0);
    let end = status(ledger, id, 50).await;
    assert_eq!((end.counts.cancelled, end.counts.pending), (1, 0));
    let late = ledger.settle(&[(leased[0].token, ACCEPTED)], at(51)).await;
    assert_eq!(late.unwrap(), [Settled::Lost]);
}

/// L9: recipients that were not yet written are cancelled too.
pub async fn l9_cancel_stops_the_expansion<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let mut new = broadcast();
    new.recipients = 10;
    ledger.open(&new, at(0)).await.unwrap();
    let after = Cursor::After(recipient(1));
    let rows = [delivery("a", 1)];
    ledger
        .enqueue_page(new.id, &Cursor::Start, &rows, &after, at(0))
        .await
        .unwrap();
    ledger.cancel(new.id, at(1)).await.unwrap();
    assert_eq!(ledger.expandable(9, at(1)).await.unwrap(), []);
    let end = status(ledger, new.id, 1).await;
    assert_eq!((end.counts.cancelled, end.recipients), (10, 10));
    let unknown = ledger.cancel(broadcast().id, at(1)).await.unwrap();
    assert_eq!(unknown, None);
}

/// Opens a broadcast with this number of rows at three origins.
async fn sending_many<L: DeliveryLedger + ?Sized>(ledger: &L, rows: usize) -> BroadcastId {
    let rows = (0..).zip(["a", "b", "c"].iter().cycle()).take(rows);
    let rows: Vec<_> = rows.map(|(n, origin)| delivery(origin, n)).collect();
    sending(ledger, &rows, at(0)).await
}

/// L9: a large cancellation takes effect at once, and is complete when repeated calls change nothing.
pub async fn l9_a_large_cancellation_takes_steps<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    const ROWS: usize = 2 * STEP + 7;
    let ledger = h.store();
    let id = sending_many(ledger, ROWS).await;
    let leased = claim(ledger, 5, at(0)).await;
    let mut answer = ledger.cancel(id, at(1)).await.unwrap().unwrap();
    assert_eq!(answer.state, BroadcastState::Cancelled);
    assert_eq!(ledger.expandable(9, at(1)).await.unwrap(), []);
    loop {
        let next = h.second().cancel(id, at(1)).await.unwrap().unwrap();
        assert!(next.counts.pending <= answer.counts.pending);
        if next.counts.pending == answer.counts.pending {
            break;
        }
        answer = next;
    }
    let end = status(ledger, id, 1).await;
    assert_eq!(
        (end.counts.cancelled, end.counts.pending),
        (ROWS as u64 - 5, 5)
    );
    let tokens: Vec<_> = leased.iter().map(|row| row.token).collect();
    ledger.release(&tokens, at(2)).await.unwrap();
    assert_eq!(status(ledger, id, 2).await.counts.cancelled, ROWS as u64);
    assert_eq!(ledger.next_due(at(2)).await.unwrap(), None);
}

/// L9: claims take other rows only, and end the rest of a cancellation that its caller does not complete.
pub async fn l9_claims_complete_a_cancellation<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    const ROWS: usize = 2 * STEP + 7;
    let ledger = h.store();
    let id = sending_many(ledger, ROWS).await;
    let other = sending(ledger, &[delivery("a", 1)], at(0)).await;
    ledger.cancel(id, at(1)).await.unwrap();
    let claimed = claim(h.second(), 9, at(1)).await;
    let broadcasts: Vec<_> = claimed.iter().map(|row| row.token.broadcast).collect();
    assert_eq!(broadcasts, [other]);
    let settled = ledger.settle(&[(claimed[0].token, ACCEPTED)], at(1)).await;
    settled.unwrap();
    for _ in 0..=ROWS {
        if ledger.next_due(at(1)).await.unwrap().is_none() {
            break;
        }
        assert_eq!(claim(ledger, 9, at(1)).await.len(), 0);
    }
    let end = status(ledger, id, 1).await;
    assert_eq!((end.counts.cancelled, end.counts.pending), (ROWS as u64, 0));
}

/// L9: a finished broadcast stays done.
pub async fn l9_a_done_broadcast_is_not_cancelled<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let id = sending(ledger, &[delivery("a", 1)], at(0)).await;
    let claimed = claim(ledger, 9, at(0)).await;
    let settled = ledger.settle(&[(claimed[0].token, ACCEPTED)], at(1)).await;
    settled.unwrap();
    let answer = ledger.cancel(id, at(2)).await.unwrap().unwrap();
    assert_eq!(answer.state, BroadcastState::Done);
    assert_eq!((answer.counts.accepted, answer.counts.cancelled), (1, 0));
}

/// L10: the state at each step of a broadcast's life.
pub async fn l10_the_state_follows_the_rows<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let mut new = broadcast();
    new.recipients = 1;
    new.send_at = Some(at(10));
    ledger.open(&new, at(0)).await.unwrap();
    assert_eq!(
        status(ledger, new.id, 9).await.state,
        BroadcastState::Scheduled
    );
    assert_eq!(
        status(ledger, new.id, 10).await.state,
        BroadcastState::Expanding
    );
    let rows = [delivery("a", 1), delivery("b", 2)];
    ledger
        .enqueue_page(new.id, &Cursor::Start, &rows, &Cursor::End, at(10))
        .await
        .unwrap();
    assert_eq!(
        status(ledger, new.id, 10).await.state,
        BroadcastState::Sending
    );
    let claimed = claim(ledger, 9, at(10)).await;
    for (row, state) in claimed
        .iter()
        .zip([BroadcastState::Sending, BroadcastState::Done])
    {
        ledger
            .settle(&[(row.token, ACCEPTED)], at(11))
            .await
            .unwrap();
        assert_eq!(status(ledger, new.id, 11).await.state, state);
    }
    let done = status(h.second(), new.id, 12).await;
    assert_eq!((done.recipients, done.counts.accepted), (2, 2));
    assert_eq!((done.send_at, done.created_at), (Some(at(10)), at(0)));
    assert_eq!(ledger.status(broadcast().id, at(0)).await.unwrap(), None);
}

/// L10: a broadcast to an empty audience is done once it is expanded.
pub async fn l10_an_empty_broadcast_is_done<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let mut new = broadcast();
    new.recipients = 3;
    sending_as(h.store(), &new, &[], at(0)).await;
    let done = status(h.store(), new.id, 0).await;
    assert_eq!((done.state, done.recipients), (BroadcastState::Done, 0));
    assert_eq!(h.store().next_due(at(0)).await.unwrap(), None);
}

/// L12: rows past their deadline end, paused or not, but not while they are leased.
pub async fn l12_expire_ends_what_is_late<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let mut new = broadcast();
    new.deadline = at(30);
    let rows: Vec<_> = (0..6).map(|n| delivery("a", n)).collect();
    sending_as(ledger, &new, &rows, at(0)).await;
    let other = sending(ledger, &[delivery("a", 1)], at(0)).await;
    let leased = claim(ledger, 3, at(0)).await;
    let (retried, held): (Vec<_>, Vec<_>) = leased
        .iter()
        .filter(|row| row.token.broadcast == new.id)
        .partition(|row| row.token.key == leased[0].token.key);
    let pause = Pause::new(origin("a"), at(99), PauseReason::Unreachable);
    ledger.pause(&pause, at(0)).await.unwrap();
    let later = Settlement::RetryAt(at(80));
    ledger
        .settle(&[(retried[0].token, later)], at(1))
        .await
        .unwrap();
    assert_eq!(ledger.expire(100, at(29)).await.unwrap(), 0);
    let free = 6 - held.len() as u64;
    assert_eq!(ledger.expire(2, at(30)).await.unwrap(), 2);
    assert_eq!(status(ledger, new.id, 30).await.counts.expired, 2);
    assert_eq!(ledger.expire(100, at(30)).await.unwrap(), free - 2);
    let left = status(ledger, new.id, 30).await;
    assert_eq!(
        (left.counts.expired, left.counts.pending),
        (free, held.len() as u64)
    );
    // After the leases have ended, the rows expire.
    assert_eq!(
        ledger.expire(100, at(0) + LEASE).await.unwrap(),
        held.len() as u64
    );
    assert_eq!(status(ledger, new.id, 50).await.state, BroadcastState::Done);
    assert_eq!(status(ledger, other, 50).await.counts.expired, 0);
}

/// L12: a call ends as many rows as it may, of however many broadcasts.
pub async fn l12_many_late_broadcasts_end_in_one_call<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    for _ in 0..600 {
        let mut new = broadcast();
        new.deadline = at(30);
        new.page = Some(Page::new(vec![delivery("a", 1)], Cursor::End));
        assert_eq!(ledger.open(&new, at(0)).await.unwrap(), Opened::New);
    }
    assert_eq!(ledger.expire(400, at(30)).await.unwrap(), 400);
    assert_eq!(ledger.expire(400, at(30)).await.unwrap(), 200);
    assert_eq!(ledger.stats(at(30)).await.unwrap().depth, 0);
}

/// L12: recipients that were not written by the deadline expire too.
pub async fn l12_expire_stops_the_expansion<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let mut new = broadcast();
    new.recipients = 4;
    new.deadline = at(30);
    ledger.open(&new, at(0)).await.unwrap();
    let after = Cursor::After(recipient(1));
    let rows = [delivery("a", 1)];
    ledger
        .enqueue_page(new.id, &Cursor::Start, &rows, &after, at(0))
        .await
        .unwrap();
    assert_eq!(ledger.expire(9, at(30)).await.unwrap(), 1, "one row");
    let end = status(ledger, new.id, 30).await;
    assert_eq!((end.state, end.counts.expired), (BroadcastState::Done, 4));
    assert_eq!(ledger.expire(9, at(31)).await.unwrap(), 0);
}
