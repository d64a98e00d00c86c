//! Where an example keeps everything: a store, opened from its URL.

use std::fmt;
use std::path::PathBuf;

use tower_web_push::Builder;
use tower_web_push::store::{
    MemoryStore, PostgresStore, RedisStore, ScheduleStore, SqliteStore, StoreError,
    SubscriptionStore, VapidKeyStore,
};
use tower_web_push::vapid::VapidKey;

/// A store that there is a URL for.
#[derive(PartialEq, Eq)]
pub(crate) enum StoreUrl {
    Memory,
    Sqlite(PathBuf),
    /// The whole URL.
    Postgres(String),
    /// The whole URL: Redis or Valkey.
    Redis(String),
}

impl StoreUrl {
    /// What is wrong with the URL never repeats it: it may hold a password.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "memory:" {
            return Ok(Self::Memory);
        }
        match text.split_once("://") {
            Some((_, "")) => Err("nothing follows the //".to_owned()),
            Some(("sqlite", path)) => Ok(Self::Sqlite(path.into())),
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres(text.to_owned())),
            Some(("redis" | "rediss", _)) => Ok(Self::Redis(text.to_owned())),
            _ => Err(
                "none of sqlite://FILE, postgres://HOST/DATABASE, redis://HOST, rediss://HOST and memory:"
                    .to_owned(),
            ),
        }
    }

    /// Opens it as the one store of a `WebPush`. `first_key` is taken in where there is no key yet: as one that is
    /// already there and not active it would not become so any more.
    ///
    /// A database server behind TLS is trusted by the extra root certificates too.
    ///
    /// Also returns a store in a file, which is closed when all else is done.
    pub(crate) async fn open(
        self,
        builder: Builder,
        first_key: Option<VapidKey>,
        extra_root_ca_pem: Option<&[u8]>,
    ) -> Result<(Builder, Option<SqliteStore>), StoreError> {
        let builder = match self {
            Self::Memory => with(builder, MemoryStore::new(), first_key).await,
            Self::Sqlite(path) => {
                let store = SqliteStore::open(path).await?;
                let builder = with(builder, store.clone(), first_key).await?;
                return Ok((builder, Some(store)));
            }
            Self::Postgres(url) => {
                let mut store = PostgresStore::builder();
                if let Some(pem) = extra_root_ca_pem {
                    store = store.extra_root_ca_pem(pem);
                }
                with(builder, store.connect(&url).await?, first_key).await
            }
            Self::Redis(url) => {
                let mut store = RedisStore::builder();
                if let Some(pem) = extra_root_ca_pem {
                    store = store.extra_root_ca_pem(pem);
                }
                with(builder, store.connect(&url).await?, first_key).await
            }
        };
        Ok((builder?, None))
    }
}

async fn with<S>(
    builder: Builder,
    store: S,
    first_key: Option<VapidKey>,
) -> Result<Builder, StoreError>
where
    S: SubscriptionStore + VapidKeyStore + ScheduleStore,
{
    let builder = match first_key {
        Some(key) if store.keys().await?.is_empty() => builder.vapid_private_key(key),
        _ => builder,
    };
    Ok(builder.store(store))
}

impl fmt::Debug for StoreUrl {
    /// Without passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory:",
            Self::Sqlite(_) => "sqlite://…",
            Self::Postgres(_) => "postgres://…",
            Self::Redis(_) => "redis://…",
        })
    }
}
