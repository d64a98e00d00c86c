//! The tables and their version.

use rusqlite::Connection;

use super::error::{failed_to_open, misconfigured};
use crate::store::{StoreError, layout};

/// Marks the file as this crate's: "wpsh".
const APPLICATION_ID: i64 = 0x7770_7368;
/// The version of the tables. Those below 11 were in use before the first release.
pub(super) const VERSION: i64 = 11;
const TABLES: &str = include_str!("tables.sql");

/// Refuses a file of another application or version. Returns whether it has the tables.
///
/// Reads only, so that a refused file is not changed.
pub(super) fn check(conn: &Connection) -> Result<bool, StoreError> {
    let ours = number(conn, "PRAGMA application_id")? == APPLICATION_ID;
    let version = number(conn, "PRAGMA user_version")?;
    let tables = number(conn, "SELECT count(*) FROM sqlite_master")?;
    if version == 0 && tables == 0 {
        return Ok(false);
    }
    if !ours {
        return Err(misconfigured("the file is another application's database"));
    }
    layout::check(version, VERSION).map(|()| true)
}

/// Creates the tables if they are missing, in one transaction.
///
/// Repeatable, and safe if two processes start at once: the second waits and finds the tables.
pub(super) fn migrate(conn: &Connection) -> Result<(), StoreError> {
    let batch = |sql: &str| conn.execute_batch(sql).map_err(failed_to_open);
    batch("BEGIN IMMEDIATE")?;
    let migrated = check(conn).and_then(|has_tables| {
        if !has_tables {
            batch(TABLES)?;
        }
        // Written in any case: SQLite begins a transaction on a file without write permission, and only a change fails.
        batch(&format!(
            "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
        ))?;
        batch("COMMIT")
    });
    if migrated.is_err() && !conn.is_autocommit() {
        // The first error is the one to return.
        let _ = batch("ROLLBACK");
    }
    migrated
}

fn number(conn: &Connection, sql: &str) -> Result<i64, StoreError> {
    conn.query_row(sql, [], |row| row.get(0))
        .map_err(failed_to_open)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreErrorKind;

    #[test]
    fn only_this_version_is_opened_and_others_are_left_as_they_are() {
        for (version, told) in [(10, "before the first release"), (12, "newer version")] {
            let conn = Connection::open_in_memory().unwrap();
            let mark = format!(
                "CREATE TABLE subscription (key BLOB); PRAGMA application_id = {APPLICATION_ID}; \
                 PRAGMA user_version = {version};"
            );
            conn.execute_batch(&mark).unwrap();
            let error = migrate(&conn).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
            let reason = std::error::Error::source(&error).unwrap().to_string();
            assert!(reason.contains(told), "{reason}");
            assert!(conn.is_autocommit());
            assert_eq!(number(&conn, "PRAGMA user_version").unwrap(), version);
        }
    }

    #[test]
    fn tables_are_made_once() {
        let conn = Connection::open_in_memory().unwrap();
        assert!(!check(&conn).unwrap());
        for _ in 0..2 {
            migrate(&conn).unwrap();
            assert!(check(&conn).unwrap());
            assert!(conn.is_autocommit());
        }
    }
}
