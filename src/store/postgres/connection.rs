//! Connections and transactions. Every wait has a timeout, and a connection that may be in use is never reused.

use std::fmt;
use std::time::Duration;

use bytes::BytesMut;
use deadpool_postgres::{Object, Pool};
use tokio::time::timeout;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Row, Statement};

use super::attempts::Attempts;
use super::error::{Failed, not_connected, too_late};
use super::rows::Values;
use super::schema::Schema;
use crate::store::StoreError;

/// Added to the server's timeouts for the way of an answer.
const ON_THE_WAY: Duration = Duration::from_secs(2);
/// The longest wait for one lock in a transaction that several calls share: what one of them waits for keeps the others waiting.
const SHARED_LOCK: Duration = Duration::from_millis(250);

/// A database and the pool of connections to it.
pub(super) struct Database {
    pub(super) pool: Pool,
    pub(super) schema: Schema,
    begin: String,
    /// For transactions that several calls share.
    begin_shared: String,
    /// The longest wait for a connection.
    wait: Duration,
    /// The longest wait for one answer.
    answer: Duration,
}

impl Database {
    pub(super) fn new(pool: Pool, schema: Schema, wait: Duration, statement: Duration) -> Self {
        Self {
            pool,
            schema,
            begin: begin(statement, Duration::ZERO),
            begin_shared: begin(statement, SHARED_LOCK),
            wait: wait.saturating_add(ON_THE_WAY),
            answer: statement.saturating_add(ON_THE_WAY),
        }
    }

    #[cfg(test)]
    pub(super) fn begin_sql(&self) -> &str {
        &self.begin
    }

