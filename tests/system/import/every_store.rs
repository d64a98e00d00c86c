//! `WebPush::import` on each store, from two machines at once.

use std::sync::Arc;

use tower_web_push::WebPush;
use tower_web_push::clock::{Clock as _, SystemClock, Timestamp};
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::import::ImportedSubscription;
use tower_web_push::schedule::NotifyType;
use tower_web_push::store::{
    MemoryStore, PostgresStore, RedisStore, ScheduleStore, SqliteStore, SubscriptionStore,
    VapidKeyStore,
};
use tower_web_push::subscription::SubscriptionId;
use tower_web_push::testing::{ManualClock, TestPushService};
use tower_web_push::vapid::VapidKey;

use super::postgres_world::Schema;
use super::world::{Content, HOUR, content, daily, imported, of_type, tag};
use crate::support::servers::{Kind, shared};

const ROWS: u32 = 90;

#[tokio::test]
async fn memory() {
    let store = Arc::new(MemoryStore::new());
    two_machines_import_at_once(Arc::clone(&store), store).await;
}

#[tokio::test]
async fn sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("push.db");
    let open = || async { SqliteStore::open(&path).await.unwrap() };
    two_machines_import_at_once(open().await, open().await).await;
}

#[tokio::test]
async fn postgres() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    two_machines_import_at_once::<PostgresStore>(schema.store().await, schema.store().await).await;
}

#[tokio::test]
async fn redis() {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let prefix = SubscriptionId::random().to_string();
    let connect = || async {
        let builder = RedisStore::builder().prefix(&prefix);
        builder.connect(&url).await.unwrap()
    };
    two_machines_import_at_once(connect().await, connect().await).await;
}

fn rows(now: Timestamp) -> impl Iterator<Item = ImportedSubscription> {
    (0..ROWS).map(move |number| {
        let mut row = imported(number);
        row.principal = (number % 3 == 0).then(|| format!("user {}", number / 9).into());
        row.tags = [tag("news"), tag("all")].into();
        row.created_at = Some(now - 24 * HOUR * number);
        row.daily = vec![
            daily(9, "Gr\u{fc}\u{df}e"),
            of_type(NotifyType::DailyCheck, 20, ""),
        ];
        row
    })
}

async fn two_machines_import_at_once<S>(first: S, second: S)
where
    S: SubscriptionStore + VapidKeyStore + ScheduleStore + Clone,
{
    // A store on a server compares its clock with this machine's.
    let now = SystemClock::new().now();
    let clock = ManualClock::new(now);
    let mut machines = Vec::new();
    for store in [&first, &second] {
        let builder = WebPush::builder("mailto:ops@example.com")
            .store(store.clone())
            .client(TestPushService::builder().clock(clock.clone()).build())
            .clock(clock.clone())
            .endpoint_policy(EndpointPolicy::public_hosts());
        machines.push(builder.build().await.unwrap());
    }
    let key = VapidKey::generate().unwrap();
    let run = |push: &WebPush| {
        let mut import = push.import();
        let key = &key;
        async move {
            import.active_vapid_key(key).await.unwrap();
            import.add(rows(now).map(Ok)).await.unwrap();
            import
        }
    };
    let (one, other) = tokio::join!(run(&machines[0]), run(&machines[1]));
    let (one, other) = (one.report(), other.report());
    assert_eq!(one.created + other.created, u64::from(ROWS));
    assert_eq!((one.refused, one.superseded), (0, 0));
    assert_eq!((other.refused, other.superseded), (0, 0));

    let before = content(&first).await;
    let Content {
        rows,
        schedules,
        keys,
    } = &before;
    assert_eq!(
        (rows.len(), schedules.len()),
        (ROWS as usize, 2 * ROWS as usize)
    );
    assert!(keys[0].active && keys[0].id == key.id());
    for (number, row) in rows.iter().enumerate() {
        let age = 24 * HOUR * u32::try_from(number).unwrap();
        assert_eq!(row.created_at, now - age);
        assert_eq!(row.vapid_key, key.id());
        assert_eq!(row.tags.len(), 2);
    }
    clock.advance(30 * HOUR);
    let again = run(&machines[1]).await;
    let again = again.report();
    assert_eq!((again.unchanged, again.daily), (u64::from(ROWS), 0));
    assert_eq!(content(&first).await, before);
}
