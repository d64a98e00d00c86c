//! L25: samples of failed deliveries.

use super::Handles;
use super::sample::{at, broadcast, claim, delivery, recipient, sending, sending_as};
use crate::broadcast::{BroadcastId, FinalOutcome};
use crate::push_service::PushService;
use crate::store::rules::sample;
use crate::store::{
    ClaimToken, DeliveryLedger, Failure, FailureCause, FailureSample, SAMPLES, Settled, Settlement,
};

fn failed(status: Option<u16>, reason: Option<&str>) -> Settlement {
    let cause = FailureCause::new(PushService::Mozilla, Failure::new(status, reason));
    Settlement::Failed(FinalOutcome::Gone, cause)
}

/// Claims all rows, in the order of their numbers.
async fn tokens<L: DeliveryLedger + ?Sized>(ledger: &L, rows: u32, secs: i64) -> Vec<ClaimToken> {
    let mut tokens = Vec::new();
    while tokens.len() < rows as usize {
        let claimed = claim(ledger, 100, at(secs)).await;
        assert!(!claimed.is_empty());
        tokens.extend(claimed.into_iter().map(|row| row.token));
    }
    let number = |token: &ClaimToken| (0..rows).find(|number| recipient(*number) == token.key);
    tokens.sort_by_key(number);
    tokens
}

async fn samples<L: DeliveryLedger + ?Sized>(ledger: &L, id: BroadcastId) -> Vec<FailureSample> {
    ledger.failure_samples(id).await.unwrap()
}

/// L25: a failure counts as its outcome and is a sample, once, and nothing else is.
pub async fn l25_a_failure_is_counted_and_kept<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let rows: Vec<_> = (0..4).map(|number| delivery("a", number)).collect();
    let id = sending(ledger, &rows, at(0)).await;
    assert_eq!(samples(ledger, id).await, []);
    let tokens = tokens(ledger, 4, 1).await;
    let longest = "x".repeat(64);
    let gone = failed(Some(410), Some(&longest));
    let ends = [
        (tokens[0], Settlement::Finished(FinalOutcome::Accepted)),
        (tokens[1], gone),
        (tokens[2], Settlement::RetryAt(at(50))),
        (tokens[1], failed(Some(404), None)),
    ];
    let settled = ledger.settle(&ends, at(2)).await.unwrap();
    let (done, lost) = (Settled::Done, Settled::Lost);
    assert_eq!(settled, [done, done, done, lost]);
    let Settlement::Failed(outcome, cause) = gone else {
        unreachable!()
    };
    let first = FailureSample {
        key: recipient(1),
        at: at(2),
        outcome,
        cause,
    };
    assert_eq!(samples(ledger, id).await, [first]);
    let none = failed(None, None);
    let ends = [(tokens[2], none), (tokens[3], none), (tokens[3], gone)];
    let settled = ledger.settle(&ends, at(3)).await.unwrap();
    assert_eq!(settled, [lost, done, lost]);
    let kept = samples(ledger, id).await;
    assert_eq!(kept.len(), 2);
    assert_eq!((kept[1].key, kept[1].at), (recipient(3), at(3)));
    assert_eq!(kept[1].cause.failure, Failure::default());
    let status = ledger.status(id, at(3)).await.unwrap().unwrap();
    let counts = (
        status.counts.gone,
        status.counts.accepted,
        status.counts.pending,
    );
    assert_eq!(counts, (2, 1, 1));
    let unknown = BroadcastId::from_bytes([0xab; 16]);
    assert_eq!(samples(ledger, unknown).await, []);
}

/// L25: samples are bounded, and shared out over the kinds of failures.
pub async fn l25_samples_are_shared_out<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let rows: Vec<_> = (0..120).map(|number| delivery("a", number)).collect();
    let id = sending(ledger, &rows, at(0)).await;
    let tokens = tokens(ledger, 120, 1).await;
    // Many of one kind, then others, and more kinds than samples in the end.
    let kind = |number: usize| match number {
        0..40 => failed(Some(410), Some("gone")),
        40..44 => failed(Some(410), Some("Gone")),
        44..48 => failed(Some(410), None),
        48..60 => failed(None, Some("timeout")),
        60..64 => failed(Some(410), Some("-")),
        number => failed(Some(number as u16), None),
    };
    let mut expected = Vec::new();
    for (step, tokens) in tokens.chunks(16).enumerate() {
        let now = at(2 + i64::try_from(step).unwrap());
        let numbered = (step * 16..).zip(tokens);
        let ends: Vec<_> = numbered.map(|(n, token)| (*token, kind(n))).collect();
        let settled = ledger.settle(&ends, now).await.unwrap();
        assert!(settled.iter().all(|settled| *settled == Settled::Done));
        for (token, end) in ends {
            let Settlement::Failed(outcome, cause) = end else {
                unreachable!()
            };
            let new = FailureSample {
                key: token.key,
                at: now,
                outcome,
                cause,
            };
            let _ = sample(&mut expected, new);
        }
        let kept = samples(ledger, id).await;
        assert!(kept.len() <= SAMPLES);
        assert_eq!(kept, expected, "after {step} steps");
    }
}

/// L25: samples go when their broadcast goes, and not before.
pub async fn l25_samples_go_with_their_broadcast<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let id = sending(ledger, &[delivery("a", 0)], at(0)).await;
    let mut forgotten = broadcast();
    forgotten.forget_when_over = true;
    sending_as(ledger, &forgotten, &[delivery("a", 1)], at(0)).await;
    let ends = tokens(ledger, 2, 1).await.into_iter();
    let ends: Vec<_> = ends.map(|token| (token, failed(None, None))).collect();
    ledger.settle(&ends, at(2)).await.unwrap();
    assert_eq!(samples(ledger, forgotten.id).await, []);
    assert_eq!(samples(ledger, id).await.len(), 1);
    ledger.prune(at(2)).await.unwrap();
    assert_eq!(samples(ledger, id).await.len(), 1);
    ledger.prune(at(3)).await.unwrap();
    assert_eq!(ledger.status(id, at(3)).await.unwrap(), None);
    assert_eq!(samples(ledger, id).await, []);
    // The same id begins without samples.
    for known in [id, forgotten.id] {
        let mut again = broadcast();
        again.id = known;
        sending_as(ledger, &again, &[delivery("a", 2)], at(4)).await;
        assert_eq!(samples(ledger, known).await, []);
    }
}