    /// Takes a connection from the pool for one transaction.
    pub(super) async fn connection(&self) -> Result<Conn<'_>, Failed> {
        // The pool's own timeouts may be longer or absent.
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
            is_over: false,
        })
    }

    /// Runs one statement in a transaction of its own, in one round trip. Returns its rows.
    pub(super) async fn query(
        &self,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let done = self.alone(None, sql, values).await;
        done.map(|(rows, _)| rows)
    }

    /// Runs one statement for several calls, in one round trip and without another attempt. One that waits for a lock fails soon.
    pub(super) async fn query_shared(
        &self,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<Vec<Row>, Failed> {
        let done = self.flight(&self.begin_shared, None, sql, values).await;
        done.map(|(rows, _)| rows)
    }

    /// Runs two statements in a transaction of their own, in one round trip. Returns the rows of the second, which sees what was
    /// committed while the first waited for a lock.
    pub(super) async fn query_after(
        &self,
        first: Option<(&'static str, Values<'_>)>,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let done = self.alone(first, sql, values).await;
        done.map(|(rows, _)| rows)
    }

    /// The longest wait for one answer.
    pub(super) const fn longest_answer(&self) -> Duration {
        self.answer
    }

    /// Runs one statement in a transaction of its own, in one round trip. Returns the number of changed rows.
    pub(super) async fn execute(
        &self,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<u64, StoreError> {
        let done = self.alone(None, sql, values).await;
        done.map(|(_, changed)| changed)
    }

    /// Runs a script of statements without results in a transaction of its own, in one round trip.
    pub(super) async fn script(&self, sql: &str) -> Result<(), Failed> {
        let conn = self.connection().await?;
        let object = conn.object()?;
        let (begun, done, committed) = conn
            .bounded(async {
                Ok(tokio::join!(
                    biased;
                    object.batch_execute(&self.begin),
                    object.batch_execute(sql),
                    object.batch_execute("COMMIT"),
                ))
            })
            .await?;
        let done = begun
            .map_err(not_begun)
            .and(done.and(committed).map_err(Failed::from));
        if done.as_ref().err().is_none_or(|failed| !failed.broken) {
            conn.give_back();
        }
        done
    }

    async fn alone(
        &self,
        first: Option<(&'static str, Values<'_>)>,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<(Vec<Row>, u64), StoreError> {
        let mut attempts = Attempts::of(self);
        loop {
            let done = self.flight(&self.begin, first, sql, values).await;
            if let Some(done) = attempts.last(done).await {
                return done;
            }
        }
    }

    /// Runs one statement in a transaction of its own, without another attempt.
    pub(super) async fn execute_once(
        &self,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<(), Failed> {
        let done = self.flight(&self.begin, None, sql, values).await;
        done.map(|_| ())
    }

    async fn flight(
        &self,
        begin: &str,
        first: Option<(&'static str, Values<'_>)>,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<(Vec<Row>, u64), Failed> {
        let conn = self.connection().await?;
        let first = match first {
            Some((sql, values)) => Some((conn.prepare(sql).await?, values)),
            None => None,
        };
        let statement = conn.prepare(sql).await?;
        let object = conn.object()?;
        let before = async {
            match &first {
                Some((statement, values)) => run(object, statement, values).await.map(|_| ()),
                None => Ok(()),
            }
        };
        // All of them are sent in this order before the first answer is awaited.
        let (begun, before, done, committed) = conn
            .bounded(async {
                Ok(tokio::join!(
                    biased;
                    object.batch_execute(begin),
                    before,
                    run(object, &statement, values),
                    object.batch_execute("COMMIT"),
                ))
            })
            .await?;
        let done = begun
            .map_err(not_begun)
            .and(before)
            .and(done)
            .and_then(|done| committed.map_err(Failed::from).map(|()| done));
        // After an error the `COMMIT` has rolled it back.
        if done.as_ref().err().is_none_or(|failed| !failed.broken) {
            conn.give_back();
        }
        done
    }
}

/// Begins a transaction. `lock` is the longest wait for one lock; zero is as long as the statement may take.
pub(super) fn begin(statement: Duration, lock: Duration) -> String {
    let lock = lock.as_millis();
    let millis = statement.as_millis().clamp(1, 2_000_000_000);
    // A wait for another replica's row lock is part of the statement's time: the time limit of the role for one lock, which may
    // be short, would fail it.
    //
    // Settings that must not depend on the database's defaults. Plans by statistics do not fit a queue, which is empty
    // now and has a million rows a minute later: index scans are right at any time. The search path ensures that
    // PostgreSQL's own functions are called, not better matches in a schema that the role uses.
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
         SET LOCAL search_path = pg_catalog; \
         SET LOCAL statement_timeout = {millis}; \
         SET LOCAL lock_timeout = {lock}; \
         SET LOCAL idle_in_transaction_session_timeout = {millis}; \
         SET LOCAL enable_seqscan = off; \
         SET LOCAL enable_bitmapscan = off; \
         SET LOCAL enable_hashjoin = off; \
         SET LOCAL enable_mergejoin = off; \
         SET LOCAL jit = off"
    )
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

/// A connection in use. Closed on drop unless it was given back.
pub(super) struct Conn<'a> {
    object: Option<Object>,
    database: &'a Database,
}

impl Conn<'_> {
    pub(super) fn object(&self) -> Result<&Object, Failed> {
        // Always present: giving it back consumes the value.
        self.object.as_ref().ok_or_else(too_late)
    }

    /// Waits for an answer with a timeout.
    pub(super) async fn bounded<T>(
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

    /// Returns the idle connection to the pool.
    pub(super) fn give_back(mut self) {
        self.object = None;
    }
}

impl Drop for Conn<'_> {
    fn drop(&mut self) {
        // A transaction may be open, or an answer pending: the server rolls back when the connection closes.
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}

/// A transaction. Rolled back unless it is committed.
pub(super) struct Tx<'a> {
    conn: Conn<'a>,
    has_begun: bool,
    /// Whether its end was sent.
    is_over: bool,
}

impl Tx<'_> {
    pub(super) async fn query(
        &mut self,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<Vec<Row>, Failed> {
        self.run(sql, values).await.map(|(rows, _)| rows)
    }

    /// Runs a statement. Returns the number of changed rows.
    pub(super) async fn execute(
        &mut self,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<u64, Failed> {
        self.run(sql, values).await.map(|(_, changed)| changed)
    }

    /// Runs the last statement of a transaction and commits it, in one round trip. Returns the number of changed rows.
    pub(super) async fn execute_last(
        &mut self,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<u64, Failed> {
        let statement = self.conn.prepare(sql).await?;
        self.begin().await?;
        let object = self.conn.object()?;
        let (done, committed) = self
            .conn
            .bounded(async {
                Ok(tokio::join!(
                    biased;
                    run(object, &statement, values),
                    object.batch_execute("COMMIT"),
                ))
            })
            .await?;
        // After an error the `COMMIT` has rolled it back.
        self.is_over = true;
        let (_, changed) = done?;
        committed?;
        Ok(changed)
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

    /// Runs the last two statements of a transaction and commits it, in one round trip. Returns the rows of the second.
    pub(super) async fn finish(
        &mut self,
        (first, of_first): (&'static str, Values<'_>),
        (second, of_second): (&'static str, Values<'_>),
    ) -> Result<Vec<Row>, Failed> {
        let first = self.conn.prepare(first).await?;
        let second = self.conn.prepare(second).await?;
        self.begin().await?;
        let object = self.conn.object()?;
        let (first, second, committed) = self
            .conn
            .bounded(async {
                Ok(tokio::join!(
                    biased;
                    run(object, &first, of_first),
                    run(object, &second, of_second),
                    object.batch_execute("COMMIT"),
                ))
            })
            .await?;
        // After an error the `COMMIT` has rolled it back.
        self.is_over = true;
        first?;
        let (rows, _) = second?;
        committed?;
        Ok(rows)
    }

    /// Runs a script of statements without results.
    pub(super) async fn batch(&mut self, sql: &str) -> Result<(), Failed> {
        self.begin().await?;
        let object = self.conn.object()?;
        self.conn
            .bounded(async { Ok(object.batch_execute(sql).await?) })
            .await
    }

    /// Begins, unless an earlier statement did.
    async fn begin(&mut self) -> Result<(), Failed> {
        if !self.has_begun {
            let object = self.conn.object()?;
            let begin = &self.conn.database.begin;
            self.conn
                .bounded(async { object.batch_execute(begin).await.map_err(not_begun) })
                .await?;
            self.has_begun = true;
        }
        Ok(())
    }

    /// Commits, or rolls back after an error.
    pub(super) async fn end<T>(self, done: Result<T, Failed>) -> Result<T, Failed> {
        let (done, last) = match done {
            Ok(done) => (Ok(done), "COMMIT"),
            Err(failed) if failed.broken => return Err(failed),
            Err(failed) => (Err(failed), "ROLLBACK"),
        };
        if self.has_begun && !self.is_over {
            let object = self.conn.object()?;
            let ended = self
                .conn
                .bounded(async { Ok(object.batch_execute(last).await?) })
                .await;
            match (ended, &done) {
                (Ok(()), _) => {}
                // The first error is the one to return.
                (Err(_), Err(_)) => return done,
                (Err(failed), Ok(_)) => return Err(failed),
            }
        }
        self.conn.give_back();
        done
    }
}

/// A failed `BEGIN`: the connection may be inside of a transaction and must not be reused, and what was sent behind it may have
/// been done.
fn not_begun(error: tokio_postgres::Error) -> Failed {
    Failed {
        broken: true,
        unanswered: true,
        ..error.into()
    }
}

/// Runs a statement. Its values are encoded before the first wait.
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
    // A statement without result columns returns the number of changed rows.
    if statement.columns().is_empty() {
        let changed = object.execute(statement, &values).await?;
        return Ok((Vec::new(), changed));
    }
    let rows = object.query(statement, &values).await?;
    let changed = rows.len() as u64;
    Ok((rows, changed))
}

/// A value that the driver cannot log: values include endpoints, secrets and payloads.
pub(super) struct Quiet<'a>(pub(super) &'a (dyn ToSql + Sync));

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
        // Checked here, since `accepts` takes every type.
        self.0.to_sql_checked(ty, out)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
