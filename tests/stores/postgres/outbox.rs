//! The outbox: what applications enqueue in transactions of their own.

use std::future::{pending, poll_fn};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, GenericClient, NoTls};
use tower::ServiceExt as _;
use tower_web_push::WebPush;
use tower_web_push::api::{AdminCredentials, ApiSettings};
use tower_web_push::broadcast::{Audience, Broadcast, BroadcastId, BroadcastState, OutboxDialect};
use tower_web_push::clock::{Clock, SystemClock};
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::message::{Message, Notification};
use tower_web_push::store::deadpool_postgres::{Manager, Pool};
use tower_web_push::store::{
    DeliveryLedger as _, NewBroadcast, NewSubscription, OutboxSettled, OutboxSettlement,
    OutboxStats, PostgresStore, StoreErrorKind, SubscriptionLimits, SubscriptionStore as _,
};
use tower_web_push::testing::{ManualClock, TestPushService, UserAgent};
use tower_web_push::vapid::KeyId;

use super::two_machines;
use super::world::{LIMIT, Schema, at, client, until};
use crate::support::servers::{Kind, Server, shared};

const ALICE: &str = r#"{"user":"alice"}"#;
const FUNCTION: &str = include_str!("../../../src/store/postgres/enqueue.sql");

/// Commits one entry to the outbox of a store.
async fn write(store: &PostgresStore, audience: &str, message: &str, opts: &str) {
    let description = store.description();
    let schema = description.split(' ').nth(2).unwrap();
    let client = client(&shared(Kind::Postgres).unwrap()).await;
    call(&client, schema, audience, message, opts)
        .await
        .unwrap();
}

/// Calls the function as any driver does. Returns the id.
async fn call(
    client: &(impl GenericClient + Sync),
    schema: &str,
    audience: &str,
    message: &str,
    opts: &str,
) -> Result<BroadcastId, Error> {
    let sql = OutboxDialect::Postgres { schema };
    let sql = Broadcast::to(Audience::All, Message::without_payload()).outbox_statement(sql);
    let row = client
        .query_one(&sql.sql, &[&audience, &message, &opts])
        .await?;
    Ok(row.get::<_, String>(0).parse().unwrap())
}

tower_web_push::outbox_conformance!(conformance, two_machines, write);

/// A store with a browser of alice, whose messages are sent by `tick` or `run`.
struct World {
    schema: Schema,
    store: PostgresStore,
    push: WebPush,
    service: TestPushService,
    browser: UserAgent,
}

impl World {
    async fn new() -> Option<Self> {
        Self::with_clock(SystemClock::new()).await
    }

    async fn with_clock(clock: impl Clock) -> Option<Self> {
        let schema = Schema::fresh()?;
        let store = schema.store().await;
        let service = TestPushService::new();
        let now = clock.now();
        let push = WebPush::builder("mailto:ops@example.com")
            .store(store.clone())
            .client(service.clone())
            .clock(clock)
            .endpoint_policy(EndpointPolicy::public_hosts())
            .build()
            .await
            .unwrap();
        let browser = service.user_agent();
        let key = push.vapid_public_key();
        let mut new = NewSubscription::new(browser.subscribe(&key).unwrap(), KeyId::of(&key));
        new.principal = Some("alice".into());
        let limits = SubscriptionLimits::default();
        store.upsert(&new, &limits, now).await.unwrap();
        Some(Self {
            schema,
            store,
            push,
            service,
            browser,
        })
    }

    async fn client(&self) -> Client {
        client(&self.schema.url).await
    }

