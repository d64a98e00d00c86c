//! Plans of statements whose cost must not grow with the tables.

use rusqlite::types::{Null, Value};
use rusqlite::{StatementStatus, params, params_from_iter};

use super::connection::Connection;
use super::prefix::Prefix;
use super::{
    broadcasts, claims, connection, content, due_origins, erase, expansion, far_rows, holding,
    listing, liveness, outbox, pauses, portable, query, samples, schedules, subscription_count,
    subscriptions, tallies, turns, watch,
};

fn plan(conn: &Connection, sql: &str) -> String {
    let sql = conn.prefix().rewrite(sql);
    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let values = vec![Null; statement.parameter_count()];
    let lines = statement
        .query_map(params_from_iter(values), |row| row.get::<_, String>(3))
        .unwrap();
    let lines: Vec<_> = lines.map(Result::unwrap).collect();
    lines.join("\n")
}

/// These read one row, or the first rows in the order of an index.
const SHORT: &[(&str, &str)] = &[
    (
        broadcasts::BY_ID,
        "INDEX sqlite_autoindex_broadcast_1 (id=?)",
    ),
    (broadcasts::BY_SEQ, "INTEGER PRIMARY KEY (rowid=?)"),
    (
        broadcasts::BY_IDEMPOTENCY_KEY,
        "INDEX broadcast_idempotency (idempotency_key=?)",
    ),
    (broadcasts::SAVE, "INTEGER PRIMARY KEY (rowid=?)"),
    (
        expansion::EXPANDABLE,
        "INDEX broadcast_expanding (is_urgent=? AND expand_at<?)",
    ),
    (
        expansion::EXPANDABLE_AHEAD,
        "INDEX broadcast_started (is_urgent=? AND expand_at>?)",
    ),
    (
        samples::SEQ,
        "COVERING INDEX sqlite_autoindex_broadcast_1 (id=?)",
    ),
    (broadcasts::FORGET_UNREADABLE, "PRIMARY KEY (broadcast=?)"),
    (
        far_rows::PULL,
        "INDEX delivery_waiting (leased=? AND at>? AND at<?)",
    ),
    (holding::HOLD, "INTEGER PRIMARY KEY (rowid=?)"),
    (
        holding::STAND_IN_FRONT,
        "INDEX delivery_waiting (leased=? AND at=?",
    ),
    (holding::STAND_IN_FRONT, "PRIMARY KEY (broadcast=?)"),
    (holding::PUT_ASIDE, "PRIMARY KEY (broadcast=? AND key=?)"),
    (
        holding::BRING_BACK,
        "COVERING INDEX delivery_waiting (leased=? AND at=?",
    ),
    (expansion::MOVE_CURSOR, "INTEGER PRIMARY KEY (rowid=?)"),
    (broadcasts::UNLEASED, "PRIMARY KEY (broadcast=?)"),
    (broadcasts::DELETE_LEFT, "PRIMARY KEY (broadcast=?)"),
    (broadcasts::DELETE, "PRIMARY KEY (broadcast=? AND key=?)"),
    (broadcasts::END, "PRIMARY KEY (broadcast=? AND key=?)"),
    (broadcasts::LATE, "INDEX broadcast_open (deadline<?)"),
    (broadcasts::PRUNE, "INDEX broadcast_ended (ended_at<?)"),
    (broadcasts::NEXT_ORIGINS, "INTEGER PRIMARY KEY (rowid>?)"),
    (
        broadcasts::PRUNE_ORIGINS,
        "INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
    ),
    (erase::OPEN, "INTEGER PRIMARY KEY (rowid>?)"),
    (erase::ROW, "PRIMARY KEY (broadcast=? AND key=?)"),
    (
        broadcasts::ORIGIN_ID,
        "COVERING INDEX sqlite_autoindex_origin_1 (origin=?)",
    ),
    (
        due_origins::FIRST,
        "COVERING INDEX delivery_ready (origin=?)",
    ),
    (due_origins::WAKE, "INDEX origin_waiting (resumes_at<?)"),
    (
        due_origins::WAITING,
        "INDEX delivery_waiting (leased=? AND at<?)",
    ),
    (
        due_origins::LATER,
        "COVERING INDEX delivery_waiting (leased=? AND at>? AND at<?)",
    ),
    (due_origins::LONGEST, "INDEX delivery_waiting (leased=?)"),
    (
        due_origins::HEAD,
        "INDEX delivery_ready (origin=? AND band=?",
    ),
    (due_origins::READY, "INDEX origin_ready (turn>?"),
    (
        due_origins::READY_NAMED,
        "INDEX sqlite_autoindex_origin_1 (origin=?)",
    ),
    (due_origins::NAME, "INTEGER PRIMARY KEY (rowid=?)"),
    (due_origins::PLACE, "INTEGER PRIMARY KEY (rowid=?)"),
    (due_origins::SERVED, "INTEGER PRIMARY KEY (rowid=?)"),
    (due_origins::BRING_FORWARD, "INTEGER PRIMARY KEY (rowid=?)"),
    (due_origins::PARK, "INTEGER PRIMARY KEY (rowid=?)"),
    (
        claims::CLAIMABLE,
        "INDEX delivery_ready (origin=? AND band=?",
    ),
    (claims::NEXT_FENCE, "PRIMARY KEY (name=?)"),
    (claims::PROBED, "INTEGER PRIMARY KEY (rowid=?)"),
    (
        claims::END_PROBE,
        "INDEX origin_probe (probe_fence=? AND probe_key=?)",
    ),
    (liveness::STRIKE, "INTEGER PRIMARY KEY (rowid=?)"),
    (
        liveness::LEASED_BY,
        "INDEX delivery_waiting (leased=? AND at>? AND at<?)",
    ),
    (liveness::END_LEASE, "PRIMARY KEY (broadcast=? AND key=?)"),
    (claims::LEASE, "PRIMARY KEY (broadcast=? AND key=?)"),
    (claims::FINISH, "PRIMARY KEY (broadcast=? AND key=?)"),
    (claims::POSTPONE, "PRIMARY KEY (broadcast=? AND key=?)"),
    (content::MESSAGE, "INTEGER PRIMARY KEY (rowid=?)"),
    (content::IS_FORGOTTEN, "INTEGER PRIMARY KEY (rowid=?)"),
    (content::DELETE, "INTEGER PRIMARY KEY (rowid=?)"),
    (broadcasts::FORGET, "INTEGER PRIMARY KEY (rowid=?)"),
    (pauses::PAUSE, "INTEGER PRIMARY KEY (rowid=?)"),
    (
        pauses::PAUSE_OF,
        "INDEX sqlite_autoindex_origin_1 (origin=?)",
    ),
    (pauses::LIFT, "INDEX sqlite_autoindex_origin_1 (origin=?)"),
    (
        pauses::NEXT_EXPANSION,
        "INDEX broadcast_expanding (is_urgent=? AND expand_at>?)",
    ),
    (pauses::NEXT_DEADLINE, "INDEX broadcast_open (deadline>?)"),
    (
        pauses::LEASED,
        "COVERING INDEX delivery_waiting (leased=? AND at>? AND at<?)",
    ),
    (
        turns::CLAIMED_BY_NAME,
        "INDEX sqlite_autoindex_origin_1 (origin=?)",
    ),
    (turns::CLAIMED, "INTEGER PRIMARY KEY (rowid=?)"),
    (turns::LAST, "PRIMARY KEY (broadcast=? AND origin=?)"),
    (turns::FORGET, "PRIMARY KEY (broadcast=?)"),
    (turns::DUE, "INDEX delivery_waiting (leased=? AND at<?)"),
    (turns::MAKE_READY, "PRIMARY KEY (broadcast=? AND key=?)"),
    (tallies::TALLY, "INDEX sqlite_autoindex_origin_1 (origin=?)"),
    (tallies::SAVE, "INTEGER PRIMARY KEY (rowid=?)"),
    (subscriptions::PAGE_ALL, "PRIMARY KEY (key>?)"),
    (
        subscriptions::PAGE_USER,
        "INDEX subscription_principal (principal=? AND key>?)",
    ),
    (
        subscriptions::OWNED,
        "INDEX subscription_principal (principal=? AND key>?)",
    ),
    (
        subscriptions::PAGE_TAG,
        "COVERING INDEX subscription_by_tag (tag=? AND key>?)",
    ),
    (
        subscriptions::PURGE_RETIRED,
        "INDEX subscription_retired (retired_at<?)",
    ),
    (
        subscriptions::PURGE_STALE,
        "INDEX subscription_stale_since (stale_since<?)",
    ),
    (
        subscriptions::PURGE_EXPIRED,
        "INDEX subscription_expires (expires_at<?)",
    ),
    (
        listing::BROADCASTS,
        "INDEX broadcast_created (created_at>? AND (created_at,id)<(?,?))",
    ),
    (
        listing::OPEN_BROADCASTS,
        "INDEX broadcast_open_created (created_at>? AND (created_at,id)<(?,?))",
    ),
    (listing::SUBSCRIPTIONS, "PRIMARY KEY (key>?)"),
    (
        listing::UNREACHABLE,
        "INDEX subscription_unreachable (key>?)",
    ),
    (
        listing::OF_USER,
        "INDEX subscription_principal (principal=? AND key>?)",
    ),
    (
        listing::OF_TAG,
        "COVERING INDEX subscription_by_tag (tag=? AND key>?)",
    ),
    (samples::OF_SEQ, "INTEGER PRIMARY KEY (rowid=?)"),
    (
        portable::RETIRED,
        "INDEX subscription_retired ((retired_at,key)>(?,?))",
    ),
    (
        portable::STALE,
        "INDEX subscription_stale_since ((stale_since,key)>(?,?))",
    ),
    (portable::DELETE_KEY, "PRIMARY KEY (key=?)"),
    (portable::DELETE_ID, "(id=?)"),
    (portable::COMPLETE, "PRIMARY KEY (key=?)"),
    (
        subscriptions::EXPIRED,
        "INDEX subscription_expiring (expires_at<?)",
    ),
    (
        schedules::DUE,
        "INDEX schedule_due ((next_fire_at,owner,name)>(?,?,?) AND next_fire_at<?)",
    ),
    (schedules::FIRE, "PRIMARY KEY (owner=? AND name=?)"),
    (schedules::NEXT, "COVERING INDEX schedule_due"),
    (schedules::OF, "PRIMARY KEY (owner=?)"),
    (watch::NEWEST, "SEARCH broadcast"),
];

