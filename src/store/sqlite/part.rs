//! A file that has its name once it is whole. The example servers include this file too.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A new file under a temporary name, removed on drop unless it was finished.
pub(crate) struct Part {
    pub(crate) path: Temporary,
    pub(crate) file: File,
}

impl Part {
    /// Creates a file that only its owner can read, in the folder of the target, so that renaming stays within one file system.
    pub(crate) fn create(to: &Path) -> io::Result<Self> {
        // A dangling symbolic link counts as existing.
        if fs::symlink_metadata(to).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let to = std::path::absolute(to)?;
        let name = to.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        // Not the id of the process, which is the same in each container.
        hidden.push(format!(".{}.part", uuid::Uuid::new_v4().simple()));
        let path = to.with_file_name(hidden);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path)?;
        let path = Temporary(path);
        Ok(Self { path, file })
    }

    /// Syncs the file and gives it its name, which no other file must have got meanwhile.
    pub(crate) fn finish(self, to: &Path) -> io::Result<()> {
        let Self { path, mut file } = self;
        file.flush()?;
        file.sync_all()?;
        // Before the file has its name: closing a descriptor of a file drops all locks that the process has on it (`fcntl`), also
        // those of a store that has just opened it.
        drop(file);
        // Unlike a rename, a link never replaces a file that was created meanwhile.
        match fs::hard_link(&path, to) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            // Not every file system has hard links.
            Err(_) if fs::symlink_metadata(to).is_err() => fs::rename(&path, to)?,
            Err(error) => return Err(error),
        }
        #[cfg(unix)]
        if let Some(folder) = path.as_ref().parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

/// The temporary name of a file, removed on drop.
pub(crate) struct Temporary(PathBuf);

impl AsRef<Path> for Temporary {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Fails if the file was renamed.
        let _ = fs::remove_file(&self.0);
    }
}