    /// Enqueues a message to alice.
    async fn enqueue(
        &self,
        client: &(impl GenericClient + Sync),
        text: &str,
        opts: &str,
    ) -> Result<BroadcastId, Error> {
        let message = format!(r#"{{"payload":"{text}"}}"#);
        call(client, &self.schema.name, ALICE, &message, opts).await
    }

    /// What alice has received since the last call.
    async fn received(&self) -> Vec<String> {
        while !self.push.tick().await.unwrap().is_idle() {}
        let mut texts = Vec::new();
        while let Some(received) = self.browser.try_next() {
            texts.push(received.json::<String>().unwrap());
        }
        texts.sort_unstable();
        texts
    }
}

#[tokio::test]
async fn what_is_committed_is_sent_and_what_is_rolled_back_is_not() {
    let Some(world) = World::new().await else {
        return;
    };
    let mut client = world.client().await;
    let transaction = client.transaction().await.unwrap();
    world.enqueue(&transaction, "undone", "{}").await.unwrap();
    assert_eq!(world.received().await, [""; 0]);
    transaction.rollback().await.unwrap();
    let mut transaction = client.transaction().await.unwrap();
    let id = world.enqueue(&transaction, "one", "{}").await.unwrap();
    let savepoint = transaction.transaction().await.unwrap();
    world.enqueue(&savepoint, "undone", "{}").await.unwrap();
    savepoint.rollback().await.unwrap();
    // An error aborts no more than the savepoint.
    let savepoint = transaction.transaction().await.unwrap();
    let refused = world.enqueue(&savepoint, "two", r#"{"id":"x"}"#).await;
    assert!(refused.is_err());
    savepoint.rollback().await.unwrap();
    world.enqueue(&transaction, "three", "{}").await.unwrap();
    assert_eq!(world.push.status(id).await.unwrap(), None);
    transaction.commit().await.unwrap();
    assert_eq!(world.received().await, ["one", "three"]);
    let status = world.push.status(id).await.unwrap().unwrap();
    assert_eq!(status.state, BroadcastState::Done);
    assert_eq!((status.recipients, status.counts.accepted), (1, 1));
    let stats = world.store.outbox_stats().await.unwrap();
    assert_eq!(stats, OutboxStats::default());
}

#[tokio::test]
async fn a_transaction_that_commits_late_is_not_passed_over() {
    let Some(world) = World::new().await else {
        return;
    };
    let (mut late, mut early) = (world.client().await, world.client().await);
    let late = late.transaction().await.unwrap();
    world.enqueue(&late, "first", "{}").await.unwrap();
    let early = early.transaction().await.unwrap();
    world.enqueue(&early, "second", "{}").await.unwrap();
    early.commit().await.unwrap();
    assert_eq!(world.received().await, ["second"]);
    late.commit().await.unwrap();
    assert_eq!(world.received().await, ["first"]);
}

#[tokio::test]
async fn a_ttl_counts_from_the_commit_and_a_past_time_is_now() {
    // So that nothing expires while it is sent.
    let clock = ManualClock::new(SystemClock::new().now());
    let Some(world) = World::with_clock(clock.clone()).await else {
        return;
    };
    let mut client = world.client().await;
    let transaction = client.transaction().await.unwrap();
    let message = r#"{"payload":"short","ttl":1}"#;
    let schema = &world.schema.name;
    let id = call(&transaction, schema, ALICE, message, "{}")
        .await
        .unwrap();
    let past = r#"{"sendAt":"2001-01-01T00:00:00Z"}"#;
    let old = call(&transaction, schema, ALICE, message, past)
        .await
        .unwrap();
    clock.set(SystemClock::new().now() + Duration::from_secs(5));
    let before = clock.now();
    transaction.commit().await.unwrap();
    assert_eq!(world.received().await, ["short", "short"]);
    for id in [id, old] {
        let status = world.push.status(id).await.unwrap().unwrap();
        assert!(status.created_at >= before, "{status:?}");
        assert!(status.deadline > status.created_at, "{status:?}");
        assert_eq!(status.counts.accepted, 1);
        assert_eq!(status.send_at, None);
    }
    // One that is to be sent later waits.
    let later = r#"{"sendAt":"2999-01-01T00:00:00+00:00"}"#;
    world.enqueue(&client, "too far", later).await.unwrap();
    assert_eq!(world.received().await, [""; 0]);
    let refused = world.push.refused_outbox(9).await.unwrap();
    assert_eq!(refused[0].refusal.code, "send_at_too_far_ahead");
}

#[tokio::test]
async fn an_idempotency_key_keeps_no_transaction_waiting() {
    let Some(world) = World::new().await else {
        return;
    };
    let (mut first, mut second) = (world.client().await, world.client().await);
    let first = first.transaction().await.unwrap();
    let second = second.transaction().await.unwrap();
    let key = r#"{"idempotencyKey":"order-7"}"#;
    // Both are open.
    world.enqueue(&first, "shipped", key).await.unwrap();
    let both = world.enqueue(&second, "shipped", key);
    let id = timeout(LIMIT, both).await.expect("it waits").unwrap();
    first.rollback().await.unwrap();
    second.commit().await.unwrap();
    assert_eq!(world.received().await, ["shipped"]);
    let client = world.client().await;
    let again = world.enqueue(&client, "shipped", key).await.unwrap();
    assert_eq!(world.received().await, [""; 0]);
    assert!(world.push.status(id).await.unwrap().is_some());
    assert_eq!(world.push.status(again).await.unwrap(), None);
    // The id of the caller, after a commit whose answer was lost.
    let named = r#"{"id":"67e55044-10b1-426f-9247-bb680e5fe0c8"}"#;
    for _ in 0..2 {
        let id = world.enqueue(&client, "named", named).await.unwrap();
        assert_eq!(id.to_string(), "67e55044-10b1-426f-9247-bb680e5fe0c8");
    }
    assert_eq!(world.received().await, ["named"]);
    world.enqueue(&client, "named", named).await.unwrap();
    assert_eq!(world.received().await, [""; 0]);
    // Other content with the key.
    world.enqueue(&client, "lost", key).await.unwrap();
    assert_eq!(world.received().await, [""; 0]);
    let refused = world.push.refused_outbox(9).await.unwrap();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].refusal.code, "idempotency_conflict");
}

