//! The shop, and the worker that sends what its transactions have told:
//!
//! ```sh
//! outbox worker postgres://…    # or sqlite://FILE
//! outbox ship postgres://…      # ships every order of the table, by four drivers at once
//! ```

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::NoTls;
use tower_web_push::WebPush;
use tower_web_push::store::{PostgresStore, SqliteStore};
use tower_web_push_outbox::{Error, Order, Shop, is_refused};

/// Transactions at once, by each driver.
const AT_ONCE: usize = 4;
/// After a failed transaction.
const TRY_AGAIN: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let words: Vec<_> = env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["worker", url] => work(url).await,
        ["ship", url] => ship_all(url).await,
        _ => Err("outbox worker URL, or outbox ship URL".into()),
    }
}

/// Sends, until SIGTERM. Any number of these may run.
async fn work(url: &str) -> Result<(), Error> {
    let policy = env::var("ENDPOINT_POLICY").unwrap_or_else(|_| "known".to_owned());
    let push = WebPush::builder("mailto:ops@example.com").endpoint_policy(policy.parse()?);
    let push = match url.strip_prefix("sqlite://") {
        Some(file) => push.store(SqliteStore::open_in(file, "web_push_").await?),
        None => push.store(PostgresStore::connect(url).await?),
    };
    let push = push.build().await?;
    let mut terminated = signal(SignalKind::terminate())?;
    push.run(async move {
        terminated.recv().await;
    })
    .await?;
    Ok(())
}

/// Ships every order. It does not know which ones it has shipped before it was killed, so it repeats them: the idempotency key
/// makes that harmless.
async fn ship_all(url: &str) -> Result<(), Error> {
    let orders = Arc::new(orders(url).await?);
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for shop in Shop::open_by_each_driver(url).await? {
        for _ in 0..AT_ONCE {
            let (shop, orders, next) = (shop.clone(), Arc::clone(&orders), Arc::clone(&next));
            tasks.spawn(async move {
                while let Some(order) = orders.get(next.fetch_add(1, Ordering::Relaxed)) {
                    ship(&shop, order).await;
                }
            });
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}

/// Ships an order, unless the database refuses it. After another error the transaction may have been committed all the same, and
/// is repeated.
async fn ship(shop: &Shop, order: &Order) {
    let mut has_failed = false;
    while let Err(error) = shop.ship(order).await {
        if is_refused(&error) {
            return;
        }
        if !has_failed {
            eprintln!("order {} by {shop:?}: {error}", order.id);
        }
        has_failed = true;
        sleep(TRY_AGAIN).await;
    }
}

async fn orders(url: &str) -> Result<Vec<Order>, Error> {
    const SQL: &str = "SELECT id, customer FROM orders ORDER BY id";
    if let Some(file) = url.strip_prefix("sqlite://") {
        let connection = Connection::open(file)?;
        let mut rows = connection.prepare(SQL)?;
        let orders = rows.query_map([], |row| {
            let (id, customer) = (row.get(0)?, row.get(1)?);
            Ok(Order { id, customer })
        });
        return Ok(orders?.collect::<Result<_, _>>()?);
    }
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let rows = client.query(SQL, &[]).await?;
    let order = |row: &tokio_postgres::Row| Order {
        id: row.get(0),
        customer: row.get(1),
    };
    Ok(rows.iter().map(order).collect())
}
