//! The counts and the state of one broadcast.

use std::num::NonZeroU32;

use super::aside::due_at;
use super::pace::{next_page_at, page_at};
use crate::broadcast::{BroadcastId, BroadcastState, BroadcastStatus, Counts, FinalOutcome};
use crate::clock::Timestamp;
use crate::store::{Cursor, NewBroadcast, Settlement};

/// The counts that a ledger keeps of one broadcast, and the rules about them.
///
/// A ledger stores these fields beside the audience, the message, the [`Cursor`] and the idempotency key. It reads
/// them, calls a method that changes them, and writes them back in the transaction that changes the rows. It then wipes
/// the message of a broadcast that [is over](Self::is_over) (L10).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a ledger stores every field")]
pub struct BroadcastProgress {
    /// The broadcast.
    pub id: BroadcastId,
    /// Number of recipients when it was accepted.
    pub expected: u64,
    /// Number of recipients that were written as rows or ended without one.
    pub written: u64,
    /// Whether there may be more rows to write.
    pub expanding: bool,
    /// Whether it was cancelled.
    pub cancelled: bool,
    /// Whether it is paused.
    pub held: bool,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it is to be sent. `None` means at once.
    pub send_at: Option<Timestamp>,
    /// When its pending rows expire.
    pub deadline: Timestamp,
    /// The most recipients that are written per second. `None` means as fast as possible.
    pub pace: Option<NonZeroU32>,
    /// The number of recipients by outcome. `pending` is not stored: it follows from the others.
    pub counts: Counts,
}

/// The state of a claimed row after its settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the row has to be written or deleted"]
#[expect(clippy::exhaustive_enums, reason = "a ledger handles both")]
pub enum AfterClaim {
    /// The row was counted, and has to be deleted.
    Ended,
    /// The row is no longer leased, and due later.
    Due {
        /// The due time.
        at: Timestamp,
        /// Whether the attempt counted by its claim is taken back.
        uncounted: bool,
    },
}

impl BroadcastProgress {
    /// The progress of a broadcast that was accepted at `now`.
    #[must_use]
    pub fn new(broadcast: &NewBroadcast, now: Timestamp) -> Self {
        Self {
            id: broadcast.id,
            expected: broadcast.recipients,
            written: 0,
            expanding: true,
            cancelled: false,
            held: false,
            created_at: now,
            send_at: broadcast.send_at,
            deadline: broadcast.deadline,
            pace: broadcast.pace,
            counts: Counts::default(),
        }
    }

    /// The later of acceptance and `send_at`: the due time of its rows, from which its message's TTL counts.
    #[must_use]
    pub fn due_at(&self) -> Timestamp {
        self.send_at
            .map_or(self.created_at, |at| at.max(self.created_at))
    }

    /// Returns whether it can be expanded at `now` (L3). `expand_at` is what [`next_page_at`](Self::next_page_at)
    /// returned for its last page, or its [due time](Self::due_at).
    #[must_use]
    pub fn is_expandable(&self, expand_at: Timestamp, now: Timestamp) -> bool {
        self.page_at(expand_at, now)
            .is_some_and(|page_at| page_at <= now)
    }

    /// The time from which its next page may be written (L3, L14); `None` if there is none after `now`.
    #[must_use]
    pub fn page_at(&self, expand_at: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let page_at = page_at(self.pace, self.due_at(), expand_at, now);
        let may_expand = self.expanding && !self.held && page_at.max(now) < self.deadline;
        may_expand.then_some(page_at)
    }

    /// The time from which the page after one of `rows` new rows may be written (L4). `expand_at` is what this function
    /// returned for the page before, or its [due time](Self::due_at).
    #[must_use]
    pub fn next_page_at(&self, rows: u64, expand_at: Timestamp, now: Timestamp) -> Timestamp {
        next_page_at(self.pace, rows, expand_at, now)
    }

    /// Returns whether a page may be written at `now` (L4). `cursor` is the stored cursor, `expected` the caller's.
    #[must_use]
    pub fn takes_page(&self, cursor: &Cursor, expected: &Cursor, now: Timestamp) -> bool {
        self.expanding && !self.held && self.deadline > now && cursor == expected
    }

    /// Counts the new rows of a page that ends at the cursor `next` (L4).
    pub fn write_page(&mut self, rows: u64, next: &Cursor) {
        self.written = self.written.saturating_add(rows);
        self.expanding &= *next != Cursor::End;
    }