/// A broadcast from Rust is the same by both ways.
#[tokio::test]
async fn rust_enqueues_in_the_transaction_of_a_pool() {
    let Some(world) = World::new().await else {
        return;
    };
    let manager = Manager::new(world.schema.url.parse().unwrap(), NoTls);
    let pool = Pool::builder(manager).max_size(1).build().unwrap();
    let mut connection = pool.get().await.unwrap();
    let binary = Broadcast::to(Audience::user("alice"), Message::new(vec![0, 255, b'"']));
    let shipped = || {
        Broadcast::to(Audience::user("alice"), Notification::new("Shipped"))
            .idempotency_key("order-7")
    };
    let transaction = connection.transaction().await.unwrap();
    let undone = world.store.enqueue_in(&transaction, &binary).await.unwrap();
    transaction.rollback().await.unwrap();
    let transaction = connection.transaction().await.unwrap();
    let id = world.store.enqueue_in(&transaction, &binary).await.unwrap();
    let keyed = world.store.enqueue_in(&transaction, &shipped()).await;
    transaction.commit().await.unwrap();
    while !world.push.tick().await.unwrap().is_idle() {}
    let mut received = [world.browser.next().await, world.browser.next().await];
    received.sort_by_key(|message| message.data().unwrap().len());
    assert_eq!(received[0].data().unwrap().as_ref(), [0, 255, b'"']);
    assert!(received[1].text().unwrap().contains("Shipped"));
    assert!(world.browser.try_next().is_none());
    assert_eq!(world.push.status(undone).await.unwrap(), None);
    let status = world.push.status(id).await.unwrap().unwrap();
    assert_eq!(status.state, BroadcastState::Done);
    let queued = world.push.enqueue_broadcast(shipped()).await.unwrap();
    assert!(queued.is_repeat && queued.broadcast == keyed.unwrap());
    // What cannot be sent fails where it is written.
    let transaction = connection.transaction().await.unwrap();
    let large = Broadcast::to(Audience::All, Message::new("x".repeat(3994)));
    let error = world.store.enqueue_in(&transaction, &large).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(why, "payload_too_large (SQLSTATE WP400)");
    drop(transaction);
    let longest = Broadcast::to(Audience::All, Message::new("x".repeat(3993)));
    let transaction = connection.transaction().await.unwrap();
    world
        .store
        .enqueue_in(&transaction, &longest)
        .await
        .unwrap();
    // The schema is dropped while this runtime stands still.
    transaction.rollback().await.unwrap();
}

