//! Diesel.

use diesel::sql_types::{BigInt, Text};
use diesel::{RunQueryDsl as _, SqliteConnection, sql_query};
use tower_web_push::broadcast::OutboxDialect;

use crate::{Error, Order};

/// Ships an order and tells its customer, or does neither.
pub fn ship(connection: &mut SqliteConnection, order: &Order) -> Result<(), Error> {
    connection.immediate_transaction(|transaction| {
        let enqueue = order.shipped().outbox_statement(OutboxDialect::SQLITE);
        let [audience, message, opts] = &enqueue.parameters;
        sql_query(&enqueue.sql)
            .bind::<Text, _>(audience)
            .bind::<Text, _>(message)
            .bind::<Text, _>(opts)
            .execute(transaction)?;

        sql_query("UPDATE orders SET state = 'shipped' WHERE id = ?1")
            .bind::<BigInt, _>(order.id)
            .execute(transaction)?;
        Ok(())
    })
}
