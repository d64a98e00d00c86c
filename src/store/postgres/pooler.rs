//! Refusing a connection pooler that loses prepared statements.
//!
//! A pooler in transaction mode, such as PgBouncer, may run each transaction of a connection on another connection to the
//! server. Statements are prepared once per connection, and are unknown there, unless the pooler prepares them again.
//! Everything else that the store sets or locks ends with its transaction.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use super::connection::{Conn, Database};
use super::error::{Failed, misconfigured};
use crate::store::StoreError;

/// The longest wait for a server connection beside another one: a pooler may have only one.
const WAIT: Duration = Duration::from_secs(2);

/// Returns an error if prepared statements do not outlive a transaction. Without a second connection this is not tested.
pub(super) async fn check(database: &Database) -> Result<(), StoreError> {
    if database.pool.status().max_size < 2 {
        return Ok(());
    }
    let checked = check_on(database).await;
    checked.map_err(|failed| failed.error)
}

async fn check_on(database: &Database) -> Result<(), Failed> {
    let first = database.connection().await?;
    let object = first.object()?;
    let prepare = async { Ok(object.prepare("SELECT 1").await) };
    let statement = first.bounded(prepare).await?.map_err(refused)?;
    let Ok(second) = database.connection().await else {
        first.give_back();
        return Ok(());
    };
    // Takes the server connection on which the statement was prepared.
    batch(&second, "BEGIN").await?;
    let answer = timeout(WAIT, object.query(&statement, &[])).await;
    batch(&second, "ROLLBACK").await?;
    // Closed, so that an application's pool stays as small as it was.
    drop(second);
    // Without an answer the first connection is closed.
    if let Ok(answer) = answer {
        answer.map_err(refused)?;
        drop(statement);
        first.give_back();
    }
    Ok(())
}

async fn batch(conn: &Conn<'_>, sql: &str) -> Result<(), Failed> {
    let object = conn.object()?;
    conn.bounded(async { Ok(object.batch_execute(sql).await?) })
        .await
}

fn refused(error: tokio_postgres::Error) -> Failed {
    let is_lost = |code: &SqlState| {
        [
            SqlState::INVALID_SQL_STATEMENT_NAME,
            SqlState::DUPLICATE_PSTATEMENT,
        ]
        .contains(code)
    };
    if !error.code().is_some_and(is_lost) {
        return error.into();
    }
    misconfigured(
        "the server is a connection pooler that loses prepared statements, such as PgBouncer in transaction mode: set its \
         `max_prepared_statements` above 0 (PgBouncer 1.21 or newer) or its `pool_mode` to session, or connect to the \
         server itself",
    )
    .into()
}
