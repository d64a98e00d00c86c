//! L21: paused broadcasts.

use super::Handles;
use super::sample::{
    LEASE, at, broadcast, claim, delivery, endpoint, key_id, recipient, sending, sending_as,
    subscription, unknown_id,
};
use crate::broadcast::{BroadcastId, BroadcastState, BroadcastStatus, FinalOutcome};
use crate::clock::Timestamp;
use crate::store::{
    ClaimRequest, Cursor, DeliveryLedger, LONGEST_WAIT, NewDelivery, PageWrite, STEP, Settled,
    Settlement, SubscriptionRecord, Tally,
};

const ACCEPTED: Settlement = Settlement::Finished(FinalOutcome::Accepted);

async fn hold<L: DeliveryLedger + ?Sized>(
    ledger: &L,
    id: BroadcastId,
    is_held: bool,
    now: Timestamp,
) -> BroadcastStatus {
    ledger.hold(id, is_held, now).await.unwrap().unwrap()
}

/// Claims as long as there may be more. Returns the number of rows.
async fn claim_all<L: DeliveryLedger + ?Sized>(ledger: &L, now: Timestamp) -> usize {
    let mut rows = 0;
    loop {
        let request = ClaimRequest::new(10_000, LEASE);
        let claims = ledger.claim(&request, now).await.unwrap();
        rows += claims.rows.len();
        if claims.rows.is_empty() && !claims.more {
            return rows;
        }
    }
}

/// Nothing is claimed, and no worker has to look before the deadline, or before a row is due that is not ready yet.
async fn is_quiet<L: DeliveryLedger + ?Sized>(ledger: &L, now: Timestamp) {
    assert_eq!(claim_all(ledger, now).await, 0);
    let next = ledger.next_due(now).await.unwrap();
    assert!(next.is_none_or(|next| next > now), "{next:?}");
}

/// L21: between two pages nothing more is written, whichever process has listed it before.
pub async fn l21_a_paused_broadcast_is_not_expanded<L>(h: &Handles<L>)
where
    L: DeliveryLedger + ?Sized,
{
    let ledger = h.store();
    let (new, other) = (broadcast(), broadcast());
    ledger.open(&new, at(0)).await.unwrap();
    ledger.open(&other, at(1)).await.unwrap();
    let next = Cursor::After(recipient(1));
    let write = async |ledger: &L, from: Cursor, row: NewDelivery, to: Cursor| {
        let page = ledger.enqueue_page(new.id, &from, &[row], &to, at(2)).await;
        page.unwrap()
    };
    let first = write(ledger, Cursor::Start, delivery("a", 1), next).await;
    assert_eq!(first, PageWrite::Stored);
    let held = hold(h.second(), new.id, true, at(2)).await;
    assert_eq!(held.state, BroadcastState::Paused);
    let stale = write(ledger, next, delivery("a", 2), Cursor::End).await;
    assert_eq!(stale, PageWrite::Stale);
    let found = ledger.expandable(9, at(3)).await.unwrap();
    let found: Vec<_> = found.iter().map(|one| one.id).collect();
    assert_eq!(found, [other.id]);
    ledger.cancel(other.id, at(3)).await.unwrap();
    is_quiet(ledger, at(3)).await;
    let status = ledger.status(new.id, at(3)).await.unwrap().unwrap();
    assert_eq!((status.state, status.counts.pending), (held.state, 1));

    let goes_on = hold(ledger, new.id, false, at(4)).await;
    assert_eq!(goes_on.state, BroadcastState::Expanding);
    assert_eq!(h.second().next_due(at(4)).await.unwrap(), Some(at(4)));
    let found = h.second().expandable(9, at(4)).await.unwrap();
    assert_eq!((found[0].id, found[0].cursor), (new.id, next));
    let last = write(h.second(), next, delivery("a", 2), Cursor::End).await;
    assert_eq!(last, PageWrite::Stored);
    assert_eq!(claim_all(ledger, at(4)).await, 2);
}

