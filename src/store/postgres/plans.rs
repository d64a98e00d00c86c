//! Plans of statements whose cost must not grow with the tables, on tables of a million rows.

use std::time::Duration;

use deadpool_postgres::Object;
use tokio::task::JoinSet;
use tokio_postgres::SimpleQueryMessage;

use super::connection::Database;
use super::rows::Values;
use super::schema::Schema;
use super::{
    PostgresBuilder, PostgresStore, broadcasts, claims, ending, enqueue, erase, far_rows,
    first_upsert, holding, listing, opening, origins, outbox, pauses, portable, reading_together,
    ready, samples, schedules, settle, subscription_changes, subscription_count,
    subscription_numbers, subscription_rows, subscriptions, taking, waking, workers,
};
use crate::broadcast::{Audience, FinalOutcome, Principal, Tag};
use crate::clock::Timestamp;
use crate::message::Message;
use crate::store::servers;
use crate::store::{
    Change, ClaimRequest, CountFilter, Cursor, DeliveryLedger as _, Liveness, NewBroadcast,
    NewDelivery, OutboxRefusal, OutboxSettled, OutboxSettlement, PageWrite, ScheduleStore as _,
    Settled, Settlement, SubscriptionStore as _,
};
use crate::subscription::{EndpointKey, Origin};

