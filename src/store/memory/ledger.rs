//! The ledger in memory. Each operation holds one lock.

use async_trait::async_trait;

use super::MemoryStore;
use super::ledger_state::Ledger;
use crate::broadcast::{BroadcastId, BroadcastStatus, Principal};
use crate::clock::Timestamp;
use crate::store::{
    BroadcastCursor, BroadcastFilter, BroadcastPage, Change, ClaimRequest, ClaimToken, Claims,
    Cursor, DeliveryLedger, Erased, Expansion, FailureSample, LedgerStats, NewBroadcast,
    NewDelivery, Opened, PageWrite, Pause, Pruned, Settled, Settlement, StoreError,
    SubscriptionRecord, Tally,
};
use crate::subscription::Origin;

impl MemoryStore {
    /// Opens an unknown broadcast, with its first page if there is room for the rows.
    pub(super) fn open_unknown(&self, ledger: &mut Ledger, new: &NewBroadcast, now: Timestamp) {
        ledger.open(new, now);
        if let Some(page) = new.first_page(now)
            && self.room_for(ledger.rows(), page.rows.len()).is_ok()
        {
            ledger.enqueue_page(new.id, &Cursor::Start, &page.rows, &page.next, now);
        }
    }
}

#[async_trait]
impl DeliveryLedger for MemoryStore {
    async fn open(&self, broadcast: &NewBroadcast, now: Timestamp) -> Result<Opened, StoreError> {
        let ledger = &mut self.lock()?.ledger;
        if let Some(known) = ledger.known(broadcast, now) {
            return Ok(known);
        }
        self.room_for(ledger.broadcasts(), 1)?;
        self.open_unknown(ledger, broadcast, now);
        Ok(Opened::New)
    }

    async fn expandable(&self, limit: usize, now: Timestamp) -> Result<Vec<Expansion>, StoreError> {
        Ok(self.lock()?.ledger.expandable(limit, now))
    }

    async fn enqueue_page(
        &self,
        broadcast: BroadcastId,
        expected: &Cursor,
        rows: &[NewDelivery],
        next: &Cursor,
        now: Timestamp,
    ) -> Result<PageWrite, StoreError> {
        let ledger = &mut self.lock()?.ledger;
        // A page that is not written needs no room.
        if ledger.takes_page(broadcast, expected, now) {
            self.room_for(ledger.rows(), rows.len())?;
        }
        Ok(ledger.enqueue_page(broadcast, expected, rows, next, now))
    }

    async fn claim(&self, request: &ClaimRequest, now: Timestamp) -> Result<Claims, StoreError> {
        Ok(self.lock()?.ledger.claim(request, now))
    }

    async fn settle(
        &self,
        rows: &[(ClaimToken, Settlement)],
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        let ledger = &mut self.lock()?.ledger;
        let settle =
            |(token, settlement): &(ClaimToken, Settlement)| ledger.settle(token, *settlement, now);
        Ok(rows.iter().map(settle).collect())
    }

    async fn settle_with(
        &self,
        changes: &[Change],
        rows: &[(ClaimToken, Settlement)],
        now: Timestamp,
    ) -> Result<Option<Vec<Settled>>, StoreError> {
        let state = &mut *self.lock()?;
        for change in changes {
            state.subscriptions.apply(change, now);
        }
        let settle = |(token, settlement): &(ClaimToken, Settlement)| {
            state.ledger.settle(token, *settlement, now)
        };
        Ok(Some(rows.iter().map(settle).collect()))
    }

    async fn cancel(
        &self,
        broadcast: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        Ok(self.lock()?.ledger.cancel(broadcast, now))
    }

    async fn hold(
        &self,
        broadcast: BroadcastId,
        is_held: bool,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        Ok(self.lock()?.ledger.hold(broadcast, is_held, now))
    }

    async fn erase(
        &self,
        user: &Principal,
        subscriptions: &[SubscriptionRecord],
        now: Timestamp,
    ) -> Result<Erased, StoreError> {
        let mut erased = Erased::default();
        let mut after = None;
        loop {
            let ledger = &mut self.lock()?.ledger;
            after = ledger.erase_step(after, user, subscriptions, now, &mut erased);
            if after.is_none() {
                return Ok(erased);
            }
        }
    }

    async fn status(
        &self,
        broadcast: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        Ok(self.lock()?.ledger.status(broadcast, now))
    }

    async fn list_broadcasts(
        &self,
        filter: &BroadcastFilter,
        after: Option<&BroadcastCursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<BroadcastPage, StoreError> {
        Ok(self.lock()?.ledger.list(filter, after, limit, now))
    }

    async fn failure_samples(
        &self,
        broadcast: BroadcastId,
    ) -> Result<Vec<FailureSample>, StoreError> {
        Ok(self.lock()?.ledger.failure_samples(broadcast))
    }

    async fn pause(&self, pause: &Pause, now: Timestamp) -> Result<(), StoreError> {
        self.lock()?.ledger.pause(pause, now);
        Ok(())
    }

    async fn pauses(&self, now: Timestamp) -> Result<Vec<Pause>, StoreError> {
        Ok(self.lock()?.ledger.pauses(now))
    }

    async fn tally(
        &self,
        counts: &[(Origin, Tally)],
        now: Timestamp,
    ) -> Result<Vec<Tally>, StoreError> {
        let ledger = &mut self.lock()?.ledger;
        let tally = |(origin, counts): &(Origin, Tally)| ledger.tally(origin, *counts, now);
        Ok(counts.iter().map(tally).collect())
    }

    async fn tallies(&self) -> Result<Vec<(Origin, Tally)>, StoreError> {
        Ok(self.lock()?.ledger.tallies())
    }

    async fn underway(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<BroadcastStatus>, StoreError> {
        Ok(self.lock()?.ledger.underway(limit, now))
    }

    async fn expire(&self, limit: usize, now: Timestamp) -> Result<u64, StoreError> {
        Ok(self.lock()?.ledger.expire(limit, now))
    }

    async fn prune(&self, ended_before: Timestamp) -> Result<Pruned, StoreError> {
        Ok(self.lock()?.ledger.prune(ended_before))
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.lock()?.ledger.next_due(now))
    }

    async fn stats(&self, now: Timestamp) -> Result<LedgerStats, StoreError> {
        Ok(self.lock()?.ledger.stats(now))
    }

    async fn server_time(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }

    #[cfg(test)]
    fn epoch(&self) -> Option<u64> {
        *self.epoch.lock().unwrap()
    }

    fn description(&self) -> String {
        "memory".to_owned()
    }
}
