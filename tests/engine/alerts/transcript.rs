//! What an operator sees of a fault: the log, and the metrics before and during it, in a folder.
//!
//! `WEB_PUSH_TRANSCRIPTS=FOLDER cargo nextest run --all-features alerts::` writes them for each fault, under a number. What
//! the fault was is in `key.txt` alone, so that somebody else can say it from the rest, `deploy/grafana`, the alert rules and the
//! guide.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;

use tracing::level_filters::LevelFilter;
use tracing::subscriber::DefaultGuard;

/// The transcript of one fault. Writes nothing unless the variable is set.
#[derive(Clone)]
pub(super) struct Transcript(Option<PathBuf>);

impl Transcript {
    /// Begins the transcript of an alert's fault. The log is written until the guard is dropped.
    pub(super) fn begin(alert: &str) -> (Self, Option<DefaultGuard>) {
        let Some(folder) = std::env::var_os("WEB_PUSH_TRANSCRIPTS") else {
            return (Self(None), None);
        };
        let number = alert.bytes().fold(7_u32, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(u32::from(byte))
        });
        let folder = PathBuf::from(folder);
        let own = folder.join(format!("{:04}", number % 10_000));
        fs::create_dir_all(&own).unwrap();
        let key = OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("key.txt"));
        writeln!(key.unwrap(), "{} {alert}", own.display()).unwrap();
        let log = File::create(own.join("log.jsonl")).unwrap();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_max_level(LevelFilter::INFO)
            .with_writer(Mutex::new(log))
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        (Self(Some(own)), Some(guard))
    }

    /// Writes what `/metrics` answers.
    pub(super) fn scraped(&self, when: &str, metrics: &str) {
        if let Some(folder) = &self.0 {
            fs::write(folder.join(format!("metrics-{when}.txt")), metrics).unwrap();
        }
    }
}
