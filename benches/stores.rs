//! The rates of each store: rows enqueued, claimed and settled per second, beside 1,000, 100,000 and 1,000,000
//! pending rows.
//!
//! `cargo bench --bench stores --all-features`, some minutes. It starts a PostgreSQL and a Redis of its own if they
//! are installed, as packaged (Redis syncs its file at each write, as PostgreSQL does), with their data in a
//! temporary folder. One worker at a time, on the machine of the database, with the calls of the worker, one after
//! the other. The last column is the drain rate, claim and settle together, relative to the one beside 1,000. The
//! target is at least 0.80 at 100,000.
//!
//! `-- sqlite postgres` measures only these.
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no number")]

#[path = "../tests/support/servers.rs"]
mod servers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tower_web_push::broadcast::{Audience, FinalOutcome};
use tower_web_push::clock::{Clock as _, SystemClock, Timestamp};
use tower_web_push::message::Message;
use tower_web_push::store::{
    ClaimRequest, Cursor, DeliveryLedger, MemoryStore, NewBroadcast, NewDelivery, PostgresStore,
    RedisStore, Settlement, SqliteStore,
};
use tower_web_push::subscription::{EndpointKey, Origin};

use servers::{Kind, Server};

/// Pending rows.
const WAITING: [usize; 3] = [1_000, 100_000, 1_000_000];
/// Measurements per median.
const WINDOWS: usize = 15;
/// As in the worker: rows claimed at once, outcomes settled together, recipients written together.
const CLAIMED: usize = 1024;
const SETTLED: usize = 256;
const PAGE: usize = 500;
const LEASE: Duration = Duration::from_secs(45);

const HOSTS: [&str; 4] = [
    "fcm.googleapis.com",
    "updates.push.services.mozilla.com",
    "web.push.apple.com",
    "wns2-am3p.notify.windows.com",
];

type Ledgers = Vec<Arc<dyn DeliveryLedger>>;

fn main() {
    // `cargo test --benches` only checks that it builds.
    let words: Vec<_> = std::env::args().skip(1).collect();
    if !words.iter().any(|word| word == "--bench") {
        return;
    }
    let is_wanted = |name: &str| {
        let mut names = words
            .iter()
            .filter(|word| !word.starts_with('-'))
            .peekable();
        names.peek().is_none() || names.any(|word| word == name)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        println!("| store | waiting | enqueued/s | claimed/s | settled/s | drain, in relation |");
        println!("|---|---|---|---|---|---|");
        if is_wanted("memory") {
            let ledgers = WAITING.map(|waiting| {
                Arc::new(MemoryStore::with_max_rows(2 * waiting + CLAIMED))
                    as Arc<dyn DeliveryLedger>
            });
            measure("memory", &ledgers).await;
        }
        if is_wanted("sqlite") {
            let folder = tempfile::tempdir().unwrap();
            let mut ledgers = Ledgers::new();
            for number in WAITING {
                let path = folder.path().join(format!("{number}.db"));
                ledgers.push(Arc::new(SqliteStore::open(path).await.unwrap()));
            }
            measure("SQLite", &ledgers).await;
        }
        if is_wanted("postgres")
            && let Some(server) = Server::start(Kind::Postgres, &[]).await
        {
            let mut ledgers = Ledgers::new();
            for number in WAITING {
                let builder = PostgresStore::builder().schema(format!("waiting_{number}"));
                ledgers.push(Arc::new(builder.connect(&server.url()).await.unwrap()));
            }
            measure("PostgreSQL", &ledgers).await;
        }
        for (name, kind) in [("redis", Kind::Redis), ("valkey", Kind::Valkey)] {
            if is_wanted(name)
                && let Some(server) = Server::start(kind, &[]).await
            {
                let mut ledgers = Ledgers::new();
                for number in WAITING {
                    let builder = RedisStore::builder().prefix(format!("waiting:{number}"));
                    ledgers.push(Arc::new(builder.connect(&server.url()).await.unwrap()));
                }
                measure(&format!("{kind:?}"), &ledgers).await;
            }
        }
    });
}

