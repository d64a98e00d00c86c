//! Diesel, by diesel-async. With Diesel's own `PgConnection` it is the same without `await`.

use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use tower_web_push::broadcast::OutboxDialect;

use crate::{Error, Order};

/// Ships an order and tells its customer, or does neither.
pub async fn ship(pool: &Pool<AsyncPgConnection>, order: &Order) -> Result<(), Error> {
    let mut connection = pool.get().await?;
    connection
        .transaction(async |transaction| {
            let enqueue = order.shipped().outbox_statement(OutboxDialect::POSTGRES);
            let [audience, message, opts] = &enqueue.parameters;
            sql_query(&enqueue.sql)
                .bind::<Text, _>(audience)
                .bind::<Text, _>(message)
                .bind::<Text, _>(opts)
                .execute(transaction)
                .await?;

            sql_query("UPDATE orders SET state = 'shipped' WHERE id = $1")
                .bind::<BigInt, _>(order.id)
                .execute(transaction)
                .await?;
            Ok(())
        })
        .await
}
