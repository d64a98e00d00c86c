//! The ledger's tables (broadcasts, deliveries and origins) and their changes.

use std::collections::BTreeMap;
use std::convert::Infallible;

use tower_web_push::broadcast::{Audience, BroadcastId, FinalOutcome, Principal, TraceParent};
use tower_web_push::clock::Timestamp;
use tower_web_push::message::Message;
use tower_web_push::store::rules::{
    AfterClaim, BANDS, BroadcastProgress, band, deal, sample, shares,
};
use tower_web_push::store::{
    ClaimRequest, ClaimToken, Claimed, ClaimedMessage, Claims, Cursor, Erased, FailureSample,
    Idempotency, NewBroadcast, NewDelivery, Opened, Pause, STEP, Settled, Settlement,
    SubscriptionRecord, Tally,
};
use tower_web_push::subscription::{EndpointKey, Origin};

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) broadcasts: Vec<Broadcast>,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) origins: BTreeMap<Origin, OriginRow>,
    last_fence: u64,
    /// The number of lists of broadcasts to expand so far (L3).
    pub(super) listings: u64,
}

pub(super) struct Broadcast {
    pub(super) progress: BroadcastProgress,
    pub(super) audience: Audience,
    pub(super) message: Option<Message>,
    pub(super) cursor: Cursor,
    /// The time from which its next page may be written.
    pub(super) expand_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) idempotency: Option<Idempotency>,
    pub(super) forget_when_over: bool,
    pub(super) samples: Vec<FailureSample>,
    pub(super) trace_parent: Option<TraceParent>,
}

pub(super) struct Delivery {
    pub(super) broadcast: BroadcastId,
    pub(super) key: EndpointKey,
    pub(super) origin: Origin,
    /// Its due time, or the end of its lease.
    pub(super) at: Timestamp,
    pub(super) band: usize,
    /// Its place among the ready rows of its origin and band (L18).
    pub(super) turn: Option<u64>,
    pub(super) is_leased: bool,
    pub(super) fence: u64,
    pub(super) attempt: u32,
}

#[derive(Default)]
pub(super) struct OriginRow {
    pub(super) pause: Option<Pause>,
    /// The fence and key of the probe.
    pub(super) probe: Option<(u64, EndpointKey)>,
    pub(super) served: u64,
    /// The highest turn claimed in each band, and the last one of each broadcast.
    claimed: [u64; BANDS],
    last: BTreeMap<BroadcastId, u64>,
    takes: u64,
    pub(super) tally: Tally,
    pub(super) tallied_at: Option<Timestamp>,
}

impl OriginRow {
    pub(super) fn paused_until(&self) -> Timestamp {
        let pause = self.pause.as_ref();
        pause.map_or(Timestamp::MIN, |pause| pause.until)
    }
}

impl Ledger {
    pub(super) fn open(&mut self, new: &NewBroadcast, now: Timestamp) -> Opened {
        let same_key = |known: &Idempotency| {
            let idempotency = new.idempotency.as_ref();
            idempotency.is_some_and(|idempotency| idempotency.key == known.key)
        };
        for known in &self.broadcasts {
            if known.progress.id == new.id {
                return Opened::Repeat(known.progress.status(now));
            }
            if known.idempotency.as_ref().is_some_and(same_key) {
                return match known.idempotency == new.idempotency {
                    true => Opened::Repeat(known.progress.status(now)),
                    false => Opened::Conflict,
                };
            }
        }
        let progress = BroadcastProgress::new(new, now);
        self.broadcasts.push(Broadcast {
            audience: new.audience.clone(),
            message: Some(new.message.clone()),
            cursor: Cursor::Start,
            expand_at: progress.due_at(),
            ended_at: None,
            idempotency: new.idempotency.clone(),
            forget_when_over: new.forget_when_over,
            samples: Vec::new(),
            trace_parent: new.trace_parent,
            progress,
        });
        if let Some(page) = new.first_page(now) {
            self.write_page(new.id, &Cursor::Start, &page.rows, &page.next, now);
        }
        Opened::New
    }

