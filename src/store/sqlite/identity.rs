//! The identity of the database file: it must not be deleted or replaced while it is open, nor opened by another SQLite
//! library in this process.

use std::fs;
use std::path::{Path, PathBuf};

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
        })
    }

    /// Refuses to continue if the path does not lead to this file any more, or another library has it open.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match file(&self.path) {
            Ok(file) if file == self.file => self.library.check(),
            Ok(_) => Err(misconfigured(
                "the database file was replaced while it was open: restart",
            )),
            Err(error) => {
                Err(error.about("the database file was deleted while it was open: restart"))
            }
        }
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
