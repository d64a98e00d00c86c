//! L22: the outbox. `write` commits one entry as an application does.
#![expect(
    clippy::future_not_send,
    reason = "the tests that call them do not move; a bound `AsyncFn` cannot name its future"
)]

use serde_json::Value;

use super::Handles;
use super::sample::{at, broadcast, claim, delivery, recipient};
use crate::broadcast::{Audience, BroadcastId, Principal};
use crate::store::{
    Cursor, DeliveryLedger, Erased, Idempotency, NewBroadcast, OutboxEntry, OutboxRefusal,
    OutboxSettled, OutboxSettlement, OutboxStats, Page,
};

const ALL: &str = "\"all\"";
const MESSAGE: &str = r#"{"title":"Shipped"}"#;

fn open(new: &NewBroadcast) -> OutboxSettlement {
    OutboxSettlement::Open(Box::new(new.clone()))
}

fn refuse(code: &str) -> OutboxSettlement {
    OutboxSettlement::Refuse(OutboxRefusal::new(code, "some detail"))
}

fn keyed(key: &str, fingerprint: u8) -> NewBroadcast {
    let mut new = broadcast();
    new.idempotency = Some(Idempotency::new(key, [fingerprint; 32]));
    new
}

async fn waiting<L: DeliveryLedger + ?Sized>(ledger: &L) -> Vec<OutboxEntry> {
    ledger.outbox(99).await.unwrap()
}

/// The numbers of the entries that wait, after this many were written.
async fn written<L, W>(ledger: &L, write: &W, number: usize) -> Vec<i64>
where
    L: DeliveryLedger + ?Sized,
    W: AsyncFn(&L, &str, &str, &str),
{
    for _ in 0..number {
        write(ledger, ALL, MESSAGE, "{}").await;
    }
    waiting(ledger)
        .await
        .iter()
        .map(|entry| entry.seq)
        .collect()
}

async fn settle<L: DeliveryLedger + ?Sized>(
    ledger: &L,
    entries: &[(i64, OutboxSettlement)],
) -> Vec<OutboxSettled> {
    ledger.settle_outbox(entries, at(0)).await.unwrap()
}

/// L22: nothing waits in an outbox that was not written to, nor in a ledger without one.
pub async fn l22_an_empty_outbox_has_no_entries<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    assert_eq!(waiting(ledger).await, []);
    assert_eq!(ledger.refused_outbox(99).await.unwrap(), []);
    assert_eq!(ledger.outbox_stats().await.unwrap(), OutboxStats::default());
    let new = broadcast();
    let settled = settle(ledger, &[(1, open(&new)), (2, refuse("invalid_ttl"))]).await;
    assert_eq!(settled, [OutboxSettled::Taken; 2]);
    assert_eq!(ledger.status(new.id, at(0)).await.unwrap(), None);
    assert_eq!(ledger.refused_outbox(99).await.unwrap(), []);
    assert!(!ledger.retry_outbox(1).await.unwrap());
    assert!(!ledger.drop_outbox(1).await.unwrap());
}

