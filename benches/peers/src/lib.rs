//! What all senders share: the work, read from a folder, and how it is measured.
//!
//! A sender's arguments are `FOLDER prepare|send MESSAGES OCTETS`. It prints one line of JSON: CPU time and wall time of
//! the measured messages, and the peak memory of the process.

use std::error::Error;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Requests that a sender has open at the same time.
pub const IN_FLIGHT: usize = 64;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What is sent, and to whom. `work.json` in the folder.
#[derive(Debug, Deserialize, Serialize)]
pub struct Work {
    /// The VAPID claim `sub`.
    pub contact: String,
    /// The VAPID key, base64url.
    pub private_key: String,
    pub public_key: String,
    /// Each with keys of its own.
    pub subscriptions: Vec<Stored>,
}

/// A subscription as applications store it.
#[derive(Debug, Deserialize, Serialize)]
pub struct Stored {
    pub endpoint: String,
    pub p256dh: String,
    pub auth: String,
}

/// The arguments of a sender and the work that they name.
#[derive(Debug)]
pub struct Run {
    pub work: Work,
    pub payload: Vec<u8>,
    folder: PathBuf,
    sends: bool,
    messages: usize,
}

impl Run {
    /// Reads the arguments and the work.
    ///
    /// # Errors
    ///
    /// Wrong arguments, or no work in the folder.
    pub fn from_args() -> Result<Self> {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let [folder, mode, messages, octets] = &args[..] else {
            return Err("usage: FOLDER prepare|send MESSAGES OCTETS".into());
        };
        let folder = PathBuf::from(folder);
        let mut work: Work = serde_json::from_slice(&fs::read(folder.join("work.json"))?)?;
        let messages = messages.parse()?;
        if work.subscriptions.len() < messages {
            return Err("fewer subscriptions than messages".into());
        }
        work.subscriptions.truncate(messages);
        Ok(Self {
            work,
            payload: vec![b'x'; octets.parse()?],
            folder,
            sends: mode == "send",
            messages,
        })
    }

    /// Whether prepared messages are sent, too.
    #[must_use]
    pub const fn sends(&self) -> bool {
        self.sends
    }

    /// Returns the certificate of the push service.
    ///
    /// # Errors
    ///
    /// The push service has not written it.
    pub fn ca_pem(&self) -> Result<Vec<u8>> {
        Ok(fs::read(ca_file(&self.folder))?)
    }

    /// Prepares a message for each subscription, one after the other. `prepare` returns the length of the body.
    ///
    /// # Errors
    ///
    /// That of `prepare`, or a body that is too short to hold the payload.
    pub fn prepare_all(&self, mut prepare: impl FnMut(&Stored) -> Result<usize>) -> Result<()> {
        let mut prepare_all = |subscriptions: &[Stored]| -> Result<()> {
            for stored in subscriptions {
                if prepare(stored)? <= self.payload.len() {
                    return Err("the payload is not in the body".into());
                }
            }
            Ok(())
        };
        prepare_all(self.warm_up())?;
        let begun = Begun::now();
        prepare_all(&self.work.subscriptions)?;
        begun.report(self.messages)
    }

    /// Sends a message to each subscription, [`IN_FLIGHT`] at a time.
    ///
    /// # Errors
    ///
    /// The first of `send`'s.
    pub async fn send_all<'a, F>(&'a self, send: impl Fn(&'a Stored) -> F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let send_all = async |subscriptions: &'a [Stored]| -> Result<()> {
            let mut answers = stream::iter(subscriptions)
                .map(&send)
                .buffer_unordered(IN_FLIGHT);
            while let Some(answer) = answers.next().await {
                answer?;
            }
            Ok(())
        };
        send_all(self.warm_up()).await?;
        let begun = Begun::now();
        send_all(&self.work.subscriptions).await?;
        begun.report(self.messages)
    }

    /// Measures what sends to all subscriptions by itself, the second time.
    ///
    /// # Errors
    ///
    /// That of `send`.
    pub async fn send_at_once(&self, send: impl AsyncFn() -> Result<()>) -> Result<()> {
        send().await?;
        let begun = Begun::now();
        send().await?;
        begun.report(self.messages)
    }

    /// Makes a folder of this process's own in that of the work.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn new_folder(&self) -> Result<PathBuf> {
        let folder = self.folder.join(std::process::id().to_string());
        fs::create_dir(&folder)?;
        Ok(folder)
    }

    /// A tenth of the messages comes first and is not measured: connections, caches, just-in-time compilers.
    fn warm_up(&self) -> &[Stored] {
        let first = self.messages.div_ceil(10);
        &self.work.subscriptions[..first]
    }
}

/// The certificate that the push service writes into the folder.
#[must_use]
pub fn ca_file(folder: &Path) -> PathBuf {
    folder.join("ca.pem")
}

struct Begun {
    at: Instant,
    cpu: Duration,
}

impl Begun {
    fn now() -> Self {
        Self {
            at: Instant::now(),
            cpu: cpu_time(),
        }
    }

    fn report(self, messages: usize) -> Result<()> {
        let (cpu, took) = (cpu_time() - self.cpu, self.at.elapsed());
        let report = json!({
            "messages": messages,
            "cpu_us": cpu.as_secs_f64() * 1e6,
            "seconds": took.as_secs_f64(),
            "peak_kib": peak_kib()?,
        });
        println!("{report}");
        Ok(())
    }
}

/// User and system time of all threads of this process.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// The peak resident memory: `ru_maxrss` would start at that of the process that started this one.
fn peak_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.ok_or("no VmHWM in /proc/self/status")?.parse()?)
}
