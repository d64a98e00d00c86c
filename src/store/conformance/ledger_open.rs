//! L1 to L4: opening and expanding broadcasts.

use super::Handles;
use super::sample::{at, broadcast, claim, delivery, recipient, tag};
use crate::broadcast::{Audience, BroadcastState};
use crate::message::{Message, Padding, Topic, Ttl, Urgency};
use crate::store::{
    ClaimRequest, Cursor, DeliveryLedger, Expansion, Idempotency, NewBroadcast, Opened, PageWrite,
};
use crate::subscription::SubscriptionId;

async fn expandable<L: DeliveryLedger + ?Sized>(ledger: &L, secs: i64) -> Vec<Expansion> {
    ledger.expandable(100, at(secs)).await.unwrap()
}

fn keyed(key: &str, fingerprint: u8) -> NewBroadcast {
    let mut broadcast = broadcast();
    broadcast.idempotency = Some(Idempotency::new(key, [fingerprint; 32]));
    broadcast
}

/// L1: an opened broadcast is visible through every handle, with its whole message.
pub async fn l1_an_open_broadcast_is_stored_whole<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let payload = [0, 0xff, b'x'];
    let full = Message::new(payload.to_vec())
        .with_ttl(Ttl::from_secs(77))
        .with_urgency(Urgency::High)
        .with_topic(Topic::of("orders"))
        .with_padding(Padding::Max);
    let messages = [
        full,
        Message::without_payload().with_padding(Padding::None),
        Message::new(Vec::new()),
    ];
    for (number, message) in (0..).zip(messages) {
        let mut new = NewBroadcast::new(Audience::All, message.clone(), at(500));
        new.recipients = 7;
        new.send_at = Some(at(50));
        assert_eq!(h.store().open(&new, at(1)).await.unwrap(), Opened::New);
        let status = h.second().status(new.id, at(2)).await.unwrap().unwrap();
        assert_eq!(status.id, new.id);
        assert_eq!(status.state, BroadcastState::Scheduled);
        assert_eq!((status.recipients, status.counts.pending), (7, 7));
        assert_eq!((status.created_at, status.deadline), (at(1), at(500)));
        assert_eq!(status.send_at, Some(at(50)));
        let rows = [delivery("a", number)];
        let written = h
            .second()
            .enqueue_page(new.id, &Cursor::Start, &rows, &Cursor::End, at(60))
            .await
            .unwrap();
        assert_eq!(written, PageWrite::Stored);
        let request = ClaimRequest::new(9, super::sample::LEASE);
        let claims = h.store().claim(&request, at(60)).await.unwrap();
        let claimed = claims.messages.get(&new.id).unwrap();
        assert_eq!(claimed.message, message);
        assert_eq!((claimed.due_at, claimed.deadline), (at(50), at(500)));
        assert_eq!(claims.messages.len(), 1);
    }
}

/// L2: the same key and fingerprint mean the same broadcast.
pub async fn l2_a_repeated_request_opens_once<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let first = keyed("k", 1);
    assert_eq!(ledger.open(&first, at(0)).await.unwrap(), Opened::New);
    let answer = ledger.open(&keyed("k", 1), at(1)).await.unwrap();
    let Opened::Repeat(status) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!((status.id, status.created_at), (first.id, at(0)));
    let other = ledger.open(&keyed("k", 2), at(1)).await.unwrap();
    assert_eq!(other, Opened::Conflict);
    let another = ledger.open(&keyed("K", 1), at(1)).await.unwrap();
    assert_eq!(another, Opened::New, "keys are compared exactly");
    assert_eq!(expandable(ledger, 1).await.len(), 2);
}

/// L2: a known id is not opened again.
pub async fn l2_a_known_id_is_a_repeat<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let new = broadcast();
    assert_eq!(h.store().open(&new, at(0)).await.unwrap(), Opened::New);
    let answer = h.second().open(&new, at(5)).await.unwrap();
    assert!(matches!(answer, Opened::Repeat(status) if status.created_at == at(0)));
    assert_eq!(expandable(h.store(), 5).await.len(), 1);
}

/// L2: of concurrent requests with one key one opens, and the others return its broadcast.
pub async fn l2_one_of_many_concurrent_requests_opens<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let answers = h
        .race(8, |ledger, _| async move {
            let new = keyed("k", 1);
            (new.id, ledger.open(&new, at(0)).await.unwrap())
        })
        .await;
    let opened: Vec<_> = answers
        .iter()
        .filter(|(_, answer)| *answer == Opened::New)
        .map(|(id, _)| *id)
        .collect();
    assert_eq!(opened.len(), 1);
    for (_, answer) in &answers {
        if let Opened::Repeat(status) = answer {
            assert_eq!(status.id, opened[0]);
        }
    }
    assert_eq!(expandable(h.second(), 0).await.len(), 1);
}

