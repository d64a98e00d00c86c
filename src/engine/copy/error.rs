//! Why a pass stopped.

use std::fmt;

use crate::error::error_struct;
use crate::store::StoreError;

error_struct! {
    /// The reason why a pass of a copy, an export or a restoration stopped. What was written by then stays.
    CopyError, CopyErrorKind
}

/// The kind of a copy's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CopyErrorKind {
    /// The source failed: see the source of the error.
    Source,
    /// The target failed, or is full.
    Target,
    /// The journal cannot be read or written, is that of a copy between other stores, or is used by another copy.
    Journal,
    /// One of the stores has less than half of the rows that the journal names, or the target of those of one page. It is another
    /// store, was emptied, or has lost what it had acknowledged: with this journal, rows would be left out or deleted that are
    /// wanted. Without the journal, all is copied again.
    LostRows,
    /// An export cannot be written, or cannot be read: it is incomplete, damaged, of another version, or without secrets.
    File,
    /// The store into which an export was to be restored is not empty.
    NotEmpty,
}

impl fmt::Display for CopyErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "the source of the copy failed",
            Self::Target => "the target of the copy failed",
            Self::Journal => "the journal of the copy cannot be used",
            Self::LostRows => {
                "a store of the copy has lost most of its subscriptions since the last pass"
            }
            Self::File => "the export cannot be used",
            Self::NotEmpty => "the store is not empty",
        })
    }
}

pub(super) fn source(error: StoreError) -> CopyError {
    CopyError::with_source(CopyErrorKind::Source, error)
}

pub(super) fn target(error: StoreError) -> CopyError {
    CopyError::with_source(CopyErrorKind::Target, error)
}