/// These read one row for each value, or the first rows in the order of an index.
const SHORT: &[(&str, &str)] = &[
    (broadcasts::BY_ID, "broadcast_id_key"),
    (broadcasts::LOCK_BY_ID, "broadcast_id_key"),
    (opening::BY_IDEMPOTENCY_KEY, "broadcast_idempotency_key_key"),
    (broadcasts::UNDERWAY, "broadcast_open"),
    (broadcasts::SAVE, "broadcast_pkey"),
    (broadcasts::WIPE, "content_pkey"),
    (broadcasts::FORGET, "broadcast_pkey"),
    (broadcasts::FORGET_UNREADABLE, "broadcast_pkey"),
    (broadcasts::FORGET_UNREADABLE, "delivery_pkey"),
    (far_rows::PULL, "delivery_waiting"),
    (far_rows::PULL, "Tid Scan on delivery"),
    (broadcasts::WIPE, "flow_pkey"),
    (broadcasts::EXPANDABLE, "broadcast_expanding"),
    (broadcasts::EXPANDABLE, "broadcast_urgent"),
    (broadcasts::EXPANDABLE_AHEAD, "broadcast_started"),
    (taking::MESSAGES, "content_pkey"),
    (taking::TAKE, "delivery_ready"),
    (taking::TAKE, "Tid Scan on delivery"),
    (claims::PROBED, "origin_pkey"),
    (claims::SERVED, "origin_pkey"),
    (claims::LOCK_PROBED, "origin_pkey"),
    (ready::FRONT, "origin_ready"),
    (ready::FRONT, "delivery_ready"),
    (ready::HOLD, "origin_pkey"),
    (ready::LET_GO, "origin_held"),
    (ready::PARK, "origin_pkey"),
    (ready::LOCK_IDLE, "origin_pkey"),
    (ready::UNMARK, "delivery_ready"),
    (waking::DUE, "delivery_waiting"),
    (waking::DUE, "broadcast_cancelled"),
    (waking::DUE, "origin_held"),
    (waking::DUE, "broadcast_held"),
    (waking::DUE, "broadcast_resuming"),
    (holding::HOLD, "broadcast_pkey"),
    (holding::STAND_IN_FRONT, "flow_pkey"),
    (holding::STAND_IN_FRONT, "delivery_waiting"),
    (holding::PUT_ASIDE, "delivery_ready"),
    (holding::PUT_ASIDE, "Tid Scan on delivery"),
    (holding::LOCK_RESUMING, "broadcast_resuming"),
    (holding::BRING_BACK, "delivery_waiting"),
    (holding::BRING_BACK, "Tid Scan on delivery"),
    (holding::IS_BACK, "delivery_waiting"),
    (enqueue::FLOWS, "flow_pkey"),
    (ending::END_OF_MANY, "delivery_pkey"),
    (ending::END_OF_MANY, "Tid Scan on delivery"),
    (ending::END_IN_FRONT, "delivery_ready"),
    (ending::END_IN_FRONT, "Tid Scan on delivery"),
    (ending::LATE, "broadcast_open"),
    (ending::LATE, "delivery_pkey"),
    (erase::OPEN, "content_pkey"),
    (erase::ERASE, "delivery_pkey"),
    (ending::NEXT_ORIGINS, "origin_pkey"),
    (ending::UNSWEPT, "broadcast_cancelled"),
    (ending::PRUNE, "broadcast_ended"),
    (ending::OLD_ORIGINS, "origin_pkey"),
    (ending::PRUNE_ORIGINS, "delivery_ready"),
    (ending::PRUNE_ORIGINS, "delivery_waiting"),
    (settle::FINISH, "Tid Scan on delivery"),
    (settle::POSTPONE, "Tid Scan on delivery"),
    (settle::END_PROBES, "origin_pkey"),
    (outbox::WAITING, "Index Scan using outbox_pkey"),
    (outbox::REMOVE, "outbox_pkey"),
    (outbox::REFUSE, "outbox_pkey"),
    (outbox::REFUSED, "Index Scan using outbox_refused_pkey"),
    (outbox::RETRY, "outbox_refused_pkey"),
    (outbox::DROP, "outbox_refused_pkey"),
    (pauses::PAUSE, "origin_origin_key"),
    (pauses::LIFT, "origin_origin_key"),
    (pauses::LOCK_PAUSES, "origin_origin_key"),
    (pauses::READ_TALLIES, "origin_origin_key"),
    (pauses::SAVE_TALLIES, "origin_origin_key"),
    (pauses::NEXT_DUE, "broadcast_expanding"),
    (pauses::NEXT_DUE, "broadcast_urgent"),
    (pauses::NEXT_DUE, "delivery_ready"),
    (pauses::NEXT_DUE, "delivery_waiting"),
    (pauses::NEXT_DUE, "origin_ready"),
    (pauses::NEXT_DUE, "origin_held"),
    (pauses::STATS, "delivery_ready"),
    (pauses::STATS, "origin_origin_key"),
    (pauses::STATS, "delivery_waiting"),
    (subscription_changes::CHANGE, "subscription_pkey"),
    (subscription_changes::RETIRED_BEFORE, "subscription_retired"),
    (
        subscription_changes::STALE_BEFORE,
        "subscription_stale_since",
    ),
    (subscription_changes::EXPIRED_BEFORE, "subscription_expires"),
    (subscription_changes::EXPIRED, "subscription_expiring"),
    (subscription_changes::RETIRE, "subscription_pkey"),
    (subscription_numbers::COUNTED, "subscription_pkey"),
    (
        subscription_numbers::FORGET_ZEROS,
        "subscription_number_pkey",
    ),
    (subscription_rows::DELETE, "subscription_pkey"),
    (subscription_rows::FORGET_TAGS, "subscription_tag_pkey"),
    (subscriptions::PAGE_ALL, "subscription_pkey"),
    (subscriptions::OWNED, "subscription_principal"),
    (subscriptions::PAGE_USER, "subscription_principal"),
    (subscriptions::PAGE_TAG, "subscription_tag_pkey"),
    (subscriptions::BY_KEYS, "subscription_pkey"),
    (subscriptions::BY_IDS, "subscription_id_key"),
    (subscriptions::OF_PRINCIPAL, "subscription_principal"),
    (listing::BROADCASTS, "broadcast_created"),
    (listing::OPEN_BROADCASTS, "broadcast_open_created"),
    (listing::SUBSCRIPTIONS, "subscription_pkey"),
    (listing::UNREACHABLE, "subscription_unreachable"),
    (listing::OF_USER, "subscription_principal"),
    (listing::OF_TAG, "subscription_tag_pkey"),
    (samples::OF_ID, "broadcast_id_key"),
    (samples::OF_ID, "failure_sample_pkey"),
    (samples::OF_SEQS, "failure_sample_pkey"),
    (samples::FORGET, "failure_sample_pkey"),
    (broadcasts::FORGET, "failure_sample_pkey"),
    (ending::PRUNE, "failure_sample_pkey"),
    (portable::KEYS_OF_IDS, "subscription_id_key"),
    (schedules::OF, "schedule_pkey"),
    (schedules::DUE, "schedule_due"),
    (schedules::FIRE, "schedule_pkey"),
    (schedules::NEXT, "schedule_due"),
    (workers::BEAT, "worker_pkey"),
    (workers::END_LEASES, "delivery_worker"),
    (workers::END_LEASES, "Tid Scan on delivery"),
    (workers::STRIKE, "worker_pkey"),
    (workers::STRIKE, "delivery_worker"),
    (workers::HAS_LEASED, "delivery_worker"),
];

