//! What a watch sees of the commits of other connections.

use std::path::{Path, PathBuf};

use futures_util::FutureExt as _;

use super::super::identity::Identity;
use super::super::prefix::Prefix;
use super::super::{broadcasts, connection};
use super::*;
use crate::broadcast::Audience;
use crate::clock::Timestamp;
use crate::message::Message;
use crate::store::NewBroadcast;

struct World {
    _folder: tempfile::TempDir,
    path: PathBuf,
    /// Of the application.
    theirs: rusqlite::Connection,
    /// Of the store, and not that of the watch.
    ours: Connection,
    watch: Watch,
}

/// An application's file with this journal mode, whatever the store would say to it.
fn world(mode: &str) -> World {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let theirs = open(&path);
    let sql = format!("PRAGMA journal_mode = {mode}");
    theirs.query_row(&sql, [], |_| Ok(())).unwrap();
    theirs.execute_batch("CREATE TABLE orders (state)").unwrap();
    let prefix = Prefix::parse("web_push_").unwrap();
    let ours = Connection::new(open(&path), prefix.clone());
    super::super::schema::migrate(&ours).unwrap();
    let identity = Identity::of(&path).unwrap();
    let mut watch = Watch::new(connection::reader(&path, &prefix, &identity).unwrap());
    assert!(!watch.look().unwrap());
    World {
        _folder: folder,
        path,
        theirs,
        ours,
        watch,
    }
}

fn open(path: &Path) -> rusqlite::Connection {
    let conn = rusqlite::Connection::open(path).unwrap();
    conn.busy_timeout(Duration::from_secs(10)).unwrap();
    conn
}

const INSERT: &str = "INSERT INTO web_push_outbox (audience, message) VALUES ('\"all\"', '{}')";
const ORDER: &str = "INSERT INTO orders VALUES ('new')";

#[test]
fn it_sees_committed_entries_and_new_broadcasts_and_nothing_else() {
    for mode in ["WAL", "DELETE", "TRUNCATE", "PERSIST"] {
        let mut world = world(mode);
        world.theirs.execute_batch(ORDER).unwrap();
        assert!(!world.watch.look().unwrap(), "{mode}: no entry");
        world
            .theirs
            .execute_batch(&format!("BEGIN; {INSERT}; ROLLBACK"))
            .unwrap();
        assert!(!world.watch.look().unwrap(), "{mode}: rolled back");
        world.theirs.execute_batch(INSERT).unwrap();
        assert!(world.watch.look().unwrap(), "{mode}: committed");
        assert!(!world.watch.look().unwrap(), "{mode}: said before");
        world
            .theirs
            .execute_batch("DELETE FROM web_push_outbox")
            .unwrap();
        assert!(!world.watch.look().unwrap(), "{mode}: removed");
        let at = Timestamp::from_secs(0);
        let new = NewBroadcast::new(Audience::All, Message::new("x"), at);
        broadcasts::open(&world.ours, &new, at).unwrap();
        assert!(world.watch.look().unwrap(), "{mode}: opened");
        assert!(!world.watch.look().unwrap(), "{mode}: said before");
    }
}

/// A look that fails because others have locked the file is not counted as one.
#[test]
fn what_could_not_be_read_is_looked_at_again() {
    let mut world = world("DELETE");
    world.watch.conn.busy_timeout(Duration::ZERO).unwrap();
    world.theirs.execute_batch(INSERT).unwrap();
    world
        .theirs
        .execute_batch("BEGIN EXCLUSIVE; DELETE FROM orders")
        .unwrap();
    assert!(world.watch.look().is_err());
    world.theirs.execute_batch("COMMIT").unwrap();
    assert!(world.watch.look().unwrap());
}

#[tokio::test]
async fn every_commit_of_a_storm_is_followed_by_a_hint() {
    for mode in ["WAL", "DELETE"] {
        let world = world(mode);
        let (asking, asked) = mpsc::channel();
        let thread = std::thread::spawn(move || world.watch.run(&asked));
        let mut changes = changes(&asking);
        let writers = [(); 2].map(|()| {
            let theirs = open(&world.path);
            std::thread::spawn(move || {
                for _ in 0..100 {
                    theirs.execute_batch(ORDER).unwrap();
                }
            })
        });
        let waiting = |conn: &Connection| outbox::has_entries(conn).unwrap();
        for _ in 0..20 {
            world.theirs.execute_batch(INSERT).unwrap();
            while waiting(&world.ours) {
                changes.next().await;
                world
                    .ours
                    .execute_batch("DELETE FROM web_push_outbox")
                    .unwrap();
            }
        }
        for writer in writers {
            writer.join().unwrap();
        }
        asking.send(Asked::Stop).unwrap();
        thread.join().unwrap();
        // Its end is the end of the hints.
        while changes.next().now_or_never().is_some() {}
    }
}

#[tokio::test]
async fn a_further_listener_takes_no_news_from_the_others() {
    let world = world("WAL");
    let (asking, asked) = mpsc::channel();
    let thread = std::thread::spawn(move || world.watch.run(&asked));
    let mut first = changes(&asking);
    first.next().await;
    for _ in 0..50 {
        world.theirs.execute_batch(INSERT).unwrap();
        // Mostly before the next look by itself.
        let further = changes(&asking);
        let hint = tokio::time::timeout(Duration::from_secs(20), first.next()).await;
        assert!(hint.is_ok(), "the further listener took it");
        drop(further);
    }
    drop((first, asking));
    thread.join().unwrap();
}

/// The thread waits for nothing while nobody listens, and hints are merged. The first hint says that it looks from now on.
#[tokio::test]
async fn hints_come_while_they_are_wanted() {
    let world = world("WAL");
    let (asking, asked) = mpsc::channel();
    let thread = std::thread::spawn(move || world.watch.run(&asked));
    let (mut first, mut second) = (changes(&asking), changes(&asking));
    first.next().await;
    second.next().await;
    world.theirs.execute_batch(INSERT).unwrap();
    first.next().await;
    second.next().await;
    drop(first);
    world.theirs.execute_batch(INSERT).unwrap();
    second.next().await;
    drop((second, asking));
    thread.join().unwrap();
}

/// It would read the file for them for ever.
#[tokio::test]
async fn a_listener_that_is_gone_is_forgotten() {
    let world = world("WAL");
    let (asking, asked) = mpsc::channel();
    let thread = std::thread::spawn(move || world.watch.run(&asked));
    let (sender, mut receiver) = hints::channel(1);
    asking.send(Asked::Hints(sender.clone())).unwrap();
    receiver.recv().await.unwrap();
    drop(receiver);
    for _ in 0..1000 {
        if sender.strong_count() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(sender.strong_count(), 1, "the thread has one still");
    drop(asking);
    thread.join().unwrap();
}
