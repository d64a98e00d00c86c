//! A hundred thousand rows: the time of a script and the memory of a row.

use std::collections::HashSet;

use tower_web_push::broadcast::{Audience, BroadcastState, FinalOutcome};
use tower_web_push::store::redis_rs::Value;
use tower_web_push::store::{
    CountFilter, DeliveryLedger, LONGEST_WAIT, Liveness, Pause, PauseReason, Settlement,
    SubscriptionLimits, SubscriptionStore,
};

use super::world::{
    LEASE, ask, at, claim, delivery, fresh_prefix, sending, status, store, subscription,
};
use crate::support::servers::{Kind, Server, shared};

const ROWS: usize = 100_000;
const ACCEPTED: Settlement = Settlement::Finished(FinalOutcome::Accepted);

async fn used_memory(server: &Server) -> u64 {
    let info: String = ask(&server.url(), &["INFO", "memory"]).await;
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    used.unwrap().trim().parse().unwrap()
}

/// How long scripts took, in microseconds: half of them, and 99 of 100. The times include what the server had to
/// wait for the processor, on a machine on which everything runs at once.
async fn check_times(server: &Server) {
    let info: String = ask(&server.url(), &["INFO", "latencystats"]).await;
    let name = "latency_percentiles_usec_evalsha:";
    let times = info
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    let of = |name: &str| -> f64 {
        let time = times
            .trim()
            .split(',')
            .find_map(|time| time.strip_prefix(name));
        time.unwrap().strip_prefix('=').unwrap().parse().unwrap()
    };
    println!("scripts: {times}");
    assert!(of("p50") < 25_000.0, "{times}");
    assert!(of("p99") < 500_000.0, "{times}");
    let slow: Vec<Value> = ask(&server.url(), &["SLOWLOG", "GET", "-1"]).await;
    assert!(slow.is_empty(), "above a second: {slow:?}");
}

#[tokio::test]
async fn a_hundred_thousand_rows_are_worked_off_in_short_scripts() {
    let options = [
        "--slowlog-log-slower-than",
        "1000000",
        "--slowlog-max-len",
        "5000",
        "--appendfsync",
        "no",
    ];
    let Some(server) = Server::start(Kind::Redis, &options).await else {
        return;
    };
    let store = store(&server.url(), "web-push").await;
    // Load the scripts before measuring.
    let first = sending(&store, 10, 3).await;
    store.cancel(first, at(0)).await.unwrap();
    let before = used_memory(&server).await;
    let id = sending(&store, ROWS, 3).await;
    let waiting = used_memory(&server).await - before;
    println!("a waiting row: {} octets", waiting / ROWS as u64);
    assert!(waiting / (ROWS as u64) < 180, "{waiting}");

    let rows = claim(&store, 20_000, at(1)).await;
    assert_eq!(rows.len(), 20_000);
    let leased = used_memory(&server).await - before - waiting;
    println!("a claimed row: {} octets more", leased / 20_000);
    let ends: Vec<_> = rows[..15_000]
        .iter()
        .map(|row| (row.token, ACCEPTED))
        .collect();
    for ends in ends.chunks(1000) {
        store.settle(ends, at(2)).await.unwrap();
    }
    let later: Vec<_> = rows[15_000..18_000]
        .iter()
        .map(|row| (row.token, Settlement::RetryAt(at(3))))
        .collect();
    store.settle(&later, at(2)).await.unwrap();
    assert_eq!(store.stats(at(2)).await.unwrap().leased, 2000);
    assert_eq!(store.expire(10_000, at(3600)).await.unwrap(), 10_000);
    let cancelled = store.cancel(id, at(3600)).await.unwrap().unwrap();
    assert_eq!(cancelled.state, BroadcastState::Cancelled);
    assert_eq!(cancelled.counts.pending, 0);
    assert_eq!(
        (cancelled.counts.accepted, cancelled.counts.expired),
        (15_000, 10_000)
    );
    assert_eq!(status(&store, id, at(3600)).await.recipients, ROWS as u64);
    let id = sending(&store, ROWS, 3).await;
    assert_eq!(
        store.expire(usize::MAX, at(3600)).await.unwrap(),
        ROWS as u64
    );
    assert_eq!(
        status(&store, id, at(3600)).await.counts.expired,
        ROWS as u64
    );
    check_times(&server).await;
}

