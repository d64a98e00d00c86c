//! The SQLite library of this process: its version, and whether it is the only one that has a file open.

use std::cell::Cell;
use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use super::error::misconfigured;
use super::log;
use crate::observe::event;
use crate::store::StoreError;

/// The first versions without the WAL-reset bug, of each branch in which it was mended, and the first versions of the next
/// branches: before, a checkpoint beside a commit could damage the file, rarely.
const SOUND: [(i32, i32); 3] = [
    (3_044_006, 3_045_000),
    (3_050_007, 3_051_000),
    (3_051_003, i32::MAX),
];
/// The time between two looks for another library.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Warns of a library with the WAL-reset bug.
pub(super) fn warn_of_known_bugs() {
    warn_of(rusqlite::version_number(), rusqlite::version());
}

fn warn_of(number: i32, version: &str) {
    if is_affected(number) {
        event!(
            WARN,
            version,
            "this version of SQLite can damage a database file in rare cases (its WAL-reset bug): use 3.51.3 or later \
             (or 3.50.7, 3.44.6), also in the other programs that have the file open"
        );
        let _ = version;
    }
}

fn is_affected(version: i32) -> bool {
    !SOUND
        .iter()
        .any(|(first, next)| (*first..*next).contains(&version))
}

/// Watches for a second SQLite library in this process that has the same file open.
///
/// SQLite's locks are those of the process, and each library keeps its own list of them: when one closes the file, the
/// locks of the other are gone, and both write at the same time. Each library maps the index of the log into memory once,
/// so that two of them are seen in the list of mappings. One that has closed the file again may have taken itself for the
/// last one and removed the index: then the other's mapping is of a file that is deleted.
#[derive(Debug)]
pub(super) struct OnlyLibrary {
    /// The path of the index as it is in the list.
    index: String,
    looked: Cell<Option<Instant>>,
    is_broken: Cell<bool>,
}

impl OnlyLibrary {
    /// For the database in `path`.
    pub(super) fn of(path: &Path) -> Self {
        Self {
            index: log::beside(path, "-shm")
                .to_string_lossy()
                .replace('\n', "\\012"),
            looked: Cell::new(None),
            is_broken: Cell::new(false),
        }
    }

    /// Returns an error, for good, once a second library was seen. Looks once a second.
    ///
    /// Seen on Linux only.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let looked = self.looked.get();
        match looked.is_none_or(|looked| looked.elapsed() >= LOOK_AGAIN) {
            true => self.check_now(),
            false => self.found(),
        }
    }

    /// As [`check`](Self::check), and looks.
    pub(super) fn check_now(&self) -> Result<(), StoreError> {
        let is_first = self.looked.replace(Some(Instant::now())).is_none();
        match mappings() {
            Ok(maps) => self.look_in(&maps),
            Err(error) => {
                if is_first {
                    event!(
                        WARN,
                        %error,
                        "the memory mappings of this process cannot be read: a second SQLite library that opens the database \
                         file would not be noticed"
                    );
                }
                let _ = error;
            }
        }
        self.found()
    }

    fn found(&self) -> Result<(), StoreError> {
        match self.is_broken.get() {
            false => Ok(()),
            true => Err(misconfigured(
                "SQLite's locks on the database file do not hold: another SQLite library in this process has opened it, or the \
                 file or its `-shm` was opened or removed by other means. The file would be damaged. Link one library, and \
                 restart",
            )),
        }
    }

    fn look_in(&self, maps: &str) {
        if is_broken(maps, &self.index) {
            self.is_broken.set(true);
        }
    }
}

/// The list of this process' memory mappings. Empty where the system has none.
fn mappings() -> std::io::Result<String> {
    let maps = match cfg!(target_os = "linux") {
        true => std::fs::read("/proc/self/maps")?,
        false => Vec::new(),
    };
    Ok(String::from_utf8_lossy(&maps).into_owned())
}

/// A part of a file that is mapped. A line of the list is "addresses mode offset device inode path".
struct Mapping<'a> {
    offset: &'a str,
    /// Device and inode.
    file: [&'a str; 2],
    path: &'a str,
}

impl<'a> Mapping<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (numbers, path) = line.split_at(line.find('/')?);
        let mut numbers = numbers.split_ascii_whitespace().skip(2);
        Some(Self {
            offset: numbers.next()?,
            file: [numbers.next()?, numbers.next()?],
            path,
        })
    }
}

