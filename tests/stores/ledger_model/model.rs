//! A simple model of a ledger: a list of broadcasts and a list of rows, searched linearly.

use std::collections::BTreeMap;
use std::time::Duration;

use tower_web_push::broadcast::{
    BroadcastId, BroadcastState, BroadcastStatus, Counts, FinalOutcome, Principal,
};
use tower_web_push::clock::Timestamp;
use tower_web_push::store::rules::{band, sample};
use tower_web_push::store::{
    ClaimRequest, ClaimToken, Cursor, Erased, FailureSample, LedgerStats, NewBroadcast,
    NewDelivery, Opened, PageWrite, Settled, Settlement, SubscriptionRecord,
};
use tower_web_push::subscription::{EndpointKey, Origin};

use super::origins::Origins;
use super::turns::{Turn, Turns};

#[derive(Default)]
pub(crate) struct Model {
    /// Whether the ledger keeps the turn of each row, and not that of each broadcast's next row.
    pub(crate) knows_rows: bool,
    pub(crate) broadcasts: Vec<Broadcast>,
    pub(crate) rows: Vec<Row>,
    pub(crate) origins: Origins,
    pub(crate) turns: Turns,
    /// The highest fence so far.
    pub(crate) last_fence: u64,
    /// Whether the processes that had claimed have ended, which the ledger notices at the next claim (L19).
    pub(crate) has_crashed: bool,
}

pub(crate) struct Broadcast {
    pub(crate) new: NewBroadcast,
    created_at: Timestamp,
    /// The number of rows written so far.
    written: u64,
    pub(crate) expanding: bool,
    /// The time from which its next page may be written.
    pub(crate) expand_at: Timestamp,
    pub(crate) cursor: Cursor,
    pub(crate) samples: Vec<FailureSample>,
    pub(crate) cancelled: bool,
    pub(crate) held: bool,
    /// The outcomes of its recipients. `pending` stays 0.
    counts: Counts,
    ended_at: Option<Timestamp>,
}

pub(crate) struct Row {
    pub(crate) broadcast: BroadcastId,
    pub(crate) key: EndpointKey,
    pub(crate) origin: Origin,
    /// The time from which it can be claimed: its due time, or the end of its lease.
    pub(crate) at: Timestamp,
    pub(crate) band: usize,
    /// Its turn, while it is ready.
    pub(crate) turn: Option<Turn>,
    /// The fence of its valid token.
    pub(crate) fence: Option<u64>,
    pub(crate) attempt: u32,
    /// Whether it was certainly put aside while its broadcast was paused.
    pub(crate) is_aside: bool,
    /// The earliest turn that it may have kept over a pause of its broadcast, and the end of the pause.
    kept: Option<u64>,
    pub(crate) resumed_at: Option<Timestamp>,
}

impl Row {
    /// The latest due time that the ledger may have stored: a row that was put aside is due when its broadcast goes on.
    fn latest_at(&self) -> Timestamp {
        self.resumed_at.unwrap_or(self.at)
    }

    pub(crate) fn is_leased(&self, now: Timestamp) -> bool {
        self.fence.is_some() && self.at > now
    }

    fn is_of(&self, token: &ClaimToken) -> bool {
        self.broadcast == token.broadcast
            && self.key == token.key
            && self.fence == Some(token.fence)
    }
}

impl Broadcast {
    pub(crate) fn due_at(&self) -> Timestamp {
        self.new
            .send_at
            .unwrap_or(Timestamp::MIN)
            .max(self.created_at)
    }

    fn band(&self) -> usize {
        band(self.new.message.urgency())
    }

    /// The time from which the next page may be written.
    fn page_at(&self) -> Timestamp {
        match self.new.pace {
            Some(_) => self.expand_at,
            None => self.due_at(),
        }
    }

    /// The time from which the page after one of so many rows may be written: the pages that came before are not too
    /// many for a clock that is right.
    fn next_page_at(&self, rows: u64, now: Timestamp) -> Timestamp {
        let Some(pace) = self.new.pace else {
            return now;
        };
        let millis = (0_u64..).find(|millis| millis * u64::from(pace.get()) >= rows * 1000);
        let time = Duration::from_millis(millis.unwrap());
        (self.expand_at + time).max(now)
    }

    /// The number of expected recipients without a row.
    fn unwritten(&self) -> u64 {
        if self.expanding {
            self.new.recipients.saturating_sub(self.written)
        } else {
            0
        }
    }

    fn give_up_unwritten(&mut self, outcome: FinalOutcome) {
        self.counts.add(outcome, self.unwritten());
        self.expanding = false;
    }
}

