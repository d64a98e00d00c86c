//! L19: the rows of a process that lives.

use super::Handles;
use super::sample::{LEASE, at, claim, delivery, sending};
use crate::broadcast::FinalOutcome;
use crate::store::{DeliveryLedger, Settled, Settlement};

/// L19: leases of a process that lives end by their time, and its epoch stays.
pub async fn l19_a_process_that_lives_keeps_its_rows<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let (ledger, other) = (h.store(), h.second());
    let rows: Vec<_> = (0..5).map(|n| delivery("a", n)).collect();
    sending(ledger, &rows, at(0)).await;
    let epoch = ledger.epoch();
    assert!(epoch.is_some());
    let claimed = claim(ledger, 3, at(0)).await;
    assert_eq!(claim(other, 9, at(1)).await.len(), 2, "what is left");
    assert!(claim(ledger, 9, at(2)).await.is_empty());
    assert!(claim(other, 9, at(0) + LEASE / 2).await.is_empty());
    assert_eq!(ledger.epoch(), epoch);
    let accepted = Settlement::Finished(FinalOutcome::Accepted);
    let settled = claimed.iter().map(|row| (row.token, accepted));
    let settled: Vec<_> = settled.collect();
    let settled = ledger.settle(&settled, at(3)).await.unwrap();
    assert_eq!(settled, [Settled::Done; 3]);
}
