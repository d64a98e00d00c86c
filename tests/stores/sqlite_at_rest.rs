//! The SQLite store's files on disk, and backups.

use std::collections::HashSet;
use std::error::Error;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tower_web_push::broadcast::{Audience, FinalOutcome};
use tower_web_push::clock::Timestamp;
use tower_web_push::message::Message;
use tower_web_push::store::{
    Change, ClaimRequest, CountFilter, Cursor, DeliveryLedger as _, Liveness, NewBroadcast,
    NewDelivery, NewSubscription, Settlement, SqliteStore, StoreError, StoreErrorKind,
    StoredVapidKey, SubscriptionLimits, SubscriptionRef, SubscriptionStore as _,
    VapidKeyStore as _,
};
use tower_web_push::subscription::{AuthSecret, EndpointKey, Subscription};
use tower_web_push::vapid::{KeyId, SealedVapidKey, VapidKey};

const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + secs)
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("push.db");
    (folder, path)
}

/// Returns the file names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    format!("{}{suffix}", path.display()).into()
}

/// Sixteen octets that appear nowhere else.
fn secret(kind: u8, number: u32) -> [u8; 16] {
    let mut octets = [kind; 16];
    octets[..8].copy_from_slice(b"\xf5SECRET\xf5");
    octets[12..].copy_from_slice(&number.to_be_bytes());
    octets
}

/// A subscription with secrets in its auth and in its endpoint.
fn subscription(number: u32) -> NewSubscription {
    let json = serde_json::json!({
        "endpoint": format!("https://push.example.net/SECRET-{number:08}-{}", "x".repeat(100)),
        "keys": { "p256dh": P256DH, "auth": AuthSecret::from_bytes(&secret(b'a', number)).unwrap().secret_to_base64url() },
    });
    let subscription = Subscription::from_value(&json).unwrap();
    NewSubscription::new(subscription, KeyId::from_bytes([1; KeyId::LEN]))
}

async fn put(store: &SqliteStore, number: u32) -> EndpointKey {
    let new = subscription(number);
    let limits = SubscriptionLimits::default();
    store.upsert(&new, &limits, at(0)).await.unwrap();
    new.subscription.endpoint().key()
}

async fn count(store: &SqliteStore) -> u64 {
    let every = CountFilter::new(Audience::All, Liveness::Any);
    store.count(&every, at(0)).await.unwrap()
}

/// Returns an error and its sources in one line.
fn told(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}

// Files after a stop.

#[tokio::test]
async fn a_closed_store_is_one_file() {
    let (folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    put(&store, 1).await;
    assert_eq!(
        names(folder.path()),
        ["push.db", "push.db-shm", "push.db-wal"]
    );
    store.close().await.unwrap();
    assert_eq!(names(folder.path()), ["push.db"]);
    let again = SqliteStore::open(&path).await.unwrap();
    assert_eq!(count(&again).await, 1);
}

/// Repeated, since connections that close concurrently sometimes succeed by chance.
#[tokio::test]
async fn a_dropped_store_is_one_file() {
    for number in 0..30 {
        let (folder, path) = folder();
        let store = SqliteStore::open(&path).await.unwrap();
        let clone = store.clone();
        put(&store, number).await;
        drop(store);
        assert_eq!(count(&clone).await, 1);
        drop(clone);
        assert_eq!(names(folder.path()), ["push.db"]);
    }
}

#[tokio::test]
async fn the_last_process_removes_the_log() {
    let (folder, path) = folder();
    let first = SqliteStore::open(&path).await.unwrap();
    let last = SqliteStore::open(&path).await.unwrap();
    put(&first, 1).await;
    first.close().await.unwrap();
    assert_eq!(fs::metadata(sibling(&path, "-wal")).unwrap().len(), 0);
    assert_eq!(count(&last).await, 1);
    put(&last, 2).await;
    last.close().await.unwrap();
    assert_eq!(names(folder.path()), ["push.db"]);
    let again = SqliteStore::open(&path).await.unwrap();
    assert_eq!(count(&again).await, 2);
}

/// As when a machine shuts down. Repeated, so that the processes meet.
#[tokio::test]
async fn processes_that_stop_at_once_fold_the_log_in() {
    for _ in 0..10 {
        let (_folder, path) = folder();
        let mut stores = Vec::new();
        for number in 0..4 {
            let store = SqliteStore::open(&path).await.unwrap();
            put(&store, number).await;
            stores.push(store);
        }
        let mut closing = JoinSet::new();
        for store in stores {
            closing.spawn(async move { store.close().await });
        }
        while let Some(closed) = closing.join_next().await {
            closed.unwrap().unwrap();
        }
        let log = fs::metadata(sibling(&path, "-wal")).map_or(0, |log| log.len());
        assert_eq!(log, 0, "it holds what the file does not");
    }
}

#[tokio::test]
async fn a_log_that_another_process_reads_is_left_and_told_of() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    put(&store, 1).await;
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM meta").unwrap();
    put(&store, 2).await;
    for _ in 0..2 {
        let error = store.close().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        assert!(told(&error).contains("another process"), "{}", told(&error));
    }
    assert!(fs::metadata(sibling(&path, "-wal")).unwrap().len() > 0);
    drop(reader);
    let again = SqliteStore::open(&path).await.unwrap();
    assert_eq!(count(&again).await, 2);
}

