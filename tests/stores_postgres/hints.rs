//! What is given to the ledger on one machine is heard on another, and nothing depends on it.

use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::timeout;
use tower_web_push::WebPush;
use tower_web_push::broadcast::{Audience, BroadcastState};
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::message::Message;
use tower_web_push::store::{
    Changes, DeliveryLedger as _, NewSubscription, PostgresStore, StoreErrorKind,
    SubscriptionLimits, SubscriptionStore as _,
};
use tower_web_push::testing::TestPushService;
use tower_web_push::vapid::KeyId;

use crate::servers::{Kind, Server};
use crate::world::{LIMIT, Schema, at, broadcast, claim_of, sending, until};

async fn heard(changes: &mut Changes) {
    timeout(LIMIT, changes.next()).await.expect("no hint came");
}

#[tokio::test]
async fn what_is_opened_or_given_back_elsewhere_is_heard() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let (here, there) = (schema.store().await, schema.store().await);
    let mut changes = there.changes();
    // The first says that it listens now.
    heard(&mut changes).await;
    assert!(changes.next().now_or_never().is_none());
    sending(&here, 2).await;
    heard(&mut changes).await;
    let claimed = here.claim(&claim_of(1), at(0)).await.unwrap().rows;
    let tokens: Vec<_> = claimed.iter().map(|row| row.token).collect();
    here.release(&tokens, at(0)).await.unwrap();
    heard(&mut changes).await;
    // Many that come together are few.
    for _ in 0..20 {
        here.open(&broadcast(), at(0)).await.unwrap();
    }
    heard(&mut changes).await;
}

#[tokio::test]
async fn another_schemas_news_are_not_heard() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let Some(other) = Schema::fresh() else { return };
    let (here, there) = (schema.store().await, other.store().await);
    let mut changes = there.changes();
    heard(&mut changes).await;
    here.open(&broadcast(), at(0)).await.unwrap();
    there.open(&broadcast(), at(0)).await.unwrap();
    heard(&mut changes).await;
    assert!(changes.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_listener_connects_again_by_itself() {
    let Some(mut server) = Server::start(Kind::Postgres, &[]).await else {
        return;
    };
    let builder = PostgresStore::builder().pool_size(2);
    let store = until(async || builder.clone().connect(&server.url()).await.ok()).await;
    let mut changes = store.changes();
    heard(&mut changes).await;
    server.kill().await;
    let opened = store.open(&broadcast(), at(0)).await;
    assert_eq!(opened.unwrap_err().kind(), StoreErrorKind::Unavailable);
    assert!(changes.next().now_or_never().is_none());
    server.start_again().await;
    // Something may have come while nobody listened.
    heard(&mut changes).await;
    store.open(&broadcast(), at(0)).await.unwrap();
    heard(&mut changes).await;
}

/// One process accepts, another delivers: at once, though its next look is an hour away.
#[tokio::test]
async fn a_worker_elsewhere_begins_at_once() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let service = TestPushService::new();
    let replica = async || {
        let builder = WebPush::builder("mailto:ops@example.com")
            .store(schema.store().await)
            .client(service.clone())
            .endpoint_policy(EndpointPolicy::public_hosts())
            .poll_interval(Duration::from_secs(3600));
        builder.build().await.unwrap()
    };
    let (front, back) = (replica().await, replica().await);
    let browser = service.user_agent();
    let subscription = browser.subscribe(&front.vapid_public_key()).unwrap();
    let new = NewSubscription::new(subscription, KeyId::of(&front.vapid_public_key()));
    let limits = SubscriptionLimits::default();
    let table = schema.store().await;
    let now = SystemClock::new().now();
    table.upsert(&new, &limits, now).await.unwrap();

    let running = tokio::spawn(back.run(std::future::pending()));
    let listens = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN \"{}_changes\"'",
        schema.name
    );
    until(async || (schema.number(&listens).await == 1).then_some(())).await;
    let queued = front
        .enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    let message = timeout(LIMIT, browser.next())
        .await
        .expect("nobody sent it");
    assert_eq!(message.text(), Some("x"));
    until(async || {
        let status = front.status(queued.broadcast).await.unwrap().unwrap();
        (status.state == BroadcastState::Done).then_some(())
    })
    .await;
    running.abort();
}
