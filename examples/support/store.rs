//! Where an example keeps everything: a store, opened from its URL.

use std::path::PathBuf;

use tower_web_push::Builder;
use tower_web_push::store::{MemoryStore, SqliteStore, StoreError};

/// A store that there is a URL for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StoreUrl {
    Memory,
    Sqlite(PathBuf),
}

impl StoreUrl {
    /// What is wrong with the URL never repeats it: it may hold a password.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "memory:" {
            return Ok(Self::Memory);
        }
        match text.split_once("://") {
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
            Some((scheme @ ("postgres" | "postgresql" | "redis" | "rediss"), _)) => Err(format!(
                "this build has no {scheme} store; use sqlite://FILE or memory:"
            )),
            _ => Err("neither sqlite://FILE nor memory:".to_owned()),
        }
    }

    /// Opens it as the one store of a `WebPush`.
    pub(crate) async fn open(self, builder: Builder) -> Result<Builder, StoreError> {
        Ok(match self {
            Self::Memory => builder.store(MemoryStore::new()),
            Self::Sqlite(path) => builder.store(SqliteStore::open(path).await?),
        })
    }
}
