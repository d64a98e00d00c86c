//! L26: the span that a broadcast comes from.

use super::Handles;
use super::sample::{LEASE, at, broadcast, delivery};
use crate::broadcast::{BroadcastId, TraceParent};
use crate::clock::Timestamp;
use crate::store::{ClaimRequest, Claims, Cursor, DeliveryLedger, NewBroadcast, Page, Settlement};

fn traced(number: u8, is_sampled: bool) -> NewBroadcast {
    let mut new = broadcast();
    new.trace_parent = TraceParent::new([number; 16], [number; 8], is_sampled).ok();
    assert!(new.trace_parent.is_some());
    new
}

async fn claimed<L: DeliveryLedger + ?Sized>(ledger: &L, now: Timestamp) -> Claims {
    let request = ClaimRequest::new(9, LEASE);
    ledger.claim(&request, now).await.unwrap()
}

fn of(claims: &Claims, id: BroadcastId) -> Option<TraceParent> {
    claims.messages[&id].trace_parent
}

/// L26: each broadcast has its own, or none, when it is expanded and at each claim.
pub async fn l26_a_trace_parent_is_kept_with_its_broadcast<L: DeliveryLedger + ?Sized>(
    h: &Handles<L>,
) {
    let ledger = h.store();
    let all = [traced(1, true), broadcast(), traced(2, false)];
    for (number, new) in (1..).zip(&all) {
        ledger.open(new, at(0)).await.unwrap();
        let listed = h.second().expandable(9, at(0)).await.unwrap();
        assert_eq!(listed.len(), number);
        let found = listed.iter().find(|expansion| expansion.id == new.id);
        assert_eq!(found.unwrap().trace_parent, new.trace_parent);
    }
    for new in &all {
        let rows = [delivery("a", 1)];
        let after = Cursor::After(rows[0].key);
        let written = ledger.enqueue_page(new.id, &Cursor::Start, &rows, &after, at(0));
        written.await.unwrap();
    }
    // Behind their first page.
    let listed = ledger.expandable(9, at(1)).await.unwrap();
    for new in &all {
        let found = listed.iter().find(|expansion| expansion.id == new.id);
        assert_eq!(found.unwrap().trace_parent, new.trace_parent);
    }
    let first = claimed(h.second(), at(1)).await;
    assert_eq!(first.rows.len(), 3);
    let again = first.rows.iter();
    let again: Vec<_> = again
        .map(|row| (row.token, Settlement::RetryAt(at(2))))
        .collect();
    ledger.settle(&again, at(1)).await.unwrap();
    let second = claimed(ledger, at(2)).await;
    assert_eq!(second.rows.len(), 3);
    for claims in [first, second] {
        for new in &all {
            assert_eq!(of(&claims, new.id), new.trace_parent);
        }
    }
}

/// L26: also when rows are written with it.
pub async fn l26_a_first_page_keeps_the_trace_parent<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let mut new = traced(3, true);
    new.page = Some(Page::new(vec![delivery("a", 1)], Cursor::End));
    ledger.open(&new, at(0)).await.unwrap();
    let claims = claimed(h.second(), at(0)).await;
    assert_eq!(of(&claims, new.id), new.trace_parent);
}
