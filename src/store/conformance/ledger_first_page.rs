//! L1, L2, L4, D6: the first page of a broadcast, written with it.

use super::Handles;
use super::sample::{at, broadcast, claim, delivery, recipient};
use crate::broadcast::{BroadcastState, FinalOutcome};
use crate::schedule::{DailyTime, NotifyType, Plan, Schedule};
use crate::store::{
    Cursor, DeliveryLedger, Expansion, Fired, Firing, Idempotency, NewBroadcast, NewDelivery,
    Opened, Page, PageWrite, ScheduleStore, Settlement,
};
use crate::subscription::SubscriptionId;

fn with_page(rows: &[NewDelivery], next: Cursor) -> NewBroadcast {
    let mut new = broadcast();
    new.recipients = 9;
    new.page = Some(Page::new(rows.to_vec(), next));
    new
}

/// L1: the rows of a first page are there with the broadcast, each once, and can be claimed by every process.
pub async fn l1_a_first_page_is_stored_with_its_broadcast<L: DeliveryLedger + ?Sized>(
    h: &Handles<L>,
) {
    let ledger = h.store();
    // An origin is unknown at first, then known.
    for number in 0..2 {
        let rows = [delivery("a", 1), delivery("b", 2), delivery("a", 1)];
        let new = with_page(&rows, Cursor::End);
        let now = at(number);
        assert_eq!(ledger.open(&new, now).await.unwrap(), Opened::New);
        let status = h.second().status(new.id, now).await.unwrap().unwrap();
        assert_eq!((status.recipients, status.counts.pending), (2, 2));
        assert_eq!(status.state, BroadcastState::Sending);
        assert_eq!(ledger.expandable(9, now).await.unwrap(), []);
        let claimed = claim(h.second(), 9, now).await;
        let mut keys: Vec<_> = claimed.iter().map(|row| row.token.key).collect();
        keys.sort_unstable();
        let mut expected = [recipient(1), recipient(2)];
        expected.sort_unstable();
        assert_eq!(keys, expected);
        let accepted = Settlement::Finished(FinalOutcome::Accepted);
        let ends: Vec<_> = claimed.iter().map(|row| (row.token, accepted)).collect();
        ledger.settle(&ends, now).await.unwrap();
        let status = ledger.status(new.id, now).await.unwrap().unwrap();
        assert_eq!(
            (status.state, status.counts.accepted),
            (BroadcastState::Done, 2)
        );
    }
}

/// L2: a repeat and a conflict write no rows, whatever page they come with.
pub async fn l2_a_repeat_writes_no_first_page<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let keyed = |fingerprint, rows: &[NewDelivery]| {
        let mut new = with_page(rows, Cursor::End);
        new.idempotency = Some(Idempotency::new("k", [fingerprint; 32]));
        new
    };
    let first = keyed(1, &[delivery("a", 1)]);
    assert_eq!(ledger.open(&first, at(0)).await.unwrap(), Opened::New);
    let again = keyed(1, &[delivery("a", 2), delivery("new", 3)]);
    let answer = h.second().open(&again, at(1)).await.unwrap();
    assert!(matches!(answer, Opened::Repeat(status) if status.id == first.id));
    let other = keyed(2, &[delivery("a", 4)]);
    assert_eq!(ledger.open(&other, at(1)).await.unwrap(), Opened::Conflict);
    // After a lost response, when the audience is another one or has no row.
    for rows in [&[delivery("a", 5)][..], &[]] {
        let mut same = first.clone();
        same.page = Some(Page::new(rows.to_vec(), Cursor::End));
        let answer = h.second().open(&same, at(1)).await.unwrap();
        assert!(matches!(answer, Opened::Repeat(status) if status.recipients == 1));
    }
    // One that was opened without a page keeps its start.
    let mut plain = broadcast();
    assert_eq!(ledger.open(&plain, at(1)).await.unwrap(), Opened::New);
    plain.page = Some(Page::new(Vec::new(), Cursor::End));
    let answer = ledger.open(&plain, at(1)).await.unwrap();
    assert!(matches!(answer, Opened::Repeat(status) if status.state == BroadcastState::Expanding));
    let left = h.second().expandable(9, at(1)).await.unwrap();
    let left: Vec<_> = left.iter().map(|one| (one.id, one.cursor)).collect();
    assert_eq!(left, [(plain.id, Cursor::Start)]);
    let claimed = claim(ledger, 9, at(1)).await;
    let keys: Vec<_> = claimed.iter().map(|row| row.token.key).collect();
    assert_eq!(keys, [recipient(1)]);
}

/// L2: of concurrent requests with one key one writes its page, at an origin that all of them are the first to name.
pub async fn l2_one_of_many_concurrent_requests_writes_its_page<L: DeliveryLedger + ?Sized>(
    h: &Handles<L>,
) {
    let answers = h
        .race(8, |ledger, number| async move {
            let number = u32::try_from(number).unwrap();
            let rows = [delivery("a", number), delivery("b", 100 + number)];
            let mut new = with_page(&rows, Cursor::End);
            new.idempotency = Some(Idempotency::new("k", [1; 32]));
            ledger.open(&new, at(0)).await.unwrap()
        })
        .await;
    let opened = answers.iter().filter(|answer| **answer == Opened::New);
    assert_eq!(opened.count(), 1);
    let claimed = claim(h.second(), 99, at(0)).await;
    let keys: Vec<_> = claimed.iter().map(|row| row.token.key).collect();
    let is_whole = |number: u32| {
        let (one, other) = (recipient(number), recipient(100 + number));
        keys == [one, other] || keys == [other, one]
    };
    assert!((0..8).any(is_whole), "{keys:?}");
}

