//! SeaORM.

use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DbBackend, Statement, TransactionTrait as _,
};
use tower_web_push::broadcast::OutboxDialect;

use crate::{Error, Order};

/// Ships an order and tells its customer, or does neither.
pub async fn ship(db: &DatabaseConnection, order: &Order) -> Result<(), Error> {
    let transaction = db.begin().await?;

    let enqueue = order.shipped().outbox_statement(OutboxDialect::POSTGRES);
    let parameters = enqueue.parameters.map(Into::into);
    let enqueue = Statement::from_sql_and_values(DbBackend::Postgres, &enqueue.sql, parameters);
    transaction.execute(enqueue).await?;

    let update = "UPDATE orders SET state = 'shipped' WHERE id = $1";
    let update = Statement::from_sql_and_values(DbBackend::Postgres, update, [order.id.into()]);
    transaction.execute(update).await?;
    Ok(transaction.commit().await?)
}
