//! The tables and their version.

use std::borrow::Cow;

use super::connection::Connection;
use super::error::{failed_to_open, misconfigured};
use super::query::{execute, first};
use crate::store::{StoreError, StoreErrorKind, layout};

/// Marks a file of the store's own as this crate's: "wpsh".
const APPLICATION_ID: i64 = 0x7770_7368;
/// The version of the tables. Those below 15 were in use before the first release.
///
/// A file of the store's own has it in its header, as `user_version`. In an application's file, where the header is the
/// application's, it is a row of the table `meta`.
pub(super) const VERSION: i64 = 15;
pub(super) const TABLES: &str = include_str!("tables.sql");
/// The tables of an application's file alone.
pub(super) const OUTBOX: &str = include_str!("outbox.sql");

const LAYOUT: &str = "SELECT value FROM meta WHERE name = 'layout'";
const SET_LAYOUT: &str = "INSERT INTO meta (name, value) VALUES ('layout', ?1) \
     ON CONFLICT (name) DO UPDATE SET value = excluded.value";

/// Refuses a file of another application or version. Returns whether it has the tables.
///
/// Reads only, so that a refused file is not changed.
pub(super) fn check(conn: &Connection) -> Result<bool, StoreError> {
    match conn.is_shared() {
        true => check_shared(conn),
        false => check_own(conn),
    }
}

fn check_own(conn: &Connection) -> Result<bool, StoreError> {
    let ours = number(conn, "PRAGMA application_id")? == APPLICATION_ID;
    let version = number(conn, "PRAGMA user_version")?;
    // Litestream may have made its tables in a new file before.
    let tables = "SELECT count(*) FROM sqlite_master WHERE tbl_name NOT GLOB '_litestream_*'";
    if version == 0 && number(conn, tables)? == 0 {
        return Ok(false);
    }
    if !ours {
        return Err(misconfigured("the file is another application's database"));
    }
    layout::check(version, VERSION).map(|()| true)
}

fn check_shared(conn: &Connection) -> Result<bool, StoreError> {
    if number(conn, "PRAGMA application_id")? == APPLICATION_ID {
        return Err(misconfigured(
            "the file is a store of its own, not an application's database: open it with `SqliteStore::open`",
        ));
    }
    let mut taken = Vec::new();
    for name in conn.prefix().names() {
        let sql = "SELECT 1 FROM sqlite_master WHERE name = ?1 COLLATE NOCASE";
        if first(conn, sql, [&name], |_| Ok(()))?.is_some() {
            taken.push(name);
        }
    }
    let Some(one) = taken.first() else {
        return Ok(false);
    };
    // `Misconfigured`: the table `meta` is missing, or is another one.
    match first(conn, LAYOUT, [], |row| row.get()) {
        Ok(Some(version)) => layout::check(version, VERSION).map(|()| true),
        Err(error) if error.kind() != StoreErrorKind::Misconfigured => Err(error),
        _ => Err(misconfigured(format!(
            "the database has `{one}`, which this store has not made: choose another prefix"
        ))),
    }
}

/// Creates the tables if they are missing, in one transaction.
///
/// Repeatable, and safe if two processes start at once: the second waits and finds the tables.
pub(super) fn migrate(conn: &Connection) -> Result<(), StoreError> {
    let batch = |sql: &str| conn.execute_batch(sql).map_err(failed_to_open);
    batch("BEGIN IMMEDIATE")?;
    let migrated = check(conn).and_then(|has_tables| {
        if !has_tables {
            batch(&tables(conn))?;
        }
        // Written in any case: SQLite begins a transaction on a file without write permission, and only a change fails.
        match conn.is_shared() {
            true => execute(conn, SET_LAYOUT, [VERSION]).map(|_| ())?,
            false => batch(&format!(
                "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
            ))?,
        }
        batch("COMMIT")
    });
    if migrated.is_err() && !conn.is_autocommit() {
        // The first error is the one to return.
        let _ = batch("ROLLBACK");
    }
    migrated
}

