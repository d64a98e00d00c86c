//! The workers of a database: their beats, and the rows of those that are dead (L19).

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{ClientWrapper, Object, Pool};
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::attempts::in_transaction;
use super::connection::{self, Database, Tx};
use super::ending::END_PROBES;
use super::error::{Failed, corrupt, not_connected, too_late};
use super::listen::Listening;
use super::rows::{first, integer, read};
use super::schema::Schema;
use crate::clock::Timestamp;
use crate::observe::event;
use crate::store::heartbeat::{Heartbeat, LOOK_AGAIN, Other, Pulse, Silent, WorkerId};
use crate::store::{STEP, StoreError};

/// The longest wait for a connection, and for an answer. The server gives up a statement earlier.
const WAIT: Duration = Duration::from_secs(2);
const STATEMENT: Duration = Duration::from_secs(1);

pub(super) const INSERT: &str = "INSERT INTO web_push.worker (beat_at) \
     VALUES ((extract(epoch FROM clock_timestamp()) * 1000)::bigint) RETURNING id, beat_at";
pub(super) const BEAT: &str = "UPDATE web_push.worker SET beat_at = (extract(epoch FROM clock_timestamp()) * 1000)::bigint \
     WHERE id = $1 AND NOT dead RETURNING beat_at";
pub(super) const OTHERS: &str = "SELECT id, beat_at, dead FROM web_push.worker WHERE id <> $1";
/// Skips a worker whose beat is being written. One that has beaten meanwhile is not marked.
pub(super) const MARK: &str = "UPDATE web_push.worker AS w SET dead = true FROM (SELECT id FROM web_push.worker \
         WHERE id = ANY($1) AND (dead OR beat_at < $2) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED) AS silent \
     WHERE w.id = silent.id RETURNING w.id";
/// Ends leases that have not ended yet. The rows keep their tokens until they are claimed again.
pub(super) const END_LEASES: &str = "WITH leased AS MATERIALIZED (SELECT d.ctid FROM web_push.delivery AS d \
         WHERE d.worker = ANY($1) LIMIT $2 FOR UPDATE SKIP LOCKED) \
     UPDATE web_push.delivery AS d SET at = least(d.at, $3), worker = NULL FROM leased WHERE d.ctid = leased.ctid \
     RETURNING d.origin, d.fence";
pub(super) const STRIKE: &str = "DELETE FROM web_push.worker AS w WHERE w.id = ANY($1) AND NOT EXISTS ( \
         SELECT 1 FROM web_push.delivery AS d WHERE d.worker = w.id OFFSET 0)";
pub(super) const HAS_LEASED: &str =
    "SELECT EXISTS (SELECT 1 FROM web_push.delivery WHERE worker = ANY($1))";

/// Makes rows of dead workers due: at most [`STEP`] of them. Returns whether there may be more.
pub(super) async fn rescue(
    database: &Database,
    heartbeat: &Heartbeat,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let Some(silent) = heartbeat.take_silent() else {
        return Ok(false);
    };
    let rows = in_transaction!(database, |tx| rescue_in(tx, &silent, now))?;
    if rows > 0 {
        event!(
            WARN,
            workers = ?silent.workers,
            rows,
            "a process has ended without settling its rows: they are due again"
        );
    }
    let more = rows >= STEP;
    if more {
        heartbeat.put_back(silent);
    }
    Ok(more)
}

/// Marks the workers in the same transaction: a beat that is written before leaves them their rows, and one that comes
/// after tells them that these may be lost.
async fn rescue_in(tx: &mut Tx<'_>, silent: &Silent, now: Timestamp) -> Result<usize, Failed> {
    let horizon = silent.horizon.map_or(i64::MIN, Timestamp::as_millis);
    let marked = tx.query(MARK, &[&silent.workers, &horizon]).await?;
    let dead: Vec<WorkerId> = read(&marked, |columns| columns.get())?;
    if dead.is_empty() {
        return Ok(0);
    }
    let now = now.as_millis();
    let values: [&(dyn ToSql + Sync); 3] = [&dead, &integer(STEP), &now];
    let rows = read(&tx.query(END_LEASES, &values).await?, |columns| {
        Ok((columns.get::<i64>()?, columns.get::<i64>()?))
    })?;
    if !rows.is_empty() {
        let (origins, fences): (Vec<i64>, Vec<i64>) = rows.iter().copied().unzip();
        tx.execute(END_PROBES, &[&origins, &fences, &now]).await?;
    }
    if rows.len() < STEP {
        tx.execute(STRIKE, &[&dead]).await?;
    }
    Ok(rows.len())
}

