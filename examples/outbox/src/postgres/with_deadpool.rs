//! tokio-postgres, with a pool of deadpool.
//!
//! Where the application has a `PostgresStore`, its `enqueue_in` does the same, and the worker of that process hears of it at once.

use deadpool_postgres::Pool;
use tower_web_push::broadcast::OutboxDialect;

use crate::{Error, Order};

/// Ships an order and tells its customer, or does neither.
pub async fn ship(pool: &Pool, order: &Order) -> Result<(), Error> {
    let mut client = pool.get().await?;
    let transaction = client.transaction().await?;

    let enqueue = order.shipped().outbox_statement(OutboxDialect::POSTGRES);
    let [audience, message, opts] = &enqueue.parameters;
    transaction
        .execute(&enqueue.sql, &[audience, message, opts])
        .await?;

    let update = "UPDATE orders SET state = 'shipped' WHERE id = $1";
    transaction.execute(update, &[&order.id]).await?;
    Ok(transaction.commit().await?)
}