/// These sort few rows: those of given values, origins, one principal's subscriptions.
const SORTING_FEW: &[(&str, &str)] = &[
    (broadcasts::LOCK, "broadcast_pkey"),
    (opening::OPEN, "Function Scan on"),
    (waking::WAKE, "delivery_waiting"),
    (waking::WAKE, "flow_pkey"),
    (waking::WAKE, "Tid Scan on delivery"),
    (enqueue::ENQUEUE, "Function Scan on"),
    (enqueue::SAVE_FLOWS, "Function Scan on"),
    (ready::SHARE, "Index Scan using origin_"),
    (ready::FRONT_NAMED, "origin_origin_key"),
    (ready::FRONT_NAMED, "delivery_ready"),
    (taking::TAKE_AT_ONCE, "delivery_ready"),
    (taking::TAKE_AT_ONCE, "Tid Scan on delivery"),
    (taking::TAKE_AT_ONCE, "broadcast_pkey"),
    (taking::TAKE_AT_ONCE, "content_pkey"),
    (taking::TAKE_AT_ONCE, "origin_pkey"),
    (ready::MARK, "origin_pkey"),
    (ending::END_PROBES, "origin_pkey"),
    (holding::LOCK_HELD, "delivery_ready"),
    (origins::IDS, "Index Scan using origin_"),
    (origins::MAKE, "Function Scan on"),
    (outbox::LOCK, "outbox_pkey"),
    (settle::HELD, "delivery_pkey"),
    (settle::PROBES, "origin_pkey"),
    (pauses::LOCK_TALLIES, "Index Scan using origin_"),
    (portable::RETIRED, "subscription_retired"),
    (portable::STALE, "subscription_stale_since"),
    (portable::INSERT, "Function Scan on"),
    (portable::INSERT_TAGS, "Function Scan on"),
    (subscription_changes::LOCK, "subscription_pkey"),
    (subscription_count::GROUPS, "subscription_number_pkey"),
    (
        subscription_count::GROUPS,
        "Index Only Scan using subscription_expiring",
    ),
    (subscription_numbers::ADD, "Function Scan on"),
    (first_upsert::INSERT_UNKNOWN, "subscription_pkey"),
    (first_upsert::INSERT_UNKNOWN, "subscription_principal"),
    (subscription_rows::INSERT_TAGS, "Function Scan on"),
    (subscription_rows::UPDATE, "subscription_pkey"),
    (subscription_rows::UPDATE, "subscription_tag_pkey"),
    (subscriptions::LOCK, "subscription_pkey"),
    (reading_together::PAGES, "subscription_principal"),
    (reading_together::PAGES, "subscription_id_key"),
    (subscriptions::PAGE_IDS, "subscription_id_key"),
    (subscriptions::EVICTED, "subscription_principal"),
    (schedules::LOCK_DUE, "Index Scan using schedule_"),
    (workers::MARK, "worker_pkey"),
];

/// These read numbers, rows that have expired, and a whole audience of few.
const COUNTING: &[(&str, &str)] = &[
    (subscription_count::LIVE_OF_TAG, "subscription_number_pkey"),
    (subscription_count::LIVE_OF_TAG, "subscription_expiring"),
    (outbox::STATS, "Index Only Scan using outbox_pkey"),
    (outbox::STATS, "Index Only Scan using outbox_refused_pkey"),
    (subscription_count::OF_USER, "subscription_principal"),
    (subscription_count::OF_TAG, "subscription_tag_pkey"),
    (subscription_count::OF_IDS, "subscription_id_key"),
];

/// Tables of many rows.
const LARGE: [&str; 10] = [
    "failure_sample",
    "outbox",
    "outbox_refused",
    "delivery",
    "flow",
    "subscription",
    "subscription_tag",
    "schedule",
    "broadcast",
    "content",
];