// Deleted data.

/// Returns the secrets found in any file of a folder, and the numbers of the numbered texts found.
fn found(folder: &Path) -> (HashSet<[u8; 16]>, HashSet<u32>) {
    let (mut secrets, mut numbers) = (HashSet::new(), HashSet::new());
    for name in names(folder) {
        let octets = fs::read(folder.join(name)).unwrap();
        for window in octets.windows(16) {
            if window.starts_with(b"\xf5SECRET\xf5") {
                secrets.insert(window.try_into().unwrap());
            }
            if let Some(number) = window.strip_prefix(b"SECRET-") {
                let number = str::from_utf8(&number[..8]).unwrap();
                numbers.insert(number.parse().unwrap());
            }
        }
    }
    (secrets, numbers)
}

/// A payload with a secret at its beginning and end. Too large for one page.
fn payload(number: u32) -> Vec<u8> {
    let mut payload = secret(b'p', number).to_vec();
    payload.resize(3_900, b'.');
    payload.extend(secret(b'q', number));
    payload
}

async fn deliver(store: &SqliteStore, number: u32) {
    let message = Message::new(payload(number));
    let new = NewBroadcast::new(Audience::user("u".repeat(200)), message, at(9_999));
    store.open(&new, at(0)).await.unwrap();
    let endpoint = subscription(number).subscription.endpoint().clone();
    let row = NewDelivery::new(endpoint.key(), endpoint.origin().clone());
    store
        .enqueue_page(new.id, &Cursor::Start, &[row], &Cursor::End, at(0))
        .await
        .unwrap();
    let request = ClaimRequest::new(9, std::time::Duration::from_secs(45));
    let claimed = store.claim(&request, at(0)).await.unwrap().rows;
    let accepted = Settlement::Finished(FinalOutcome::Accepted);
    let settled: Vec<_> = claimed.iter().map(|row| (row.token, accepted)).collect();
    store.settle(&settled, at(1)).await.unwrap();
}

/// A VAPID key whose sealed form is one of the numbered texts.
fn vapid_key(number: u32) -> StoredVapidKey {
    let public_key = *VapidKey::generate().unwrap().public_key();
    let sealed = SealedVapidKey::new(format!("SECRET-{number:08}-"));
    StoredVapidKey::new(KeyId::of(&public_key), public_key, sealed, at(0), false)
}

