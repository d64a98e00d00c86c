//! Thousands of origins: the commands of a script are bounded, and those of a call depend on its limit only.

use std::collections::HashSet;

use futures_util::future::join_all;
use tower_web_push::broadcast::{Audience, BroadcastState, FinalOutcome, Principal};
use tower_web_push::store::{
    ClaimRequest, CountFilter, DeliveryLedger, Liveness, Pause, PauseReason, Settlement,
    SubscriptionLimits, SubscriptionStore, Tally,
};
use tower_web_push::subscription::Origin;

use super::world::{
    LEASE, ask, at, cancel_all, claim, delivery, fresh_prefix, keys, sending, status, store,
    subscription,
};
use crate::support::servers::{Kind, Server, shared};

const ORIGINS: usize = 4000;
/// The limit of commands of one script: 20 ms at 2 µs each.
const OF_ONE_SCRIPT: u64 = 10_000;

/// Counts scripts and their commands since the last reading.
pub(super) struct Work<'a> {
    server: &'a Server,
    before: (u64, u64),
}

impl<'a> Work<'a> {
    pub(super) async fn of(server: &'a Server) -> Self {
        let before = Self::ask(server).await;
        Self { server, before }
    }

    async fn ask(server: &Server) -> (u64, u64) {
        let info: String = ask(&server.url(), &["INFO", "commandstats"]).await;
        let (mut scripts, mut commands) = (0, 0);
        for line in info.lines() {
            let Some((name, rest)) = line.split_once(":calls=") else {
                continue;
            };
            let calls: u64 = rest.split_once(',').unwrap().0.parse().unwrap();
            match name {
                "cmdstat_eval" | "cmdstat_evalsha" => scripts += calls,
                _ => commands += calls,
            }
        }
        (scripts, commands)
    }

    /// Returns the commands since the last reading. Asserts that no script exceeded the limit.
    pub(super) async fn done(&mut self, what: &str) -> u64 {
        let now = Self::ask(self.server).await;
        let (scripts, commands) = (now.0 - self.before.0, now.1 - self.before.1);
        self.before = now;
        println!("{what}: {commands} commands in {scripts} scripts");
        assert!(commands <= scripts * OF_ONE_SCRIPT, "{what}");
        commands
    }
}

#[tokio::test]
async fn no_script_and_no_claim_grows_with_the_origins() {
    let Some(server) = Server::start(Kind::Redis, &["--appendonly", "no"]).await else {
        return;
    };
    let store = store(&server.url(), "web-push").await;
    let id = sending(&store, ORIGINS, ORIGINS).await;
    let mut work = Work::of(&server).await;
    let first = claim(&store, 100, at(1)).await;
    assert_eq!(first.len(), 100);
    work.done("the first claim, to which all are new").await;
    let rows = claim(&store, 100, at(1)).await;
    assert_eq!(rows.len(), 100);
    let mut busy: HashSet<_> = rows.iter().map(|row| row.origin.clone()).collect();
    let commands = work.done("a claim").await;
    assert!(commands < 8_000, "{commands}");
    assert_eq!(store.next_due(at(1)).await.unwrap(), Some(at(1)));
    let commands = work.done("next_due").await;
    assert!(commands < 100, "{commands}");

    // All waiting origins but one are paused.
    busy.extend(first.into_iter().map(|row| row.origin));
    let origins = (0..ORIGINS).map(|number| delivery(number, ORIGINS).origin);
    let mut waiting = origins.filter(|origin| !busy.contains(origin));
    let free = waiting.next().unwrap();
    for origin in waiting {
        let pause = Pause::new(origin, at(500), PauseReason::RateLimited);
        store.pause(&pause, at(1)).await.unwrap();
    }
    work.done("pausing").await;
    assert_eq!(store.next_due(at(2)).await.unwrap(), Some(at(2)));
    let one = claim(&store, ORIGINS, at(2)).await;
    assert_eq!((one.len(), &one[0].origin), (1, &free));
    work.done("a claim that finds them paused").await;
    assert_eq!(store.next_due(at(3)).await.unwrap(), Some(at(1) + LEASE));
    assert_eq!(claim(&store, ORIGINS, at(3)).await.len(), 0);
    let commands = work.done("looking where all are paused").await;
    assert!(commands < 100, "{commands}");

    let ends: Vec<_> = rows
        .iter()
        .map(|row| (row.token, Settlement::Finished(FinalOutcome::Accepted)))
        .collect();
    store.settle(&ends, at(3)).await.unwrap();
    work.done("settling").await;
    assert_eq!(store.expire(1000, at(3600)).await.unwrap(), 1000);
    work.done("expiring").await;
    let cancelled = cancel_all(&store, id, at(3600)).await;
    assert_eq!(cancelled.state, BroadcastState::Cancelled);
    assert_eq!(cancelled.counts.pending, 0);
    work.done("cancelling").await;
    let end = status(&store, id, at(3600)).await;
    assert_eq!((end.counts.accepted, end.counts.expired), (100, 1000));
    while store.prune(at(9000)).await.unwrap().more {}
    assert_eq!(keys(&server.url(), "web-push").await, ["format", "meta"]);
}

