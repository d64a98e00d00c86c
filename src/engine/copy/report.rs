//! What a pass has done.

use crate::vapid::KeyId;

/// The numbers of one pass, so far or at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyReport {
    /// Subscriptions in the source when the pass began, in every state.
    pub total: u64,
    /// Subscriptions that the pass has read, those of the part before an interruption included.
    pub read: u64,
    /// Subscriptions that were written to the target: it did not have them, or an older version.
    pub written: u64,
    /// Subscriptions that the target has deleted since the last pass. They were not written again, unless the
    /// source has them as retired or stale: then [`written`](Self::written) counts them too.
    pub left_out: u64,
    /// Subscriptions that were deleted in the target, since the source has deleted them after the last pass.
    pub deleted: u64,
    /// Daily notifications that were written or removed in the target.
    pub schedules: u64,
    /// VAPID keys that were added to the target, or made the active one there.
    pub vapid_keys: u64,
    /// Whether no pass ended before this one.
    pub is_first: bool,
    /// Whether it continued one that was interrupted.
    pub is_continued: bool,
    /// The active VAPID key of the target, if the source does not have it. Browsers subscribe with it there, and those that
    /// subscribed with the source's keys are sent to with those.
    pub own_active_key: Option<KeyId>,
    /// Messages that are pending in the source at the end. They are not copied.
    pub pending: u64,
}

impl CopyReport {
    /// Whether the pass has changed nothing in the target.
    #[must_use]
    pub const fn is_unchanged(&self) -> bool {
        self.written == 0 && self.deleted == 0 && self.schedules == 0 && self.vapid_keys == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_counts() {
        let changes: [fn(&mut CopyReport); 4] = [
            |report| report.written = 1,
            |report| report.deleted = 1,
            |report| report.schedules = 1,
            |report| report.vapid_keys = 1,
        ];
        for change in changes {
            let mut report = CopyReport::default();
            assert!(report.is_unchanged());
            change(&mut report);
            assert!(!report.is_unchanged(), "{report:?}");
        }
    }
}
