//! Of SQLite: each case has a copy of a file.

use std::cell::Cell;
use std::fs;
use std::path::Path;

use proptest::test_runner::TestCaseError;
use rusqlite::types::Value as Stored;
use rusqlite::{Connection, params_from_iter};
use tower_web_push::store::{SqliteStore, StoreError};

use super::calls::{Reads, reads, silent};
use super::{Damage, Done, OF_EVERY_CLAIM, Part, Value, check, examine, numbers, runtime};
use crate::application_file::{self, PREFIX};
use crate::support::stored;

pub(super) fn run(cases: u32) {
    run_with("", cases);
}

/// Its tables are not STRICT: a column can have a value of any type.
pub(super) fn run_in_an_applications_file(cases: u32) {
    run_with(PREFIX, cases);
}

async fn open(path: &Path, prefix: &str) -> Result<SqliteStore, StoreError> {
    match prefix {
        "" => SqliteStore::open(path).await,
        prefix => SqliteStore::open_in(path, prefix).await,
    }
}

fn run_with(prefix: &str, cases: u32) {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept.db");
    let runtime = runtime();
    let before: Reads = runtime.block_on(async {
        if !prefix.is_empty() {
            application_file::create(&kept);
        }
        let store = open(&kept, prefix).await.unwrap();
        stored::fill(&store).await;
        store.close().await.unwrap();
        let conn = Connection::open(&kept).unwrap();
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        conn.query_row(checkpoint, [], |_| Ok(())).unwrap();
        // Read as the damaged ones are: by another process.
        let undamaged = folder.path().join("undamaged.db");
        fs::copy(&kept, &undamaged).unwrap();
        let store = open(&undamaged, prefix).await.unwrap();
        let before = reads(&store).await.unwrap();
        store.close().await.unwrap();
        before
    });
    let number = Cell::new(0);
    let case = |damages: Vec<Damage>| {
        number.set(number.get() + 1);
        let path = folder.path().join(format!("{}.db", number.get()));
        fs::copy(&kept, &path).unwrap();
        let done = damage(&path, prefix, &damages);
        let ended = runtime.block_on(opened(&path, prefix, &before, &done));
        for end in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{end}", path.display()));
        }
        ended
    };
    check(cases, case);
    for damage in every_number(&kept, prefix) {
        case(vec![damage]).unwrap();
    }
}

fn every_number(path: &Path, prefix: &str) -> Vec<Damage> {
    let conn = Connection::open(path).unwrap();
    let mut damages = Vec::new();
    for (place, table) in tables(&conn, prefix).iter().enumerate() {
        if OF_EVERY_CLAIM.contains(&table.strip_prefix(prefix).unwrap()) {
            let number = format!("SELECT count(*) FROM \"{table}\"");
            let rows: u16 = conn.query_row(&number, [], |row| row.get(0)).unwrap();
            damages.extend(numbers(place, rows.into(), columns(&conn, table).len()));
        }
    }
    damages
}

fn tables(conn: &Connection, prefix: &str) -> Vec<String> {
    let tables = format!(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB '{prefix}*' \
         AND name NOT GLOB 'sqlite_*' ORDER BY name"
    );
    words(conn, &tables)
}

fn columns(conn: &Connection, table: &str) -> Vec<String> {
    // 0: neither generated nor hidden.
    let columns = format!("SELECT name FROM pragma_table_xinfo('{table}') WHERE hidden = 0");
    words(conn, &columns)
}

async fn opened(
    path: &Path,
    prefix: &str,
    before: &Reads,
    done: &[Done],
) -> Result<(), TestCaseError> {
    match open(path, prefix).await {
        Ok(store) => {
            examine(&store, before, done).await?;
            silent(store.close().await)?;
        }
        // Such as when the version of the tables is gone.
        refused => {
            silent(refused)?;
        }
    }
    Ok(())
}

