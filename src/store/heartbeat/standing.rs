//! What a worker knows of itself and of the others.

use std::time::Duration;

use super::beats::{Beat, Beats, GRACE, Moment};
use super::{Other, Silent, WorkerId};

/// From half the grace on a worker no longer trusts that others take it for alive.
const TRUSTED: Duration = Duration::from_millis(1500);

/// A worker's number and epoch, and the workers that are dead.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// The number that claims name. `None` before it has enlisted, and while no other worker would see its beats.
    id: Option<WorkerId>,
    epoch: u64,
    beats: Beats,
    others: Vec<WorkerId>,
    silent: Option<Silent>,
}

impl Standing {
    /// The epoch of claims (L19).
    ///
    /// A worker whose beats are not confirmed begins nothing for half of the grace. Then others may take its rows, so that
    /// another epoch begins, in which claims name no worker, and leases end by their time only: a worker whose
    /// beats cannot be restored goes on.
    pub(crate) fn epoch(&mut self, now: Moment) -> Option<u64> {
        let last = self.beats.last();
        let silence = last.map_or(Duration::ZERO, |last| now.since(last.sent));
        if self.id.is_some() && silence >= GRACE {
            self.id = None;
            self.epoch += 1;
        }
        (self.id.is_none() || silence < TRUSTED).then_some(self.epoch)
    }

    /// The number that a claim names.
    pub(crate) fn worker(&mut self, now: Moment) -> Option<WorkerId> {
        self.epoch(now).and(self.id)
    }

    /// The server has confirmed a beat. A number that was not declared dead in the meantime is good again.
    pub(crate) fn beaten(&mut self, id: WorkerId, beat: Beat) {
        self.id = Some(id);
        self.beats.push(beat);
    }

    /// The worker was declared dead, or its entry is missing: rows that it had claimed may be claimed by others.
    pub(crate) fn struck(&mut self) {
        let (epoch, others) = (self.epoch + 1, std::mem::take(&mut self.others));
        *self = Self {
            epoch,
            others,
            ..Self::default()
        };
    }

    /// Judges the other workers.
    pub(crate) fn looked(&mut self, others: &[Other]) {
        let workers = self.beats.dead_of(others);
        self.silent = (!workers.is_empty()).then(|| Silent {
            workers,
            horizon: self.beats.horizon(),
        });
        self.others = others.iter().map(|other| other.id).collect();
    }

    pub(crate) fn others(&self) -> Vec<WorkerId> {
        self.others.clone()
    }

    /// Those whose rows are to be made due, once for each look.
    pub(crate) fn take_silent(&mut self) -> Option<Silent> {
        self.silent.take()
    }

    /// There is more to do for them.
    pub(crate) fn put_back(&mut self, silent: Silent) {
        self.silent.get_or_insert(silent);
    }
}

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
