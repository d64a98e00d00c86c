//! What systemd, or another service manager with its protocols, gives and is told: listening sockets (`sd_listen_fds(3)`) and
//! the state of the service (`sd_notify(3)`).

use std::env;
use std::io;
use std::process;

use listenfd::ListenFd;

use super::listeners::Inherited;

/// Takes the sockets of socket activation. `None` without any, and if they are another process's: variables of the parent
/// that this process has inherited.
///
/// # Errors
///
/// Returns an error for a file that is not a listening stream socket.
pub(super) fn sockets() -> Result<Option<Vec<Inherited>>, String> {
    let is_for_us = env::var("LISTEN_PID").is_ok_and(|id| id.parse() == Ok(process::id()));
    if !is_for_us {
        return Ok(None);
    }
    let mut files = ListenFd::from_env();
    let sockets: Vec<_> = (0..files.len())
        .map(|at| socket(&mut files, at).map_err(|why| format!("LISTEN_FDS: {why}")))
        .collect::<Result<_, _>>()?;
    Ok((!sockets.is_empty()).then_some(sockets))
}

fn socket(files: &mut ListenFd, at: usize) -> io::Result<Inherited> {
    #[cfg(unix)]
    if let Ok(Some(socket)) = files.take_unix_listener(at) {
        return Ok(Inherited::Unix(socket));
    }
    let taken = files.take_tcp_listener(at)?;
    let socket = taken.ok_or_else(|| io::Error::other("a socket was taken already"))?;
    let address = socket.local_addr()?;
    Ok(Inherited::Tcp(socket, address))
}

/// Tells the service manager that the server is ready: units of `Type=notify` start those that need it.
pub(super) fn ready() {
    tell("READY=1\nSTATUS=serving");
}

/// Tells it what the server waits for.
pub(super) fn waiting(status: &str) {
    tell(&format!("STATUS={status}"));
}

/// Tells it that the drain has begun.
pub(super) fn stopping() {
    tell("STOPPING=1\nSTATUS=draining");
}

fn tell(state: &str) {
    #[cfg(unix)]
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Custom(state)]) {
        tracing::warn!(%error, "the service manager of NOTIFY_SOCKET could not be told");
    }
    #[cfg(not(unix))]
    let _ = state;
}
