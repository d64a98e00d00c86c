//! The delivery ledger against a model of its contract, with random steps of several workers.
//!
//! Each case ends when everything is delivered, and checks that nothing is missing.
//! `PROPTEST_CASES=2560 cargo test --all-features --test stores ledger_model` runs ten times as many cases.

mod claims;
mod model;
mod ops;
mod origins;
mod turns;
mod world;

use std::path::PathBuf;
use std::sync::Arc;

use proptest::test_runner::{Config, TestRunner};
use tokio_postgres::NoTls;
use tower_web_push::broadcast::BroadcastId;
use tower_web_push::clock::Timestamp;
use tower_web_push::store::{
    DeliveryLedger, MemoryStore, PostgresStore, RedisStore, SqliteStore, redis_rs,
};

use crate::application_file::ApplicationFile;
use crate::own_store::OwnStore;
use crate::support::redis_client;
use crate::support::servers::{Kind, shared};
use ops::{Op, ops};
use world::World;

pub(crate) enum Backend {
    Memory,
    Own,
    SqliteInMemory,
    SqliteFile(PathBuf),
    /// Of an application.
    SqliteIn(ApplicationFile),
    /// A server, and a schema or prefix for the case.
    Postgres(String, String),
    Redis(String, String),
}

impl Backend {
    pub(crate) async fn open(&self) -> Vec<Arc<dyn DeliveryLedger>> {
        match self {
            Self::Memory => vec![Arc::new(MemoryStore::new())],
            Self::Own => vec![Arc::new(OwnStore::default())],
            Self::SqliteInMemory => vec![Arc::new(SqliteStore::open_in_memory().await.unwrap())],
            // As in two processes.
            Self::SqliteFile(path) => vec![
                Arc::new(SqliteStore::open(path).await.unwrap()),
                Arc::new(SqliteStore::open(path).await.unwrap()),
            ],
            Self::SqliteIn(file) => {
                vec![Arc::new(file.store().await), Arc::new(file.store().await)]
            }
            Self::Postgres(url, schema) => {
                let builder = PostgresStore::builder().schema(schema).pool_size(1);
                vec![
                    Arc::new(builder.clone().connect(url).await.unwrap()),
                    Arc::new(builder.connect(url).await.unwrap()),
                ]
            }
            Self::Redis(url, prefix) => {
                let builder = RedisStore::builder().prefix(prefix);
                vec![
                    Arc::new(builder.clone().connect(url).await.unwrap()),
                    Arc::new(builder.connect(url).await.unwrap()),
                ]
            }
        }
    }

    /// Forgets the workers of a server that would be missed some seconds later: then leases end by their time, which is the
    /// model's. On a file they are missed at once.
    pub(crate) async fn forget_workers(&self) {
        if let Self::Postgres(url, schema) = self {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
            tokio::spawn(connection);
            let forget = format!("DELETE FROM {schema}.worker");
            client.batch_execute(&forget).await.unwrap();
        }
        if let Self::Redis(url, prefix) = self {
            let mut connection = redis_client::connect(url).await;
            let forget = redis_rs::cmd("DEL")
                .arg(format!("{{{prefix}}}:workers"))
                .to_owned();
            let _: i64 = forget.query_async(&mut connection).await.unwrap();
        }
    }

    /// Returns whether its content survives a new start.
    pub(crate) const fn is_durable(&self) -> bool {
        !matches!(self, Self::Memory | Self::Own | Self::SqliteInMemory)
    }
}

fn check(cases: u32, backend: impl Fn() -> Backend) {
    let config = Config::default();
    let config = Config {
        cases: cases * config.cases / 256,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..config
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let run = |(begin, steps): (i64, Vec<Op>)| {
        runtime.block_on(async {
            let mut world = World::new(backend(), Timestamp::from_secs(begin)).await;
            for step in steps {
                world.step(step).await?;
            }
            world.finish().await
        })
    };
    if let Err(error) = TestRunner::new(config).run(&ops(), run) {
        panic!("{error}");
    }
}

#[test]
fn memory_does_what_the_model_does() {
    check(500, || Backend::Memory);
}

#[test]
fn a_store_outside_of_the_crate_does_what_the_model_does() {
    check(200, || Backend::Own);
}

#[test]
fn sqlite_does_what_the_model_does() {
    check(80, || Backend::SqliteInMemory);
}

#[test]
fn two_processes_on_one_file_do_what_the_model_does_and_crashes_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cases = std::cell::Cell::new(0);
    check(12, || {
        let case = cases.get();
        cases.set(case + 1);
        Backend::SqliteFile(folder.path().join(format!("{case}.db")))
    });
}

#[test]
fn two_stores_in_an_applications_file_do_what_the_model_does() {
    check(12, || Backend::SqliteIn(ApplicationFile::new()));
}

#[test]
fn postgres_does_what_the_model_does() {
    let Some(url) = shared(Kind::Postgres) else {
        return;
    };
    check(6, || {
        let schema = format!("model_{}", uuid::Uuid::new_v4().simple());
        Backend::Postgres(url.clone(), schema)
    });
}

#[test]
fn redis_does_what_the_model_does() {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    check(20, || {
        Backend::Redis(url.clone(), BroadcastId::random().to_string())
    });
}
