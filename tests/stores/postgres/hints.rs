//! Hints from one handle are received by another, and nothing depends on them.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Either, join3, select};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::NoTls;
use tokio_postgres::types::ToSql;
use tower_web_push::WebPush;
use tower_web_push::broadcast::{Audience, Broadcast, BroadcastState, OutboxDialect};
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::message::Message;
use tower_web_push::schedule::{DailyTime, Plan, Schedule, ScheduleLabel};
use tower_web_push::store::deadpool_postgres::{Manager, Pool};
use tower_web_push::store::{
    Changes, DeliveryLedger as _, Fired, Firing, Idempotency, NewBroadcast, NewSubscription,
    Opened, OutboxRefusal, OutboxSettlement, PostgresStore, ScheduleStore as _, StoreErrorKind,
    SubscriptionLimits, SubscriptionStore as _,
};
use tower_web_push::testing::TestPushService;
use tower_web_push::vapid::KeyId;

use super::world::{LIMIT, Schema, at, broadcast, claim_of, client, sending, until};
use crate::support::servers::{Kind, Server};

async fn heard(changes: &mut Changes) {
    timeout(LIMIT, changes.next()).await.expect("no hint came");
}

/// The hints so far are read, and there is none for a while.
async fn unheard(changes: &mut Changes) {
    let another = timeout(Duration::from_millis(300), changes.next());
    another.await.expect_err("a hint for nothing");
}

#[tokio::test]
async fn what_is_opened_or_given_back_elsewhere_is_heard() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let (here, there) = (schema.store().await, schema.store().await);
    let mut changes = there.changes();
    // The first hint means that it listens.
    heard(&mut changes).await;
    assert!(changes.next().now_or_never().is_none());
    sending(&here, 2).await;
    heard(&mut changes).await;
    let claimed = here.claim(&claim_of(1), at(0)).await.unwrap().rows;
    let tokens: Vec<_> = claimed.iter().map(|row| row.token).collect();
    here.release(&tokens, at(0)).await.unwrap();
    heard(&mut changes).await;
    // Several pending hints count as one.
    for _ in 0..20 {
        here.open(&broadcast(), at(0)).await.unwrap();
    }
    heard(&mut changes).await;
}

/// Pausing is no work for others. Letting go on is.
#[tokio::test]
async fn what_goes_on_elsewhere_is_heard() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let (here, there) = (schema.store().await, schema.store().await);
    let mut changes = there.changes();
    heard(&mut changes).await;
    let id = sending(&here, 2).await.id;
    heard(&mut changes).await;
    unheard(&mut changes).await;
    here.hold(id, true, at(0)).await.unwrap();
    unheard(&mut changes).await;
    here.hold(id, false, at(0)).await.unwrap();
    heard(&mut changes).await;
}

/// A schedule that is new, and one that has fired: a broadcast was opened.
#[tokio::test]
async fn what_is_scheduled_or_fired_elsewhere_is_heard() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let (here, there) = (schema.store().await, schema.store().await);
    let mut changes = there.changes();
    heard(&mut changes).await;
    let plan = Plan::Application {
        label: ScheduleLabel::parse("digest").unwrap(),
        to: Audience::All,
        message: Message::new("x"),
    };
    let schedule = Schedule::new(plan, DailyTime::new(9, 0).unwrap(), at(60));
    here.put_schedule(&schedule).await.unwrap();
    heard(&mut changes).await;
    unheard(&mut changes).await;
    let firing = Firing::new(&schedule, at(86_460), Some(broadcast()));
    let fired = here.fire(&[firing], at(60)).await.unwrap();
    assert_eq!(fired, [Fired::Fired]);
    heard(&mut changes).await;
}

/// An entry that was refused waits again.
#[tokio::test]
async fn what_is_retried_elsewhere_is_heard() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let (here, there) = (schema.store().await, schema.store().await);
    let mut changes = there.changes();
    heard(&mut changes).await;
    let message = r#"{"payload":"x"}"#;
    let entry = OutboxDialect::Postgres {
        schema: &schema.name,
    };
    let entry = Broadcast::to(Audience::All, Message::without_payload()).outbox_statement(entry);
    let application = client(&schema.url).await;
    let opts = r#"{"notify":true}"#;
    let values: [&(dyn ToSql + Sync); 3] = [&"\"all\"", &message, &opts];
    application.query_one(&entry.sql, &values).await.unwrap();
    heard(&mut changes).await;
    let seq = here.outbox(1).await.unwrap()[0].seq;
    let refusal = OutboxRefusal::new("missing_content", "a title or a payload");
    let refused = [(seq, OutboxSettlement::Refuse(refusal))];
    here.settle_outbox(&refused, at(0)).await.unwrap();
    unheard(&mut changes).await;
    assert!(here.retry_outbox(seq).await.unwrap());
    heard(&mut changes).await;
}

