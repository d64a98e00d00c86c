//! `build`: checks every setting, then opens the store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::builder::Store;
use super::client::default_client;
use super::{BuildError, BuildErrorKind, WebPush, WebPushBuilder};
use crate::deliver::{DeliverLayer, EndpointPolicy, HostCheck, OriginGates};
use crate::engine::{ClockSkew, Engine, GuardedClock, KeyRing, Parts, PruneBreaker, Signals};
use crate::p256::{P256, UaSecretKey};
use crate::schedule::NotifyType;
use crate::store::{MemoryStore, VapidKeyStore};
use crate::vapid::{Contact, KeyId, VapidKey};

impl WebPushBuilder {
    /// Checks the settings, opens the VAPID keys and makes the first one if the store has none.
    ///
    /// # Errors
    ///
    /// One kind for each thing that can be wrong: see [`BuildErrorKind`].
    pub async fn build(self) -> Result<WebPush, BuildError> {
        self.check()?;
        // The first key pair of a process is slow: the library collects entropy for it. It is drawn while the stores are read.
        let first_draw = first_draw(&self.p256);
        let lease = self.effective_lease();
        let has_contact = self.contact.is_some();
        let policy = self.endpoint_policy;
        let policy = policy.unwrap_or_else(EndpointPolicy::known_push_services);
        let (contact, endpoint_policy) = match self.contact {
            Some(contact) if self.insecure_local_contact => {
                (Contact::insecure_allow_local(&contact), policy)
            }
            Some(contact) => (Contact::parse(&contact), policy),
            // No token is ever signed with it, since this policy admits no endpoint.
            None => (
                Contact::insecure_allow_local("mailto:none@localhost"),
                EndpointPolicy::nowhere(),
            ),
        };
        let contact = contact.map_err(|error| {
            BuildError::with_source(BuildErrorKind::InvalidSetting("contact"), error)
        })?;
        let gates = OriginGates::with_in_flight_between(
            self.in_flight_per_origin_at_least,
            self.in_flight_per_origin,
        );
        let (client, resolver) = match self.sender {
            Some(client) => (client, self.resolver),
            None => default_client(&endpoint_policy, self.extra_root_ca_pem, self.resolver)?,
        };
        let mut store = self.store.unwrap_or_else(|| Store::new(MemoryStore::new()));
        let is_one_store = self.subscriptions.is_none();
        if let Some(subscriptions) = self.subscriptions {
            store.subscriptions = subscriptions;
        }
        let signals = Signals::default();
        #[cfg(any(feature = "metrics", feature = "tracing"))]
        let store = store.measured(&signals.slow_calls);
        let Store {
            subscriptions,
            vapid_keys,
            ledger,
        } = store;
        if let Some(skew) = ClockSkew::of(self.clock.as_ref(), ledger.as_ref()).await? {
            return Err(BuildError::with_source(BuildErrorKind::ClockSkew, skew));
        }
        let adopted = self.vapid_private_key.as_ref().map(VapidKey::id);
        let is_new = check_keys(
            &*vapid_keys,
            self.create_store,
            self.expected_vapid_key,
            adopted,
        )
        .await?;
        let key_ring = KeyRing::open(
            vapid_keys,
            self.key_encryption_keys,
            self.vapid_private_key,
            self.clock.now(),
        )
        .await?;
        let clock = Arc::new(GuardedClock::new(self.clock));
        let host_check = HostCheck::new(resolver, endpoint_policy.clone(), gates.clone());
        let deliver = DeliverLayer::new(contact.clone())
            .with_policy(endpoint_policy.clone())
            .with_gates(gates.clone())
            .with_p256(self.p256)
            .with_clock(Arc::clone(&clock) as _)
            .with_timeout(self.request_timeout);
        let sender = client.make(&deliver);
        let engine = Engine::new(Parts {
            is_one_store,
            subscriptions,
            ledger,
            key_ring,
            clock,
            endpoint_policy,
            limits: self.limits,
            gates,
            sender,
            retry: self.retry,
            contact,
            has_contact,
            prune_breaker: PruneBreaker::new(self.retire_at_most),
            stable_topic: self.stable_topic,
            composer: self.composer,
            daily_text: self.daily_text,
            request_timeout: self.request_timeout,
            lease,
            poll_interval: self.poll_interval,
            remote_workers: self.remote_workers,
            signals,
            host_check,
        });
        #[cfg(feature = "metrics")]
        crate::engine::describe();
        engine.report_start(is_new).await?;
        if let Some(drawn) = first_draw {
            // Without randomness the first message says so.
            let _ = drawn.await;
        }
        Ok(WebPush { engine })
    }

    fn effective_lease(&self) -> Duration {
        let default = || self.request_timeout.saturating_add(PERMIT_WAIT);
        self.lease.unwrap_or_else(default)
    }

