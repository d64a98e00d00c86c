//! The ledger's rows in memory, and the operations on them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;

use super::due_origins::Place;
use super::turns::Turns;
use crate::broadcast::{Audience, BroadcastId, BroadcastStatus, FinalOutcome, TraceParent};
use crate::clock::Timestamp;
use crate::message::Message;
use crate::store::listing::Listing;
use crate::store::rules::{BroadcastProgress, band, is_aside, shares};
use crate::store::{
    BroadcastCursor, BroadcastFilter, BroadcastPage, Cursor, Expansion, FailureSample, Idempotency,
    LONGEST_WAIT, LedgerStats, NewBroadcast, NewDelivery, OldestDue, Opened, PageWrite, Pause,
    Pruned, STEP, Tally,
};
use crate::subscription::{EndpointKey, Origin};

/// A broadcast's place in the order of acceptance.
pub(super) type Seq = u64;

pub(super) const FIRST_KEY: EndpointKey = EndpointKey::from_bytes([0; 32]);
pub(super) const LAST_KEY: EndpointKey = EndpointKey::from_bytes([0xff; 32]);

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) broadcasts: BTreeMap<Seq, Broadcast>,
    pub(super) by_id: HashMap<BroadcastId, Seq>,
    pub(super) by_idempotency: HashMap<String, Seq>,
    /// All broadcasts in the order of their acceptance: by time, then by id.
    pub(super) created: BTreeMap<BroadcastCursor, Seq>,
    /// Those that are not over.
    pub(super) open_created: BTreeMap<BroadcastCursor, Seq>,
    /// Broadcasts that are not over, by deadline.
    pub(super) open: BTreeSet<(Timestamp, Seq)>,
    /// Broadcasts that are over, by the time of their end.
    pub(super) ended: BTreeSet<(Timestamp, Seq)>,
    /// Cancelled broadcasts that are not over.
    cancelled: BTreeSet<Seq>,
    /// Broadcasts that go on after a pause and have rows that were put aside.
    pub(super) resuming: BTreeSet<Seq>,
    /// The last origin that a step of pruning has looked at.
    pruned: Option<Origin>,
    /// Broadcasts to expand, by the time from which their next page may be written: urgent ones, and the others.
    pub(super) expanding: [BTreeSet<(Timestamp, Seq)>; 2],
    pub(super) rows: BTreeMap<(Seq, EndpointKey), Row>,
    /// Rows that are not ready: whether they are leased, and the end of the lease or the time of the retry.
    pub(super) waiting: BTreeSet<(bool, Timestamp, Seq, EndpointKey)>,
    pub(super) queues: BTreeMap<Origin, Queue>,
    /// Origins with ready rows that have no turn yet, by the end of their pause.
    pub(super) paused: BTreeSet<(Timestamp, Origin)>,
    /// Origins that can be claimed from, by the fence of the last claim of their rows.
    pub(super) ready: BTreeSet<(u64, Origin)>,
    pub(super) last_seq: Seq,
    pub(super) last_fence: u64,
    /// The number of lists of broadcasts to expand so far.
    listings: u64,
}

pub(super) struct Broadcast {
    pub(super) progress: BroadcastProgress,
    pub(super) audience: Audience,
    /// Wiped when it is over.
    pub(super) message: Option<Message>,
    pub(super) cursor: Cursor,
    /// The time from which its next page may be written.
    pub(super) expand_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) idempotency: Option<Idempotency>,
    /// Of failed deliveries.
    pub(super) samples: Vec<FailureSample>,
    pub(super) band: usize,
    /// The origins at which it has had a turn.
    pub(super) origins: BTreeSet<Origin>,
    pub(super) trace_parent: Option<TraceParent>,
    forget_when_over: bool,
}

pub(super) struct Row {
    pub(super) origin: Origin,
    /// Its due time, or the end of its lease.
    pub(super) at: Timestamp,
    pub(super) leased: bool,
    /// Its place among the ready rows of its origin and band (L18). `None` while it waits.
    pub(super) turn: Option<u64>,
    pub(super) fence: u64,
    pub(super) attempt: u32,
}