/// L3: lists due broadcasts with audience and cursor, but not scheduled, cancelled, late or expanded ones.
pub async fn l3_due_broadcasts_are_expandable<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let ids = vec![SubscriptionId::random(), SubscriptionId::random()];
    let mut expected = Vec::new();
    for (secs, audience) in [
        Audience::All,
        Audience::user("älice \"x\""),
        Audience::Tag(tag("a:b")),
        Audience::Ids(ids),
    ]
    .into_iter()
    .enumerate()
    {
        let new = NewBroadcast::new(audience.clone(), Message::new("x"), at(100));
        let now = at(i64::try_from(secs).unwrap());
        ledger.open(&new, now).await.unwrap();
        expected.push(Expansion::new(new.id, audience, Cursor::Start, None));
    }
    let mut later = broadcast();
    later.send_at = Some(at(50));
    ledger.open(&later, at(0)).await.unwrap();
    let cancelled = broadcast();
    ledger.open(&cancelled, at(0)).await.unwrap();
    ledger.cancel(cancelled.id, at(0)).await.unwrap();
    assert_eq!(expandable(ledger, 10).await, expected);
    assert_eq!(ledger.expandable(2, at(10)).await.unwrap(), expected[..2]);
    assert_eq!(
        expandable(ledger, 50).await.len(),
        5,
        "the scheduled one is due"
    );
    let left = expandable(ledger, 100).await;
    assert_eq!(left.len(), 1, "the others are past their deadline");
    assert_eq!(left[0].id, later.id);
}

/// L3: the least recently expanded broadcast comes first.
pub async fn l3_the_least_recently_expanded_is_first<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let (a, b) = (broadcast(), broadcast());
    ledger.open(&a, at(0)).await.unwrap();
    ledger.open(&b, at(1)).await.unwrap();
    let next = Cursor::After(recipient(1));
    let rows = [delivery("a", 1)];
    for (id, secs) in [(a.id, 2), (b.id, 3)] {
        let first = expandable(ledger, secs).await;
        assert_eq!(first[0].id, id);
        let written = ledger
            .enqueue_page(id, &Cursor::Start, &rows, &next, at(secs))
            .await
            .unwrap();
        assert_eq!(written, PageWrite::Stored);
    }
    let order = expandable(ledger, 4).await;
    assert_eq!([order[0].id, order[1].id], [a.id, b.id]);
    assert_eq!(order[0].cursor, next);
}

/// L4: rows and cursor are written together, and only from the expected cursor.
pub async fn l4_a_page_is_written_where_the_cursor_is_expected<L: DeliveryLedger + ?Sized>(
    h: &Handles<L>,
) {
    let ledger = h.store();
    let mut new = broadcast();
    new.recipients = 9;
    ledger.open(&new, at(0)).await.unwrap();
    let after = Cursor::After(recipient(2));
    let page = |numbers: &[u32]| -> Vec<_> { numbers.iter().map(|n| delivery("a", *n)).collect() };
    for (expected, rows, next, answer) in [
        (Cursor::Start, page(&[1, 2]), after, PageWrite::Stored),
        (Cursor::Start, page(&[3]), after, PageWrite::Stale),
        (
            Cursor::After(recipient(1)),
            page(&[3]),
            Cursor::End,
            PageWrite::Stale,
        ),
        (Cursor::End, page(&[3]), Cursor::End, PageWrite::Stale),
        // Row 2 exists already.
        (after, page(&[2, 4]), Cursor::End, PageWrite::Stored),
        (Cursor::End, page(&[5]), Cursor::End, PageWrite::Stale),
    ] {
        let written = ledger
            .enqueue_page(new.id, &expected, &rows, &next, at(1))
            .await
            .unwrap();
        assert_eq!(written, answer, "{expected:?}");
        if next == after {
            let status = ledger.status(new.id, at(1)).await.unwrap().unwrap();
            assert_eq!(status.state, BroadcastState::Expanding);
            assert_eq!((status.recipients, status.counts.pending), (9, 9));
        }
    }
    let status = ledger.status(new.id, at(1)).await.unwrap().unwrap();
    assert_eq!(status.state, BroadcastState::Sending);
    assert_eq!((status.recipients, status.counts.pending), (3, 3));
    assert_eq!(expandable(ledger, 1).await, []);
    assert_eq!(claim(ledger, 9, at(1)).await.len(), 3);
}

/// L4: nothing is written for a cancelled, late or unknown broadcast.
pub async fn l4_a_page_of_an_ended_broadcast_is_stale<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let cancelled = broadcast();
    ledger.open(&cancelled, at(0)).await.unwrap();
    ledger.cancel(cancelled.id, at(0)).await.unwrap();
    let mut late = broadcast();
    late.deadline = at(5);
    ledger.open(&late, at(0)).await.unwrap();
    let rows = [delivery("a", 1)];
    for id in [cancelled.id, late.id, broadcast().id] {
        let written = ledger
            .enqueue_page(id, &Cursor::Start, &rows, &Cursor::End, at(5))
            .await
            .unwrap();
        assert_eq!(written, PageWrite::Stale);
    }
    assert_eq!(claim(ledger, 9, at(5)).await.len(), 0);
}

/// L4: one of several concurrent writers of a page succeeds.
pub async fn l4_one_of_many_concurrent_pages_is_written<L: DeliveryLedger + ?Sized>(
    h: &Handles<L>,
) {
    let new = broadcast();
    h.store().open(&new, at(0)).await.unwrap();
    let answers = h
        .race(6, move |ledger, number| async move {
            let rows = [delivery("a", u32::try_from(number).unwrap())];
            ledger
                .enqueue_page(new.id, &Cursor::Start, &rows, &Cursor::End, at(1))
                .await
                .unwrap()
        })
        .await;
    let stored = answers
        .iter()
        .filter(|answer| **answer == PageWrite::Stored);
    assert_eq!(stored.count(), 1);
    let status = h.second().status(new.id, at(1)).await.unwrap().unwrap();
    assert_eq!(status.recipients, 1);
}
