//! An application's database file, with tables, marks and data of its own that a store in it leaves as they are.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::types::Value;
use tempfile::TempDir;
use tower_web_push::store::SqliteStore;

pub(crate) const PREFIX: &str = "web_push_";

/// Beside its own tables those of Litestream and sqlx, and some with the plain names of the store's.
const THEIRS: &str = "
    PRAGMA user_version = 42;
    PRAGMA application_id = 1234;
    CREATE TABLE orders (id INTEGER PRIMARY KEY, state TEXT NOT NULL);
    INSERT INTO orders (state) VALUES ('paid'), ('shipped');
    CREATE INDEX orders_by_state ON orders (state);
    CREATE TABLE subscription (id INTEGER PRIMARY KEY AUTOINCREMENT, plan TEXT);
    INSERT INTO subscription (plan) VALUES ('monthly');
    CREATE TABLE meta (name TEXT, value INTEGER);
    INSERT INTO meta VALUES ('layout', 3), ('fence', 7), ('subscriptions', 9);
    CREATE TABLE worker (id INTEGER PRIMARY KEY);
    INSERT INTO worker VALUES (1), (2);
    CREATE TABLE delivery (broadcast, key, origin, band, turn, at, leased, fence, attempt, worker);
    INSERT INTO delivery VALUES (1, x'00', 1, 1, 1, 0, 0, 0, 0, 0);
    CREATE TABLE origin (id INTEGER PRIMARY KEY, origin TEXT);
    INSERT INTO origin VALUES (1, 'https://push.example.net');
    CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER);
    CREATE TABLE _litestream_lock (id INTEGER);
    CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL);
    INSERT INTO _sqlx_migrations VALUES (20260101, 'orders');
";

/// The file in a folder of its own.
pub(crate) struct ApplicationFile {
    _folder: TempDir,
    pub(crate) path: PathBuf,
    before: Vec<String>,
}

impl ApplicationFile {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.db");
        create(&path);
        Self {
            before: theirs(&path),
            path,
            _folder: folder,
        }
    }

    pub(crate) async fn store(&self) -> SqliteStore {
        SqliteStore::open_in(&self.path, PREFIX).await.unwrap()
    }

    pub(crate) fn connect(&self) -> Connection {
        let conn = Connection::open(&self.path).unwrap();
        conn.busy_timeout(std::time::Duration::from_secs(10))
            .unwrap();
        conn
    }

    /// Asserts that all but the store's tables is as it was.
    pub(crate) fn assert_unchanged(&self) {
        assert_eq!(theirs(&self.path), self.before);
    }
}

impl Drop for ApplicationFile {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_unchanged();
        }
    }
}

/// Makes such a file.
pub(crate) fn create(path: &Path) {
    let conn = Connection::open(path).unwrap();
    conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
        .unwrap();
    conn.execute_batch(THEIRS).unwrap();
}

/// The marks of a file, and everything in it that is not the store's, as text.
fn theirs(path: &Path) -> Vec<String> {
    let conn = Connection::open(path).unwrap();
    let mut lines = Vec::new();
    for pragma in [
        "user_version",
        "application_id",
        "journal_mode",
        "page_size",
        "auto_vacuum",
        "encoding",
    ] {
        let value: Value = conn
            .pragma_query_value(None, pragma, |row| row.get(0))
            .unwrap();
        lines.push(format!("{pragma} {value:?}"));
    }
    let schema = "SELECT name, coalesce(sql, ''), type FROM sqlite_schema \
         WHERE name NOT GLOB 'web_push_*' AND name NOT GLOB 'sqlite_autoindex_web_push_*' ORDER BY rowid";
    let mut statement = conn.prepare(schema).unwrap();
    let objects = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let objects: Vec<(String, String, String)> = objects.unwrap().map(Result::unwrap).collect();
    for (name, sql, kind) in objects {
        lines.push(format!("{name} {sql}"));
        if kind == "table" {
            let mut statement = conn.prepare(&format!("SELECT * FROM \"{name}\"")).unwrap();
            let columns = statement.column_count();
            let rows = statement.query_map([], |row| {
                (0..columns)
                    .map(|column| row.get::<_, Value>(column))
                    .collect()
            });
            let rows: Vec<Vec<Value>> = rows.unwrap().map(Result::unwrap).collect();
            // The outbox has a row there.
            let rows = rows.iter().map(|row| format!("{row:?}"));
            lines.extend(rows.filter(|row| !row.contains("web_push_")));
        }
    }
    lines
}
