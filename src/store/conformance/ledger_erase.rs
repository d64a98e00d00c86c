//! L17: erasing a user's pending deliveries.

use super::Handles;
use super::sample::{
    LEASE, at, broadcast, claim, delivery, endpoint, key_id, origin, sending_as, subscription,
    unknown_id,
};
use crate::broadcast::{
    Audience, BroadcastId, BroadcastState, BroadcastStatus, FinalOutcome, Principal, Tag,
};
use crate::message::Message;
use crate::store::{
    DeliveryLedger, Erased, Idempotency, NewBroadcast, NewDelivery, Opened, Pause, PauseReason,
    STEP, Settled, Settlement, SubscriptionRecord,
};
use crate::subscription::SubscriptionId;

const ACCEPTED: Settlement = Settlement::Finished(FinalOutcome::Accepted);

/// A subscription of alice.
fn row(number: u32) -> SubscriptionRecord {
    let id = SubscriptionId::from_bytes(u128::from(number).to_be_bytes());
    let mut row = SubscriptionRecord::new(id, subscription(number, 1), key_id(1), at(0));
    row.principal = Some(alice());
    row
}

fn alice() -> Principal {
    Principal::from("alice")
}

fn deliveries<const N: usize>(numbers: [u32; N]) -> [NewDelivery; N] {
    numbers.map(|number| {
        let endpoint = endpoint(number);
        NewDelivery::new(endpoint.key(), endpoint.origin().clone())
    })
}

async fn status<L: DeliveryLedger + ?Sized>(ledger: &L, id: BroadcastId) -> BroadcastStatus {
    let status = ledger.status(id, at(9)).await.unwrap().unwrap();
    let sum = status.counts.pending + status.counts.finished();
    assert_eq!(sum, status.recipients, "{status:?}");
    status
}

/// L17: the user's rows end in every broadcast, leased or not. Others' rows stay.
pub async fn l17_rows_of_a_user_are_erased<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let (leased, waiting) = (broadcast(), broadcast());
    sending_as(ledger, &leased, &deliveries([1, 2, 3]), at(0)).await;
    let claimed = claim(ledger, 9, at(0)).await;
    assert_eq!(claimed.len(), 3);
    sending_as(ledger, &waiting, &deliveries([2, 4]), at(0)).await;
    // Named twice is named once.
    let rows = [row(1), row(2), row(1)];
    let erased = h.second().erase(&alice(), &rows, at(1)).await.unwrap();
    let expected = Erased {
        deliveries: 3,
        broadcasts: 0,
    };
    assert_eq!(erased, expected);
    let again = ledger.erase(&alice(), &rows, at(1)).await.unwrap();
    assert_eq!(again, Erased::default());
    assert_eq!(ledger.stats(at(1)).await.unwrap().depth, 2);
    for token in claimed.iter().map(|row| row.token) {
        let expected = match token.key == endpoint(3).key() {
            true => Settled::Done,
            false => Settled::Lost,
        };
        let settled = ledger.settle(&[(token, ACCEPTED)], at(2)).await.unwrap();
        assert_eq!(settled, [expected]);
    }
    let end = status(ledger, leased.id).await;
    assert_eq!((end.counts.accepted, end.counts.cancelled), (1, 2));
    assert_eq!(end.state, BroadcastState::Done);
    let rest = claim(ledger, 9, at(2)).await;
    let keys: Vec<_> = rest.iter().map(|row| row.token.key).collect();
    assert_eq!(keys, [endpoint(4).key()]);
}

/// L17: broadcasts to this user alone are cancelled. Others are not.
pub async fn l17_broadcasts_to_a_user_alone_are_cancelled<L: DeliveryLedger + ?Sized>(
    h: &Handles<L>,
) {
    let ledger = h.store();
    let rows = [row(1), row(2)];
    let to = |audience: Audience| {
        let mut new = NewBroadcast::new(audience, Message::new("hello"), at(3600));
        new.send_at = Some(at(100));
        new.recipients = 1;
        new
    };
    let mut theirs = [
        to(Audience::User(alice())),
        to(Audience::id(rows[0].id)),
        to(Audience::Ids(vec![rows[1].id, rows[0].id])),
    ];
    theirs[0].idempotency = Some(Idempotency::new("order-7", [7; 32]));
    let others = [
        to(Audience::All),
        to(Audience::user("bob")),
        to(Audience::Tag(Tag::parse("alice").unwrap())),
        to(Audience::Ids(vec![rows[0].id, unknown_id()])),
    ];
    for new in theirs.iter().chain(&others) {
        assert_eq!(ledger.open(new, at(0)).await.unwrap(), Opened::New);
    }
    let sending = broadcast();
    let mut to_user = sending.clone();
    to_user.audience = Audience::User(alice());
    sending_as(ledger, &to_user, &deliveries([1, 5]), at(0)).await;
    let mut written = broadcast();
    written.audience = Audience::User(alice());
    sending_as(ledger, &written, &deliveries([1]), at(0)).await;
    let erased = ledger.erase(&alice(), &rows, at(1)).await.unwrap();
    assert_eq!((erased.deliveries, erased.broadcasts), (2, 5));
    let end = status(ledger, written.id).await;
    assert_eq!(end.state, BroadcastState::Cancelled);
    for new in &theirs {
        let end = status(ledger, new.id).await;
        assert_eq!(end.state, BroadcastState::Cancelled);
        assert_eq!((end.counts.cancelled, end.counts.pending), (1, 0));
    }
    // Its other recipient belonged to the user when the page was written.
    let end = status(ledger, sending.id).await;
    assert_eq!(end.state, BroadcastState::Cancelled);
    assert_eq!((end.counts.cancelled, end.counts.pending), (2, 0));
    assert_eq!(claim(ledger, 9, at(1)).await.len(), 0);
    let mut left: Vec<_> = ledger.expandable(9, at(100)).await.unwrap();
    left.sort_by_key(|expansion| expansion.id);
    let mut expected: Vec<_> = others.iter().map(|new| new.id).collect();
    expected.sort_unstable();
    let left: Vec<_> = left.iter().map(|expansion| expansion.id).collect();
    assert_eq!(left, expected);
    let again = ledger.open(&theirs[0], at(2)).await.unwrap();
    assert!(matches!(again, Opened::Repeat(_)), "{again:?}");
    let again = ledger.erase(&alice(), &rows, at(2)).await.unwrap();
    assert_eq!(again, Erased::default());
}