    pub(super) fn broadcast(&mut self, id: BroadcastId) -> Option<&mut Broadcast> {
        let mut broadcasts = self.broadcasts.iter_mut();
        broadcasts.find(|broadcast| broadcast.progress.id == id)
    }

    pub(super) fn write_page(
        &mut self,
        id: BroadcastId,
        expected: &Cursor,
        rows: &[NewDelivery],
        next: &Cursor,
        now: Timestamp,
    ) -> Option<()> {
        let broadcast = self.broadcast(id)?;
        let progress = &broadcast.progress;
        if !progress.takes_page(&broadcast.cursor, expected, now) {
            return None;
        }
        let (at, mut written) = (progress.due_at(), 0);
        let band = band(broadcast.message.as_ref()?.urgency());
        for NewDelivery { key, origin } in rows {
            let mut deliveries = self.deliveries.iter();
            if deliveries.any(|row| row.broadcast == id && row.key == *key) {
                continue;
            }
            written += 1;
            self.origins.entry(origin.clone()).or_default();
            self.deliveries.push(Delivery {
                broadcast: id,
                key: *key,
                origin: origin.clone(),
                at,
                band,
                turn: None,
                is_leased: false,
                fence: 0,
                attempt: 0,
            });
            if at <= now {
                self.make_ready(self.deliveries.len() - 1);
            }
        }
        let broadcast = self.broadcast(id)?;
        broadcast.progress.write_page(written, next);
        broadcast.cursor = *next;
        broadcast.expand_at = broadcast
            .progress
            .next_page_at(written, broadcast.expand_at, now);
        self.close_if_over(id, now);
        Some(())
    }

    /// Gives a row the next turn (L18).
    fn make_ready(&mut self, index: usize) {
        let row = &mut self.deliveries[index];
        let origin = self.origins.get_mut(&row.origin).unwrap();
        let last = origin.last.entry(row.broadcast).or_default();
        *last = origin.claimed[row.band].max(*last) + 1;
        row.turn = Some(*last);
    }

    pub(super) fn claim(&mut self, request: &ClaimRequest, now: Timestamp) -> Claims {
        let rows = self.deliveries.iter().enumerate();
        let due = rows.filter(|(_, row)| row.turn.is_none() && row.at <= now);
        let mut due: Vec<_> = due.map(|(index, row)| (row.at, index)).collect();
        due.sort_unstable();
        let more = due.len() > STEP;
        for (_, index) in due.into_iter().take(STEP) {
            self.make_ready(index);
        }
        self.end_cancelled(now);
        let mut turns: Vec<_> = self
            .origins
            .iter()
            .filter(|(origin, row)| row.paused_until() <= now && self.has_ready(origin))
            .map(|(origin, row)| {
                let room = match &row.pause {
                    Some(pause) if pause.reason.is_probed() => request.most_of(origin).min(1),
                    _ => request.most_of(origin),
                };
                (row.served, origin.clone(), room)
            })
            .collect();
        turns.sort();
        let rooms: Vec<_> = turns.iter().map(|(.., room)| *room).collect();
        self.last_fence += 1;
        let mut claims = Claims {
            more,
            ..Claims::default()
        };
        let take = |turn: usize, wanted| {
            let rows = self.next_in_turn(&turns[turn].1, wanted);
            for index in &rows {
                self.lease(*index, request, now, &mut claims);
            }
            Ok::<_, Infallible>(rows.len())
        };
        let Ok(()) = deal(&rooms, request.limit, take);
        claims
    }

    pub(super) fn is_held(&self, id: BroadcastId) -> bool {
        let mut broadcasts = self.broadcasts.iter();
        broadcasts.any(|one| one.progress.id == id && one.progress.held && !one.progress.cancelled)
    }

    /// The ready rows of a broadcast that goes on get new turns, beside the rows that are next.
    pub(super) fn wait_again(&mut self, id: BroadcastId, now: Timestamp) {
        for origin in self.origins.values_mut() {
            origin.last.remove(&id);
        }
        for row in self.deliveries.iter_mut().filter(|row| row.broadcast == id) {
            if row.turn.take().is_some() {
                row.at = now;
            }
        }
    }

