//! Connecting and creating the tables.

use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;
use tower_web_push::store::deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use tower_web_push::store::{
    DeliveryLedger as _, PostgresStore, ScheduleStore as _, StoreError, StoreErrorKind,
    SubscriptionLimits, SubscriptionStore as _,
};

use super::world::{Schema, at, claim_of, client, sending, subscription};

async fn refused(schema: &Schema) -> StoreError {
    let error = schema.builder().connect(&schema.url).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{error:?}");
    error
}

#[tokio::test]
async fn eight_that_migrate_at_once_make_one_schema() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let (builder, url) = (schema.builder(), schema.url.clone());
        tasks.spawn(async move { builder.connect(&url).await.unwrap() });
    }
    let stores = tasks.join_all().await;
    for store in &stores {
        store.record_run(at(1)).await.unwrap();
        store.migrate().await.unwrap();
    }
    assert_eq!(stores[7].last_run().await.unwrap(), Some(at(1)));
    let versions = "SELECT count(*) FROM web_push.tower_web_push_version";
    assert_eq!(schema.number(versions).await, 1);
}

#[tokio::test]
async fn another_version_is_refused_and_left_as_it_is() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    schema.store().await.record_run(at(7)).await.unwrap();
    for version in [1, 999] {
        let write = format!("UPDATE web_push.tower_web_push_version SET version = {version}");
        schema.run(&write).await;
        refused(&schema).await;
        let stored = "SELECT version FROM web_push.tower_web_push_version";
        assert_eq!(schema.number(stored).await, version);
    }
}

#[tokio::test]
async fn another_applications_schema_is_refused_and_left_as_it_is() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    schema.run(&format!("CREATE SCHEMA {}", schema.name)).await;
    schema.run("CREATE TABLE web_push.orders (id int)").await;
    refused(&schema).await;
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname || '.' = 'web_push.'";
    assert_eq!(schema.number(tables).await, 1);
    // An empty schema may exist, created by a role with the right to.
    schema.run("DROP TABLE web_push.orders").await;
    schema.store().await;
}

#[tokio::test]
async fn without_migrations_a_database_has_to_be_ready() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let working = || schema.builder().without_migrations();
    let error = working().connect(&schema.url).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
    schema.store().await;
    let store = working().connect(&schema.url).await.unwrap();
    assert_eq!(store.pauses(at(0)).await.unwrap(), []);
    schema
        .run("UPDATE web_push.tower_web_push_version SET version = 0")
        .await;
    let error = working().connect(&schema.url).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
}

#[tokio::test]
async fn a_schema_without_a_store_is_not_made_one() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let existing = || schema.builder().existing_only();
    let error = existing().connect(&schema.url).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname || '.' = 'web_push.'";
    assert_eq!(schema.number(schemas).await, 0);
    schema.run(&format!("CREATE SCHEMA {}", schema.name)).await;
    existing().connect(&schema.url).await.unwrap_err();
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname || '.' = 'web_push.'";
    assert_eq!(schema.number(tables).await, 0);
    schema.store().await;
    let store = existing().connect(&schema.url).await.unwrap();
    assert_eq!(store.pauses(at(0)).await.unwrap(), []);
}

/// The documented rights suffice.
#[tokio::test]
async fn a_role_that_only_works_works() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    schema.store().await;
    let role = format!("role_{}", schema.name);
    schema
        .run(&format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {role};
             GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role};
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}",
            schema = schema.name
        ))
        .await;
    let url = schema.url.replace("postgres@", &format!("{role}@"));
    let working = schema.builder().without_migrations();
    let store = working.connect(&url).await.unwrap();
    let new = sending(&store, 3).await;
    let claims = store.claim(&claim_of(2), at(0)).await.unwrap();
    assert_eq!(claims.rows.len(), 2);
    let tokens: Vec<_> = claims.rows.iter().map(|row| row.token).collect();
    store.release(&tokens, at(0)).await.unwrap();
    store.cancel(new.id, at(0)).await.unwrap();
    let (new, limits) = (subscription(1), SubscriptionLimits::default());
    store.upsert(&new, &limits, at(0)).await.unwrap();
    drop(store);
    schema
        .run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
}

#[tokio::test]
async fn a_pool_of_the_applications_own_serves() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    // Without a runtime, timeouts or other settings of a pool of the store's own.
    let config = schema.url.parse().unwrap();
    let recycling_method = RecyclingMethod::Clean;
    let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method });
    let pool = Pool::builder(manager).max_size(2).build().unwrap();
    let before = settings(&pool).await;
    let store = schema.builder().with_pool(pool.clone()).await.unwrap();
    let other = schema.store().await;
    assert_eq!(store.description(), other.description());
    store.record_run(at(3)).await.unwrap();
    assert_eq!(store.last_run().await.unwrap(), Some(at(3)));
    assert_eq!(settings(&pool).await, before);
    assert_eq!(pool.status().size, 1);
    // There are no hints, and everything else works.
    let mut changes = store.changes();
    assert!(changes.next().now_or_never().is_none());
}