/// L21: a broadcast may be paused before its time. It is due when it goes on.
pub async fn l21_a_scheduled_broadcast_may_be_paused<L>(h: &Handles<L>)
where
    L: DeliveryLedger + ?Sized,
{
    let ledger = h.store();
    let mut new = broadcast();
    new.send_at = Some(at(10));
    ledger.open(&new, at(0)).await.unwrap();
    let held = hold(ledger, new.id, true, at(1)).await;
    assert_eq!(held.state, BroadcastState::Paused);
    is_quiet(h.second(), at(11)).await;
    assert_eq!(h.second().expandable(9, at(11)).await.unwrap(), []);
    hold(h.second(), new.id, false, at(12)).await;
    assert_eq!(ledger.next_due(at(12)).await.unwrap(), Some(at(12)));
    assert_eq!(ledger.expandable(9, at(12)).await.unwrap().len(), 1);
}

/// L21: ready rows wait, for every process, and become ready again. They stay pending.
pub async fn l21_ready_rows_wait_until_it_goes_on<L>(h: &Handles<L>)
where
    L: DeliveryLedger + ?Sized,
{
    let ledger = h.store();
    let rows = [delivery("a", 1), delivery("a", 2), delivery("b", 3)];
    let id = sending(ledger, &rows, at(0)).await;
    hold(ledger, id, true, at(1)).await;
    let other = sending(ledger, &[delivery("a", 4)], at(1)).await;
    let rows = claim(h.second(), 9, at(2)).await;
    let of: Vec<_> = rows.iter().map(|row| row.token.broadcast).collect();
    assert_eq!(of, [other]);
    let done = [(rows[0].token, ACCEPTED)];
    ledger.settle(&done, at(2)).await.unwrap();
    for ledger in [h.store(), h.second()] {
        is_quiet(ledger, at(3)).await;
    }
    let status = h.second().status(id, at(3)).await.unwrap().unwrap();
    let told = (status.state, status.counts.pending);
    assert_eq!(told, (BroadcastState::Paused, 3));
    let stats = ledger.stats(at(3)).await.unwrap();
    assert_eq!((stats.depth, stats.leased), (3, 0));
    assert_eq!(stats.oldest_due, None);

    let goes_on = hold(h.second(), id, false, at(4)).await;
    assert_eq!(goes_on.state, BroadcastState::Sending);
    assert_eq!(ledger.next_due(at(4)).await.unwrap(), Some(at(4)));
    let rows = claim(ledger, 9, at(4)).await;
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.attempt == 1));
    assert_eq!(claim_all(h.second(), at(4)).await, 0);
}

/// L21: what is leased is settled as ever. A row that is due again, or whose lease has ended, waits, and its token is valid.
pub async fn l21_leased_rows_are_settled<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let rows = [1, 2, 3, 4, 5].map(|number| delivery("a", number));
    let id = sending(ledger, &rows, at(0)).await;
    let rows = claim(ledger, 9, at(0)).await;
    hold(h.second(), id, true, at(1)).await;
    let ends = [
        (rows[0].token, ACCEPTED),
        (rows[1].token, Settlement::RetryAt(at(5))),
        (rows[2].token, Settlement::Deferred(at(2))),
    ];
    let settled = ledger.settle(&ends, at(2)).await.unwrap();
    assert_eq!(settled, [Settled::Done; 3]);
    is_quiet(h.second(), at(2)).await;
    // Leases of the last two have ended.
    is_quiet(h.second(), at(0) + LEASE).await;
    let stats = ledger.stats(at(0) + LEASE).await.unwrap();
    assert_eq!((stats.depth, stats.leased), (4, 0));
    let late = [(rows[3].token, ACCEPTED)];
    let settled = ledger.settle(&late, at(50)).await.unwrap();
    assert_eq!(settled, [Settled::Done]);
    hold(ledger, id, false, at(60)).await;
    let mut again = claim(h.second(), 9, at(60)).await;
    again.sort_by_key(|row| row.attempt);
    let attempts: Vec<_> = again.iter().map(|row| row.attempt).collect();
    assert_eq!(attempts, [1, 2, 2]);
    let late = [(rows[4].token, ACCEPTED)];
    let settled = ledger.settle(&late, at(60)).await.unwrap();
    assert_eq!(settled, [Settled::Lost], "it was claimed again");
}

