//! L24: lists of broadcasts.

use super::Handles;
use super::sample::{at, broadcast, claim, delivery, sending_as};
use crate::broadcast::{BroadcastId, BroadcastState, FinalOutcome};
use crate::clock::Timestamp;
use crate::store::{
    BroadcastCursor, BroadcastFilter, Cursor, DeliveryLedger, NewBroadcast, STEP, Settlement,
};

/// A broadcast whose id consists of this octet.
fn numbered(number: u8) -> NewBroadcast {
    NewBroadcast {
        id: id(number),
        ..broadcast()
    }
}

fn id(number: u8) -> BroadcastId {
    BroadcastId::from_bytes([number; 16])
}

fn of_states(states: &[BroadcastState]) -> BroadcastFilter {
    BroadcastFilter {
        states: states.to_vec(),
        ..BroadcastFilter::default()
    }
}

/// Walks a list in pages. Returns the first octets of the ids, and the number of pages.
async fn walk<L: DeliveryLedger + ?Sized>(
    ledger: &L,
    filter: &BroadcastFilter,
    limit: usize,
    now: Timestamp,
) -> (Vec<u8>, usize) {
    let (mut found, mut pages, mut after) = (Vec::new(), 0, None);
    loop {
        let page = ledger.list_broadcasts(filter, after.as_ref(), limit, now);
        let page = page.await.unwrap();
        assert!(page.broadcasts.len() <= limit);
        for status in &page.broadcasts {
            assert!(filter.takes(status), "{status:?}");
            let same = ledger.status(status.id, now).await.unwrap();
            assert_eq!(same.as_ref(), Some(status));
        }
        found.extend(page.broadcasts.iter().map(|one| one.id.as_bytes()[0]));
        pages += 1;
        assert!(pages < 1_000, "a list without an end");
        let Some(next) = page.next else {
            return (found, pages);
        };
        assert!(after.is_none_or(|after| next < after), "it moves on");
        after = Some(next);
    }
}

/// L24: the newest is first, equal times are in the order of the ids, and each is on one page.
pub async fn l24_the_newest_broadcast_is_first<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let all = BroadcastFilter::default();
    assert_eq!(walk(ledger, &all, 9, at(0)).await, (vec![], 1));
    // The clocks of two processes differ: the order of the calls does not matter.
    for (number, secs) in [(3, 2), (1, 2), (2, 2), (4, 1), (5, 3)] {
        ledger.open(&numbered(number), at(secs)).await.unwrap();
    }
    let newest_first = [5, 3, 2, 1, 4];
    for limit in 1..7 {
        let (found, _) = walk(ledger, &all, limit, at(9)).await;
        assert_eq!(found, newest_first, "in pages of {limit}");
    }
    // One that is opened or removed meanwhile moves no other.
    let first = ledger.list_broadcasts(&all, None, 2, at(9)).await.unwrap();
    let next = first.next.unwrap();
    assert_eq!(next, BroadcastCursor::new(at(2), id(3)));
    ledger.open(&numbered(6), at(4)).await.unwrap();
    ledger.cancel(id(3), at(9)).await.unwrap();
    let rest = ledger.list_broadcasts(&all, Some(&next), 9, at(9));
    let rest = rest.await.unwrap();
    let rest: Vec<_> = rest.broadcasts.iter().map(|one| one.id).collect();
    assert_eq!(rest, [id(2), id(1), id(4)]);
    ledger.prune(at(99)).await.unwrap();
    let (found, _) = walk(ledger, &all, 9, at(9)).await;
    assert_eq!(found, [6, 5, 2, 1, 4], "what is pruned is gone");
}

/// L24: both bounds of the time of acceptance are exclusive.
pub async fn l24_broadcasts_of_a_time_are_listed<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    for number in 1..6 {
        let now = at(i64::from(number));
        ledger.open(&numbered(number), now).await.unwrap();
    }
    let between = |after: Option<i64>, before: Option<i64>| BroadcastFilter {
        created_after: after.map(at),
        created_before: before.map(at),
        ..BroadcastFilter::default()
    };
    for (after, before, expected) in [
        (Some(3), None, vec![5, 4]),
        (None, Some(3), vec![2, 1]),
        (Some(1), Some(5), vec![4, 3, 2]),
        (Some(3), Some(4), vec![]),
        (Some(5), Some(1), vec![]),
    ] {
        let filter = between(after, before);
        for limit in [1, 9] {
            let (found, _) = walk(ledger, &filter, limit, at(9)).await;
            assert_eq!(found, expected, "{filter:?}");
        }
        let open = BroadcastFilter {
            states: vec![BroadcastState::Expanding],
            ..filter
        };
        assert_eq!(walk(ledger, &open, 2, at(9)).await.0, expected, "{open:?}");
    }
}

