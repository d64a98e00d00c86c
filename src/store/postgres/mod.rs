//! A store in PostgreSQL, shared by any number of processes.

mod attempts;
mod broadcasts;
mod builder;
mod claims;
mod connection;
mod content;
#[cfg(test)]
mod cost_tests;
mod ending;
mod enqueue;
mod erase;
mod error;
mod far_rows;
mod first_upsert;
#[cfg(test)]
mod frozen_tests;
mod holding;
mod ledger;
mod listen;
mod listing;
mod opening;
mod opening_together;
mod origins;
mod outbox;
mod pauses;
#[cfg(test)]
mod plans;
mod pooler;
mod portable;
mod reading_together;
mod ready;
mod rows;
mod samples;
mod schedules;
mod schema;
mod settle;
mod subscription_changes;
mod subscription_count;
mod subscription_numbers;
mod subscription_rows;
mod subscriptions;
mod taking;
mod url;
mod vapid_keys;
mod waking;
mod workers;

#[doc(no_inline)]
pub use ::deadpool_postgres;
pub use builder::PostgresBuilder;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use deadpool_postgres::Pool;

use self::connection::Database;
use self::listen::{Heard, Hints, Listening};
use self::opening_together::OpeningTogether;
use self::reading_together::ReadingTogether;
use self::workers::Beating;
use super::heartbeat::{Heartbeat, WorkerId};
use super::readable::KnownDamage;
use super::together::Sharing;
use super::{Changes, StoreError};