/// L21: rows of a paused broadcast in front of another one are put aside in steps, and come back in steps.
pub async fn l21_a_large_pause_takes_steps<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    const ROWS: usize = 2 * STEP + 7;
    let ledger = h.store();
    let rows = (1..).map(|number| delivery("a", number));
    let rows: Vec<_> = rows.take(ROWS).collect();
    let id = sending(ledger, &rows, at(0)).await;
    hold(ledger, id, true, at(1)).await;
    let other = sending(ledger, &[delivery("a", 9_999)], at(1)).await;
    let request = ClaimRequest::new(1, LEASE);
    let mut claimed = Vec::new();
    for _ in 0..ROWS {
        let claims = h.second().claim(&request, at(2)).await.unwrap();
        claimed.extend(claims.rows);
        if !claimed.is_empty() || !claims.more {
            break;
        }
    }
    let of: Vec<_> = claimed.iter().map(|row| row.token.broadcast).collect();
    assert_eq!(of, [other]);
    is_quiet(ledger, at(3)).await;
    hold(h.second(), id, false, at(4)).await;
    assert_eq!(ledger.next_due(at(4)).await.unwrap(), Some(at(4)));
    // Paused again in the middle, for a moment.
    claim(ledger, 1, at(4)).await;
    hold(ledger, id, true, at(5)).await;
    is_quiet(ledger, at(5)).await;
    hold(ledger, id, false, at(6)).await;
    assert_eq!(claim_all(h.second(), at(6)).await, ROWS - 1);
    let status = ledger.status(id, at(6)).await.unwrap().unwrap();
    assert_eq!(status.counts.pending, ROWS as u64);
}

/// L21: rows whose leases end in the pause come back in steps, too.
pub async fn l21_many_leases_may_end_in_a_pause<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    const ROWS: usize = 2 * STEP + 7;
    let ledger = h.store();
    let rows = (1..).map(|number| delivery("a", number));
    let rows: Vec<_> = rows.take(ROWS).collect();
    let id = sending(ledger, &rows, at(0)).await;
    assert_eq!(claim_all(ledger, at(0)).await, ROWS);
    hold(h.second(), id, true, at(1)).await;
    is_quiet(ledger, at(0) + LEASE).await;
    hold(ledger, id, false, at(60)).await;
    assert_eq!(claim_all(h.second(), at(60)).await, ROWS);
}

/// L21: rows of a paused broadcast in front of others are put aside later by a claim that has ended as many of a cancelled one
/// as it may. It says so.
pub async fn l21_a_claim_that_puts_aside_no_more_says_so<L: DeliveryLedger + ?Sized>(
    h: &Handles<L>,
) {
    let ledger = h.store();
    let rows = |origin: &str, numbers: std::ops::Range<u32>| -> Vec<_> {
        numbers.map(|number| delivery(origin, number)).collect()
    };
    let many = 4 * STEP as u32;
    let cancelled = sending(ledger, &rows("b", 0..many), at(0)).await;
    let paused = sending(ledger, &rows("a", 0..20), at(0)).await;
    let other = sending(ledger, &rows("a", 30..31), at(1)).await;
    hold(ledger, paused, true, at(1)).await;
    ledger.cancel(cancelled, at(1)).await.unwrap();
    let request = ClaimRequest::new(3, LEASE);
    let mut claims = h.second().claim(&request, at(2)).await.unwrap();
    while claims.rows.is_empty() {
        assert!(claims.more, "nothing says that another row stands behind");
        claims = h.second().claim(&request, at(2)).await.unwrap();
    }
    let of: Vec<_> = claims.rows.iter().map(|row| row.token.broadcast).collect();
    assert_eq!(of, [other]);
}