/// What the database itself refuses is no damage.
fn damage(path: &Path, prefix: &str, damages: &[Damage]) -> Vec<Done> {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    let tables = tables(&conn, prefix);
    let told = |table: &str, told: String| {
        let part = part(table.strip_prefix(prefix).unwrap());
        let name = table.strip_prefix(prefix).unwrap();
        // Without STRICT a column of the queue may have a value of any type, and calls read many of its rows.
        let is_of_queue = ["delivery", "origin", "flow"].contains(&name);
        let is_shared =
            part == Part::All || name == "subscription_number" || !prefix.is_empty() && is_of_queue;
        Done {
            part,
            told,
            is_shared,
        }
    };
    let mut done = Vec::new();
    for ((table, row, column), value) in damages {
        let table = &tables[usize::from(*table) % tables.len()];
        let columns = columns(&conn, table);
        let column = usize::from(*column) % columns.len();
        let list = columns.join("\", \"");
        let number = format!("SELECT count(*) FROM \"{table}\"");
        let rows: i64 = conn.query_row(&number, [], |row| row.get(0)).unwrap();
        if rows == 0 {
            continue;
        }
        let offset = i64::from(*row) % rows;
        let select = format!("SELECT \"{list}\" FROM \"{table}\" LIMIT 1 OFFSET {offset}");
        let old: Vec<Stored> = conn
            .query_row(&select, [], |row| {
                (0..columns.len()).map(|place| row.get(place)).collect()
            })
            .unwrap();
        let same: Vec<_> = (columns.iter().zip(1..))
            .map(|(name, place)| format!("\"{name}\" IS ?{place}"))
            .collect();
        let same = same.join(" AND ");
        if let Value::Copy(number) = value {
            let mut copy = old.clone();
            copy[column] = other(&old[column], *number);
            let places: Vec<_> = (1..=copy.len()).map(|place| format!("?{place}")).collect();
            let places = places.join(", ");
            let sql = format!("INSERT INTO \"{table}\" (\"{list}\") VALUES ({places})");
            if conn.execute(&sql, params_from_iter(&copy)).is_ok() {
                done.push(told(table, format!("{table} copied: {copy:?}")));
            }
            continue;
        }
        let changed = match new(&old[column], value) {
            // The row itself is removed.
            None => conn.execute(
                &format!("DELETE FROM \"{table}\" WHERE {same}"),
                params_from_iter(&old),
            ),
            Some(new) => {
                let name = &columns[column];
                let place = old.len() + 1;
                let sql = format!("UPDATE \"{table}\" SET \"{name}\" = ?{place} WHERE {same}");
                conn.execute(&sql, params_from_iter(old.iter().chain([&new])))
            }
        };
        if changed.is_ok_and(|changed| changed > 0) {
            let text = format!(
                "{table} {}: {value:?} for {:?}",
                columns[column], old[column]
            );
            done.push(told(table, text));
        }
    }
    done
}

fn words(conn: &Connection, sql: &str) -> Vec<String> {
    let mut statement = conn.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

fn new(old: &Stored, value: &Value) -> Option<Stored> {
    Some(match value {
        Value::Null => Stored::Null,
        Value::Number(number) => Stored::Integer(*number),
        Value::Text(text) => Stored::Text(text.clone()),
        Value::Octets(octets) => Stored::Blob(octets.clone()),
        Value::Cut(len) => match old {
            Stored::Text(text) => Stored::Text(text.chars().take(usize::from(*len) % 40).collect()),
            Stored::Blob(octets) => {
                Stored::Blob(octets[..usize::from(*len) % (octets.len() + 1)].to_vec())
            }
            _ => return None,
        },
        Value::OtherKind => Stored::Real(0.5),
        Value::Copy(_) => return None,
    })
}

/// Another value of the same type.
fn other(old: &Stored, number: u8) -> Stored {
    match old {
        Stored::Text(_) => Stored::Text(number.to_string()),
        Stored::Blob(octets) => Stored::Blob(vec![number; octets.len()]),
        _ => Stored::Integer(i64::from(number) + 1_000),
    }
}

fn part(table: &str) -> Part {
    match table {
        "meta" => Part::All,
        "vapid_key" => Part::Keys,
        "schedule" | "day_count" => Part::Schedules,
        _ if table.starts_with("subscription") => Part::Subscriptions,
        _ => Part::Ledger,
    }
}
