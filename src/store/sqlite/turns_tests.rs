//! The cost of a claim, and the wait of one message, behind many rows and broadcasts at one origin.
//!
//! The long form, which takes a minute:
//! `WEB_PUSH_TEST_ROWS=1000000 cargo test --all-features --lib sqlite::turns -- --nocapture`

use std::time::{Duration, Instant};

use rusqlite::StatementStatus;

use super::super::{broadcasts, claims, connection, expansion, pauses};
use super::*;
use crate::broadcast::Audience;
use crate::message::{Message, Urgency};
use crate::store::rules::band;
use crate::store::{ClaimRequest, Cursor, NewBroadcast, NewDelivery, PageWrite};
use crate::subscription::{EndpointKey, Origin};

const BROADCASTS: u64 = 1_000;
const ORIGIN: &str = "https://push.example.com";
/// The most rows of a claim.
const LIMIT: usize = 64;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// A ledger with this number of ready rows, as many that wait for a retry, and as many that are leased.
fn filled(rows: u64, broadcasts: u64) -> Connection {
    let conn = connection::in_memory().unwrap();
    let normal = band(Urgency::Normal);
    let sql = format!(
        "BEGIN;
         INSERT INTO origin (id, origin, ready) VALUES (1, '{ORIGIN}', 1);
         WITH RECURSIVE many(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many LIMIT {broadcasts})
             INSERT INTO broadcast (seq, id, created_at, due_at, deadline, band, expected, written, expanding, expand_at)
             SELECT n, CAST(printf('%016d', n) AS BLOB), 0, 0, 9000000, {normal}, 0, 3 * {rows} / {broadcasts}, 0, 0
             FROM many;
         INSERT INTO content (broadcast, audience, ttl, urgency, padding, forget_when_over)
             SELECT seq, '\"all\"', 60, 'normal', 'none', 0 FROM broadcast;
         WITH RECURSIVE many(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM many LIMIT {rows})
             INSERT INTO delivery (broadcast, key, origin, band, turn, at)
             SELECT 1 + n % {broadcasts}, CAST(printf('%032d', n) AS BLOB), 1, {normal}, 1 + n / {broadcasts}, 0 FROM many;
         INSERT INTO delivery (broadcast, key, origin, band, at)
             SELECT broadcast, CAST(replace(key, '0000000', '1111111') AS BLOB), 1, band, 5000000 FROM delivery;
         INSERT INTO delivery (broadcast, key, origin, band, at, leased, fence)
             SELECT broadcast, CAST(replace(key, '0000000', '2222222') AS BLOB), 1, band, 5000000, 1, 1 FROM delivery
             WHERE turn IS NOT NULL;
         INSERT INTO flow (broadcast, origin, turn) SELECT seq, 1, 1 + {rows} / {broadcasts} FROM broadcast;
         COMMIT"
    );
    conn.execute_batch(&sql).unwrap();
    conn
}

/// The steps of the database's virtual machine in the statements of a claim and of [`pauses::next_due`] so far.
fn steps(conn: &Connection) -> i32 {
    let statements = [
        CLAIMED,
        LAST,
        DUE,
        MAKE_READY,
        claims::CLAIMABLE,
        claims::LEASE,
        due_origins::FIRST,
        due_origins::WAKE,
        due_origins::READY,
        due_origins::PAUSED,
        due_origins::WAITING,
        due_origins::LATER,
        due_origins::PLACE,
        due_origins::SERVED,
        broadcasts::CANCELLED,
        broadcasts::BY_SEQ,
    ];
    let steps = statements.map(|sql| {
        let statement = conn.prepare_cached(sql).unwrap();
        statement.get_status(StatementStatus::VmStep)
    });
    steps.iter().sum()
}

fn send_one(conn: &Connection, number: u8, urgency: Urgency) -> NewBroadcast {
    let message = Message::new("x").with_urgency(urgency);
    let new = NewBroadcast::new(Audience::All, message, at(9_000_000));
    broadcasts::open(conn, &new, at(1)).unwrap();
    let row = NewDelivery::new(
        EndpointKey::from_bytes([number; 32]),
        Origin::parse(ORIGIN).unwrap(),
    );
    let (start, end) = (Cursor::Start, Cursor::End);
    let written = expansion::enqueue_page(conn, new.id, start, &[row], end, at(1)).unwrap();
    assert_eq!(written, PageWrite::Stored);
    new
}

/// Claims once. Returns the rows of the broadcast, the steps, and the time.
fn claim(conn: &Connection, limit: usize, new: &NewBroadcast) -> (usize, i32, Duration) {
    let (before, started) = (steps(conn), Instant::now());
    let request = ClaimRequest::new(limit, Duration::from_secs(45));
    let claims = claims::claim(conn, &request, None, at(2)).unwrap();
    assert_eq!(claims.rows.len(), limit);
    let took = started.elapsed();
    assert_eq!(pauses::next_due(conn, None, at(2)).unwrap(), Some(at(2)));
    let rows = claims.rows.iter();
    let found = rows.filter(|row| row.token.broadcast == new.id).count();
    (found, steps(conn) - before, took)
}

#[test]
fn a_claim_costs_the_same_behind_any_number_of_rows_and_broadcasts() {
    let rows = std::env::var("WEB_PUSH_TEST_ROWS").ok();
    let rows = rows.map_or(50_000, |rows| rows.parse().unwrap());
    let mut costs = Vec::new();
    for (rows, broadcasts) in [
        (4_000, 1),
        (4_000, BROADCASTS),
        (rows, 1),
        (rows, BROADCASTS),
    ] {
        let conn = filled(rows, broadcasts);
        // The statements are prepared, and the origin has its turn.
        let none = NewBroadcast::new(Audience::All, Message::new("x"), at(9));
        claim(&conn, 1, &none);
        let urgent = send_one(&conn, 1, Urgency::High);
        let (found, cost, took) = claim(&conn, LIMIT, &urgent);
        assert_eq!(found, 1, "urgent");
        println!("{rows} rows of {broadcasts} broadcasts: {cost} steps, {took:?}");
        costs.push(cost);
        // It waits for the rows of each broadcast with this turn and the one before.
        let normal = send_one(&conn, 2, Urgency::Normal);
        let claims = (0..).position(|_| claim(&conn, LIMIT, &normal).0 > 0);
        let most = 1 + 2 * usize::try_from(broadcasts).unwrap() / LIMIT;
        assert!(claims.unwrap() <= most, "{claims:?} of {broadcasts}");
    }
    // The pages of larger indexes are cut elsewhere, and messages are read per broadcast.
    let [few, of_many, many, many_of_many] = costs[..] else {
        panic!("{costs:?}");
    };
    assert!(many <= few + few / 20, "{costs:?}");
    assert!(many_of_many <= of_many + of_many / 20, "{costs:?}");
    assert!(many_of_many <= 3 * few, "{costs:?}");
}