/// L21, L14: rows that are not brought back yet are something to do, although nothing else is due.
pub async fn l21_rows_to_bring_back_are_due<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let rows = (1..).map(|number| delivery("a", number));
    let rows: Vec<_> = rows.take(2 * STEP).collect();
    let large = sending(ledger, &rows, at(0)).await;
    let small = sending(ledger, &[delivery("a", 9_999)], at(0)).await;
    for id in [large, small] {
        hold(ledger, id, true, at(1)).await;
    }
    is_quiet(ledger, at(2)).await;
    // Each call brings back a step: those of the large one.
    for id in [large, small] {
        hold(ledger, id, false, at(3)).await;
    }
    let mut left = u64::MAX;
    loop {
        let status = ledger.cancel(large, at(4)).await.unwrap().unwrap();
        match status.counts.pending == left {
            true => break,
            false => left = status.counts.pending,
        }
    }
    assert_eq!(left, 0);
    for ledger in [h.store(), h.second()] {
        assert_eq!(ledger.next_due(at(5)).await.unwrap(), Some(at(5)));
    }
    assert_eq!(claim_all(h.second(), at(5)).await, 1);
}

/// L21, L18: a broadcast that goes on stands beside others again, and not behind all of one that comes later.
pub async fn l21_a_broadcast_that_goes_on_takes_turns<L>(h: &Handles<L>)
where
    L: DeliveryLedger + ?Sized,
{
    let ledger = h.store();
    let rows = |numbers: std::ops::Range<u32>| -> Vec<_> {
        numbers.map(|number| delivery("a", number)).collect()
    };
    let id = sending(ledger, &rows(0..50), at(0)).await;
    assert_eq!(claim(ledger, 10, at(0)).await.len(), 10);
    hold(ledger, id, true, at(1)).await;
    is_quiet(h.second(), at(1)).await;
    hold(ledger, id, false, at(2)).await;
    sending(ledger, &rows(100..150), at(3)).await;
    for _ in 0..4 {
        let claimed = claim(h.second(), 16, at(3)).await;
        let theirs = claimed.iter().filter(|row| row.token.broadcast == id);
        assert_eq!((theirs.count(), claimed.len()), (8, 16));
    }
}

/// L21, L9: a paused broadcast is cancelled as any other, with the rows that were put aside.
pub async fn l21_a_paused_broadcast_is_cancelled<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let rows = [1, 2, 3].map(|number| delivery("a", number));
    let mut new = broadcast();
    new.recipients = 9;
    ledger.open(&new, at(0)).await.unwrap();
    let next = Cursor::After(recipient(3));
    let page = ledger.enqueue_page(new.id, &Cursor::Start, &rows, &next, at(0));
    page.await.unwrap();
    // One whose lease ends in the pause, one that is never claimed, one that is leased.
    assert_eq!(claim(ledger, 1, at(0)).await.len(), 1);
    hold(ledger, new.id, true, at(1)).await;
    is_quiet(ledger, at(0) + LEASE).await;
    let answer = h.second().cancel(new.id, at(50)).await.unwrap().unwrap();
    assert_eq!(answer.state, BroadcastState::Cancelled);
    assert_eq!((answer.counts.cancelled, answer.counts.pending), (9, 0));
    let after = hold(ledger, new.id, false, at(51)).await;
    assert_eq!(after, answer, "nothing changes");
    assert_eq!(ledger.stats(at(51)).await.unwrap().depth, 0);
    assert_eq!(ledger.next_due(at(51)).await.unwrap(), None);
}

