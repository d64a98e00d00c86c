//! A locked file, which proves that its process lives: the kernel releases the lock when the process ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A file that this store has locked.
///
/// The lock belongs to the open file, not to the process: another store in the same process does not get it. It is never
/// deleted: a process that had opened it before would lock a file that has no name.
#[derive(Debug)]
pub(super) struct LockFile {
    file: File,
    path: PathBuf,
}

impl LockFile {
    /// Locks a file, which is made if it does not exist. Returns `None` if another has locked it.
    pub(super) fn make(path: &Path) -> io::Result<Option<Self>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Self::lock(&options, path)
    }

    /// Locks a file that exists. Returns `None` if another has locked it.
    ///
    /// # Errors
    ///
    /// [`NotFound`](io::ErrorKind::NotFound) if it does not exist.
    pub(super) fn existing(path: &Path) -> io::Result<Option<Self>> {
        Self::lock(OpenOptions::new().read(true).write(true), path)
    }

    fn lock(options: &OpenOptions, path: &Path) -> io::Result<Option<Self>> {
        let file = options.open(path)?;
        let path = path.to_owned();
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file, path })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether locks work here: on some network file systems each caller gets them.
    pub(super) fn is_exclusive(&self) -> bool {
        matches!(Self::existing(&self.path), Ok(None))
    }

    /// Whether the path still leads to this file.
    pub(super) fn is_in_place(&self) -> bool {
        match (self.file.metadata(), fs::metadata(&self.path)) {
            (Ok(own), Ok(found)) => is_same(&own, &found),
            _ => false,
        }
    }
}

#[cfg(unix)]
fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Other systems refuse to delete an open file.
#[cfg(not(unix))]
fn is_same(_: &fs::Metadata, _: &fs::Metadata) -> bool {
    true
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // A child that was forked meanwhile has the same open file: closing it here would leave the lock to the child.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
#[path = "lock_file_tests.rs"]
mod tests;
