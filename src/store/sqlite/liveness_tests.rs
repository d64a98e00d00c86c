//! The rows of workers that have ended, on one database with several of them.

use std::fs;
use std::sync::{Mutex, mpsc};

use super::super::{broadcasts, claims, connection, expansion, pauses};
use super::*;
use crate::broadcast::Audience;
use crate::message::Message;
use crate::store::{
    ClaimRequest, Claims, Cursor, DeliveryLedger as _, NewBroadcast, NewDelivery, Page, Pause,
    PauseReason, Settled, Settlement, SqliteStore, StoreErrorKind,
};
use crate::subscription::{EndpointKey, Origin};

const LEASE: Duration = Duration::from_secs(45);
const ORIGIN: &str = "https://push.example.com";

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

struct World {
    folder: tempfile::TempDir,
    conn: Connection,
}

impl World {
    /// With this number of due rows.
    fn with(rows: usize) -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
            conn: connection::in_memory().unwrap(),
        };
        let new = NewBroadcast::new(Audience::All, Message::new("x"), at(9_000_000));
        broadcasts::open(&world.conn, &new, at(0)).unwrap();
        let row = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            let origin = Origin::parse(ORIGIN).unwrap();
            NewDelivery::new(EndpointKey::from_bytes(key), origin)
        };
        let rows: Vec<_> = (0..rows).map(row).collect();
        let (start, end) = (Cursor::Start, Cursor::End);
        expansion::enqueue_page(&world.conn, new.id, start, &rows, end, at(0)).unwrap();
        world
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("push.db")
    }

    fn file(&self, id: i64) -> PathBuf {
        file(&log::beside(&self.path(), "-worker-"), id)
    }

    fn worker(&self) -> Liveness {
        let mut worker = Liveness::of(&self.path(), &Prefix::default());
        self.look(&mut worker, 0);
        worker
    }

    fn look(&self, worker: &mut Liveness, now: i64) {
        worker.looked = None;
        let is_due = worker.is_due();
        worker.tend(&self.conn, is_due, at(now)).unwrap();
    }

    fn claim(&self, worker: &Liveness, limit: usize, now: i64) -> Claims {
        let request = ClaimRequest::new(limit, LEASE);
        claims::claim(&self.conn, &request, worker.own(), at(now)).unwrap()
    }

    fn workers(&self) -> Vec<i64> {
        all(&self.conn, WORKERS, [], |row| row.get()).unwrap()
    }
}

#[test]
fn the_rows_of_a_worker_that_has_ended_are_due_and_those_of_one_that_lives_are_not() {
    let world = World::with(8);
    let (mut living, dead) = (world.worker(), world.worker());
    assert_eq!((living.own(), dead.own()), (Some(1), Some(2)));
    let own = world.claim(&living, 3, 0).rows;
    let lost = world.claim(&dead, 5, 0).rows;
    assert_eq!((own.len(), lost.len()), (3, 5));
    world.look(&mut living, 10);
    assert!(world.claim(&living, 8, 10).rows.is_empty(), "both live");
    let due = pauses::next_due(&world.conn, living.own(), at(10)).unwrap();
    assert_eq!(due, Some(at(10) + LOOK_AGAIN), "the other may end");

    drop(dead);
    world.look(&mut living, 20);
    let again = world.claim(&living, 8, 20).rows;
    assert_eq!(again.len(), 5);
    assert!(again.iter().all(|row| row.attempt == 2));
    let retry = |token| (token, Settlement::RetryAt(at(30)));
    let settle = [
        retry(own[0].token),
        retry(lost[0].token),
        retry(again[0].token),
    ];
    let settled = claims::settle(&world.conn, &settle, at(20)).unwrap();
    assert_eq!(settled, [Settled::Done, Settled::Lost, Settled::Done]);
    assert_eq!(world.workers(), [1], "its number is free");
    let due = pauses::next_due(&world.conn, living.own(), at(20)).unwrap();
    assert_eq!(due, Some(at(30)));
}

#[test]
fn a_number_is_free_when_no_row_names_it_and_its_file_is_used_again() {
    let world = World::with(STEP + 5);
    let dead = world.worker();
    assert_eq!(world.claim(&dead, STEP + 5, 0).rows.len(), STEP + 5);
    drop(dead);
    // The first step leaves five rows.
    let mut next = world.worker();
    assert_eq!(next.own(), Some(2));
    assert_eq!(world.workers(), [1, 2]);
    assert_eq!(world.claim(&next, STEP + 5, 0).rows.len(), STEP);
    assert!(next.looked.is_none(), "there is more at once");
    next.tend(&world.conn, true, at(0)).unwrap();
    assert_eq!(world.claim(&next, STEP + 5, 0).rows.len(), 5);
    assert_eq!(world.workers(), [2]);
    assert!(next.looked.is_some());
    assert_eq!(world.worker().own(), Some(1));
    let files = fs::read_dir(world.folder.path()).unwrap().count();
    assert_eq!(files, 2);
}

