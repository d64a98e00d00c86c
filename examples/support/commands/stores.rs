//! Stores by URL, for commands that use them directly.

use std::path::Path;
use std::sync::Arc;

use tower_web_push::Audience;
use tower_web_push::clock::Timestamp;
use tower_web_push::store::{
    CountFilter, Liveness, MemoryStore, PortableStore, PostgresStore, RedisStore, ScheduleStore,
    SqliteStore, StoreError, VapidKeyStore,
};

use super::super::causes::with_causes;
use super::super::store::{StoreUrl, without_parameter};

/// A store with everything that is in it.
pub(super) trait WholeStore: PortableStore + VapidKeyStore + ScheduleStore {}

impl<S: PortableStore + VapidKeyStore + ScheduleStore> WholeStore for S {}

/// Opens a store. `name` is the argument that it is from, for errors.
///
/// Opening a store that does not exist would create its file or its tables, which `creates` allows.
pub(super) async fn open(
    name: &str,
    url: StoreUrl,
    creates: bool,
    extra_root_ca_pem: Option<&[u8]>,
) -> Result<Arc<dyn WholeStore>, String> {
    if let StoreUrl::Sqlite(path) = &url
        && !creates
    {
        let is_empty = |path: &Path| path.metadata().map_or(true, |file| file.len() == 0);
        if !path.exists() {
            return Err(format!("{name}: there is no file {}", path.display()));
        }
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        if is_empty(path) && is_empty(Path::new(&log)) {
            return Err(format!("{name}: the file {} is empty", path.display()));
        }
    }
    let opened = connect(url, creates, extra_root_ca_pem).await;
    opened.map_err(|error| format!("{name}: {}", with_causes(error)))
}

async fn connect(
    url: StoreUrl,
    creates: bool,
    extra_root_ca_pem: Option<&[u8]>,
) -> Result<Arc<dyn WholeStore>, StoreError> {
    Ok(match url {
        StoreUrl::Memory => Arc::new(MemoryStore::new()),
        StoreUrl::Sqlite(path) => Arc::new(SqliteStore::open(path).await?),
        StoreUrl::Postgres(url) => {
            let (url, schema) = without_parameter(&url, "schema")?;
            let mut store = PostgresStore::builder();
            if !creates {
                store = store.without_migrations();
            }
            if let Some(schema) = schema {
                store = store.schema(schema);
            }
            if let Some(pem) = extra_root_ca_pem {
                store = store.extra_root_ca_pem(pem);
            }
            Arc::new(store.connect(&url).await?)
        }
        StoreUrl::Redis(url) => {
            let (url, prefix) = without_parameter(&url, "prefix")?;
            let mut store = RedisStore::builder();
            if let Some(prefix) = prefix {
                store = store.prefix(prefix);
            }
            if !creates {
                store = store.existing_only();
            }
            if let Some(pem) = extra_root_ca_pem {
                store = store.extra_root_ca_pem(pem);
            }
            Arc::new(store.connect(&url).await?)
        }
    })
}

/// Reads a file of certificates.
pub(super) fn certificates(path: Option<&str>) -> Result<Option<Vec<u8>>, String> {
    let path = path.map(str::trim).filter(|path| !path.is_empty());
    path.map(|path| {
        std::fs::read(Path::new(path)).map_err(|error| format!("EXTRA_ROOT_CA: {path}: {error}"))
    })
    .transpose()
}

/// The number of all subscriptions.
pub(super) async fn count(store: &dyn WholeStore, now: Timestamp) -> Result<u64, StoreError> {
    let all = CountFilter::new(Audience::All, Liveness::Any);
    store.count(&all, now).await
}