#[tokio::test]
async fn one_bad_entry_in_a_hundred_delays_none() {
    let Some(world) = World::new().await else {
        return;
    };
    let mut client = world.client().await;
    let transaction = client.transaction().await.unwrap();
    let bad = r#"{"payload":"bad","topic":"not a topic"}"#;
    let schema = &world.schema.name;
    let bad = call(&transaction, schema, ALICE, bad, "{}").await.unwrap();
    for number in 0..99 {
        let text = format!("{number}");
        world.enqueue(&transaction, &text, "{}").await.unwrap();
    }
    transaction.commit().await.unwrap();
    assert_eq!(world.received().await.len(), 99);
    let stats = world.store.outbox_stats().await.unwrap();
    assert_eq!(stats, OutboxStats::new(0, 1));
    let refused = world.push.refused_outbox(9).await.unwrap();
    let [refused] = &refused[..] else {
        panic!("{refused:?}")
    };
    assert_eq!(
        (refused.entry.id, &*refused.refusal.code),
        (bad, "invalid_topic")
    );
    assert!(refused.refusal.detail.starts_with("topic is not 1 to 32"));
    assert!(!format!("{refused:?}").contains("alice"));
    let credentials = AdminCredentials::new().with_bearer_token("an-admin-token");
    let settings = ApiSettings::new().authorizer(credentials.unwrap());
    let request = Request::get("/stats").header("authorization", "Bearer an-admin-token");
    let request = request.body(String::new()).unwrap();
    let service = world.push.service().with(settings);
    let answer = service.oneshot(request).await.unwrap().into_body();
    let answer = answer.collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["outbox"], json!({"waiting": 0, "refused": 1}));
    // The operator corrects it.
    let seq = refused.entry.seq;
    let correct = "UPDATE web_push.outbox_refused SET message = message - 'topic'";
    world.schema.run(correct).await;
    assert!(world.push.retry_outbox(seq).await.unwrap());
    assert_eq!(world.received().await, ["bad"]);
    let status = world.push.status(bad).await.unwrap().unwrap();
    assert_eq!(status.counts.accepted, 1);
    assert!(!world.push.drop_outbox(seq).await.unwrap());
    assert_eq!(world.push.refused_outbox(9).await.unwrap(), []);
}

/// The store refuses one of the broadcasts of a batch, and takes it later.
#[tokio::test]
async fn one_that_cannot_be_stored_delays_none_and_is_not_lost() {
    let Some(world) = World::new().await else {
        return;
    };
    world
        .schema
        .run(
            "CREATE FUNCTION web_push.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF NEW.idempotency_key = 'bad' THEN RAISE SQLSTATE '22023'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON web_push.broadcast FOR EACH ROW \
             EXECUTE FUNCTION web_push.refuse()",
        )
        .await;
    let client = world.client().await;
    let key = r#"{"idempotencyKey":"bad"}"#;
    world.enqueue(&client, "bad", key).await.unwrap();
    for text in ["one", "two"] {
        world.enqueue(&client, text, "{}").await.unwrap();
    }
    assert_eq!(world.received().await, ["one", "two"]);
    let stats = world.store.outbox_stats().await.unwrap();
    assert_eq!(stats, OutboxStats::new(1, 0));
    world
        .schema
        .run("DROP TRIGGER refuse ON web_push.broadcast")
        .await;
    until(async || (world.received().await == ["bad"]).then_some(())).await;
}