/// These are of an application's file alone, and read one row or the first rows by their number.
const OF_THE_OUTBOX: &[&str] = &[
    outbox::WAITING,
    outbox::REFUSED,
    outbox::IS_WAITING,
    outbox::REMOVE,
    outbox::DROP,
];

/// These read a whole table of an application's file.
const COUNTS_OF_THE_OUTBOX: &[(&str, &str)] = &[
    (outbox::COUNT_WAITING, "SCAN web_push_outbox"),
    (outbox::COUNT_REFUSED, "SCAN web_push_outbox_refused"),
];

/// These sort or scan few rows: open broadcasts, origins, one principal's subscriptions.
const OF_FEW_ROWS: &[(&str, &str)] = &[
    (broadcasts::UNDERWAY, "INDEX broadcast_open"),
    (broadcasts::CANCELLED, "INDEX broadcast_cancelled"),
    (holding::RESUMING, "INDEX broadcast_resuming"),
    (due_origins::PAUSED, "INDEX origin_waiting"),
    (claims::PROBES, "COVERING INDEX origin_probe"),
    (pauses::PAUSES, "INDEX origin_paused (paused_until>?)"),
    (pauses::DEPTH, "INDEX broadcast_open"),
    (tallies::TALLIES, "INDEX sqlite_autoindex_origin_1"),
    (
        subscriptions::EVICT,
        "INDEX subscription_principal (principal=?)",
    ),
];