    /// Cancels it (L9). Returns `true` if it was neither cancelled nor over before: then its rows without a lease have to
    /// be deleted and counted as cancelled.
    pub fn cancel(&mut self) -> bool {
        let cancels = !self.cancelled && !self.is_over();
        if cancels {
            self.cancelled = true;
            self.end_unwritten(FinalOutcome::Cancelled);
        }
        cancels
    }

    /// Pauses it, or lets it go on (L21). Returns whether this is a change: a broadcast that is cancelled or over stays as
    /// it is.
    pub fn hold(&mut self, is_held: bool) -> bool {
        let changes = self.held != is_held && !self.cancelled && !self.is_over();
        if changes {
            self.held = is_held;
        }
        changes
    }

    /// Stops the expansion at its deadline (L12). Returns the outcome of its rows without a lease.
    pub fn expire(&mut self) -> FinalOutcome {
        self.end_unwritten(FinalOutcome::Expired);
        match self.cancelled {
            true => FinalOutcome::Cancelled,
            false => FinalOutcome::Expired,
        }
    }

    /// Settles a row with a valid token (L7 to L9), and counts it if it ends.
    pub fn settle(&mut self, settlement: Settlement) -> AfterClaim {
        match settlement {
            Settlement::Finished(outcome) => {
                self.counts.add(outcome, 1);
                AfterClaim::Ended
            }
            Settlement::RetryAt(at) => self.put_back(at, false),
            Settlement::Deferred(at) => self.put_back(at, true),
        }
    }

    fn put_back(&mut self, at: Timestamp, uncounted: bool) -> AfterClaim {
        if self.cancelled {
            self.settle(Settlement::Finished(FinalOutcome::Cancelled))
        } else {
            // Not the moment of rows that are put aside.
            let at = Timestamp::from_millis(due_at(at));
            AfterClaim::Due { at, uncounted }
        }
    }

