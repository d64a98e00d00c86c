//! The effects of attempts on subscriptions and origins, collected until they are written.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::outage::Outage;
use super::pauses::sender;
use super::portions::{LAST_PASSES, Portions, is_trouble};
use super::{Consequence, PruneBreaker};
use crate::broadcast::FinalOutcome;
use crate::clock::Timestamp;
use crate::deliver::OriginGate;
use crate::observe;
use crate::push_service::PushService;
use crate::store::{
    Change, DeliveryLedger, Failure, Pause, PauseReason, RetireReason, Settlement, StoreError,
    SubscriptionStore, Tally,
};
use crate::subscription::{EndpointKey, Origin};
use crate::vapid::{Contact, KeyId};

/// The number of uncounted acceptances that causes a write of its own. With a "gone" they are written at once.
const TALLY_AT: u64 = 500;
/// The changes that are kept while the store refuses all.
const CHANGES_KEPT: usize = 10_000;
const REFUSED: &str = "the store refuses changes of subscriptions";

/// The effects of attempts, written in batches: changes to subscriptions, counts of responses, and pauses of origins, which
/// all processes on the same store share.
///
/// [`write`](Self::write) comes before the deliveries are settled: a crash between the two repeats the attempts.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use tower_web_push::clock::Timestamp;
/// use tower_web_push::deliver::OriginGates;
/// use tower_web_push::engine::{Consequence, Effects, PruneBreaker};
/// use tower_web_push::store::{MemoryStore, StoreError};
/// use tower_web_push::subscription::Origin;
/// use tower_web_push::vapid::Contact;
///
/// async fn write_down(
///     store: Arc<MemoryStore>,
///     contact: &Contact,
///     (gates, origin): (&OriginGates, &Origin),
///     (consequence, now): (Consequence, Timestamp),
/// ) -> Result<(), StoreError> {
///     let mut effects = Effects::new(store.clone(), store, PruneBreaker::default(), contact);
///     effects.note(&gates.gate(origin), consequence, now);
///     effects.finish(now).await
/// }
/// ```
#[derive(Debug)]
pub struct Effects {
    subscriptions: Arc<dyn SubscriptionStore>,
    ledger: Arc<dyn DeliveryLedger>,
    breaker: PruneBreaker,
    contact: Contact,
    /// The active VAPID key, if it is known.
    key: Option<KeyId>,
    changes: Portions<Change>,
    /// Whether the store refuses all changes.
    refusal: Outage,
    /// Subscriptions to retire, or without a key that fits, unless pruning is suspended.
    gone: Vec<Gone>,
    /// Counts that are not in the ledger yet.
    tallies: HashMap<Origin, Tally>,
    /// Origins whose suspended pruning was logged.
    suspended: HashSet<Origin>,
    /// Origins that the ledger may not know to have accepted anything.
    firsts: Vec<Arc<OriginGate>>,
    /// Pauses that are not in the ledger yet, in order.
    pauses: Vec<Unshared>,
}

/// A pause, or the end of one, that the other replicas do not know.
#[derive(Debug)]
struct Unshared {
    gate: Arc<OriginGate>,
    pause: Pause,
    is_lift: bool,
}

#[derive(Debug)]
struct Gone {
    origin: Origin,
    key: EndpointKey,
    /// `None` if it becomes stale.
    reason: Option<RetireReason>,
    failure: Failure,
    change: Change,
    for_days: bool,
}

impl Effects {
    /// No effects. `contact` is stored with a pause for a sender fault: a start under another contact ends the pause.
    #[must_use]
    pub fn new(
        subscriptions: Arc<dyn SubscriptionStore>,
        ledger: Arc<dyn DeliveryLedger>,
        breaker: PruneBreaker,
        contact: &Contact,
    ) -> Self {
        Self {
            subscriptions,
            ledger,
            breaker,
            contact: contact.clone(),
            key: None,
            changes: Portions::new(CHANGES_KEPT),
            refusal: Outage::default(),
            gone: Vec::new(),
            tallies: HashMap::new(),
            suspended: HashSet::new(),
            firsts: Vec::new(),
            pauses: Vec::new(),
        }
    }

