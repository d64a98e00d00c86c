//! Locks between stores of one process, between processes, and after a process was killed.

use super::*;

fn is_held(path: &Path) -> bool {
    LockFile::existing(path).unwrap().is_none()
}

#[test]
fn one_of_two_in_the_same_process_has_it_and_it_is_reused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let missing = LockFile::existing(&path).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    let first = LockFile::make(&path).unwrap().unwrap();
    assert!(first.is_exclusive());
    assert!(LockFile::make(&path).unwrap().is_none());
    assert!(is_held(&path), "those attempts did not end it");
    drop(first);
    let second = LockFile::make(&path).unwrap();
    assert!(second.is_some() && is_held(&path));
}

#[test]
fn a_file_system_without_locks_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let lock = LockFile::make(&path).unwrap().unwrap();
    lock.file.unlock().unwrap();
    assert!(!lock.is_exclusive());
}

#[cfg(unix)]
#[test]
fn a_deleted_or_replaced_file_is_not_in_place_and_a_new_one_is_private() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let lock = LockFile::make(&path).unwrap().unwrap();
    assert!(lock.is_in_place());
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::remove_file(&path).unwrap();
    assert!(!lock.is_in_place());
    let other = LockFile::make(&path).unwrap().unwrap();
    assert!(!lock.is_in_place() && other.is_in_place());
}

#[cfg(unix)]
mod processes {
    use std::process::{Child, Command, Stdio};
    use std::thread::sleep;
    use std::time::Duration;

    use super::*;

    /// Runs this test again in another process, which locks the file that the variable names and waits.
    fn child_with(path: &Path, then: &str) -> Child {
        let test =
            "store::sqlite::lock_file::tests::processes::a_process_that_is_told_to_holds_a_lock";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env("WEB_PUSH_TEST_LOCK", path)
            .env("WEB_PUSH_TEST_THEN", then)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !path.with_extension("locked").exists() {
            sleep(Duration::from_millis(5));
        }
        child
    }

    #[test]
    fn a_process_that_is_told_to_holds_a_lock() {
        let Some(path) = std::env::var_os("WEB_PUSH_TEST_LOCK").map(PathBuf::from) else {
            return;
        };
        let lock = LockFile::make(&path).unwrap().unwrap();
        if std::env::var("WEB_PUSH_TEST_THEN").unwrap() == "unlock beside a child" {
            // The same open file in another process, as after a fork.
            let inherited = Stdio::from(lock.file.try_clone().unwrap());
            let mut child = Command::new("sleep")
                .arg("600")
                .stdin(inherited)
                .spawn()
                .unwrap();
            drop(lock);
            fs::write(path.with_extension("locked"), child.id().to_string()).unwrap();
            child.wait().unwrap();
            return;
        }
        fs::write(path.with_extension("locked"), "").unwrap();
        sleep(Duration::from_secs(600));
        drop(lock);
    }

    #[test]
    fn the_lock_of_a_process_ends_when_it_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let mut child = child_with(&path, "wait");
        assert!(is_held(&path));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_held(&path));
    }

    #[test]
    fn a_forked_child_does_not_keep_a_lock_that_was_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let mut child = child_with(&path, "unlock beside a child");
        assert!(!is_held(&path));
        let grandchild = fs::read_to_string(path.with_extension("locked")).unwrap();
        Command::new("kill").arg(grandchild).status().unwrap();
        child.wait().unwrap();
    }
}
