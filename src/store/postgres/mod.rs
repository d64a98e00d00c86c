//! A store in PostgreSQL, shared by any number of machines.

mod broadcasts;
mod builder;
mod claims;
mod connection;
mod content;
mod ending;
mod enqueue;
mod erase;
mod error;
mod ledger;
mod listen;
mod opening;
mod origins;
mod pauses;
#[cfg(test)]
mod plans;
mod rows;
mod schedules;
mod schema;
mod settle;
mod subscription_changes;
mod subscription_count;
mod subscription_rows;
mod subscriptions;
mod url;
mod vapid_keys;

#[doc(no_inline)]
pub use ::deadpool_postgres;
pub use builder::PostgresBuilder;

use std::fmt;
use std::sync::Arc;

use deadpool_postgres::Pool;

use self::connection::Database;
use self::listen::{Heard, Hints, Listening};
use super::{Changes, StoreError};

/// Keeps everything in a schema of a PostgreSQL database, shared by any number of machines.
///
/// Every replica of an application has one of these on the same database. There is no leader: claims, cursors
/// and schedules are the coordination, and each may be stopped, killed or added at any time.
///
/// # Connections
///
/// [`connect`](Self::connect) makes a pool of ten connections; [`with_pool`](Self::with_pool) uses one that the
/// application has (of [`deadpool_postgres`](crate::store::deadpool_postgres)). A call takes one of them for one short
/// transaction, and none is held while a push service is asked. A worker has one more, made by
/// [`WebPush::run`](crate::WebPush::run), on which it listens: what is enqueued on one machine is begun by a worker on
/// another at once. That is a hint (`NOTIFY`); polling finds what a hint did not tell.
///
/// Connections that broke are replaced by the next call that needs one. Every wait has an end: for a connection,
/// for a statement on the server, for its answer here. A server that is frozen or out of reach is
/// [`Unavailable`](crate::store::StoreErrorKind::Unavailable) after at most
/// [`statement_timeout`](PostgresBuilder::statement_timeout) and two seconds.
///
/// `sslmode` in the URL: `disable` is plain; `prefer`, which is the default, is TLS where the server offers it, and so is
/// `allow`; `require` is TLS or nothing. Wherever there is TLS, **the certificate is verified**, its name too, against
/// the Mozilla roots and those of [`extra_root_ca_pem`](PostgresBuilder::extra_root_ca_pem), or against the
/// certificates of the PEM file that `sslrootcert` names, and no others: `require` means what libpq calls
/// `verify-full`, which is taken as another word for it, as `verify-ca` is. Only `require` is safe against an attacker
/// on the network.
///
/// # Parameters of the URL
///
/// Of libpq's parameters the URL takes those of [`tokio_postgres::Config`], and `sslmode`, `sslrootcert`,
/// `target_session_attrs` (`any`, `read-write`, `primary`), `keepalives_count`, `fallback_application_name`. Others are
/// taken with the value that describes what is done anyway, such as `gssencmode=disable` or `sslcompression=0`.
/// `connect_timeout`, `schema` and `pool_max_conns` are [`connect_timeout`](PostgresBuilder::connect_timeout),
/// [`schema`](PostgresBuilder::schema) and [`pool_size`](PostgresBuilder::pool_size); the URL's value wins. Anything else
/// is refused with the parameter's name. Values may be percent-encoded.
///
/// # The server
///
/// PostgreSQL 13 or newer, a database in UTF-8, a primary (`target_session_attrs=read-write` picks it among several
/// hosts). The tables live in a schema of their own, `web_push` unless [`schema`](PostgresBuilder::schema) names another;
/// one that holds something else is refused, and so is one of a newer version of this crate or from before its first
/// release. The role that
/// migrates owns the tables, and needs the right to create the schema (`CREATE` on the database) or to create tables
/// in an empty one that is there. A role that only works (see
/// [`without_migrations`](PostgresBuilder::without_migrations)) needs `USAGE` on the schema and on its sequences, and
/// `SELECT`, `INSERT`, `UPDATE` and `DELETE` on its tables. A principal's name is indexed, which limits it to 2,600 octets;
/// a subscription of a longer one is refused as
/// [`Misconfigured`](crate::store::StoreErrorKind::Misconfigured).
///
/// PgBouncer in transaction mode works from its version 1.21 on with `max_prepared_statements` above zero, since
/// statements are prepared once for each connection; nothing else here outlives a transaction. Hints do not pass it:
/// give [`listen`](PostgresBuilder::listen) a direct URL, or leave it to polling.
///
/// # Durability
///
/// What a call answered as stored survives a crash as far as the server promises: with `synchronous_commit = on`
/// (PostgreSQL's default) and `fsync = on` the loss of power too. Where replication is asynchronous, a failover may
/// take back the last moments: rows that were settled then are sent once more.
///
/// # Operating it
///
/// The queue is a table that is emptied as fast as it is filled. Autovacuum is set to look at it often; watch
/// `n_dead_tup` of `delivery` in `pg_stat_user_tables`, and the age of the oldest transaction in the database: one that is
/// open for hours (a forgotten `psql`, a long `pg_dump`, a stuck replication slot) keeps dead rows in place, and claims
/// have to step over them. Counts of subscriptions and statements that look into the whole table are answered from
/// indexes, which takes a recent vacuum too. The total of subscriptions is counted beside the table: change rows by
/// means of this crate only.
///
/// Cancelling a broadcast takes effect with one short transaction. Its rows end after that, in transactions of 10,000,
/// up to a second for each 100,000 recipients that are waiting, which the call waits for; ends of that broadcast's attempts are
/// settled between any two of them. Where the call is dropped, or its process ends, claims do the rest, and nothing of it is
/// sent. Until it is done, a claim steps over what is left, which takes it up to half a second for each million.
///
/// # Cancel safety
///
/// Each call is one transaction, but for a cancellation, as said above; erasing a user is one transaction, and then a
/// cancellation of each broadcast to this user alone. A future that is dropped before its commit was sent has done
/// nothing: its connection is closed, and the server rolls back. One that is dropped later has done all of its change, or none if the
/// commit did not reach the server.
///
/// # Security
///
/// The database holds endpoints, message payloads, and VAPID keys as they were sealed. The URL's password is in no
/// error and in nothing that is printed; parts of server messages that quote rows are left out, and the values of
/// statements are not logged by the driver.
#[derive(Clone)]
pub struct PostgresStore {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    listening: Option<Arc<Listening>>,
    hints: Hints,
}

