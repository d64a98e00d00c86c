//! Copies between all pairs of stores, while messages are sent and browsers come and go.
//!
//! `WEB_PUSH_TEST_COPY=1000000` copies as many subscriptions instead of a thousand.

use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};

use http::{Request, Response, StatusCode};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tower::service_fn;
use tower_web_push::broadcast::{Audience, Counts, Tag};
use tower_web_push::clock::Timestamp;
use tower_web_push::copy::{Copy, CopyErrorKind, CopyReport};
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::message::Message;
use tower_web_push::push_request::PushBody;
use tower_web_push::schedule::{DailyTime, NotifyType, Plan, Schedule, ScheduleLabel};
use tower_web_push::store::{
    Change, CountFilter, Liveness, MemoryStore, NewSubscription, PortableStore, PostgresStore,
    RetireReason, Retired, ScheduleStore, SqliteStore, SubscriptionLimits, SubscriptionRecord,
    SubscriptionRef, VapidKeyStore,
};
use tower_web_push::subscription::{
    AuthSecret, Endpoint, Subscription, SubscriptionId, UaPublicKey,
};
use tower_web_push::vapid::KeyId;
use tower_web_push::{Broadcast, WebPush};

use crate::postgres::world::{Schema, client};
use crate::redis::world as redis_world;
use crate::support::servers;

const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
/// Recipients of the message that is sent meanwhile.
const RECIPIENTS: usize = 200;

trait Whole: PortableStore + VapidKeyStore + ScheduleStore {}

impl<S: PortableStore + VapidKeyStore + ScheduleStore> Whole for S {}

/// A fresh store, with what keeps it.
struct Fresh {
    store: Arc<dyn Whole>,
    _keep: Box<dyn Any + Send + Sync>,
    /// The URL of Redis, and the prefix of the keys.
    redis: Option<(String, String)>,
}

#[derive(Clone, Copy)]
enum Kind {
    Memory,
    Sqlite,
    Postgres,
    Redis,
}