/// When to claim at the latest: while another worker has leased rows, it may die.
pub(super) async fn next_due(
    database: &Database,
    heartbeat: &Heartbeat,
    next: Option<Timestamp>,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let look = now + LOOK_AGAIN;
    let others = heartbeat.others();
    if others.is_empty() || next.is_some_and(|next| next <= look) {
        return Ok(next);
    }
    let rows = database.query(HAS_LEASED, &[&others]).await?;
    let has_leased = first(&rows, |columns| columns.get::<bool>())?;
    Ok(match has_leased {
        Some(true) => Some(look),
        _ => next,
    })
}

/// The connection on which a worker beats.
pub(super) struct Beating {
    source: Source,
    schema: Schema,
    begin: String,
    client: Option<Beats>,
}

/// Where the connection comes from.
enum Source {
    Url(Arc<Listening>),
    /// Without a URL, the application's pool.
    Pool(Pool),
}

/// The connection.
enum Beats {
    Own(Client),
    OfPool(ClientWrapper),
}

impl Deref for Beats {
    type Target = Client;

    fn deref(&self) -> &Client {
        match self {
            Self::Own(client) => client,
            Self::OfPool(client) => client,
        }
    }
}

impl Beating {
    pub(super) fn new(database: &Database, listening: Option<&Arc<Listening>>) -> Self {
        let pool = || Source::Pool(database.pool.clone());
        // A beat that was lost by a crash of the server is as good as one that was not written.
        let begin = connection::begin(STATEMENT, Duration::ZERO);
        let begin = format!("{begin}; SET LOCAL synchronous_commit = off");
        Self {
            source: listening.map_or_else(pool, |listening| Source::Url(Arc::clone(listening))),
            schema: database.schema.clone(),
            begin,
            client: None,
        }
    }

    /// Runs a statement in a transaction of its own, in one round trip. Nothing is prepared: a pooler may be in between.
    async fn query(
        &mut self,
        sql: &'static str,
        id: Option<WorkerId>,
    ) -> Result<Vec<Row>, StoreError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => timeout(WAIT, self.source.connect())
                .await
                .map_err(|_| too_late())
                .and_then(|connected| connected)
                .map_err(|failed| failed.error)?,
        };
        let sql = self.schema.in_sql(sql);
        let id = id
            .as_ref()
            .map(|id| (id as &(dyn ToSql + Sync), Type::INT4));
        let values: Vec<_> = id.into_iter().collect();
        // All three are sent in this order before the first answer is awaited.
        let answers = timeout(WAIT, async {
            tokio::join!(
                biased;
                client.batch_execute(&self.begin),
                client.query_typed(&sql, &values),
                client.batch_execute("COMMIT"),
            )
        });
        let (begun, rows, committed) = answers.await.map_err(|_| too_late().error)?;
        let rows = begun.and(rows).and_then(|rows| committed.map(|()| rows));
        let rows = rows.map_err(|error| Failed::from(error).error)?;
        // Without an error: nothing of this connection is in doubt.
        self.client = Some(client);
        Ok(rows)
    }
}

impl Source {
    async fn connect(&self) -> Result<Beats, Failed> {
        match self {
            Self::Url(listening) => {
                let (client, connection) = listening.config.connect(listening.tls.clone()).await?;
                // It ends with the client.
                tokio::spawn(connection);
                Ok(Beats::Own(client))
            }
            // Not given back: the pool may make another one.
            Self::Pool(pool) => {
                let object = pool.get().await.map_err(not_connected)?;
                Ok(Beats::OfPool(Object::take(object)))
            }
        }
    }
}

#[async_trait]
impl Pulse for Beating {
    async fn enlist(&mut self) -> Result<(WorkerId, Timestamp), StoreError> {
        let rows = self.query(INSERT, None).await?;
        let entry = first(&rows, |columns| Ok((columns.get()?, columns.time()?)))?;
        entry.ok_or_else(|| corrupt("the entry of a worker"))
    }

    async fn beat(&mut self, id: WorkerId) -> Result<Option<Timestamp>, StoreError> {
        let rows = self.query(BEAT, Some(id)).await?;
        first(&rows, |columns| columns.time())
    }

    async fn others(&mut self, id: WorkerId) -> Result<Vec<Other>, StoreError> {
        let rows = self.query(OTHERS, Some(id)).await?;
        read(&rows, |columns| {
            Ok(Other {
                id: columns.get()?,
                beat_at: columns.time()?,
                is_dead: columns.get()?,
            })
        })
    }
}

#[cfg(test)]
#[path = "workers_tests.rs"]
mod tests;