#[tokio::test]
async fn twenty_thousand_subscriptions_are_walked_in_short_scripts() {
    let options = [
        "--slowlog-log-slower-than",
        "1000000",
        "--slowlog-max-len",
        "5000",
        "--appendonly",
        "no",
    ];
    let Some(server) = Server::start(Kind::Redis, &options).await else {
        return;
    };
    let store = store(&server.url(), "web-push").await;
    let limits = SubscriptionLimits::default();
    store
        .upsert(&subscription(ROWS), &limits, at(0))
        .await
        .unwrap();
    let before = used_memory(&server).await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..20 {
        let store = store.clone();
        tasks.spawn(async move {
            for number in (task..20_000).step_by(20) {
                let mut new = subscription(number);
                new.principal = Some(format!("user-{}", number / 2).as_str().into());
                store
                    .upsert(&new, &SubscriptionLimits::default(), at(0))
                    .await
                    .unwrap();
            }
        });
    }
    tasks.join_all().await;
    let each = (used_memory(&server).await - before) / 20_000;
    println!("a subscription: {each} octets");
    assert!(each < 1300, "{each}");
    let live = CountFilter::new(Audience::All, Liveness::Live);
    assert_eq!(store.count(&live, at(1)).await.unwrap(), 20_001);
    let mut seen = 0;
    let mut after = None;
    loop {
        let page = store
            .page(&Audience::All, after.as_ref(), 500, at(1))
            .await
            .unwrap();
        seen += page.len();
        match page.last() {
            Some(last) => after = Some(last.subscription.endpoint().key()),
            None => break,
        }
    }
    assert_eq!(seen, 20_001);
    check_times(&server).await;
}

#[tokio::test]
async fn more_origins_than_one_script_reads_are_all_served() {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let store = store(&url, &fresh_prefix()).await;
    let id = sending(&store, 1200, 1200).await;
    let rows = claim(&store, 1100, at(1)).await;
    assert_eq!(rows.len(), 1100);
    // Origins that were not served come first.
    let tokens: Vec<_> = rows.iter().map(|row| row.token).collect();
    store.release(&tokens, at(1)).await.unwrap();
    let next: HashSet<_> = claim(&store, 100, at(1))
        .await
        .into_iter()
        .map(|row| row.origin)
        .collect();
    assert_eq!(next.len(), 100);
    assert!(rows.iter().all(|row| !next.contains(&row.origin)));
    // A thousand paused origins do not hide the one that is not paused.
    let mut is_free = false;
    for number in 0..1200 {
        let origin = delivery(number, 1200).origin;
        if next.contains(&origin) {
            continue;
        }
        if number > 600 && !is_free {
            is_free = true;
            continue;
        }
        let pause = Pause::new(origin, at(500), PauseReason::RateLimited);
        store.pause(&pause, at(2)).await.unwrap();
    }
    assert_eq!(store.next_due(at(3)).await.unwrap(), Some(at(3)));
    assert_eq!(claim(&store, 2000, at(3)).await.len(), 1);
    assert_eq!(store.next_due(at(3)).await.unwrap(), Some(at(1) + LEASE));
    store.cancel(id, at(4)).await.unwrap();
}

/// A wrong clock has postponed a row of the broadcast that is looked at last.
#[tokio::test]
async fn a_wrong_clock_is_found_behind_more_broadcasts_than_one_script_looks_at() {
    const BROADCASTS: usize = 250;
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let store = store(&url, &fresh_prefix()).await;
    for _ in 0..BROADCASTS {
        sending(&store, 1, 1).await;
    }
    let rows = claim(&store, BROADCASTS, at(0)).await;
    assert_eq!(rows.len(), BROADCASTS);
    let far = at(0) + 2 * LONGEST_WAIT;
    let mut later: Vec<_> = rows
        .iter()
        .map(|row| (row.token, Settlement::RetryAt(at(600))))
        .collect();
    later[0].1 = Settlement::RetryAt(far);
    store.settle(&later, at(0)).await.unwrap();
    // Each call looks at a part.
    for _ in 0..3 {
        assert_eq!(store.expire(9, at(1)).await.unwrap(), 0);
    }
    let due = claim(&store, 9, at(1)).await;
    let due: Vec<_> = due.iter().map(|row| row.token.broadcast).collect();
    assert_eq!(due, [rows[0].token.broadcast]);
}