/// L22: committed entries are listed by every process, in the order of their numbers, with what was written.
pub async fn l22_entries_wait_in_their_order<L, W>(h: &Handles<L>, write: W)
where
    L: DeliveryLedger + ?Sized,
    W: AsyncFn(&L, &str, &str, &str),
{
    let ledger = h.store();
    assert!(ledger.has_outbox());
    let texts = [
        [ALL, r#"{"title":"a","ttl":60}"#, "{}"],
        [
            r#"{"user":"alice"}"#,
            r#"{"payload":[1,"ä"]}"#,
            r#"{"idempotencyKey":"k"}"#,
        ],
        [r#"{"tag":"news"}"#, MESSAGE, r#"{"pace":{"perSecond":5}}"#],
    ];
    for [audience, message, opts] in texts {
        write(ledger, audience, message, opts).await;
    }
    let entries = waiting(h.second()).await;
    assert_eq!(entries.len(), 3);
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    for (entry, [audience, message, opts]) in entries.iter().zip(texts) {
        assert_eq!(parsed(&entry.audience), parsed(audience));
        assert_eq!(parsed(&entry.message), parsed(message));
        assert_eq!(parsed(&entry.opts), parsed(opts));
    }
    assert!(entries.is_sorted_by(|one, next| one.seq < next.seq));
    assert!(entries[0].id != entries[1].id && entries[1].id != entries[2].id);
    // Each listing gives the same ids.
    assert_eq!(waiting(ledger).await, entries);
    assert_eq!(ledger.outbox(2).await.unwrap(), entries[..2]);
    let stats = h.second().outbox_stats().await.unwrap();
    assert_eq!(stats, OutboxStats::new(3, 0));
}

/// L22: an entry is removed in the transaction that opens its broadcast, with the first page.
pub async fn l22_settling_opens_and_removes<L, W>(h: &Handles<L>, write: W)
where
    L: DeliveryLedger + ?Sized,
    W: AsyncFn(&L, &str, &str, &str),
{
    let ledger = h.store();
    let seqs = written(ledger, &write, 3).await;
    let mut new = broadcast();
    new.recipients = 1;
    new.page = Some(Page::new(vec![delivery("a", 1)], Cursor::End));
    let (second, to_none) = (broadcast(), {
        let mut to_none = broadcast();
        to_none.page = Some(Page::new(Vec::new(), Cursor::End));
        to_none
    });
    let settled = settle(
        ledger,
        &[
            (seqs[1], open(&second)),
            (seqs[0], open(&new)),
            (seqs[2], open(&to_none)),
        ],
    )
    .await;
    assert_eq!(settled, [OutboxSettled::Opened; 3]);
    assert_eq!(waiting(h.second()).await, []);
    for id in [new.id, second.id, to_none.id] {
        assert!(h.second().status(id, at(0)).await.unwrap().is_some());
    }
    let to_none = ledger.status(to_none.id, at(0)).await.unwrap();
    assert!(to_none.is_some_and(|status| status.is_over()));
    let claimed = claim(h.second(), 9, at(0)).await;
    let keys: Vec<_> = claimed.iter().map(|row| row.token.key).collect();
    assert_eq!(keys, [recipient(1)]);
    let left = ledger.expandable(9, at(0)).await.unwrap();
    assert_eq!(
        left.iter().map(|one| one.id).collect::<Vec<_>>(),
        [second.id]
    );
    // After a lost response: it is gone, and is opened once.
    let mut again = broadcast();
    again.id = new.id;
    let settled = settle(h.second(), &[(seqs[0], open(&again))]).await;
    assert_eq!(settled, [OutboxSettled::Taken]);
    assert_eq!(ledger.underway(9, at(0)).await.unwrap().len(), 2);
}

/// L22: of entries with one idempotency key in one call the first one opens, whatever their ids.
pub async fn l22_the_first_entry_of_a_key_opens<L, W>(h: &Handles<L>, write: W)
where
    L: DeliveryLedger + ?Sized,
    W: AsyncFn(&L, &str, &str, &str),
{
    let ledger = h.store();
    let seqs = written(ledger, &write, 4).await;
    let with_id = |fingerprint, id| {
        let mut new = keyed("k", fingerprint);
        new.id = BroadcastId::from_bytes([id; 16]);
        new
    };
    let (first, other) = (with_id(1, 9), broadcast());
    let settled = settle(
        ledger,
        &[
            (seqs[0], open(&first)),
            (seqs[1], open(&with_id(2, 1))),
            (seqs[2], open(&other)),
            (seqs[3], open(&with_id(1, 2))),
        ],
    )
    .await;
    let expected = [
        OutboxSettled::Opened,
        OutboxSettled::Conflict,
        OutboxSettled::Opened,
        OutboxSettled::Repeat,
    ];
    assert_eq!(settled, expected);
    let underway = ledger.underway(9, at(0)).await.unwrap();
    let mut opened: Vec<_> = underway.iter().map(|status| status.id).collect();
    opened.sort_unstable_by_key(|id| *id == other.id);
    assert_eq!(opened, [first.id, other.id]);
    let refused = ledger.refused_outbox(9).await.unwrap();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].entry.seq, seqs[1]);
}