impl PostgresStore {
    /// A pool size, a schema, certificates and time limits of one's own.
    pub fn builder() -> PostgresBuilder {
        PostgresBuilder::new()
    }

    /// Connects to a database by its URL and brings the tables up to date, as
    /// [`PostgresBuilder::connect`] does with its defaults.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has created all of the tables or none.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder().connect(url).await
    }

    /// Uses the application's own pool and brings the tables up to date, as [`PostgresBuilder::with_pool`] does
    /// with its defaults.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As [`connect`](Self::connect).
    pub async fn with_pool(pool: Pool) -> Result<Self, StoreError> {
        Self::builder().with_pool(pool).await
    }

    /// Brings the tables up to date: what [`connect`](Self::connect) does already, for a step of a deployment to call
    /// by its name.
    ///
    /// Repeatable, and safe where many processes do it at once: one works, the others wait for it.
    ///
    /// # Errors
    ///
    /// As [`PostgresBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// All steps are one transaction.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        schema::migrate(self.database()).await
    }

    fn new(database: Database, listening: Option<Arc<Listening>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                database,
                listening,
                hints: Hints::default(),
            }),
        }
    }

    fn database(&self) -> &Database {
        &self.inner.database
    }

    /// There is something to do, for whoever listens.
    async fn tell(&self) {
        self.inner.hints.tell(self.database()).await;
    }

    fn heard(&self) -> Changes {
        match &self.inner.listening {
            Some(listening) => {
                let channel = self.database().schema.channel();
                Changes::new(Heard::new(listening, channel))
            }
            None => Changes::none(),
        }
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("schema", &self.database().schema.name())
            .finish_non_exhaustive()
    }
}