/// Fills one table each, concurrently.
const FILL: &[&str] = &[
    // Nine of ten rows are ready. Of the others some are leased.
    "INSERT INTO web_push.delivery (broadcast, key, origin, at, turn, band, leased, worker) \
     SELECT 1 + i % 3, int8send(i) || decode(repeat('00', 24), 'hex'), 1 + i % 50, 1000 + i % 7, \
         CASE WHEN i % 10 > 0 THEN i / 50 END, i % 3, i % 1000 = 0, CASE WHEN i % 1000 = 0 THEN i % 7 END \
     FROM generate_series(1, 1000000) AS i",
    "INSERT INTO web_push.subscription SELECT int8send(i) || decode(repeat('00', 24), 'hex'), int8send(i) || '\\x0000000000000000', \
         'https://push.example.net/' || i, decode('042571b2becdfde360551aaf1ed0f4cd366c11cebe555f89bcb7b186a5333917\
     3168ece2ebe018597bd30479b86e3c8f8eced577ca59187e9246990db682008b0e', 'hex'), \
         int8send(i) || int8send(i), CASE i % 9 WHEN 0 THEN 5000 + i END, \
         CASE i % 3 WHEN 0 THEN int8send(i / 30) END, CASE WHEN i % 100 = 0 THEN ARRAY['few'] ELSE ARRAY[]::text[] END, \
         decode(repeat('01', 16), 'hex'), 'other', 1, 1, 1, NULL, 0, NULL, CASE i % 500 WHEN 0 THEN i END, \
         CASE i % 500 WHEN 1 THEN i END, CASE i % 500 WHEN 1 THEN 'gone' END \
     FROM generate_series(1, 1000000) AS i",
    "INSERT INTO web_push.outbox (id, audience, message, opts) \
     SELECT gen_random_uuid(), '\"all\"', '{\"title\":\"x\"}', '{}' FROM generate_series(1, 100000); \
     INSERT INTO web_push.outbox_refused SELECT seq, id, audience, message, opts, at, 'invalid_ttl', 'x', 1 \
     FROM web_push.outbox WHERE seq > 50000; DELETE FROM web_push.outbox WHERE seq > 50000",
    "INSERT INTO web_push.schedule (owner, name, minute_of_day, zone, weekdays, next_fire_at) \
     SELECT int8send(i) || int8send(i), 'DAILY_CHECK', 60, 'UTC', 127, 5000 + i \
     FROM generate_series(1, 1000000) AS i",
    "INSERT INTO web_push.origin (origin) SELECT 'https://push' || i || '.example.net' FROM generate_series(1, 50) AS i; \
     UPDATE web_push.origin SET ready = true; \
     INSERT INTO web_push.broadcast (id, created_at, due_at, deadline, expected, written, expanding, expand_at, \
         forget_when_over, band, ended_at, accepted) \
     SELECT int8send(i) || int8send(i), 1, 1, CASE WHEN i < 4 THEN 9000 ELSE 2000 + i END, 333334, 333334, \
         i BETWEEN 4 AND 9, 1, false, i % 3, CASE WHEN i > 9 THEN 100 + i END, 0 FROM generate_series(1, 100000) AS i; \
     INSERT INTO web_push.content (broadcast, audience, payload, ttl, urgency, padding) \
     SELECT i, '\"all\"', 'x', 60, 'normal', 'none' FROM generate_series(1, 9) AS i; \
     INSERT INTO web_push.failure_sample SELECT i, 'x' FROM generate_series(1, 100000) AS i; \
     INSERT INTO web_push.flow SELECT i, 1 + i % 50, 7 FROM generate_series(1, 100000) AS i",
];

async fn filled(builder: PostgresBuilder, url: &str) -> PostgresStore {
    let store = builder.connect(url).await.unwrap();
    let tables = "ALTER TABLE web_push.delivery SET UNLOGGED; ALTER TABLE web_push.subscription SET UNLOGGED; \
                  ALTER TABLE web_push.schedule SET UNLOGGED";
    run(store.database(), tables).await;
    let mut tasks = JoinSet::new();
    for fill in FILL {
        let store = store.clone();
        tasks.spawn(async move { run(store.database(), fill).await });
    }
    tasks.join_all().await;
    let tags = "INSERT INTO web_push.subscription_tag SELECT 'few', key FROM web_push.subscription \
                WHERE tags = ARRAY['few']; UPDATE web_push.subscription_count SET number = 1000000 WHERE part = 0; \
                INSERT INTO web_push.subscription_number \
                VALUES ('live', 'other:' || repeat('01', 16), 0, 996000), ('tag', 'few', 0, 10000)";
    run(store.database(), tags).await;
    let object = store.database().pool.get().await.unwrap();
    for table in [
        "delivery",
        "subscription",
        "subscription_tag",
        "schedule",
        "broadcast",
        "content",
        "failure_sample",
        "flow",
        "origin",
        "outbox",
        "outbox_refused",
    ] {
        let vacuum = format!(
            "VACUUM (ANALYZE) {}.{table}",
            store.database().schema.name()
        );
        object.batch_execute(&vacuum).await.unwrap();
    }
    store
}

async fn run(database: &Database, sql: &'static str) {
    let object = database.pool.get().await.unwrap();
    let sql = format!(
        "SET synchronous_commit = off; {}",
        database.schema.in_sql(sql)
    );
    object.batch_execute(&sql).await.unwrap();
}

/// The generic plan of a statement.
async fn plan(database: &Database, sql: &'static str) -> String {
    let object = database.pool.get().await.unwrap();
    let text = database.schema.in_sql(sql);
    let values = object.prepare(&text).await.unwrap().params().len();
    let called = match values {
        0 => String::new(),
        _ => format!("({})", vec!["NULL"; values].join(", ")),
    };
    let begin = database.begin_sql();
    let prepare =
        format!("{begin}; SET LOCAL plan_cache_mode = force_generic_plan; PREPARE plan AS {text}");
    object.batch_execute(&prepare).await.unwrap();
    let explain = format!("EXPLAIN (COSTS OFF) EXECUTE plan{called}");
    let lines = object.simple_query(&explain).await.unwrap();
    object
        .batch_execute("ROLLBACK; DEALLOCATE plan")
        .await
        .unwrap();
    let lines: Vec<_> = lines
        .iter()
        .filter_map(|line| match line {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        })
        .collect();
    lines.join("\n")
}