    /// Sets the active VAPID key, which is stored with a pause for a sender fault too: a start with another one ends the
    /// pause.
    pub(crate) fn set_key(&mut self, key: KeyId) {
        self.key = Some(key);
    }

    /// The number of pauses that wait to be written.
    pub(crate) const fn pauses(&self) -> usize {
        self.pauses.len()
    }

    /// Adds the consequence of an attempt for a subscription of this gate's origin.
    pub fn note(&mut self, gate: &Arc<OriginGate>, consequence: Consequence, now: Timestamp) {
        let mut seen = Tally::default();
        if consequence.settlement == Settlement::Finished(FinalOutcome::Accepted) {
            seen.accepted = 1;
            if !gate.has_accepted() {
                gate.recall(true);
                self.firsts.push(Arc::clone(gate));
            }
        }
        for change in consequence.changes {
            let (key, reason, failure) = match change {
                Change::Retire {
                    key,
                    reason,
                    failure,
                    ..
                } => (key, Some(reason), failure),
                Change::Stale { key, failure, .. } => (key, None, failure),
                _ => {
                    self.changes.push(change);
                    continue;
                }
            };
            seen.gone = 1;
            self.gone.push(Gone {
                origin: gate.origin().clone(),
                key,
                reason,
                failure,
                change,
                for_days: consequence.is_gone_for_days,
            });
        }
        if seen != Tally::default() {
            let tally = self.tallies.entry(gate.origin().clone()).or_default();
            *tally = tally.plus(seen);
        }
        self.note_gate(gate, now);
    }

    /// Adds the pauses that an attempt caused, and those that earlier effects could not write.
    pub(crate) fn note_gate(&mut self, gate: &Arc<OriginGate>, now: Timestamp) {
        for mut pause in gate.take_unshared() {
            if pause.reason == PauseReason::SenderFault {
                pause.contact = Some(sender(&self.contact, self.key));
            }
            log_pause(&pause, now);
            self.pauses.push(Unshared {
                gate: Arc::clone(gate),
                is_lift: pause.until <= now,
                pause,
            });
        }
    }

    /// Writes everything: pauses first, then the changes to subscriptions. Acceptances are counted with the first one of an
    /// origin, which shows later processes that it works, with the next "gone", or when there are 500.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable. What was not written is written by the next call. A pause or a count that
    /// the store refuses for another reason is logged and left out, and the others are written. So is a change, once the store
    /// has taken another one: the subscription stays as it is, and the next response of its push service says the same again. Until
    /// then it is tried again by the next call, as long as no more than 10,000 wait. Where many changes are refused, others may
    /// wait for the next call, too, or for [`finish`](Self::finish). Changes are written in their order, except in a call in which the
    /// store refuses some: then a failure may be written after a later acceptance, and counts until the next one.
    ///
    /// # Cancel safety
    ///
    /// What was not written is written by the next call. A change that is written twice has no further effect; a tally is
    /// then slightly too high.
    pub async fn write(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.prepare(now).await?;
        if !self.overdue_counts().is_empty() {
            self.judge(now).await?;
        }
        self.apply(now).await
    }

    /// Writes what has to be written before the changes to subscriptions, and decides on these.
    pub(crate) async fn prepare(&mut self, now: Timestamp) -> Result<(), StoreError> {
        while let Some(Unshared {
            gate,
            pause,
            is_lift,
        }) = self.pauses.first()
        {
            // A pause that is over by now would end a later one of another replica. One of a gate that is open was ended meanwhile
            // by an administrator.
            if *is_lift || (pause.until > now && gate.closed_at(now).is_some()) {
                match self.ledger.pause(pause, now).await {
                    Ok(()) => gate.shared(now),
                    Err(error) if is_trouble(&error) => return Err(error),
                    // In this process the gate stays closed.
                    Err(error) => {
                        observe::event!(
                            ERROR,
                            origin = %pause.origin,
                            error = %observe::causes(&error),
                            "the store refuses a pause: other processes do not know it"
                        );
                        let _ = error;
                    }
                }
            } else {
                gate.shared(now);
            }
            self.pauses.remove(0);
        }
        if !self.gone.is_empty() || !self.firsts.is_empty() {
            self.judge(now).await?;
        }
        Ok(())
    }