/// The rows and the pause of one origin.
#[derive(Default)]
pub(super) struct Queue {
    /// The number of its rows.
    pub(super) rows: usize,
    pub(super) turns: Turns,
    pub(super) pause: Option<Pause>,
    /// The fence and key of the row that probes the paused origin.
    pub(super) probe: Option<(u64, EndpointKey)>,
    /// The fence of the last claim of its rows: the origin served longest ago comes first.
    pub(super) served: u64,
    pub(super) place: Place,
    tally: Tally,
    tallied_at: Option<Timestamp>,
}

impl Queue {
    pub(super) fn paused_until(&self) -> Timestamp {
        self.pause
            .as_ref()
            .map_or(Timestamp::MIN, |pause| pause.until)
    }

    /// Returns whether it has no rows, and its pause and tally are old.
    fn is_old(&self, before: Timestamp) -> bool {
        let tallied_at = self.tallied_at.unwrap_or(Timestamp::MIN);
        self.rows == 0 && self.paused_until().max(tallied_at) <= before
    }
}

impl Ledger {
    pub(super) fn broadcasts(&self) -> usize {
        self.broadcasts.len()
    }

    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn known(&self, new: &NewBroadcast, now: Timestamp) -> Option<Opened> {
        let repeat = |seq| self.broadcasts.get(seq);
        if let Some(stored) = self.by_id.get(&new.id).and_then(repeat) {
            return Some(Opened::Repeat(stored.progress.status(now)));
        }
        let idempotency = new.idempotency.as_ref()?;
        let stored = self.by_idempotency.get(&idempotency.key).and_then(repeat)?;
        Some(if stored.idempotency.as_ref() == Some(idempotency) {
            Opened::Repeat(stored.progress.status(now))
        } else {
            Opened::Conflict
        })
    }

    /// Stores an unknown broadcast.
    pub(super) fn open(&mut self, new: &NewBroadcast, now: Timestamp) {
        self.last_seq += 1;
        let seq = self.last_seq;
        let progress = BroadcastProgress::new(new, now);
        let due_at = progress.due_at();
        self.by_id.insert(new.id, seq);
        if let Some(idempotency) = &new.idempotency {
            self.by_idempotency.insert(idempotency.key.clone(), seq);
        }
        self.open.insert((new.deadline, seq));
        let place = BroadcastCursor::new(now, new.id);
        self.created.insert(place, seq);
        self.open_created.insert(place, seq);
        let band = band(new.message.urgency());
        let broadcast = Broadcast {
            band,
            origins: BTreeSet::new(),
            progress,
            audience: new.audience.clone(),
            message: Some(new.message.clone()),
            cursor: Cursor::Start,
            expand_at: due_at,
            ended_at: None,
            idempotency: new.idempotency.clone(),
            samples: Vec::new(),
            trace_parent: new.trace_parent,
            forget_when_over: new.forget_when_over,
        };
        self.broadcasts.insert(seq, broadcast);
        self.expanding_of(band).insert((due_at, seq));
    }

    /// The broadcasts to expand that are as urgent as this band.
    pub(super) fn expanding_of(&mut self, band: usize) -> &mut BTreeSet<(Timestamp, Seq)> {
        let [urgent, others] = &mut self.expanding;
        if band == 0 { urgent } else { others }
    }

    pub(super) fn expandable(&mut self, limit: usize, now: Timestamp) -> Vec<Expansion> {
        let take = self.listings;
        self.listings = take.wrapping_add(1);
        let [urgent, others] = &self.expanding;
        let [urgent, others] = [urgent, others].map(|expanding| {
            let broadcasts = expanding.iter();
            let broadcasts = broadcasts.filter_map(|(_, seq)| self.broadcasts.get(seq));
            let due = broadcasts
                .filter(|broadcast| broadcast.progress.is_expandable(broadcast.expand_at, now));
            due.take(limit).collect::<Vec<_>>()
        });
        let [of_urgent, of_others, _] = shares(limit, take, [urgent.len(), others.len(), 0]);
        let urgent = urgent.iter().take(of_urgent);
        let all = urgent.chain(others.iter().take(of_others));
        all.map(|broadcast| {
            let (audience, progress) = (broadcast.audience.clone(), &broadcast.progress);
            Expansion {
                trace_parent: broadcast.trace_parent,
                is_urgent: broadcast.band == 0,
                ..Expansion::new(progress.id, audience, broadcast.cursor, progress.pace)
            }
        })
        .collect()
    }