    fn has_ready(&self, origin: &Origin) -> bool {
        let mut rows = self.deliveries.iter();
        rows.any(|row| row.origin == *origin && row.turn.is_some() && !self.is_held(row.broadcast))
    }

    /// Ready rows of cancelled broadcasts end.
    fn end_cancelled(&mut self, now: Timestamp) {
        let cancelled = self.broadcasts.iter().filter(|one| one.progress.cancelled);
        let cancelled: Vec<_> = cancelled.map(|one| one.progress.id).collect();
        for id in cancelled {
            let is_ready = |row: &Delivery| row.broadcast == id && row.turn.is_some();
            while let Some(index) = self.deliveries.iter().position(is_ready) {
                self.end_probe(index, now);
                self.end(index, FinalOutcome::Cancelled);
            }
            self.close_if_over(id, now);
        }
    }

    /// The rows of an origin that are next in turn, shared among its bands.
    fn next_in_turn(&mut self, origin: &Origin, wanted: usize) -> Vec<usize> {
        let rows = self.deliveries.iter().enumerate();
        let mut ready: Vec<_> = rows.filter(|(_, row)| row.origin == *origin).collect();
        ready.retain(|(_, row)| row.turn.is_some() && !self.is_held(row.broadcast));
        ready.sort_by_key(|(_, row)| row.turn);
        let mut bands: [Vec<usize>; BANDS] = Default::default();
        for (index, row) in ready {
            bands[row.band].push(index);
        }
        let origin = self.origins.get_mut(origin).unwrap();
        let shares = shares(wanted, origin.takes, bands.each_ref().map(Vec::len));
        origin.takes += 1;
        let shares = bands.into_iter().zip(shares);
        let rows = shares.flat_map(|(rows, share)| rows.into_iter().take(share));
        rows.collect()
    }

    fn lease(&mut self, index: usize, request: &ClaimRequest, now: Timestamp, claims: &mut Claims) {
        let row = &mut self.deliveries[index];
        let id = row.broadcast;
        let mut broadcasts = self.broadcasts.iter();
        let broadcast = broadcasts.find(|one| one.progress.id == id).unwrap();
        row.at = now + request.lease;
        row.is_leased = true;
        row.fence = self.last_fence;
        row.attempt += 1;
        let origin = self.origins.get_mut(&row.origin).unwrap();
        origin.served = row.fence;
        let turn = row.turn.take().unwrap_or_default();
        origin.claimed[row.band] = origin.claimed[row.band].max(turn);
        if let Some(pause) = &mut origin.pause
            && pause.reason.is_probed()
        {
            pause.until = row.at;
            origin.probe = Some((row.fence, row.key));
        }
        let token = ClaimToken::new(id, row.key, row.fence);
        let claimed = Claimed::new(token, row.origin.clone(), row.attempt, row.at);
        claims.rows.push(claimed);
        let (message, progress) = (broadcast.message.clone().unwrap(), &broadcast.progress);
        let mut message = ClaimedMessage::new(message, progress.due_at(), progress.deadline)
            .for_audience(&broadcast.audience);
        message.trace_parent = broadcast.trace_parent;
        claims.messages.insert(id, message);
    }

    pub(super) fn settle(
        &mut self,
        token: &ClaimToken,
        settlement: Settlement,
        now: Timestamp,
    ) -> Settled {
        let is_held = |row: &Delivery| {
            row.is_leased && *token == ClaimToken::new(row.broadcast, row.key, row.fence)
        };
        let Some(index) = self.deliveries.iter().position(is_held) else {
            return Settled::Lost;
        };
        self.end_probe(index, now);
        let broadcast = self.broadcast(token.broadcast).unwrap();
        if let Settlement::Failed(outcome, cause) = settlement {
            let (key, at) = (token.key, now);
            let new = FailureSample {
                key,
                at,
                outcome,
                cause,
            };
            let _ = sample(&mut broadcast.samples, new);
        }
        match broadcast.progress.settle(settlement) {
            AfterClaim::Ended => drop(self.deliveries.remove(index)),
            AfterClaim::Due { at, uncounted } => {
                let row = &mut self.deliveries[index];
                row.at = at;
                row.turn = None;
                row.is_leased = false;
                row.attempt -= u32::from(uncounted);
            }
        }
        self.close_if_over(token.broadcast, now);
        Settled::Done
    }