#[tokio::test]
async fn a_thousand_calls_in_one_transaction_are_a_thousand_messages() {
    let Some(world) = World::new().await else {
        return;
    };
    world
        .schema
        .run(
            "DO $$ BEGIN FOR i IN 1..1000 LOOP PERFORM web_push.enqueue('{\"user\":\"alice\"}', \
             jsonb_build_object('payload', i::text)); END LOOP; END $$",
        )
        .await;
    let received = world.received().await;
    assert_eq!(received.len(), 1000);
    let mut numbers: Vec<u32> = received.iter().map(|text| text.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=1000));
    assert_eq!(world.service.counts().accepted, 1000);
}

/// Two workers share an outbox; each entry is one broadcast.
#[tokio::test]
async fn workers_that_run_share_an_outbox() {
    let Some(world) = World::new().await else {
        return;
    };
    let other = WebPush::builder("mailto:ops@example.com")
        .store(world.schema.store().await)
        .client(world.service.clone())
        .endpoint_policy(EndpointPolicy::public_hosts())
        .build()
        .await
        .unwrap();
    let workers = [&world.push, &other].map(|push| tokio::spawn(push.run(pending())));
    let client = world.client().await;
    for number in 0..50 {
        // Without a hint: the workers look by themselves.
        let text = format!("{number}");
        world.enqueue(&client, &text, "{}").await.unwrap();
    }
    world.schema.run(
        "DO $$ BEGIN FOR i IN 1..300 LOOP PERFORM web_push.enqueue('{\"user\":\"alice\"}', '{\"payload\":\"x\"}'); \
         END LOOP; END $$",
    )
    .await;
    let all = world.service.wait_until(|counts| counts.accepted >= 350);
    timeout(LIMIT, all).await.expect("some are lost");
    let open = "SELECT count(*) FROM web_push.broadcast";
    assert_eq!(world.schema.number(open).await, 350);
    until(async || {
        let stats = world.store.outbox_stats().await.unwrap();
        (stats == OutboxStats::default()).then_some(())
    })
    .await;
    assert_eq!(world.service.counts().accepted, 350);
    for worker in workers {
        worker.abort();
    }
}

/// A store whose outbox cannot be read sends what was accepted otherwise.
#[tokio::test]
async fn an_outbox_that_cannot_be_read_stops_nothing_else() {
    let Some(world) = World::new().await else {
        return;
    };
    let client = world.client().await;
    world.enqueue(&client, "entry", "{}").await.unwrap();
    let hide = "ALTER TABLE web_push.outbox RENAME COLUMN opts TO hidden";
    world.schema.run(hide).await;
    let worker = tokio::spawn(world.push.run(pending()));
    let message = Message::new("\"direct\"");
    world
        .push
        .enqueue(Audience::user("alice"), message)
        .await
        .unwrap();
    let received = timeout(LIMIT, world.browser.next()).await.unwrap();
    assert_eq!(received.json::<String>().unwrap(), "direct");
    let show = "ALTER TABLE web_push.outbox RENAME COLUMN hidden TO opts";
    world.schema.run(show).await;
    let received = timeout(LIMIT, world.browser.next()).await.unwrap();
    assert_eq!(received.json::<String>().unwrap(), "entry");
    worker.abort();
}

