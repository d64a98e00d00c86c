//! Prefixes, and the statements and tables with them.

use super::super::connection;
use super::super::query::all;
use super::*;
use crate::store::StoreErrorKind;

const PREFIX: &str = "web_push_";

fn prefix() -> Prefix {
    Prefix::parse(PREFIX).unwrap()
}

#[test]
fn a_prefix_is_a_part_of_a_name() {
    for good in [
        "a",
        "web_push_",
        "_",
        "Push2_",
        &"x".repeat(32),
        "sqlite",
        "sqlitepush_",
    ] {
        // SQLite ignores the case of names, and the names of lock files have one.
        let lower = good.to_ascii_lowercase();
        assert_eq!(Prefix::parse(good).unwrap().to_string(), lower);
    }
    let long = "x".repeat(33);
    for bad in [
        "",
        "2_",
        "web-push_",
        "p.",
        "p q",
        "p'",
        "\"p",
        "pü",
        "sqlite_p",
        "SQLite_",
        &long,
    ] {
        let error = Prefix::parse(bad).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{bad}");
    }
}

/// In other modules a statement with the name of a table goes through `prepare_cached`, which rewrites it.
#[test]
fn only_what_concerns_the_whole_file_is_run_without_the_prefix() {
    const WHOLE_FILE: [&str; 6] = [
        "backup.rs",
        "connection.rs",
        "log.rs",
        "plans.rs",
        "schema.rs",
        "prefix_tests.rs",
    ];
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/sqlite");
    let mut modules = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.ends_with(".rs") || name.ends_with("_tests.rs") || WHOLE_FILE.contains(&name) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for call in [
            ".execute_batch(",
            ".query_row(",
            ".query_row_and_then(",
            ".prepare(",
            "conn.execute(",
            ".pragma_",
            ".into_inner()",
        ] {
            let found = text.lines().find(|line| {
                line.contains(call)
                    && !line.contains("\"PRAGMA ")
                    && !line.contains("PoisonError::into_inner")
            });
            assert_eq!(found, None, "{name}");
        }
        modules += 1;
    }
    assert!(modules > 20);
}

#[test]
fn names_of_tables_get_the_prefix_and_those_of_columns_do_not() {
    for (plain, own) in [
        (
            "SELECT origin FROM delivery WHERE origin = ?1",
            "SELECT origin FROM web_push_delivery WHERE origin = ?1",
        ),
        (
            "DELETE FROM origin WHERE delivery.origin = origin.id",
            "DELETE FROM web_push_origin WHERE web_push_delivery.origin = web_push_origin.id",
        ),
        (
            "UPDATE OR IGNORE schedule SET owner = 'FROM schedule'",
            "UPDATE OR IGNORE web_push_schedule SET owner = 'FROM schedule'",
        ),
        (
            "SELECT s.key FROM subscription_tag g CROSS JOIN subscription s ON s.key = g.key",
            "SELECT s.key FROM web_push_subscription_tag g CROSS JOIN web_push_subscription s ON s.key = g.key",
        ),
        (
            "INSERT INTO worker (id) VALUES (?1) ON CONFLICT (id) DO UPDATE SET worker = 'it''s'",
            "INSERT INTO web_push_worker (id) VALUES (?1) ON CONFLICT (id) DO UPDATE SET worker = 'it''s'",
        ),
        (
            "SELECT seq FROM broadcast INDEXED BY broadcast_resuming ORDER BY broadcast",
            "SELECT seq FROM web_push_broadcast INDEXED BY web_push_broadcast_resuming ORDER BY broadcast",
        ),
        (
            "-- FROM origin\nUPDATE\n origin SET a",
            "-- FROM origin\nUPDATE\n web_push_origin SET a",
        ),
        ("SAVEPOINT job", "SAVEPOINT job"),
        ("SELECT 'FROM origin", "SELECT 'FROM origin"),
        ("-- FROM origin", "-- FROM origin"),
        (
            "FROM \u{fc}origin, origin\u{fc}",
            "FROM \u{fc}origin, origin\u{fc}",
        ),
        ("", ""),
    ] {
        assert_eq!(prefix().rewrite(plain), own);
    }
}

/// The names of all objects of a kind, and of their tables.
fn objects(conn: &connection::Connection, kind: &str) -> Vec<(String, String)> {
    let sql = "SELECT name, tbl_name FROM sqlite_master WHERE type = ?1 AND name <> 'sqlite_sequence' ORDER BY rowid";
    all(conn, sql, [kind], |row| Ok((row.get()?, row.get()?))).unwrap()
}

/// The columns of the tables, and those of the indexes.
fn columns(conn: &connection::Connection) -> Vec<String> {
    let mut columns = Vec::new();
    for (table, _) in objects(conn, "table") {
        let sql = "SELECT name || ' ' || type || ' ' || \"notnull\" || ' ' || coalesce(dflt_value, '-') || ' ' || pk || hidden \
             FROM pragma_table_xinfo(?1)";
        columns.extend(all(conn, sql, [&table], |row| row.get::<String>()).unwrap());
        let sql = "SELECT \"table\" || \"from\" || coalesce(\"to\", '') || on_delete FROM pragma_foreign_key_list(?1)";
        columns.extend(all(conn, sql, [&table], |row| row.get::<String>()).unwrap());
    }
    for (index, _) in objects(conn, "index") {
        let sql = "SELECT coalesce(name, '') || \"desc\" || key FROM pragma_index_xinfo(?1)";
        columns.extend(all(conn, sql, [&index], |row| row.get::<String>()).unwrap());
    }
    columns
}

#[test]
fn the_tables_are_the_same_but_for_their_names_and_strictness() {
    let own = connection::in_memory().unwrap();
    let shared = connection::in_memory_with(prefix()).unwrap();
    let strict = |conn| {
        let sql = "SELECT count(*) FROM sqlite_master WHERE sql LIKE '%STRICT%'";
        all(conn, sql, [], |row| row.get::<i64>()).unwrap()
    };
    assert_eq!((strict(&shared), strict(&own) > vec![0]), (vec![0], true));
    // In an application's file alone.
    shared
        .execute_batch("DROP TABLE web_push_outbox; DROP TABLE web_push_outbox_refused")
        .unwrap();
    for kind in ["table", "index", "trigger"] {
        let (own, shared) = (objects(&own, kind), objects(&shared, kind));
        let with_prefix = |name: &String| match name.strip_prefix("sqlite_autoindex_") {
            Some(rest) => format!("sqlite_autoindex_{PREFIX}{rest}"),
            None => format!("{PREFIX}{name}"),
        };
        let own = own
            .iter()
            .map(|(name, table)| (with_prefix(name), with_prefix(table)));
        assert!(own.len() > 2, "{kind}");
        assert_eq!(own.collect::<Vec<_>>(), shared);
    }
    let renamed: Vec<_> = columns(&shared)
        .iter()
        .map(|column| column.replace(PREFIX, ""))
        .collect();
    assert_eq!(renamed, columns(&own));
}

#[test]
fn no_column_has_the_name_of_an_index_or_a_trigger() {
    let conn = connection::in_memory().unwrap();
    for (table, _) in objects(&conn, "table") {
        let sql = "SELECT name FROM pragma_table_xinfo(?1)";
        for column in all(&conn, sql, [&table], |row| row.get::<String>()).unwrap() {
            assert!(!NAMES.others.contains(&*column), "{column}");
        }
    }
}
