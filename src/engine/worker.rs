//! The steps of the driving future: expand, claim, deliver, settle, purge.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{self, JoinError, JoinSet};

use super::daily::{Daily, fire_due};
use super::effects::Effects;
use super::expand::expand;
use super::job::{Job, attempt};
use super::{ClockSkew, Consequence, Engine, Next};
use crate::broadcast::FinalOutcome;
use crate::clock::Timestamp;
use crate::deliver::{OriginGate, OriginGates};
use crate::observe;
use crate::store::{
    Change, ClaimRequest, ClaimToken, Claims, Settlement, StoreError, SubscriptionRef,
};
use crate::subscription::Origin;

/// Attempts under way at once, over all origins: room for so many that those which do not answer leave enough.
const IN_FLIGHT: usize = 4096;
/// Fewer free places are not worth a transaction.
const FREE_AT_LEAST: usize = 128;
/// Rows claimed in one transaction.
const CLAIM: usize = 1024;
/// Ends that could not be written: with so many of them nothing more is claimed.
const UNSETTLED: usize = 1024;
/// Rows given up in one transaction.
const EXPIRED_AT_ONCE: usize = 1000;
/// How old the VAPID keys in memory may get: another process may have made a new one.
const KEYS_KEPT: Duration = Duration::from_secs(60);
/// How old the knowledge of what is scheduled may get.
const SCHEDULES_KEPT: Duration = Duration::from_secs(1);
/// How long finished broadcasts are kept.
const FINISHED_KEPT: Duration = Duration::from_secs(7 * 86_400);
/// How long subscriptions are kept that are retired or stale: until then a page that comes back keeps its id.
const UNREACHABLE_KEPT: Duration = Duration::from_secs(30 * 86_400);
/// How long subscriptions are kept after their `expirationTime`: clocks differ.
const EXPIRED_KEPT: Duration = Duration::from_secs(86_400);
/// How often to look for what can be forgotten.
const PURGE_EVERY: Duration = Duration::from_secs(3600);

/// What one step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Recipients written into the ledger.
    pub(super) expanded: usize,
    /// Rows claimed.
    pub(super) claimed: usize,
    /// Rows given up because of their deadline.
    pub(super) expired: u64,
    /// Whether there may be more to do at once.
    pub(super) more: bool,
    /// Whether there is more to give up, which nothing that becomes due tells.
    pub(super) is_behind: bool,
}

/// What came to its end.
#[derive(Debug)]
pub(super) enum Ended {
    Attempts,
    Daily(Daily),
}

/// The row of an attempt, its gate, and what follows.
type Attempted = (ClaimToken, Arc<OriginGate>, Consequence);

#[derive(Debug)]
pub(super) struct Worker {
    engine: Engine,
    attempts: JoinSet<Attempted>,
    /// The gate of each attempt under way.
    gates: HashMap<task::Id, Arc<OriginGate>>,
    effects: Effects,
    settlements: Vec<(ClaimToken, Settlement)>,
    released: Vec<ClaimToken>,
    ended_lately: usize,
    stop: watch::Sender<bool>,
    pauses_read: Option<Timestamp>,
    keys_read: Option<Timestamp>,
    purged: Option<Timestamp>,
    schedules_read: Option<Timestamp>,
    /// One look at the schedules at a time, beside the deliveries: a callback of the application may take its time.
    daily: JoinSet<Result<Daily, StoreError>>,
}

