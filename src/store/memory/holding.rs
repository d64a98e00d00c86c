//! Paused broadcasts in memory (L21).
//!
//! A ready row that a claim meets is put aside: it waits for a moment that is its broadcast's own and never comes. So the
//! rows of one broadcast are found among those that wait.

use super::ledger_state::{FIRST_KEY, LAST_KEY, Ledger, Seq};
use crate::broadcast::{BroadcastId, BroadcastStatus};
use crate::clock::Timestamp;
use crate::store::STEP;
use crate::store::rules::aside;
use crate::subscription::EndpointKey;

/// The moment of the rows of a broadcast that were put aside.
fn moment(seq: Seq) -> Timestamp {
    aside(i64::try_from(seq).unwrap_or(i64::MAX))
}

impl Ledger {
    pub(super) fn hold(
        &mut self,
        id: BroadcastId,
        is_held: bool,
        now: Timestamp,
    ) -> Option<BroadcastStatus> {
        let seq = *self.by_id.get(&id)?;
        let progress = &mut self.broadcasts.get_mut(&seq)?.progress;
        if progress.hold(is_held) {
            if is_held {
                self.resuming.remove(&seq);
            } else {
                self.resuming.insert(seq);
                if self.has_aside(seq) {
                    // These are turns of rows that are in line no more.
                    self.forget_turns(seq);
                }
            }
        }
        self.bring_back(STEP, now);
        self.status(id, now)
    }

    /// Whether rows of a broadcast were put aside.
    fn has_aside(&self, seq: Seq) -> bool {
        let rows = |leased| {
            let at = moment(seq);
            self.waiting
                .range((leased, at, seq, FIRST_KEY)..=(leased, at, seq, LAST_KEY))
        };
        [false, true]
            .into_iter()
            .any(|leased| rows(leased).next().is_some())
    }

    /// Puts a ready row of a paused broadcast aside. Returns `false` for a row of another one.
    pub(super) fn put_aside(&mut self, seq: Seq, key: EndpointKey) -> bool {
        let progress = self.broadcasts.get(&seq).map(|one| &one.progress);
        if progress.is_none_or(|progress| progress.cancelled || !progress.held) {
            return false;
        }
        self.take_out(seq, key);
        if let Some(row) = self.rows.get_mut(&(seq, key)) {
            row.at = moment(seq);
            self.waiting.insert((row.leased, row.at, seq, key));
        }
        true
    }

    /// Makes up to `limit` rows due that were put aside while their broadcast was paused. Returns their number.
    pub(super) fn bring_back(&mut self, limit: usize, now: Timestamp) -> usize {
        let mut left = limit;
        while let Some(&seq) = self.resuming.first().filter(|_| left > 0) {
            for leased in [true, false] {
                let at = moment(seq);
                let rows = (leased, at, seq, FIRST_KEY)..=(leased, at, seq, LAST_KEY);
                let keys = self.waiting.range(rows).map(|(.., key)| *key);
                let keys: Vec<_> = keys.take(left).collect();
                for key in &keys {
                    self.take_out(seq, *key);
                    if let Some(row) = self.rows.get_mut(&(seq, *key)) {
                        row.at = now;
                        self.waiting.insert((leased, now, seq, *key));
                    }
                }
                left -= keys.len();
            }
            if left > 0 {
                self.resuming.remove(&seq);
            }
        }
        limit - left
    }
}
