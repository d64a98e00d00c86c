//! A finding.

use std::error::Error;

use crate::observe;

/// Whether a finding is a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FindingKind {
    /// Nothing is wrong with it.
    Fine,
    /// Something that may be intended.
    Note,
    /// Messages are not sent, or soon will not be.
    Wrong,
}

/// What was found of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Whether it is a fault.
    pub kind: FindingKind,
    /// The part and what was found: one line without secrets. That of a subscription has its id, which is
    /// enough to unsubscribe it.
    pub text: String,
    /// What to do; empty if there is nothing to do.
    pub hint: &'static str,
}

impl Finding {
    pub(super) fn fine(text: impl Into<String>) -> Self {
        Self::new(FindingKind::Fine, text, "")
    }

    pub(super) fn note(text: impl Into<String>) -> Self {
        Self::new(FindingKind::Note, text, "")
    }

    pub(super) fn wrong(text: impl Into<String>, hint: &'static str) -> Self {
        Self::new(FindingKind::Wrong, text, hint)
    }

    /// A part that cannot be read, with the causes.
    pub(super) fn error(part: &str, error: &(dyn Error + 'static), hint: &'static str) -> Self {
        Self::wrong(format!("{part}: {}", observe::causes(error)), hint)
    }

    fn new(kind: FindingKind, text: impl Into<String>, hint: &'static str) -> Self {
        Self {
            kind,
            text: text.into(),
            hint,
        }
    }
}