    /// Whether a page of a broadcast is written (L4), or is stale.
    pub(super) fn takes_page(&self, id: BroadcastId, expected: &Cursor, now: Timestamp) -> bool {
        let broadcast = self.by_id.get(&id);
        let broadcast = broadcast.and_then(|seq| self.broadcasts.get(seq));
        broadcast.is_some_and(|broadcast| {
            let progress = &broadcast.progress;
            progress.takes_page(&broadcast.cursor, expected, now)
        })
    }

    pub(super) fn enqueue_page(
        &mut self,
        id: BroadcastId,
        expected: &Cursor,
        rows: &[NewDelivery],
        next: &Cursor,
        now: Timestamp,
    ) -> PageWrite {
        if !self.takes_page(id, expected, now) {
            return PageWrite::Stale;
        }
        let Some(&seq) = self.by_id.get(&id) else {
            return PageWrite::Stale;
        };
        let Some(broadcast) = self.broadcasts.get_mut(&seq) else {
            return PageWrite::Stale;
        };
        let progress = &mut broadcast.progress;
        let at = progress.due_at();
        let before = self.rows.len();
        for row in rows {
            if self.rows.contains_key(&(seq, row.key)) {
                continue;
            }
            self.queues.entry(row.origin.clone()).or_default().rows += 1;
            let stored = Row {
                origin: row.origin.clone(),
                at,
                leased: false,
                turn: None,
                fence: 0,
                attempt: 0,
            };
            self.rows.insert((seq, row.key), stored);
            if at <= now {
                self.make_ready(seq, row.key);
            } else {
                self.waiting.insert((false, at, seq, row.key));
            }
        }
        let written = self.rows.len() - before;
        let Some(broadcast) = self.broadcasts.get_mut(&seq) else {
            return PageWrite::Stale;
        };
        broadcast.progress.write_page(written as u64, next);
        broadcast.cursor = *next;
        let expand_at = broadcast.expand_at;
        let next_at = broadcast
            .progress
            .next_page_at(written as u64, expand_at, now);
        broadcast.expand_at = next_at;
        let (is_expanding, band) = (broadcast.progress.expanding, broadcast.band);
        self.expanding_of(band).remove(&(expand_at, seq));
        if is_expanding {
            self.expanding_of(band).insert((next_at, seq));
        }
        self.close_if_over(seq, now);
        PageWrite::Stored
    }

    pub(super) fn cancel(&mut self, id: BroadcastId, now: Timestamp) -> Option<BroadcastStatus> {
        let seq = *self.by_id.get(&id)?;
        self.stop(seq);
        if self.cancelled.contains(&seq) {
            self.end_unleased(seq, STEP, FinalOutcome::Cancelled, now);
        }
        // Before it is closed, which may forget it.
        let status = self.status(id, now);
        self.close_if_over(seq, now);
        status
    }

    /// Continues cancellations and the ends of pauses, and ends rows of cancelled broadcasts whose lease has ended (L9), in
    /// one step. Returns the number of rows that the step has left.
    pub(super) fn sweep(&mut self, now: Timestamp) -> usize {
        let mut left = STEP;
        let cancelled: Vec<_> = self.cancelled.iter().take(STEP).copied().collect();
        for seq in cancelled {
            let keys = self.unleased(seq, left, now);
            for key in &keys {
                self.end_cancelled(seq, *key, now);
            }
            left -= keys.len();
            self.close_if_over(seq, now);
        }
        left - self.bring_back(left, now)
    }

