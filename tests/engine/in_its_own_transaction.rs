//! An application that enqueues in transactions of its own, with the store in its SQLite file.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tower_web_push::broadcast::{BroadcastId, BroadcastState, OutboxDialect};
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::engine::RunError;
use tower_web_push::store::{
    DeliveryLedger as _, NewSubscription, SqliteStore, SubscriptionLimits, SubscriptionStore as _,
};
use tower_web_push::subscription::Origin;
use tower_web_push::testing::TestPushService;
use tower_web_push::vapid::KeyId;
use tower_web_push::{Audience, Broadcast, Notification, WebPush};

/// A shop with orders, and one customer who subscribed.
struct Shop {
    _folder: TempDir,
    path: PathBuf,
    store: SqliteStore,
    push: WebPush,
    service: TestPushService,
}

impl Shop {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.db");
        let conn = Connection::open(&path).unwrap();
        conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
            .unwrap();
        conn.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY, state TEXT)")
            .unwrap();
        let store = SqliteStore::open_in(&path, "web_push_").await.unwrap();
        let service = TestPushService::builder()
            .origin(Origin::parse("https://fcm.googleapis.com").unwrap())
            .build();
        let push = WebPush::builder("mailto:ops@example.com")
            .store(store.clone())
            .client(service.clone())
            .build()
            .await
            .unwrap();
        let key = push.vapid_public_key();
        let subscription = service.user_agent().subscribe(&key).unwrap();
        let mut new = NewSubscription::new(subscription, KeyId::of(&key));
        new.principal = Some("alice".into());
        let limits = SubscriptionLimits::default();
        store
            .upsert(&new, &limits, SystemClock::new().now())
            .await
            .unwrap();
        Self {
            _folder: folder,
            path,
            store,
            push,
            service,
        }
    }

    fn connect(&self) -> Connection {
        let conn = Connection::open(&self.path).unwrap();
        conn.busy_timeout(Duration::from_secs(10)).unwrap();
        conn
    }

    fn run(&self) -> (oneshot::Sender<()>, JoinHandle<Result<(), RunError>>) {
        let (stop, stopped) = oneshot::channel::<()>();
        let running = self.push.run(async { stopped.await.unwrap_or_default() });
        (stop, tokio::spawn(running))
    }

    async fn done(&self, id: BroadcastId) {
        loop {
            let status = self.push.status(id).await.unwrap();
            if let Some(status) = status.filter(|status| status.state == BroadcastState::Done) {
                assert_eq!(status.counts.accepted, 1, "{status:?}");
                return;
            }
            sleep(Duration::from_millis(2)).await;
        }
    }
}

fn shipped(number: i64) -> Broadcast {
    let message = Notification::new("Shipped").body(format!("order {number}"));
    Broadcast::to(Audience::user("alice"), message)
}

#[tokio::test]
async fn what_commits_is_sent_and_what_is_rolled_back_is_not() {
    let shop = Shop::new().await;
    let (stop, running) = shop.run();
    let mut conn = shop.connect();
    let order = "INSERT INTO orders (state) VALUES ('shipped')";
    let mut committed = Vec::new();
    for number in 0..10 {
        let transaction = conn.transaction().unwrap();
        transaction.execute(order, []).unwrap();
        let id = shop
            .store
            .enqueue_in(&transaction, &shipped(number))
            .unwrap();
        if number % 2 == 0 {
            transaction.commit().unwrap();
            committed.push(id);
        } else {
            transaction.rollback().unwrap();
        }
    }
    // As any other driver does.
    let statement = shipped(10).outbox_statement(OutboxDialect::SQLITE);
    conn.execute(&statement.sql, statement.parameters.each_ref())
        .unwrap();
    // Once more, as after a commit whose answer was lost: it is sent once.
    conn.execute(&statement.sql, statement.parameters.each_ref())
        .unwrap();
    committed.push(statement.id);
    for id in &committed {
        shop.done(*id).await;
    }
    while shop.store.outbox_stats().await.unwrap().waiting > 0 {
        sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(shop.service.accepted().len(), committed.len());
    drop(stop);
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_row_that_cannot_be_sent_is_kept_and_delays_no_other() {
    let shop = Shop::new().await;
    let (stop, running) = shop.run();
    let conn = shop.connect();
    let insert = "INSERT INTO web_push_outbox (audience, message) VALUES (?, ?)";
    let mut ids = Vec::new();
    for number in 0..100 {
        if number == 40 {
            conn.execute(insert, ["{\"user\":\"alice\"}", "{\"titel\":\"Shipped\"}"])
                .unwrap();
        } else {
            let statement = shipped(number).outbox_statement(OutboxDialect::SQLITE);
            conn.execute(&statement.sql, statement.parameters.each_ref())
                .unwrap();
            ids.push(statement.id);
        }
    }
    for id in ids {
        shop.done(id).await;
    }
    let refused = loop {
        let refused = shop.push.refused_outbox(9).await.unwrap();
        if !refused.is_empty() {
            break refused;
        }
        sleep(Duration::from_millis(2)).await;
    };
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].refusal.code, "missing_content");
    assert!(shop.push.drop_outbox(refused[0].entry.seq).await.unwrap());
    drop(stop);
    running.await.unwrap().unwrap();
}
