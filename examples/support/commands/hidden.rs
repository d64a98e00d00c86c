//! Files under hidden names that a command has begun, and that a thread removes when the command is dropped.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The longest wait for a thread that writes a page to a slow disk.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The files `.FILE.*.part` beside a new FILE.
#[derive(Default)]
pub(super) struct Hidden {
    folder: PathBuf,
    prefix: OsString,
    /// Those of other processes.
    others: Vec<OsString>,
}

impl Hidden {
    /// Notes which there are before the command begins.
    pub(super) fn of(new: Option<&PathBuf>) -> Self {
        let new = new.and_then(|new| std::path::absolute(new).ok());
        let Some((folder, name)) = new
            .as_deref()
            .and_then(|new| Some((new.parent()?, new.file_name()?)))
        else {
            return Self::default();
        };
        let mut prefix = OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        let mut hidden = Self {
            folder: folder.to_owned(),
            prefix,
            others: Vec::new(),
        };
        hidden.others = hidden.list();
        hidden
    }

    fn list(&self) -> Vec<OsString> {
        let is_part = |name: &OsString| {
            let name = name.as_encoded_bytes();
            name.starts_with(self.prefix.as_encoded_bytes()) && name.ends_with(b".part")
        };
        let Ok(files) = fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        let names = files.flatten().map(|file| file.file_name());
        names.filter(is_part).collect()
    }

    /// Waits until those that have come since are gone. Removes them if that takes too long.
    pub(super) async fn are_gone(&self) {
        if self.prefix.is_empty() {
            return;
        }
        let began = Instant::now();
        loop {
            let mut left = self.list();
            left.retain(|name| !self.others.contains(name));
            if left.is_empty() {
                return;
            }
            if began.elapsed() >= PATIENCE {
                for name in left {
                    let _ = fs::remove_file(self.folder.join(Path::new(&name)));
                }
                return;
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}
