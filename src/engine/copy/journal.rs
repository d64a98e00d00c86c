//! The journal of a copy: which rows of the source a pass has read, in the order of their keys, and behind them, once the pass
//! has ended, the schedules of the application.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use super::error::{CopyError, CopyErrorKind};
use crate::clock::Timestamp;
use crate::error::BoxError;
use crate::subscription::EndpointKey;

/// What a pass read of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: EndpointKey,
    pub(super) last_seen_at: Timestamp,
    /// The types of daily notifications that it had: a bit for each, in the order of `NotifyType::ALL`.
    pub(super) types: u8,
    /// A hash of its user and its tags.
    pub(super) owner: [u8; 8],
}

/// A schedule of the application that the source had: hashes of its name, and of its time, audience and message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) name: [u8; 32],
    pub(super) content: [u8; 8],
}

/// The journal of this pass, to which pages are appended once the target has them, and that of the last one that ended.
///
/// What the last pass saw is what both stores had in common then. With it a row that only one store has can be told from one
/// that the other has deleted. The files hold hashes of endpoints and times, no secrets.
pub(super) struct Journal {
    path: PathBuf,
    part: PathBuf,
    file: File,
    /// The length of its header, in octets.
    header: u64,
    /// The number of rows in it, and the last one.
    rows: u64,
    cursor: Option<EndpointKey>,
    /// Rows behind them that this pass or an interrupted one has begun to write to the target: each version that the target may
    /// have.
    begun: BTreeMap<EndpointKey, Vec<Entry>>,
    last_pass: Option<LastPass>,
}

const NOT_OURS: &str =
    "it is the journal of a copy between other stores or of another version, or no journal";

struct LastPass {
    file: BufReader<File>,
    rows: u64,
    next: Option<Entry>,
    planned: Vec<Planned>,
}

/// The rows that the last pass saw in a range of keys.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) entries: Vec<Entry>,
    /// Whether there are more in this range.
    pub(super) is_cut: bool,
}

impl Entry {
    const LEN: usize = 49;
    /// Among the types, of a row that the target may not have yet: no type has it.
    const BEGUN: u8 = 0x40;

    const fn is_begun(&self) -> bool {
        self.types & Self::BEGUN != 0
    }

    fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (key, rest) = bytes.split_at_mut(32);
        let (time, rest) = rest.split_at_mut(8);
        let (types, owner) = rest.split_at_mut(1);
        key.copy_from_slice(self.key.as_bytes());
        time.copy_from_slice(&self.last_seen_at.as_millis().to_be_bytes());
        types.copy_from_slice(&[self.types]);
        owner.copy_from_slice(&self.owner);
        bytes
    }

    fn from_bytes(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let (key, rest) = bytes.split_first_chunk::<32>()?;
        let (time, rest) = rest.split_first_chunk::<8>()?;
        let (types, rest) = rest.split_first()?;
        Some(Self {
            key: EndpointKey::from_bytes(*key),
            last_seen_at: Timestamp::from_millis(i64::from_be_bytes(*time)),
            types: *types,
            owner: *rest.first_chunk()?,
        })
    }
}

impl Planned {
    /// In the place of an entry's types: no row has it.
    const MARK: u8 = 0x80;

    fn to_bytes(self) -> [u8; Entry::LEN] {
        let mut bytes = [Self::MARK; Entry::LEN];
        let (name, rest) = bytes.split_at_mut(32);
        let (content, _) = rest.split_at_mut(8);
        name.copy_from_slice(&self.name);
        content.copy_from_slice(&self.content);
        bytes
    }

    /// `None` for a row.
    fn from_entry(entry: &Entry) -> Option<Self> {
        (entry.types == Self::MARK).then(|| Self {
            name: *entry.key.as_bytes(),
            content: entry.last_seen_at.as_millis().to_be_bytes(),
        })
    }
}

