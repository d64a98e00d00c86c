//! An application with a pool of each driver, as no application has, for the tests and the program.

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Manager, Pool as Deadpool};
use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use diesel_async::pooled_connection::deadpool::Pool as DieselPool;
use rusqlite::Connection as Rusqlite;
use sea_orm::{ConnectOptions, Database, DatabaseConnection};
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{PgPool, SqlitePool};
use tokio::task::spawn_blocking;
use tokio_postgres::NoTls;

use crate::{Error, Order, postgres, sqlite};

/// The connections of a driver, each with four of them.
const CONNECTIONS: u32 = 4;
/// How long a writer waits for another one. SQLite lets in one at a time.
const BUSY: Duration = Duration::from_secs(5);

/// The application's connections, by one driver.
#[derive(Clone)]
pub enum Shop {
    /// deadpool with tokio-postgres.
    PostgresDeadpool(Deadpool),
    /// Diesel with diesel-async.
    PostgresDiesel(DieselPool<AsyncPgConnection>),
    /// SeaORM.
    PostgresSeaOrm(DatabaseConnection),
    /// sqlx.
    PostgresSqlx(PgPool),
    /// Diesel.
    SqliteDiesel(Arc<Mutex<SqliteConnection>>),
    /// rusqlite.
    SqliteRusqlite(Arc<Mutex<Rusqlite>>),
    /// SeaORM.
    SqliteSeaOrm(DatabaseConnection),
    /// sqlx.
    SqliteSqlx(SqlitePool),
}

impl Shop {
    /// Opens a database by each driver: `postgres://…` or `sqlite://FILE`.
    pub async fn open_by_each_driver(url: &str) -> Result<[Self; 4], Error> {
        match url.strip_prefix("sqlite://") {
            Some(file) => Self::sqlite(url, file).await,
            None => Self::postgres(url).await,
        }
    }

    async fn postgres(url: &str) -> Result<[Self; 4], Error> {
        let manager = Manager::new(url.parse()?, NoTls);
        let deadpool = Deadpool::builder(manager).max_size(CONNECTIONS as usize);
        let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url);
        let diesel = DieselPool::builder(manager).max_size(CONNECTIONS as usize);
        let sqlx = PgPoolOptions::new().max_connections(CONNECTIONS);
        Ok([
            Self::PostgresDeadpool(deadpool.build()?),
            Self::PostgresDiesel(diesel.build()?),
            Self::PostgresSeaOrm(sea_orm(url).await?),
            Self::PostgresSqlx(sqlx.connect(url).await?),
        ])
    }

    async fn sqlite(url: &str, file: &str) -> Result<[Self; 4], Error> {
        let mut diesel = SqliteConnection::establish(file)?;
        diesel.batch_execute(&format!("PRAGMA busy_timeout = {}", BUSY.as_millis()))?;
        let rusqlite = Rusqlite::open(file)?;
        rusqlite.busy_timeout(BUSY)?;
        let options = SqliteConnectOptions::new()
            .filename(file)
            .busy_timeout(BUSY);
        let sqlx = SqlitePoolOptions::new().max_connections(CONNECTIONS);
        Ok([
            Self::SqliteDiesel(Arc::new(Mutex::new(diesel))),
            Self::SqliteRusqlite(Arc::new(Mutex::new(rusqlite))),
            Self::SqliteSeaOrm(sea_orm(url).await?),
            Self::SqliteSqlx(sqlx.connect_with(options).await?),
        ])
    }

    /// Ships an order and tells its customer, or does neither.
    pub async fn ship(&self, order: &Order) -> Result<(), Error> {
        match self {
            Self::PostgresDeadpool(pool) => postgres::with_deadpool::ship(pool, order).await,
            Self::PostgresDiesel(pool) => postgres::with_diesel::ship(pool, order).await,
            Self::PostgresSeaOrm(db) => postgres::with_sea_orm::ship(db, order).await,
            Self::PostgresSqlx(pool) => postgres::with_sqlx::ship(pool, order).await,
            Self::SqliteDiesel(connection) => {
                blocking(connection, order, sqlite::with_diesel::ship).await
            }
            Self::SqliteRusqlite(connection) => {
                blocking(connection, order, sqlite::with_rusqlite::ship).await
            }
            Self::SqliteSeaOrm(db) => sqlite::with_sea_orm::ship(db, order).await,
            Self::SqliteSqlx(pool) => sqlite::with_sqlx::ship(pool, order).await,
        }
    }
}

async fn sea_orm(url: &str) -> Result<DatabaseConnection, Error> {
    let mut options = ConnectOptions::new(url);
    options.max_connections(CONNECTIONS).sqlx_logging(false);
    Ok(Database::connect(options).await?)
}

/// Runs a driver that blocks beside the runtime.
async fn blocking<C: Send + 'static>(
    connection: &Arc<Mutex<C>>,
    order: &Order,
    ship: fn(&mut C, &Order) -> Result<(), Error>,
) -> Result<(), Error> {
    let (connection, order) = (Arc::clone(connection), order.clone());
    spawn_blocking(move || {
        let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
        ship(&mut connection, &order)
    })
    .await?
}

/// Whether the database has refused to ship an order: it is not paid.
pub fn is_refused(error: &Error) -> bool {
    let mut cause: Option<&dyn StdError> = Some(&**error);
    while let Some(error) = cause {
        if error.to_string().contains("only_paid_orders_are_shipped") {
            return true;
        }
        cause = error.source();
    }
    false
}

impl fmt::Debug for Shop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PostgresDeadpool(_) => "deadpool and tokio-postgres on PostgreSQL",
            Self::PostgresDiesel(_) => "Diesel on PostgreSQL",
            Self::PostgresSeaOrm(_) => "SeaORM on PostgreSQL",
            Self::PostgresSqlx(_) => "sqlx on PostgreSQL",
            Self::SqliteDiesel(_) => "Diesel on SQLite",
            Self::SqliteRusqlite(_) => "rusqlite",
            Self::SqliteSeaOrm(_) => "SeaORM on SQLite",
            Self::SqliteSqlx(_) => "sqlx on SQLite",
        })
    }
}
