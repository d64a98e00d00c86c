//! A row of a pass: what the source has, what the target has, and what both had at the last pass. No I/O.

use sha2::{Digest as _, Sha256};

use super::handed_over::is_handed_over;
use super::journal::Entry;
use super::schedules::Pair;
use crate::clock::Timestamp;
use crate::engine::records::Record;
use crate::store::SubscriptionRecord;
use crate::store::rules::is_newer;
use crate::subscription::EndpointKey;

/// A row of the source, and what the target has at its endpoint.
pub(super) struct Row {
    pub(super) key: EndpointKey,
    pub(super) record: SubscriptionRecord,
    /// What the last pass saw of it.
    pub(super) before: Option<Entry>,
    /// What interrupted passes were writing of it.
    pub(super) begun: Vec<Entry>,
    pub(super) there: Record,
    /// Whether the page lists it, and so the journal.
    pub(super) is_listed: bool,
    pub(super) is_written: bool,
}

impl Row {
    /// Whether the target has deleted it since the last pass, and the browser has not registered it in the source since.
    pub(super) fn is_deleted_there(&self) -> bool {
        let is_as_before = |before: &Entry| self.record.last_seen_at <= before.last_seen_at;
        matches!(self.there, Record::Missing) && self.before.as_ref().is_some_and(is_as_before)
    }

    /// Whether both have the same registration of it.
    pub(super) fn is_same_registration(&self, there: &SubscriptionRecord) -> bool {
        there.last_seen_at == self.record.last_seen_at
    }

    /// The owners that the target may have from the source.
    pub(super) fn copied(&self) -> impl Iterator<Item = [u8; 8]> {
        let entries = self.before.iter().chain(&self.begun);
        entries.map(|entry| entry.owner)
    }

    /// Whether the user or the tags were assigned in the target since the last pass.
    pub(super) fn is_assigned_there(&self, there: &SubscriptionRecord) -> bool {
        let owner = owner(there);
        self.is_same_registration(there)
            && self.copied().next().is_some()
            && self.copied().all(|copied| copied != owner)
    }

    /// Whether they were in the source since, and not in the target.
    pub(super) fn is_assigned_here(&self, there: &SubscriptionRecord) -> bool {
        self.is_same_registration(there)
            && self.copied().any(|copied| copied == owner(there))
            && owner(&self.record) != owner(there)
    }

    /// The version to write: with the user and the tags of the target, if they were assigned there, and with its user if the later
    /// registration names none (S3).
    pub(super) fn version(&self) -> SubscriptionRecord {
        let mut record = self.record.clone();
        if let Record::Found(there) = &self.there
            && self.is_assigned_there(there)
        {
            record.principal = there.principal.clone();
            record.tags = there.tags.clone();
        }
        if let Record::Found(there) = &self.there
            && record.principal.is_none()
            && !self.is_same_registration(there)
        {
            record.principal = there.principal.clone();
        }
        record
    }

    /// What the journal records of it before it is written.
    pub(super) fn begin(&self) -> Entry {
        Entry {
            key: self.key,
            last_seen_at: self.record.last_seen_at,
            types: self.types_before(),
            owner: owner(&self.record),
        }
    }

    /// The types that the source had in the last pass, of which one that a store has no more was removed there.
    pub(super) fn types_before(&self) -> u8 {
        let Some(before) = self.before else {
            return 0;
        };
        match &self.there {
            // What the target had of it is gone with the row, which is written again.
            Record::Missing if !self.is_deleted_there() => 0,
            Record::Unreadable => 0,
            // And so is what either had of a former user, also if both were registered anew since.
            Record::Found(_) if self.is_handed_over() => 0,
            Record::Found(there) if self.is_another_users(&before, there) => 0,
            // The same where an interrupted pass has written the row. One that stays deleted is remembered as it was.
            Record::Found(_) | Record::Missing => {
                let begun = self.begun.iter().map(|begun| begun.types);
                begun.fold(before.types, |types, begun| types & begun)
            }
        }
    }

    /// Whether the stores have it of two users, one after the other.
    pub(super) fn is_handed_over(&self) -> bool {
        matches!(&self.there, Record::Found(there) if is_handed_over(&self.record, there))
    }

    /// Whether both were registered since, and neither has the user and the tags of then.
    pub(super) fn is_another_users(&self, before: &Entry, there: &SubscriptionRecord) -> bool {
        let is_anew = |row: &SubscriptionRecord| {
            row.last_seen_at > before.last_seen_at && owner(row) != before.owner
        };
        is_anew(&self.record) && is_anew(there)
    }

    pub(super) fn is_wanted(&self) -> bool {
        match &self.there {
            Record::Found(there) => is_newer(&self.record, there),
            Record::Missing => !self.is_deleted_there(),
            Record::Unreadable => true,
        }
    }

    /// The later of the registrations of which both stores know now. What was deleted since is older than none of them.
    pub(super) fn last_seen_at(&self) -> Timestamp {
        let here = self.record.last_seen_at;
        match &self.there {
            Record::Found(there) => here.max(there.last_seen_at),
            Record::Missing | Record::Unreadable => here,
        }
    }

    /// The two ids of which the daily notifications are copied.
    pub(super) fn pair(&self) -> Option<Pair> {
        let pair = |to, is_newer_there| Pair {
            from: self.record.id,
            to,
            before: self.types_before(),
            is_newer_there,
        };
        match &self.there {
            _ if self.is_written => Some(pair(self.record.id, false)),
            Record::Found(_) if self.is_handed_over() => None,
            // They would be those of the next user there.
            Record::Found(there)
                if there.last_seen_at > self.record.last_seen_at
                    && there.principal.is_none()
                    && self.record.principal.is_some() =>
            {
                None
            }
            Record::Found(there) => {
                let is_newer_there = there.last_seen_at > self.record.last_seen_at;
                Some(pair(there.id, is_newer_there))
            }
            // Deleted there, or its id has moved to another endpoint.
            Record::Missing | Record::Unreadable => None,
        }
    }
}

/// A hash of the user and the tags of a row.
pub(super) fn owner(row: &SubscriptionRecord) -> [u8; 8] {
    // Both have strings only: they cannot fail to serialize.
    let owner = serde_json::to_vec(&(&row.principal, &row.tags)).unwrap_or_default();
    let hash: [u8; 32] = Sha256::digest(owner).into();
    *hash.first_chunk().unwrap_or(&[0; 8])
}
