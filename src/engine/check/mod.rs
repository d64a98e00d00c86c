//! What keeps messages from being sent, in words: findings about a store, and about one of its subscriptions.
//!
//! [`WebPush::check`](crate::WebPush::check) checks its own store, and its own worker. The functions here check a store on which
//! no `WebPush` was built, and so before a server starts: they make no VAPID key and encrypt none again.
//!
//! # Examples
//!
//! ```
//! use tower_web_push::check::{FindingKind, check_store};
//! use tower_web_push::clock::SystemClock;
//! use tower_web_push::store::MemoryStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let store = MemoryStore::new();
//! for finding in check_store(&store, &[], &SystemClock::new()).await {
//!     println!("{:?} {}", finding.kind, finding.text);
//!     assert_ne!(finding.kind, FindingKind::Wrong);
//! }
//! # }
//! ```

mod finding;
mod of_store;
mod of_subscription;

pub use finding::{Finding, FindingKind};
pub use of_subscription::check_subscription;

use super::Engine;
use crate::clock::Clock;
use crate::store::{ScheduleStore, SubscriptionRef, SubscriptionStore, VapidKeyStore};
use crate::vapid::KeyId;

/// Looks for what is wrong with a store: its clock, whether it can be read and written, its queue, its outbox, paused push
/// services, and subscriptions whose VAPID key it does not have.
///
/// `keys` are VAPID keys beside the stored ones, such as that of a configuration. Nothing is changed: the write is one of a
/// value that is there already.
///
/// It takes as long as its calls of the store. A part that cannot be read is a finding.
pub async fn check_store<S>(store: &S, keys: &[KeyId], clock: &dyn Clock) -> Vec<Finding>
where
    S: SubscriptionStore + VapidKeyStore + ScheduleStore,
{
    let mut findings = vec![of_store::clocks(store, clock).await];
    findings.extend(of_store::check(store, store, store, keys, clock).await);
    findings
}

impl Engine {
    /// Checks the engine and its stores.
    pub(crate) async fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !self.has_contact {
            findings.push(Finding::wrong(
                "contact: there is none, so nothing is sent and no browser can subscribe",
                "Set it to an address that is read, as in mailto:you@example.com: push services write to it about a sender.",
            ));
        }
        // During a fault the engine's clock says what it trusts, which agrees with the store's.
        findings.push(match self.clock.fault() {
            Some(fault) => Finding::wrong(
                format!("clock: {fault}"),
                "Nothing is claimed until it agrees again, or for some minutes if the store has no clock: run NTP.",
            ),
            None => of_store::clocks(&*self.ledger, &*self.clock).await,
        });
        if !self.has_worker() {
            findings.push(Finding::note(
                "worker: none runs in this process: unless another one runs `WebPush::run`, nothing is sent",
            ));
        }
        for failing in self.signals.health.failing() {
            findings.push(Finding::wrong(
                format!("worker: {}: {}", failing.step.failure(), failing.error),
                "It is tried again by itself. The log has the causes.",
            ));
        }
        match self.signals.parked.len(self.now()) {
            0 => {}
            parked => findings.push(Finding::wrong(
                format!("worker: {parked} broadcasts cannot be read or expanded"),
                "They are tried again by themselves. The log has the causes, and GET /stats the broadcasts.",
            )),
        }
        let keys: Vec<_> = self.key_ring.live().iter().map(|key| key.id()).collect();
        let (rows, stored, ledger) = (&*self.subscriptions, self.key_ring.store(), &*self.ledger);
        findings.extend(of_store::check(rows, stored, ledger, &keys, &*self.clock).await);
        findings
    }

    /// Checks one subscription.
    pub(crate) async fn check_subscription(&self, which: SubscriptionRef) -> Vec<Finding> {
        let row = match self.subscriptions.get(&[which]).await {
            Ok(rows) => rows.into_iter().next().flatten(),
            Err(error) => {
                let hint = "The store cannot be read, or this row of it is damaged.";
                return vec![Finding::error("subscription", &error, hint)];
            }
        };
        let Some(row) = row else {
            return vec![Finding::wrong(
                "subscription: the store does not have it",
                "Its browser has unsubscribed, was never here, or the row was purged 30 days after it had ended: the page has to \
                 subscribe again.",
            )];
        };
        // Another process may have made a new one. If they cannot be read, those that are known count.
        let _ = self.refresh_keys().await;
        let keys: Vec<_> = self.key_ring.live().iter().map(|key| key.id()).collect();
        let now = self.now();
        let pauses = self.ledger.pauses(now).await;
        let mut findings = check_subscription(&row, &keys, pauses.as_deref().unwrap_or(&[]), now);
        if let Err(error) = pauses {
            let hint = "It is not known whether the push service is paused.";
            findings.push(Finding::error("push services", &error, hint));
        }
        if let Err(error) = self.endpoint_policy.check(row.subscription.endpoint()) {
            findings.push(Finding::error(
                &format!(
                    "subscription {}: the endpoint policy refuses its endpoint",
                    row.id
                ),
                &error,
                "Messages to it end as `refused`. Allow its host if you trust it.",
            ));
        }
        findings
    }
}