    /// Acceptances to be counted by [`DeliveryLedger::tally`], if there are many. After [`prepare`](Self::prepare) no change
    /// depends on their sums, and they may be counted while others are written.
    pub(crate) fn overdue_counts(&self) -> Vec<(Origin, Tally)> {
        let accepted: u64 = self.tallies.values().map(|tally| tally.accepted).sum();
        match accepted >= TALLY_AT {
            true => self.counts(),
            false => Vec::new(),
        }
    }

    fn counts(&self) -> Vec<(Origin, Tally)> {
        self.tallies
            .iter()
            .map(|(origin, tally)| (origin.clone(), *tally))
            .collect()
    }

    /// Writes the changes to subscriptions, in one [pass](super::portions). What it leaves waits for the next call. Outcomes of
    /// rows do not wait for it.
    pub(crate) async fn apply(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let mut pass = self.changes.pass();
        while let Some(part) = pass.next() {
            let applied = self.subscriptions.apply(&part.elements, now).await;
            pass.answered(applied.map(|changed| changed > 0), |changes, error| {
                observe::event!(
                    ERROR,
                    changes = changes.len(),
                    error = %observe::causes(error),
                    "the store refuses changes of subscriptions: they are left out"
                );
                let _ = (changes, error);
            });
        }
        match pass.end() {
            Ok(()) => self.refusal.went_well(REFUSED),
            Err(error) if is_trouble(&error) => return Err(error),
            Err(error) => self.refusal.failed(&error, REFUSED),
        }
        Ok(())
    }

    /// The changes to subscriptions that wait to be written.
    pub(crate) fn changes(&self) -> Vec<Change> {
        self.changes.to_vec()
    }

    /// Whether the store has refused all changes of the last call.
    pub(crate) const fn are_changes_refused(&self) -> bool {
        self.changes.is_refused()
    }

    /// Records that these changes are written.
    pub(crate) fn changes_are_written(&mut self) {
        self.changes.clear();
    }

    /// Writes everything, including acceptances that are not counted yet.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    ///
    /// # Cancel safety
    ///
    /// As [`write`](Self::write).
    pub async fn finish(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let mut left = usize::MAX;
        self.write(now).await?;
        for _ in 1..LAST_PASSES {
            let before = std::mem::replace(&mut left, self.changes.fresh());
            if left == 0 || left >= before {
                break;
            }
            self.apply(now).await?;
        }
        if !self.tallies.is_empty() {
            self.judge(now).await?;
        }
        Ok(())
    }

    /// Retires rows, unless pruning of their origin is suspended: then they count as failed, until they are gone for days.
    async fn judge(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let counts = self.counts();
        let sums = sums(&*self.ledger, &counts, now).await?;
        self.counted(counts, sums);
        Ok(())
    }