/// L22: a known id and a repeated request only remove the entry; a conflict refuses it.
pub async fn l22_a_repeat_is_removed_and_a_conflict_refused<L, W>(h: &Handles<L>, write: W)
where
    L: DeliveryLedger + ?Sized,
    W: AsyncFn(&L, &str, &str, &str),
{
    let ledger = h.store();
    let seqs = written(ledger, &write, 6).await;
    let mut same_id = broadcast();
    let first = broadcast();
    same_id.id = first.id;
    // In one call, in which the first of them opens.
    let settled = settle(
        ledger,
        &[(seqs[0], open(&first)), (seqs[1], open(&same_id))],
    )
    .await;
    assert_eq!(settled, [OutboxSettled::Opened, OutboxSettled::Repeat]);
    let settled = settle(ledger, &[(seqs[2], open(&keyed("k", 1)))]).await;
    assert_eq!(settled, [OutboxSettled::Opened]);
    // In another call.
    let settled = settle(
        h.second(),
        &[
            (seqs[3], open(&keyed("k", 1))),
            (seqs[4], open(&keyed("k", 2))),
            (seqs[5], open(&same_id)),
        ],
    )
    .await;
    let expected = [
        OutboxSettled::Repeat,
        OutboxSettled::Conflict,
        OutboxSettled::Repeat,
    ];
    assert_eq!(settled, expected);
    assert_eq!(waiting(ledger).await, []);
    let refused = ledger.refused_outbox(9).await.unwrap();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].entry.seq, seqs[4]);
    assert_eq!(refused[0].refusal, OutboxRefusal::conflict());
    assert_eq!(ledger.underway(9, at(0)).await.unwrap().len(), 2);
    // Of two new ones with one key in one call one opens.
    let seqs = written(ledger, &write, 2).await;
    let twice = [
        (seqs[0], open(&keyed("n", 1))),
        (seqs[1], open(&keyed("n", 1))),
    ];
    let mut settled = settle(ledger, &twice).await;
    settled.sort_by_key(|settled| *settled != OutboxSettled::Opened);
    assert_eq!(settled, [OutboxSettled::Opened, OutboxSettled::Repeat]);
    assert_eq!(ledger.underway(9, at(0)).await.unwrap().len(), 3);
}

/// L22: a refused entry is kept apart from those that wait, until it is retried or dropped.
pub async fn l22_a_refused_entry_is_kept<L, W>(h: &Handles<L>, write: W)
where
    L: DeliveryLedger + ?Sized,
    W: AsyncFn(&L, &str, &str, &str),
{
    let ledger = h.store();
    let seqs = written(ledger, &write, 3).await;
    let entries = waiting(ledger).await;
    let settlements = [
        (seqs[0], refuse("invalid_ttl")),
        (seqs[1], open(&broadcast())),
        (seqs[2], refuse("invalid_topic")),
    ];
    let settled = ledger.settle_outbox(&settlements, at(7));
    let expected = [
        OutboxSettled::Refused,
        OutboxSettled::Opened,
        OutboxSettled::Refused,
    ];
    assert_eq!(settled.await.unwrap(), expected);
    assert_eq!(waiting(h.second()).await, []);
    assert_eq!(ledger.outbox_stats().await.unwrap(), OutboxStats::new(0, 2));
    let refused = h.second().refused_outbox(9).await.unwrap();
    assert_eq!(refused.len(), 2);
    assert_eq!(refused[0].entry, entries[0]);
    let reason = OutboxRefusal::new("invalid_ttl", "some detail");
    assert_eq!(refused[0].refusal, reason);
    assert_eq!(refused[0].refused_at, at(7));
    assert_eq!(refused[1].refusal.code, "invalid_topic");
    assert_eq!(ledger.refused_outbox(1).await.unwrap(), refused[..1]);
    // It does not wait.
    let settled = settle(ledger, &[(seqs[0], open(&broadcast()))]).await;
    assert_eq!(settled, [OutboxSettled::Taken]);
    // With the same number and the same id it waits again.
    assert!(h.second().retry_outbox(seqs[0]).await.unwrap());
    assert!(!ledger.retry_outbox(seqs[0]).await.unwrap());
    assert!(!ledger.drop_outbox(seqs[0]).await.unwrap());
    assert_eq!(waiting(ledger).await, entries[..1]);
    let settled = settle(h.second(), &[(seqs[0], open(&broadcast()))]).await;
    assert_eq!(settled, [OutboxSettled::Opened]);
    assert!(ledger.drop_outbox(seqs[2]).await.unwrap());
    assert!(!ledger.drop_outbox(seqs[2]).await.unwrap());
    assert_eq!(ledger.outbox_stats().await.unwrap(), OutboxStats::default());
    // A number is not given again.
    let later = written(ledger, &write, 1).await;
    assert!(later.len() == 1 && later[0] > seqs[2], "{later:?}");
}