impl Worker {
    pub(super) fn new(engine: Engine) -> Self {
        Self {
            effects: engine.effects(),
            engine,
            attempts: JoinSet::new(),
            gates: HashMap::new(),
            settlements: Vec::new(),
            released: Vec::new(),
            ended_lately: 0,
            stop: watch::Sender::new(false),
            pauses_read: None,
            keys_read: None,
            purged: None,
            schedules_read: None,
            daily: JoinSet::new(),
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.attempts.len()
    }

    /// How many attempts have ended since the last step.
    pub(super) const fn ended_lately(&self) -> usize {
        self.ended_lately
    }

    /// What is known and not written yet.
    pub(super) fn unsettled(&self) -> usize {
        self.settlements.len() + self.released.len() + self.effects.pauses()
    }

    /// From here on no request begins: attempts that wait for a permit end without one.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Reads the pauses, expands, claims and starts attempts.
    ///
    /// # Cancel safety
    ///
    /// Dropped after claiming, rows stay leased until their lease ends, and are claimed again.
    pub(super) async fn step(&mut self) -> Result<Progress, StoreError> {
        let mut progress = Progress::default();
        let now = self.engine.now();
        let is_calm = std::mem::take(&mut self.ended_lately) == 0;
        if is_due(self.pauses_read, Engine::PAUSES_KEPT, now) {
            self.engine.load_pauses(now).await?;
            progress.expired = self.engine.ledger.expire(EXPIRED_AT_ONCE, now).await?;
            progress.is_behind = progress.expired >= EXPIRED_AT_ONCE as u64;
            self.engine.ledger.record_run(now).await?;
            // More of them are given up by the next step, which may not be put off.
            self.pauses_read = (!progress.is_behind).then_some(now);
        }
        if is_due(self.keys_read, KEYS_KEPT, now) {
            // What is in memory goes on working, and a key that is missing is looked for by its id.
            if let Err(error) = self.engine.refresh_keys().await {
                observe::event!(WARN, error = %observe::causes(&error), "cannot read the VAPID keys");
                let _ = error;
            }
            self.keys_read = Some(now);
        }
        if is_due(self.purged, PURGE_EVERY, now) {
            self.purge(now).await?;
            self.purged = Some(now);
        }
        self.fire(now).await?;
        progress.expanded = expand(&self.engine, now).await?;
        progress.claimed = self.claim(now, is_calm).await?;
        progress.more |= progress.expanded > 0 || progress.claimed > 0;
        Ok(progress)
    }

    /// Begins to fire the schedules that are due.
    pub(super) async fn fire(&mut self, now: Timestamp) -> Result<(), StoreError> {
        if !self.daily.is_empty() || !is_due(self.schedules_read, SCHEDULES_KEPT, now) {
            return Ok(());
        }
        let next = self.engine.ledger.next_fire_at().await?;
        if next.is_some_and(|at| at <= now) {
            self.daily.spawn(fire_due(self.engine.clone()));
        }
        self.schedules_read = Some(now);
        Ok(())
    }

    /// There may be something to fire earlier than was known.
    pub(super) fn look_at_schedules(&mut self) {
        self.schedules_read = None;
    }

    /// Claims as many rows as there is room for, and starts their attempts.
    async fn claim(&mut self, now: Timestamp, is_calm: bool) -> Result<usize, StoreError> {
        // Where ends cannot be written, more of them would only be sent again.
        if self.unsettled() >= UNSETTLED {
            return Ok(0);
        }
        let free = IN_FLIGHT.saturating_sub(self.attempts.len());
        if free < FREE_AT_LEAST {
            return Ok(0);
        }
        let mut request = ClaimRequest::new(free.min(CLAIM), self.engine.lease);
        request.rooms = self.rooms(now, is_calm);
        request.per_origin = self.room_for_unknown();
        let claims = self.engine.ledger.claim(&request, now).await?;
        let claimed = claims.rows.len();
        if claimed > 0 {
            self.start(claims, now).await?;
        }
        Ok(claimed)
    }

    /// How many more attempts there is room for at each origin that is known.
    fn rooms(&self, now: Timestamp, is_calm: bool) -> HashMap<Origin, usize> {
        let mut rooms = self.engine.gates.rooms(now);
        let mut under_way: HashMap<&Origin, usize> = HashMap::new();
        for gate in self.gates.values() {
            *under_way.entry(gate.origin()).or_default() += 1;
        }
        for (origin, room) in &mut rooms {
            let Some(under_way) = under_way.get(origin) else {
                continue;
            };
            let left = room.saturating_sub(*under_way);
            // A few at a time are not worth a transaction each, while more come free.
            *room = if !is_calm && left < *room / 8 {
                0
            } else {
                left
            };
        }
        rooms
    }

    /// The number of attempts that an origin without a gate has room for.
    fn room_for_unknown(&self) -> usize {
        self.engine.in_flight_per_origin.min(OriginGates::UNPROVEN)
    }

    async fn start(&mut self, claims: Claims, now: Timestamp) -> Result<(), StoreError> {
        let keys: Vec<_> = claims
            .rows
            .iter()
            .map(|row| SubscriptionRef::Key(row.token.key))
            .collect();
        let records = match self.engine.subscriptions.get(&keys).await {
            Ok(records) => records,
            Err(error) => {
                self.released
                    .extend(claims.rows.iter().map(|row| row.token));
                return Err(error);
            }
        };
        for (row, record) in claims.rows.into_iter().zip(records) {
            let Some(record) = record else {
                // Its user has unsubscribed meanwhile.
                let gone = Settlement::Finished(FinalOutcome::Gone);
                self.settlements.push((row.token, gone));
                continue;
            };
            let Some(message) = claims.messages.get(&row.token.broadcast) else {
                self.released.push(row.token);
                continue;
            };
            let gate = self.engine.gates.gate(&row.origin);
            let job = Job {
                record,
                gate: Arc::clone(&gate),
                broadcast: Some(row.token.broadcast),
                message: message.message.clone(),
                due_at: message.due_at,
                deadline: message.deadline,
                number: row.attempt,
                is_test: false,
                leased_until: row.leased_until.max(now),
                stop: Some(self.stop.subscribe()),
            };
            let engine = self.engine.clone();
            let (token, held) = (row.token, Arc::clone(&gate));
            let handle = self.attempts.spawn(async move {
                let (consequence, _) = attempt(&engine, job).await;
                (token, held, consequence)
            });
            self.gates.insert(handle.id(), gate);
        }
        observe::show_in_flight(self.attempts.len());
        Ok(())
    }

    /// The next attempts that end; `None` when none is under way.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: an attempt that ended is still there for the next call.
    pub(super) async fn attempt_ended(&mut self) -> Option<()> {
        let ended = self.attempts.join_next_with_id().await?;
        self.note_all(ended);
        Some(())
    }

    /// Whatever ends next, attempts or a look at the schedules; `None` when nothing is under way.
    ///
    /// # Errors
    ///
    /// A store that did not answer while schedules were fired.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: what ended is still there for the next call.
    pub(super) async fn ended(&mut self) -> Option<Result<Ended, StoreError>> {
        tokio::select! {
            Some(ended) = self.attempts.join_next_with_id() => {
                self.note_all(ended);
                Some(Ok(Ended::Attempts))
            }
            Some(daily) = self.daily.join_next() => Some(self.fired(daily).map(Ended::Daily)),
            else => None,
        }
    }

    fn fired(
        &mut self,
        daily: Result<Result<Daily, StoreError>, JoinError>,
    ) -> Result<Daily, StoreError> {
        let daily = daily.unwrap_or_else(|error| {
            observe::event!(ERROR, error = %error, "looking at the schedules panicked");
            let _ = error;
            Ok(Daily::default())
        })?;
        if daily.more {
            self.look_at_schedules();
        }
        Ok(daily)
    }

    fn note_all(&mut self, ended: Result<(task::Id, Attempted), JoinError>) {
        self.note(ended);
        while let Some(ended) = self.attempts.try_join_next_with_id() {
            self.note(ended);
        }
        observe::show_in_flight(self.attempts.len());
    }

    fn note(&mut self, ended: Result<(task::Id, Attempted), JoinError>) {
        self.ended_lately += 1;
        let (id, (token, gate, consequence)) = match ended {
            Ok(ended) => ended,
            // A panic in somebody's client or store: the row's lease ends and it is tried again, until its
            // attempts are used up.
            Err(error) => {
                observe::event!(ERROR, error = %error, "an attempt panicked");
                self.gates.remove(&error.id());
                return;
            }
        };
        self.gates.remove(&id);
        let next = consequence.next;
        self.effects.note(&gate, consequence, self.engine.now());
        match next {
            Next::Finished(outcome) => {
                observe::count_finished(outcome.as_str());
                self.settlements
                    .push((token, Settlement::Finished(outcome)));
            }
            Next::RetryAt(at) => self.settlements.push((token, Settlement::RetryAt(at))),
            Next::Deferred(at) => self.settlements.push((token, Settlement::Deferred(at))),
        }
    }

    /// Writes down what is known: pauses and the effects on subscriptions first, then the rows' ends.
    ///
    /// # Cancel safety
    ///
    /// What was not written is written by the next call; what was written twice changes nothing.
    pub(super) async fn settle(&mut self) -> Result<(), StoreError> {
        let now = self.engine.now();
        self.effects.write(now).await?;
        if !self.settlements.is_empty() {
            self.engine.ledger.settle(&self.settlements, now).await?;
            self.settlements.clear();
            self.engine.signals.settled.notify_waiters();
        }
        if !self.released.is_empty() {
            self.engine.ledger.release(&self.released, now).await?;
            self.released.clear();
        }
        Ok(())
    }

    /// The last settlement: nothing is left to be written by a later one.
    ///
    /// # Cancel safety
    ///
    /// As [`settle`](Self::settle).
    pub(super) async fn finish(&mut self) -> Result<(), StoreError> {
        self.settle().await?;
        self.effects.finish(self.engine.now()).await
    }

    /// Deletes what is not needed any more. A wrong clock deletes nothing: what is gone cannot be brought back.
    async fn purge(&self, now: Timestamp) -> Result<(), StoreError> {
        if let Some(skew) = ClockSkew::of(&*self.engine.clock, &*self.engine.ledger).await? {
            observe::event!(WARN, error = %skew, "purge skipped");
            let _ = skew;
            return Ok(());
        }
        self.engine.ledger.prune(now - FINISHED_KEPT).await?;
        let purge = Change::Purge {
            before: now - UNREACHABLE_KEPT,
            expired_before: now - EXPIRED_KEPT,
        };
        self.engine.subscriptions.apply(&[purge], now).await?;
        // A key that stays one purge longer does no harm.
        if let Err(error) = self
            .engine
            .key_ring
            .forget_unused(&*self.engine.subscriptions, now)
            .await
        {
            observe::event!(WARN, error = %observe::causes(&error), "cannot forget unused VAPID keys");
            let _ = error;
        }
        Ok(())
    }
}

/// Whether something is to be done again; a clock that was set back does not put it off.
fn is_due(last: Option<Timestamp>, every: Duration, now: Timestamp) -> bool {
    last.is_none_or(|last| now.since(last) >= every || last > now)
}

#[cfg(test)]
#[cfg(feature = "testing")]
#[path = "worker_tests.rs"]
mod tests;
