//! An example server as a process of its own.

use std::env;
use std::mem::take;
use std::path::PathBuf;
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Long enough for a debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A running server, stopped on drop.
pub(crate) struct ServerProcess {
    process: Child,
    /// `http://127.0.0.1:PORT`, or `unix:PATH`, as it printed.
    pub(crate) url: String,
    printed: Arc<Mutex<String>>,
    /// They finish with the pipes that they read.
    collectors: Vec<JoinHandle<()>>,
}

/// Returns an example's file, which cargo puts beside the folder of this test.
pub(crate) fn example(name: &str) -> PathBuf {
    let mut path = env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples");
    path.push(format!("{name}{}", env::consts::EXE_SUFFIX));
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --examples --all-features` first",
        path.display()
    );
    path
}

/// Makes a command without environment variables that would change a setting.
pub(crate) fn command(name: &str, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(example(name));
    command
        .env_clear()
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs an example to its end.
pub(crate) async fn finish(mut command: Command) -> Output {
    timeout(LIMIT, command.output())
        .await
        .expect("it does not end")
        .unwrap()
}

impl ServerProcess {
    /// Starts it and waits until it has printed its address.
    pub(crate) async fn start(name: &str, settings: &[(&str, &str)]) -> Self {
        Self::start_command(command(name, settings)).await
    }

    /// Starts it with a limit of open files, which it cannot raise.
    #[cfg(unix)]
    pub(crate) async fn start_with_files(
        name: &str,
        files: usize,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut command = command("/bin/sh", settings);
        let script = format!("ulimit -n {files}; exec \"$0\"");
        command.arg("-c").arg(script).arg(example(name));
        Self::start_command(command).await
    }

    pub(crate) async fn start_command(mut command: Command) -> Self {
        let mut process = command.spawn().unwrap();
        let printed = Arc::new(Mutex::new(String::new()));
        let errors = collect(process.stderr.take().unwrap(), Arc::clone(&printed));
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = timeout(LIMIT, async {
            while let Some(line) = lines.next_line().await.unwrap() {
                printed.lock().unwrap().push_str(&format!("{line}\n"));
                let starts = ["http://", "https://", "unix:"].iter();
                if let Some(at) = starts.filter_map(|start| line.find(start)).min() {
                    return line[at..].trim_end_matches('/').to_owned();
                }
            }
            panic!("{command:?} ended at once: {}", printed.lock().unwrap());
        })
        .await
        .expect("it does not listen");
        let output = collect(lines.into_inner(), Arc::clone(&printed));
        Self {
            process,
            url,
            printed,
            collectors: vec![errors, output],
        }
    }

    /// Returns its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id().expect("it has ended already")
    }

    /// Returns its output so far, on both streams.
    pub(crate) fn printed(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    /// Sends SIGTERM, as a process manager does, and waits until it has exited.
    #[cfg(unix)]
    pub(crate) async fn terminate(self) -> ExitStatus {
        self.ask_to_end().await;
        self.ended().await
    }

    /// Terminates it. Returns all its output, on both streams.
    #[cfg(unix)]
    pub(crate) async fn terminate_and_read(mut self) -> String {
        self.ask_to_end().await;
        let (collectors, printed) = (take(&mut self.collectors), Arc::clone(&self.printed));
        assert!(self.ended().await.success());
        for collector in collectors {
            collector.await.unwrap();
        }
        printed.lock().unwrap().clone()
    }

    /// Sends SIGTERM.
    #[cfg(unix)]
    pub(crate) async fn ask_to_end(&self) {
        self.signal("TERM").await;
    }

    /// Sends a signal.
    #[cfg(unix)]
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.id().to_string();
        // std cannot send it, and the crate forbids unsafe code.
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.await.unwrap().success());
    }

    /// Waits until it has exited.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        timeout(LIMIT, self.process.wait())
            .await
            .unwrap_or_else(|_| panic!("it does not end: {}", self.printed()))
            .unwrap()
    }

    /// Kills it, as a power cut does.
    pub(crate) async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }
}

/// Keep reading, or the process blocks once the pipe is full.
fn collect(
    stream: impl AsyncRead + Unpin + Send + 'static,
    printed: Arc<Mutex<String>>,
) -> JoinHandle<()> {
    let mut lines = BufReader::new(stream).lines();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            printed.lock().unwrap().push_str(&format!("{line}\n"));
        }
    })
}
