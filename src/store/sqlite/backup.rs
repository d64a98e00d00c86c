//! Copying a store that is in use.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::InterruptHandle;

use super::connection::{self, Connection};
use super::error::{failed_to_open, misconfigured};
use super::part::Part;
use super::schema;
use crate::store::{StoreError, StoreErrorKind};

/// Stops a copy when it is dropped.
pub(super) struct StopOnDrop(pub(super) Arc<Stop>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Whether a copy goes on, and how to interrupt it.
#[derive(Default)]
pub(super) struct Stop(Mutex<Running>);

#[derive(Default)]
struct Running {
    is_stopped: bool,
    handle: Option<InterruptHandle>,
}

impl Stop {
    fn stop(&self) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.is_stopped = true;
        if let Some(handle) = running.handle.take() {
            handle.interrupt();
        }
    }

    /// Refuses to go on after [`stop`](Self::stop), and lets it interrupt this connection from now on.
    fn check(&self, conn: &Connection) -> Result<(), StoreError> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_stopped {
            return Err(StoreError::new(
                StoreErrorKind::Unavailable,
                "the copy was stopped",
            ));
        }
        running.handle = Some(conn.get_interrupt_handle());
        Ok(())
    }
}

/// Copies the store in `from` to the new file `to`. Stopped, it leaves no file.
pub(super) fn copy(from: &Path, to: &Path, stop: &Stop) -> Result<(), StoreError> {
    let conn = open(from).map_err(|error| error.about(from.display()))?;
    let about_target = |error: StoreError| error.about(to.display());
    check_target(to).map_err(about_target)?;
    let part = Part::create(to)
        .map_err(|error| about_target(StoreError::new(StoreErrorKind::Misconfigured, error)))?;
    let both = format!("{} to {}", from.display(), to.display());
    stop.check(&conn)?;
    fill(&conn, part.path.as_ref()).map_err(|error| error.about(both))?;
    stop.check(&conn)?;
    part.finish(to)
        .map_err(|error| about_target(unfinished(error)))
}

/// Opens an existing store without changing it.
fn open(from: &Path) -> Result<Connection, StoreError> {
    let conn = connection::existing(&connection::absolute(from)?)?;
    match schema::check(&conn)? {
        false => Err(misconfigured("the file is empty")),
        true => Ok(conn),
    }
}

/// Writes a snapshot of the store into an empty file. Readers and writers are not blocked.
fn fill(conn: &Connection, part: &Path) -> Result<(), StoreError> {
    let part = part
        .to_str()
        .ok_or_else(|| misconfigured("the name of the copy is not UTF-8"))?;
    conn.execute("VACUUM INTO ?1", [part])
        .map(|_| ())
        .map_err(failed_to_open)
}

/// Refuses a name that is in use, also by the log of a file that was there.
fn check_target(to: &Path) -> Result<(), StoreError> {
    let to = connection::absolute(to)?;
    let Some(name) = to.file_name() else {
        return Err(misconfigured("not the name of a file"));
    };
    // A dangling symbolic link counts as existing.
    if fs::symlink_metadata(&to).is_ok() {
        return Err(misconfigured("the file exists already"));
    }
    // SQLite would apply a remaining log to the copy.
    for kind in ["wal", "shm", "journal"] {
        let mut log = name.to_owned();
        log.push(format!("-{kind}"));
        let log = to.with_file_name(log);
        if fs::symlink_metadata(&log).is_ok() {
            return Err(misconfigured(format!(
                "remove {} first: it belongs to another file",
                log.display()
            )));
        }
    }
    Ok(())
}

fn unfinished(error: io::Error) -> StoreError {
    let kind = match error.kind() {
        io::ErrorKind::AlreadyExists => StoreErrorKind::Misconfigured,
        _ => StoreErrorKind::Unavailable,
    };
    StoreError::new(kind, error)
}

#[cfg(test)]
mod tests {
    use super::super::identity::Identity;
    use super::super::prefix::Prefix;
    use super::*;

    /// Its caller takes it for failed, and may have asked again.
    #[test]
    fn a_copy_whose_caller_is_gone_makes_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("push.db");
        fs::write(&path, "").unwrap();
        let identity = Identity::of(&path).unwrap();
        drop(connection::writer(&path, &Prefix::default(), &identity).unwrap());
        let copies = folder.path().join("copies");
        fs::create_dir(&copies).unwrap();
        let files = || fs::read_dir(&copies).unwrap().count();
        let stop = Arc::<Stop>::default();
        drop(StopOnDrop(Arc::clone(&stop)));
        let error = copy(&path, &copies.join("push.db"), &stop).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        assert_eq!(files(), 0);
        copy(&path, &copies.join("push.db"), &Stop::default()).unwrap();
        assert_eq!(files(), 1);
    }
}