    /// Ends a row of a cancelled broadcast, which may have been the probe of its origin.
    pub(super) fn end_cancelled(&mut self, seq: Seq, key: EndpointKey, now: Timestamp) {
        self.end_probe(seq, key, now);
        self.finish(seq, key, FinalOutcome::Cancelled);
    }

    /// Cancels a broadcast that is not over. Returns whether it was cancelled and has to be closed.
    pub(super) fn stop(&mut self, seq: Seq) -> bool {
        let Some(broadcast) = self.broadcasts.get_mut(&seq) else {
            return false;
        };
        if !broadcast.progress.cancel() {
            return false;
        }
        let (expand_at, band) = (broadcast.expand_at, broadcast.band);
        self.expanding_of(band).remove(&(expand_at, seq));
        self.cancelled.insert(seq);
        self.resuming.remove(&seq);
        true
    }

    pub(super) fn status(&self, id: BroadcastId, now: Timestamp) -> Option<BroadcastStatus> {
        let broadcast = self.broadcasts.get(self.by_id.get(&id)?)?;
        Some(broadcast.progress.status(now))
    }

    pub(super) fn failure_samples(&self, id: BroadcastId) -> Vec<FailureSample> {
        let seq = self.by_id.get(&id);
        let broadcast = seq.and_then(|seq| self.broadcasts.get(seq));
        broadcast.map_or_else(Vec::new, |broadcast| broadcast.samples.clone())
    }

    pub(super) fn pause(&mut self, pause: &Pause, now: Timestamp) {
        let queue = self.queues.entry(pause.origin.clone()).or_default();
        queue.pause = pause.on_top_of(queue.pause.as_ref(), now);
        queue.probe = None;
        self.bring_forward(&pause.origin);
    }

    pub(super) fn pauses(&self, now: Timestamp) -> Vec<Pause> {
        let pauses = self.queues.values().filter_map(|queue| queue.pause.clone());
        pauses.filter(|pause| !pause.is_over(now)).collect()
    }

    pub(super) fn tally(&mut self, origin: &Origin, counts: Tally, now: Timestamp) -> Tally {
        if counts == Tally::default() {
            return self.queues.get(origin).map_or(counts, |queue| queue.tally);
        }
        let queue = self.queues.entry(origin.clone()).or_default();
        queue.tally = queue.tally.plus(counts);
        queue.tallied_at = Some(now);
        queue.tally
    }

    pub(super) fn tallies(&self) -> Vec<(Origin, Tally)> {
        let with_gone = self.queues.iter().filter(|(_, queue)| queue.tally.gone > 0);
        with_gone
            .map(|(origin, queue)| (origin.clone(), queue.tally))
            .collect()
    }

    pub(super) fn underway(&self, limit: usize, now: Timestamp) -> Vec<BroadcastStatus> {
        let open = self.open.iter().take(limit);
        open.filter_map(|(_, seq)| Some(self.broadcasts.get(seq)?.progress.status(now)))
            .collect()
    }

    pub(super) fn list(
        &self,
        filter: &BroadcastFilter,
        after: Option<&BroadcastCursor>,
        limit: usize,
        now: Timestamp,
    ) -> BroadcastPage {
        let broadcasts = match filter.is_of_open() {
            true => &self.open_created,
            false => &self.created,
        };
        // Nothing is before the id of zeroes.
        let before = filter.created_before;
        let before = before.map(|at| BroadcastCursor::new(at, BroadcastId::from_bytes([0; 16])));
        let end = after.copied().into_iter().chain(before).min();
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        let oldest = filter.created_after.unwrap_or(Timestamp::MIN);
        let rows = broadcasts.range((Bound::Unbounded, end)).rev();
        let rows = rows.take_while(|(place, _)| place.created_at > oldest);
        let mut rows = rows.filter_map(|(place, seq)| Some((*place, self.broadcasts.get(seq)?)));
        let mut listing = Listing::new(limit, after.copied());
        while let Some((_, wanted)) = listing.wanted() {
            let some = rows.by_ref().take(wanted);
            let some = some.map(|(place, row)| (place, row.progress.status(now)));
            listing.look(
                some.map(|(place, status)| (place, filter.takes(&status).then_some(status))),
                wanted,
            );
        }
        let (broadcasts, next) = listing.finish("broadcasts");
        BroadcastPage { broadcasts, next }
    }