/// Hosts of strangers that hold their share of places are not read, however many they are.
#[tokio::test]
async fn a_claim_for_named_origins_reads_no_others() {
    let Some(server) = Server::start(Kind::Redis, &["--appendonly", "no"]).await else {
        return;
    };
    let store = store(&server.url(), "web-push").await;
    sending(&store, ORIGINS, ORIGINS).await;
    // All become ready.
    claim(&store, 1, at(1)).await;
    let mut request = ClaimRequest::new(100, LEASE);
    request.per_origin = 0;
    let named = [7, 77, 777].map(|number| delivery(number, ORIGINS).origin);
    let unknown = Origin::parse("https://unknown.example").unwrap();
    request.origins = named
        .into_iter()
        .chain([unknown])
        .map(|origin| (origin, 5))
        .collect();
    let mut work = Work::of(&server).await;
    let claims = store.claim(&request, at(1)).await.unwrap();
    assert_eq!(claims.rows.len(), 3);
    let commands = work.done("a claim for named origins").await;
    assert!(commands < 150, "{commands}");
}

/// Ending one broadcast is one step of its own: it does not wait for another one that is being ended.
#[tokio::test]
async fn no_call_waits_for_the_cancellation_of_another_broadcast() {
    let Some(server) = Server::start(Kind::Redis, &["--appendonly", "no"]).await else {
        return;
    };
    let store = store(&server.url(), "web-push").await;
    let first = sending(&store, ORIGINS, ORIGINS).await;
    let second = sending(&store, ORIGINS, ORIGINS).await;
    let step = store.cancel(first, at(1)).await.unwrap().unwrap();
    let left = step.counts.pending;
    assert!(left > 0 && left < ORIGINS as u64, "{left}");
    let user = Principal::new("other");
    let mut work = Work::of(&server).await;
    let step = store.cancel(second, at(1)).await.unwrap().unwrap();
    assert_eq!(step.counts.pending, left);
    let cancelling = work.done("cancelling").await;
    assert_eq!(store.expire(1000, at(1)).await.unwrap(), 0);
    store.erase(&user, &[], at(1)).await.unwrap();
    let others = work.done("expiring and erasing").await;
    assert!(cancelling < 4_000, "{cancelling}");
    assert!(others < 100, "{others}");
    for id in [first, second] {
        assert_eq!(status(&store, id, at(1)).await.counts.pending, left);
    }
    // Claims finish the rest.
    for _ in 0..20 {
        assert_eq!(claim(&store, 100, at(2)).await.len(), 0);
    }
    for id in [first, second] {
        assert_eq!(status(&store, id, at(2)).await.counts.pending, 0);
    }
}