impl Journal {
    /// Opens the journal of a copy between two stores, and continues an interrupted pass.
    ///
    /// The calls of this type block for the time of a small write or read of a local file.
    pub(super) fn open(path: &Path, header: &str) -> Result<Self, CopyError> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        // First: a pass that ends meanwhile gives its journal the other name.
        let file = lock_part(&part).map_err(|error| about(&part, error))?;
        let last_pass = LastPass::open(path, header).map_err(|error| about(path, error))?;
        let found = begin_part(&file, header).map_err(|error| about(&part, error))?;
        let Found {
            rows,
            cursor,
            begun,
        } = found;
        let mut journal = Self {
            path: path.to_owned(),
            part,
            file,
            header: end_of(0, header),
            rows,
            cursor,
            begun: BTreeMap::new(),
            last_pass,
        };
        journal.note_begun(&begun);
        if let Some(cursor) = cursor {
            journal.skip(&cursor)?;
        }
        Ok(journal)
    }

    /// The last row that this pass has copied.
    pub(super) const fn cursor(&self) -> Option<EndpointKey> {
        self.cursor
    }

    /// The number of rows that this pass has copied.
    pub(super) const fn rows(&self) -> u64 {
        self.rows
    }

    /// The number of rows that the last pass saw; `None` if this is the first one.
    pub(super) fn rows_of_last_pass(&self) -> Option<u64> {
        self.last_pass.as_ref().map(|last| last.rows)
    }

    /// The schedules of the application that the last pass saw.
    pub(super) fn planned(&self) -> &[Planned] {
        self.last_pass.as_ref().map_or(&[], |last| &last.planned)
    }

    /// Passes over what the last pass saw up to a key.
    fn skip(&mut self, until: &EndpointKey) -> Result<(), CopyError> {
        while self.seen_until(Some(until), 1_000)?.is_cut {}
        Ok(())
    }

    /// Returns the next rows that the last pass saw, up to a key or the end, at most `limit`.
    pub(super) fn seen_until(
        &mut self,
        until: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Seen, CopyError> {
        let mut seen = Seen::default();
        let Some(last) = &mut self.last_pass else {
            return Ok(seen);
        };
        while let Some(entry) = last.next
            && until.is_none_or(|until| entry.key <= *until)
        {
            if seen.entries.len() == limit {
                seen.is_cut = true;
                break;
            }
            seen.entries.push(entry);
            last.advance().map_err(|error| about(&self.path, error))?;
        }
        Ok(seen)
    }

    /// Returns the rows up to a key that an interrupted pass had begun to write: the target may have them.
    pub(super) fn begun_until(
        &self,
        until: Option<&EndpointKey>,
    ) -> BTreeMap<EndpointKey, Vec<Entry>> {
        let until = until.map_or(Bound::Unbounded, Bound::Included);
        let begun = self.begun.range((Bound::Unbounded, until));
        begun.map(|(key, of_one)| (*key, of_one.clone())).collect()
    }

    /// Records rows before they are written to the target. If the pass is interrupted before it has
    /// [appended](Self::append) them, however often, the next one knows what the target may have.
    pub(super) fn begin(&mut self, entries: &[Entry]) -> Result<(), CopyError> {
        self.note_begun(entries);
        self.write(&[])
    }

    fn note_begun(&mut self, entries: &[Entry]) {
        for entry in entries {
            let of_one = self.begun.entry(entry.key).or_default();
            if !of_one.contains(entry) {
                of_one.push(*entry);
            }
        }
    }

    /// Appends rows that the target has, in the order of their keys: all up to a key, or to the end.
    pub(super) fn append(
        &mut self,
        entries: &[Entry],
        until: Option<&EndpointKey>,
    ) -> Result<(), CopyError> {
        self.begun
            .retain(|key, _| until.is_some_and(|until| key > until));
        self.write(entries)?;
        self.rows += entries.len() as u64;
        if let Some(last) = entries.last() {
            self.cursor = Some(last.key);
        }
        Ok(())
    }

    /// Writes rows that the target has, and behind them those that were begun.
    fn write(&mut self, entries: &[Entry]) -> Result<(), CopyError> {
        let begun = self.begun.values().flatten().map(|entry| Entry {
            types: entry.types | Entry::BEGUN,
            ..*entry
        });
        let bytes: Vec<u8> = entries
            .iter()
            .copied()
            .chain(begun)
            .flat_map(Entry::to_bytes)
            .collect();
        let written = self.write_behind(&bytes);
        written.map_err(|error| about(&self.part, error))
    }

    /// Writes behind the rows that the target has, in place of those that were begun.
    fn write_behind(&mut self, bytes: &[u8]) -> io::Result<()> {
        let at = self.header + self.rows * Entry::LEN as u64;
        self.file.seek(SeekFrom::Start(at))?;
        self.file.write_all(bytes)?;
        self.file.set_len(at + bytes.len() as u64)
    }

    /// Ends the pass: the next one compares with it, and with these schedules of the application.
    pub(super) fn finish(mut self, planned: &[Planned]) -> Result<(), CopyError> {
        let bytes: Vec<u8> = planned.iter().flat_map(|one| one.to_bytes()).collect();
        let written = self.write_behind(&bytes);
        written
            .and_then(|()| self.file.sync_all())
            .and_then(|()| fs::rename(&self.part, &self.path))
            .map_err(|error| about(&self.path, error))
    }
}

