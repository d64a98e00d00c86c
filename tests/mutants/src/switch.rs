//! The switch of a build with mutants: `MUTANT` is the number of the chosen one.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

static CHOSEN: LazyLock<Option<usize>> =
    LazyLock::new(|| std::env::var("MUTANT").ok()?.parse().ok());
/// Where the first visit of each place is noted.
static NOTES: LazyLock<Option<File>> = LazyLock::new(|| {
    let path = std::env::var_os("MUTANT_NOTES")?;
    OpenOptions::new().append(true).create(true).open(path).ok()
});
static VISITED: [AtomicBool; NUMBER] = [const { AtomicBool::new(false) }; NUMBER];

pub(crate) fn is(place: usize) -> bool {
    if let Some(mut notes) = NOTES.as_ref()
        && !VISITED[place].swap(true, Ordering::Relaxed)
    {
        let _ = notes.write_all(format!("{place}\n").as_bytes());
    }
    *CHOSEN == Some(place)
}