impl Model {
    pub(crate) fn open(&mut self, new: &NewBroadcast, now: Timestamp) -> Opened {
        if let Some(status) = self.status(new.id, now) {
            return Opened::Repeat(status);
        }
        if let Some(wanted) = &new.idempotency {
            let known = self.broadcasts.iter().find_map(|one| {
                let idempotency = one.new.idempotency.as_ref()?;
                (idempotency.key == wanted.key).then_some((one.new.id, idempotency))
            });
            match known {
                Some((_, idempotency)) if idempotency != wanted => return Opened::Conflict,
                Some((id, _)) => return Opened::Repeat(self.status(id, now).unwrap()),
                None => {}
            }
        }
        let mut broadcast = Broadcast {
            new: new.clone(),
            created_at: now,
            written: 0,
            expanding: true,
            expand_at: now,
            cursor: Cursor::Start,
            samples: Vec::new(),
            cancelled: false,
            held: false,
            counts: Counts::default(),
            ended_at: None,
        };
        broadcast.expand_at = broadcast.due_at();
        self.broadcasts.push(broadcast);
        if let Some(page) = &new.page
            && new.send_at.is_none_or(|at| at <= now)
            && new.deadline > now
            && new.pace.is_none()
        {
            self.enqueue_page(new.id, Cursor::Start, &page.rows, page.next, now);
        }
        Opened::New
    }

    /// The expandable broadcasts, urgent or not, the least recently expanded first.
    pub(crate) fn expandable(&self, is_urgent: bool, now: Timestamp) -> Vec<&Broadcast> {
        let mut found: Vec<_> = self
            .broadcasts
            .iter()
            .filter(|one| one.expanding && one.page_at() <= now && one.new.deadline > now)
            .filter(|one| !one.held)
            .filter(|one| (one.band() == 0) == is_urgent)
            .collect();
        found.sort_by_key(|one| one.expand_at);
        found
    }

    pub(crate) fn enqueue_page(
        &mut self,
        id: BroadcastId,
        expected: Cursor,
        rows: &[NewDelivery],
        next: Cursor,
        now: Timestamp,
    ) -> PageWrite {
        let Some(place) = self.broadcasts.iter().position(|one| one.new.id == id) else {
            return PageWrite::Stale;
        };
        let broadcast = &mut self.broadcasts[place];
        let takes_pages = broadcast.expanding && !broadcast.held && broadcast.new.deadline > now;
        if !takes_pages || broadcast.cursor != expected {
            return PageWrite::Stale;
        }
        let before = broadcast.written;
        for new in rows {
            let mut others = self.rows.iter().filter(|row| row.broadcast == id);
            if others.all(|row| row.key != new.key) {
                let (at, band) = (broadcast.due_at(), broadcast.band());
                let turn = (at <= now).then(|| self.turns.next(id, &new.origin, band, 1, 0));
                self.rows.push(Row {
                    broadcast: id,
                    key: new.key,
                    origin: new.origin.clone(),
                    at,
                    band,
                    turn,
                    fence: None,
                    attempt: 0,
                    is_aside: false,
                    kept: None,
                    resumed_at: None,
                });
                broadcast.written += 1;
            }
        }
        broadcast.cursor = next;
        broadcast.expand_at = broadcast.next_page_at(broadcast.written - before, now);
        broadcast.expanding = next != Cursor::End;
        self.note_ends(now);
        PageWrite::Stored
    }

    /// Makes rows ready whose time has come, as claims do.
    pub(crate) fn wake(&mut self, now: Timestamp) {
        if std::mem::take(&mut self.has_crashed) {
            let rows = self.rows.iter_mut();
            for row in rows.filter(|row| row.turn.is_none() && row.is_leased(now)) {
                row.at = now;
                let key = (row.broadcast, row.key);
                let token = row.fence.map(|fence| ClaimToken::new(key.0, key.1, fence));
                self.origins.ended(&token.unwrap(), now);
            }
        }
        let mut due: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (place, row) in self.rows.iter().enumerate() {
            if row.turn.is_none() && row.at <= now && !self.is_cancelled(row.broadcast) {
                let flow = (row.broadcast, row.origin.clone());
                due.entry(flow).or_default().push(place);
            }
        }
        for ((broadcast, origin), places) in due {
            let band = self.rows[places[0]].band;
            let rows = places.len() as u64;
            let kept = places
                .iter()
                .filter(|place| self.rows[**place].kept.is_some());
            let kept = kept.count() as u64;
            let turn = self.turns.next(broadcast, &origin, band, rows, kept);
            for place in places {
                let row = &mut self.rows[place];
                let first = row.kept.take().unwrap_or(turn.first).min(turn.first);
                row.turn = Some(Turn { first, ..turn });
            }
        }
    }

