//! A database with orders, and browsers of the customers.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;
use tower_web_push::WebPush;
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::engine::Registration;
use tower_web_push::store::{PostgresStore, SqliteStore};
use tower_web_push_outbox::{Order, postgres, sqlite};

use super::program::Process;
use super::push_service::{PushService, Told};
use super::servers::{Kind, Server};

/// Long enough for debug builds, several processes and a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const CUSTOMERS: usize = 10;

pub(crate) struct World {
    pub(crate) database: Database,
    pub(crate) push_service: PushService,
}

pub(crate) enum Database {
    Postgres(Box<Server>),
    /// A file of the application.
    Sqlite(TempDir),
}

impl World {
    /// Returns `None`, with a message, if PostgreSQL is not installed.
    pub(crate) async fn on_postgres() -> Option<Self> {
        let server = Server::start(Kind::Postgres, &[]).await?;
        let store = PostgresStore::connect(&server.url()).await.unwrap();
        let push_service = customers(builder().store(store)).await;
        let database = Database::Postgres(Box::new(server));
        database.execute(postgres::ORDERS).await;
        Some(Self {
            database,
            push_service,
        })
    }

    pub(crate) async fn on_sqlite() -> Self {
        let database = Database::Sqlite(tempfile::tempdir().unwrap());
        database.execute("PRAGMA journal_mode = wal").await;
        database.execute(sqlite::ORDERS).await;
        let store = SqliteStore::open_in(database.file(), "web_push_")
            .await
            .unwrap();
        let push_service = customers(builder().store(store.clone())).await;
        store.close().await.unwrap();
        Self {
            database,
            push_service,
        }
    }

    pub(crate) fn url(&self) -> String {
        match &self.database {
            Database::Postgres(server) => server.url(),
            Database::Sqlite(_) => format!("sqlite://{}", self.database.file().display()),
        }
    }

    /// Starts a process that sends.
    pub(crate) fn worker(&self) -> Process {
        Process::start(&["worker", &self.url()])
    }

    /// Starts an application that ships every order.
    pub(crate) fn shop(&self) -> Process {
        Process::start(&["ship", &self.url()])
    }

    /// Takes this number of orders, of which each second one is paid: those with odd numbers.
    pub(crate) async fn take_orders(&self, number: usize) -> Vec<Order> {
        let order = |id: i64| Order {
            id,
            customer: format!("customer-{}", id % CUSTOMERS as i64),
        };
        let orders: Vec<_> = (1..=number as i64).map(order).collect();
        let row = |Order { id, customer }: &Order| format!("({id}, '{customer}', {})", id % 2 == 1);
        let rows: Vec<_> = orders.iter().map(row).collect();
        let insert = format!(
            "INSERT INTO orders (id, customer, is_paid) VALUES {}",
            rows.join(", ")
        );
        self.database.execute(&insert).await;
        orders
    }

    /// Waits until the outbox is empty and everything in the queue has been sent.
    pub(crate) async fn all_sent(&self) {
        let open = match self.database {
            Database::Postgres(_) => {
                "SELECT (SELECT count(*) FROM web_push.outbox) + (SELECT count(*) FROM web_push.delivery)"
            }
            Database::Sqlite(_) => {
                "SELECT (SELECT count(*) FROM web_push_outbox) + (SELECT count(*) FROM web_push_delivery)"
            }
        };
        until("everything is sent", async || {
            self.database.number(open).await == 0
        })
        .await;
    }

    /// Sends what is in the outbox, and compares the tags with those that are expected, in their order.
    pub(crate) async fn sends_exactly(&self, expected: &[&str]) {
        let worker = self.worker();
        self.push_service.wait_for(expected.len()).await;
        self.all_sent().await;
        assert_eq!(worker.terminate().await.code(), Some(0));
        let mut told: Vec<_> = self.told().into_iter().map(|told| told.tag).collect();
        told.sort_unstable();
        assert_eq!(told, expected);
    }

    /// Returns what each customer was told, and checks that no other was told.
    pub(crate) fn told(&self) -> Vec<Told> {
        let mut all = Vec::new();
        for (customer, told) in self.push_service.told().into_iter().enumerate() {
            for told in told {
                let order: usize = told.tag.strip_prefix("order-").unwrap().parse().unwrap();
                assert_eq!(order % CUSTOMERS, customer, "{told:?}");
                all.push(told);
            }
        }
        all.sort_by_key(|told| told.at);
        all
    }
}

/// Subscribes a browser for each customer.
async fn customers(builder: tower_web_push::WebPushBuilder) -> PushService {
    let push = builder.build().await.unwrap();
    let mut push_service = PushService::start().await;
    for customer in 0..CUSTOMERS {
        let subscription = push_service.subscribe(&push.vapid_public_key());
        let registration = Registration::new(subscription);
        let registration = registration.principal(format!("customer-{customer}"));
        push.subscribe(registration).await.unwrap();
    }
    push_service
}

fn builder() -> tower_web_push::WebPushBuilder {
    let policy = EndpointPolicy::insecure_allow_local();
    WebPush::builder("mailto:ops@example.com").endpoint_policy(policy)
}

impl Database {
    pub(crate) fn file(&self) -> PathBuf {
        match self {
            Self::Postgres(_) => panic!("it has no file"),
            Self::Sqlite(folder) => folder.path().join("shop.db"),
        }
    }

    /// Executes statements of the application, each in a transaction of its own unless they say otherwise.
    pub(crate) async fn execute(&self, statements: &str) {
        match self {
            Self::Postgres(server) => {
                connect(server)
                    .await
                    .batch_execute(statements)
                    .await
                    .unwrap();
            }
            Self::Sqlite(_) => self.connection().execute_batch(statements).unwrap(),
        }
    }

    /// Returns the number that a query results in.
    pub(crate) async fn number(&self, query: &str) -> i64 {
        match self {
            Self::Postgres(server) => {
                let row = connect(server).await.query_one(query, &[]).await;
                row.unwrap().get(0)
            }
            Self::Sqlite(_) => {
                let number = self.connection().query_row(query, [], |row| row.get(0));
                number.unwrap()
            }
        }
    }

    fn connection(&self) -> Connection {
        let connection = Connection::open(self.file()).unwrap();
        connection.busy_timeout(LIMIT).unwrap();
        connection
    }
}

async fn connect(server: &Server) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Polls until it is as wanted.
pub(crate) async fn until(what: &str, mut wanted: impl AsyncFnMut() -> bool) {
    let is_so = async {
        while !wanted().await {
            sleep(LOOK_AGAIN).await;
        }
    };
    assert!(timeout(LIMIT, is_so).await.is_ok(), "never: {what}");
}