/// The statements that create the tables.
fn tables(conn: &Connection) -> Cow<'static, str> {
    if !conn.is_shared() {
        return Cow::Borrowed(TABLES);
    }
    // A library before SQLite 3.37 (2021) cannot read a file with a STRICT table: none of its tables.
    let plain = TABLES.replace("STRICT, ", "").replace(" STRICT;", ";");
    Cow::Owned(conn.prefix().rewrite(&format!("{plain}{OUTBOX}")))
}

fn number(conn: &Connection, sql: &str) -> Result<i64, StoreError> {
    conn.query_row(sql, [], |row| row.get(0))
        .map_err(failed_to_open)
}

#[cfg(test)]
mod tests {
    use super::super::prefix::Prefix;
    use super::*;

    #[test]
    fn only_this_version_is_opened_and_others_are_left_as_they_are() {
        for (version, told) in [
            (VERSION - 1, "before the first release"),
            (VERSION + 1, "newer version"),
        ] {
            let conn = empty(Prefix::default());
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
        for prefix in [Prefix::default(), Prefix::parse("web_push_").unwrap()] {
            let conn = empty(prefix);
            conn.execute_batch(
                "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER)",
            )
            .unwrap();
            assert!(!check(&conn).unwrap());
            for _ in 0..2 {
                migrate(&conn).unwrap();
                assert!(check(&conn).unwrap());
                assert!(conn.is_autocommit());
            }
        }
    }

    #[test]
    fn only_this_version_is_opened_in_an_applications_file() {
        for (version, told) in [
            (VERSION - 1, "before the first release"),
            (VERSION + 1, "newer version"),
        ] {
            let conn = empty(Prefix::parse("push_").unwrap());
            migrate(&conn).unwrap();
            execute(&conn, SET_LAYOUT, [version]).unwrap();
            let reason = refusal(&conn);
            assert!(reason.contains(told), "{reason}");
            assert_eq!(
                first(&conn, LAYOUT, [], |row| row.get::<i64>()).unwrap(),
                Some(version)
            );
        }
    }

    #[test]
    fn names_that_the_application_has_taken_are_refused() {
        for taken in [
            "CREATE TABLE push_meta (name TEXT, value INTEGER)",
            "CREATE TABLE PUSH_META (key TEXT)",
            "CREATE TABLE Push_Subscription (id)",
            "CREATE TABLE a (b); CREATE INDEX push_delivery_ready ON a (b)",
        ] {
            let conn = empty(Prefix::parse("push_").unwrap());
            conn.execute_batch(taken).unwrap();
            let reason = refusal(&conn);
            assert!(reason.contains("another prefix"), "{reason}");
            // Of another prefix, and of none.
            let conn = Connection::new(conn.into_inner(), Prefix::parse("p").unwrap());
            migrate(&conn).unwrap();
        }
    }

    #[test]
    fn a_store_of_its_own_is_not_one_with_a_prefix_and_the_other_way_round() {
        let (none, push) = (Prefix::default(), Prefix::parse("push_").unwrap());
        for (made, opened, told) in [
            (&none, &push, "`SqliteStore::open`"),
            (&push, &none, "another application's"),
        ] {
            let conn = empty(made.clone());
            migrate(&conn).unwrap();
            let conn = Connection::new(conn.into_inner(), opened.clone());
            let reason = refusal(&conn);
            assert!(reason.contains(told), "{reason}");
        }
    }

    fn empty(prefix: Prefix) -> Connection {
        Connection::new(rusqlite::Connection::open_in_memory().unwrap(), prefix)
    }

    fn refusal(conn: &Connection) -> String {
        let tables = "SELECT count(*) FROM sqlite_master";
        let before = number(conn, tables).unwrap();
        let error = migrate(conn).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
        assert!(conn.is_autocommit());
        assert_eq!(number(conn, tables).unwrap(), before);
        std::error::Error::source(&error).unwrap().to_string()
    }
}
