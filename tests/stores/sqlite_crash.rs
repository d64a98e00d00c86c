//! Killing a process with an SQLite store: acknowledged changes survive.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use tower_web_push::broadcast::{Audience, BroadcastId, FinalOutcome};
use tower_web_push::clock::Timestamp;
use tower_web_push::message::Message;
use tower_web_push::store::{
    ClaimRequest, Cursor, DeliveryLedger, NewBroadcast, NewDelivery, Settlement, SqliteStore,
};
use tower_web_push::subscription::{EndpointKey, Origin};

const PATH: &str = "TOWER_WEB_PUSH_CRASH_TEST_PATH";
/// Rows of each broadcast, and rows per settlement.
const ROWS: u8 = 9;
const SETTLED: usize = 4;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + secs)
}

/// Works and reports progress until it is killed.
async fn work_until_killed(path: OsString) {
    let store = SqliteStore::open(path).await.unwrap();
    let origin = Origin::parse("https://push.example.net").unwrap();
    loop {
        let new = NewBroadcast::new(Audience::All, Message::new("x"), at(99_999));
        store.open(&new, at(0)).await.unwrap();
        say("opened", new.id);
        let rows: Vec<_> = (0..ROWS)
            .map(|n| NewDelivery::new(EndpointKey::from_bytes([n; 32]), origin.clone()))
            .collect();
        store
            .enqueue_page(new.id, &Cursor::Start, &rows, &Cursor::End, at(0))
            .await
            .unwrap();
        say("expanded", new.id);
        let request = ClaimRequest::new(usize::from(ROWS), Duration::from_secs(45));
        let claims = store.claim(&request, at(0)).await.unwrap();
        let settled: Vec<_> = claims.rows[..SETTLED]
            .iter()
            .map(|row| (row.token, Settlement::Finished(FinalOutcome::Accepted)))
            .collect();
        store.settle(&settled, at(0)).await.unwrap();
        say("settled", new.id);
    }
}

fn say(what: &str, id: BroadcastId) {
    // On a line of its own, since the test runner writes to the same stream.
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n@ {what} {id}").unwrap();
    out.flush().unwrap();
}

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    // The test starts itself again in a second process, which is killed.
    if let Some(path) = std::env::var_os(PATH) {
        return work_until_killed(path).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("push.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "sqlite_crash::what_was_answered_survives_a_kill",
            "--nocapture",
        ])
        .env(PATH, &path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said: Vec<(String, BroadcastId)> = Vec::new();
    let mut is_killed = false;
    while let Some(Ok(line)) = lines.next() {
        if let Some((what, id)) = line
            .strip_prefix("@ ")
            .and_then(|said| said.split_once(' '))
        {
            said.push((what.to_owned(), id.parse().unwrap()));
        }
        if said.len() >= 100 && !is_killed {
            // SIGKILL: no clean-up. Its output so far is still in the pipe.
            child.kill().unwrap();
            is_killed = true;
        }
    }
    child.wait().unwrap();
    assert!(is_killed, "it ended by itself after {said:?}");

    let store = SqliteStore::open(&path).await.unwrap();
    for (what, id) in said {
        let status = store.status(id, at(1)).await.unwrap().unwrap();
        let (rows, accepted) = (status.recipients, status.counts.accepted);
        match what.as_str() {
            "opened" => {}
            "expanded" => assert_eq!(rows, u64::from(ROWS)),
            "settled" => assert_eq!((rows, accepted), (u64::from(ROWS), SETTLED as u64)),
            _ => panic!("{what}"),
        }
        assert!(accepted == 0 || accepted == SETTLED as u64, "all or none");
    }
    // Claimed rows become claimable when their lease ends.
    let request = ClaimRequest::new(10_000, Duration::from_secs(45));
    let again = store.claim(&request, at(45)).await.unwrap();
    let depth = store.stats(at(45)).await.unwrap().depth;
    assert_eq!(again.rows.len() as u64, depth);
    assert!(depth > 0);
}
