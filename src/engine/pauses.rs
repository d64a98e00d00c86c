//! Pauses of push services that all replicas share.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::Engine;
use crate::clock::Timestamp;
use crate::deliver::OriginGate;
use crate::observe::event;
use crate::push_service::PushService;
use crate::store::{Pause, PauseReason, StoreError, Tally};
use crate::subscription::Origin;
use crate::vapid::{Contact, KeyId, VapidError, VapidErrorKind};

impl Engine {
    /// The maximum age of the loaded pauses.
    pub(crate) const PAUSES_KEPT: Duration = Duration::from_secs(5);

    /// Loads the pauses that all replicas share.
    pub(crate) async fn load_pauses(&self, now: Timestamp) -> Result<(), StoreError> {
        let pauses = self.ledger.pauses(now).await?;
        let is_legal = |pause: &Pause| pause.until.since(now) <= longest(pause);
        let (legal, illegal): (Vec<_>, Vec<_>) = pauses.into_iter().partition(is_legal);
        for mut pause in illegal {
            event!(
                WARN,
                origin = %pause.origin,
                secs = pause.until.since(now).as_secs(),
                "pause ended: it is longer than any that a correct clock writes"
            );
            pause.until = now;
            self.ledger.pause(&pause, now).await?;
        }
        self.gates.load(legal, now);
        let read = &self.signals.pauses_read;
        read.store(now.as_millis(), Ordering::Relaxed);
        Ok(())
    }

    /// Loads the pauses if that was not done lately: a process may send without running a worker.
    pub(crate) async fn refresh_pauses(&self, now: Timestamp) -> Result<(), StoreError> {
        let read = Timestamp::from_millis(self.signals.pauses_read.load(Ordering::Relaxed));
        if read <= now && now.since(read) < Self::PAUSES_KEPT {
            return Ok(());
        }
        self.load_pauses(now).await
    }

    /// Reads the VAPID keys again. If one is new here, push services that refused this server get another request at once:
    /// it may be the right one.
    pub(crate) async fn refresh_keys(&self) -> Result<(), VapidError> {
        self.key_ring.refresh().await?;
        let ids: Vec<_> = self.key_ring.live().iter().map(|key| key.id()).collect();
        if self.is_new(&ids) {
            let lifted = self.lift_sender_faults(|_| true).await;
            lifted.map_err(|source| VapidError::with_source(VapidErrorKind::Store, source))?;
        }
        // Only now: if the pauses could not be lifted, the next call lifts them.
        *self.known_keys() = ids;
        Ok(())
    }

    /// Takes the loaded keys for known, for a process that starts.
    pub(super) fn know_keys(&self) {
        *self.known_keys() = self.key_ring.live().iter().map(|key| key.id()).collect();
    }

    /// Whether one of the live keys was loaded, or became the active one, since the known keys were set.
    fn is_new(&self, ids: &[KeyId]) -> bool {
        let known = self.known_keys();
        ids.first() != known.first() || ids.iter().any(|id| !known.contains(id))
    }

    fn known_keys(&self) -> MutexGuard<'_, Vec<KeyId>> {
        let known = &self.signals.known_keys;
        known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the sender fault pauses that were caused with another contact or another active VAPID key, once: those push
    /// services are asked again.
    pub(crate) async fn lift_faults_of_others(&self) -> Result<(), StoreError> {
        let is_done = &self.signals.are_faults_lifted;
        if is_done.load(Ordering::Relaxed) {
            return Ok(());
        }
        let own = sender(&self.contact, Some(self.key_ring.active().id()));
        self.lift_sender_faults(|pause| pause.contact.as_deref() != Some(&own))
            .await?;
        is_done.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Reads whether these origins have accepted a push from this server. Of one that is not known they are asked again with
    /// the next rows.
    pub(crate) async fn recall(&self, gates: impl IntoIterator<Item = Arc<OriginGate>>) {
        let gates: Vec<_> = gates.into_iter().collect();
        if gates.is_empty() {
            return;
        }
        let origins = gates.iter();
        let nothing: Vec<_> = origins
            .map(|gate| (gate.origin().clone(), Tally::default()))
            .collect();
        if let Ok(tallies) = self.ledger.tally(&nothing, self.now()).await {
            for (gate, tally) in gates.iter().zip(tallies) {
                gate.recall(tally.accepted > 0);
            }
        }
    }

    /// Ends the sender fault pauses that `which` selects: they were caused by another sender identity than the current one.
    pub(crate) async fn lift_sender_faults(
        &self,
        which: impl Fn(&Pause) -> bool + Send,
    ) -> Result<(), StoreError> {
        let which = move |pause: &Pause| pause.reason == PauseReason::SenderFault && which(pause);
        self.lift(which).await.map(|_| ())
    }

    /// Ends the pause of an origin, whatever its reason. Returns whether it was paused.
    pub(crate) async fn open_gate(&self, origin: &Origin) -> Result<bool, StoreError> {
        let was_paused = self.lift(|pause| pause.origin == *origin).await?;
        // What this process has decided and not yet shared.
        self.gates.resume(origin);
        if was_paused {
            event!(INFO, origin = %origin, "pause ended by an administrator");
        }
        self.signals.wake.notify_one();
        Ok(was_paused)
    }

    /// Ends the pauses that `which` selects. Returns whether there were any.
    async fn lift(&self, which: impl Fn(&Pause) -> bool + Send) -> Result<bool, StoreError> {
        let now = self.now();
        let mut has_lifted = false;
        for mut pause in self.ledger.pauses(now).await? {
            if which(&pause) {
                pause.until = now;
                self.ledger.pause(&pause, now).await?;
                self.gates.resume(&pause.origin);
                has_lifted = true;
            }
        }
        Ok(has_lifted)
    }
}

/// The text that is stored as the [contact](Pause::contact) of a pause for a sender fault.
pub(super) fn sender(contact: &Contact, key: Option<KeyId>) -> String {
    match key {
        // A contact is a URI, which contains no space.
        Some(key) => format!("{} {key}", contact.as_str()),
        None => contact.as_str().to_owned(),
    }
}

/// An upper bound of a pause: the longest `Retry-After` that is obeyed, which may come with an error of the push service too,
/// and an hour more for the clocks of other replicas. No pause that is not asked for is longer.
fn longest(pause: &Pause) -> Duration {
    let asked = match pause.reason {
        PauseReason::RateLimited => Duration::from_secs(24 * 3600),
        PauseReason::Unreachable | PauseReason::SenderFault => {
            PushService::of_origin(&pause.origin).longest_wait()
        }
    };
    asked + Duration::from_secs(3600)
}

#[cfg(test)]
#[cfg(feature = "testing")]
#[path = "pauses_tests.rs"]
mod tests;