    /// Records the [`sums`] of these counts, which are all that were noted, and decides what they permit.
    pub(crate) fn counted(&mut self, counts: Vec<(Origin, Tally)>, sums: Vec<Option<Tally>>) {
        self.tallies.clear();
        self.firsts.clear();
        let sums: HashMap<_, _> = counts
            .into_iter()
            .zip(sums)
            .map(|((origin, _), sum)| (origin, sum))
            .collect();
        let breaker = self.breaker;
        for Gone {
            origin,
            key,
            reason,
            failure,
            change,
            for_days,
        } in self.gone.drain(..)
        {
            let sum = sums.get(&origin).copied().flatten();
            let is_known = sum.is_some();
            let sum = sum.unwrap_or_default();
            let suspends = match reason {
                Some(reason) => breaker.suspends(reason, sum),
                None => breaker.suspends_staleness(sum),
            };
            // Without a sum nothing tells whether so many are gone that the push service is at fault.
            let suspends = suspends || !is_known;
            let why = reason.map_or("stale", RetireReason::as_str);
            if !suspends || (for_days && sum.accepted > 0) {
                observe::count_retired(PushService::of_origin(&origin), why);
                self.changes.push(change);
                continue;
            }
            self.changes.push(Change::Failed { key, failure });
            if is_known && self.suspended.insert(origin.clone()) {
                observe::event!(
                    ERROR,
                    origin = %origin,
                    gone = sum.gone,
                    accepted = sum.accepted,
                    reason = why,
                    "pruning suspended: an unusual share of responses would retire their subscription"
                );
            }
        }
        // Pruning for bad requests is suspended first and resumed last.
        let is_suspended = |sum: &Tally| breaker.suspends(RetireReason::BadRequest, *sum);
        self.suspended.retain(|origin| {
            let sum = sums.get(origin).and_then(Option::as_ref);
            sum.is_none_or(is_suspended)
        });
    }
}

/// Adds counts to the tallies of the ledger and returns their sums, in the same order. If the ledger refuses all of them
/// together, they are counted one by one: the sum is `None` where it refuses one alone.
pub(crate) async fn sums(
    ledger: &dyn DeliveryLedger,
    counts: &[(Origin, Tally)],
    now: Timestamp,
) -> Result<Vec<Option<Tally>>, StoreError> {
    match ledger.tally(counts, now).await {
        Ok(sums) => return Ok(sums.into_iter().map(Some).collect()),
        Err(error) if is_trouble(&error) => return Err(error),
        Err(_) => {}
    }
    let mut sums = Vec::with_capacity(counts.len());
    for count in counts {
        sums.push(match ledger.tally(std::slice::from_ref(count), now).await {
            Ok(sum) => sum.first().copied(),
            // The next call counts the first ones again, as after a response that was lost.
            Err(error) if is_trouble(&error) => return Err(error),
            Err(error) => {
                observe::event!(
                    ERROR,
                    origin = %count.0,
                    error = %observe::causes(&error),
                    "the store refuses to count responses: no subscription of the origin is retired meanwhile"
                );
                let _ = error;
                None
            }
        });
    }
    Ok(sums)
}

impl Drop for Effects {
    /// Leaves pauses that were not written to the next effects of their origin.
    fn drop(&mut self) {
        for unshared in self.pauses.drain(..).rev() {
            let Unshared {
                gate,
                pause,
                is_lift,
            } = unshared;
            gate.keep_unshared(pause, is_lift);
        }
    }
}

/// Logs a pause; a sender fault as an error, once.
#[cfg_attr(
    not(feature = "tracing"),
    expect(
        clippy::if_same_then_else,
        reason = "without a log there is nothing to tell"
    )
)]
fn log_pause(pause: &Pause, now: Timestamp) {
    let reason = pause.reason.as_str();
    let secs = pause.until.since(now).as_secs();
    if pause.until <= now {
        observe::event!(INFO, origin = %pause.origin, "origin resumed");
    } else if pause.reason == PauseReason::SenderFault && pause.closures == 1 {
        observe::event!(
            ERROR,
            origin = %pause.origin,
            secs,
            "the push service refuses us as a sender: check the VAPID key, the contact and this machine's \
             clock; nothing is deleted, and one request at a time finds out when it is over"
        );
    } else {
        observe::event!(INFO, origin = %pause.origin, reason, secs, "origin paused");
    }
    let _ = (reason, secs);
}

#[cfg(test)]
#[cfg(feature = "testing")]
#[path = "effects_tests.rs"]
mod tests;
