//! A Unix socket, and its file.

use std::fmt;
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use tokio::net::{UnixListener, UnixStream};

/// A listening Unix socket.
pub(super) struct UnixSocket {
    listener: UnixListener,
    _file: Option<SocketFile>,
}

/// The file that this process made. Removed on drop.
struct SocketFile {
    path: PathBuf,
    /// Device and inode: another server may have put its own file there since.
    identity: (u64, u64),
}

impl UnixSocket {
    /// Listens at a path. A file that a killed server left there is replaced; one of a server that answers is not, nor is
    /// anything but a socket.
    pub(super) fn bind(path: PathBuf, mode: u32) -> io::Result<Self> {
        let listener = match StdUnixListener::bind(&path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(&path)?;
                StdUnixListener::bind(&path)?
            }
            bound => bound?,
        };
        let file = SocketFile {
            identity: identity(&fs::symlink_metadata(&path)?),
            path,
        };
        fs::set_permissions(&file.path, Permissions::from_mode(mode))?;
        Self::new(listener, Some(file))
    }

    /// Takes a socket whose file, if it has one, is the service manager's.
    pub(super) fn inherited(listener: StdUnixListener) -> io::Result<Self> {
        Self::new(listener, None)
    }

    fn new(listener: StdUnixListener, file: Option<SocketFile>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: UnixListener::from_std(listener)?,
            _file: file,
        })
    }

    pub(super) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        self.listener.poll_accept(cx).map_ok(|(stream, _)| stream)
    }
}

impl fmt::Display for UnixSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.listener.local_addr();
        match address
            .as_ref()
            .ok()
            .and_then(|address| address.as_pathname())
        {
            Some(path) => write!(f, "unix:{}", path.display()),
            None => f.write_str("a Unix socket without a file"),
        }
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file that is not a socket",
        ));
    }
    match StdUnixStream::connect(path) {
        // Nothing listens any more.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another server listens there",
        )),
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|file| identity(&file) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