impl LastPass {
    fn open(path: &Path, header: &str) -> Result<Option<Self>, BoxError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let len = file.metadata()?.len();
        let mut file = BufReader::new(file);
        has_header(&mut file, header)?;
        let mut rows = rows_in(len, header);
        let mut planned = Vec::new();
        // They are the last ones.
        while let Some(last) = rows.checked_sub(1) {
            file.seek(SeekFrom::Start(end_of(last, header)))?;
            let entry = next_entry(&mut file)?;
            let Some(one) = entry.as_ref().and_then(Planned::from_entry) else {
                break;
            };
            planned.push(one);
            rows = last;
        }
        file.seek(SeekFrom::Start(end_of(0, header)))?;
        let mut last = Self {
            file,
            rows,
            next: None,
            planned,
        };
        last.advance()?;
        Ok(Some(last))
    }

    fn advance(&mut self) -> io::Result<()> {
        let next = next_entry(&mut self.file)?;
        self.next = next.filter(|entry| Planned::from_entry(entry).is_none());
        Ok(())
    }
}

/// Opens the journal of a pass that has begun, or a new one, which no other copy uses until this one closes it.
fn lock_part(path: &Path) -> Result<File, BoxError> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.try_lock()
            .map_err(|error| format!("another copy uses it: {error}"))?;
        // Else it had ended between the two calls, and the file has its other name now.
        if is_at(&file, path)? {
            return Ok(file);
        }
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;

    let opened = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Other systems refuse to rename an open file.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

/// What the journal of a pass that has begun contains.
#[derive(Default)]
struct Found {
    rows: u64,
    cursor: Option<EndpointKey>,
    begun: Vec<Entry>,
}

/// Continues the journal of a pass that has begun, or begins one. What was not written whole is cut off: the last entry, and what
/// a loss of power has left as zeros. So are schedules of the application: this pass has not ended.
fn begin_part(mut file: &File, header: &str) -> Result<Found, BoxError> {
    let len = file.metadata()?.len();
    if len < header.len() as u64 {
        // Interrupted before the first row.
        let mut begun = Vec::new();
        file.read_to_end(&mut begun)?;
        while begun.last() == Some(&0) {
            begun.pop();
        }
        if !header.as_bytes().starts_with(&begun) {
            return Err(NOT_OURS.into());
        }
        file.rewind()?;
        file.set_len(0)?;
        file.write_all(header.as_bytes())?;
        return Ok(Found::default());
    }
    let mut reader = BufReader::new(file);
    has_header(&mut reader, header)?;
    // No hash is all zeros.
    let mut last = EndpointKey::from_bytes([0; 32]);
    let (mut cursor, mut previous) = (None, None);
    let mut rows: u64 = 0;
    let mut begun: Vec<Entry> = Vec::new();
    while let Some(entry) = next_entry(&mut reader)?
        && Planned::from_entry(&entry).is_none()
    {
        let is_another_version = entry.key == last && entry.is_begun() && !begun.is_empty();
        if entry.key <= last && !is_another_version {
            // Zeros may begin within the entry before.
            if begun.pop().is_none() {
                (cursor, rows) = (previous, rows.saturating_sub(1));
            }
            break;
        }
        last = entry.key;
        if entry.is_begun() {
            begun.push(Entry {
                types: entry.types & !Entry::BEGUN,
                ..entry
            });
        } else if begun.is_empty() {
            previous = cursor.replace(last);
            rows += 1;
        } else {
            break;
        }
    }
    // Those that were begun stay until their page has been written.
    file.set_len(end_of(rows + begun.len() as u64, header))?;
    file.seek(SeekFrom::Start(end_of(rows, header)))?;
    Ok(Found {
        rows,
        cursor,
        begun,
    })
}

/// The length of a file with this header and this number of entries, in octets.
fn end_of(entries: u64, header: &str) -> u64 {
    header.len() as u64 + entries * Entry::LEN as u64
}

fn rows_in(len: u64, header: &str) -> u64 {
    len.saturating_sub(header.len() as u64) / Entry::LEN as u64
}

fn has_header(file: &mut impl io::BufRead, header: &str) -> Result<(), BoxError> {
    let mut found = Vec::new();
    for _ in header.lines() {
        file.by_ref().take(4096).read_until(b'\n', &mut found)?;
    }
    match found == header.as_bytes() {
        true => Ok(()),
        false => Err(NOT_OURS.into()),
    }
}

fn next_entry(file: &mut impl io::Read) -> io::Result<Option<Entry>> {
    let mut bytes = [0; Entry::LEN];
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(Entry::from_bytes(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn about(path: &Path, error: impl Into<BoxError>) -> CopyError {
    let text = format!("{}: {}", path.display(), error.into());
    CopyError::with_source(CopyErrorKind::Journal, text)
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