/// Keeps everything in a schema of a PostgreSQL database, shared by any number of processes and machines.
///
/// Every replica of an application opens a store on the same database. There is no leader: claims, cursors and schedules
/// coordinate the replicas, and each may be stopped, killed or added at any time.
///
/// # Connections
///
/// [`connect`](Self::connect) makes a pool of ten connections. [`with_pool`](Self::with_pool) uses the application's pool
/// (of [`deadpool_postgres`](crate::store::deadpool_postgres)). A call takes a connection for one short transaction, and
/// none is held during a request to a push service. A worker has two more connections. One is made by
/// [`WebPush::run`](crate::WebPush::run): on it it listens, so that a message enqueued on one machine is started at
/// once by a worker on another. That is a hint (`NOTIFY`). Polling finds work whose hint was lost. The other one is made by the
/// first claim.
///
/// # A worker that ends
///
/// A store that claims writes a sign of life every 250 ms, from a thread of its own, which ends with the store: the other
/// workers make the rows of one that has died due within 5 seconds, long before its leases end (L19). A server that was
/// restarted or stood still is the end of no worker. A worker that was silent for 1.5 seconds and lives begins no request, see
/// [`epoch`](super::DeliveryLedger::epoch). The connection is made to the URL of [`listen`](PostgresBuilder::listen),
/// else to that of the store. Without either, a connection of the application's pool is taken out of it, which the pool
/// may replace: then the server has to allow one connection more than the pool has, and the application's runtime drives it.
/// If there is no connection for it, leases end by their time, and the log has one warning.
///
/// # Broken connections
///
/// Broken connections are replaced by the next call. Every wait has a timeout: for a connection, for a statement on the
/// server, for its answer. A server that is frozen or out of reach is
/// [`Unavailable`](crate::store::StoreErrorKind::Unavailable) after at most
/// [`statement_timeout`](PostgresBuilder::statement_timeout) and two seconds.
///
/// `sslmode` in the URL: `disable` means no TLS. `prefer`, the default, and `allow` mean TLS if the server offers it.
/// `require` means TLS always. With TLS **the certificate and its name are verified** against the Mozilla roots and those
/// of [`extra_root_ca_pem`](PostgresBuilder::extra_root_ca_pem), or against the certificates of the PEM file that
/// `sslrootcert` names, and no others. `require` is therefore what libpq calls `verify-full`; `verify-full` and
/// `verify-ca` are accepted as synonyms. Only `require` is safe against an attacker on the network.
///
/// # Parameters of the URL
///
/// Of libpq's parameters the URL takes those of [`tokio_postgres::Config`], and `sslmode`, `sslrootcert`,
/// `target_session_attrs` (`any`, `read-write`, `primary`), `keepalives_count`, `fallback_application_name`. Others are
/// accepted only with the value that describes this store's behaviour, such as `gssencmode=disable` or `sslcompression=0`.
/// `connect_timeout`, `schema` and `pool_max_conns` are [`connect_timeout`](PostgresBuilder::connect_timeout),
/// [`schema`](PostgresBuilder::schema) and [`pool_size`](PostgresBuilder::pool_size); the URL's value wins. Anything else
/// is refused with the parameter's name. Values may be percent-encoded.
///
/// # The server
///
/// PostgreSQL 13 or newer, a database in UTF-8, a primary (`target_session_attrs=read-write` picks it among several
/// hosts). The tables are in a schema of their own, `web_push` unless [`schema`](PostgresBuilder::schema) names another.
/// A schema with other tables is refused, and so is one of a newer version of this crate or from before its first
/// release. The role that migrates owns the tables, and needs the right to create the schema (`CREATE` on the database)
/// or to create tables in an existing empty one. A role without migrations (see
/// [`without_migrations`](PostgresBuilder::without_migrations)) needs `USAGE` on the schema and on its sequences, and
/// `SELECT`, `INSERT`, `UPDATE` and `DELETE` on its tables. A principal's name is indexed, which limits it to 2,600
/// octets. A subscription with a longer one is refused as
/// [`Misconfigured`](crate::store::StoreErrorKind::Misconfigured).
///
/// # In your own transaction
///
/// The function `enqueue` of the schema, and [`enqueue_in`](Self::enqueue_in) in Rust, enqueue a broadcast in a transaction
/// of the application's own, from any language. The guide's page
/// [in your own transaction](crate::guide::in_your_own_transaction) has the rights that a role needs for it.
///
/// # PgBouncer
///
/// In transaction mode PgBouncer needs version 1.21 or newer and `max_prepared_statements` above 0, since statements are
/// prepared once per connection. Nothing else outlives a transaction. Connecting tests this, and returns
/// [`Misconfigured`](crate::store::StoreErrorKind::Misconfigured) with a text that names PgBouncer if prepared statements
/// are lost. A pool with a single connection is not tested. PgBouncer does not pass hints on in transaction mode: give
/// [`listen`](PostgresBuilder::listen) a direct URL, or rely on polling. Session mode has no such limits.
///
/// # Durability
///
/// A change that a call returned as stored is as durable as the server's settings make it: with `synchronous_commit = on`
/// (PostgreSQL's default) and `fsync = on` it survives a loss of power. With asynchronous replication a failover may lose
/// the last transactions: rows that were settled in them are sent again.
///
/// # Operating it
///
/// The queue is a table that is emptied as fast as it is filled. Autovacuum runs often on it. Watch `n_dead_tup` of
/// `delivery` in `pg_stat_user_tables`, and the age of the oldest transaction in the database: one that is open for hours
/// (a forgotten `psql`, a long `pg_dump`, a stuck replication slot) keeps dead rows, which claims have to skip. The numbers
/// of subscriptions are kept in tables of their own, so that counting reads no rows: change rows only through this crate.
///
/// Cancelling a broadcast takes effect with one short transaction. Its rows end after that in transactions of 1,000 rows,
/// by repeated calls or by claims. Until then a claim passes over at most 1,000 of them at an origin.
///
/// # Cancel safety
///
/// Each call is one transaction, except cancelling and erasing, which are several. A future that is dropped before its
/// commit was sent has changed nothing: its connection is closed, and the server rolls back. One that is dropped later has
/// made all of its change, or none if the commit did not reach the server. A broadcast without an idempotency key may share
/// the transaction of others that are opened at the same time: it may be opened although its call was dropped.
///
/// # Security
///
/// The database holds endpoints, message payloads and sealed VAPID keys. The URL's password is in no error and no debug
/// output. Parts of server messages that quote rows are left out, and the driver does not log the values of statements.
#[derive(Clone)]
pub struct PostgresStore {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    /// Hosts, ports and the name of the database.
    place: String,
    listening: Option<Arc<Listening>>,
    hints: Hints,
    opening: OpeningTogether,
    reading: ReadingTogether,
    heartbeat: Heartbeat,
    /// The last origin that a step of pruning has looked at.
    pruned_origin: AtomicI64,
    /// The number of lists of broadcasts to expand, for their rotation.
    listings: AtomicU64,
    /// The numbers of days that cannot be read.
    damaged_days: KnownDamage,
}

