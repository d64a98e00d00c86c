//! Runs tests of a binary in a process of its own, until the first one fails.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::copy::Binary;

/// Kibibytes of address space: a mutant that never ends must not take the machine's memory.
const MEMORY: u64 = 16_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Passed,
    /// The name of the test, or how the process ended.
    Failed(String),
    TimedOut,
}

/// What a run needs besides the names of its tests.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    pub folder: &'a Path,
    pub threads: usize,
    pub limit: Duration,
    pub mutant: Option<usize>,
    pub notes: Option<&'a Path>,
}

/// Runs the tests with exactly these names.
pub fn run(binary: &Binary, names: &[&str], run: &Run<'_>) -> Ended {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -v {MEMORY}; exec \"$@\""), "sh"])
        .arg(&binary.path)
        .arg("--exact")
        .args(names)
        .arg(format!("--test-threads={}", run.threads))
        .current_dir(run.folder)
        .env("CARGO_MANIFEST_DIR", run.folder)
        .env("RUST_BACKTRACE", "0")
        .env_remove("MUTANT")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0);
    // A failing seed is not searched for a shorter one.
    command.env("WEB_PUSH_SIMULATION_SEEDS", "3");
    if let Some(mutant) = run.mutant {
        command.env("MUTANT", mutant.to_string());
    }
    if let Some(notes) = run.notes {
        command.env("MUTANT_NOTES", notes);
    }
    match command.spawn() {
        Ok(child) => watch(child, run.limit),
        Err(error) => Ended::Failed(format!("not started: {error}")),
    }
}

fn watch(mut child: Child, limit: Duration) -> Ended {
    let started = Instant::now();
    let Some(out) = child.stdout.take() else {
        return Ended::Failed("no output".to_owned());
    };
    let (told, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if told.send(line).is_err() {
                return;
            }
        }
    });
    let ended = loop {
        match lines.recv_timeout(Duration::from_millis(25)) {
            Ok(line) => {
                if let Some(name) = failed(&line) {
                    break Ended::Failed(name);
                }
            }
            Err(RecvTimeoutError::Timeout) if started.elapsed() >= limit => break Ended::TimedOut,
            Err(RecvTimeoutError::Timeout) => {
                // A program that a test has started may keep the output open.
                if let Ok(Some(status)) = child.try_wait() {
                    break of_status(status.success(), &lines);
                }
            }
            Err(RecvTimeoutError::Disconnected) => match child.wait() {
                Ok(status) => break of_status(status.success(), &lines),
                Err(error) => break Ended::Failed(error.to_string()),
            },
        }
    };
    // With all that it has started.
    let group = format!("-{}", child.id());
    let _ = Command::new("kill")
        .args(["-KILL", "--", &group])
        .stderr(Stdio::null())
        .status();
    let _ = child.wait();
    ended
}

fn of_status(is_success: bool, lines: &mpsc::Receiver<String>) -> Ended {
    if is_success {
        return Ended::Passed;
    }
    let rest = lines.try_iter().find_map(|line| failed(&line));
    Ended::Failed(rest.unwrap_or_else(|| "the process ended".to_owned()))
}

/// The name in `test some::name ... FAILED`.
fn failed(line: &str) -> Option<String> {
    let line = line.strip_prefix("test ")?.strip_suffix("FAILED")?;
    Some(line.split(" ...").next().unwrap_or(line).to_owned())
}

/// The names of the tests of a binary.
pub fn list(binary: &Binary, folder: &Path) -> std::io::Result<Vec<String>> {
    let mut child = Command::new(&binary.path)
        .args(["--list", "--format", "terse"])
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut text = String::new();
    if let Some(out) = &mut child.stdout {
        out.read_to_string(&mut text)?;
    }
    child.wait()?;
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

/// Runs `work` for each item, on some threads, in order.
pub fn side_by_side<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut done = Vec::new();
                    loop {
                        let place = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        let Some(item) = items.get(place) else {
                            return done;
                        };
                        done.push((place, work(item)));
                    }
                })
            })
            .collect();
        let done = workers.into_iter().map(|worker| worker.join());
        done.flat_map(|done| done.unwrap_or_default()).collect()
    });
    results.sort_by_key(|(place, _)| *place);
    results.into_iter().map(|(_, result)| result).collect()
}
