//! What an application can write into the outbox, and what becomes of it.

use super::super::connection;
use super::super::prefix::Prefix;
use super::*;
use crate::message::Message;
use crate::store::{Idempotency, NewBroadcast};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn database() -> Connection {
    connection::in_memory_with(Prefix::parse("web_push_").unwrap()).unwrap()
}

fn write(conn: &Connection, values: &str) -> Result<usize, rusqlite::Error> {
    let sql = format!("INSERT INTO web_push_outbox (audience, message, opts) VALUES ({values})");
    conn.execute(&sql, [])
}

fn new() -> NewBroadcast {
    NewBroadcast::new(Audience::All, Message::new("x"), at(9_000))
}

fn open(new: &NewBroadcast) -> OutboxSettlement {
    OutboxSettlement::Open(Box::new(new.clone()))
}

#[test]
fn what_is_certainly_wrong_is_refused_when_it_is_written() {
    let conn = database();
    for (values, code) in [
        ("NULL, '{}', '{}'", "NOT NULL"),
        ("'\"all\"', NULL, '{}'", "NOT NULL"),
        ("'\"all\"', x'7b7d', '{}'", "invalid_json"),
        ("'\"all\"', '{}', x'7b7d'", "invalid_json"),
        ("'\"all\"', printf('%65536d', 1), '{}'", "body_too_large"),
    ] {
        let error = write(&conn, values).unwrap_err().to_string();
        assert!(error.contains(code), "{error}");
    }
    write(&conn, "'\"all\"', printf('%65528d', 1), NULL").unwrap();
    assert_eq!(waiting(&conn, 9).unwrap().len(), 1);
}

/// Checks can be turned off, and a text need not be UTF-8: the listing shows whatever there is.
#[test]
fn whatever_was_written_is_listed() {
    let conn = database();
    conn.execute_batch("PRAGMA ignore_check_constraints = ON")
        .unwrap();
    for values in [
        "1, 2.5, NULL",
        "x'22616c6c22', CAST(x'22ff22' AS TEXT), ''",
        "'{\"user\":\"a\"}', 'no JSON', '[]'",
    ] {
        write(&conn, values).unwrap();
    }
    conn.execute_batch("UPDATE web_push_outbox SET id = 'x' WHERE seq = 2")
        .unwrap();
    let entries = waiting(&conn, 9).unwrap();
    let texts: Vec<_> = entries
        .iter()
        .map(|entry| [&*entry.audience, &*entry.message, &*entry.opts])
        .collect();
    assert_eq!(
        texts,
        [
            // SQLite has made text of the numbers.
            ["1", "2.5", "{}"],
            ["null", "null", ""],
            ["{\"user\":\"a\"}", "no JSON", "[]"],
        ]
    );
    assert_eq!(entries, waiting(&conn, 9).unwrap(), "with the same ids");
    let ids: std::collections::HashSet<_> = entries.iter().map(|entry| entry.id).collect();
    assert_eq!(ids.len(), 3);
    // Each is refused as it is, and comes back so.
    let refusal = OutboxRefusal::new("invalid_json", "no JSON");
    let refuse = OutboxSettlement::Refuse(refusal.clone());
    let all: Vec<_> = entries
        .iter()
        .map(|entry| (entry.seq, refuse.clone()))
        .collect();
    assert_eq!(
        settle(&conn, &all, at(5)).unwrap(),
        [OutboxSettled::Refused; 3]
    );
    let expected = entries
        .iter()
        .map(|entry| RefusedEntry::new(entry.clone(), refusal.clone(), at(5)));
    assert_eq!(refused(&conn, 9).unwrap(), expected.collect::<Vec<_>>());
    assert!(retry(&conn, 2).unwrap() && !retry(&conn, 2).unwrap());
    assert_eq!(waiting(&conn, 9).unwrap(), entries[1..2]);
}

/// A worker that has read an entry names it by its number, although another has settled it meanwhile.
#[test]
fn a_number_is_given_once() {
    let conn = database();
    for seq in 1..4 {
        write(&conn, "'\"all\"', '{}', '{}'").unwrap();
        assert_eq!(waiting(&conn, 9).unwrap()[0].seq, seq);
        let settled = settle(&conn, &[(seq, open(&new()))], at(0)).unwrap();
        assert_eq!(settled, [OutboxSettled::Opened]);
        let again = settle(&conn, &[(seq, open(&new()))], at(0)).unwrap();
        assert_eq!(again, [OutboxSettled::Taken]);
    }
    assert_eq!(stats(&conn).unwrap(), OutboxStats::new(0, 0));
}

#[test]
fn two_entries_of_one_call_may_be_the_same_request_or_not() {
    let conn = database();
    for _ in 0..4 {
        write(&conn, "'\"all\"', '{}', '{}'").unwrap();
    }
    let idempotent = |fingerprint: u8| {
        let mut new = new();
        new.idempotency = Some(Idempotency::new("key", [fingerprint; 32]));
        new
    };
    let same = new();
    let entries = [
        (1, open(&same)),
        (2, open(&same)),
        (3, open(&idempotent(1))),
        (4, open(&idempotent(2))),
    ];
    let settled = settle(&conn, &entries, at(0)).unwrap();
    use OutboxSettled::{Conflict, Opened, Repeat};
    assert_eq!(settled, [Opened, Repeat, Opened, Conflict]);
    let left = refused(&conn, 9).unwrap();
    assert_eq!((left.len(), left[0].entry.seq), (1, 4));
    assert_eq!(left[0].refusal, OutboxRefusal::conflict());
    assert_eq!(stats(&conn).unwrap(), OutboxStats::new(0, 1));
    assert!(drop_refused(&conn, 4).unwrap() && !drop_refused(&conn, 4).unwrap());
}

#[test]
fn entries_of_an_erased_user_go_in_steps() {
    let conn = database();
    let many = "WITH RECURSIVE many(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many LIMIT 2500)
         INSERT INTO web_push_outbox (audience, message)
         SELECT iif(n % 2, '{\"user\":\"alice\"}', '{\"user\":\"bob\"}'), '{}' FROM many;
         INSERT INTO web_push_outbox (audience, message) VALUES ('\"all\"', '{}'), ('{\"user\":', '{}')";
    conn.execute_batch(many).unwrap();
    let (mut after, mut steps, mut erased) = (Some(i64::MIN), 0, 0);
    while let Some(last) = after {
        let step = erase(&conn, &Principal::from("alice"), WAITING, REMOVE, last).unwrap();
        erased += step.0;
        after = step.1;
        steps += 1;
    }
    assert_eq!((steps, erased), (3, 1250));
    assert_eq!(stats(&conn).unwrap().waiting, 1252);
}
