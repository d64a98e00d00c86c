//! What other processes do between two scripts of a call.

use std::collections::HashMap;
use std::time::Duration;

use redis::Value;

use super::RedisStore;
use super::cancelling_tests::{ORIGINS, at, delivery, sending, store};
use super::reply::{Reply, number};
use super::script::{Args, BEAT, ENLIST, Operation, PAUSE, PRUNE_ORIGINS, RESCUE};
use crate::store::heartbeat::WorkerId;
use crate::store::{ClaimRequest, Claimed, Claims, DeliveryLedger as _, Pause, PauseReason, Tally};
use crate::subscription::Origin;

fn origins() -> Vec<Origin> {
    (0..ORIGINS).map(|number| delivery(number).origin).collect()
}

/// The second part of a claim, which read the origins before: up to two rows of each.
async fn taken(
    store: &RedisStore,
    origins: &[Origin],
    worker: Option<WorkerId>,
    secs: i64,
) -> Vec<Claimed> {
    let shares: Vec<_> = origins.iter().map(|origin| (origin, 2)).collect();
    let request = ClaimRequest::new(10_000, Duration::from_secs(45));
    let (mut taken, mut claims) = (HashMap::new(), Claims::default());
    let claim = store.take(
        &shares,
        &request,
        (worker, at(secs)),
        &mut taken,
        &mut claims,
    );
    claim.await.unwrap();
    claims.rows
}

async fn told(store: &RedisStore, operation: &Operation, args: Args) -> u64 {
    number(store.run(operation, &args).await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_claim_under_way_takes_nothing_of_an_origin_that_is_paused() {
    let Some(store) = store().await else {
        return;
    };
    for _ in 0..2 {
        sending(&store).await;
    }
    let origins = origins();
    for (origin, until, reason) in [
        (&origins[0], at(60), PauseReason::RateLimited),
        (&origins[1], at(2), PauseReason::SenderFault),
    ] {
        let pause = Pause::new(origin.clone(), until, reason);
        store.pause(&pause, at(0)).await.unwrap();
    }
    let rows = taken(&store, &origins, None, 3).await;
    let of = |number: usize| {
        let origin = &origins[number];
        rows.iter().filter(|row| row.origin == *origin).count()
    };
    assert_eq!([of(0), of(1), of(2)], [0, 1, 2]);
    assert_eq!(rows.len(), 2 * usize::from(ORIGINS) - 3);
    // A second probe.
    assert!(taken(&store, &origins[..2], None, 4).await.is_empty());
}

#[tokio::test]
async fn a_pause_is_merged_with_one_that_was_written_meanwhile() {
    let Some(store) = store().await else {
        return;
    };
    let origin = delivery(0).origin;
    let args = Args::default().with(origin.as_str()).with("");
    let write = |until: i64| {
        let pause = format!("{}|0||rate_limited|1|", at(until).as_millis());
        told(&store, &PAUSE, args.clone().with(pause))
    };
    // Both have read that there is none.
    assert_eq!((write(3600).await, write(60).await), (1, 0));
    let pauses = store.pauses(at(1)).await.unwrap();
    assert_eq!(pauses[0].until, at(3600));
}

#[tokio::test]
async fn an_origin_with_a_new_pause_or_tally_is_not_pruned() {
    let Some(store) = store().await else {
        return;
    };
    let [paused, tallied] = [0, 1].map(|number| delivery(number).origin);
    let pause = Pause::new(paused.clone(), at(60), PauseReason::RateLimited);
    store.pause(&pause, at(0)).await.unwrap();
    let tally = [(tallied.clone(), Tally::new(0, 1))];
    store.tally(&tally, at(0)).await.unwrap();
    // Neither was there when the origins were read.
    let args = [&paused, &tallied]
        .into_iter()
        .fold(Args::default(), |args, origin| {
            args.with(origin.as_str()).with("").with("")
        });
    assert_eq!(told(&store, &PRUNE_ORIGINS, args).await, 1);
    assert_eq!(store.pauses(at(1)).await.unwrap(), [pause]);
    assert_eq!(store.tallies().await.unwrap(), tally);
}

/// A frozen process that goes on between two steps of its rescue. It would send rows that others are sending.
#[tokio::test]
async fn a_worker_that_comes_back_while_its_rows_are_rescued_is_told() {
    const AT_ONCE: u64 = 250;
    let Some(store) = store().await else {
        return;
    };
    sending(&store).await;
    let enlisted = store.run(&ENLIST, &Args::default()).await.unwrap();
    let worker: u64 = Reply::of(enlisted).unwrap().number().unwrap();
    let beat = Args::default().number(worker);
    assert_ne!(store.run(&BEAT, &beat).await.unwrap(), Value::Nil);
    let id = WorkerId::try_from(worker).unwrap();
    let rows = taken(&store, &origins(), Some(id), 1).await;
    assert_eq!(rows.len(), usize::from(ORIGINS));
    // Later than any beat, by the first one who looks. The others go by its mark.
    let horizon = i64::MAX.to_string();
    let mut left = u64::from(ORIGINS);
    for horizon in [horizon.as_str(), "", ""] {
        let args = Args::at(at(2)).number(AT_ONCE);
        let args = args.with(horizon).number(worker);
        assert_eq!(told(&store, &RESCUE, args).await, left.min(AT_ONCE));
        left = left.saturating_sub(AT_ONCE);
        assert_eq!(store.run(&BEAT, &beat).await.unwrap(), Value::Nil);
    }
}
