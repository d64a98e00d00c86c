//! sqlx.

use sqlx::PgPool;
use tower_web_push::broadcast::OutboxDialect;

use crate::{Error, Order};

/// Ships an order and tells its customer, or does neither.
pub async fn ship(pool: &PgPool, order: &Order) -> Result<(), Error> {
    let mut transaction = pool.begin().await?;

    let enqueue = order.shipped().outbox_statement(OutboxDialect::POSTGRES);
    let [audience, message, opts] = &enqueue.parameters;
    sqlx::query(&enqueue.sql)
        .bind(audience)
        .bind(message)
        .bind(opts)
        .execute(&mut *transaction)
        .await?;

    sqlx::query("UPDATE orders SET state = 'shipped' WHERE id = $1")
        .bind(order.id)
        .execute(&mut *transaction)
        .await?;
    Ok(transaction.commit().await?)
}
