//! Schemas for tests, which are dropped with their guards, and sample values.

use std::thread;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, NoTls};
use tower_web_push::broadcast::Audience;
use tower_web_push::clock::Timestamp;
use tower_web_push::message::Message;
use tower_web_push::store::{
    ClaimRequest, Cursor, DeliveryLedger as _, NewBroadcast, NewDelivery, NewSubscription,
    PageWrite, PostgresBuilder, PostgresStore,
};
use tower_web_push::subscription::{EndpointKey, Origin, Subscription};
use tower_web_push::vapid::KeyId;

use crate::support::servers::{Kind, shared};

/// Long, for a slow machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A schema on the server that all tests share.
pub(crate) struct Schema {
    pub(crate) url: String,
    pub(crate) name: String,
    /// Whether it is in a database of its own, of the same name.
    is_alone: bool,
}

impl Schema {
    /// Returns `None` and reports it if there is no server.
    pub(crate) fn fresh() -> Option<Self> {
        let url = shared(Kind::Postgres)?;
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        Some(Self {
            url,
            name,
            is_alone: false,
        })
    }

    /// The same in a database of its own, whose figures no other test changes.
    pub(crate) async fn alone() -> Option<Self> {
        let mut schema = Self::fresh()?;
        let create = format!("CREATE DATABASE {}", schema.name);
        let shared = client(&schema.url).await;
        shared.batch_execute(&create).await.unwrap();
        let (server, _) = schema.url.rsplit_once('/').unwrap();
        schema.url = format!("{server}/{}", schema.name);
        schema.is_alone = true;
        Some(schema)
    }

    pub(crate) fn builder(&self) -> PostgresBuilder {
        // A hundred tests share a server with two hundred connections, so each has few.
        PostgresStore::builder().schema(&self.name).pool_size(4)
    }

    pub(crate) async fn store(&self) -> PostgresStore {
        self.builder().connect(&self.url).await.unwrap()
    }

    /// Runs SQL beside the store.
    pub(crate) async fn run(&self, sql: &str) {
        let sql = sql.replace("web_push.", &format!("{}.", self.name));
        client(&self.url).await.batch_execute(&sql).await.unwrap();
    }

    /// Queries one number.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let sql = sql.replace("web_push.", &format!("{}.", self.name));
        let row = client(&self.url).await.query_one(&sql, &[]).await.unwrap();
        row.get(0)
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let name = &self.name;
        let (url, sql) = match self.is_alone {
            true => (
                shared(Kind::Postgres).unwrap_or_default(),
                format!("DROP DATABASE {name} WITH (FORCE)"),
            ),
            false => (
                self.url.clone(),
                format!("DROP SCHEMA IF EXISTS \"{name}\" CASCADE"),
            ),
        };
        // A runtime of its own, since this one may be about to end.
        let dropped = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                client(&url).await.batch_execute(&sql).await.unwrap();
            });
        });
        // An earlier panic is the one to report.
        let _ = dropped.join();
    }
}

/// The URL of a schema, whose connections have its name.
pub(crate) fn named(schema: &Schema) -> String {
    format!("{}?application_name={}", schema.url, schema.name)
}

pub(crate) async fn client(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Repeats a call until it succeeds.
pub(crate) async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < LIMIT, "it takes too long");
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + secs)
}

pub(crate) fn subscription(number: u32) -> NewSubscription {
    let json = serde_json::json!({
        "endpoint": format!("https://push.example.net/{number}"),
        "keys": {
            "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            "auth": "BTBZMqHH6r4Tts7J_aSIgg",
        },
    });
    let subscription = Subscription::from_value(&json).unwrap();
    NewSubscription::new(subscription, KeyId::from_bytes([1; KeyId::LEN]))
}

pub(crate) fn delivery(number: u32, origin: u32) -> NewDelivery {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    let origin = Origin::parse(&format!("https://push{origin}.example.net")).unwrap();
    NewDelivery::new(EndpointKey::from_bytes(key), origin)
}

pub(crate) fn broadcast() -> NewBroadcast {
    NewBroadcast::new(Audience::All, Message::new("secret words"), at(9999))
}

/// Opens and expands a broadcast to this many recipients.
pub(crate) async fn sending(store: &PostgresStore, recipients: u32) -> NewBroadcast {
    let new = broadcast();
    store.open(&new, at(0)).await.unwrap();
    let rows: Vec<_> = (0..recipients).map(|number| delivery(number, 0)).collect();
    let written = store
        .enqueue_page(new.id, &Cursor::Start, &rows, &Cursor::End, at(0))
        .await
        .unwrap();
    assert_eq!(written, PageWrite::Stored);
    new
}

pub(crate) fn claim_of(limit: usize) -> ClaimRequest {
    ClaimRequest::new(limit, Duration::from_secs(45))
}