/// Whether the same part of the index is mapped twice, or the index was removed.
fn is_broken(maps: &str, index: &str) -> bool {
    let mapped: Vec<_> = maps.lines().filter_map(Mapping::parse).collect();
    let is_removed = |path: &str| path.strip_suffix(" (deleted)") == Some(index);
    if mapped.iter().any(|mapping| is_removed(mapping.path)) {
        return true;
    }
    // By the file and not by its name: another library may know it by another one.
    let Some(known) = mapped.iter().find(|mapping| mapping.path == index) else {
        return false;
    };
    let of_file = mapped.iter().filter(|mapping| mapping.file == known.file);
    let mut seen = HashSet::new();
    !of_file
        .map(|mapping| mapping.offset)
        .all(|offset| seen.insert(offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreErrorKind;
    #[cfg(feature = "tracing")]
    use crate::store::sqlite::{SqliteStore, prefix::Prefix};

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
        for version in [
            3_044_005, 3_045_000, 3_046_000, 3_050_006, 3_051_000, 3_051_002,
        ] {
            assert!(is_affected(version), "{version}");
        }
        for version in [3_044_006, 3_044_999, 3_050_007, 3_051_003, 3_054_001] {
            assert!(!is_affected(version), "{version}");
        }
    }

    #[cfg(feature = "tracing")]
    #[test]
    fn a_version_with_the_bug_is_named_in_the_log() {
        let warned = |number, version| crate::observe::logged(|| warn_of(number, version));
        let log = warned(3_046_000, "3.46.0");
        assert!(
            log.contains("WARN") && log.contains("version=\"3.46.0\""),
            "{log}"
        );
        assert_eq!(warned(3_051_003, "3.51.3"), "");
        // Of the library in use, whenever a file is opened.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("push.db");
        let open = || drop(SqliteStore::connect(&path, &Prefix::default()).unwrap());
        let log = crate::observe::logged(open);
        let affected = is_affected(rusqlite::version_number());
        assert_eq!(log.contains("WAL-reset"), affected, "{log}");
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
        let elsewhere = TWO_LIBRARIES.replacen("/srv/my shop", "/srv/shop", 1);
        file.look_in(&elsewhere.replacen("fe:00 2883586", "fe:00 77", 1));
        assert!(file.check().is_ok());
        file.look_in(TWO_LIBRARIES);
        let error = file.check().unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
        // The other has closed the file, and with it dropped the locks.
        file.look_in("");
        assert!(file.check().is_err());
    }

    /// Under another name: a bind mount, a hard link.
    #[test]
    fn a_second_library_is_seen_by_the_file_not_by_its_name() {
        let path = Path::new("/srv/my shop/shop.db");
        let file = OnlyLibrary::of(path);
        file.look_in(&TWO_LIBRARIES.replacen("fe:00 2883586", "fe:00 77", 1));
        file.look_in(&TWO_LIBRARIES.replacen("fe:00 2883586", "fe:01 2883586", 1));
        assert!(file.check().is_ok());
        let (first, last) = TWO_LIBRARIES.rsplit_once("/srv/my shop").unwrap();
        file.look_in(&format!("{first}/mnt{last}"));
        assert!(file.check().is_err());
        let file = OnlyLibrary::of(Path::new("/srv/my\nshop/shop.db"));
        file.look_in(&TWO_LIBRARIES.replace("my shop", "my\\012shop"));
        assert!(file.check().is_err());
    }

    /// Another library had the file open and, as the last one by its own count, removed the index at its end.
    #[test]
    fn an_index_that_was_removed_is_seen() {
        let file = OnlyLibrary::of(Path::new("/srv/my shop/shop.db"));
        file.look_in(
            &TWO_LIBRARIES
                .replace("/srv/my shop", "/srv/shop")
                .replace("-shm", "-shm (deleted)"),
        );
        assert!(file.check().is_ok());
        file.look_in(&TWO_LIBRARIES.replacen("-shm\n", "-shm (deleted)\n", 1));
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
        let index = &file.index;
        let maps = mappings().unwrap();
        assert!(maps.contains(index), "it looks in the right place");
        // The same index of a second library.
        let line = maps.lines().find(|line| line.ends_with(index)).unwrap();
        assert!(file.check().is_ok());
        file.look_in(&format!("{maps}{line}\n"));
        assert!(file.check().is_err());
        drop(conns);
    }
}