#[test]
fn nothing_that_runs_often_scans_a_table_or_sorts() {
    let conn = connection::in_memory().unwrap();
    for (sql, uses) in SHORT {
        let plan = plan(&conn, sql);
        assert!(plan.contains(uses), "{sql}\n{plan}");
        assert!(!plan.contains("SCAN"), "{sql}\n{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
    }
    for (sql, uses) in OF_FEW_ROWS {
        let plan = plan(&conn, sql);
        assert!(plan.contains(uses), "{sql}\n{plan}");
    }
}

/// What `ANALYZE` and `PRAGMA optimize` leave, by the number of values of an index's columns.
fn analyzed(describe: impl Fn(&str, &str, usize) -> String) -> Connection {
    let conn = connection::in_memory().unwrap();
    conn.execute_batch("ANALYZE; DELETE FROM sqlite_stat1")
        .unwrap();
    // The primary key of a table without rowids has the table's name there. A table without an index has a null.
    let sql = "SELECT t.name, iif(i.origin = 'pk' AND l.wr, t.name, i.name), \
               (SELECT count(*) FROM pragma_index_info(i.name)) \
               FROM sqlite_master t JOIN pragma_table_list l ON l.name = t.name \
               LEFT JOIN pragma_index_list(t.name) i WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'";
    let indexes: Vec<(String, Option<String>, i64)> = query::all(&conn, sql, [], |row| {
        Ok((row.get()?, row.get()?, row.get()?))
    })
    .unwrap();
    for (table, index, columns) in indexes {
        let columns = usize::try_from(columns).unwrap();
        let stat = describe(&table, index.as_deref().unwrap_or(&table), columns);
        let sql = "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (?1, ?2, ?3)";
        query::execute(&conn, sql, params![table, index, stat]).unwrap();
    }
    conn.execute_batch("ANALYZE sqlite_master").unwrap();
    conn
}

/// The statistics of an index: the rows, and how many have the same value in its first column, its first two, and so on.
fn stat(rows: u32, same: u32, columns: usize) -> String {
    format!("{rows}{}", format!(" {same}").repeat(columns))
}

/// Of maintenance, which is not repeated with each message: on a table that had one row it prefers to read all of it, also
/// when the table has grown.
const MAY_SCAN: &[&str] = &[
    broadcasts::PRUNE,
    broadcasts::NEXT_ORIGINS,
    broadcasts::PRUNE_ORIGINS,
    erase::OPEN,
    tallies::TALLIES,
];

/// An application runs `ANALYZE` on its file when it likes: on the first day, with one row in each table.
#[test]
fn an_analysis_by_the_application_changes_no_plan() {
    let tables = [
        "subscription",
        "broadcast",
        "content",
        "origin",
        "delivery",
        "schedule",
    ];
    let mut found = vec![
        analyzed(|_, _, columns| stat(1, 1, columns)),
        analyzed(|_, _, columns| stat(1_000_000, 500_000, columns)),
        analyzed(|_, _, columns| stat(1_000_000, 1, columns)),
        // Those that tell the planner most against the right index.
        analyzed(|_, index, columns| match index {
            "delivery_origin"
            | "sqlite_autoindex_broadcast_1"
            | "sqlite_autoindex_origin_1"
            | "subscription"
            | "schedule" => stat(10, 1, columns),
            _ => stat(1_000_000, 1_000_000, columns),
        }),
        analyzed(|_, index, columns| match index {
            "delivery" => stat(10, 1, columns),
            _ => stat(1_000_000, 1_000_000, columns),
        }),
    ];
    for one in tables {
        found.push(analyzed(|table, _, columns| match table == one {
            true => stat(1, 1, columns),
            false => stat(1_000_000, 1000, columns),
        }));
    }
    for conn in found {
        for (sql, uses) in SHORT.iter().chain(OF_FEW_ROWS) {
            let plan = plan(&conn, sql);
            if !MAY_SCAN.contains(sql) {
                assert!(plan.contains(uses), "{sql}\n{plan}");
            }
        }
        for (sql, _) in SHORT.iter().filter(|(sql, _)| !MAY_SCAN.contains(sql)) {
            let plan = plan(&conn, sql);
            assert!(!plan.contains("SCAN"), "{sql}\n{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
        }
    }
}

#[test]
fn in_an_applications_file_the_plans_are_the_same() {
    let own = connection::in_memory().unwrap();
    let prefix = Prefix::parse("web_push_").unwrap();
    let shared = connection::in_memory_with(prefix).unwrap();
    for sql in OF_THE_OUTBOX {
        let plan = plan(&shared, sql);
        assert!(plan.contains("INTEGER PRIMARY KEY (rowid"), "{sql}\n{plan}");
        assert!(!plan.contains("SCAN"), "{sql}\n{plan}");
    }
    for (sql, scans) in COUNTS_OF_THE_OUTBOX {
        assert!(plan(&shared, sql).contains(scans), "{sql}");
    }
    let statements = SHORT.iter().chain(OF_FEW_ROWS).map(|(sql, _)| *sql);
    for sql in statements.chain([subscription_count::GROUPS, subscription_count::LIVE_OF_TAG]) {
        assert_ne!(shared.prefix().rewrite(sql), sql);
        let plan_here = plan(&shared, sql).replace("web_push_", "");
        assert_eq!(plan_here, plan(&own, sql), "{sql}");
    }
}

#[test]
fn no_statement_of_the_ledger_is_without_its_plan() {
    let here = include_str!("plans.rs");
    for (module, text) in [
        ("broadcasts", include_str!("broadcasts.rs")),
        ("claims", include_str!("claims.rs")),
        ("content", include_str!("content.rs")),
        ("due_origins", include_str!("due_origins.rs")),
        ("erase", include_str!("erase.rs")),
        ("expansion", include_str!("expansion.rs")),
        ("far_rows", include_str!("far_rows.rs")),
        ("holding", include_str!("holding.rs")),
        ("outbox", include_str!("outbox.rs")),
        ("pauses", include_str!("pauses.rs")),
        ("tallies", include_str!("tallies.rs")),
        ("turns", include_str!("turns.rs")),
    ] {
        let statements = text.split("const ").skip(1).filter_map(|constant| {
            let (name, rest) = constant.split_once(": &str =")?;
            let (statement, _) = rest.split_once(';')?;
            // An insertion has no plan.
            (!statement.contains("INSERT")).then_some(name)
        });
        for name in statements {
            let listed = format!("({module}::{name},");
            let listed_long = format!("{module}::{name},\n");
            assert!(
                here.contains(&listed) || here.contains(&listed_long),
                "{module}::{name}"
            );
        }
        let hidden = ["\"SELECT ", "\"UPDATE ", "\"DELETE "]
            .iter()
            .map(|verb| text.matches(verb).count())
            .sum::<usize>();
        let named = text.matches(": &str =").count() - text.matches("\"INSERT ").count();
        assert_eq!(hidden, named, "{module}: a statement without a name");
    }
}

/// A plan that depends on the values of parameters is made anew for each of them, which takes longer than the reading.
#[test]
fn no_statement_is_compiled_again_for_other_values() {
    let conn = connection::in_memory().unwrap();
    for (sql, _) in SHORT.iter().chain(OF_FEW_ROWS) {
        let mut statement = conn.prepare(sql).unwrap();
        for value in 1..4_i64 {
            let values = vec![value; statement.parameter_count()];
            let mut rows = statement.query(params_from_iter(values)).unwrap();
            // An error of the types is no error of the plan.
            while let Ok(Some(_)) = rows.next() {}
        }
        let again = statement.get_status(StatementStatus::RePrepare);
        assert_eq!(again, 0, "{sql}");
    }
}

/// No statement reads all rows that have expired: anyone can register rows that expire in the same minute.
#[test]
fn the_cost_does_not_grow_with_rows_that_have_expired() {
    const FILL: &str = "WITH RECURSIVE number (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM number WHERE i < 100000) \
         INSERT INTO subscription (key, id, endpoint, p256dh, auth, expires_at, vapid_key, push_service, created_at, \
             keys_changed_at, last_seen_at, failure_streak) \
         SELECT CAST(printf('%032d', i) AS BLOB), CAST(printf('%016d', i) AS BLOB), 'https://push.example.net/' || i, \
             zeroblob(65), zeroblob(16), 5000, zeroblob(16), 'other', 1, 1, 1, 0 FROM number";
    let conn = connection::in_memory().unwrap();
    conn.execute_batch(FILL).unwrap();
    let steps = |sql: &str, values: &[Value]| {
        let mut statement = conn.prepare(sql).unwrap();
        let mut rows = statement.query(params_from_iter(values)).unwrap();
        while rows.next().unwrap().is_some() {}
        drop(rows);
        statement.get_status(StatementStatus::VmStep)
    };
    let (now, step) = (Value::from(6000_i64), Value::from(1000_i64));
    let key = Value::from(Vec::<u8>::new());
    let tag = Value::from("news".to_owned());
    for (sql, values) in [
        (subscription_count::GROUPS, vec![now.clone(), step.clone()]),
        (
            subscription_count::LIVE_OF_TAG,
            vec![tag.clone(), now.clone(), step.clone()],
        ),
        (subscription_count::TOTAL, vec![]),
        (
            subscriptions::PAGE_ALL,
            vec![key.clone(), now.clone(), step.clone()],
        ),
        (
            subscriptions::PAGE_TAG,
            vec![key, now.clone(), step.clone(), tag],
        ),
        (subscriptions::EXPIRED, vec![now, step]),
    ] {
        let steps = steps(sql, &values);
        assert!(steps < 100_000, "{steps}: {sql}");
    }
}

#[test]
fn counting_reads_no_row_that_is_not_expired() {
    let conn = connection::in_memory().unwrap();
    let number = "subscription_number USING PRIMARY KEY (kind=?";
    let expired = "COVERING INDEX subscription_expiring (expires_at<?)";
    for (sql, uses) in [
        (subscription_count::GROUPS, [number, expired].as_slice()),
        (subscription_count::TOTAL, &[number]),
        (
            subscription_count::LIVE_OF_TAG,
            &[
                number,
                expired,
                "SEARCH g USING PRIMARY KEY (key=? AND tag=?)",
            ],
        ),
        (
            subscription_count::OF_USER,
            &["INDEX subscription_principal (principal=?)"],
        ),
        (
            subscription_count::OF_TAG,
            &["subscription_by_tag (tag=?)", "PRIMARY KEY (key=?)"],
        ),
    ] {
        let plan = plan(&conn, sql);
        for uses in uses {
            assert!(plan.contains(uses), "{sql}\n{plan}");
        }
        assert!(!plan.contains("SCAN subscription"), "{sql}\n{plan}");
    }
}