/// The worker of the process that opens does not wait for the notification, nor needs one.
#[tokio::test]
async fn what_is_opened_here_is_heard_without_a_connection_that_listens() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let manager = Manager::new(schema.url.parse().unwrap(), NoTls);
    let pool = Pool::builder(manager).max_size(1).build().unwrap();
    let store = schema.builder().with_pool(pool.clone()).await.unwrap();
    let mut changes = store.changes();
    assert!(changes.next().now_or_never().is_none());
    let new = with_key();
    let mut opening = store.open(&new, at(0));
    // The connection is withheld when it is opened, so that the call cannot notify.
    assert!((&mut opening).now_or_never().is_none());
    let mut taken = Box::pin(pool.get());
    assert!((&mut taken).now_or_never().is_none());
    let taken = match select(taken, &mut opening).await {
        Either::Left((taken, _)) => taken.unwrap(),
        Either::Right(_) => panic!("it told without a connection"),
    };
    assert!((&mut opening).now_or_never().is_none());
    assert!(changes.next().now_or_never().is_some());
    assert!(changes.next().now_or_never().is_none());
    drop(taken);
    assert_eq!(opening.await.unwrap(), Opened::New);
}

/// It goes alone: without a key it would be opened by a task, together with others.
fn with_key() -> NewBroadcast {
    let mut new = broadcast();
    new.idempotency = Some(Idempotency::new(new.id.to_string(), [1; 32]));
    new
}

/// One of several concurrent calls notifies for all. Another one does if that call is dropped.
#[tokio::test]
async fn what_one_would_have_told_for_another_is_told_though_it_was_dropped() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let manager = Manager::new(schema.url.parse().unwrap(), NoTls);
    let pool = Pool::builder(manager).max_size(1).build().unwrap();
    let builder = schema.builder().listen(&schema.url);
    let store = builder.with_pool(pool.clone()).await.unwrap();
    // In another process: the workers of this one are told without a notification.
    let mut changes = schema.store().await.changes();
    heard(&mut changes).await;
    let [first, second, third] = [(); 3].map(|()| with_key());
    let mut first = store.open(&first, at(0));
    let mut second = store.open(&second, at(0));
    let mut third = store.open(&third, at(0));
    // They get the only connection in this order. Then it is withheld, so that the first call cannot notify.
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    assert!((&mut third).now_or_never().is_none());
    let mut taken = Box::pin(pool.get());
    assert!((&mut taken).now_or_never().is_none());
    let opening = join3(&mut first, &mut second, &mut third);
    let taken = match select(taken, opening).await {
        Either::Left((taken, _)) => taken.unwrap(),
        Either::Right(_) => panic!("they told without a connection"),
    };
    assert!(changes.next().now_or_never().is_none());
    drop(first);
    // It would notify for the third.
    assert!((&mut second).now_or_never().is_none());
    drop(second);
    drop(taken);
    assert_eq!(third.await.unwrap(), Opened::New);
    heard(&mut changes).await;
}

/// The statement of a call without an idempotency key is another task's, which goes on.
#[tokio::test]
async fn what_a_call_opens_that_was_dropped_meanwhile_is_heard() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let (here, there) = (schema.store().await, schema.store().await);
    let (mut own, mut others) = (here.changes(), there.changes());
    for changes in [&mut own, &mut others] {
        heard(changes).await;
        unheard(changes).await;
    }
    schema
        .run(
            "CREATE TABLE web_push.gate (open boolean); \
             CREATE FUNCTION web_push.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             WHILE NOT EXISTS (SELECT FROM web_push.gate) LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN NEW; END $$; \
             CREATE TRIGGER wait BEFORE INSERT ON web_push.content FOR EACH ROW EXECUTE FUNCTION web_push.wait()",
        )
        .await;
    let is_sent = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%\"{}\"%'",
        schema.name
    );
    let new = broadcast();
    let sent = until(async || (schema.number(&is_sent).await > 0).then_some(()));
    match select(here.open(&new, at(0)), Box::pin(sent)).await {
        Either::Left((opened, _)) => panic!("{opened:?}"),
        Either::Right(((), opening)) => drop(opening),
    }
    unheard(&mut others).await;
    schema.run("INSERT INTO web_push.gate VALUES (true)").await;
    heard(&mut others).await;
    heard(&mut own).await;
    assert!(here.status(new.id, at(1)).await.unwrap().is_some());
}

/// A server that refuses LISTEN, such as a pooler, is asked again with pauses.
#[tokio::test]
async fn a_listener_that_is_sent_away_at_once_comes_back_a_little_later() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let mut changes = store.changes();
    let (url, name) = (schema.url.clone(), schema.name.clone());
    let sending_away = tokio::spawn(async move {
        let server = client(&url).await;
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE state = 'idle' AND query = 'LISTEN \"{name}_changes\"'"
        );
        loop {
            server.batch_execute(&end).await.unwrap();
            sleep(Duration::from_millis(5)).await;
        }
    });
    let started = Instant::now();
    for _ in 0..3 {
        heard(&mut changes).await;
    }
    assert!(started.elapsed() >= Duration::from_secs(1));
    sending_away.abort();
}

#[tokio::test]
async fn another_schemas_news_are_not_heard() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let Some(other) = Schema::fresh() else { return };
    let (here, there) = (schema.store().await, other.store().await);
    let mut changes = other.store().await.changes();
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
    // Hints may have been missed meanwhile.
    heard(&mut changes).await;
    store.open(&broadcast(), at(0)).await.unwrap();
    heard(&mut changes).await;
}

/// One process accepts, and another delivers at once although its next poll is an hour away.
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
