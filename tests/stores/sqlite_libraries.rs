//! A second SQLite library in the process, which has the application's file open: the locks of the first do not hold any more.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower_web_push::clock::Timestamp;
use tower_web_push::store::{ScheduleStore as _, SqliteStore, StoreErrorKind};

use crate::application_file::{PREFIX, create};

/// The database, which the second library reads too.
const DATABASE: &str = "SECOND_SQLITE";
const SOURCE: &str = "tests/support/second_sqlite.c";
/// Long, for a slow machine.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn no_change_is_made_once_another_library_has_opened_the_file() {
    // The test starts itself again in a process into which the second library is loaded.
    if let Some(path) = std::env::var_os(DATABASE) {
        return beside_another(Path::new(&path)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("second.so");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(SOURCE))
        .args(["-ldl", "-lpthread"])
        .status();
    if !compiled.is_ok_and(|status| status.success()) {
        println!("left out: there is no C compiler");
        return;
    }
    let status = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "sqlite_libraries::no_change_is_made_once_another_library_has_opened_the_file",
            "--nocapture",
        ])
        .env("LD_PRELOAD", &library)
        .env(DATABASE, folder.path().join("shop.db"))
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

async fn beside_another(path: &Path) {
    let beside = |suffix: &str| {
        let mut path = path.as_os_str().to_owned();
        path.push(suffix);
        PathBuf::from(path)
    };
    create(path);
    let store = SqliteStore::open_in(path, PREFIX).await.unwrap();
    let at = Timestamp::from_secs(1_800_000_000);
    store.record_run(at).await.unwrap();

    std::fs::write(beside("-open"), "").unwrap();
    let opened = async {
        while !beside("-opened").exists() && !beside("-failed").exists() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, opened).await.unwrap();
    if beside("-failed").exists() {
        println!("left out: there is no second SQLite library");
        return;
    }
    let refused = async {
        loop {
            match store.record_run(at).await {
                Ok(()) => sleep(Duration::from_millis(20)).await,
                Err(error) => return error,
            }
        }
    };
    let error = timeout(LIMIT, refused).await.unwrap();
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{error:?}");
    // For good: closing a connection would take away the locks of the other library.
    assert!(store.record_run(at).await.is_err());
    assert_eq!(store.last_run().await.unwrap(), Some(at), "it still reads");
    assert!(store.close().await.is_err());
    assert!(SqliteStore::open_in(path, PREFIX).await.is_err());
}