/// Dropped at each point of a settlement, an entry waits or is a broadcast.
#[tokio::test]
async fn an_entry_is_settled_as_a_whole_or_not_at_all() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let new = || {
        let deadline = SystemClock::new().now() + Duration::from_secs(3600);
        NewBroadcast::new(Audience::All, Message::new("x"), deadline)
    };
    let (mut dropped, mut done) = (0, 0);
    for polls in 0..200_usize {
        write(&store, "\"all\"", r#"{"title":"x"}"#, "{}").await;
        let entries = store.outbox(9).await.unwrap();
        let [entry] = &entries[..] else {
            panic!("{entries:?}")
        };
        let new = new();
        let id = new.id;
        let settlement = [(entry.seq, OutboxSettlement::Open(Box::new(new.clone())))];
        let mut settling = store.settle_outbox(&settlement, at(0));
        let mut left = polls;
        let ended = poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(None);
            }
            left -= 1;
            settling.as_mut().poll(context).map(Some)
        })
        .await;
        drop(settling);
        match ended {
            Some(settled) => {
                assert_eq!(settled.unwrap(), [OutboxSettled::Opened]);
                done += 1;
            }
            None => dropped += 1,
        }
        // The server ends the transaction of a connection that was closed.
        let again = until(async || {
            let again = [(entry.seq, OutboxSettlement::Open(Box::new(new.clone())))];
            let settled = store.settle_outbox(&again, at(0)).await.unwrap();
            let is_waiting = !store.outbox(9).await.unwrap().is_empty();
            (!is_waiting).then_some(settled)
        })
        .await;
        assert_ne!(again, [OutboxSettled::Repeat], "removed apart from opening");
        assert!(store.status(id, at(0)).await.unwrap().is_some());
        if done > 3 {
            break;
        }
    }
    assert!(dropped > 3 && done > 3, "{dropped} {done}");
    let count = schema
        .number("SELECT count(*) FROM web_push.broadcast")
        .await;
    assert_eq!(count, dropped + done);
}

#[tokio::test]
async fn workers_are_told_if_it_was_asked_for() {
    let Some(world) = World::new().await else {
        return;
    };
    let other = world.schema.store().await;
    let mut changes = other.changes();
    // The first hint means that it listens.
    timeout(LIMIT, changes.next()).await.unwrap();
    let mut client = world.client().await;
    world.enqueue(&client, "quiet", "{}").await.unwrap();
    let loud = r#"{"notify":true}"#;
    let transaction = client.transaction().await.unwrap();
    world.enqueue(&transaction, "undone", loud).await.unwrap();
    transaction.rollback().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    world.enqueue(&transaction, "loud", loud).await.unwrap();
    // A notification of another connection would have been received by now: this one is answered by the same server.
    sleep(Duration::from_millis(200)).await;
    assert!(changes.next().now_or_never().is_none());
    transaction.commit().await.unwrap();
    timeout(LIMIT, changes.next())
        .await
        .expect("it is not told");
    world.store.announce().await;
    timeout(LIMIT, changes.next())
        .await
        .expect("it is not told");
}