impl Fresh {
    /// `None`, with a message, without a server.
    async fn of(kind: Kind) -> Option<Self> {
        let made = |store: Arc<dyn Whole>, keep: Box<dyn Any + Send + Sync>| {
            Some(Self {
                store,
                _keep: keep,
                redis: None,
            })
        };
        match kind {
            Kind::Memory => made(
                Arc::new(MemoryStore::with_max_rows(2_000_000)),
                Box::new(()),
            ),
            Kind::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let store = SqliteStore::open(folder.path().join("push.db")).await;
                made(Arc::new(store.unwrap()), Box::new(folder))
            }
            Kind::Postgres => {
                let schema = Schema::fresh()?;
                made(Arc::new(schema.store().await), Box::new(schema))
            }
            Kind::Redis => {
                let url = servers::shared(servers::Kind::Redis)?;
                let prefix = redis_world::fresh_prefix();
                let store = redis_world::store(&url, &prefix).await;
                Some(Self {
                    redis: Some((url, prefix)),
                    ..made(Arc::new(store), Box::new(()))?
                })
            }
        }
    }

    async fn count(&self) -> u64 {
        let all = CountFilter::new(Audience::All, Liveness::Any);
        self.store.count(&all, now()).await.unwrap()
    }

    /// Removes what is in the server that all tests share: a million rows are a gigabyte.
    async fn remove(self) {
        if let Some((url, prefix)) = &self.redis {
            let keys = ["KEYS", &format!("*{prefix}*")];
            let keys: Vec<Vec<u8>> = redis_world::ask(url, &keys).await;
            let mut unlink = redis::cmd("UNLINK");
            unlink.arg(keys);
            let mut connection = redis_world::connection(url).await;
            let removed: u64 = unlink.query_async(&mut connection).await.unwrap();
            assert!(removed > 0, "no key has the prefix {prefix}");
        }
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

fn days_ago(days: u64) -> Timestamp {
    now() - Duration::from_secs(days * 24 * 3600)
}

fn endpoint(number: usize) -> Endpoint {
    Endpoint::parse(&format!(
        "https://updates.push.services.mozilla.com/wpush/v2/{number}"
    ))
    .unwrap()
}

fn subscription(number: usize) -> Subscription {
    let auth = AuthSecret::from_bytes(&[7; AuthSecret::LEN]).unwrap();
    Subscription::new(endpoint(number), UaPublicKey::parse(P256DH).unwrap(), auth)
}

/// A row in one of several states.
fn row(number: usize, rows: usize, key: KeyId) -> SubscriptionRecord {
    let id = SubscriptionId::random();
    let mut row = SubscriptionRecord::new(id, subscription(number), key, days_ago(20));
    row.last_seen_at = days_ago(10);
    match number % 10 {
        0 => row.principal = Some(format!("user-{}", number % 1_000).as_str().into()),
        1 => row.retired = Some(Retired::new(days_ago(5), RetireReason::Gone)),
        2 => row.stale_since = Some(days_ago(6)),
        3 => {
            row.failing_since = Some(days_ago(3));
            row.failure_streak = 4;
        }
        _ => row.last_success_at = Some(days_ago(2)),
    }
    // An odd distance, so that recipients are in all states, and few of them where the push service has lost them.
    if number.is_multiple_of((rows / RECIPIENTS) | 1) {
        row.tags.insert(Tag::parse("news").unwrap());
    }
    row
}

fn daily(id: SubscriptionId) -> Schedule {
    let plan = Plan::Subscriber {
        subscription: id,
        notify_type: NotifyType::DirectNotification,
        message: Some("Good morning".to_owned()),
    };
    let time = DailyTime::new(7, 30).unwrap();
    let next_fire_at = time.first_after(now()).unwrap();
    Schedule::new(plan, time, next_fire_at)
}

fn rows() -> usize {
    let set = std::env::var("WEB_PUSH_TEST_COPY").ok();
    set.map_or(1_000, |rows| rows.parse().unwrap())
}

/// Fills a store that has its VAPID key already. Returns the ids of rows with a daily notification.
async fn fill(source: &Fresh, rows: usize) -> Vec<SubscriptionId> {
    let key = source.store.keys().await.unwrap()[0].id;
    let mut with_daily = Vec::new();
    let numbers: Vec<_> = (0..rows).collect();
    for numbers in numbers.chunks(1_000) {
        let page: Vec<_> = numbers.iter().map(|n| row(*n, rows, key)).collect();
        assert!(source.store.put(&page).await.unwrap().iter().all(|it| *it));
        if with_daily.len() < 20 {
            for row in page.iter().step_by(50) {
                source.store.put_schedule(&daily(row.id)).await.unwrap();
                with_daily.push(row.id);
            }
        }
    }
    with_daily
}

/// Sends through a push service that has lost some of its subscriptions.
async fn web_push(store: &Arc<dyn Whole>) -> WebPush {
    let client = service_fn(|request: Request<PushBody>| async move {
        let mut response = Response::new(String::new());
        *response.status_mut() = match request.uri().path().ends_with("00") {
            true => StatusCode::GONE,
            false => StatusCode::CREATED,
        };
        Ok::<_, Infallible>(response)
    });
    WebPush::builder("mailto:ops@example.com")
        .store(Arc::clone(store))
        .client(client)
        .endpoint_policy(EndpointPolicy::known_push_services())
        .retire_at_most(100)
        .build()
        .await
        .unwrap()
}

async fn is_same(source: &Fresh, target: &Fresh, rows: usize) {
    assert_eq!(source.count().await, target.count().await);
    let numbers: Vec<_> = (0..rows + 10).collect();
    for numbers in numbers.chunks(500) {
        let names: Vec<_> = numbers
            .iter()
            .map(|number| SubscriptionRef::from(&endpoint(*number)))
            .collect();
        let theirs = source.store.get(&names).await.unwrap();
        let ours = target.store.get(&names).await.unwrap();
        for (theirs, ours) in theirs.iter().zip(&ours) {
            assert_eq!(theirs, ours);
        }
    }
}

async fn register(store: &Arc<dyn Whole>, number: usize) {
    let key = store.keys().await.unwrap()[0].id;
    let new = NewSubscription::new(subscription(number), key);
    let limits = SubscriptionLimits::default().with_unproven(u64::MAX);
    store.upsert(&new, &limits, now()).await.unwrap();
}

async fn unsubscribe(store: &Arc<dyn Whole>, number: usize) {
    let found = store.get(&[SubscriptionRef::from(&endpoint(number))]).await;
    let row = found.unwrap().remove(0).unwrap();
    let deleted = store.apply(&[Change::delete(&row)], now()).await.unwrap();
    assert_eq!(deleted, 1);
}

/// Sends messages one after the other until the copy is over. Returns what became of their recipients.
async fn send_while(copies: &AtomicBool, push: &WebPush) -> (usize, Counts) {
    let (mut sent, mut all) = (0, Counts::default());
    while sent == 0 || copies.load(SeqCst) {
        let news = Audience::Tag(Tag::parse("news").unwrap());
        let queued = push.enqueue_broadcast(Broadcast::to(news, Message::new("hello")));
        let queued = queued.await.unwrap();
        let mut progress = push.progress(queued.broadcast);
        let mut last = None;
        while let Some(status) = progress.next().await {
            last = Some(status.unwrap());
        }
        let counts = last.unwrap().counts;
        assert!(counts.accepted > 0, "{counts:?}");
        assert_eq!(
            (counts.pending, counts.accepted + counts.gone),
            (0, queued.recipients),
            "{counts:?}"
        );
        sent += 1;
        all.accepted += counts.accepted;
        all.gone += counts.gone;
        sleep(Duration::from_millis(100)).await;
    }
    (sent, all)
}

async fn a_copy_loses_nothing(from: Kind, to: Kind) {
    let (Some(source), Some(target)) = (Fresh::of(from).await, Fresh::of(to).await) else {
        return;
    };
    let rows = rows();
    let push = web_push(&source.store).await;
    let with_daily = fill(&source, rows).await;
    let folder = tempfile::tempdir().unwrap();
    let copy = Copy::new(
        Arc::clone(&source.store),
        Arc::clone(&target.store),
        folder.path().join("journal"),
    );
    let pass = async |copy: &Copy| -> CopyReport { copy.pass(|_| {}).await.unwrap() };

    // While it copies, messages are sent, a browser comes, and one goes.
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = tokio::spawn(push.run(async {
        let _ = stopped.await;
    }));
    let began = Instant::now();
    let copies = AtomicBool::new(true);
    let first = async {
        let first = pass(&copy).await;
        copies.store(false, SeqCst);
        first
    };
    let (first, (sent, counts), (), ()) = tokio::join!(
        first,
        send_while(&copies, &push),
        register(&source.store, rows + 1),
        unsubscribe(&source.store, 7),
    );
    assert!(first.is_first);
    assert!(first.written >= rows as u64 - 1, "{first:?}");
    assert!(counts.gone > 0, "{counts:?}");
    println!(
        "{} rows in {:.0?}, {} messages of {sent} broadcasts accepted meanwhile",
        first.written,
        began.elapsed(),
        counts.accepted
    );
    // And between the passes.
    register(&source.store, rows + 2).await;
    unsubscribe(&source.store, 8).await;
    stop.send(()).unwrap();
    worker.await.unwrap().unwrap();

    let second = pass(&copy).await;
    assert_eq!(second.pending, 0);
    is_same(&source, &target, rows).await;
    assert_eq!(
        source.store.keys().await.unwrap(),
        target.store.keys().await.unwrap()
    );
    for id in with_daily {
        let theirs = source.store.schedules(Some(id)).await.unwrap();
        assert_eq!(theirs.len(), 1);
        assert_eq!(target.store.schedules(Some(id)).await.unwrap(), theirs);
    }
    let third = pass(&copy).await;
    assert!(third.is_unchanged(), "{third:?}");

    // A server starts on the copy with the same key.
    let push = web_push(&target.store).await;
    assert_eq!(
        push.vapid_public_key(),
        target.store.keys().await.unwrap()[0].public_key
    );
    drop(push);
    source.remove().await;
    target.remove().await;
}

/// A schedule that the source cannot read is not taken for one that it has removed, neither while it is damaged nor after.
#[tokio::test]
async fn a_schedule_that_cannot_be_read_is_not_removed_from_the_target() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("push.db");
    let source = SqliteStore::open(&file).await.unwrap();
    let target = MemoryStore::new();
    let push = web_push(&(Arc::new(source.clone()) as Arc<dyn Whole>)).await;
    let row = row(4, 1, KeyId::of(&push.vapid_public_key()));
    drop(push);
    source.put(std::slice::from_ref(&row)).await.unwrap();
    source.put_schedule(&daily(row.id)).await.unwrap();
    let digest = Schedule::new(
        Plan::Application {
            label: ScheduleLabel::parse("digest").unwrap(),
            to: Audience::All,
            message: Message::new("x"),
        },
        DailyTime::new(9, 0).unwrap(),
        now(),
    );
    source.put_schedule(&digest).await.unwrap();
    let copy = Copy::new(
        source.clone(),
        target.clone(),
        folder.path().join("journal"),
    );
    let pass = async || copy.pass(|_| {}).await.unwrap();
    let there = async || {
        let mut there = target.schedules(None).await.unwrap();
        there.extend(target.schedules(Some(row.id)).await.unwrap());
        there.len()
    };
    pass().await;
    assert_eq!(there().await, 2);
    let set = |sql: &str| {
        let conn = rusqlite::Connection::open(&file).unwrap();
        assert_eq!(conn.execute(sql, []).unwrap(), 2);
    };
    set("UPDATE schedule SET minute_of_day = minute_of_day + 10000");
    for _ in 0..2 {
        let damaged = pass().await;
        assert!(damaged.is_unchanged(), "{damaged:?}");
        assert_eq!(there().await, 2);
    }
    // What the passes before have seen is known still.
    set("UPDATE schedule SET minute_of_day = minute_of_day - 10000");
    source.remove_schedules(row.id).await.unwrap();
    assert!(source.remove_schedule(&digest.name()).await.unwrap());
    pass().await;
    assert_eq!(there().await, 0);
}