/// If all rows of a broadcast at most origins are leased, expiring does not read those origins repeatedly.
#[tokio::test]
async fn expiring_reads_only_origins_with_waiting_rows() {
    let Some(server) = Server::start(Kind::Redis, &["--appendonly", "no"]).await else {
        return;
    };
    let store = store(&server.url(), "web-push").await;
    sending(&store, ORIGINS, ORIGINS).await;
    let rows = claim(&store, ORIGINS, at(3599)).await;
    assert_eq!(rows.len(), ORIGINS);
    let tokens: Vec<_> = rows[..10].iter().map(|row| row.token).collect();
    store.release(&tokens, at(3599)).await.unwrap();
    let mut work = Work::of(&server).await;
    assert_eq!(store.expire(1000, at(3600)).await.unwrap(), 10);
    let commands = work.done("expiring").await;
    assert!(commands < 500, "{commands}");
    // Rows released after their deadline expire as well.
    let tokens: Vec<_> = rows[10..].iter().map(|row| row.token).collect();
    store.release(&tokens, at(3601)).await.unwrap();
    let rest = (ORIGINS - 10) as u64;
    assert_eq!(store.expire(10_000, at(3601)).await.unwrap(), rest);
    while store.prune(at(9000)).await.unwrap().more {}
    assert_eq!(keys(&server.url(), "web-push").await, ["format", "meta"]);
}

/// Each of many concurrent additions counts once.
#[tokio::test]
async fn tallies_of_many_workers_at_once_all_count() {
    const CALLS: u64 = 400;
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let handles = [store(&url, &prefix).await, store(&url, &prefix).await];
    let origins = ["a", "b"].map(|host| Origin::parse(&format!("https://{host}.example")).unwrap());
    let counts = [
        (origins[0].clone(), Tally::new(1, 0)),
        (origins[1].clone(), Tally::new(0, 1)),
        (origins[0].clone(), Tally::new(0, 1)),
    ];
    let calls = (0..CALLS).map(|call| handles[call as usize % 2].tally(&counts, at(0)));
    let mut sums = Vec::new();
    for tallies in join_all(calls).await {
        let tallies = tallies.unwrap();
        assert_eq!(tallies[2].gone, tallies[0].gone + 1);
        sums.push(tallies[2]);
    }
    let last = sums.into_iter().max_by_key(|sum| sum.answers()).unwrap();
    assert_eq!(last, Tally::new(CALLS, CALLS));
    let nothing = origins.clone().map(|origin| (origin, Tally::default()));
    let sums = handles[0].tally(&nothing, at(0)).await.unwrap();
    assert_eq!(sums, [Tally::new(CALLS, CALLS), Tally::new(0, CALLS)]);
    // Halved as in memory, for any sum.
    for (accepted, gone) in [
        (1001, 7),
        (3, 2_000_001),
        (1 << 50, 1),
        (u64::MAX, u64::MAX),
    ] {
        let fresh = Tally::new(accepted, gone);
        let before = handles[1].tally(&nothing, at(0)).await.unwrap()[0];
        let sums = handles[0]
            .tally(&[(origins[0].clone(), fresh)], at(0))
            .await;
        let sums = sums.unwrap();
        if accepted < 1 << 50 {
            assert_eq!(sums, [before.plus(fresh)]);
        }
        assert!(sums[0].answers() <= Tally::WINDOW && sums[0].answers() > 400);
    }
}

#[tokio::test]
async fn many_ids_are_looked_up_once_each() {
    const IDS: usize = 2000;
    let Some(server) = Server::start(Kind::Redis, &["--appendonly", "no"]).await else {
        return;
    };
    let store = store(&server.url(), "web-push").await;
    let mut ids = Vec::new();
    for number in 0..IDS {
        let new = subscription(number);
        let limits = SubscriptionLimits::default();
        let upserted = store.upsert(&new, &limits, at(0)).await.unwrap();
        let tower_web_push::store::Upserted::Stored { record, .. } = upserted else {
            panic!("{upserted:?}");
        };
        ids.push(record.id);
    }
    ids.extend_from_within(..IDS / 2);
    let filter = CountFilter::new(Audience::Ids(ids), Liveness::Live);
    let mut work = Work::of(&server).await;
    assert_eq!(store.count(&filter, at(1)).await.unwrap(), IDS as u64);
    let commands = work.done("counting").await;
    assert!(commands < 2 * IDS as u64 + 100, "{commands}");
}