#[tokio::test]
async fn what_was_deleted_is_nowhere_on_the_disk_after_a_stop() {
    const ROWS: u32 = 1_200;
    let (folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let (key, other) = (vapid_key(ROWS), vapid_key(ROWS + 1));
    store.insert(&key).await.unwrap();
    store.insert(&other).await.unwrap();
    for number in 0..ROWS {
        put(&store, number).await;
        if number % 50 == 0 {
            deliver(&store, number).await;
        }
    }
    // In another order than the tree's, so that pages are merged and freed meanwhile.
    let (gone, kept): (Vec<u32>, Vec<u32>) = (0..ROWS).partition(|number| number % 40 != 0);
    for numbers in gone.chunks(50) {
        let key = |number: &u32| subscription(*number).subscription.endpoint().key();
        let rows: Vec<_> = numbers.iter().map(key).map(SubscriptionRef::Key).collect();
        let rows = store.get(&rows).await.unwrap();
        let changes: Vec<_> = rows.iter().flatten().map(Change::delete).collect();
        let deleted = store.apply(&changes, at(1)).await.unwrap();
        assert_eq!(deleted, numbers.len() as u64);
    }
    assert!(store.remove(&key.id).await.unwrap());
    store.close().await.unwrap();

    let (secrets, numbers) = found(folder.path());
    let auths = kept.iter().map(|number| secret(b'a', *number)).collect();
    assert_eq!(secrets, auths, "auth secrets, and payloads");
    let numbered = kept.into_iter().chain([ROWS + 1]).collect();
    assert_eq!(numbers, numbered, "endpoints, and sealed keys");
}

// Files without write permission.

const CASE: &str = "TOWER_WEB_PUSH_AT_REST_TEST";

/// Runs the test `name` in a process of its own, which opens `path` in `folder`. Returns its output.
fn in_a_process(name: &str, folder: &Path, path: &str) -> String {
    let test = std::env::current_exe().unwrap();
    // Without capabilities, permissions apply to root too.
    let mut command = match Command::new("id").arg("-u").output() {
        Ok(id) if id.stdout == b"0\n" => {
            let mut command = Command::new("setpriv");
            command.args(["--bounding-set=-all", "--inh-caps=-all"]);
            command.arg(test);
            command
        }
        _ => Command::new(test),
    };
    let output = command
        .args(["--exact", &format!("sqlite_at_rest::{name}"), "--nocapture"])
        .env(CASE, path)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("@ "));
    lines.next().expect("it says nothing").to_owned()
}