    /// Makes the origin due for its next probe if the row was the probe.
    fn end_probe(&mut self, index: usize, now: Timestamp) {
        let row = &self.deliveries[index];
        let origin = self.origins.get_mut(&row.origin).unwrap();
        if origin.probe == Some((row.fence, row.key)) {
            origin.probe = None;
            origin.pause.iter_mut().for_each(|pause| pause.until = now);
        }
    }

    fn end(&mut self, index: usize, outcome: FinalOutcome) {
        let row = self.deliveries.remove(index);
        let progress = &mut self.broadcast(row.broadcast).unwrap().progress;
        progress.counts.add(outcome, 1);
    }

    /// Ends rows of a broadcast that are not leased. Returns their number.
    pub(super) fn end_unleased(
        &mut self,
        id: BroadcastId,
        outcome: FinalOutcome,
        limit: usize,
        now: Timestamp,
    ) -> usize {
        let mut ended = 0;
        let is_free = |row: &Delivery| row.broadcast == id && (!row.is_leased || row.at <= now);
        while ended < limit
            && let Some(index) = self.deliveries.iter().position(is_free)
        {
            self.end(index, outcome);
            ended += 1;
        }
        ended
    }

    /// Ends a user's pending deliveries, leased ones too, and cancels broadcasts to this user alone.
    pub(super) fn erase(
        &mut self,
        user: &Principal,
        subscriptions: &[SubscriptionRecord],
        now: Timestamp,
    ) -> Erased {
        let ids: Vec<_> = subscriptions.iter().map(|row| row.id).collect();
        let keys: Vec<_> = subscriptions
            .iter()
            .map(|row| row.subscription.endpoint().key())
            .collect();
        let open = self.open_by_deadline();
        let open: Vec<_> = open.iter().map(|one| one.progress.id).collect();
        let mut erased = Erased::default();
        for id in open {
            let broadcast = self.broadcast(id).unwrap();
            // Cancelled before its rows end: a broadcast without rows would be over.
            let is_cancelled =
                broadcast.audience.is_only_for(user, &ids) && broadcast.progress.cancel();
            let is_theirs = |row: &Delivery| row.broadcast == id && keys.contains(&row.key);
            while let Some(index) = self.deliveries.iter().position(is_theirs) {
                self.end_probe(index, now);
                self.end(index, FinalOutcome::Cancelled);
                erased.deliveries += 1;
            }
            if is_cancelled {
                erased.broadcasts += 1;
                self.end_unleased(id, FinalOutcome::Cancelled, usize::MAX, now);
            }
            self.close_if_over(id, now);
        }
        erased
    }

    pub(super) fn close_if_over(&mut self, id: BroadcastId, now: Timestamp) {
        let is_forgotten = self.broadcast(id).is_some_and(|broadcast| {
            if broadcast.ended_at.is_none() && broadcast.progress.is_over() {
                broadcast.ended_at = Some(now);
                broadcast.message = None;
            }
            broadcast.ended_at.is_some() && broadcast.forget_when_over
        });
        if self
            .broadcast(id)
            .is_none_or(|broadcast| broadcast.ended_at.is_some())
        {
            for origin in self.origins.values_mut() {
                origin.last.remove(&id);
            }
        }
        if is_forgotten {
            self.broadcasts
                .retain(|broadcast| broadcast.progress.id != id);
        }
    }

    pub(super) fn open_by_deadline(&self) -> Vec<&Broadcast> {
        let open = self.broadcasts.iter().filter(|one| one.ended_at.is_none());
        let mut open: Vec<_> = open.collect();
        open.sort_by_key(|broadcast| broadcast.progress.deadline);
        open
    }
}
