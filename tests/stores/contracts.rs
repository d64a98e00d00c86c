//! Every store against the contracts.

use std::sync::Arc;

use tower_web_push::store::conformance::Handles;
use tower_web_push::store::{MemoryStore, ScheduleStore};

async fn memory_store() -> Handles<MemoryStore> {
    let store = MemoryStore::new();
    Handles::two(store.clone(), store)
}

tower_web_push::store_conformance!(memory, memory_store);

/// A shared store is a store, on its own and behind a trait object.
async fn shared_store() -> Handles<Arc<MemoryStore>> {
    Handles::one(Arc::new(MemoryStore::new()))
}

tower_web_push::store_conformance!(shared, shared_store);
tower_web_push::subscription_store_conformance!(subscriptions_alone, shared_store);

#[tokio::test]
async fn a_store_behind_a_trait_object_is_a_store() {
    let store: Arc<dyn ScheduleStore> = Arc::new(MemoryStore::new());
    let handles = Handles::one(store);
    tower_web_push::store::conformance::d6_fire_opens_and_moves_on(&handles).await;
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use tower_web_push::store::SqliteStore;
    use tower_web_push::store::conformance::Handles;

    /// Two handles of one file, as two processes have them.
    async fn in_a_file() -> Handles<SqliteStore> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("push.db");
        let first = SqliteStore::open(&path).await.unwrap();
        let second = SqliteStore::open(&path).await.unwrap();
        Handles::two(first, second).keeping(folder)
    }

    async fn in_memory() -> Handles<SqliteStore> {
        Handles::one(SqliteStore::open_in_memory().await.unwrap())
    }

    tower_web_push::store_conformance!(file, in_a_file);
    tower_web_push::store_conformance!(memory, in_memory);
}
