//! The plans of the statements whose cost must not grow with the tables.

use rusqlite::types::Null;
use rusqlite::{Connection, params_from_iter};

use super::broadcasts::{EXPANDABLE, EXPANDABLE_AHEAD, LATE, PRUNE, UNDERWAY, UNLEASED};
use super::claims::{CLAIMABLE, FINISH, NEXT_ORIGIN, ORIGIN};
use super::pauses::{DEPTH, LEASED, NEXT_DEADLINE, NEXT_EXPANSION, PAUSES};
use super::schedules::DUE;
use super::subscriptions::{EVICT, PAGE_ALL, PAGE_TAG, PAGE_USER, PURGE, count_statement};
use super::{connection, schema};
use crate::broadcast::{Audience, Tag};
use crate::clock::Timestamp;
use crate::push_service::PushService;
use crate::store::{CountFilter, Liveness};
use crate::vapid::KeyId;

fn plan(conn: &Connection, sql: &str) -> String {
    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let values = vec![Null; statement.parameter_count()];
    let lines = statement
        .query_map(params_from_iter(values), |row| row.get::<_, String>(3))
        .unwrap();
    let lines: Vec<_> = lines.map(Result::unwrap).collect();
    lines.join("\n")
}

#[test]
fn nothing_that_runs_often_scans_a_table_or_sorts() {
    let conn = connection::in_memory().unwrap();
    for (sql, uses) in [
        (NEXT_ORIGIN, "COVERING INDEX delivery_due (origin>?)"),
        (ORIGIN, "INTEGER PRIMARY KEY (rowid=?)"),
        (CLAIMABLE, "INDEX delivery_due (origin=? AND at<?)"),
        (FINISH, "PRIMARY KEY (broadcast=? AND key=?)"),
        (UNLEASED, "PRIMARY KEY (broadcast=?)"),
        (EXPANDABLE, "INDEX broadcast_expanding (expanded_at<?)"),
        (EXPANDABLE_AHEAD, "INDEX broadcast_started (expanded_at>?)"),
        (LATE, "INDEX broadcast_open (deadline<?)"),
        (PRUNE, "INDEX broadcast_ended (ended_at<?)"),
        (NEXT_EXPANSION, "INDEX broadcast_expanding (expanded_at>?)"),
        (NEXT_DEADLINE, "INDEX broadcast_open (deadline>?)"),
        (LEASED, "COVERING INDEX delivery_leased (at>?)"),
        (PAGE_ALL, "PRIMARY KEY (key>?)"),
        (
            PAGE_USER,
            "INDEX subscription_principal (principal=? AND key>?)",
        ),
        (
            PAGE_TAG,
            "COVERING INDEX subscription_by_tag (tag=? AND key>?)",
        ),
        (PURGE, "INDEX subscription_retired (retired_at<?)"),
        (DUE, "INDEX schedule_due (next_fire_at<?)"),
    ] {
        let plan = plan(&conn, sql);
        assert!(plan.contains(uses), "{sql}\n{plan}");
        assert!(!plan.contains("SCAN"), "{sql}\n{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
    }
    // These sort or scan few rows: one principal's, the open broadcasts', the paused origins'.
    for (sql, uses) in [
        (PAUSES, "INDEX origin_paused (paused_until>?)"),
        (UNDERWAY, "INDEX broadcast_open"),
        (EVICT, "INDEX subscription_principal (principal=?)"),
        (DEPTH, "INDEX broadcast_open"),
    ] {
        let plan = plan(&conn, sql);
        assert!(plan.contains(uses), "{sql}\n{plan}");
    }
}

#[test]
fn counting_reads_an_index_only() {
    let conn = connection::in_memory().unwrap();
    let now = Timestamp::from_secs(0);
    for (liveness, index) in [
        (Liveness::Live, "COVERING INDEX subscription_live"),
        (Liveness::Stale, "COVERING INDEX subscription_stale"),
        (Liveness::Retired, "COVERING INDEX subscription_retired"),
    ] {
        let mut filter = CountFilter::new(Audience::All, liveness);
        let all = plan(&conn, &count_statement(&filter, now).0);
        assert!(all.contains(index), "{all}");
        if liveness != Liveness::Retired {
            filter.push_service = Some(PushService::Fcm);
            filter.vapid_key = Some(KeyId::from_bytes([1; KeyId::LEN]));
            let one = plan(&conn, &count_statement(&filter, now).0);
            let uses = format!("{index} (push_service=? AND vapid_key=?");
            assert!(one.contains(&uses), "{one}");
        }
    }
    let tag = Audience::Tag(Tag::parse("a").unwrap());
    let tagged = plan(
        &conn,
        &count_statement(&CountFilter::new(tag, Liveness::Live), now).0,
    );
    assert!(tagged.contains("subscription_by_tag (tag=?)"), "{tagged}");
    assert!(tagged.contains("PRIMARY KEY (key=?)"), "{tagged}");
}

#[test]
fn migrating_twice_changes_nothing() {
    let conn = connection::in_memory().unwrap();
    let tables = |conn: &Connection| -> i64 {
        let sql = "SELECT count(*) FROM sqlite_master";
        conn.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let before = tables(&conn);
    schema::migrate(&conn).unwrap();
    assert_eq!(tables(&conn), before);
    assert!(conn.is_autocommit());
}
