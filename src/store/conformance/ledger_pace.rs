//! L20: the pace of a broadcast.

use std::num::NonZeroU32;
use std::time::Duration;

use super::Handles;
use super::sample::{at, broadcast, claim, delivery, recipient};
use crate::broadcast::{BroadcastId, Counts};
use crate::clock::Timestamp;
use crate::store::rules::LONGEST_PAGE;
use crate::store::{Cursor, DeliveryLedger, NewBroadcast, PageWrite};

fn paced(per_second: u32) -> NewBroadcast {
    let mut new = broadcast();
    new.pace = NonZeroU32::new(per_second);
    new
}

/// Writes the recipients with these numbers from the stored cursor on. More are to come.
async fn write<L: DeliveryLedger + ?Sized>(
    ledger: &L,
    id: BroadcastId,
    expected: Cursor,
    numbers: std::ops::Range<u32>,
    now: Timestamp,
) -> Cursor {
    let rows: Vec<_> = numbers.map(|number| delivery("a", number)).collect();
    let next = Cursor::After(rows[rows.len() - 1].key);
    let written = ledger.enqueue_page(id, &expected, &rows, &next, now).await;
    assert_eq!(written.unwrap(), PageWrite::Stored);
    next
}

async fn listed<L: DeliveryLedger + ?Sized>(ledger: &L, now: Timestamp) -> Vec<BroadcastId> {
    let found = ledger.expandable(9, now).await.unwrap();
    found.iter().map(|one| one.id).collect()
}

/// Checks when the next page may be written: then, and no millisecond before.
async fn next_page_is_at<L: DeliveryLedger + ?Sized>(
    ledger: &L,
    id: BroadcastId,
    page_at: Timestamp,
    now: Timestamp,
) {
    claim(ledger, 99, now).await;
    let next = ledger.next_due(now).await.unwrap().unwrap();
    assert!(next <= page_at, "{next:?}");
    if now < page_at {
        assert!(next > now, "{next:?}");
        let early = page_at - Duration::from_millis(1);
        assert!(!listed(ledger, early).await.contains(&id));
    }
    assert!(listed(ledger, page_at).await.contains(&id));
}

/// L20: the next page is due when the rows of the last one have had their time, for every process.
pub async fn l20_pages_wait_for_their_time<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let mut new = paced(10);
    new.send_at = Some(at(5));
    ledger.open(&new, at(0)).await.unwrap();
    assert_eq!(listed(ledger, at(4)).await, []);
    let found = h.second().expandable(9, at(5)).await.unwrap();
    assert_eq!(found[0].pace, new.pace);
    // 20 rows at 10 per second.
    let next = write(ledger, new.id, Cursor::Start, 0..20, at(5)).await;
    let early = at(7) - Duration::from_millis(1);
    for ledger in [h.store(), h.second()] {
        assert_eq!(listed(ledger, early).await, []);
        next_page_is_at(ledger, new.id, at(7), early).await;
        next_page_is_at(ledger, new.id, at(7), at(7)).await;
    }
    let status = h.second().status(new.id, at(7)).await.unwrap().unwrap();
    assert_eq!(status.pace, new.pace);
    let counts = Counts {
        pending: 20,
        ..Counts::default()
    };
    assert_eq!(status.counts, counts);
    let written = h
        .second()
        .enqueue_page(new.id, &next, &[], &Cursor::End, at(7));
    assert_eq!(written.await.unwrap(), PageWrite::Stored);
    assert_eq!(listed(ledger, at(99)).await, []);
}

/// L20: after a time in which nothing was written the pace is what it was. A worker that is a little late keeps it.
pub async fn l20_lost_time_is_not_made_up_for<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let new = paced(10);
    ledger.open(&new, at(0)).await.unwrap();
    // An hour late, within the deadline.
    let next = write(ledger, new.id, Cursor::Start, 0..10, at(3000)).await;
    assert_eq!(listed(ledger, at(3000)).await, [new.id]);
    let next = write(h.second(), new.id, next, 10..20, at(3000)).await;
    assert_eq!(listed(ledger, at(3000)).await, []);
    next_page_is_at(ledger, new.id, at(3001), at(3000)).await;
    // Late by less than a page.
    let late = at(3001) + Duration::from_millis(300);
    write(ledger, new.id, next, 20..30, late).await;
    next_page_is_at(h.second(), new.id, at(3002), late).await;
}

/// L20: rows that exist already take no time.
pub async fn l20_only_new_rows_take_time<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let new = paced(1);
    ledger.open(&new, at(0)).await.unwrap();
    let next = write(ledger, new.id, Cursor::Start, 0..4, at(0)).await;
    next_page_is_at(ledger, new.id, at(4), at(0)).await;
    write(ledger, new.id, next, 1..6, at(4)).await;
    next_page_is_at(h.second(), new.id, at(6), at(4)).await;
}

/// L20: a page that was written by a process whose clock is wrong does not stop the broadcast.
pub async fn l20_a_wrong_clock_stops_no_broadcast<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let (new, near) = (paced(10), paced(10));
    ledger.open(&new, at(0)).await.unwrap();
    let wrong = at(3) + LONGEST_PAGE;
    let next = write(ledger, new.id, Cursor::Start, 0..10, wrong).await;
    assert_eq!(listed(h.second(), at(2)).await, [new.id]);
    next_page_is_at(h.second(), new.id, at(2), at(2)).await;
    write(ledger, new.id, next, 10..20, at(2)).await;
    next_page_is_at(h.second(), new.id, at(3), at(2)).await;
    // One that is a little fast.
    ledger.open(&near, at(2)).await.unwrap();
    write(ledger, near.id, Cursor::Start, 0..40, at(5)).await;
    assert_eq!(listed(h.second(), at(5)).await, [new.id]);
    assert_eq!(listed(h.second(), at(6)).await, [new.id, near.id]);
}

/// L20: a broadcast that waits holds up no other, and is listed in the order of its time.
pub async fn l20_a_pace_holds_up_no_other<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let (slow, fast) = (paced(1), broadcast());
    ledger.open(&slow, at(0)).await.unwrap();
    ledger.open(&fast, at(1)).await.unwrap();
    write(ledger, slow.id, Cursor::Start, 0..9, at(1)).await;
    let found = h.second().expandable(1, at(2)).await.unwrap();
    assert_eq!((found[0].id, found[0].pace), (fast.id, None));
    let next = write(ledger, fast.id, Cursor::Start, 0..9, at(8)).await;
    assert_eq!(listed(ledger, at(10)).await, [fast.id, slow.id]);
    assert_eq!(next, Cursor::After(recipient(8)));
}
