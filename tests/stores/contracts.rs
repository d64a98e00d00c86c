//! Every store against the contracts.

use std::sync::Arc;

use super::own_store::OwnStore;
use crate::support::stored;
use tower_web_push::store::conformance::Handles;
use tower_web_push::store::{MemoryStore, ScheduleStore};

async fn memory_store() -> Handles<MemoryStore> {
    let store = MemoryStore::new();
    Handles::two(store.clone(), store)
}

tower_web_push::store_conformance!(memory, memory_store);
tower_web_push::portable_conformance!(memory_portable, memory_store);

/// An `Arc` of a store, also behind a trait object, is a store.
async fn shared_store() -> Handles<Arc<MemoryStore>> {
    Handles::one(Arc::new(MemoryStore::new()))
}

tower_web_push::store_conformance!(shared, shared_store);
tower_web_push::portable_conformance!(shared_portable, shared_store);
tower_web_push::subscription_store_conformance!(subscriptions_alone, shared_store);

#[tokio::test]
async fn a_store_behind_a_trait_object_is_a_store() {
    let store: Arc<dyn ScheduleStore> = Arc::new(MemoryStore::new());
    let handles = Handles::one(store);
    tower_web_push::store::conformance::d6_fire_opens_and_moves_on(&handles).await;
}

/// A store outside the crate can keep the contracts.
async fn own_store() -> Handles<OwnStore> {
    Handles::one(OwnStore::default())
}

tower_web_push::store_conformance!(own, own_store);

#[cfg(feature = "sqlite")]
mod sqlite {
    use rusqlite::types::ValueRef;
    use rusqlite::{Connection, Row};
    use tower_web_push::store::SqliteStore;
    use tower_web_push::store::conformance::Handles;

    use super::stored;
    use crate::application_file::{ApplicationFile, PREFIX};

    /// Two handles of one file, as in two processes.
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

    /// Two handles of one application's file, whose own content is checked at the end.
    async fn in_an_applications_file() -> Handles<SqliteStore> {
        let file = ApplicationFile::new();
        let (first, second) = (file.store().await, file.store().await);
        Handles::two(first, second).keeping(file)
    }

    tower_web_push::store_conformance!(file, in_a_file);
    tower_web_push::portable_conformance!(file_portable, in_a_file);
    tower_web_push::store_conformance!(applications_file, in_an_applications_file);
    tower_web_push::portable_conformance!(applications_file_portable, in_an_applications_file);
    tower_web_push::store_conformance!(memory, in_memory);

    #[tokio::test]
    async fn what_is_stored_has_the_known_form() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("push.db");
        let store = SqliteStore::open(&path).await.unwrap();
        stored::fill(&store).await;
        store.close().await.unwrap();
        let lines = lines(&Connection::open(&path).unwrap(), "");
        stored::is(&lines, include_str!("stored/sqlite.txt"));
    }

    /// There the version is a row, and not in the file's header.
    #[tokio::test]
    async fn what_is_stored_in_an_applications_file_has_the_same_form() {
        let file = ApplicationFile::new();
        let store = file.store().await;
        stored::fill(&store).await;
        store.close().await.unwrap();
        let mut lines = lines(&file.connect(), PREFIX);
        let version = lines
            .iter()
            .position(|line| line.starts_with("meta name='layout' value="));
        lines.remove(version.unwrap());
        stored::is(&lines, include_str!("stored/sqlite.txt"));
    }

    /// Each row of the tables whose names begin with a prefix, which is left out.
    fn lines(conn: &Connection, prefix: &str) -> Vec<String> {
        let tables = format!(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB '{prefix}*' ORDER BY rootpage"
        );
        let mut lines = Vec::new();
        for table in rows(conn, &tables, |row| row.get(0)) {
            let sql = format!("SELECT * FROM {table}");
            let table = table.strip_prefix(prefix).unwrap();
            lines.extend(rows(conn, &sql, |row| Ok(format!("{table}{}", parts(row)))));
        }
        lines
    }

    fn rows(
        conn: &Connection,
        sql: &str,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<String>,
    ) -> Vec<String> {
        let mut statement = conn.prepare(sql).unwrap();
        let rows = statement.query_map([], read).unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// The columns that are not null.
    fn parts(row: &Row<'_>) -> String {
        let mut parts = String::new();
        for place in 0..row.as_ref().column_count() {
            let name = row.as_ref().column_name(place).unwrap();
            let value = match row.get_ref(place).unwrap() {
                ValueRef::Null => continue,
                ValueRef::Integer(number) => number.to_string(),
                ValueRef::Text(text) => format!("'{}'", text.escape_ascii()),
                ValueRef::Blob(octets) => format!("x'{}'", octets.escape_ascii()),
                ValueRef::Real(_) => panic!("no column is REAL"),
            };
            parts.push_str(&format!(" {name}={value}"));
        }
        parts
    }
}
