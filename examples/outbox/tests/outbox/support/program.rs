//! The program as processes of their own.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Long enough for a debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A running process, killed on drop.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let process = Command::new(env!("CARGO_BIN_EXE_outbox"))
            .args(arguments)
            .env("ENDPOINT_POLICY", "local")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        Self(process.unwrap())
    }

    /// Kills it, as a power cut does.
    pub(crate) async fn kill(mut self) {
        assert!(self.0.try_wait().unwrap().is_none(), "it has ended before");
        self.0.kill().await.unwrap();
    }

    /// Stops it, as a service manager does.
    pub(crate) async fn terminate(self) -> ExitStatus {
        // std cannot send SIGTERM, and the package forbids unsafe code.
        let id = self.0.id().expect("it runs").to_string();
        let sent = Command::new("kill").arg(&id).status().await.unwrap();
        assert!(sent.success());
        self.ended().await
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        let ended = timeout(LIMIT, self.0.wait()).await;
        ended.expect("it does not end").unwrap()
    }
}
