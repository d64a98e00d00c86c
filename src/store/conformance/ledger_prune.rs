//! L13: what is forgotten, in steps.

use std::ops::Range;

use super::Handles;
use super::sample::{at, broadcast, claim, delivery, origin, sending, sending_as};
use crate::broadcast::FinalOutcome;
use crate::store::{DeliveryLedger, Idempotency, Opened, STEP, Settled, Settlement, Tally};
use crate::subscription::Origin;

const ACCEPTED: Settlement = Settlement::Finished(FinalOutcome::Accepted);

/// L13: only broadcasts that ended before the time are removed, with their idempotency keys.
pub async fn l13_prune_forgets_what_ended_before<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let mut old = broadcast();
    old.idempotency = Some(Idempotency::new("k", [1; 32]));
    sending_as(ledger, &old, &[], at(10)).await;
    let young = broadcast();
    sending_as(ledger, &young, &[], at(20)).await;
    let pending = sending(ledger, &[delivery("a", 1)], at(0)).await;
    let cancelled = broadcast();
    ledger.open(&cancelled, at(0)).await.unwrap();
    ledger.cancel(cancelled.id, at(15)).await.unwrap();
    assert_eq!(ledger.prune(at(10)).await.unwrap().broadcasts, 0);
    assert_eq!(ledger.prune(at(20)).await.unwrap().broadcasts, 2);
    for (id, is_left) in [
        (old.id, false),
        (young.id, true),
        (pending, true),
        (cancelled.id, false),
    ] {
        let status = ledger.status(id, at(99)).await.unwrap();
        assert_eq!(status.is_some(), is_left);
    }
    assert_eq!(claim(ledger, 9, at(99)).await.len(), 1);
    let mut again = broadcast();
    again.idempotency = Some(Idempotency::new("k", [2; 32]));
    assert_eq!(ledger.open(&again, at(99)).await.unwrap(), Opened::New);
}

/// L13: one call removes at most a step of broadcasts, and says whether there may be more.
pub async fn l13_pruning_takes_steps<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    const BROADCASTS: usize = STEP + 7;
    let ledger = h.store();
    for _ in 0..BROADCASTS {
        let mut new = broadcast();
        new.deadline = at(10);
        ledger.open(&new, at(0)).await.unwrap();
    }
    for _ in 0..BROADCASTS {
        if ledger.underway(1, at(10)).await.unwrap().is_empty() {
            break;
        }
        ledger.expire(1, at(10)).await.unwrap();
    }
    let first = ledger.prune(at(11)).await.unwrap();
    assert!(first.more && first.broadcasts <= STEP as u64, "{first:?}");
    let mut removed = first.broadcasts;
    for _ in 0..BROADCASTS {
        let step = h.second().prune(at(11)).await.unwrap();
        removed += step.broadcasts;
        if !step.more {
            break;
        }
    }
    assert_eq!(removed, BROADCASTS as u64);
}

/// L13: an origin with rows keeps its pause and tally, whether its rows wait or are leased.
pub async fn l13_an_origin_with_rows_keeps_its_tally<L>(h: &Handles<L>)
where
    L: DeliveryLedger + ?Sized,
{
    let ledger = h.store();
    sending(ledger, &[delivery("a", 1)], at(0)).await;
    let gone = [(origin("a"), Tally::new(0, 1))];
    ledger.tally(&gone, at(1)).await.unwrap();
    ledger.prune(at(2)).await.unwrap();
    assert_eq!(h.second().tallies().await.unwrap(), gone);
    assert_eq!(claim(ledger, 9, at(2)).await.len(), 1);
    ledger.prune(at(3)).await.unwrap();
    let nothing = [(origin("a"), Tally::default())];
    let sums = h.second().tally(&nothing, at(4)).await.unwrap();
    assert_eq!(sums, [Tally::new(0, 1)]);
}

/// L13: a broadcast with `forget_when_over` is removed with its last row, whatever the outcome.
pub async fn l13_a_broadcast_may_be_forgotten_when_it_is_over<L>(h: &Handles<L>)
where
    L: DeliveryLedger + ?Sized,
{
    let ledger = h.store();
    let forgettable = |number: u32| {
        let mut new = broadcast();
        new.forget_when_over = true;
        new.recipients = 1;
        (new, [delivery("a", number)])
    };
    let (settled, row) = forgettable(1);
    sending_as(ledger, &settled, &row, at(0)).await;
    let rows = claim(ledger, 9, at(1)).await;
    assert!(ledger.status(settled.id, at(1)).await.unwrap().is_some());
    let ends = [(rows[0].token, ACCEPTED)];
    let answers = ledger.settle(&ends, at(2)).await.unwrap();
    assert_eq!(answers, [Settled::Done]);
    // Its token is invalid.
    let answers = h.second().settle(&ends, at(2)).await.unwrap();
    assert_eq!(answers, [Settled::Lost]);

    let (cancelled, row) = forgettable(2);
    sending_as(ledger, &cancelled, &row, at(3)).await;
    let answer = ledger.cancel(cancelled.id, at(4)).await.unwrap().unwrap();
    assert_eq!((answer.counts.cancelled, answer.counts.pending), (1, 0));
    let (mut late, row) = forgettable(3);
    late.deadline = at(9);
    sending_as(ledger, &late, &row, at(5)).await;
    assert_eq!(ledger.expire(9, at(9)).await.unwrap(), 1);
    let (to_none, _) = forgettable(4);
    sending_as(ledger, &to_none, &[], at(6)).await;
    for id in [settled.id, cancelled.id, late.id, to_none.id] {
        assert_eq!(h.second().status(id, at(9)).await.unwrap(), None);
    }
    assert_eq!(h.second().underway(9, at(9)).await.unwrap(), []);
    assert_eq!(h.second().expandable(9, at(9)).await.unwrap(), []);
    assert_eq!(ledger.stats(at(9)).await.unwrap().depth, 0);
}

/// Tells something of origins with these numbers.
async fn tally<L: DeliveryLedger + ?Sized>(ledger: &L, numbers: Range<usize>, secs: i64) {
    let counts: Vec<_> = numbers.map(one_of).collect();
    ledger.tally(&counts, at(secs)).await.unwrap();
}

fn one_of(number: usize) -> (Origin, Tally) {
    (origin(&format!("o{number:05}")), Tally::new(0, 1))
}

/// Prunes until there is no more.
async fn prune_all<L: DeliveryLedger + ?Sized>(ledger: &L, ended_before: i64) {
    for _ in 0..5 {
        if !ledger.prune(at(ended_before)).await.unwrap().more {
            return;
        }
    }
    panic!("each step says that there may be more");
}

/// L13: the steps go through all origins, also where those of the first step stay.
pub async fn l13_origins_that_stay_hide_no_others<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    tally(ledger, 0..STEP, 20).await;
    tally(ledger, STEP..STEP + 7, 0).await;
    prune_all(ledger, 10).await;
    let mut left = h.second().tallies().await.unwrap();
    left.sort_by(|(one, _), (other, _)| one.cmp(other));
    let young: Vec<_> = (0..STEP).map(one_of).collect();
    assert_eq!(left, young);
}

/// L13: no origin is left out between two steps, nor behind the last one.
pub async fn l13_steps_leave_out_no_origin<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    for number in [STEP, STEP + 1] {
        tally(ledger, 0..number, 0).await;
        prune_all(ledger, 10).await;
        assert_eq!(h.second().tallies().await.unwrap(), [], "{number}");
    }
}
