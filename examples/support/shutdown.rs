//! The shutdown signal: SIGTERM, SIGHUP or ctrl-c.

use std::io;
use std::time::Duration;

use tokio::sync::watch;

/// Time limit of the drain: how long requests and deliveries in flight may take.
pub(crate) const GRACE: Duration = Duration::from_secs(30);

/// A signal that any number of tasks can await, before or after it came. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Starts listening, so that a signal during the start is not lost.
    pub(crate) fn listen() -> io::Result<Self> {
        let (begin, begun) = watch::channel(false);
        let mut signals = Signals::new()?;
        tokio::spawn(async move {
            signals.first().await;
            begin.send_replace(true);
            // The second one exits at once.
            signals.second().await;
            std::process::exit(1);
        });
        Ok(Self(begun))
    }

    /// Makes a signal that is given by hand, or by dropping the sender.
    pub(crate) fn by_hand() -> (watch::Sender<bool>, Self) {
        let (begin, begun) = watch::channel(false);
        (begin, Self(begun))
    }

    /// Waits for the signal.
    pub(crate) async fn begun(mut self) {
        // An error means that the listening task has ended, so no drain can be requested any more.
        let _ = self.0.wait_for(|begun| *begun).await;
    }
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    /// The terminal was closed. By default it ends the process at once. `None` if the process was started to ignore it, as by
    /// `nohup`.
    hang_up: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: match is_hang_up_ignored() {
                true => None,
                false => Some(signal(SignalKind::hangup())?),
            },
        })
    }

    async fn first(&mut self) {
        let Some(hang_up) = &mut self.hang_up else {
            return self.second().await;
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hang_up.recv() => {}
        }
    }

    /// Not the terminal's: when it is closed, both a shell and the kernel say so.
    async fn second(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Whether SIGHUP was ignored before this program could ask for it. Only Linux tells without unsafe code.
#[cfg(unix)]
fn is_hang_up_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Its number is 1, and its bit the first one.
    ignored.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 == 1))
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn first(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }

    async fn second(&mut self) {
        self.first().await;
    }
}