/// L22: of concurrent calls for one entry one settles it.
pub async fn l22_one_of_many_concurrent_calls_settles<L, W>(h: &Handles<L>, write: W)
where
    L: DeliveryLedger + ?Sized,
    W: AsyncFn(&L, &str, &str, &str),
{
    let seqs = written(h.store(), &write, 4).await;
    let all = seqs.clone();
    let answers = h
        .race(8, move |ledger, _| {
            let seqs = all.clone();
            async move {
                let new = |seq: &i64| (*seq, open(&broadcast()));
                let entries: Vec<_> = seqs.iter().map(new).collect();
                ledger.settle_outbox(&entries, at(0)).await.unwrap()
            }
        })
        .await;
    for place in 0..seqs.len() {
        let opened = answers
            .iter()
            .filter(|answer| answer[place] == OutboxSettled::Opened);
        assert_eq!(opened.count(), 1, "{answers:?}");
    }
    assert_eq!(h.store().underway(99, at(0)).await.unwrap().len(), 4);
    assert_eq!(waiting(h.second()).await, []);
}

/// L22: erasing a user removes the entries to this user alone, and counts them.
pub async fn l22_entries_to_a_user_are_erased<L, W>(h: &Handles<L>, write: W)
where
    L: DeliveryLedger + ?Sized,
    W: AsyncFn(&L, &str, &str, &str),
{
    let ledger = h.store();
    let [alice, bob] = [r#"{"user":"al\"ice"}"#, r#"{"user":"bob"}"#];
    for audience in [alice, ALL, bob, alice, bob] {
        write(ledger, audience, MESSAGE, "{}").await;
    }
    let seqs: Vec<_> = waiting(ledger)
        .await
        .iter()
        .map(|entry| entry.seq)
        .collect();
    let refused = [
        (seqs[3], refuse("invalid_ttl")),
        (seqs[4], refuse("invalid_ttl")),
    ];
    settle(ledger, &refused).await;
    let user = Principal::from("al\"ice");
    let erased = h.second().erase(&user, &[], at(0)).await.unwrap();
    let expected = Erased {
        deliveries: 0,
        broadcasts: 2,
    };
    assert_eq!(erased, expected);
    let left: Vec<_> = waiting(ledger)
        .await
        .iter()
        .map(|entry| entry.seq)
        .collect();
    assert_eq!(left, [seqs[1], seqs[2]]);
    let refused = ledger.refused_outbox(9).await.unwrap();
    let audiences = refused.iter().map(|one| &one.entry.audience);
    let audiences: Vec<Audience> = audiences
        .map(|text| serde_json::from_str(text).unwrap())
        .collect();
    assert_eq!(audiences, [Audience::user("bob")]);
    let again = ledger.erase(&user, &[], at(0)).await.unwrap();
    assert_eq!(again, Erased::default());
}
