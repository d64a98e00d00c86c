use std::fs;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

const HEADER: &str = "tower-web-push copy 4\na\nb\n";

fn entry(number: u8) -> Entry {
    Entry {
        key: EndpointKey::from_bytes([number + 1; 32]),
        last_seen_at: Timestamp::from_secs(i64::from(number)),
        types: number % 4,
        owner: [number; 8],
    }
}

fn entries(numbers: std::ops::Range<u8>) -> Vec<Entry> {
    numbers.map(entry).collect()
}

#[test]
fn a_pass_that_was_killed_continues_behind_its_last_whole_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut journal = Journal::open(&path, HEADER).unwrap();
    assert_eq!(
        (journal.cursor(), journal.rows_of_last_pass()),
        (None, None)
    );
    journal.append(&entries(0..3), None).unwrap();
    drop(journal);
    let part = folder.path().join("journal.part");
    let mut bytes = fs::read(&part).unwrap();
    for cut in 1..Entry::LEN {
        bytes.truncate(bytes.len() - 1);
        fs::write(&part, &bytes).unwrap();
        let journal = Journal::open(&path, HEADER).unwrap();
        let left = (journal.rows(), journal.cursor());
        assert_eq!(left, (2, Some(entry(1).key)), "{cut}");
        drop(journal);
        // The rest of the entry was cut off.
        let len = HEADER.len() + 2 * Entry::LEN;
        assert_eq!(fs::metadata(&part).unwrap().len(), len as u64);
        fs::write(&part, &bytes).unwrap();
    }
}

/// The target has some, all or none of them.
#[test]
fn rows_that_were_begun_are_known_until_they_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let part = folder.path().join("journal.part");
    let mut journal = Journal::open(&path, HEADER).unwrap();
    journal.append(&entries(0..2), None).unwrap();
    journal.begin(&entries(2..6)).unwrap();
    drop(journal);
    let begun = |journal: &Journal, until: Option<&EndpointKey>| -> Vec<Entry> {
        journal.begun_until(until).into_values().flatten().collect()
    };
    // Also after another interruption, before anything is written.
    for _ in 0..2 {
        let journal = Journal::open(&path, HEADER).unwrap();
        assert_eq!((journal.rows(), journal.cursor()), (2, Some(entry(1).key)));
        let until = entry(3).key;
        assert_eq!(begun(&journal, Some(&until)), entries(2..4));
        assert_eq!(begun(&journal, None), entries(2..6));
    }
    // Interrupted while they were written again.
    let mut bytes = fs::read(&part).unwrap();
    let types = HEADER.len() + 2 * Entry::LEN + 40;
    bytes[types] = entry(2).types;
    fs::write(&part, &bytes).unwrap();
    let mut journal = Journal::open(&path, HEADER).unwrap();
    assert_eq!((journal.rows(), journal.cursor()), (3, Some(entry(2).key)));
    assert_eq!(begun(&journal, None), entries(3..6));
    // What a page no longer has stays known, and each version of a row.
    let changed = Entry {
        owner: [9; 8],
        ..entry(4)
    };
    for _ in 0..2 {
        journal.begin(&[changed]).unwrap();
        drop(journal);
        journal = Journal::open(&path, HEADER).unwrap();
        let expected = [entry(3), entry(4), changed, entry(5)];
        assert_eq!(begun(&journal, None), expected);
        assert_eq!(journal.rows(), 3);
    }
    // Those of later pages do, too.
    let until = entry(4).key;
    journal.append(&[entry(3), changed], Some(&until)).unwrap();
    drop(journal);
    let mut journal = Journal::open(&path, HEADER).unwrap();
    assert_eq!((journal.rows(), journal.cursor()), (5, Some(until)));
    assert_eq!(begun(&journal, None), entries(5..6));
    journal.append(&[], None).unwrap();
    journal.finish(&[planned(7)]).unwrap();
    let mut journal = Journal::open(&path, HEADER).unwrap();
    let mut expected = entries(0..4);
    expected.push(changed);
    assert_eq!(seen(&mut journal, 9), expected);
    assert_eq!(journal.planned(), [planned(7)]);
}

/// The file has its length, and not all of its content.
#[test]
fn zeros_that_a_loss_of_power_left_are_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let part = folder.path().join("journal.part");
    let mut journal = Journal::open(&path, HEADER).unwrap();
    journal.append(&entries(0..4), None).unwrap();
    drop(journal);
    let whole = fs::read(&part).unwrap();
    // From within the third entry on, from its end on, and all of them.
    for (written, left) in [
        (2 * Entry::LEN + 35, 2),
        (3 * Entry::LEN, 2),
        (Entry::LEN - 1, 0),
        (0, 0),
    ] {
        let mut bytes = whole.clone();
        bytes[HEADER.len() + written..].fill(0);
        fs::write(&part, &bytes).unwrap();
        let mut journal = Journal::open(&path, HEADER).unwrap();
        let cursor = u8::checked_sub(left, 1).map(|last| entry(last).key);
        let found = (journal.rows(), journal.cursor());
        assert_eq!(found, (u64::from(left), cursor), "{written}");
        journal.append(&entries(left..4), None).unwrap();
        drop(journal);
        assert_eq!(fs::read(&part).unwrap(), whole);
    }
}