/// L24: broadcasts in each state are found, scheduled ones among many that are over.
pub async fn l24_every_state_is_listed<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let mut scheduled = numbered(1);
    scheduled.send_at = Some(at(500));
    ledger.open(&scheduled, at(0)).await.unwrap();
    ledger.open(&numbered(2), at(0)).await.unwrap();
    sending_as(ledger, &numbered(3), &[delivery("a", 1)], at(0)).await;
    sending_as(ledger, &numbered(4), &[delivery("a", 2)], at(0)).await;
    ledger.hold(id(4), true, at(0)).await.unwrap();
    sending_as(ledger, &numbered(5), &[], at(0)).await;
    sending_as(ledger, &numbered(6), &[delivery("a", 3)], at(0)).await;
    ledger.cancel(id(6), at(0)).await.unwrap();
    // Cancelled, and not over: a row is leased.
    let leased = claim(ledger, 9, at(1)).await;
    let leased: Vec<_> = leased.iter().map(|row| row.token).collect();
    assert_eq!(leased.len(), 1);
    ledger.cancel(id(3), at(1)).await.unwrap();
    sending_as(ledger, &numbered(7), &[delivery("a", 1)], at(0)).await;
    use BroadcastState::{Cancelled, Done, Expanding, Paused, Scheduled, Sending};
    let cases: &[(&[BroadcastState], &[u8])] = &[
        (&[Scheduled], &[1]),
        (&[Expanding], &[2]),
        (&[Sending], &[7]),
        (&[Paused], &[4]),
        (&[Done], &[5]),
        (&[Cancelled], &[6, 3]),
        (&[Scheduled, Paused, Sending], &[7, 4, 1]),
        (&[Scheduled, Done], &[5, 1]),
        (&[], &[7, 6, 5, 4, 3, 2, 1]),
    ];
    for (states, expected) in cases {
        let found = walk(ledger, &of_states(states), 2, at(2)).await.0;
        assert_eq!(found, *expected, "{states:?}");
    }
    // A state is that of the moment.
    let found = walk(ledger, &of_states(&[Scheduled]), 2, at(500)).await.0;
    assert!(found.is_empty());
    // What ends is no longer among those that are open.
    let end = [(leased[0], Settlement::Finished(FinalOutcome::Accepted))];
    ledger.settle(&end, at(2)).await.unwrap();
    ledger.cancel(id(1), at(2)).await.unwrap();
    let open = of_states(&[Scheduled, Expanding, Sending, Paused]);
    assert_eq!(walk(ledger, &open, 9, at(3)).await.0, [7, 4, 2]);
}

/// L24: a list of few among many looks at a bounded number, and goes on where it ended.
pub async fn l24_few_among_many_are_listed_in_steps<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let mut first = numbered(1);
    first.send_at = Some(at(900));
    ledger.open(&first, at(0)).await.unwrap();
    for _ in 0..STEP + 5 {
        let over = broadcast();
        ledger.open(&over, at(1)).await.unwrap();
        let (start, end) = (Cursor::Start, Cursor::End);
        ledger
            .enqueue_page(over.id, &start, &[], &end, at(1))
            .await
            .unwrap();
    }
    // Among those that are not over it is the only one.
    let scheduled = of_states(&[BroadcastState::Scheduled]);
    assert_eq!(walk(ledger, &scheduled, 9, at(2)).await, (vec![1], 1));
    let both = of_states(&[BroadcastState::Scheduled, BroadcastState::Cancelled]);
    let page = ledger.list_broadcasts(&both, None, 9, at(2)).await.unwrap();
    if page.next.is_some() {
        assert_eq!(page.broadcasts, []);
    }
    let (found, pages) = walk(ledger, &both, 9, at(2)).await;
    assert_eq!(found, [1]);
    assert!(pages <= 3, "{pages}");
}