    pub(super) fn expire(&mut self, limit: usize, now: Timestamp) -> u64 {
        let limit = limit.min(STEP);
        let past = ..=(now, Seq::MAX);
        let seqs = self.open.range(past).map(|(_, seq)| *seq);
        // Broadcasts without rows end too, so that their number needs a limit of its own.
        let mut seqs: VecDeque<_> = seqs.take(STEP).collect();
        let mut ended = 0;
        while let Some(seq) = seqs.pop_front().filter(|_| ended < limit) {
            let Some(broadcast) = self.broadcasts.get_mut(&seq) else {
                continue;
            };
            let outcome = broadcast.progress.expire();
            let (expand_at, band) = (broadcast.expand_at, broadcast.band);
            self.expanding_of(band).remove(&(expand_at, seq));
            ended += self.end_unleased(seq, limit - ended, outcome, now);
            self.close_if_over(seq, now);
        }
        self.pull(now);
        ended as u64
    }

    /// Makes rows due whose moment is too late, in one step (L12).
    fn pull(&mut self, now: Timestamp) {
        let latest = now + LONGEST_WAIT;
        for leased in [true, false] {
            let far = self.waiting_rows(leased, latest);
            let far = far.take_while(|(at, ..)| !is_aside(*at));
            let far: Vec<_> = far.filter(|(at, ..)| *at > latest).take(STEP).collect();
            for (at, seq, key) in far {
                self.waiting.remove(&(leased, at, seq, key));
                self.waiting.insert((leased, now, seq, key));
                if let Some(row) = self.rows.get_mut(&(seq, key)) {
                    row.at = now;
                }
            }
        }
    }

    pub(super) fn prune(&mut self, ended_before: Timestamp) -> Pruned {
        let old = self.ended.range(..(ended_before, Seq::MIN)).take(STEP);
        let old: Vec<_> = old.map(|(_, seq)| *seq).collect();
        for seq in &old {
            self.forget(*seq);
        }
        let after = self.pruned.take().map_or(Bound::Unbounded, Bound::Excluded);
        let origins = self.queues.range((after, Bound::Unbounded)).take(STEP);
        let origins: Vec<_> = origins.map(|(origin, _)| origin.clone()).collect();
        for origin in &origins {
            if self
                .queues
                .get(origin)
                .is_some_and(|queue| queue.is_old(ended_before))
            {
                self.displace(origin);
                self.queues.remove(origin);
            }
        }
        self.pruned = origins.last().filter(|_| origins.len() == STEP).cloned();
        Pruned {
            broadcasts: old.len() as u64,
            more: old.len() == STEP || self.pruned.is_some(),
        }
    }

