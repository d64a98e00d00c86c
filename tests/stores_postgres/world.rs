//! Schemas for tests, dropped with their values, and what is put into them.

use std::thread;

use tokio_postgres::{Client, NoTls};
use tower_web_push::store::{PostgresBuilder, PostgresStore};

use crate::servers::{Kind, shared};

/// A schema of its own on the server that all tests share.
pub(crate) struct Schema {
    pub(crate) url: String,
    pub(crate) name: String,
}

impl Schema {
    /// `None`, said aloud, where there is no server.
    pub(crate) fn fresh() -> Option<Self> {
        let url = shared(Kind::Postgres)?;
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        Some(Self { url, name })
    }

    pub(crate) fn builder(&self) -> PostgresBuilder {
        // A hundred tests share a server with two hundred connections.
        PostgresStore::builder().schema(&self.name).pool_size(4)
    }

    pub(crate) async fn store(&self) -> PostgresStore {
        self.builder().connect(&self.url).await.unwrap()
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let (url, name) = (self.url.clone(), self.name.clone());
        // A runtime of its own, since this one may be about to end.
        let dropped = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let sql = format!("DROP SCHEMA IF EXISTS \"{name}\" CASCADE");
                client(&url).await.batch_execute(&sql).await.unwrap();
            });
        });
        // What went wrong before is what the test tells.
        let _ = dropped.join();
    }
}

pub(crate) async fn client(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
