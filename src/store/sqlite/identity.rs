//! The identity of the database file: it must not be deleted or replaced while it is open, nor opened by another SQLite
//! library in this process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::misconfigured;
use super::library::OnlyLibrary;
use crate::store::{StoreError, StoreErrorKind};

/// The file that was opened.
///
/// After it was deleted or replaced, the open connections would read and write a file that has no name, and all of it
/// would be lost with the process.
#[derive(Debug)]
pub(super) struct Identity {
    path: PathBuf,
    file: File,
    library: OnlyLibrary,
    is_lost: Arc<AtomicBool>,
}

/// Device and inode.
#[cfg(unix)]
type File = (u64, u64);
/// Other systems refuse to delete an open file.
#[cfg(not(unix))]
type File = ();

impl Identity {
    pub(super) fn of(path: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            path: path.to_owned(),
            file: file(path)?,
            library: OnlyLibrary::of(path),
            is_lost: Arc::default(),
        })
    }

    /// Whether a check has failed. Then no connection to the file is closed: that would take away the locks of another
    /// library, and remove the log of another file.
    pub(super) fn is_lost(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_lost)
    }

    /// Refuses to continue if the path does not lead to this file any more, or another library has it open. Looks for one
    /// once a second.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.check_with(OnlyLibrary::check)
    }

    /// As [`check`](Self::check), and looks for another library in any case.
    pub(super) fn check_now(&self) -> Result<(), StoreError> {
        self.check_with(OnlyLibrary::check_now)
    }

    fn check_with(
        &self,
        library: fn(&OnlyLibrary) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let checked = match file(&self.path) {
            Ok(file) if file == self.file => library(&self.library),
            Ok(_) => Err(misconfigured(
                "the database file was replaced while it was open: restart",
            )),
            Err(error) => {
                Err(error.about("the database file was deleted while it was open: restart"))
            }
        };
        if checked.is_err() {
            self.is_lost.store(true, Ordering::Relaxed);
        }
        checked
    }
}

#[cfg(unix)]
fn file(path: &Path) -> Result<File, StoreError> {
    use std::os::unix::fs::MetadataExt as _;

    let metadata = fs::metadata(path);
    let metadata =
        metadata.map_err(|error| StoreError::new(StoreErrorKind::Misconfigured, error))?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn file(_: &Path) -> Result<File, StoreError> {
    Ok(())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
#[path = "identity_tests.rs"]
mod tests;