    pub(super) fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let expansions = self.expanding.iter().flatten().filter_map(|(_, seq)| {
            let broadcast = self.broadcasts.get(seq)?;
            broadcast.progress.page_at(broadcast.expand_at, now)
        });
        let claim = self.next_claim(now);
        // At a deadline `expire` has work.
        let after_now = (Bound::Excluded((now, Seq::MAX)), Bound::Unbounded);
        let deadline = self.open.range(after_now).next().map(|(at, _)| *at);
        let resuming = (!self.resuming.is_empty()).then_some(now);
        let next = expansions
            .chain(claim)
            .chain(deadline)
            .chain(resuming)
            .min()?;
        Some(next.max(now))
    }

    pub(super) fn stats(&self, now: Timestamp) -> LedgerStats {
        let leased = self.waiting_rows(true, now);
        let leased = leased.take_while(|(at, ..)| !is_aside(*at));
        let leased = leased.filter(|(at, ..)| *at > now).count() as u64;
        let heads = self.queues.values().flat_map(|queue| queue.turns.heads());
        let waiting = [true, false].map(|leased| self.waiting_rows(leased, Timestamp::MIN).next());
        let waiting = waiting
            .into_iter()
            .flatten()
            .map(|(_, seq, key)| (seq, key));
        let mut oldest = OldestDue::default();
        for row in heads.chain(waiting).filter_map(|row| self.rows.get(&row)) {
            oldest.note(Some(&row.origin), row.at);
        }
        LedgerStats::by_push_service(self.rows.len() as u64, leased, oldest.until(now))
    }

    /// Rows that wait, leased or not, from a time on.
    pub(super) fn waiting_rows(
        &self,
        leased: bool,
        from: Timestamp,
    ) -> impl Iterator<Item = (Timestamp, Seq, EndpointKey)> {
        let rows = self.waiting.range((leased, from, Seq::MIN, FIRST_KEY)..);
        let rows = rows.take_while(move |(is_leased, ..)| *is_leased == leased);
        rows.map(|&(_, at, seq, key)| (at, seq, key))
    }

    /// Deletes a row and counts it.
    pub(super) fn finish(&mut self, seq: Seq, key: EndpointKey, outcome: FinalOutcome) {
        if self.delete(seq, key)
            && let Some(broadcast) = self.broadcasts.get_mut(&seq)
        {
            broadcast.progress.counts.add(outcome, 1);
        }
    }

    /// Deletes a row. Returns whether it existed. The caller counts it.
    pub(super) fn delete(&mut self, seq: Seq, key: EndpointKey) -> bool {
        self.take_out(seq, key);
        let Some(row) = self.rows.remove(&(seq, key)) else {
            return false;
        };
        if let Some(queue) = self.queues.get_mut(&row.origin) {
            queue.rows -= 1;
        }
        true
    }

    /// Returns up to `limit` rows of a broadcast that are not leased at `now`.
    fn unleased(&self, seq: Seq, limit: usize, now: Timestamp) -> Vec<EndpointKey> {
        self.rows
            .range((seq, FIRST_KEY)..=(seq, LAST_KEY))
            .filter(|(_, row)| !row.leased || row.at <= now || is_aside(row.at))
            .map(|((_, key), _)| *key)
            .take(limit)
            .collect()
    }

    /// Ends up to `limit` rows of a broadcast that are not leased at `now`. Returns their number.
    pub(super) fn end_unleased(
        &mut self,
        seq: Seq,
        limit: usize,
        outcome: FinalOutcome,
        now: Timestamp,
    ) -> usize {
        let keys = self.unleased(seq, limit, now);
        for key in &keys {
            self.finish(seq, *key, outcome);
        }
        keys.len()
    }

    pub(super) fn close_if_over(&mut self, seq: Seq, now: Timestamp) {
        if let Some(broadcast) = self.broadcasts.get_mut(&seq)
            && broadcast.ended_at.is_none()
            && broadcast.progress.is_over()
        {
            broadcast.ended_at = Some(now);
            broadcast.message = None;
            broadcast.audience = Audience::Ids(Vec::new());
            self.open.remove(&(broadcast.progress.deadline, seq));
            let place = BroadcastCursor::new(broadcast.progress.created_at, broadcast.progress.id);
            self.open_created.remove(&place);
            self.cancelled.remove(&seq);
            self.resuming.remove(&seq);
            self.ended.insert((now, seq));
            let is_forgotten = broadcast.forget_when_over;
            self.forget_turns(seq);
            if is_forgotten {
                self.forget(seq);
            }
        }
    }

    fn forget(&mut self, seq: Seq) {
        if let Some(broadcast) = self.broadcasts.remove(&seq) {
            self.expanding_of(broadcast.band)
                .remove(&(broadcast.expand_at, seq));
            if let Some(at) = broadcast.ended_at {
                self.ended.remove(&(at, seq));
            }
            self.by_id.remove(&broadcast.progress.id);
            let place = BroadcastCursor::new(broadcast.progress.created_at, broadcast.progress.id);
            self.created.remove(&place);
            self.open_created.remove(&place);
            if let Some(idempotency) = &broadcast.idempotency {
                self.by_idempotency.remove(&idempotency.key);
            }
        }
    }
}