/// L21, L12: a pause does not outlast the deadline, and no row that was put aside is taken for one of a wrong clock.
pub async fn l21_a_paused_broadcast_expires<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let mut new = broadcast();
    new.deadline = at(100);
    let rows = [delivery("a", 1), delivery("a", 2), delivery("b", 3)];
    sending_as(ledger, &new, &rows, at(0)).await;
    assert_eq!(claim(ledger, 1, at(0)).await.len(), 1);
    hold(ledger, new.id, true, at(1)).await;
    is_quiet(ledger, at(0) + LEASE).await;
    assert_eq!(ledger.expire(9, at(50)).await.unwrap(), 0);
    let next = ledger.next_due(at(50)).await.unwrap();
    assert!(next > Some(at(50)), "{next:?}");
    is_quiet(h.second(), at(50)).await;
    assert_eq!(h.second().expire(9, at(100)).await.unwrap(), 3);
    let end = ledger.status(new.id, at(100)).await.unwrap().unwrap();
    assert_eq!((end.state, end.counts.expired), (BroadcastState::Done, 3));
    assert_eq!(hold(ledger, new.id, false, at(101)).await, end);
    assert_eq!(ledger.next_due(at(101)).await.unwrap(), None);
}

/// L21, L12: a retry that a wrong clock wrote is due when the broadcast goes on.
pub async fn l21_a_wrong_clock_does_not_outlast_a_pause<L>(h: &Handles<L>)
where
    L: DeliveryLedger + ?Sized,
{
    let ledger = h.store();
    let mut new = broadcast();
    new.deadline = at(90 * 86_400);
    sending_as(ledger, &new, &[delivery("a", 1)], at(0)).await;
    let row = claim(ledger, 1, at(0)).await.remove(0);
    hold(ledger, new.id, true, at(1)).await;
    let far = at(2) + 2 * LONGEST_WAIT;
    let later = [(row.token, Settlement::RetryAt(far))];
    ledger.settle(&later, at(1)).await.unwrap();
    ledger.expire(9, at(2)).await.unwrap();
    is_quiet(h.second(), at(3)).await;
    hold(ledger, new.id, false, at(4)).await;
    assert_eq!(claim_all(h.second(), at(4)).await, 1);
}

/// L21, L17, L13: rows that were put aside are erased as others, and their origins are kept.
pub async fn l21_rows_put_aside_are_erased<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let record = SubscriptionRecord::new(unknown_id(), subscription(1, 1), key_id(1), at(0));
    let origin = endpoint(1).origin().clone();
    let rows = [1, 2].map(|number| NewDelivery::new(recipient(number), origin.clone()));
    let id = sending(ledger, &rows, at(0)).await;
    hold(ledger, id, true, at(1)).await;
    is_quiet(ledger, at(1)).await;
    let gone = [(origin, Tally::new(0, 1))];
    ledger.tally(&gone, at(1)).await.unwrap();
    ledger.prune(at(2)).await.unwrap();
    assert_eq!(ledger.tallies().await.unwrap(), gone);
    let erased = h.second().erase(&"alice".into(), &[record], at(3)).await;
    assert_eq!(erased.unwrap().deliveries, 1);
    is_quiet(ledger, at(3)).await;
    hold(ledger, id, false, at(4)).await;
    let left = claim(ledger, 9, at(4)).await;
    assert_eq!((left.len(), left[0].token.key), (1, recipient(2)));
}

/// L21: repeating a call changes nothing, nor does one for a broadcast that is over.
pub async fn l21_a_repeated_pause_changes_nothing<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let id = sending(ledger, &[delivery("a", 1)], at(0)).await;
    let sends = hold(ledger, id, false, at(1)).await;
    assert_eq!(sends.state, BroadcastState::Sending);
    let first = hold(ledger, id, true, at(1)).await;
    assert_eq!(hold(h.second(), id, true, at(2)).await, first);
    is_quiet(ledger, at(2)).await;
    for ledger in [h.store(), h.second()] {
        assert_eq!(hold(ledger, id, false, at(3)).await, sends);
    }
    let rows = claim(ledger, 9, at(3)).await;
    let done = [(rows[0].token, ACCEPTED)];
    ledger.settle(&done, at(4)).await.unwrap();
    let done = hold(ledger, id, true, at(5)).await;
    assert_eq!(done.state, BroadcastState::Done);
    let unknown = h.second().hold(broadcast().id, true, at(5)).await;
    assert_eq!(unknown.unwrap(), None);
}