    /// Returns an error if a setting is out of range or would have no effect.
    fn check(&self) -> Result<(), BuildError> {
        let has_client = self.sender.is_some() || cfg!(not(feature = "client"));
        if has_client && self.extra_root_ca_pem.is_some() {
            return Err(BuildErrorKind::UnusedSetting("extra_root_ca_pem").into());
        }
        if self.contact.is_none() && self.insecure_local_contact {
            return Err(BuildErrorKind::UnusedSetting("insecure_local_contact").into());
        }
        if self.contact.is_none() && self.endpoint_policy.is_some() {
            return Err(BuildErrorKind::UnusedSetting("endpoint_policy").into());
        }
        if self.key_encryption_keys.is_empty() && self.key_encryption_keys.seals_clear_keys() {
            return Err(BuildErrorKind::UnusedSetting("seal_clear_keys").into());
        }
        let retry = &self.retry;
        let daily_message = NotifyType::DirectNotification.message(None, &self.daily_text);
        for (setting, is_valid, rule) in [
            (
                "in_flight_per_origin",
                (1..=Semaphore::MAX_PERMITS).contains(&self.in_flight_per_origin),
                "must be at least 1 and at most tokio's `Semaphore::MAX_PERMITS`",
            ),
            (
                "in_flight_per_origin_at_least",
                (1..=self.in_flight_per_origin).contains(&self.in_flight_per_origin_at_least),
                "must be at least 1 and at most `in_flight_per_origin`",
            ),
            (
                "retry_policy",
                !retry.base().is_zero() && retry.cap() >= retry.base() && retry.max_attempts() > 0,
                "must have a base above zero, a cap of at least the base and at least 1 attempt",
            ),
            (
                "retire_at_most",
                self.retire_at_most <= 100,
                "must be a percentage of at most 100",
            ),
            (
                "daily_text",
                !daily_message.is_too_large(),
                "must fit into a message of 3993 octets",
            ),
            (
                "request_timeout",
                !self.request_timeout.is_zero() && self.request_timeout <= LONGEST_REQUEST,
                "must be above zero and at most an hour",
            ),
            (
                "lease",
                self.effective_lease().saturating_sub(self.request_timeout) >= SHORTEST_PERMIT_WAIT
                    && self.effective_lease() <= A_DAY,
                "must be at least 5 s longer than `request_timeout` and at most a day",
            ),
            (
                "poll_interval",
                !self.poll_interval.is_zero() && self.poll_interval <= A_DAY,
                "must be above zero and at most a day",
            ),
        ] {
            if !is_valid {
                let kind = BuildErrorKind::InvalidSetting(setting);
                return Err(BuildError::with_source(kind, Rule(rule)));
            }
        }
        Ok(())
    }
}

/// Makes a key pair on a thread that may block, if a runtime has one.
fn first_draw(p256: &Arc<dyn P256>) -> Option<JoinHandle<()>> {
    let (runtime, p256) = (Handle::try_current().ok()?, Arc::clone(p256));
    Some(runtime.spawn_blocking(move || {
        let _ = UaSecretKey::random().and_then(|key| p256.agree(key.public()).map(|_| ()));
    }))
}

/// Refuses a store that is not the expected one, before anything is written to it. Returns whether it is new.
async fn check_keys(
    store: &dyn VapidKeyStore,
    create: bool,
    expected: Option<KeyId>,
    adopted: Option<KeyId>,
) -> Result<bool, BuildError> {
    let keys = store.keys().await?;
    if keys.is_empty() && !create {
        return Err(BuildErrorKind::EmptyStore.into());
    }
    let has = |id: &KeyId| keys.iter().any(|key| key.id == *id);
    if let Some(expected) = expected
        && !has(&expected)
        // The first key of a new store may be given.
        && !(keys.is_empty() && adopted == Some(expected))
    {
        let active = keys.first().map(|key| key.id);
        return Err(BuildError::with_source(
            BuildErrorKind::OtherStore,
            UnexpectedKey { expected, active },
        ));
    }
    Ok(keys.is_empty())
}

/// The source of [`BuildErrorKind::OtherStore`].
#[derive(Debug)]
struct UnexpectedKey {
    expected: KeyId,
    active: Option<KeyId>,
}

impl fmt::Display for UnexpectedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, ", self.expected)?;
        match self.active {
            Some(active) => write!(f, "the active key is {active}"),
            None => f.write_str("there is no key"),
        }
    }
}

impl std::error::Error for UnexpectedKey {}

/// How much longer than the request timeout a lease is by default.
const PERMIT_WAIT: Duration = Duration::from_secs(30);
/// With less, a busy machine would begin no request: its deliveries would be claimed and put back again and again.
const SHORTEST_PERMIT_WAIT: Duration = Duration::from_secs(5);
/// A drain waits for a request as long as this.
const LONGEST_REQUEST: Duration = Duration::from_secs(3600);
/// The longest pause between two polls, and the longest time that the rows of a dead worker wait. A clock cannot
/// express a moment after `Duration::MAX`.
const A_DAY: Duration = Duration::from_secs(86_400);

/// The requirement that a setting does not meet: the source of [`BuildErrorKind::InvalidSetting`].
#[derive(Debug)]
struct Rule(&'static str);

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Rule {}
