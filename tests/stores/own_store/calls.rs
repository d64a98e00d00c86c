//! The ledger's calls. Each is one transaction.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use async_trait::async_trait;
use tower_web_push::broadcast::{BroadcastId, BroadcastStatus, FinalOutcome, Principal};
use tower_web_push::clock::Timestamp;
use tower_web_push::message::{Message, Urgency};
use tower_web_push::store::rules::shares;
use tower_web_push::store::{
    BroadcastCursor, BroadcastFilter, BroadcastPage, ClaimRequest, ClaimToken, Claims, Cursor,
    DeliveryLedger, Erased, Expansion, FailureSample, LONGEST_WAIT, LedgerStats, NewBroadcast,
    NewDelivery, Opened, PageWrite, Pause, Pruned, STEP, Settled, Settlement, StoreError,
    SubscriptionRecord, Tally,
};
use tower_web_push::subscription::Origin;

use super::OwnStore;
use super::ledger::{Broadcast, Ledger};

#[async_trait]
impl DeliveryLedger for OwnStore {
    async fn open(&self, broadcast: &NewBroadcast, now: Timestamp) -> Result<Opened, StoreError> {
        Ok(self.begin()?.ledger.open(broadcast, now))
    }

    async fn expandable(&self, limit: usize, now: Timestamp) -> Result<Vec<Expansion>, StoreError> {
        let ledger = &mut self.begin()?.ledger;
        let take = ledger.listings;
        ledger.listings += 1;
        let broadcasts = &ledger.broadcasts;
        let due = broadcasts
            .iter()
            .filter(|one| one.progress.is_expandable(one.expand_at, now));
        let mut due: Vec<_> = due.collect();
        due.sort_by_key(|broadcast| broadcast.expand_at);
        let is_urgent = |one: &Broadcast| {
            let urgency = one.message.as_ref().map(Message::urgency);
            urgency == Some(Urgency::High)
        };
        let (mut urgent, others): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|one| is_urgent(one));
        let shares = shares(limit, take, [urgent.len(), others.len(), 0]);
        urgent.truncate(shares[0]);
        let listed = urgent.into_iter().chain(others.into_iter().take(shares[1]));
        let expansion = |one: &Broadcast| {
            let progress = &one.progress;
            Expansion {
                trace_parent: one.trace_parent,
                is_urgent: is_urgent(one),
                ..Expansion::new(progress.id, one.audience.clone(), one.cursor, progress.pace)
            }
        };
        Ok(listed.map(expansion).collect())
    }

    async fn enqueue_page(
        &self,
        broadcast: BroadcastId,
        expected: &Cursor,
        rows: &[NewDelivery],
        next: &Cursor,
        now: Timestamp,
    ) -> Result<PageWrite, StoreError> {
        let ledger = &mut self.begin()?.ledger;
        let written = ledger.write_page(broadcast, expected, rows, next, now);
        Ok(written.map_or(PageWrite::Stale, |()| PageWrite::Stored))
    }

    async fn claim(&self, request: &ClaimRequest, now: Timestamp) -> Result<Claims, StoreError> {
        Ok(self.begin()?.ledger.claim(request, now))
    }

    async fn settle(
        &self,
        rows: &[(ClaimToken, Settlement)],
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        let ledger = &mut self.begin()?.ledger;
        let settle =
            |(token, settlement): &(ClaimToken, Settlement)| ledger.settle(token, *settlement, now);
        Ok(rows.iter().map(settle).collect())
    }

    async fn cancel(
        &self,
        broadcast: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        let ledger = &mut self.begin()?.ledger;
        let Some(found) = ledger.broadcast(broadcast) else {
            return Ok(None);
        };
        found.progress.cancel();
        if found.progress.cancelled {
            ledger.end_unleased(broadcast, FinalOutcome::Cancelled, STEP, now);
        }
        let found = ledger.broadcast(broadcast);
        let status = found.map(|found| found.progress.status(now));
        // After that, since it may be forgotten.
        ledger.close_if_over(broadcast, now);
        Ok(status)
    }

    async fn hold(
        &self,
        broadcast: BroadcastId,
        is_held: bool,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        let ledger = &mut self.begin()?.ledger;
        let Some(found) = ledger.broadcast(broadcast) else {
            return Ok(None);
        };
        let goes_on = found.progress.hold(is_held) && !is_held;
        let status = found.progress.status(now);
        if goes_on {
            ledger.wait_again(broadcast, now);
        }
        Ok(Some(status))
    }

    async fn erase(
        &self,
        user: &Principal,
        subscriptions: &[SubscriptionRecord],
        now: Timestamp,
    ) -> Result<Erased, StoreError> {
        Ok(self.begin()?.ledger.erase(user, subscriptions, now))
    }

    async fn status(
        &self,
        broadcast: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        let ledger = &mut self.begin()?.ledger;
        Ok(ledger
            .broadcast(broadcast)
            .map(|found| found.progress.status(now)))
    }

    async fn list_broadcasts(
        &self,
        filter: &BroadcastFilter,
        after: Option<&BroadcastCursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<BroadcastPage, StoreError> {
        let broadcasts = &self.begin()?.ledger.broadcasts;
        let listed = broadcasts.iter().map(|one| one.progress.status(now));
        let is_behind = |status: &BroadcastStatus| {
            after.is_none_or(|after| BroadcastCursor::from(status) < *after)
        };
        let mut listed: Vec<_> = listed
            .filter(|status| is_behind(status) && filter.takes(status))
            .collect();
        listed.sort_by_key(|status| Reverse(BroadcastCursor::from(status)));
        let has_more = listed.len() > limit;
        listed.truncate(limit);
        let last = listed.last().map(BroadcastCursor::from);
        let next = if limit == 0 { after.copied() } else { last };
        Ok(BroadcastPage {
            next: next.filter(|_| has_more),
            broadcasts: listed,
        })
    }

    async fn failure_samples(
        &self,
        broadcast: BroadcastId,
    ) -> Result<Vec<FailureSample>, StoreError> {
        let broadcast = self
            .begin()?
            .ledger
            .broadcast(broadcast)
            .map(|one| one.samples.clone());
        Ok(broadcast.unwrap_or_default())
    }

    async fn pause(&self, pause: &Pause, now: Timestamp) -> Result<(), StoreError> {
        let origins = &mut self.begin()?.ledger.origins;
        let row = origins.entry(pause.origin.clone()).or_default();
        row.pause = pause.on_top_of(row.pause.as_ref(), now);
        row.probe = None;
        Ok(())
    }

    async fn pauses(&self, now: Timestamp) -> Result<Vec<Pause>, StoreError> {
        let origins = &self.begin()?.ledger.origins;
        let pauses = origins.values().filter_map(|row| row.pause.clone());
        Ok(pauses.filter(|pause| !pause.is_over(now)).collect())
    }

    async fn tally(
        &self,
        counts: &[(Origin, Tally)],
        now: Timestamp,
    ) -> Result<Vec<Tally>, StoreError> {
        let origins = &mut self.begin()?.ledger.origins;
        let tally = |(origin, new): &(Origin, Tally)| {
            let row = origins.entry(origin.clone()).or_default();
            if *new != Tally::default() {
                row.tally = row.tally.plus(*new);
                row.tallied_at = Some(now);
            }
            row.tally
        };
        Ok(counts.iter().map(tally).collect())
    }

    async fn tallies(&self) -> Result<Vec<(Origin, Tally)>, StoreError> {
        let origins = &self.begin()?.ledger.origins;
        let with_gone = origins.iter().filter(|(_, row)| row.tally.gone > 0);
        Ok(with_gone
            .map(|(origin, row)| (origin.clone(), row.tally))
            .collect())
    }

    async fn underway(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<BroadcastStatus>, StoreError> {
        let ledger = &self.begin()?.ledger;
        let open = ledger.open_by_deadline().into_iter().take(limit);
        Ok(open
            .map(|broadcast| broadcast.progress.status(now))
            .collect())
    }

    async fn expire(&self, limit: usize, now: Timestamp) -> Result<u64, StoreError> {
        let ledger = &mut self.begin()?.ledger;
        let late = ledger.open_by_deadline().into_iter();
        let late = late.filter(|broadcast| broadcast.progress.deadline <= now);
        let late: Vec<_> = late.map(|broadcast| broadcast.progress.id).collect();
        let mut ended = 0;
        for id in late {
            if ended < limit
                && let Some(broadcast) = ledger.broadcast(id)
            {
                let outcome = broadcast.progress.expire();
                ended += ledger.end_unleased(id, outcome, limit - ended, now);
                ledger.close_if_over(id, now);
            }
        }
        let deliveries = ledger.deliveries.iter_mut();
        for far in deliveries.filter(|row| row.at > now + LONGEST_WAIT) {
            far.at = now;
        }
        Ok(ended as u64)
    }

    async fn prune(&self, ended_before: Timestamp) -> Result<Pruned, StoreError> {
        let Ledger {
            broadcasts,
            deliveries,
            origins,
            ..
        } = &mut self.begin()?.ledger;
        let mut removed = 0;
        broadcasts.retain(|one| {
            let stays = removed == STEP || one.ended_at.is_none_or(|at| at >= ended_before);
            removed += usize::from(!stays);
            stays
        });
        origins.retain(|origin, row| {
            row.paused_until() > ended_before
                || row.tallied_at > Some(ended_before)
                || deliveries.iter().any(|delivery| delivery.origin == *origin)
        });
        Ok(Pruned {
            broadcasts: removed as u64,
            more: removed == STEP,
        })
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let ledger = &self.begin()?.ledger;
        let open = ledger.open_by_deadline();
        let expansions = open.iter();
        let expansions = expansions.filter_map(|one| one.progress.page_at(one.expand_at, now));
        let deadlines = open.iter().map(|one| one.progress.deadline);
        let deadlines = deadlines.filter(|deadline| *deadline > now);
        let claims = ledger.deliveries.iter();
        let claims = claims.filter(|row| row.turn.is_none() || !ledger.is_held(row.broadcast));
        let claims = claims.map(|row| {
            let origin = &ledger.origins[&row.origin];
            row.at.max(origin.paused_until())
        });
        let next = expansions.chain(deadlines).chain(claims).min();
        Ok(next.map(|next| next.max(now)))
    }

    async fn stats(&self, now: Timestamp) -> Result<LedgerStats, StoreError> {
        let ledger = &self.begin()?.ledger;
        let rows = &ledger.deliveries;
        let leased = rows.iter().filter(|row| row.is_leased && row.at > now);
        // The first in turn of each band of each origin, and all that wait.
        let mut heads: BTreeMap<_, (u64, Timestamp)> = BTreeMap::new();
        let ready = rows.iter().filter(|row| !ledger.is_held(row.broadcast));
        for (row, turn) in ready.filter_map(|row| Some((row, row.turn?))) {
            let head = heads.entry((&row.origin, row.band));
            let head = head.or_insert((turn, row.at));
            *head = (*head).min((turn, row.at));
        }
        let waiting = rows.iter().filter(|row| row.turn.is_none());
        let due = waiting
            .map(|row| row.at)
            .chain(heads.values().map(|head| head.1));
        let due = due.filter(|at| *at <= now);
        Ok(LedgerStats::new(
            rows.len() as u64,
            leased.count() as u64,
            due.min(),
        ))
    }

    async fn server_time(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }
}