/// A role that may execute the function and nothing else.
#[tokio::test]
async fn a_role_needs_the_right_to_execute_and_no_other() {
    let Some(world) = World::new().await else {
        return;
    };
    let name = &world.schema.name;
    let (role, stranger) = (format!("shop_{name}"), format!("stranger_{name}"));
    world
        .schema
        .run(&format!(
            "CREATE ROLE {role} LOGIN; CREATE ROLE {stranger} LOGIN;
             GRANT USAGE ON SCHEMA {name} TO {role}, {stranger};
             GRANT EXECUTE ON FUNCTION web_push.enqueue TO {role}"
        ))
        .await;
    let url = |role: &str| world.schema.url.replace("postgres@", &format!("{role}@"));
    let shop = client(&url(&role)).await;
    world.enqueue(&shop, "one", "{}").await.unwrap();
    let is_denied = |error: Error| error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE);
    for sql in [
        "SELECT 1 FROM web_push.outbox",
        "INSERT INTO web_push.outbox (id, audience, message, opts) VALUES (gen_random_uuid(), '1', '1', '1')",
        "SELECT 1 FROM web_push.subscription",
        "DELETE FROM web_push.outbox_refused",
    ] {
        let sql = sql.replace("web_push.", &format!("{name}."));
        assert!(
            is_denied(shop.batch_execute(&sql).await.unwrap_err()),
            "{sql}"
        );
    }
    // Nobody else may, whatever tables and functions are in front of it.
    let others = client(&url(&stranger)).await;
    let refused = world.enqueue(&others, "no", "{}").await;
    assert!(is_denied(refused.unwrap_err()));
    shop.batch_execute(
        "CREATE TEMP TABLE outbox (seq bigint, id uuid, audience jsonb, message jsonb, opts jsonb);
         CREATE FUNCTION pg_temp.gen_random_uuid() RETURNS uuid LANGUAGE sql AS \
             $$ SELECT '67e55044-10b1-426f-9247-bb680e5fe0c8'::uuid $$;
         CREATE FUNCTION pg_temp.jsonb_typeof(jsonb) RETURNS text LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'as %', current_user; END $$;
         CREATE DOMAIN pg_temp.text AS int;
         SET search_path = pg_temp, pg_catalog",
    )
    .await
    .unwrap();
    let sql =
        format!("SELECT {name}.enqueue('{ALICE}', '{{\"payload\":\"two\"}}')::pg_catalog.text");
    shop.query_one(&sql, &[]).await.unwrap();
    let taken =
        "SELECT count(*) FROM web_push.outbox WHERE id = '67e55044-10b1-426f-9247-bb680e5fe0c8'";
    assert_eq!(world.schema.number(taken).await, 0);
    // The rights outlast a repeated migration, and a function that is replaced.
    world.store.migrate().await.unwrap();
    let replace = FUNCTION.replace("web_push_changes", &format!("{name}_changes"));
    world.schema.run(&replace).await;
    let shop = client(&url(&role)).await;
    world.enqueue(&shop, "three", "{}").await.unwrap();
    let refused = world.enqueue(&others, "no", "{}").await;
    assert!(is_denied(refused.unwrap_err()));
    assert_eq!(world.received().await, ["one", "three", "two"]);
    drop((shop, others));
    world
        .schema
        .run(&format!(
            "DROP OWNED BY {role}, {stranger}; DROP ROLE {role}, {stranger}"
        ))
        .await;
}

#[tokio::test]
async fn the_function_is_called_through_a_pooler_in_transaction_mode() {
    let Some(world) = World::new().await else {
        return;
    };
    let port = world.schema.url.rsplit_once(':').unwrap().1;
    let port = port.split('/').next().unwrap();
    let Some(server) = Server::start(Kind::PgBouncer, &[port, "transaction"]).await else {
        return;
    };
    let pooled = client(&server.url()).await;
    let name = &world.schema.name;
    // By the simple protocol, with a notification, and as Rust does it.
    let sql = format!(
        "SELECT {name}.enqueue('{ALICE}', '{{\"payload\":\"one\"}}', '{{\"notify\":true}}')"
    );
    pooled.batch_execute(&sql).await.unwrap();
    let mut pooled = pooled;
    let transaction = pooled.transaction().await.unwrap();
    let two = Broadcast::to(Audience::user("alice"), Message::new("\"two\""));
    world.store.enqueue_in(&transaction, &two).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(world.received().await, ["one", "two"]);
}

/// A trigger enqueues, by the transaction of whoever changes the row.
#[tokio::test]
async fn a_trigger_enqueues() {
    let Some(world) = World::new().await else {
        return;
    };
    world
        .schema
        .run(
            "CREATE TABLE web_push.orders (id int, customer text, state text);
             CREATE FUNCTION web_push.announce() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             PERFORM web_push.enqueue(jsonb_build_object('user', NEW.customer), \
             jsonb_build_object('payload', NEW.state), \
             jsonb_build_object('idempotencyKey', 'order-' || NEW.id || '-' || NEW.state)); RETURN NULL; END $$;
             CREATE TRIGGER announce AFTER UPDATE OF state ON web_push.orders FOR EACH ROW \
             WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION web_push.announce();
             INSERT INTO web_push.orders VALUES (7, 'alice', 'paid'), (8, 'bob', 'paid'), (9, 'alice', 'paid');
             UPDATE web_push.orders SET state = 'shipped' WHERE id < 9;
             UPDATE web_push.orders SET state = 'shipped' WHERE id < 9",
        )
        .await;
    assert_eq!(world.received().await, ["shipped"]);
}