#[tokio::test]
async fn nothing_that_runs_often_scans_a_table_or_sorts_a_backlog() {
    let Some(url) = servers::shared(servers::Kind::Postgres) else {
        return;
    };
    let name = format!("plans_{}", uuid::Uuid::new_v4().simple());
    let builder = PostgresStore::builder()
        .schema(&name)
        .statement_timeout(Duration::from_secs(60));
    // The name identifies the store's connections.
    let named = format!("{url}?application_name={name}");
    let store = filled(builder.clone(), &named).await;
    let database = store.database();
    let mut wrong = Vec::new();
    for (statements, sorts) in [(SHORT, false), (SORTING_FEW, true), (COUNTING, false)] {
        for (sql, uses) in statements {
            let plan = plan(database, sql).await;
            let mut right = plan.contains(uses) && (sorts || !plan.contains("Sort"));
            for table in LARGE {
                // Followed by an alias or by nothing.
                let scan = format!("Seq Scan on {table}");
                let mut after = plan.split(&scan).skip(1);
                right &= !after.any(|after| !after.starts_with('_'));
            }
            if !right {
                wrong.push(format!("{sql}\nshould use {uses}:\n{plan}\n"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    drop(store);
    let watcher = builder.clone().connect(&url).await.unwrap();
    let watcher = watcher.database().pool.get().await.unwrap();
    forget_scans(&watcher, &name).await;
    let store = builder.connect(&named).await.unwrap();
    use_it(&store).await;
    drop(store);
    let scanned = scans(&watcher, &name).await;
    let drop = format!("DROP SCHEMA \"{name}\" CASCADE");
    watcher.batch_execute(&drop).await.unwrap();
    assert_eq!(scanned, [] as [String; 0]);
}

/// Misleads the planner: a vacuum found the queue almost empty (many pages, few rows), then a broadcast was written.
const MISLEAD: &[&str] = &[
    "ALTER TABLE web_push.delivery SET (autovacuum_enabled = false); \
     ALTER TABLE web_push.broadcast SET (autovacuum_enabled = false); \
     ALTER TABLE web_push.content SET (autovacuum_enabled = false); \
     ALTER TABLE web_push.origin SET (autovacuum_enabled = false)",
    "INSERT INTO web_push.origin (origin) SELECT 'https://' || i || '.example.org' FROM generate_series(1, 30000) AS i",
    "DELETE FROM web_push.origin WHERE ctid < (SELECT max(ctid) FROM web_push.origin)",
    "VACUUM ANALYZE web_push.origin",
    "INSERT INTO web_push.origin (origin) SELECT 'https://' || i || '.example.com' FROM generate_series(1, 20000) AS i",
    "INSERT INTO web_push.delivery (broadcast, key, origin, at, band) \
     SELECT 0, int8send(i) || decode(repeat('00', 24), 'hex'), 0, 9000000, 1 FROM generate_series(1, 30000) AS i",
    "INSERT INTO web_push.broadcast (id, created_at, due_at, deadline, expected, expanding, expand_at, \
         forget_when_over, band, ended_at) \
     SELECT int8send(i) || int8send(i), 1, 1, 9000000, 0, false, 1, false, 1, 9000000 FROM generate_series(1, 30000) AS i",
    "INSERT INTO web_push.content (broadcast, audience, payload, ttl, urgency, padding) \
     SELECT -i, '\"all\"', 'x', 60, 'normal', 'none' FROM generate_series(1, 30000) AS i",
    "DELETE FROM web_push.delivery WHERE ctid < (SELECT max(ctid) FROM web_push.delivery)",
    "DELETE FROM web_push.broadcast WHERE ctid < (SELECT max(ctid) FROM web_push.broadcast)",
    "DELETE FROM web_push.content WHERE ctid < (SELECT max(ctid) FROM web_push.content)",
    "VACUUM ANALYZE web_push.delivery",
    "VACUUM ANALYZE web_push.broadcast",
    "VACUUM ANALYZE web_push.content",
    "INSERT INTO web_push.broadcast (id, created_at, due_at, deadline, expected, expanding, expand_at, \
         forget_when_over, band, ended_at) \
     SELECT int8send(-i) || int8send(i), 1, 1, 9000000, 0, false, 1, false, 1, 9000000 FROM generate_series(1, 20000) AS i",
    "INSERT INTO web_push.content (broadcast, audience, payload, ttl, urgency, padding) \
     SELECT -i - 30000, '\"all\"', 'x', 60, 'normal', 'none' FROM generate_series(1, 20000) AS i",
];

#[tokio::test]
async fn statistics_of_an_empty_queue_do_not_mislead_the_planner() {
    const ROWS: u16 = 20_000;
    let Some(url) = servers::shared(servers::Kind::Postgres) else {
        return;
    };
    let name = format!("plans_{}", uuid::Uuid::new_v4().simple());
    let builder = PostgresStore::builder().schema(&name);
    let (outside, url) = own_database(&builder, &url, &name).await;
    let watching = builder.clone().connect(&url).await.unwrap();
    let watcher = watching.database().pool.get().await.unwrap();
    for sql in MISLEAD {
        let sql = watching.database().schema.in_sql(sql);
        watcher.batch_execute(&sql).await.unwrap();
    }
    let sql = "SELECT max(reltuples)::float8, min(relpages) FROM pg_class \
               WHERE relnamespace = $1::text::regnamespace AND relname IN ('delivery', 'broadcast', 'content', 'origin')";
    let row = watcher.query_one(sql, &[&name]).await.unwrap();
    assert!(
        row.get::<_, f64>(0) <= 1.0 && row.get::<_, i32>(1) > 100,
        "{row:?}"
    );

    let now = Timestamp::from_millis(2000);
    let named = format!("{url}?application_name={name}");
    let store = builder.clone().connect(&named).await.unwrap();
    let deadline = Timestamp::from_millis(3000);
    let broadcast = NewBroadcast::new(Audience::All, Message::new("x"), deadline);
    store.open(&broadcast, now).await.unwrap();
    let origin = Origin::parse("https://push.example.net").unwrap();
    let key = |number: u16| {
        let mut key = [7; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        EndpointKey::from_bytes(key)
    };
    let rows: Vec<_> = (0..ROWS)
        .map(|number| NewDelivery::new(key(number), origin.clone()))
        .collect();
    let (start, end) = (Cursor::Start, Cursor::End);
    let page = store.enqueue_page(broadcast.id, &start, &rows, &end, now);
    assert_eq!(page.await.unwrap(), PageWrite::Stored);
    drop(store);
    ended(&watcher, &name).await;
    forget_scans(&watcher, &name).await;

    let store = builder.connect(&named).await.unwrap();
    for settlement in [
        Settlement::Finished(FinalOutcome::Accepted),
        Settlement::RetryAt(Timestamp::from_millis(2500)),
    ] {
        let request = ClaimRequest::new(200, Duration::from_secs(9));
        let claims = store.claim(&request, now).await.unwrap();
        assert_eq!(claims.rows.len(), 200);
        let ends: Vec<_> = claims
            .rows
            .iter()
            .map(|row| (row.token, settlement))
            .collect();
        let settled = store.settle(&ends, now).await.unwrap();
        assert!(settled.iter().all(|one| *one == Settled::Done));
        store.next_due(now).await.unwrap();
        store.status(broadcast.id, now).await.unwrap();
        assert_eq!(store.expandable(9, now).await.unwrap().len(), 0);
    }
    assert_eq!(store.expire(200, deadline).await.unwrap(), 200);
    drop(store);
    ended(&watcher, &name).await;
    let sql =
        "SELECT indexrelname::text, idx_tup_read FROM pg_stat_user_indexes WHERE schemaname = $1";
    let read = watcher.query(sql, &[&name]).await.unwrap();
    let read: Vec<(String, i64)> = read.iter().map(|row| (row.get(0), row.get(1))).collect();
    drop_database(&outside, &name).await;
    assert!(read.iter().any(|(_, tuples)| *tuples > 0));
    let many: Vec<_> = read.iter().filter(|(_, tuples)| *tuples > 5_000).collect();
    assert!(many.is_empty(), "{many:?}");
}

/// Rows that have expired, and none else, written after the last look at the table by `ANALYZE`.
const EXPIRED: &str = "ALTER TABLE web_push.subscription SET (autovacuum_enabled = false); \
     ANALYZE web_push.subscription; \
     INSERT INTO web_push.subscription SELECT int8send(i) || decode(repeat('00', 24), 'hex'), \
         int8send(i) || '\\x0000000000000000', 'https://push.example.net/' || i, decode(repeat('04', 65), 'hex'), \
         decode(repeat('01', 16), 'hex'), 1000, NULL, ARRAY[]::text[], decode(repeat('01', 16), 'hex'), 'other', \
         1, 1, 1, NULL, 0 FROM generate_series(1, 100000) AS i";

/// No statement reads all rows that have expired: anyone can register rows that expire in the same minute.
#[tokio::test]
async fn the_cost_does_not_grow_with_rows_that_have_expired() {
    let Some(url) = servers::shared(servers::Kind::Postgres) else {
        return;
    };
    let name = format!("expired_{}", uuid::Uuid::new_v4().simple());
    let builder = PostgresStore::builder().schema(&name);
    let (outside, url) = own_database(&builder, &url, &name).await;
    let watching = builder.clone().connect(&url).await.unwrap();
    run(watching.database(), EXPIRED).await;
    let watcher = watching.database().pool.get().await.unwrap();
    for analyzed in [false, true] {
        if analyzed {
            let vacuum = format!("VACUUM ANALYZE \"{name}\".subscription");
            watcher.batch_execute(&vacuum).await.unwrap();
        }
        forget_scans(&watcher, &name).await;
        let indexes = "SELECT pg_stat_reset_single_table_counters(indexrelid) FROM pg_stat_user_indexes \
                       WHERE schemaname = $1";
        watcher.query(indexes, &[&name]).await.unwrap();
        let store = builder
            .clone()
            .connect(&format!("{url}?application_name={name}"))
            .await
            .unwrap();
        let database = store.database();
        let (key, now, few, step) = (Vec::<u8>::new(), 2000_i64, 5_i64, 1000_i64);
        let page: Values<'_> = &[&key, &now, &few, &step];
        database.query(subscriptions::PAGE_ALL, page).await.unwrap();
        let groups: Values<'_> = &[&now, &step];
        let expired: Values<'_> = &[&now, &step, &now];
        database
            .query(subscription_count::GROUPS, groups)
            .await
            .unwrap();
        let tagged: Values<'_> = &[&now, &"news", &step];
        database
            .query(subscription_count::LIVE_OF_TAG, tagged)
            .await
            .unwrap();
        database
            .query(subscription_changes::EXPIRED, expired)
            .await
            .unwrap();
        drop(store);
        ended(&watcher, &name).await;
        let read = "SELECT 'rows', seq_tup_read FROM pg_stat_user_tables WHERE schemaname = $1 AND relname = 'subscription' \
                    UNION ALL SELECT indexrelname::text, idx_tup_read FROM pg_stat_user_indexes \
                    WHERE schemaname = $1 AND relname = 'subscription'";
        let read = watcher.query(read, &[&name]).await.unwrap();
        let read: Vec<(String, i64)> = read.iter().map(|row| (row.get(0), row.get(1))).collect();
        let most = read.iter().map(|(_, tuples)| *tuples).max();
        assert!((1..5_000).contains(&most.unwrap()), "{analyzed}: {read:?}");
    }
    drop(watcher);
    drop(watching);
    drop_database(&outside, &name).await;
}

/// Runs statements with real values, for which plans are made each time.
async fn use_it(store: &PostgresStore) {
    let now = Timestamp::from_millis(2000);
    for _ in 0..8 {
        let claims = store
            .claim(&ClaimRequest::new(200, Duration::from_secs(9)), now)
            .await
            .unwrap();
        assert_eq!(claims.rows.len(), 200);
        let ends: Vec<_> = claims
            .rows
            .iter()
            .map(|row| (row.token, Settlement::Finished(FinalOutcome::Accepted)))
            .collect();
        store.settle(&ends, now).await.unwrap();
        assert_eq!(store.next_due(now).await.unwrap(), Some(now));
        store.stats(now).await.unwrap();
        assert_eq!(store.expandable(9, now).await.unwrap().len(), 6);
        assert_eq!(store.expire(50, now).await.unwrap(), 0);
        assert_eq!(
            store
                .due_schedules(10, Timestamp::from_millis(9999))
                .await
                .unwrap()
                .len(),
            10
        );
        let audiences = [
            Audience::All,
            Audience::User(Principal::from("\0\0\0\0\0\0\0\u{7}")),
            Audience::Tag(Tag::parse("few").unwrap()),
        ];
        for audience in audiences {
            let page = store.page(&audience, None, 5, now).await.unwrap();
            assert_eq!(page.len(), 5);
            let live = CountFilter::new(audience, Liveness::Live);
            assert!(store.count(&live, now).await.unwrap() >= 5);
            let changes: Vec<_> = page
                .iter()
                .map(|row| Change::Accepted(row.subscription.endpoint().key()))
                .chain([Change::Delete {
                    key: EndpointKey::from_bytes([9; 32]),
                    principal: None,
                    observed_at: now,
                }])
                .collect();
            store.apply(&changes, now).await.unwrap();
        }
    }
    store.prune(Timestamp::from_millis(200)).await.unwrap();
    for _ in 0..8 {
        let entries = store.outbox(9).await.unwrap();
        assert_eq!(entries.len(), 9);
        let refuse = || OutboxSettlement::Refuse(OutboxRefusal::new("invalid_ttl", "x"));
        let refused: Vec<_> = entries.iter().map(|entry| (entry.seq, refuse())).collect();
        let settled = store.settle_outbox(&refused, now).await.unwrap();
        assert_eq!(settled, [OutboxSettled::Refused; 9]);
        for refused in &store.refused_outbox(9).await.unwrap()[..2] {
            assert!(store.retry_outbox(refused.entry.seq).await.unwrap());
            assert!(!store.drop_outbox(refused.entry.seq).await.unwrap());
        }
    }
}

/// Makes a database in which no other test's transaction keeps dead rows and index entries. Returns a connection to the
/// shared one, and the address of the new one.
async fn own_database(builder: &PostgresBuilder, url: &str, name: &str) -> (Object, String) {
    let outside = builder.clone().connect(url).await.unwrap();
    let outside = outside.database().pool.get().await.unwrap();
    let create = format!("CREATE DATABASE \"{name}\"");
    outside.batch_execute(&create).await.unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    (outside, format!("{server}/{name}"))
}

/// Removes what [`own_database`] made, and the schema of the connection that made it.
async fn drop_database(outside: &Object, name: &str) {
    for drop in [
        format!("DROP DATABASE \"{name}\" WITH (FORCE)"),
        format!("DROP SCHEMA \"{name}\" CASCADE"),
    ] {
        outside.batch_execute(&drop).await.unwrap();
    }
}

/// Waits until the store's connections have ended and reported their statistics.
pub(super) async fn ended(watcher: &Object, name: &str) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
    while watcher
        .query_one(sql, &[&name])
        .await
        .unwrap()
        .get::<_, i64>(0)
        > 0
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Resets the counters: creating indexes reads tables too.
pub(super) async fn forget_scans(watcher: &Object, name: &str) {
    ended(watcher, name).await;
    let sql = "SELECT pg_stat_reset_single_table_counters(relid) FROM pg_stat_user_tables WHERE schemaname = $1";
    watcher.query(sql, &[&name]).await.unwrap();
}

/// Returns large tables that were scanned, or never read: then the test would prove nothing.
async fn scans(watcher: &Object, name: &str) -> Vec<String> {
    ended(watcher, name).await;
    let sql = "SELECT relname::text || ' ' || seq_scan FROM pg_stat_user_tables \
               WHERE schemaname = $1 AND relname = ANY($2) AND (seq_scan > 0 OR idx_scan = 0)";
    let rows = watcher
        .query(sql, &[&name, &LARGE.as_slice()])
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[test]
fn no_statement_is_without_its_plan() {
    let here = include_str!("plans.rs");
    for (module, text) in [
        ("broadcasts", include_str!("broadcasts.rs")),
        ("claims", include_str!("claims.rs")),
        ("ending", include_str!("ending.rs")),
        ("enqueue", include_str!("enqueue.rs")),
        ("erase", include_str!("erase.rs")),
        ("far_rows", include_str!("far_rows.rs")),
        ("first_upsert", include_str!("first_upsert.rs")),
        ("holding", include_str!("holding.rs")),
        ("opening", include_str!("opening.rs")),
        ("origins", include_str!("origins.rs")),
        ("outbox", include_str!("outbox.rs")),
        ("pauses", include_str!("pauses.rs")),
        ("reading_together", include_str!("reading_together.rs")),
        ("ready", include_str!("ready.rs")),
        ("settle", include_str!("settle.rs")),
        (
            "subscription_changes",
            include_str!("subscription_changes.rs"),
        ),
        (
            "subscription_numbers",
            include_str!("subscription_numbers.rs"),
        ),
        ("subscription_rows", include_str!("subscription_rows.rs")),
        ("subscriptions", include_str!("subscriptions.rs")),
        ("taking", include_str!("taking.rs")),
        ("waking", include_str!("waking.rs")),
        ("workers", include_str!("workers.rs")),
    ] {
        let names = text
            .split("pub(super) const ")
            .skip(1)
            .filter_map(|constant| Some(constant.split_once(": &str =")?.0));
        for name in names {
            // These insert values, read a table of few rows, or no table.
            let is_simple = [
                "INSERT",
                "CONTENT",
                "PAUSES",
                "TALLIES",
                "SERVER_TIME",
                "OTHERS",
                "LOCK_PRINCIPAL",
            ]
            .contains(&name);
            let listed = format!("{module}::{name},");
            assert!(is_simple || here.contains(&listed), "{module}::{name}");
        }
    }
    assert_eq!(Schema::DEFAULT, "web_push");
}