/// Copies to one store, and then to another one with the journal of the first.
async fn one_journal_is_not_for_both<S: PortableStore + VapidKeyStore + ScheduleStore>(
    one: S,
    other: S,
) {
    let (folder, from) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    let journal = folder.path().join("journal");
    let right = Copy::new(from.clone(), one, &journal);
    right.pass(|_| {}).await.unwrap();
    let wrong = Copy::new(from, other, &journal);
    let error = wrong.pass(|_| {}).await.unwrap_err();
    assert_eq!(error.kind(), CopyErrorKind::Journal);
    assert!(!right.pass(|_| {}).await.unwrap().is_first);
}

/// Two databases of one server, and the schema has the same name in both.
#[tokio::test]
async fn a_journal_belongs_to_one_database_of_a_postgres_server() {
    let Some(url) = servers::shared(servers::Kind::Postgres) else {
        return;
    };
    let name = format!("copy_{}", uuid::Uuid::new_v4().simple());
    let client = client(&url).await;
    let create = format!("CREATE DATABASE {name} TEMPLATE template0");
    client.batch_execute(&create).await.unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    let builder = || PostgresStore::builder().schema(&name).pool_size(2);
    let one = builder().connect(&url).await.unwrap();
    let other = builder().connect(&format!("{server}/{name}")).await;
    one_journal_is_not_for_both(one, other.unwrap()).await;
    let clean_up = [
        format!("DROP SCHEMA {name} CASCADE"),
        format!("DROP DATABASE {name} WITH (FORCE)"),
    ];
    for sql in clean_up {
        client.batch_execute(&sql).await.unwrap();
    }
}

