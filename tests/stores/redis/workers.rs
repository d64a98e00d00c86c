//! Workers that end, or are held for dead.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::sleep;
use tower_web_push::broadcast::FinalOutcome;
use tower_web_push::store::redis_rs::{FromRedisValue, cmd};
use tower_web_push::store::{
    ClaimRequest, Claimed, DeliveryLedger as _, Pause, PauseReason, RedisStore, Settled, Settlement,
};

use super::world::{at, connection, delivery, epoch, fresh_prefix, sending, store, until, worker};
use crate::support::servers::{Kind, Server, shared};

/// Longer than a worker may be silent.
const SILENT: Duration = Duration::from_secs(5);

/// No test waits for the end of a lease.
async fn claimed(store: &RedisStore, limit: usize, secs: i64) -> Vec<Claimed> {
    let request = ClaimRequest::new(limit, Duration::from_secs(3600));
    store.claim(&request, at(secs)).await.unwrap().rows
}

async fn settled(store: &RedisStore, rows: &[Claimed]) -> Vec<Settled> {
    let accepted = Settlement::Finished(FinalOutcome::Accepted);
    let ends: Vec<_> = rows.iter().map(|row| (row.token, accepted)).collect();
    store.settle(&ends, at(9)).await.unwrap()
}

async fn ask<T: FromRedisValue>(url: &str, prefix: &str, command: &str, args: &[&str]) -> T {
    let (key, args) = args.split_first().unwrap();
    let mut command = cmd(command);
    command.arg(format!("{{{prefix}}}:{key}")).arg(args);
    command
        .query_async(&mut connection(url).await)
        .await
        .unwrap()
}

#[tokio::test]
async fn the_rows_of_a_worker_that_has_ended_are_due_long_before_its_lease_ends() {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let (ended, other) = (worker(&url, &prefix).await, worker(&url, &prefix).await);
    // More than one script makes due, behind those of a worker that lives.
    sending(&other, 900, 1).await;
    assert_eq!(claimed(&other, 200, 0).await.len(), 200);
    let lost = claimed(&ended, 700, 0).await;
    assert_eq!(lost.len(), 700);
    assert!(claimed(&other, 9, 1).await.is_empty());
    drop(ended);
    let mut again = Vec::new();
    until(async || {
        again.extend(claimed(&other, 999, 2).await);
        again.len() >= 700
    })
    .await;
    assert_eq!(again.len(), 700);
    assert!(again.iter().all(|row| row.attempt == 2));
    assert!(
        settled(&other, &lost)
            .await
            .iter()
            .all(|one| *one == Settled::Lost)
    );
    assert!(
        settled(&other, &again)
            .await
            .iter()
            .all(|one| *one == Settled::Done)
    );
    let workers: u64 = ask(&url, &prefix, "HLEN", &["workers"]).await;
    assert_eq!(workers, 1);
    let owned: u64 = ask(&url, &prefix, "ZCARD", &["owned"]).await;
    assert_eq!(owned, 200, "those of the worker that lives");
    assert_eq!(epoch(&other).await, 0);
}

/// A row that waits for its next attempt belongs to no process: the end of the one that made the last attempt does not make it due.
#[tokio::test]
async fn a_row_that_is_to_be_retried_outlives_its_worker() {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let (ended, other) = (worker(&url, &prefix).await, worker(&url, &prefix).await);
    sending(&ended, 3, 1).await;
    let rows = claimed(&ended, 9, 0).await;
    let again = [
        (rows[0].token, Settlement::RetryAt(at(600))),
        (rows[1].token, Settlement::Deferred(at(700))),
    ];
    let done = ended.settle(&again, at(0)).await.unwrap();
    assert_eq!(done, [Settled::Done; 2]);
    assert!(claimed(&other, 9, 1).await.is_empty());
    drop(ended);
    let mut due = Vec::new();
    until(async || {
        due = claimed(&other, 9, 2).await;
        !due.is_empty()
    })
    .await;
    let due: Vec<_> = due.iter().map(|row| row.token.key).collect();
    assert_eq!(due, [rows[2].token.key], "the one that was leased");
    assert!(claimed(&other, 9, 599).await.is_empty());
    assert_eq!(claimed(&other, 9, 700).await.len(), 2);
}