/// Its transaction was taken back for another change that failed, and with it what it had found.
#[test]
fn a_claim_that_runs_again_looks_at_the_others_again() {
    let world = World::with(5);
    let (mut living, dead) = (world.worker(), world.worker());
    assert_eq!(world.claim(&dead, 5, 0).rows.len(), 5);
    drop(dead);
    living.looked = None;
    let is_due = living.is_due();
    world.conn.execute_batch("BEGIN").unwrap();
    living.tend(&world.conn, is_due, at(10)).unwrap();
    world.conn.execute_batch("ROLLBACK").unwrap();
    assert!(!living.is_due(), "it has looked");
    living.tend(&world.conn, is_due, at(10)).unwrap();
    assert_eq!(world.claim(&living, 5, 10).rows.len(), 5);
}

#[test]
fn a_number_is_written_again_if_its_transaction_failed() {
    let world = World::with(1);
    world.conn.execute_batch("BEGIN").unwrap();
    let mut worker = world.worker();
    world.conn.execute_batch("ROLLBACK").unwrap();
    assert!(world.workers().is_empty());
    worker.tend(&world.conn, true, at(0)).unwrap();
    assert_eq!(world.workers(), [1]);
}

/// An operator who deletes files must not make messages go out twice.
#[cfg(unix)]
#[test]
fn a_worker_whose_file_was_deleted_takes_another_number_and_its_rows_wait_for_their_leases() {
    let world = World::with(3);
    let (mut one, mut other) = (world.worker(), world.worker());
    assert_eq!(world.claim(&one, 2, 0).rows.len(), 2);
    fs::remove_file(world.file(1)).unwrap();
    world.look(&mut other, 10);
    assert_eq!(world.claim(&other, 3, 10).rows.len(), 1, "not of the other");
    assert_eq!(world.workers(), [1, 2]);
    world.look(&mut one, 20);
    assert_eq!(one.own(), Some(3));
    world.look(&mut other, 30);
    assert!(world.claim(&other, 3, 30).rows.is_empty());
    let ended = 46_000;
    world.look(&mut other, ended);
    assert_eq!(world.claim(&other, 3, ended).rows.len(), 3);
    assert_eq!(world.workers(), [2, 3], "nothing names the first any more");
}

#[test]
fn the_probe_of_a_worker_that_has_ended_is_over() {
    let world = World::with(2);
    let (mut living, dead) = (world.worker(), world.worker());
    let pause = Pause::new(
        Origin::parse(ORIGIN).unwrap(),
        at(5),
        PauseReason::Unreachable,
    );
    pauses::pause(&world.conn, &pause, at(0)).unwrap();
    assert_eq!(world.claim(&dead, 2, 5).rows.len(), 1, "one is the probe");
    drop(dead);
    assert!(world.claim(&living, 2, 6).rows.is_empty());
    world.look(&mut living, 7);
    assert_eq!(world.claim(&living, 2, 7).rows.len(), 1, "the next probe");
}

#[test]
fn without_locks_leases_end_by_their_time_only() {
    let world = World::with(1);
    for files in [
        None,
        Some(world.folder.path().join("missing/push.db-worker-")),
    ] {
        let mut worker = Liveness {
            files,
            ..Liveness::default()
        };
        world.look(&mut worker, 0);
        assert_eq!((worker.own(), worker.files.is_none()), (None, true));
    }
    assert!(world.workers().is_empty());
}

/// As [`a_claim_that_runs_again_looks_at_the_others_again`], through a store whose other change fails halfway.
#[tokio::test]
async fn a_claim_beside_a_change_that_fails_has_the_rows_of_a_worker_that_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("push.db");
    let dead = SqliteStore::open(&path).await.unwrap();
    let origin = Origin::parse(ORIGIN).unwrap();
    let mut new = NewBroadcast::new(Audience::All, Message::new("x"), at(9_000_000));
    let row = NewDelivery::new(EndpointKey::from_bytes([1; 32]), origin);
    new.page = Some(Page::new(vec![row], Cursor::End));
    dead.open(&new, at(0)).await.unwrap();
    let request = ClaimRequest::new(9, LEASE);
    assert_eq!(dead.claim(&request, at(0)).await.unwrap().rows.len(), 1);
    dead.close().await.unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    // The writer waits until all three are in its queue, and goes on at once when it runs this one again.
    let (all_queued, queued) = mpsc::channel::<()>();
    let queued = Mutex::new(queued);
    let first = store.write(move |_| Ok(queued.lock().unwrap().recv().is_err()));
    let fails = store.write(|conn| {
        execute(conn, "DELETE FROM content", [])?;
        Err::<(), _>(StoreErrorKind::Unavailable.into())
    });
    let (_, claims, failed, ()) =
        tokio::join!(first, store.claim(&request, at(10)), fails, async {
            drop(all_queued)
        });
    failed.unwrap_err();
    assert_eq!(claims.unwrap().rows.len(), 1);
}