#[test]
fn the_next_pass_reads_what_the_last_one_saw() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut first = Journal::open(&path, HEADER).unwrap();
    first.append(&entries(0..5), None).unwrap();
    first.finish(&[]).unwrap();
    let mut second = Journal::open(&path, HEADER).unwrap();
    assert_eq!(
        (second.cursor(), second.rows_of_last_pass()),
        (None, Some(5))
    );
    let until = entry(3).key;
    let seen = second.seen_until(Some(&until), 3).unwrap();
    assert_eq!((seen.entries, seen.is_cut), (entries(0..3), true));
    let seen = second.seen_until(Some(&until), 3).unwrap();
    assert_eq!((seen.entries, seen.is_cut), (entries(3..4), false));
    second.append(&entries(0..4), None).unwrap();
    drop(second);
    // Killed here: what it has passed is not read again.
    let mut third = Journal::open(&path, HEADER).unwrap();
    assert_eq!((third.rows(), third.cursor()), (4, Some(entry(3).key)));
    let seen = third.seen_until(None, 9).unwrap();
    assert_eq!((seen.entries, seen.is_cut), (entries(4..5), false));
}

#[test]
fn the_journal_of_another_copy_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let other = "tower-web-push copy 4\na\nc\n";
    let mut journal = Journal::open(&path, HEADER).unwrap();
    journal.append(&entries(0..1), None).unwrap();
    let refused = |header| Journal::open(&path, header).err().map(|error| error.kind());
    // Also while it is in use.
    assert_eq!(refused(HEADER), Some(CopyErrorKind::Journal));
    drop(journal);
    assert_eq!(refused(other), Some(CopyErrorKind::Journal));
    Journal::open(&path, HEADER).unwrap().finish(&[]).unwrap();
    assert_eq!(refused(other), Some(CopyErrorKind::Journal));
    let of_other_version = HEADER.replace("copy 4", "copy 3");
    fs::write(&path, of_other_version).unwrap();
    assert_eq!(refused(HEADER), Some(CopyErrorKind::Journal));
    fs::write(&path, "a letter\n").unwrap();
    assert_eq!(refused(HEADER), Some(CopyErrorKind::Journal));
}

fn planned(number: u8) -> Planned {
    Planned {
        // Before, between and behind the rows.
        name: [number; 32],
        content: [number; 8],
    }
}

#[test]
fn schedules_of_the_application_are_kept_behind_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut of_last_pass = Vec::new();
    for (rows, expected) in [
        (3, vec![planned(2), planned(200), planned(0)]),
        (0, vec![planned(7)]),
        (2, vec![]),
    ] {
        let mut journal = Journal::open(&path, HEADER).unwrap();
        assert_eq!(journal.planned(), of_last_pass);
        journal.append(&entries(0..rows), None).unwrap();
        journal.finish(&expected).unwrap();
        let mut journal = Journal::open(&path, HEADER).unwrap();
        assert_eq!(journal.rows_of_last_pass(), Some(u64::from(rows)));
        let seen = journal.seen_until(None, 9).unwrap();
        assert_eq!((seen.entries, seen.is_cut), (entries(0..rows), false));
        of_last_pass = expected;
        of_last_pass.reverse();
        assert_eq!(journal.planned(), of_last_pass);
    }
}

/// Between the last write and the new name.
#[test]
fn a_pass_that_was_killed_at_its_end_goes_on_behind_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let part = folder.path().join("journal.part");
    let mut journal = Journal::open(&path, HEADER).unwrap();
    journal.append(&entries(0..3), None).unwrap();
    journal.finish(&[planned(200), planned(201)]).unwrap();
    let whole = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    for left in [0, 1, 40] {
        fs::write(&part, &whole[..whole.len() - left]).unwrap();
        let journal = Journal::open(&path, HEADER).unwrap();
        let found = (journal.rows(), journal.cursor());
        assert_eq!(found, (3, Some(entry(2).key)), "{left}");
        drop(journal);
        let len = HEADER.len() + 3 * Entry::LEN;
        assert_eq!(fs::metadata(&part).unwrap().len(), len as u64);
    }
}

/// It is said to be in use: the pass that uses it may be about to write what is wrong with it now.
#[test]
fn a_journal_in_use_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = Journal::open(&path, HEADER).unwrap();
    fs::write(&path, "half of a head").unwrap();
    let error = Journal::open(&path, HEADER).err().unwrap();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("another copy uses it"), "{why}");
    drop(journal);
}

