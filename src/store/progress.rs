//! The numbers of one broadcast, and what follows from them: the same in every back end here.

use crate::broadcast::{BroadcastId, BroadcastState, BroadcastStatus, Counts, FinalOutcome};
use crate::clock::Timestamp;

/// The columns of the outcomes, which have their names, in the order of [`FinalOutcome::ALL`].
#[cfg(any(feature = "sqlite", feature = "postgres"))]
macro_rules! outcome_columns {
    () => {
        "accepted, gone, key_mismatch, sender_fault, too_large, bad_request, refused, expired, failed, cancelled"
    };
}
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) use outcome_columns;

/// A broadcast without its content.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) id: BroadcastId,
    /// How many recipients there were at acceptance.
    pub(super) expected: u64,
    /// How many were written as rows, or given up unwritten.
    pub(super) written: u64,
    /// Whether there may be more to write.
    pub(super) expanding: bool,
    pub(super) cancelled: bool,
    pub(super) created_at: Timestamp,
    pub(super) send_at: Option<Timestamp>,
    pub(super) deadline: Timestamp,
    /// What came of the rows; its `pending` is not kept.
    pub(super) counts: Counts,
}

impl Progress {
    /// The later of acceptance and `send_at`.
    pub(super) fn due_at(&self) -> Timestamp {
        self.send_at
            .map_or(self.created_at, |at| at.max(self.created_at))
    }

    /// Ends the expansion; who was expected and not written comes to `outcome`.
    pub(super) fn give_up_unwritten(&mut self, outcome: FinalOutcome) {
        if self.expanding {
            self.expanding = false;
            let unwritten = self.expected.saturating_sub(self.written);
            self.counts.add(outcome, unwritten);
            self.written = self.written.saturating_add(unwritten);
        }
    }

    /// Rows there are.
    pub(super) fn rows(&self) -> u64 {
        self.written.saturating_sub(self.counts.finished())
    }

    /// Whether nothing is left to do for it.
    pub(super) fn is_over(&self) -> bool {
        !self.expanding && self.rows() == 0
    }

    fn recipients(&self) -> u64 {
        if self.expanding {
            self.expected.max(self.written)
        } else {
            self.written
        }
    }

    fn state(&self, now: Timestamp) -> BroadcastState {
        if self.cancelled {
            BroadcastState::Cancelled
        } else if self.expanding && self.due_at() > now {
            BroadcastState::Scheduled
        } else if self.expanding {
            BroadcastState::Expanding
        } else if self.is_over() {
            BroadcastState::Done
        } else {
            BroadcastState::Sending
        }
    }

    pub(super) fn status(&self, now: Timestamp) -> BroadcastStatus {
        let recipients = self.recipients();
        let mut status = BroadcastStatus::new(
            self.id,
            self.state(now),
            recipients,
            self.created_at,
            self.deadline,
        );
        status.send_at = self.send_at;
        status.counts = self.counts;
        status.counts.pending = recipients.saturating_sub(self.counts.finished());
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(expected: u64) -> Progress {
        Progress {
            id: BroadcastId::random(),
            expected,
            written: 0,
            expanding: true,
            cancelled: false,
            created_at: Timestamp::from_secs(10),
            send_at: None,
            deadline: Timestamp::from_secs(99),
            counts: Counts::default(),
        }
    }

    #[test]
    fn the_counts_add_up_at_every_step() {
        let now = Timestamp::from_secs(10);
        let mut progress = progress(5);
        let adds_up = |progress: &Progress| {
            let status = progress.status(now);
            assert_eq!(
                status.counts.pending + status.counts.finished(),
                status.recipients
            );
            status
        };
        assert_eq!(adds_up(&progress).state, BroadcastState::Expanding);
        progress.written = 2;
        progress.counts.add(FinalOutcome::Accepted, 1);
        assert_eq!(adds_up(&progress).recipients, 5);
        progress.written = 7;
        assert_eq!(adds_up(&progress).recipients, 7);
        progress.expanding = false;
        assert_eq!(adds_up(&progress).state, BroadcastState::Sending);
        progress.counts.add(FinalOutcome::Gone, 6);
        assert_eq!(adds_up(&progress).state, BroadcastState::Done);
    }

    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    #[test]
    fn the_columns_of_outcomes_have_their_names() {
        let names: Vec<_> = FinalOutcome::ALL
            .iter()
            .map(|outcome| outcome.as_str())
            .collect();
        assert_eq!(outcome_columns!(), names.join(", "));
    }

    #[test]
    fn the_unwritten_are_given_up_once() {
        let mut progress = progress(5);
        progress.written = 2;
        progress.give_up_unwritten(FinalOutcome::Expired);
        progress.give_up_unwritten(FinalOutcome::Cancelled);
        assert_eq!(progress.counts.expired, 3);
        assert_eq!(progress.counts.cancelled, 0);
        assert_eq!(progress.rows(), 2);
        assert!(!progress.is_over());
    }
}