fn now() -> Timestamp {
    SystemClock::new().now()
}

/// Seconds for each part of one round of [`CLAIMED`] rows.
#[derive(Clone, Copy, Default)]
struct Round {
    enqueue: f64,
    claim: f64,
    settle: f64,
}

/// In turns, so that other load on the machine affects all alike.
async fn measure(name: &str, ledgers: &[Arc<dyn DeliveryLedger>]) {
    for (ledger, number) in ledgers.iter().zip(WAITING) {
        enqueue(&**ledger, number).await;
    }
    let mut rounds = vec![Vec::new(); ledgers.len()];
    for _ in 0..WINDOWS {
        for (ledger, rounds) in ledgers.iter().zip(&mut rounds) {
            rounds.push(round(&**ledger).await);
        }
    }
    let rate = |rounds: &[Round], part: fn(&Round) -> f64| {
        let mut times: Vec<_> = rounds.iter().map(part).collect();
        times.sort_by(f64::total_cmp);
        CLAIMED as f64 / times[times.len() / 2]
    };
    let drain: fn(&Round) -> f64 = |round| round.claim + round.settle;
    let first = rate(&rounds[0], drain);
    for (rounds, number) in rounds.iter().zip(WAITING) {
        println!(
            "| {name} | {number} | {:.0} | {:.0} | {:.0} | {:.2} |",
            rate(rounds, |round| round.enqueue),
            rate(rounds, |round| round.claim),
            rate(rounds, |round| round.settle),
            rate(rounds, drain) / first,
        );
    }
}

/// Adds as many rows as it settles.
async fn round(ledger: &dyn DeliveryLedger) -> Round {
    let enqueue = enqueue(ledger, CLAIMED).await;
    let begun = Instant::now();
    let request = ClaimRequest::new(CLAIMED, LEASE);
    let claims = ledger.claim(&request, now()).await.unwrap();
    let claim = begun.elapsed();
    assert_eq!(claims.rows.len(), CLAIMED);
    let ends: Vec<_> = claims
        .rows
        .iter()
        .map(|row| (row.token, Settlement::Finished(FinalOutcome::Accepted)))
        .collect();
    let begun = Instant::now();
    for ends in ends.chunks(SETTLED) {
        ledger.settle(ends, now()).await.unwrap();
    }
    Round {
        enqueue: enqueue.as_secs_f64(),
        claim: claim.as_secs_f64(),
        settle: begun.elapsed().as_secs_f64(),
    }
}

/// Opens a broadcast with this number of recipients.
async fn enqueue(ledger: &dyn DeliveryLedger, number: usize) -> Duration {
    let mut rows: Vec<_> = (0..number).map(delivery).collect();
    rows.sort_by_key(|row| row.key);
    let begun = Instant::now();
    let deadline = now() + Duration::from_secs(3600);
    let broadcast = NewBroadcast::new(Audience::All, Message::new("hello"), deadline);
    ledger.open(&broadcast, now()).await.unwrap();
    let mut cursor = Cursor::Start;
    let pages = rows.chunks(PAGE).count();
    for (place, page) in rows.chunks(PAGE).enumerate() {
        let next = if place + 1 == pages {
            Cursor::End
        } else {
            Cursor::After(page.last().unwrap().key)
        };
        let written = ledger.enqueue_page(broadcast.id, &cursor, page, &next, now());
        written.await.unwrap();
        cursor = next;
    }
    begun.elapsed()
}

/// A recipient whose key is like a hash.
fn delivery(number: usize) -> NewDelivery {
    let mut key = [0; 32];
    // Fibonacci hashing spreads them.
    let hash = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    key[..8].copy_from_slice(&hash.to_be_bytes());
    let host = HOSTS[number % HOSTS.len()];
    let origin = Origin::parse(&format!("https://{host}")).unwrap();
    NewDelivery::new(EndpointKey::from_bytes(key), origin)
}