impl Sharing for Inner {
    fn longest_answer(&self) -> Duration {
        self.database.longest_answer()
    }

    fn too_late() -> StoreError {
        error::too_late().error
    }
}

impl PostgresStore {
    /// Returns a builder for another pool size, schema, certificates or timeouts.
    pub fn builder() -> PostgresBuilder {
        PostgresBuilder::new()
    }

    /// Connects to a database by its URL and migrates the tables, as [`PostgresBuilder::connect`] with its defaults.
    ///
    /// # Errors
    ///
    /// As [`PostgresBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// A dropped future has created all of the tables or none.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder().connect(url).await
    }

    /// Uses the application's own pool and migrates the tables, as [`PostgresBuilder::with_pool`] with its defaults.
    ///
    /// # Errors
    ///
    /// As [`PostgresBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// As [`connect`](Self::connect).
    pub async fn with_pool(pool: Pool) -> Result<Self, StoreError> {
        Self::builder().with_pool(pool).await
    }

    /// Migrates the tables, as [`connect`](Self::connect) does. For a separate step of a deployment.
    ///
    /// Repeatable, and safe if many processes call it at once: one migrates, the others wait for it.
    ///
    /// # Errors
    ///
    /// As [`PostgresBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// The migration is one transaction.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        schema::migrate(self.database()).await
    }

    fn new(database: Database, place: String, listening: Option<Arc<Listening>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                database,
                place,
                listening,
                hints: Hints::default(),
                opening: OpeningTogether::default(),
                reading: ReadingTogether::default(),
                heartbeat: Heartbeat::new(),
                pruned_origin: AtomicI64::new(i64::MIN),
                listings: AtomicU64::new(0),
                damaged_days: KnownDamage::default(),
            }),
        }
    }

    fn place(&self) -> &str {
        &self.inner.place
    }

    fn pruned_origin(&self) -> &AtomicI64 {
        &self.inner.pruned_origin
    }

    fn damaged_days(&self) -> &KnownDamage {
        &self.inner.damaged_days
    }

    fn next_listing(&self) -> u64 {
        self.inner.listings.fetch_add(1, Ordering::Relaxed)
    }

    fn database(&self) -> &Database {
        &self.inner.database
    }

    fn heartbeat(&self) -> &Heartbeat {
        &self.inner.heartbeat
    }

    /// The number that a claim names, after enlisting at the first one.
    async fn worker(&self) -> Option<WorkerId> {
        let Inner {
            database,
            listening,
            heartbeat,
            ..
        } = &*self.inner;
        let beating = || Beating::new(database, listening.as_ref());
        heartbeat.worker(beating).await
    }

    /// Notifies listening workers of new work.
    async fn tell(&self) {
        self.inner.hints.tell(self.database()).await;
    }

    fn heard(&self) -> Changes {
        let Inner {
            hints, listening, ..
        } = &*self.inner;
        let channel = self.database().schema.channel();
        Changes::new(Heard::new(hints, listening.as_ref(), channel))
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("schema", &self.database().schema.name())
            .finish_non_exhaustive()
    }
}
