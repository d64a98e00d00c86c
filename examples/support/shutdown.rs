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
            signals.next().await;
            begin.send_replace(true);
            // The second signal exits at once.
            signals.next().await;
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
    /// The terminal was closed. By default it ends the process at once.
    hang_up: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
