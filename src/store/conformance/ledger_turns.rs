//! L18: the turns of rows within an origin; and the turns of broadcasts to expand (L3).

use super::Handles;
use super::sample::{
    LEASE, at, broadcast, claim, delivery, origin, recipient, sending, sending_as,
};
use crate::broadcast::{BroadcastId, FinalOutcome};
use crate::clock::Timestamp;
use crate::message::{Message, Urgency};
use crate::store::{
    ClaimRequest, Claimed, Cursor, DeliveryLedger, NewBroadcast, NewDelivery, Opened, Page,
    PageWrite, Pause, PauseReason, STEP, Settlement,
};

fn urgent(urgency: Urgency) -> NewBroadcast {
    let mut new = broadcast();
    new.message = Message::new("hello").with_urgency(urgency);
    new
}

/// Recipients at origin "a".
fn rows(numbers: std::ops::Range<u32>) -> Vec<NewDelivery> {
    numbers.map(|number| delivery("a", number)).collect()
}

/// Sends to these recipients with this urgency.
async fn sending_urgently<L: DeliveryLedger + ?Sized>(
    ledger: &L,
    urgency: Urgency,
    numbers: std::ops::Range<u32>,
    now: Timestamp,
) -> BroadcastId {
    let new = urgent(urgency);
    sending_as(ledger, &new, &rows(numbers), now).await;
    new.id
}

fn count(claimed: &[Claimed], id: BroadcastId) -> usize {
    let theirs = claimed.iter().filter(|row| row.token.broadcast == id);
    theirs.count()
}

/// Claims this many times. Returns the number of rows of the broadcast in each claim.
async fn counts<L: DeliveryLedger + ?Sized>(
    ledger: &L,
    claims: usize,
    limit: usize,
    id: BroadcastId,
    now: Timestamp,
) -> Vec<usize> {
    let mut counts = Vec::new();
    for _ in 0..claims {
        let claimed = claim(ledger, limit, now).await;
        assert_eq!(claimed.len(), limit);
        counts.push(count(&claimed, id));
    }
    counts
}

/// L18: broadcasts at one origin have equal shares, however long the first one has been there.
pub async fn l18_broadcasts_of_an_origin_take_turns<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let first = sending(ledger, &rows(0..200), at(0)).await;
    let second = sending(ledger, &rows(200..400), at(1)).await;
    assert_eq!(counts(ledger, 12, 16, first, at(2)).await, [8; 12]);
    // The one that comes later does not overtake what is left of the others.
    let third = sending(ledger, &rows(400..500), at(3)).await;
    let claimed = claim(h.second(), 12, at(3)).await;
    let shares = [first, second, third].map(|id| count(&claimed, id));
    assert_eq!(shares, [4; 3]);
}

/// L18: a message to one subscriber does not wait for a broadcast.
pub async fn l18_one_message_does_not_wait_for_a_broadcast<L>(h: &Handles<L>)
where
    L: DeliveryLedger + ?Sized,
{
    let ledger = h.store();
    let many = sending(ledger, &rows(0..500), at(0)).await;
    for (number, secs) in [(1_000, 0), (1_001, 5)] {
        let one = sending(ledger, &[delivery("a", number)], at(secs)).await;
        let found = counts(h.second(), 2, 16, one, at(secs)).await;
        assert_eq!(found.iter().sum::<usize>(), 1, "{found:?}");
        assert_eq!(counts(ledger, 3, 16, many, at(secs)).await, [16; 3]);
    }
}

/// L18: an urgent message does not wait for messages to one subscriber each.
pub async fn l18_an_urgent_message_is_first<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    for number in 0..300 {
        sending(ledger, &[delivery("a", number)], at(0)).await;
    }
    let one = sending_urgently(ledger, Urgency::High, 900..901, at(1)).await;
    assert_eq!(counts(h.second(), 1, 16, one, at(1)).await, [1]);
    let two = sending_urgently(ledger, Urgency::High, 901..902, at(2)).await;
    let found = counts(h.second(), 2, 1, two, at(2)).await;
    assert_eq!(found.iter().sum::<usize>(), 1, "{found:?}");
}

/// L18: urgent messages leave one of eight rows to the others, even one row at a time.
pub async fn l18_urgent_messages_leave_a_share<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let urgent = sending_urgently(ledger, Urgency::High, 0..160, at(0)).await;
    let others = sending(ledger, &rows(200..260), at(0)).await;
    assert_eq!(counts(ledger, 16, 8, others, at(1)).await, [1; 16]);
    let mut single = 0;
    for _ in 0..16 {
        single += count(&claim(ledger, 1, at(1)).await, others);
    }
    assert!((1..=4).contains(&single), "{single} of 16");
    // What one does not use, the other gets.
    let rest = claim(h.second(), 99, at(1)).await;
    assert_eq!(count(&rest, urgent), 160 - 16 * 7 - (16 - single));
    assert_eq!(count(&rest, others), 60 - 16 - single);
}

