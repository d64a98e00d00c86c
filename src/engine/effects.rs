//! What attempts found out about subscriptions and their push services, until it is written down.

use std::collections::{HashMap, HashSet};

use super::{Consequence, Engine, Next};
use crate::broadcast::FinalOutcome;
use crate::clock::Timestamp;
use crate::observe;
use crate::store::{Change, Pause, PauseReason, RetireReason, StoreError, Tally};
use crate::subscription::{EndpointKey, Origin};

/// Acceptances are worth a write of their own from this number on; with a "gone" they are written at once.
const TALLY_AT: u64 = 500;

#[derive(Debug, Default)]
pub(crate) struct Effects {
    changes: Vec<Change>,
    /// Subscriptions to retire, unless too many are.
    gone: Vec<Gone>,
    /// What is not in the ledger yet.
    tallies: HashMap<Origin, Tally>,
    /// Origins of which it was logged that their subscriptions are not retired.
    doubted: HashSet<Origin>,
    /// What the other replicas do not know yet, in order.
    pauses: Vec<Pause>,
}

#[derive(Debug)]
struct Gone {
    origin: Origin,
    key: EndpointKey,
    reason: RetireReason,
    retire: Change,
    for_days: bool,
}

impl Effects {
    /// How many pauses wait to be written.
    pub(crate) fn pauses(&self) -> usize {
        self.pauses.len()
    }

    /// Takes in what an attempt at a subscription of this origin came to.
    pub(crate) fn note(&mut self, engine: &Engine, origin: &Origin, consequence: Consequence) {
        let mut seen = Tally::default();
        if consequence.next == Next::Finished(FinalOutcome::Accepted) {
            seen.accepted = 1;
        }
        for change in consequence.changes {
            if let Change::Retire { key, reason, .. } = change {
                seen.gone = 1;
                self.gone.push(Gone {
                    origin: origin.clone(),
                    key,
                    reason,
                    retire: change,
                    for_days: consequence.is_gone_for_days,
                });
            } else {
                self.changes.push(change);
            }
        }
        if seen != Tally::default() {
            let tally = self.tallies.entry(origin.clone()).or_default();
            *tally = Tally::new(tally.accepted + seen.accepted, tally.gone + seen.gone);
        }
        self.note_origin(engine, origin);
    }

    /// Takes in what an attempt showed of an origin.
    pub(crate) fn note_origin(&mut self, engine: &Engine, origin: &Origin) {
        for mut pause in engine.gates.gate(origin).take_news() {
            if pause.reason == PauseReason::SenderFault {
                pause.contact = Some(engine.contact.as_str().to_owned());
            }
            tell(&pause, engine.now());
            self.pauses.push(pause);
        }
    }

    /// Writes it all down: pauses first, then the changes to subscriptions.
    ///
    /// # Cancel safety
    ///
    /// What was not written is written by the next call. Written twice, a change changes nothing and a tally is a
    /// little off.
    pub(crate) async fn write(
        &mut self,
        engine: &Engine,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        while let Some(pause) = self.pauses.first() {
            engine.ledger.pause(pause, now).await?;
            engine.gates.gate(&pause.origin).shared(now);
            self.pauses.remove(0);
        }
        let accepted: u64 = self.tallies.values().map(|tally| tally.accepted).sum();
        if !self.gone.is_empty() || accepted >= TALLY_AT {
            self.judge(engine, now).await?;
        }
        if !self.changes.is_empty() {
            engine.subscriptions.apply(&self.changes, now).await?;
            self.changes.clear();
        }
        Ok(())
    }

    /// The same at the end, with whatever few acceptances are left to count.
    pub(crate) async fn finish(
        &mut self,
        engine: &Engine,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(engine, now).await?;
        if !self.tallies.is_empty() {
            self.judge(engine, now).await?;
        }
        Ok(())
    }

    /// Retires what is gone, unless too much is: then it is kept, and counts as failed, until it has been gone for days.
    async fn judge(&mut self, engine: &Engine, now: Timestamp) -> Result<(), StoreError> {
        let counts: Vec<_> = self
            .tallies
            .iter()
            .map(|(origin, tally)| (origin.clone(), *tally))
            .collect();
        let sums = engine.ledger.tally(&counts, now).await?;
        self.tallies.clear();
        let sums: HashMap<_, _> = counts
            .into_iter()
            .zip(sums)
            .map(|((origin, _), sum)| (origin, sum))
            .collect();
        let breaker = engine.prune_breaker;
        for Gone {
            origin,
            key,
            reason,
            retire,
            for_days,
        } in self.gone.drain(..)
        {
            let sum = sums.get(&origin).copied().unwrap_or_default();
            if !breaker.suspends(reason, sum) || (for_days && sum.accepted > 0) {
                self.changes.push(retire);
                continue;
            }
            self.changes.push(Change::Failed(key));
            if self.doubted.insert(origin.clone()) {
                observe::event!(
                    ERROR,
                    origin = %origin,
                    gone = sum.gone,
                    accepted = sum.accepted,
                    reason = reason.as_str(),
                    "retiring suspended: an unusual share of the answers would retire its subscription"
                );
            }
        }
        // Bad requests are the first to be suspended, and the last to be judged again.
        let is_doubted = |sum: &Tally| breaker.suspends(RetireReason::BadRequest, *sum);
        self.doubted
            .retain(|origin| sums.get(origin).is_none_or(is_doubted));
        Ok(())
    }
}

/// Tells the operator; a fault of the sender once, and loudly.
#[cfg_attr(
    not(feature = "tracing"),
    expect(
        clippy::if_same_then_else,
        reason = "without a log there is nothing to tell"
    )
)]
fn tell(pause: &Pause, now: Timestamp) {
    let reason = pause.reason.as_str();
    let secs = pause.until.since(now).as_secs();
    if pause.until <= now {
        observe::event!(INFO, origin = %pause.origin, "origin is asked again");
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
