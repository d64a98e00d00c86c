//! An application enqueues in transactions of its own, each second one is rolled back, and servers, the database and the
//! application's connections are killed: exactly what was committed is sent.

use std::collections::HashSet;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::NoTls;
use tower_web_push::Message;
use tower_web_push::broadcast::{Audience, Broadcast, OutboxDialect};
use tower_web_push::message::Topic;

use super::killed::doubles;
use super::traffic::now;
use super::world::{World, until};
use crate::support::servers::Kind;

const ORDERS: usize = 400;
const WRITERS: usize = 4;
/// After a failed transaction.
const TRY_AGAIN: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread")]
async fn exactly_what_an_application_commits_is_sent() {
    let Some(mut world) = World::on(Kind::Postgres).await else {
        return;
    };
    let (one, other) = tokio::join!(world.start("axum_server"), world.start("hyper_server"));
    let key = one.vapid_key().await;
    world.subscribe(&key, 1).await;
    let url = world.database.url();
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let create = "CREATE TABLE orders (id bigint PRIMARY KEY)";
    client.batch_execute(create).await.unwrap();
    let mut application = JoinSet::new();
    for writer in 0..WRITERS {
        let url = url.clone();
        application.spawn(async move {
            for order in (0..ORDERS).skip(writer).step_by(WRITERS) {
                // Whether an error means that nothing was committed is unknown: the application repeats the transaction.
                while let Err(error) = ship(&url, order).await {
                    println!("order {order}: {error}");
                    sleep(TRY_AGAIN).await;
                }
            }
        });
    }
    world.traffic.taken(ORDERS / 8).await;
    one.process.kill().await;
    let mut killed_at = vec![now()];
    let next = world.start("axum_server").await;
    world.traffic.taken(ORDERS / 4).await;
    killed_at.push(now());
    world.database.kill().await;
    world.database.start_again().await;
    killed_at.push(now());
    application.join_all().await;

    world.traffic.taken(ORDERS / 2).await;
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    until("everything is sent", async || {
        let sql = "SELECT (SELECT count(*) FROM web_push.outbox) + (SELECT count(*) FROM web_push.delivery)";
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    let committed = (0..ORDERS).step_by(2).map(topic);
    let committed: HashSet<_> = committed.map(|topic| topic.as_str().to_owned()).collect();
    let sent = world.traffic.by_delivery();
    let sent: HashSet<_> = sent.keys().map(|sent| sent.topic().to_owned()).collect();
    assert_eq!(sent, committed);
    let doubles = doubles(&world, &killed_at, None);
    println!("{doubles:?} of {}", committed.len());
    let broadcasts = "SELECT count(*) FROM web_push.broadcast";
    let broadcasts = client.query_one(broadcasts, &[]).await.unwrap();
    assert_eq!(broadcasts.get::<_, i64>(0), committed.len() as i64);
    for server in [next, other] {
        assert_eq!(server.process.terminate().await.code(), Some(0));
    }
}

fn topic(order: usize) -> Topic {
    Topic::of(format!("order {order}").as_bytes())
}

/// One transaction on a connection of its own. Those of odd orders end with a rollback, or with the connection.
async fn ship(url: &str, order: usize) -> Result<(), tokio_postgres::Error> {
    let (mut client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let transaction = client.transaction().await?;
    let insert = "INSERT INTO orders VALUES ($1) ON CONFLICT DO NOTHING";
    transaction.execute(insert, &[&(order as i64)]).await?;
    // The push service distinguishes the orders by their topics.
    let message = Message::new(format!("order {order}")).with_topic(topic(order));
    let enqueue = Broadcast::to(Audience::All, message)
        .idempotency_key(format!("order-{order}"))
        .outbox_statement(OutboxDialect::POSTGRES);
    let [audience, message, opts] = &enqueue.parameters;
    transaction
        .execute(&enqueue.sql, &[audience, message, opts])
        .await?;
    match order % 4 {
        0 | 2 => transaction.commit().await,
        1 => transaction.rollback().await,
        _ => Ok(()),
    }
}