/// L18: what is not urgent at all comes last, and has its share.
pub async fn l18_what_is_not_urgent_is_last<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let low = sending_urgently(ledger, Urgency::Low, 0..60, at(0)).await;
    let lowest = sending_urgently(ledger, Urgency::VeryLow, 100..160, at(0)).await;
    let normal = sending(ledger, &rows(200..350), at(5)).await;
    assert_eq!(counts(ledger, 8, 16, normal, at(6)).await, [14; 8]);
    let rest = claim(h.second(), 200, at(6)).await;
    assert_eq!(count(&rest, normal), 150 - 8 * 14);
    let left = [count(&rest, low), count(&rest, lowest)];
    assert_eq!(left, [52; 2], "these two share one band");
}

/// L18: rows that are due again take their turns from then on, and a new message does not wait for them.
pub async fn l18_retries_do_not_wait_in_front<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let retried = sending(ledger, &rows(0..300), at(0)).await;
    let claimed = claim(ledger, 300, at(0)).await;
    let retry = |row: &Claimed| (row.token, Settlement::RetryAt(at(30)));
    let retries: Vec<_> = claimed.iter().map(retry).collect();
    assert_eq!(retries.len(), 300);
    ledger.settle(&retries, at(1)).await.unwrap();
    let new = sending(ledger, &[delivery("a", 900)], at(40)).await;
    let found = counts(h.second(), 2, 16, new, at(40)).await;
    assert_eq!(found.iter().sum::<usize>(), 1, "{found:?}");
    assert_eq!(counts(ledger, 2, 16, retried, at(40)).await, [16; 2]);
}

/// L18: a row that is due again does not wait for all first attempts of another broadcast.
pub async fn l18_a_retry_has_its_turn<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let retried = sending(ledger, &[delivery("a", 900)], at(0)).await;
    let claimed = claim(ledger, 1, at(0)).await;
    let retry = (claimed[0].token, Settlement::RetryAt(at(10)));
    ledger.settle(&[retry], at(1)).await.unwrap();
    sending(ledger, &rows(0..300), at(2)).await;
    assert_eq!(counts(ledger, 3, 16, retried, at(9)).await, [0; 3]);
    let found = counts(h.second(), 2, 16, retried, at(10)).await;
    assert_eq!(found.iter().sum::<usize>(), 1, "{found:?}");
}

/// L18: rows whose lease has expired take their turns from then on too.
pub async fn l18_expired_leases_do_not_wait_in_front<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let lost = sending(ledger, &rows(0..300), at(0)).await;
    let tokens = claim(ledger, 300, at(0)).await;
    assert_eq!(tokens.len(), 300);
    let now = at(1) + LEASE;
    let new = sending(ledger, &[delivery("a", 900)], now).await;
    let found = counts(h.second(), 2, 16, new, now).await;
    assert_eq!(found.iter().sum::<usize>(), 1, "{found:?}");
    assert_eq!(counts(ledger, 2, 16, lost, now).await, [16; 2]);
    // A row that is ready again, and was not claimed again, can still be settled with its token (L7).
    let accepted = Settlement::Finished(FinalOutcome::Accepted);
    let ends: Vec<_> = tokens.iter().map(|row| (row.token, accepted)).collect();
    ledger.settle(&ends, now).await.unwrap();
    let status = ledger.status(lost, now).await.unwrap().unwrap();
    assert_eq!(status.counts.pending, 31 + 32, "claimed again");
    assert_eq!(claim(ledger, 16, now).await.len(), 0);
}

/// L18: the rows of a broadcast stand in line in the order in which they became ready.
pub async fn l18_rows_become_ready_in_the_order_of_their_times<L: DeliveryLedger + ?Sized>(
    h: &Handles<L>,
) {
    let ledger = h.store();
    sending(ledger, &rows(0..4), at(0)).await;
    let claimed = claim(ledger, 4, at(0)).await;
    let due = [30, 10, 20, 40];
    let settlements: Vec<_> = claimed
        .iter()
        .zip(due)
        .map(|(row, secs)| (row.token, Settlement::RetryAt(at(secs))))
        .collect();
    ledger.settle(&settlements, at(1)).await.unwrap();
    let mut order = Vec::new();
    for _ in 0..3 {
        let next = claim(ledger, 1, at(30)).await;
        order.extend(next.iter().map(|row| row.token.key));
    }
    let expected = [1, 2, 0].map(|number: usize| claimed[number].token.key);
    assert_eq!(order, expected);
    assert_eq!(claim(ledger, 1, at(30)).await.len(), 0);
}