/// The application's open or failed transaction on a connection of a shared pool: the connection is closed.
#[tokio::test]
async fn a_connection_in_a_failed_transaction_is_replaced() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let recycling_method = RecyclingMethod::Fast;
    let config = schema.url.parse().unwrap();
    let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method });
    let pool = Pool::builder(manager).max_size(1).build().unwrap();
    let store = schema.builder().with_pool(pool.clone()).await.unwrap();
    let new = sending(&store, 3).await;
    let client = pool.get().await.unwrap();
    client
        .batch_execute("BEGIN; SELECT 1 / 0")
        .await
        .unwrap_err();
    drop(client);
    let error = store.cancel(new.id, at(0)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    let status = store.cancel(new.id, at(0)).await.unwrap().unwrap();
    assert_eq!(status.counts.cancelled, 3);
}

async fn settings(pool: &Pool) -> Vec<String> {
    let client = pool.get().await.unwrap();
    // Those of a procedural language appear when its library is loaded, by the first function.
    let sql = "SELECT name || '=' || setting FROM pg_settings WHERE name NOT LIKE 'plpgsql.%' ORDER BY name";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_schema_whose_name_is_more_than_a_name_is_refused_before_anything_is_asked() {
    for name in ["", "Push", "a b", "a\"; DROP TABLE x; --", "pg_temp", "1st"] {
        let builder = PostgresStore::builder().schema(name);
        // No server listens there.
        let connected = builder.connect("postgres://u@127.0.0.1:1/d").await;
        let error = connected.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{name}");
    }
}

#[tokio::test]
async fn a_schema_may_have_a_word_of_sql_for_a_name() {
    let Some(mut schema) = Schema::fresh() else {
        return;
    };
    client(&schema.url)
        .await
        .batch_execute("DROP SCHEMA IF EXISTS \"select\" CASCADE")
        .await
        .unwrap();
    schema.name = "select".to_owned();
    let store = schema.store().await;
    store.record_run(at(3)).await.unwrap();
    assert_eq!(store.last_run().await.unwrap(), Some(at(3)));
}

/// A function with better matching types than PostgreSQL's own, in a schema of the search path. If it were called, it
/// would run with the role's rights.
#[tokio::test]
async fn functions_of_other_schemas_are_not_called() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let url = format!("{}?options=-csearch_path%3D{}", schema.url, schema.name);
    schema.store().await;
    for (signature, answer) in [
        ("unnest(bigint[])", "SETOF bigint"),
        ("unnest(text[])", "SETOF text"),
        ("unnest(bytea[])", "SETOF bytea"),
        ("nextval(text)", "bigint"),
        ("hashtextextended(text, integer)", "bigint"),
    ] {
        schema
            .run(&format!(
                "CREATE FUNCTION web_push.{signature} RETURNS {answer} LANGUAGE plpgsql AS \
                 $$ BEGIN RAISE EXCEPTION 'called'; END $$"
            ))
            .await;
    }
    let store = schema.builder().connect(&url).await.unwrap();
    let mut late = super::world::broadcast();
    late.deadline = at(1);
    store.open(&late, at(0)).await.unwrap();
    sending(&store, 3).await;
    let claimed = store.claim(&claim_of(2), at(0)).await.unwrap();
    assert_eq!(claimed.rows.len(), 2);
    store.expire(9, at(2)).await.unwrap();
    let (mut new, limits) = (subscription(1), SubscriptionLimits::default());
    new.principal = Some("alice".into());
    store.upsert(&new, &limits, at(0)).await.unwrap();
}

/// A text that cannot be compressed.
#[tokio::test]
async fn a_principal_is_as_long_as_the_docs_say() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let named = async |length: usize| {
        let words = (0..200).map(|_| uuid::Uuid::new_v4().simple().to_string());
        let name: String = words.collect();
        let (mut new, limits) = (subscription(1), SubscriptionLimits::default());
        new.principal = Some(name[..length].into());
        store.upsert(&new, &limits, at(0)).await
    };
    named(2600).await.unwrap();
    let error = named(5000).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{error:?}");
}

#[tokio::test]
async fn an_endless_timeout_is_accepted() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let builder = schema.builder().statement_timeout(Duration::MAX);
    let store = builder.connect_timeout(Duration::MAX).connect(&schema.url);
    store.await.unwrap().record_run(at(1)).await.unwrap();
}

/// URLs as managed databases and other clients write them.
#[tokio::test]
async fn parameters_of_libpq_do_not_keep_it_from_connecting() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    for query in [
        "sslmode=allow",
        "target_session_attrs=primary",
        "application_name=push&gssencmode=disable",
        "connect_timeout=3&keepalives_count=4&client_encoding=UTF8",
    ] {
        let url = format!("{}?{query}", schema.url);
        schema.builder().connect(&url).await.unwrap();
    }
    // The URL's schema takes precedence over the builder's.
    let url = format!("{}?schema={}&pool_max_conns=2", schema.url, schema.name);
    let store = PostgresStore::builder().schema("other").connect(&url);
    store.await.unwrap().record_run(at(1)).await.unwrap();
    assert_eq!(
        schema
            .number("SELECT count(*) FROM web_push.tower_web_push_version")
            .await,
        1
    );
    let url = format!("{}?schema=No-Schema", schema.url);
    let error = PostgresStore::connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let connected = PostgresStore::connect("postgres://u:hunter2@127.0.0.1:1/d").await;
    let error = connected.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(!format!("{error:?}").contains("hunter2"));
}