/// Also one with few rows, which is shorter than the head of this copy.
#[test]
fn a_short_journal_of_another_copy_is_refused_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let part = folder.path().join("journal.part");
    let mut journal = Journal::open(&path, HEADER).unwrap();
    journal.append(&entries(0..1), None).unwrap();
    drop(journal);
    let whole = fs::read(&part).unwrap();
    let long = format!("tower-web-push copy 4\n{}\nb\n", "a".repeat(99));
    let error = Journal::open(&path, &long).err().unwrap();
    assert_eq!(error.kind(), CopyErrorKind::Journal);
    assert_eq!(fs::read(&part).unwrap(), whole);
    // One of which zeros are left is none.
    fs::write(&part, [&long.as_bytes()[..30], &[0; 20]].concat()).unwrap();
    assert_eq!(Journal::open(&path, &long).unwrap().rows(), 0);
}

/// Killed while it wrote the first bytes.
#[test]
fn a_journal_without_a_whole_header_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    fs::write(folder.path().join("journal.part"), "tower-web").unwrap();
    let mut journal = Journal::open(&path, HEADER).unwrap();
    journal.append(&entries(0..2), None).unwrap();
    journal.finish(&[]).unwrap();
    let journal = Journal::open(&path, HEADER).unwrap();
    assert_eq!(journal.rows_of_last_pass(), Some(2));
}

/// All rows that the last pass saw.
fn seen(journal: &mut Journal, limit: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    loop {
        let seen = journal.seen_until(None, limit).unwrap();
        entries.extend(seen.entries);
        if !seen.is_cut {
            return entries;
        }
    }
}

/// Keys of rows: hashes, of which none is all zeros. The values are their times, types and owners.
fn rows() -> impl Strategy<Value = BTreeMap<[u8; 32], (i64, u8, [u8; 8])>> {
    let key = any::<[u8; 32]>().prop_filter("a hash", |key| *key != [0; 32]);
    btree_map(key, (any::<i64>(), 0..4_u8, any::<[u8; 8]>()), 0..20)
}

proptest! {
    #[test]
    fn what_a_pass_has_written_the_next_one_reads(
        rows in rows(),
        names in vec((any::<[u8; 32]>(), any::<[u8; 8]>()), 0..5),
        at_once in 1..9_usize,
        killed_after in 0..20_usize,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let entries: Vec<_> = rows
            .into_iter()
            .map(|(key, (at, types, owner))| Entry {
                key: EndpointKey::from_bytes(key),
                last_seen_at: Timestamp::from_millis(at),
                types,
                owner,
            })
            .collect();
        let planned: Vec<_> = names
            .into_iter()
            .map(|(name, content)| Planned { name, content })
            .collect();
        let mut journal = Journal::open(&path, HEADER).unwrap();
        for (number, some) in entries.chunks(at_once).enumerate() {
            if number == killed_after {
                drop(journal);
                journal = Journal::open(&path, HEADER).unwrap();
                prop_assert_eq!(journal.rows(), (number * at_once) as u64);
            }
            journal.append(some, None).unwrap();
        }
        journal.finish(&planned).unwrap();
        let mut journal = Journal::open(&path, HEADER).unwrap();
        prop_assert_eq!(journal.rows_of_last_pass(), Some(entries.len() as u64));
        prop_assert_eq!(seen(&mut journal, at_once), entries);
        let mut read = journal.planned().to_vec();
        // The last one is read first.
        read.reverse();
        prop_assert_eq!(read, planned);
    }

    #[test]
    fn any_octets_are_a_journal_or_an_error(
        last in proptest::option::of(vec(any::<u8>(), 0..300)),
        part in vec(any::<u8>(), 0..300),
        has_header: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let header = if has_header { HEADER } else { "" };
        let write = |name: &str, rest: &[u8]| {
            let bytes = [header.as_bytes(), rest].concat();
            fs::write(folder.path().join(name), bytes).unwrap();
        };
        if let Some(last) = &last {
            write("journal", last);
        }
        write("journal.part", &part);
        let Ok(mut journal) = Journal::open(&path, HEADER) else {
            prop_assert!(!has_header, "with its header it is one");
            return Ok(());
        };
        prop_assert!(journal.rows() <= (part.len() / Entry::LEN) as u64);
        let left = seen(&mut journal, 2).len();
        prop_assert!(left <= last.map_or(0, |last| last.len() / Entry::LEN));
        if journal.rows() == 0 {
            journal.append(&entries(0..3), None).unwrap();
            journal.finish(&[]).unwrap();
            let mut journal = Journal::open(&path, HEADER).unwrap();
            prop_assert_eq!(seen(&mut journal, 9), entries(0..3));
        }
    }
}