/// L18: rows whose time has come at a paused origin stand in front of a row that can be claimed. As long as a claim leaves
/// more of them, it is repeated.
pub async fn l18_due_rows_of_a_paused_origin_hold_up_no_others<L: DeliveryLedger + ?Sized>(
    h: &Handles<L>,
) {
    let ledger = h.store();
    let many = 3 * STEP as u32;
    sending(ledger, &rows(0..many), at(0)).await;
    let healthy = sending(ledger, &[delivery("b", many)], at(0)).await;
    loop {
        let claimed = claim(ledger, 5 * STEP, at(1)).await;
        if claimed.is_empty() {
            break;
        }
        let later = |row: &Claimed| match row.token.broadcast == healthy {
            true => at(11),
            false => at(10),
        };
        let settlements: Vec<_> = claimed
            .iter()
            .map(|row| (row.token, Settlement::RetryAt(later(row))))
            .collect();
        ledger.settle(&settlements, at(1)).await.unwrap();
    }
    let pause = Pause::new(origin("a"), at(600), PauseReason::Unreachable);
    ledger.pause(&pause, at(2)).await.unwrap();
    let request = ClaimRequest::new(100, LEASE);
    let mut claims = ledger.claim(&request, at(12)).await.unwrap();
    while claims.rows.is_empty() {
        assert!(claims.more, "what is due is not claimed");
        claims = ledger.claim(&request, at(12)).await.unwrap();
    }
    assert_eq!(count(&claims.rows, healthy), 1);
}

/// L18: a broadcast has one share, however many pages it is written in.
pub async fn l18_pages_do_not_add_to_a_share<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let paged = broadcast();
    ledger.open(&paged, at(0)).await.unwrap();
    let mut cursor = Cursor::Start;
    let mut other = None;
    for page in 0..10 {
        let numbers = page * 10..page * 10 + 10;
        let next = match page {
            9 => Cursor::End,
            _ => Cursor::After(recipient(numbers.end - 1)),
        };
        let written = ledger
            .enqueue_page(paged.id, &cursor, &rows(numbers), &next, at(page.into()))
            .await
            .unwrap();
        assert_eq!(written, PageWrite::Stored);
        cursor = next;
        if page == 4 {
            other = Some(sending(ledger, &rows(500..600), at(4)).await);
        }
    }
    let other = other.unwrap();
    assert_eq!(counts(h.second(), 10, 16, other, at(20)).await, [8; 10]);
}

/// L18: a page stands behind rows of its broadcast that are ready already, as after a retry.
pub async fn l18_a_page_stands_behind_rows_that_are_ready<L: DeliveryLedger + ?Sized>(
    h: &Handles<L>,
) {
    let ledger = h.store();
    let mut rows = rows(0..5);
    // As a walk through an audience finds them.
    rows.sort_unstable_by_key(|row| row.key);
    let (first, second) = rows.split_at(2);
    let paged = broadcast();
    ledger.open(&paged, at(0)).await.unwrap();
    let next = Cursor::After(first[1].key);
    let written = ledger.enqueue_page(paged.id, &Cursor::Start, first, &next, at(0));
    assert_eq!(written.await.unwrap(), PageWrite::Stored);
    let claimed = claim(ledger, 9, at(0)).await;
    let retry = |row: &Claimed| {
        let is_first = row.token.key == first[0].key;
        let again = if is_first { at(5) } else { at(6) };
        (row.token, Settlement::RetryAt(again))
    };
    let retries: Vec<_> = claimed.iter().map(retry).collect();
    assert_eq!(retries.len(), 2);
    ledger.settle(&retries, at(1)).await.unwrap();
    // They become ready at a claim that does not admit them.
    let mut elsewhere = ClaimRequest::new(9, LEASE);
    elsewhere.per_origin = 0;
    elsewhere.origins = [(origin("b"), 9)].into();
    let none = h.second().claim(&elsewhere, at(7)).await.unwrap();
    assert_eq!(none.rows.len(), 0);
    let written = ledger.enqueue_page(paged.id, &next, second, &Cursor::End, at(8));
    assert_eq!(written.await.unwrap(), PageWrite::Stored);
    let mut order = Vec::new();
    for _ in 0..rows.len() {
        let one = claim(h.second(), 1, at(9)).await;
        order.extend(one.iter().map(|row| row.token.key));
    }
    let expected: Vec<_> = rows.iter().map(|row| row.key).collect();
    assert_eq!(order, expected);
}

