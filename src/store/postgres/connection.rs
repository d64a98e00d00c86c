//! Connections and transactions: each wait has an end, and what is not known to be idle is not used again.

use std::fmt;
use std::time::Duration;

use bytes::BytesMut;
use deadpool_postgres::{Object, Pool};
use tokio::time::{sleep, timeout};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Row, Statement};

use super::error::{Failed, not_connected, too_late};
use super::rows::Values;
use super::schema::Schema;
use crate::store::StoreError;

/// How much longer than the server an answer may take on its way.
const ON_THE_WAY: Duration = Duration::from_secs(2);
/// How often a transaction that lost against another one is made again.
const TRIES: u32 = 8;

/// A database, by way of a pool of connections to it.
pub(super) struct Database {
    pub(super) pool: Pool,
    pub(super) schema: Schema,
    begin: String,
    /// How long a connection may be waited for.
    wait: Duration,
    /// How long one answer may take.
    answer: Duration,
}

impl Database {
    pub(super) fn new(pool: Pool, schema: Schema, wait: Duration, statement: Duration) -> Self {
        let millis = statement.as_millis().clamp(1, 2_000_000_000);
        // Not left to the database's own defaults. Planning by statistics does not fit a queue, which is empty now
        // and has a million rows a minute later: indexes are right at any time. And what is called are PostgreSQL's
        // functions, also where somebody else has put better fitting ones into a schema that the role looks into.
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
             SET LOCAL search_path = pg_catalog; \
             SET LOCAL statement_timeout = {millis}; \
             SET LOCAL idle_in_transaction_session_timeout = {millis}; \
             SET LOCAL enable_seqscan = off; \
             SET LOCAL enable_bitmapscan = off; \
             SET LOCAL enable_hashjoin = off; \
             SET LOCAL enable_mergejoin = off; \
             SET LOCAL jit = off"
        );
        Self {
            pool,
            schema,
            begin,
            wait: wait.saturating_add(ON_THE_WAY),
            answer: statement.saturating_add(ON_THE_WAY),
        }
    }

    #[cfg(test)]
    pub(super) fn begin_sql(&self) -> &str {
        &self.begin
    }

    /// A connection of the pool, for one transaction.
    pub(super) async fn connection(&self) -> Result<Conn<'_>, Failed> {
        // The pool's own limits may be wider, or none.
        let got = timeout(self.wait, self.pool.get()).await;
        let object = got.map_err(|_| too_late())?.map_err(not_connected)?;
        Ok(Conn {
            object: Some(object),
            database: self,
        })
    }

    pub(super) async fn begin(&self) -> Result<Tx<'_>, Failed> {
        Ok(Tx {
            conn: self.connection().await?,
            has_begun: false,
        })
    }

    /// One statement in a transaction of its own, there and back once; its rows.
    pub(super) async fn query(
        &self,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        self.alone(sql, values).await.map(|(rows, _)| rows)
    }

    /// One statement in a transaction of its own, there and back once; how many rows it changed.
    pub(super) async fn execute(
        &self,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<u64, StoreError> {
        self.alone(sql, values).await.map(|(_, changed)| changed)
    }

    async fn alone(
        &self,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<(Vec<Row>, u64), StoreError> {
        let mut tries = Tries::default();
        loop {
            let done = self.flight(sql, values).await;
            if let Some(done) = tries.last(done).await {
                return done;
            }
        }
    }

    async fn flight(
        &self,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<(Vec<Row>, u64), Failed> {
        let conn = self.connection().await?;
        let statement = conn.prepare(sql).await?;
        let object = conn.object()?;
        // All three are on their way before the first is waited for, in this order.
        let (begun, done, committed) = conn
            .bounded(async {
                Ok(tokio::join!(
                    biased;
                    object.batch_execute(&self.begin),
                    run(object, &statement, values),
                    object.batch_execute("COMMIT"),
                ))
            })
            .await?;
        let done = begun
            .map_err(not_begun)
            .and(done)
            .and_then(|done| committed.map_err(Failed::from).map(|()| done));
        // After an error the `COMMIT` has rolled it back.
        if done.as_ref().err().is_none_or(|failed| !failed.broken) {
            conn.give_back();
        }
        done
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

/// A connection under way: thrown away, unless it is given back.
pub(super) struct Conn<'a> {
    object: Option<Object>,
    database: &'a Database,
}

impl Conn<'_> {
    fn object(&self) -> Result<&Object, Failed> {
        // There until it is given back, which ends the value.
        self.object.as_ref().ok_or_else(too_late)
    }

    /// Waits for answers, not for ever.
    async fn bounded<T>(
        &self,
        answer: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, Failed> {
        timeout(self.database.answer, answer)
            .await
            .map_err(|_| too_late())?
    }

    async fn prepare(&self, sql: &'static str) -> Result<Statement, Failed> {
        let object = self.object()?;
        let sql = self.database.schema.in_sql(sql);
        self.bounded(async { Ok(object.prepare_cached(&sql).await?) })
            .await
    }

    /// It is idle: the pool may lend it again.
    fn give_back(mut self) {
        self.object = None;
    }
}

impl Drop for Conn<'_> {
    fn drop(&mut self) {
        // A transaction may be open on it, or an answer on its way: the server rolls back what was not committed as
        // soon as the connection is gone.
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}

/// A transaction: rolled back, unless it is committed.
pub(super) struct Tx<'a> {
    conn: Conn<'a>,
    has_begun: bool,
}

impl Tx<'_> {
    pub(super) async fn query(
        &mut self,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<Vec<Row>, Failed> {
        self.run(sql, values).await.map(|(rows, _)| rows)
    }

    /// How many rows a statement changed.
    pub(super) async fn execute(
        &mut self,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<u64, Failed> {
        self.run(sql, values).await.map(|(_, changed)| changed)
    }

    async fn run(
        &mut self,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<(Vec<Row>, u64), Failed> {
        let statement = self.conn.prepare(sql).await?;
        let object = self.conn.object()?;
        if self.has_begun {
            return self.conn.bounded(run(object, &statement, values)).await;
        }
        let begin = &self.conn.database.begin;
        let (begun, done) = self
            .conn
            .bounded(async {
                Ok(tokio::join!(
                    biased;
                    object.batch_execute(begin),
                    run(object, &statement, values)
                ))
            })
            .await?;
        begun.map_err(not_begun)?;
        self.has_begun = true;
        done
    }

    /// Statements that are no queries, one after the other.
    pub(super) async fn batch(&mut self, sql: &str) -> Result<(), Failed> {
        let object = self.conn.object()?;
        if !self.has_begun {
            let begin = &self.conn.database.begin;
            self.conn
                .bounded(async { object.batch_execute(begin).await.map_err(not_begun) })
                .await?;
            self.has_begun = true;
        }
        self.conn
            .bounded(async { Ok(object.batch_execute(sql).await?) })
            .await
    }

    /// Commits what was done, or rolls back what failed.
    pub(super) async fn end<T>(self, done: Result<T, Failed>) -> Result<T, Failed> {
        let (done, last) = match done {
            Ok(done) => (Ok(done), "COMMIT"),
            Err(failed) if failed.broken => return Err(failed),
            Err(failed) => (Err(failed), "ROLLBACK"),
        };
        if self.has_begun {
            let object = self.conn.object()?;
            let ended = self
                .conn
                .bounded(async { Ok(object.batch_execute(last).await?) })
                .await;
            match (ended, &done) {
                (Ok(()), _) => {}
                // The first error is the one to tell.
                (Err(_), Err(_)) => return done,
                (Err(failed), Ok(_)) => return Err(failed),
            }
        }
        self.conn.give_back();
        done
    }
}

/// A connection on which no transaction begins is in one that failed, or was interrupted while it began: it is idle for
/// nobody.
fn not_begun(error: tokio_postgres::Error) -> Failed {
    Failed {
        broken: true,
        ..error.into()
    }
}

/// Runs a statement. All its values are taken before it first waits.
async fn run(
    object: &Object,
    statement: &Statement,
    values: Values<'_>,
) -> Result<(Vec<Row>, u64), Failed> {
    let values: Vec<_> = values.iter().map(|value| Quiet(*value)).collect();
    let values: Vec<_> = values
        .iter()
        .map(|value| value as &(dyn ToSql + Sync))
        .collect();
    // Columns of a result, if it has any: else the number of rows is the answer.
    if statement.columns().is_empty() {
        let changed = object.execute(statement, &values).await?;
        return Ok((Vec::new(), changed));
    }
    let rows = object.query(statement, &values).await?;
    let changed = rows.len() as u64;
    Ok((rows, changed))
}

/// A value that the driver does not write into its log: endpoints, secrets and payloads are among them.
struct Quiet<'a>(&'a (dyn ToSql + Sync));

impl fmt::Debug for Quiet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl ToSql for Quiet<'_> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        // Checked here, since what is inside was not asked before.
        self.0.to_sql_checked(ty, out)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// How often a transaction was tried.
#[derive(Debug, Default)]
pub(super) struct Tries(u32);

impl Tries {
    /// The answer, unless another try may have a better one.
    pub(super) async fn last<T>(
        &mut self,
        done: Result<T, Failed>,
    ) -> Option<Result<T, StoreError>> {
        self.0 += 1;
        match done {
            // Whoever won is done in a moment; of several losers none waits as long as the others.
            Err(failed) if failed.again && self.0 < TRIES => {
                let mut noise = [0];
                let _ = getrandom::fill(&mut noise);
                let millis = u64::from(self.0 * u32::from(noise[0] / 8 + 1));
                sleep(Duration::from_millis(millis)).await;
                None
            }
            done => Some(done.map_err(|failed| failed.error)),
        }
    }
}

/// A transaction, made again where it lost against another one.
macro_rules! in_transaction {
    ($database:expr, |$tx:ident| $work:expr) => {{
        let database: &$crate::store::postgres::connection::Database = $database;
        let mut tries = $crate::store::postgres::connection::Tries::default();
        loop {
            let done = match database.begin().await {
                Ok(mut transaction) => {
                    let $tx = &mut transaction;
                    let done = $work.await;
                    transaction.end(done).await
                }
                Err(failed) => Err(failed),
            };
            if let Some(done) = tries.last(done).await {
                break done;
            }
        }
    }};
}
pub(super) use in_transaction;