/// L17: a row that is no probe ends none when it is erased, although it was claimed before at the same origin, or with the probe
/// of another one.
pub async fn l17_an_erased_row_ends_no_other_probe<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let theirs = endpoint(1).origin().clone();
    sending_as(ledger, &broadcast(), &deliveries([1, 2]), at(0)).await;
    let before = claim(ledger, 9, at(0)).await;
    let again = before.iter().map(|row| {
        let is_erased = row.token.key == endpoint(1).key();
        let secs = if is_erased { 500 } else { 1 };
        (row.token, Settlement::RetryAt(at(secs)))
    });
    let again: Vec<_> = again.collect();
    ledger.settle(&again, at(0)).await.unwrap();
    for origin in [&theirs, &origin("a")] {
        let pause = Pause::new(origin.clone(), at(2), PauseReason::SenderFault);
        ledger.pause(&pause, at(1)).await.unwrap();
    }
    let rows = [delivery("a", 8), delivery("a", 9)];
    sending_as(ledger, &broadcast(), &rows, at(1)).await;
    let probes = claim(ledger, 9, at(2)).await;
    assert_eq!(probes.len(), 2, "one of each origin");
    let until = async || {
        let pauses = h.second().pauses(at(3)).await.unwrap();
        pauses
            .into_iter()
            .map(|pause| pause.until)
            .collect::<Vec<_>>()
    };
    assert_eq!(until().await, [at(2) + LEASE; 2]);
    let erased = ledger.erase(&alice(), &[row(1)], at(3)).await.unwrap();
    assert_eq!(erased.deliveries, 1);
    assert_eq!(until().await, [at(2) + LEASE; 2]);
    // The probe of one origin is erased, and not that of the other one.
    let erased = h.second().erase(&alice(), &[row(2)], at(3)).await.unwrap();
    assert_eq!(erased.deliveries, 1);
    let pauses = ledger.pauses(at(3)).await.unwrap();
    let other = pauses.iter().find(|pause| pause.origin == origin("a"));
    assert_eq!(other.unwrap().until, at(2) + LEASE);
    assert_eq!(claim(ledger, 9, at(3)).await.len(), 0);
}

/// L17: after an erased probe the paused origin is due for the next one.
pub async fn l17_an_erased_probe_makes_room<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let new = broadcast();
    sending_as(ledger, &new, &deliveries([1]), at(0)).await;
    let origin = endpoint(1).origin().clone();
    let pause = Pause::new(origin, at(0), PauseReason::SenderFault);
    ledger.pause(&pause, at(-1)).await.unwrap();
    assert_eq!(claim(ledger, 9, at(0)).await.len(), 1);
    let other = broadcast();
    sending_as(ledger, &other, &deliveries([2]), at(0)).await;
    assert_eq!(claim(ledger, 9, at(1)).await.len(), 0);
    ledger.erase(&alice(), &[row(1)], at(2)).await.unwrap();
    assert_eq!(claim(ledger, 9, at(2)).await.len(), 1);
}

/// L17: the rows of a user end in every open broadcast, however many subscriptions the user has. With as many as one step has rows, a
/// step may end after one broadcast.
pub async fn l17_no_open_broadcast_is_left_out<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let last = STEP as u32;
    let theirs: Vec<_> = (0..=last).map(row).collect();
    for _ in 0..3 {
        sending_as(ledger, &broadcast(), &deliveries([0, last]), at(0)).await;
    }
    let erased = ledger.erase(&alice(), &theirs, at(1)).await.unwrap();
    assert_eq!(erased.deliveries, 6);
    assert_eq!(ledger.stats(at(2)).await.unwrap().depth, 0);
    assert_eq!(claim(h.second(), 9, at(2)).await.len(), 0);
}
