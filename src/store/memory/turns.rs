//! The turns of rows within their origin (L18): start-time fair queueing.
//!
//! A row waits (leased, or to be retried) or is ready, with a turn: a virtual time of its origin and band. A row that
//! becomes ready has the turn after that of the row before it of its broadcast, or after the highest turn claimed if that
//! is later. So broadcasts take turns, and one that comes later begins where the others are.

use std::collections::{BTreeSet, HashMap};

use super::ledger_state::{Ledger, Seq};
use crate::clock::Timestamp;
use crate::store::STEP;
use crate::store::rules::BANDS;
use crate::subscription::EndpointKey;

/// The ready rows of one origin.
#[derive(Default)]
pub(super) struct Turns {
    pub(super) bands: [Band; BANDS],
    /// The number of claims of rows.
    pub(super) takes: u64,
    /// The last turn of a row of each broadcast that is not over.
    pub(super) last: HashMap<Seq, u64>,
}

#[derive(Default)]
pub(super) struct Band {
    /// In the order of their turns, then the older broadcast first.
    pub(super) ready: BTreeSet<(u64, Seq, EndpointKey)>,
    /// The highest turn claimed.
    pub(super) claimed: u64,
}

impl Turns {
    pub(super) fn is_empty(&self) -> bool {
        self.bands.iter().all(|band| band.ready.is_empty())
    }

    /// The rows that are next in turn in each band.
    pub(super) fn heads(&self) -> impl Iterator<Item = (Seq, EndpointKey)> {
        let heads = self.bands.iter().filter_map(|band| band.ready.first());
        heads.map(|&(_, seq, key)| (seq, key))
    }
}

impl Ledger {
    /// Gives the next turn to a row that waits no more.
    pub(super) fn make_ready(&mut self, seq: Seq, key: EndpointKey) {
        let (Some(row), Some(broadcast)) = (
            self.rows.get_mut(&(seq, key)),
            self.broadcasts.get_mut(&seq),
        ) else {
            return;
        };
        let queue = self.queues.entry(row.origin.clone()).or_default();
        if let Some(band) = queue.turns.bands.get_mut(broadcast.band) {
            let last = queue.turns.last.entry(seq).or_default();
            *last = band.claimed.max(*last) + 1;
            band.ready.insert((*last, seq, key));
            row.turn = Some(*last);
            broadcast.origins.insert(row.origin.clone());
        }
        let origin = row.origin.clone();
        self.bring_forward(&origin);
    }

    /// Makes rows ready whose lease has expired or whose time has come, in one step. Returns whether there may be more.
    pub(super) fn wake(&mut self, now: Timestamp) -> bool {
        let mut left = STEP;
        for leased in [true, false] {
            while left > 0 {
                let mut rows = self.waiting_rows(leased, Timestamp::MIN);
                let Some((_, seq, key)) = rows.next().filter(|(at, ..)| *at <= now) else {
                    break;
                };
                drop(rows);
                let Some(row) = self.rows.get(&(seq, key)) else {
                    break;
                };
                self.waiting.remove(&(leased, row.at, seq, key));
                self.make_ready(seq, key);
                left -= 1;
            }
        }
        left == 0
    }

    /// Takes a row out of its place: it neither waits nor is ready.
    pub(super) fn take_out(&mut self, seq: Seq, key: EndpointKey) {
        let (Some(row), Some(broadcast)) =
            (self.rows.get_mut(&(seq, key)), self.broadcasts.get(&seq))
        else {
            return;
        };
        let Some(turn) = row.turn.take() else {
            self.waiting.remove(&(row.leased, row.at, seq, key));
            return;
        };
        let queue = self.queues.get_mut(&row.origin);
        if let Some(band) = queue.and_then(|queue| queue.turns.bands.get_mut(broadcast.band)) {
            band.ready.remove(&(turn, seq, key));
        }
    }

    /// Forgets the turns of a broadcast that is over.
    pub(super) fn forget_turns(&mut self, seq: Seq) {
        let Some(broadcast) = self.broadcasts.get_mut(&seq) else {
            return;
        };
        for origin in std::mem::take(&mut broadcast.origins) {
            if let Some(queue) = self.queues.get_mut(&origin) {
                queue.turns.last.remove(&seq);
            }
        }
    }
}
