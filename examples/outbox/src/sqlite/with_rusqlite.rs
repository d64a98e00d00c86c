//! rusqlite.
//!
//! Where the application has a `SqliteStore`, its `enqueue_in` does the same.

use rusqlite::{Connection, TransactionBehavior};
use tower_web_push::broadcast::OutboxDialect;

use crate::{Error, Order};

/// Ships an order and tells its customer, or does neither.
pub fn ship(connection: &mut Connection, order: &Order) -> Result<(), Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;

    let enqueue = order.shipped().outbox_statement(OutboxDialect::SQLITE);
    transaction.execute(&enqueue.sql, enqueue.parameters)?;

    let update = "UPDATE orders SET state = 'shipped' WHERE id = ?1";
    transaction.execute(update, [order.id])?;
    Ok(transaction.commit()?)
}