/// L4: an audience that is larger than its first page is expanded behind it.
pub async fn l4_expansion_continues_behind_a_first_page<L: DeliveryLedger + ?Sized>(
    h: &Handles<L>,
) {
    let ledger = h.store();
    let next = Cursor::After(recipient(2));
    let rows = [delivery("a", 1), delivery("a", 2)];
    let new = with_page(&rows, next);
    assert_eq!(ledger.open(&new, at(0)).await.unwrap(), Opened::New);
    let status = ledger.status(new.id, at(0)).await.unwrap().unwrap();
    assert_eq!((status.recipients, status.counts.pending), (9, 9));
    assert_eq!(status.state, BroadcastState::Expanding);
    let expected = [Expansion::new(new.id, new.audience.clone(), next, None)];
    assert_eq!(h.second().expandable(9, at(0)).await.unwrap(), expected);
    for (cursor, written) in [(Cursor::Start, PageWrite::Stale), (next, PageWrite::Stored)] {
        let rows = [delivery("a", 2), delivery("a", 3)];
        let page = h
            .second()
            .enqueue_page(new.id, &cursor, &rows, &Cursor::End, at(1));
        assert_eq!(page.await.unwrap(), written);
    }
    let status = ledger.status(new.id, at(1)).await.unwrap().unwrap();
    assert_eq!((status.recipients, status.counts.pending), (3, 3));
    assert_eq!(claim(ledger, 9, at(1)).await.len(), 3);
}

/// L4: the audience of a broadcast that is not due is resolved when it is. One past its deadline gets no rows.
pub async fn l4_only_a_due_broadcast_gets_a_first_page<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let mut later = with_page(&[delivery("a", 1)], Cursor::End);
    later.send_at = Some(at(50));
    let mut late = with_page(&[delivery("a", 2)], Cursor::End);
    late.deadline = at(0);
    for new in [&later, &late] {
        assert_eq!(ledger.open(new, at(0)).await.unwrap(), Opened::New);
    }
    let status = ledger.status(later.id, at(0)).await.unwrap().unwrap();
    assert_eq!(status.state, BroadcastState::Scheduled);
    assert_eq!(status.recipients, 9);
    assert_eq!(claim(ledger, 9, at(60)).await.len(), 0);
    let expected = [Expansion::new(
        later.id,
        later.audience.clone(),
        Cursor::Start,
        None,
    )];
    assert_eq!(h.second().expandable(9, at(60)).await.unwrap(), expected);

    // Once it is due, as with a repeated `send_at` of the past.
    let mut past = with_page(&[delivery("a", 3)], Cursor::End);
    past.send_at = Some(at(50));
    assert_eq!(ledger.open(&past, at(60)).await.unwrap(), Opened::New);
    assert_eq!(claim(ledger, 9, at(60)).await.len(), 1);
}

/// L4: a broadcast without recipients is over at once, and forgotten if that was asked for.
pub async fn l4_an_empty_first_page_ends_its_broadcast<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let kept = with_page(&[], Cursor::End);
    let mut forgotten = with_page(&[], Cursor::End);
    forgotten.forget_when_over = true;
    for new in [&kept, &forgotten] {
        assert_eq!(ledger.open(new, at(0)).await.unwrap(), Opened::New);
    }
    let status = h.second().status(kept.id, at(0)).await.unwrap().unwrap();
    assert_eq!((status.state, status.recipients), (BroadcastState::Done, 0));
    assert_eq!(h.second().status(forgotten.id, at(0)).await.unwrap(), None);
    assert_eq!(ledger.expandable(9, at(0)).await.unwrap(), []);
    assert_eq!(ledger.next_due(at(0)).await.unwrap(), None);
}

/// D6: the broadcasts that one call fires come with their first pages.
pub async fn d6_fire_writes_first_pages<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let mut firings = Vec::new();
    let pages: [&[u32]; 5] = [&[1], &[1, 2], &[], &[3], &[1]];
    for (number, page) in (0..).zip(pages) {
        let plan = Plan::Subscriber {
            subscription: SubscriptionId::from_bytes([number; 16]),
            notify_type: NotifyType::DailyCheck,
            message: None,
        };
        let schedule = Schedule::new(plan, DailyTime::new(9, 0).unwrap(), at(0));
        store.put_schedule(&schedule).await.unwrap();
        let rows: Vec<_> = page.iter().map(|row| delivery("a", *row)).collect();
        let mut new = with_page(&rows, Cursor::End);
        new.forget_when_over = true;
        let broadcast = match number {
            3 => None,
            _ => Some(new),
        };
        firings.push(Firing::new(&schedule, at(86_400), broadcast));
    }
    let fired = store.fire(&firings, at(0)).await.unwrap();
    assert_eq!(fired, [Fired::Fired; 5]);
    assert_eq!(store.expandable(9, at(0)).await.unwrap(), []);
    let claimed = claim(h.second(), 9, at(0)).await;
    let mut rows: Vec<_> = claimed
        .iter()
        .map(|row| {
            let opened = |firing: &Firing| firing.broadcast.as_ref().map(|new| new.id);
            let id = Some(row.token.broadcast);
            let place = firings.iter().position(|firing| opened(firing) == id);
            (place, row.token.key == recipient(1))
        })
        .collect();
    rows.sort_unstable();
    let expected = [(0, true), (1, false), (1, true), (4, true)];
    assert_eq!(
        rows,
        expected.map(|(place, is_first)| (Some(place), is_first))
    );
}