/// L18: the rows of a first page stand behind those of their band that were claimed, whatever was claimed of others.
pub async fn l18_a_first_page_stands_in_its_own_band<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    for (ahead, behind) in [
        (Urgency::Normal, Urgency::High),
        (Urgency::High, Urgency::Low),
    ] {
        sending_urgently(ledger, ahead, 0..200, at(0)).await;
        assert_eq!(claim(h.second(), 200, at(0)).await.len(), 200);
        sending_urgently(ledger, behind, 300..400, at(1)).await;
        let mut one = urgent(behind);
        one.page = Some(Page::new(rows(900..901), Cursor::End));
        assert_eq!(ledger.open(&one, at(2)).await.unwrap(), Opened::New);
        assert_eq!(counts(h.second(), 1, 16, one.id, at(2)).await, [1]);
        assert_eq!(claim(ledger, 200, at(2)).await.len(), 85);
    }
}

/// L18: pages behind a first page do not add to a broadcast's share.
pub async fn l18_a_first_page_does_not_add_to_a_share<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let mut paged = broadcast();
    let mut cursor = Cursor::After(recipient(99));
    paged.page = Some(Page::new(rows(0..100), cursor));
    assert_eq!(ledger.open(&paged, at(0)).await.unwrap(), Opened::New);
    let other = sending(ledger, &rows(500..700), at(0)).await;
    for page in [100..150, 150..200] {
        let next = match page.end {
            200 => Cursor::End,
            end => Cursor::After(recipient(end - 1)),
        };
        let rows = rows(page);
        let written = ledger.enqueue_page(paged.id, &cursor, &rows, &next, at(1));
        assert_eq!(written.await.unwrap(), PageWrite::Stored);
        cursor = next;
    }
    assert_eq!(counts(h.second(), 20, 16, other, at(2)).await, [8; 20]);
}

/// L18: rows of cancelled broadcasts in front of others end, and take no places.
pub async fn l18_cancelled_rows_take_no_places<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let total = u32::try_from(2 * STEP + 100).unwrap();
    let cancelled = sending_urgently(ledger, Urgency::High, 0..total, at(0)).await;
    let (normal, urgent) = (Urgency::Normal, Urgency::High);
    let one = sending_urgently(ledger, normal, 9_000..9_001, at(1)).await;
    let two = sending_urgently(ledger, urgent, 9_001..9_002, at(1)).await;
    ledger.cancel(cancelled, at(2)).await.unwrap();
    let claimed = claim(h.second(), 9, at(2)).await;
    assert_eq!([one, two].map(|id| count(&claimed, id)), [1, 1]);
    assert_eq!(claimed.len(), 2);
    for _ in 0..3 {
        assert_eq!(claim(ledger, 9, at(3)).await.len(), 0);
    }
    let status = ledger.status(cancelled, at(3)).await.unwrap().unwrap();
    assert_eq!(
        (status.counts.cancelled, status.counts.pending),
        (total.into(), 0)
    );
}

/// L3: urgent broadcasts are expanded before others, and leave them a share.
pub async fn l3_urgent_broadcasts_are_first<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let (mut others, mut high) = (Vec::new(), Vec::new());
    for secs in 0..20 {
        let urgency = [Urgency::Normal, Urgency::Low, Urgency::VeryLow][secs % 3];
        let now = at(i64::try_from(secs).unwrap());
        let new = urgent(urgency);
        ledger.open(&new, now).await.unwrap();
        others.push(new.id);
    }
    let listed = async |limit| {
        let found = h.second().expandable(limit, at(60)).await.unwrap();
        assert!(
            found
                .iter()
                .all(|one| one.is_urgent != others.contains(&one.id))
        );
        found.iter().map(|one| one.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(16).await, others[..16]);
    let one = urgent(Urgency::High);
    ledger.open(&one, at(30)).await.unwrap();
    let expected: Vec<_> = [one.id].into_iter().chain(others.clone()).collect();
    assert_eq!(listed(16).await, expected[..16]);
    assert_eq!(listed(1).await, [one.id]);
    high.push(one.id);
    for secs in 31..50 {
        let new = urgent(Urgency::High);
        ledger.open(&new, at(secs)).await.unwrap();
        high.push(new.id);
    }
    let expected: Vec<_> = high[..14].iter().chain(&others[..2]).copied().collect();
    assert_eq!(listed(16).await, expected);
    // Short lists leave others a share, too: a process that asks for one at a time starves none.
    let mut of_others = 0;
    for _ in 0..8 {
        let one = listed(1).await;
        assert!(one == high[..1] || one == others[..1], "{one:?}");
        of_others += usize::from(one == others[..1]);
    }
    assert_eq!(of_others, 1);
    assert_eq!(listed(99).await.len(), 40);
    assert_eq!(listed(40).await[..20], high);
}