    /// Number of pending rows, including leased ones.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.written.saturating_sub(self.counts.finished())
    }

    /// Returns whether it has no pending recipients.
    #[must_use]
    pub fn is_over(&self) -> bool {
        !self.expanding && self.rows() == 0
    }

    /// The status as returned by [`DeliveryLedger::status`](crate::store::DeliveryLedger::status) (L10).
    #[must_use]
    pub fn status(&self, now: Timestamp) -> BroadcastStatus {
        let recipients = if self.expanding {
            self.expected.max(self.written)
        } else {
            self.written
        };
        let mut counts = self.counts;
        counts.pending = recipients.saturating_sub(self.counts.finished());
        BroadcastStatus {
            id: self.id,
            state: self.state(now),
            recipients,
            created_at: self.created_at,
            send_at: self.send_at,
            deadline: self.deadline,
            pace: self.pace,
            counts,
        }
    }

    fn state(&self, now: Timestamp) -> BroadcastState {
        if self.cancelled {
            BroadcastState::Cancelled
        } else if self.is_over() {
            BroadcastState::Done
        } else if self.held {
            BroadcastState::Paused
        } else if self.expanding && self.due_at() > now {
            BroadcastState::Scheduled
        } else if self.expanding {
            BroadcastState::Expanding
        } else {
            BroadcastState::Sending
        }
    }

    /// Ends the expansion. Recipients that were expected and not written count as `outcome`.
    fn end_unwritten(&mut self, outcome: FinalOutcome) {
        if self.expanding {
            self.expanding = false;
            let unwritten = self.expected.saturating_sub(self.written);
            self.counts.add(outcome, unwritten);
            self.written = self.written.saturating_add(unwritten);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::Audience;
    use crate::message::Message;
    use crate::subscription::EndpointKey;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn progress(expected: u64) -> BroadcastProgress {
        let mut new = NewBroadcast::new(Audience::All, Message::new("hello"), at(99));
        new.recipients = expected;
        BroadcastProgress::new(&new, at(10))
    }

    #[test]
    fn the_counts_add_up_at_every_step() {
        let mut progress = progress(5);
        let adds_up = |progress: &BroadcastProgress| {
            let status = progress.status(at(10));
            assert_eq!(
                status.counts.pending + status.counts.finished(),
                status.recipients
            );
            status
        };
        let next = Cursor::After(EndpointKey::from_bytes([1; 32]));
        assert_eq!(adds_up(&progress).state, BroadcastState::Expanding);
        progress.write_page(2, &next);
        let accepted = Settlement::Finished(FinalOutcome::Accepted);
        assert_eq!(progress.settle(accepted), AfterClaim::Ended);
        assert_eq!(adds_up(&progress).recipients, 5);
        progress.write_page(5, &next);
        assert_eq!(adds_up(&progress).recipients, 7);
        progress.write_page(0, &Cursor::End);
        assert_eq!(adds_up(&progress).state, BroadcastState::Sending);
        progress.counts.add(FinalOutcome::Gone, 6);
        assert_eq!(adds_up(&progress).state, BroadcastState::Done);
    }

    #[test]
    fn the_unwritten_end_once() {
        let mut progress = progress(5);
        progress.write_page(2, &Cursor::Start);
        assert_eq!(progress.expire(), FinalOutcome::Expired);
        assert!(progress.cancel());
        assert_eq!(progress.expire(), FinalOutcome::Cancelled);
        assert_eq!(progress.counts.expired, 3);
        assert_eq!(progress.counts.cancelled, 0);
        assert_eq!(progress.rows(), 2);
        assert!(!progress.is_over());
    }

    #[test]
    fn a_row_given_back_ends_where_its_broadcast_was_cancelled() {
        let mut progress = progress(2);
        progress.write_page(2, &Cursor::End);
        let (at, uncounted) = (at(20), false);
        let due = AfterClaim::Due { at, uncounted };
        assert_eq!(progress.settle(Settlement::RetryAt(at)), due);
        let uncounted = true;
        let due = AfterClaim::Due { at, uncounted };
        assert_eq!(progress.settle(Settlement::Deferred(at)), due);
        assert_eq!(progress.rows(), 2);
        assert!(progress.cancel());
        assert!(!progress.cancel(), "once");
        assert_eq!(progress.settle(Settlement::RetryAt(at)), AfterClaim::Ended);
        assert_eq!(progress.settle(Settlement::Deferred(at)), AfterClaim::Ended);
        assert_eq!(progress.counts.cancelled, 2);
        assert!(progress.is_over());
    }

    #[test]
    fn a_pause_stops_the_expansion_and_ends_with_the_broadcast() {
        let mut progress = progress(5);
        assert!(progress.hold(true));
        assert!(!progress.hold(true), "once");
        assert_eq!(progress.status(at(9)).state, BroadcastState::Paused);
        assert_eq!(progress.page_at(at(10), at(10)), None);
        assert!(!progress.takes_page(&Cursor::Start, &Cursor::Start, at(10)));
        assert!(progress.hold(false));
        assert_eq!(progress.status(at(10)).state, BroadcastState::Expanding);
        progress.write_page(2, &Cursor::End);
        assert!(progress.hold(true));
        let later = Settlement::RetryAt(at(20));
        assert_ne!(progress.settle(later), AfterClaim::Ended, "it waits");
        assert_eq!(progress.status(at(10)).state, BroadcastState::Paused);
        let mut cancelled = progress.clone();
        assert!(cancelled.cancel());
        assert_eq!(cancelled.status(at(10)).state, BroadcastState::Cancelled);
        assert!(!cancelled.hold(false));
        assert_eq!(progress.expire(), FinalOutcome::Expired);
        progress.counts.add(FinalOutcome::Expired, 2);
        assert_eq!(progress.status(at(99)).state, BroadcastState::Done);
        assert!(!progress.hold(false), "it is over");
    }

    #[test]
    fn what_is_over_is_not_cancelled() {
        let mut progress = progress(0);
        progress.write_page(0, &Cursor::End);
        assert!(!progress.cancel());
        assert_eq!(progress.status(at(10)).state, BroadcastState::Done);
    }

    #[test]
    fn pages_are_written_from_the_stored_cursor_until_the_deadline() {
        let mut progress = progress(2);
        let next = Cursor::After(EndpointKey::from_bytes([1; 32]));
        assert!(progress.takes_page(&Cursor::Start, &Cursor::Start, at(98)));
        assert!(!progress.takes_page(&next, &Cursor::Start, at(98)));
        assert!(!progress.takes_page(&next, &next, at(99)));
        assert!(progress.is_expandable(at(10), at(10)));
        assert!(!progress.is_expandable(at(10), at(9)));
        assert!(!progress.is_expandable(at(10), at(99)));
        progress.write_page(2, &Cursor::End);
        assert!(!progress.is_expandable(at(10), at(10)));
        assert!(!progress.takes_page(&Cursor::End, &Cursor::End, at(10)));
    }
}