    /// The number of rows of an origin that a claim may take: one if it is probed.
    pub(crate) fn room(&self, request: &ClaimRequest, origin: &Origin) -> usize {
        let room = *request.origins.get(origin).unwrap_or(&request.per_origin);
        room.min(self.origins.most(origin))
    }

    /// Returns whether a claim with room for its origin may take it.
    pub(crate) fn is_claimable(&self, row: &Row, now: Timestamp) -> bool {
        row.at <= now
            && !self.is_cancelled(row.broadcast)
            && !self.is_held(row.broadcast)
            && self.origins.paused_until(&row.origin) <= now
    }

    /// Rows of cancelled broadcasts whose lease has ended, which claims end (L9).
    pub(crate) fn abandoned(&self, now: Timestamp) -> BTreeMap<BroadcastId, Vec<ClaimToken>> {
        let mut abandoned: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.at <= now) {
            if let Some(fence) = row.fence
                && self.is_cancelled(row.broadcast)
            {
                let token = ClaimToken::new(row.broadcast, row.key, fence);
                abandoned.entry(row.broadcast).or_default().push(token);
            }
        }
        abandoned
    }

    pub(crate) fn settle(
        &mut self,
        token: &ClaimToken,
        settlement: Settlement,
        now: Timestamp,
    ) -> Settled {
        let cancelled = self.is_cancelled(token.broadcast);
        let Some(row) = self.rows.iter_mut().find(|row| row.is_of(token)) else {
            return Settled::Lost;
        };
        self.origins.ended(token, now);
        match settlement {
            Settlement::Finished(outcome) => {
                self.end(|row| row.is_of(token), outcome, now);
            }
            Settlement::Failed(outcome, cause) => {
                let (key, at) = (token.key, now);
                let new = FailureSample {
                    key,
                    at,
                    outcome,
                    cause,
                };
                let mut broadcasts = self.broadcasts.iter_mut();
                let broadcast = broadcasts.find(|one| one.new.id == token.broadcast);
                let _ = sample(&mut broadcast.unwrap().samples, new);
                self.end(|row| row.is_of(token), outcome, now);
            }
            _ if cancelled => {
                self.end(|row| row.is_of(token), FinalOutcome::Cancelled, now);
            }
            Settlement::RetryAt(at) => {
                row.at = at;
                row.turn = None;
                row.is_aside = false;
                row.kept = None;
                row.resumed_at = None;
                row.fence = None;
            }
            Settlement::Deferred(at) => {
                row.at = at;
                row.turn = None;
                row.is_aside = false;
                row.kept = None;
                row.resumed_at = None;
                row.fence = None;
                row.attempt -= 1;
            }
        }
        Settled::Done
    }

    pub(crate) fn cancel(&mut self, id: BroadcastId, now: Timestamp) -> Option<BroadcastStatus> {
        let broadcast = self.broadcasts.iter_mut().find(|one| one.new.id == id)?;
        if !broadcast.cancelled && broadcast.ended_at.is_none() {
            broadcast.cancelled = true;
            broadcast.give_up_unwritten(FinalOutcome::Cancelled);
        }
        if broadcast.cancelled && broadcast.ended_at.is_none() {
            let is_left = |row: &Row| row.broadcast == id && !row.is_leased(now);
            self.end(is_left, FinalOutcome::Cancelled, now);
        }
        self.status(id, now)
    }

    pub(crate) fn hold(
        &mut self,
        id: BroadcastId,
        is_held: bool,
        now: Timestamp,
    ) -> Option<BroadcastStatus> {
        let broadcast = self.broadcasts.iter_mut().find(|one| one.new.id == id)?;
        let is_open = !broadcast.cancelled && broadcast.ended_at.is_none();
        if is_open && broadcast.held != is_held {
            broadcast.held = is_held;
            if !is_held {
                self.turns.resumed(id);
            }
            // Whether a claim has met a ready row is not visible: its turn is the old one or a new one.
            for row in self.rows.iter_mut().filter(|row| row.broadcast == id) {
                row.is_aside = false;
                if let Some(turn) = row.turn.take_if(|_| !is_held) {
                    row.kept = Some(turn.first);
                    row.resumed_at = Some(now);
                }
            }
        }
        self.status(id, now)
    }

    pub(crate) fn is_held(&self, id: BroadcastId) -> bool {
        self.broadcast(id)
            .is_some_and(|one| one.held && !one.cancelled)
    }

    /// Whether a claim may have ready rows to put aside.
    pub(crate) fn puts_aside(&self, now: Timestamp) -> bool {
        let mut rows = self.rows.iter().filter(|row| self.is_held(row.broadcast));
        rows.any(|row| row.at <= now && !row.is_aside)
    }

    /// Ends what is left to deliver to a user (L17).
    pub(crate) fn erase(
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
        let mut erased = Erased::default();
        for row in self.rows.iter().filter(|row| keys.contains(&row.key)) {
            erased.deliveries += 1;
            if let Some(fence) = row.fence {
                let token = ClaimToken::new(row.broadcast, row.key, fence);
                self.origins.ended(&token, now);
            }
        }
        let mut cancelled = Vec::new();
        for one in &mut self.broadcasts {
            let is_open = !one.cancelled && one.ended_at.is_none();
            if is_open && one.new.audience.is_only_for(user, &ids) {
                erased.broadcasts += 1;
                one.cancelled = true;
                one.give_up_unwritten(FinalOutcome::Cancelled);
                cancelled.push(one.new.id);
            }
        }
        let is_left = |row: &Row| {
            keys.contains(&row.key) || (cancelled.contains(&row.broadcast) && !row.is_leased(now))
        };
        self.end(is_left, FinalOutcome::Cancelled, now);
        erased
    }

    /// Expires all late rows. Returns their number.
    pub(crate) fn expire(&mut self, now: Timestamp) -> u64 {
        let mut ended = 0;
        for place in 0..self.broadcasts.len() {
            let broadcast = &mut self.broadcasts[place];
            if broadcast.new.deadline > now {
                continue;
            }
            let id = broadcast.new.id;
            let outcome = if broadcast.cancelled {
                FinalOutcome::Cancelled
            } else {
                FinalOutcome::Expired
            };
            broadcast.give_up_unwritten(outcome);
            let is_left = |row: &Row| row.broadcast == id && !row.is_leased(now);
            ended += self.end(is_left, outcome, now);
        }
        ended
    }

    pub(crate) fn prune(&mut self, before: Timestamp) -> u64 {
        let were = self.broadcasts.len();
        self.broadcasts
            .retain(|one| one.ended_at.is_none_or(|at| at >= before));
        let rows = &self.rows;
        let has_rows = |origin: &Origin| rows.iter().any(|row| row.origin == *origin);
        self.origins.prune(before, has_rows);
        self.turns.prune(has_rows);
        (were - self.broadcasts.len()) as u64
    }

    pub(crate) fn status(&self, id: BroadcastId, now: Timestamp) -> Option<BroadcastStatus> {
        let broadcast = self.broadcast(id)?;
        let rows = self.rows.iter().filter(|row| row.broadcast == id).count() as u64;
        let state = if broadcast.cancelled {
            BroadcastState::Cancelled
        } else if broadcast.held && broadcast.ended_at.is_none() {
            BroadcastState::Paused
        } else if broadcast.expanding && broadcast.due_at() > now {
            BroadcastState::Scheduled
        } else if broadcast.expanding {
            BroadcastState::Expanding
        } else if rows > 0 {
            BroadcastState::Sending
        } else {
            BroadcastState::Done
        };
        let pending = rows + broadcast.unwritten();
        let recipients = pending + broadcast.counts.finished();
        let mut counts = broadcast.counts;
        counts.pending = pending;
        Some(BroadcastStatus {
            id,
            state,
            recipients,
            created_at: broadcast.created_at,
            send_at: broadcast.new.send_at,
            deadline: broadcast.new.deadline,
            pace: broadcast.new.pace,
            counts,
        })
    }

    /// Open broadcasts by deadline.
    pub(crate) fn underway(&self) -> Vec<&NewBroadcast> {
        let open = self.broadcasts.iter().filter(|one| one.ended_at.is_none());
        let mut open: Vec<_> = open.map(|one| &one.new).collect();
        open.sort_by_key(|new| new.deadline);
        open
    }

    pub(crate) fn stats(&self, now: Timestamp) -> LedgerStats {
        let leased = self.rows.iter().filter(|row| row.is_leased(now)).count();
        let waiting = self.rows.iter().filter(|row| row.turn.is_none());
        let waiting = waiting.map(|row| row.at).filter(|at| *at <= now);
        let held = self.rows.iter().filter(|row| self.is_held(row.broadcast));
        let waiting = waiting.chain(held.map(|row| row.at).filter(|at| *at <= now));
        // It is not visible which rows of paused broadcasts were put aside: without them others are the next in turn.
        let heads = self.heads(now, |_| true).into_iter();
        let heads = heads.chain(self.heads(now, |row| !self.is_held(row.broadcast)));
        let oldest_due = waiting.chain(heads.map(|ats| ats[0])).min();
        LedgerStats::new(self.rows.len() as u64, leased as u64, oldest_due)
    }

    /// The latest that the `oldest_due` of the statistics can be.
    pub(crate) fn latest_oldest_due(&self, now: Timestamp) -> Option<Timestamp> {
        // Where any call makes rows ready, they stand in the lines.
        let waits = |row: &&Row| self.knows_rows && row.turn.is_none();
        let waiting = self.rows.iter().filter(waits);
        let waiting = waiting.map(Row::latest_at).filter(|at| *at <= now);
        let heads = self.heads(now, |_| true);
        waiting
            .chain(heads.iter().map(|ats| ats[ats.len() - 1]))
            .min()
    }

    /// The due times, sorted, of the rows that may be the next in turn of an origin and band, for each that has rows that count.
    fn heads(&self, now: Timestamp, counts: impl Fn(&Row) -> bool) -> Vec<Vec<Timestamp>> {
        let mut lines: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| counts(row)) {
            // One that may have kept its turn over a pause may stand in the line, too.
            let kept = row.kept.map(|first| Turn {
                first,
                last: u64::MAX,
            });
            // Redis makes rows ready at any call, those that waited and those whose lease has ended, and knows the turns of
            // broadcasts only.
            let is_ready = !self.knows_rows && row.at <= now;
            let woken = is_ready.then_some(Turn {
                first: 0,
                last: u64::MAX,
            });
            if let Some(turn) = row.turn.or(kept).or(woken) {
                let line = lines.entry((row.origin.clone(), row.band)).or_default();
                line.push((turn, row.at));
                line.push((turn, row.latest_at()));
            }
        }
        let heads = lines.into_values().map(|line| {
            let first = line.iter().map(|(turn, _)| turn.last).min();
            let may_be_first = |turn: &Turn| !self.knows_rows || Some(turn.first) <= first;
            let heads = line.iter().filter(|(turn, _)| may_be_first(turn));
            let mut heads: Vec<_> = heads.map(|(_, at)| *at).collect();
            heads.sort();
            heads
        });
        heads.collect()
    }

    /// The first time from `now` on at which something can be expanded or claimed, without further changes.
    pub(crate) fn first_work(&self, now: Timestamp) -> Option<Timestamp> {
        let expansions = self.broadcasts.iter().filter_map(|one| {
            let at = one.page_at().max(now);
            (one.expanding && !one.held && at < one.new.deadline).then_some(at)
        });
        let rows = self.rows.iter().filter_map(|row| {
            let from = self.origins.paused_until(&row.origin).max(now);
            let waits = self.is_cancelled(row.broadcast) || self.is_held(row.broadcast);
            (!waits).then_some(row.at.max(from))
        });
        expansions.chain(rows).min()
    }

    pub(crate) fn broadcast(&self, id: BroadcastId) -> Option<&Broadcast> {
        self.broadcasts.iter().find(|one| one.new.id == id)
    }

    /// Ends rows and counts them. Returns their number.
    pub(crate) fn end(
        &mut self,
        which: impl Fn(&Row) -> bool,
        outcome: FinalOutcome,
        now: Timestamp,
    ) -> u64 {
        let ended: Vec<_> = self.rows.extract_if(.., |row| which(row)).collect();
        for row in &ended {
            let mut broadcasts = self.broadcasts.iter_mut();
            let broadcast = broadcasts.find(|one| one.new.id == row.broadcast);
            broadcast.unwrap().counts.add(outcome, 1);
        }
        self.note_ends(now);
        ended.len() as u64
    }

    /// Forgets what is not to be kept when it is over (L13): at the end of a step, since a cancellation answers what came of it.
    pub(crate) fn forget_over(&mut self) {
        self.broadcasts
            .retain(|one| !one.new.forget_when_over || one.ended_at.is_none());
    }

    fn note_ends(&mut self, now: Timestamp) {
        for broadcast in &mut self.broadcasts {
            let has_rows = self
                .rows
                .iter()
                .any(|row| row.broadcast == broadcast.new.id);
            if !broadcast.expanding && !has_rows {
                broadcast.ended_at.get_or_insert(now);
            }
        }
    }

    pub(crate) fn is_cancelled(&self, id: BroadcastId) -> bool {
        self.broadcast(id).is_some_and(|one| one.cancelled)
    }
}
