//! Four drivers at once ship orders, half of which are rolled back, while the application, the worker and the database are
//! killed: what was committed is sent, nothing else is, and what is repeated has a reason.
//!
//! `WEB_PUSH_TEST_TRANSACTIONS=10000 WEB_PUSH_TEST_KILLS=30` takes some minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::time::Duration;

use tower_web_push::clock::{Clock as _, SystemClock, Timestamp};

use crate::support::world::{Database, World, until};

/// For what was sent before a worker ended, to arrive.
const ON_THE_WAY: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn exactly_what_is_committed_is_sent_despite_kills_on_postgres() {
    if let Some(world) = World::on_postgres().await {
        exactly_what_is_committed_is_sent_despite_kills(world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_what_is_committed_is_sent_despite_kills_on_sqlite() {
    exactly_what_is_committed_is_sent_despite_kills(World::on_sqlite().await).await;
}

async fn exactly_what_is_committed_is_sent_despite_kills(mut world: World) {
    let (transactions, kills) = (
        number("WEB_PUSH_TEST_TRANSACTIONS", 600),
        number("WEB_PUSH_TEST_KILLS", 3),
    );
    let orders = world.take_orders(transactions).await;
    let (mut shop, mut worker) = (world.shop(), world.worker());
    // When a worker was killed, or its database, and when there was one again.
    let mut outages = Vec::new();
    for kill in 0..kills {
        let share = transactions / 2 * (kill + 1) / (kills + 1);
        until("orders are shipped", async || {
            shipped(&world).await >= share
        })
        .await;
        let from = now();
        match (kill % 3, &mut world.database) {
            (0, _) => {
                shop.kill().await;
                shop = world.shop();
                continue;
            }
            (1, Database::Postgres(server)) => {
                server.kill().await;
                server.start_again().await;
            }
            // SQLite lives in the processes that use it: here in both at once.
            (1, Database::Sqlite(_)) => {
                shop.kill().await;
                worker.kill().await;
                (shop, worker) = (world.shop(), world.worker());
            }
            _ => {
                worker.kill().await;
                worker = world.worker();
            }
        }
        outages.push((from, now()));
    }
    assert_eq!(shop.ended().await.code(), Some(0));
    world.push_service.wait_for(transactions / 2).await;
    world.all_sent().await;
    assert_eq!(worker.terminate().await.code(), Some(0));

    let mut told: BTreeMap<String, Vec<Timestamp>> = BTreeMap::new();
    for message in world.told() {
        told.entry(message.tag).or_default().push(message.at);
    }
    let paid = orders.iter().filter(|order| order.id % 2 == 1);
    let paid: BTreeSet<_> = paid.map(|order| format!("order-{}", order.id)).collect();
    assert_eq!(told.keys().cloned().collect::<BTreeSet<_>>(), paid);
    assert_eq!(shipped(&world).await, paid.len());
    // Each once: orders that were shipped again have the same keys.
    let sql = match world.database {
        Database::Postgres(_) => "SELECT count(*) FROM web_push.broadcast",
        Database::Sqlite(_) => "SELECT count(*) FROM web_push_broadcast",
    };
    assert_eq!(world.database.number(sql).await, paid.len() as i64);
    let mut doubles = 0;
    for (tag, times) in &told {
        for pair in times.windows(2) {
            doubles += 1;
            let is_explained =
                |(from, to): &(Timestamp, Timestamp)| pair[0] < *to + ON_THE_WAY && pair[1] > *from;
            assert!(
                outages.iter().any(is_explained),
                "{tag}: {times:?}, and {outages:?}"
            );
        }
    }
    println!("{} messages, {doubles} of them twice", paid.len());
}

async fn shipped(world: &World) -> usize {
    let shipped = "SELECT count(*) FROM orders WHERE state = 'shipped'";
    world.database.number(shipped).await as usize
}

fn now() -> Timestamp {
    SystemClock::new().now()
}

fn number(variable: &str, default: usize) -> usize {
    env::var(variable).map_or(default, |number| number.parse().unwrap())
}
