//! The SQLite library of this process: its version, and whether it is the only one that has a file open.

use std::cell::Cell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::misconfigured;
use super::log;
use crate::observe::event;
use crate::store::StoreError;

/// The first version without the WAL-reset bug: before, a checkpoint beside a commit could damage the file, rarely.
const SOUND: i32 = 3_051_003;
/// The time between two looks for another library.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Warns of a library with the WAL-reset bug.
pub(super) fn warn_of_known_bugs() {
    let version = rusqlite::version_number();
    if is_affected(version) {
        event!(
            WARN,
            version = rusqlite::version(),
            "this version of SQLite can damage a database file in rare cases (its WAL-reset bug): use 3.51.3 or later, also in \
             the other programs that have the file open"
        );
    }
}

const fn is_affected(version: i32) -> bool {
    version < SOUND
}

/// Watches for a second SQLite library in this process that has the same file open.
///
/// SQLite's locks are those of the process, and each library keeps its own list of them: when one closes the file, the
/// locks of the other are gone, and both write at the same time. Each library maps the index of the log into memory once,
/// so that two of them are seen in the list of mappings.
#[derive(Debug)]
pub(super) struct OnlyLibrary {
    index: PathBuf,
    looked: Cell<Option<Instant>>,
    is_broken: Cell<bool>,
}

impl OnlyLibrary {
    /// For the database in `path`.
    pub(super) fn of(path: &Path) -> Self {
        Self {
            index: log::beside(path, "-shm"),
            looked: Cell::new(None),
            is_broken: Cell::new(false),
        }
    }

    /// Returns an error, for good, once a second library was seen. Looks once a second.
    ///
    /// Seen on Linux only.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let looked = self.looked.get();
        if looked.is_none_or(|looked| looked.elapsed() >= LOOK_AGAIN) {
            self.looked.set(Some(Instant::now()));
            self.look_in(&mappings());
        }
        match self.is_broken.get() {
            false => Ok(()),
            true => Err(misconfigured(
                "another SQLite library in this process has opened the database file: their locks do not hold against each \
                 other, and the file would be damaged. Link one library, and restart",
            )),
        }
    }

    fn look_in(&self, maps: &str) {
        if is_mapped_twice(maps, &self.index.to_string_lossy()) {
            self.is_broken.set(true);
        }
    }
}

/// The list of this process' memory mappings. Empty where the system has none.
fn mappings() -> String {
    let maps = match cfg!(target_os = "linux") {
        true => std::fs::read("/proc/self/maps"),
        false => Ok(Vec::new()),
    };
    String::from_utf8_lossy(&maps.unwrap_or_default()).into_owned()
}

/// Whether the same part of a file is mapped twice.
fn is_mapped_twice(maps: &str, path: &str) -> bool {
    // A line is "addresses mode offset device inode path".
    let of_path = maps.lines().filter(|line| {
        let start = line.find('/');
        start.is_some_and(|start| line.split_at(start).1 == path)
    });
    let mut offsets = of_path.filter_map(|line| line.split_ascii_whitespace().nth(2));
    let mut seen = HashSet::new();
    !offsets.all(|offset| seen.insert(offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreErrorKind;

    /// Of a process with SQLite 3.40 of Debian and that of APSW, which both have `/srv/my shop/shop.db` open.
    const TWO_LIBRARIES: &str = "\
55d5b6d6e000-55d5b6d6f000 r--p 00000000 fe:00 1838                       /usr/bin/python3.11
7f3a3c3f8000-7f3a3c400000 rw-s 00000000 fe:00 2883586                    /srv/my shop/shop.db-shm
7f3a3c400000-7f3a3c600000 rw-p 00000000 00:00 0
7f3a3c6f8000-7f3a3c700000 rw-s 00000000 fe:00 2883586                    /srv/my shop/shop.db-shm
7ffd2b5d0000-7ffd2b5f1000 rw-p 00000000 00:00 0                          [stack]
";

    #[test]
    fn versions_with_the_bug_are_known() {
        let affected = [3_046_000, 3_051_002, 3_051_003, 3_054_001].map(is_affected);
        assert_eq!(affected, [true, true, false, false]);
    }

    #[test]
    fn a_second_library_is_seen_and_remembered() {
        let file = OnlyLibrary::of(Path::new("/srv/my shop/shop.db"));
        // An index of more than one part, of one library; and the same file name elsewhere.
        file.look_in(&TWO_LIBRARIES.replacen(
            "00000000 fe:00 2883586",
            "00008000 fe:00 2883586",
            1,
        ));
        file.look_in(&TWO_LIBRARIES.replacen("/srv/my shop", "/srv/shop", 1));
        assert!(file.check().is_ok());
        file.look_in(TWO_LIBRARIES);
        let error = file.check().unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
        // The other has closed the file, and with it dropped the locks.
        file.look_in("");
        assert!(file.check().is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_connections_of_one_library_are_no_second_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.db");
        let conns = [(); 3].map(|()| {
            let conn = rusqlite::Connection::open(&path).unwrap();
            conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
                .unwrap();
            conn.execute_batch("CREATE TABLE IF NOT EXISTS t (n); INSERT INTO t VALUES (1)")
                .unwrap();
            conn
        });
        let file = OnlyLibrary::of(&path);
        let index = file.index.to_string_lossy().into_owned();
        let maps = mappings();
        assert!(maps.contains(&index), "it looks in the right place");
        // The same index of a second library.
        let line = maps.lines().find(|line| line.ends_with(&index)).unwrap();
        assert!(file.check().is_ok());
        file.look_in(&format!("{maps}{line}\n"));
        assert!(file.check().is_err());
        drop(conns);
    }
}
