//! Every store against the contracts.

use tower_web_push::store::MemoryStore;

async fn memory_store() -> MemoryStore {
    MemoryStore::new()
}

tower_web_push::store_conformance!(memory, memory_store);