#[tokio::test]
async fn a_journal_belongs_to_one_database_of_a_redis_server() {
    let Some(url) = servers::shared(servers::Kind::Redis) else {
        return;
    };
    let prefix = redis_world::fresh_prefix();
    let one = redis_world::store(&format!("{url}/0"), &prefix).await;
    let other = redis_world::store(&format!("{url}/1"), &prefix).await;
    one_journal_is_not_for_both(one, other).await;
}

macro_rules! pairs {
    ($($name:ident: $from:ident, $to:ident;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            a_copy_loses_nothing(Kind::$from, Kind::$to).await;
        }
    )*};
}

pairs! {
    memory_to_memory: Memory, Memory;
    memory_to_sqlite: Memory, Sqlite;
    memory_to_postgres: Memory, Postgres;
    memory_to_redis: Memory, Redis;
    sqlite_to_memory: Sqlite, Memory;
    sqlite_to_sqlite: Sqlite, Sqlite;
    sqlite_to_postgres: Sqlite, Postgres;
    sqlite_to_redis: Sqlite, Redis;
    postgres_to_memory: Postgres, Memory;
    postgres_to_sqlite: Postgres, Sqlite;
    postgres_to_postgres: Postgres, Postgres;
    postgres_to_redis: Postgres, Redis;
    redis_to_memory: Redis, Memory;
    redis_to_sqlite: Redis, Sqlite;
    redis_to_postgres: Redis, Postgres;
    redis_to_redis: Redis, Redis;
}
