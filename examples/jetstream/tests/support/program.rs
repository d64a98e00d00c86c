//! The program as separate processes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, Command};

/// The addresses that its processes share.
pub(crate) struct Program {
    folder: PathBuf,
    nats_url: String,
}

impl Program {
    pub(crate) fn new(folder: &Path, nats_url: String) -> Self {
        let folder = folder.to_owned();
        Self { folder, nats_url }
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.folder.join("push.db")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jetstream"));
        command
            .env("NATS_URL", &self.nats_url)
            .env("STORE_URL", format!("sqlite://{}", self.store().display()))
            .env("ENDPOINT_POLICY", "local")
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs it to its end. Returns its output.
    pub(crate) async fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a worker with this contact, which push services see.
    pub(crate) fn worker(&self, name: &str, arguments: &[&str]) -> Worker {
        let log = File::create(self.folder.join(format!("{name}.log"))).unwrap();
        let process = self
            .command(&["work"])
            .args(arguments)
            .env("VAPID_SUBJECT", format!("mailto:{name}@example.com"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Worker { process }
    }
}

impl Drop for Program {
    /// Prints the output of the workers if a test fails.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for entry in fs::read_dir(&self.folder).unwrap().flatten() {
            if entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "log")
            {
                let log = fs::read_to_string(entry.path()).unwrap_or_default();
                eprintln!("--- {}\n{log}", entry.path().display());
            }
        }
    }
}

pub(crate) struct Worker {
    process: Child,
}

impl Worker {
    /// Kills it, as a power cut does.
    pub(crate) async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }

    /// Stops it, as a service manager does.
    pub(crate) async fn terminate(mut self) -> ExitStatus {
        // std cannot send SIGTERM, and the package forbids unsafe code.
        let id = self.process.id().expect("it runs").to_string();
        assert!(
            Command::new("kill")
                .arg(&id)
                .status()
                .await
                .unwrap()
                .success()
        );
        self.process.wait().await.unwrap()
    }
}
