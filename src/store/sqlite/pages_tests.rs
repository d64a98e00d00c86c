//! The pages of the log that messages to one recipient take: their number must not grow with the number of broadcasts.

use std::fs;
use std::path::Path;

use super::super::connection::{self, Connection};
use super::super::identity::Identity;
use super::super::log;
use super::super::prefix::Prefix;
use crate::broadcast::{Audience, BroadcastId};
use crate::clock::Timestamp;
use crate::message::Message;
use crate::store::{Cursor, NewBroadcast, NewDelivery, Opened, Page};
use crate::subscription::{EndpointKey, Origin};

/// The octets of a page and of what the log has before it.
const FRAME: u64 = 4096 + 24;
/// As many broadcasts as may share a transaction.
const TOGETHER: u64 = 64;

/// Opens broadcasts to one recipient each in one transaction.
fn open(conn: &Connection, number: u64, now: Timestamp) {
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    for _ in 0..number {
        let id = BroadcastId::at(now);
        let deadline = Timestamp::from_secs(9_999_999_999);
        let mut new = NewBroadcast::with_id(id, Audience::All, Message::new("hello"), deadline);
        new.recipients = 1;
        let mut key = [0; 32];
        // Any key: like the hash that it is.
        key[..16].copy_from_slice(BroadcastId::random().as_bytes());
        let origin = Origin::parse("https://push.example").unwrap();
        let row = NewDelivery::new(EndpointKey::from_bytes(key), origin);
        new.page = Some(Page::new(vec![row], Cursor::End));
        assert_eq!(super::open(conn, &new, now).unwrap(), Opened::New);
    }
    conn.execute_batch("COMMIT").unwrap();
}

fn frames(path: &Path) -> u64 {
    fs::metadata(log::beside(path, "-wal")).unwrap().len() / FRAME
}

#[test]
fn new_broadcasts_change_the_last_pages_of_each_table_and_index() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("push.db");
    fs::write(&path, "").unwrap();
    let identity = Identity::of(&path).unwrap();
    let conn = connection::writer(&path, &Prefix::default(), &identity).unwrap();
    open(&conn, 5_000, Timestamp::from_secs(3_600));
    let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
    conn.query_row(sql, [], |_| Ok(())).unwrap();
    open(&conn, TOGETHER, Timestamp::from_secs(3_601));
    let frames = frames(&path);
    // With ids in no order it is 60: most pages of the index of the ids change.
    assert!((1..=50).contains(&frames), "{frames}");
}