/// Another worker probes the origin next. It does not wait for the end of the lease.
#[tokio::test]
async fn the_probe_of_a_worker_that_has_ended_is_over() {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let (ended, other) = (worker(&url, &prefix).await, worker(&url, &prefix).await);
    sending(&other, 3, 1).await;
    let origin = delivery(0, 1).origin;
    let pause = Pause::new(origin, at(5), PauseReason::Unreachable);
    other.pause(&pause, at(0)).await.unwrap();
    let probe = claimed(&ended, 9, 6).await;
    assert_eq!(probe.len(), 1);
    assert!(claimed(&other, 9, 6).await.is_empty());
    drop(ended);
    let mut next = Vec::new();
    until(async || {
        next = claimed(&other, 9, 7).await;
        !next.is_empty()
    })
    .await;
    assert_eq!(next.len(), 1, "one is the probe");
    assert_eq!(settled(&other, &next).await, [Settled::Done]);
}

#[tokio::test]
async fn a_worker_that_is_held_for_dead_enlists_again_in_another_epoch() {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let store = worker(&url, &prefix).await;
    sending(&store, 9, 1).await;
    let few = claimed(&store, 4, 0).await;
    assert_eq!((few.len(), epoch(&store).await), (4, 0));
    let _: u64 = ask(&url, &prefix, "HSET", &["workers", "1", "dead"]).await;
    until(async || store.epoch() == Some(1)).await;
    // As after a flush.
    let _: u64 = ask(&url, &prefix, "DEL", &["workers"]).await;
    until(async || store.epoch() == Some(2)).await;
    // A claim names the new number once it has beaten.
    let beat = async || -> Option<u64> { ask(&url, &prefix, "HGET", &["workers", "3"]).await };
    until(async || beat().await.is_some()).await;
    let first = beat().await;
    until(async || beat().await != first).await;
    assert_eq!(claimed(&store, 9, 1).await.len(), 5);
    let named: Vec<(Vec<u8>, f64)> =
        ask(&url, &prefix, "ZRANGE", &["owned", "0", "-1", "WITHSCORES"]).await;
    let of = |worker: i64| named.iter().filter(|row| row.1 as i64 == worker).count();
    assert_eq!((of(1), of(3)), (4, 5));
    assert_eq!(settled(&store, &few).await, [Settled::Done; 4]);
}

/// A worker that has beaten meanwhile, or whose entry is missing, keeps its rows, and a store that claims nothing is none.
#[tokio::test]
async fn a_worker_that_lives_keeps_its_rows() {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let (one, other) = (store(&url, &prefix).await, store(&url, &prefix).await);
    sending(&one, 9, 1).await;
    one.next_due(at(0)).await.unwrap();
    let workers = async || -> u64 { ask(&url, &prefix, "HLEN", &["workers"]).await };
    assert_eq!(workers().await, 0);
    assert_eq!(claimed(&one, 9, 0).await.len(), 9);
    assert!(claimed(&other, 9, 1).await.is_empty());
    // The first claims wait for that for two seconds only.
    until(async || workers().await == 2).await;
    // It looks again while the other one has leased rows.
    until(async || {
        let next = other.next_due(at(1)).await.unwrap();
        next == Some(at(1) + Duration::from_secs(1))
    })
    .await;
    sleep(SILENT).await;
    assert!(claimed(&other, 9, 2).await.is_empty());
    assert_eq!((epoch(&one).await, epoch(&other).await), (0, 0));
}

/// Nobody could beat: that is no sign of anybody's death.
#[tokio::test]
async fn a_server_that_hangs_is_nobodys_death() {
    let Some(server) = Server::start(Kind::Redis, &[]).await else {
        return;
    };
    let (url, prefix) = (server.url(), fresh_prefix());
    let (one, other) = (worker(&url, &prefix).await, worker(&url, &prefix).await);
    let beats = async || -> HashMap<u64, u64> { ask(&url, &prefix, "HGETALL", &["workers"]).await };
    sending(&one, 9, 1).await;
    let rows = claimed(&one, 9, 0).await;
    assert_eq!(rows.len(), 9);
    // It watches the other one from now on.
    assert!(claimed(&other, 9, 1).await.is_empty());
    for _ in 0..2 {
        sleep(SILENT).await;
        let before = beats().await;
        server.freeze().await;
        sleep(SILENT).await;
        server.thaw().await;
        until(async || other.next_due(at(1)).await.is_ok()).await;
        // One of them may find the server long after the other.
        until(async || {
            let now = beats().await;
            before.iter().all(|(id, beat)| now[id] != *beat)
        })
        .await;
        sleep(SILENT).await;
        assert!(claimed(&other, 9, 2).await.is_empty());
    }
    assert_eq!(settled(&one, &rows).await, [Settled::Done; 9]);
}