/// Opens the file and prints the result, in the process that [`in_a_process`] starts.
async fn was_asked() -> bool {
    let Some(path) = std::env::var_os(CASE) else {
        return false;
    };
    match SqliteStore::open(path).await {
        Ok(store) => {
            store.close().await.unwrap();
            println!("\n@ opened");
        }
        Err(error) => println!("\n@ {:?}: {}", error.kind(), told(&error)),
    }
    true
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_refused_at_once() {
    if was_asked().await {
        return;
    }
    let name = "a_file_that_cannot_be_written_is_refused_at_once";
    let (folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    put(&store, 1).await;
    store.close().await.unwrap();
    let before = fs::read(&path).unwrap();
    let permit = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    let open = |file: &str| in_a_process(name, folder.path(), file);
    let refused = |file: &str, reason: &str| {
        let answer = open(file);
        let expected = format!("Misconfigured: the store is misconfigured: {file}: {reason}");
        assert!(answer.starts_with(&expected), "{answer}");
    };

    permit(&path, 0o400).unwrap();
    refused(
        "push.db",
        "the file can be read and not written: attempt to write",
    );
    permit(&path, 0o000).unwrap();
    refused(
        "push.db",
        "the file, or its -wal or -shm, cannot be read and written with its perm",
    );
    permit(&path, 0o600).unwrap();

    permit(folder.path(), 0o500).unwrap();
    refused(
        "push.db",
        "its folder cannot be written, and its log has to",
    );
    refused("new.db", "Permission denied");
    permit(folder.path(), 0o700).unwrap();

    refused("missing/push.db", "No such file or directory");
    refused(".", "a directory, not a file");
    refused("/dev/null", "not a regular file");
    assert_eq!(names(folder.path()), ["push.db"], "nothing was made");
    assert_eq!(fs::read(&path).unwrap(), before, "nothing was changed");

    assert_eq!(open("push.db"), "opened");
}

#[tokio::test]
async fn a_path_is_a_path_whatever_sqlite_takes_it_for() {
    if was_asked().await {
        return;
    }
    let (folder, _) = folder();
    let odd = [":memory:", "file:push.db?mode=memory", "push.db?mode=ro"];
    for path in odd {
        let name = "a_path_is_a_path_whatever_sqlite_takes_it_for";
        assert_eq!(in_a_process(name, folder.path(), path), "opened", "{path}");
    }
    assert_eq!(names(folder.path()), odd);
}

// Backups.

async fn backup_refused(from: &Path, to: &Path, about: &Path) -> StoreError {
    let error = SqliteStore::backup(from, to).await.unwrap_err();
    let source = error.source().unwrap().to_string();
    assert!(source.contains(&about.display().to_string()), "{source}");
    error
}

#[tokio::test]
async fn a_backup_is_one_state_of_a_store_in_use() {
    let (folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    for number in 0..100 {
        put(&store, number).await;
    }
    let writing = tokio::spawn({
        let store = store.clone();
        async move {
            for number in 100..200 {
                put(&store, number).await;
            }
        }
    });
    let copy = folder.path().join("copy.db");
    SqliteStore::backup(&path, &copy).await.unwrap();
    writing.await.unwrap();
    assert_eq!(mode(&copy), 0o600);
    assert_eq!(
        names(folder.path()),
        ["copy.db", "push.db", "push.db-shm", "push.db-wal"]
    );
    assert_eq!(count(&store).await, 200);

    // The count is stored beside the rows: both agree in a snapshot only.
    let restored = SqliteStore::open(&copy).await.unwrap();
    let rows = count(&restored).await;
    assert!((100..=200).contains(&rows), "{rows}");
    restored.close().await.unwrap();
    let counted: i64 = Connection::open(&copy)
        .unwrap()
        .query_row(
            "SELECT sum(number) FROM subscription_number WHERE kind <> 'tag'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(u64::try_from(counted).unwrap(), rows);
}

#[tokio::test]
async fn a_backup_replaces_nothing_and_makes_nothing_of_nothing() {
    let (folder, path) = folder();
    let copy = folder.path().join("copy.db");
    let error = backup_refused(&path, &copy, &path).await;
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
    assert!(names(folder.path()).is_empty());

    let store = SqliteStore::open(&path).await.unwrap();
    put(&store, 1).await;
    store.close().await.unwrap();
    fs::write(&copy, "mine").unwrap();
    backup_refused(&path, &copy, &copy).await;
    backup_refused(&path, &path, &path).await;
    assert_eq!(fs::read(&copy).unwrap(), b"mine");
    let missing = folder.path().join("missing/copy.db");
    backup_refused(&path, &missing, &missing).await;
    fs::remove_file(&copy).unwrap();
    std::os::unix::fs::symlink("elsewhere", &copy).unwrap();
    backup_refused(&path, &copy, &copy).await;
    fs::remove_file(&copy).unwrap();
    // A log of another file, which SQLite would apply to the copy.
    for kind in ["wal", "shm", "journal"] {
        let log = folder.path().join(format!("copy.db-{kind}"));
        fs::write(&log, "").unwrap();
        backup_refused(&path, &copy, &copy).await;
        assert!(!copy.exists());
        fs::remove_file(&log).unwrap();
    }

    // Another application's file, an empty one, and a damaged one.
    let other = folder.path().join("other.db");
    fs::write(&other, "").unwrap();
    backup_refused(&other, &copy, &other).await;
    fs::remove_file(&other).unwrap();
    Connection::open(&other)
        .unwrap()
        .execute_batch("CREATE TABLE mine (id)")
        .unwrap();
    backup_refused(&other, &copy, &other).await;
    let mut octets = fs::read(&path).unwrap();
    let pages = octets.len() / 4096;
    for page in octets.chunks_mut(4096).skip(pages / 2) {
        page.fill(b'?');
    }
    fs::write(&other, octets).unwrap();
    let error = backup_refused(&other, &copy, &other).await;
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert_eq!(names(folder.path()), ["other.db", "push.db"]);
}
