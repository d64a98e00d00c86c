//! A push service in the process of the test.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderValue;
use tokio::sync::watch;

use super::inbox::Inbox;
use super::received::ReceivedPush;
use super::refusal::Refusal;
use super::registration::{Registration, random};
use super::script::{Answer, Script, When};
use super::service::MountedPushService;
use super::user_agent::UserAgent;
use super::vapid_cache::VapidCache;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::deliver::PushService;
use crate::encoding::base64url;
use crate::message::Ttl;
use crate::p256::CryptoError;
use crate::subscription::{Endpoint, Origin};
use crate::vapid::VapidPublicKey;

/// A push service for tests: strict, scriptable, without a network.
///
/// It is a `tower_service::Service<http::Request<B>>` that replaces an HTTP client, or runs behind a server when it
/// is mounted. Every request is checked as RFC 8030 and RFC 8292 allow a push service to check, decrypted with the
/// user agent's key and recorded. It can be the push service of several origins at once, each with its own answers:
/// `fcm.googleapis.com` refuses in Google's words, `updates.push.services.mozilla.com` in Mozilla's.
///
/// Clones are the same push service. The [module](super) has an example.
#[derive(Clone)]
pub struct TestPushService(pub(super) Arc<Inner>);

pub(super) struct Inner {
    origin: Origin,
    pub(super) clock: Arc<dyn Clock>,
    recording: Recording,
    registrations: Mutex<HashMap<Box<str>, Arc<Registration>>>,
    script: Mutex<Script>,
    pub(super) vapid: VapidCache,
    record: Mutex<Record>,
    pub(super) counts: watch::Sender<ServiceCounts>,
    messages: AtomicU64,
}

#[derive(Default)]
struct Record {
    accepted: VecDeque<ReceivedPush>,
    refusals: VecDeque<Refusal>,
}

/// The pushes that a [`TestPushService`] keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recording {
    /// Every push, in the service and in its user agents.
    #[default]
    All,
    /// This number of the latest pushes, in the service and in each user agent.
    Latest(usize),
    /// No push: constant memory for runs with many recipients. [`ServiceCounts`], the number per endpoint, and the
    /// latest refusals are kept all the same, and every push is still checked and decrypted.
    Counts,
}

impl Recording {
    const fn limit(self) -> usize {
        match self {
            Self::All => usize::MAX,
            Self::Latest(limit) => limit,
            Self::Counts => 0,
        }
    }
}

/// The counters of a [`TestPushService`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceCounts {
    /// Requests received.
    pub requests: u64,
    /// Requests without an answer yet.
    pub in_flight: u64,
    /// The most requests in flight at one time.
    pub peak_in_flight: u64,
    /// Pushes accepted with 201.
    pub accepted: u64,
    /// Requests refused by the checks.
    pub refused: u64,
    /// Requests answered, dropped or swallowed by a script.
    pub scripted: u64,
    /// Accepted pushes that a newer one of their topic replaced.
    pub replaced: u64,
    /// Accepted pushes whose TTL ended while the user agent was offline.
    pub expired: u64,
}

impl TestPushService {
    /// Makes a push service at `https://push.example.net`, with the system's clock, that keeps every push.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Makes a builder, for settings other than those of [`new`](Self::new).
    pub fn builder() -> TestPushServiceBuilder {
        TestPushServiceBuilder::default()
    }

    /// Makes a browser at this push service, not subscribed yet.
    #[must_use]
    pub fn user_agent(&self) -> UserAgent {
        self.user_agent_at(&self.0.origin)
    }

    /// Makes a browser whose endpoints are at another origin than the builder's.
    #[must_use]
    pub fn user_agent_at(&self, origin: &Origin) -> UserAgent {
        let inbox = Inbox::new(self.0.recording.limit());
        UserAgent::new(self.clone(), origin.clone(), inbox)
    }

    /// Returns the same service with `Error = Infallible`, for servers that require it, as axum's `fallback_service`
    /// does.
    #[must_use]
    pub fn mount(&self) -> MountedPushService {
        MountedPushService::new(self.clone())
    }

    /// Adds a scripted answer. Of several scripts that match a request the oldest counts. It comes before every
    /// check, so the request is neither checked nor recorded.
    pub fn script(&self, when: When, answer: Answer) {
        lock(&self.0.script).push(when, answer);
    }

    /// Removes all scripts.
    pub fn clear_script(&self) {
        lock(&self.0.script).clear();
    }

    /// Returns the accepted pushes, the oldest first, as far as [`Recording`] keeps them.
    #[must_use]
    pub fn accepted(&self) -> Vec<ReceivedPush> {
        lock(&self.0.record).accepted.iter().cloned().collect()
    }

    /// Returns the number of pushes accepted for one endpoint, with any [`Recording`].
    #[must_use]
    pub fn accepted_for(&self, endpoint: &Endpoint) -> u64 {
        self.0
            .find(path(endpoint))
            .map_or(0, |found| found.accepted())
    }

    /// Returns the refused requests, the oldest first, as far as [`Recording`] keeps them; at least the latest 32.
    #[must_use]
    pub fn refusals(&self) -> Vec<Refusal> {
        lock(&self.0.record).refusals.iter().cloned().collect()
    }

    /// Returns the counters.
    #[must_use]
    pub fn counts(&self) -> ServiceCounts {
        *self.0.counts.borrow()
    }

    /// Waits until the counters are as wanted.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn wait_until(&self, wanted: impl FnMut(&ServiceCounts) -> bool) -> ServiceCounts {
        match self.0.counts.subscribe().wait_for(wanted).await {
            Ok(counts) => *counts,
            // The sender lives in `self`, so it is not gone.
            Err(_) => self.counts(),
        }
    }

    /// Removes a subscription on the side of the push service: its endpoint answers 410 from now on, and the user
    /// agent is not told. Returns whether it existed.
    pub fn expire(&self, endpoint: &Endpoint) -> bool {
        let found = self.0.find(path(endpoint));
        if let Some(registration) = &found {
            registration.end();
        }
        found.is_some()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    pub(super) fn count_expired(&self, expired: u64) {
        self.0
            .counts
            .send_modify(|counts| counts.expired += expired);
    }

    pub(super) fn register(
        &self,
        origin: &Origin,
        key: Option<VapidPublicKey>,
        inbox: Arc<Inbox>,
    ) -> Result<Arc<Registration>, CryptoError> {
        // RFC 8030 section 8.3 asks for 120 bits that cannot be guessed.
        let token = base64url(&random::<16>()?);
        let endpoint = format!("{origin}{}{token}", resource(origin));
        let endpoint = Endpoint::parse(&endpoint).map_err(|_| CryptoError::new())?;
        let registration = Arc::new(Registration::new(endpoint, key, inbox)?);
        let path = path(registration.endpoint()).into();
        lock(&self.0.registrations).insert(path, Arc::clone(&registration));
        Ok(registration)
    }
}

impl Inner {
    /// Returns the scripted answer to this request.
    pub(super) fn scripted(&self, request: &http::request::Parts) -> Option<Answer> {
        lock(&self.script).take(request)
    }

    /// Returns the subscription of a path and query, removed or not.
    pub(super) fn find(&self, path: &str) -> Option<Arc<Registration>> {
        lock(&self.registrations).get(path).map(Arc::clone)
    }

    pub(super) fn record_accepted(&self, push: ReceivedPush) {
        keep(
            &mut lock(&self.record).accepted,
            push,
            self.recording.limit(),
        );
    }

    pub(super) fn record_refusal(&self, refusal: Refusal) {
        let limit = self.recording.limit().max(LATEST_REFUSALS);
        keep(&mut lock(&self.record).refusals, refusal, limit);
    }

    /// Returns the `TTL` of the answer: at most the requested one (RFC 8030 section 5.2), and 28 days.
    pub(super) fn effective_ttl(&self, asked: Ttl) -> Ttl {
        asked.min(Ttl::SAFE_MAX)
    }

    /// Returns the `Location` of an accepted message (RFC 8030 section 5).
    pub(super) fn location(&self, origin: &Origin) -> Option<HeaderValue> {
        let message = self.messages.fetch_add(1, Ordering::Relaxed);
        HeaderValue::try_from(format!("{origin}/m/{message}")).ok()
    }
}

/// The settings of a [`TestPushService`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `build`"]
pub struct TestPushServiceBuilder {
    origin: Option<Origin>,
    clock: Arc<dyn Clock>,
    recording: Recording,
}

impl TestPushServiceBuilder {
    /// Sets the origin of endpoints: a browser's push service, or the loopback address where it is served.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Sets the clock for tokens and TTLs.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets which pushes are kept.
    pub fn recording(mut self, recording: Recording) -> Self {
        self.recording = recording;
        self
    }

    /// Makes the push service.
    #[must_use]
    pub fn build(self) -> TestPushService {
        TestPushService(Arc::new(Inner {
            origin: self.origin.unwrap_or_else(default_origin),
            clock: self.clock,
            recording: self.recording,
            registrations: Mutex::default(),
            script: Mutex::default(),
            vapid: VapidCache::default(),
            record: Mutex::default(),
            counts: watch::Sender::default(),
            messages: AtomicU64::new(0),
        }))
    }
}

impl Default for TestPushServiceBuilder {
    fn default() -> Self {
        Self {
            origin: None,
            clock: Arc::new(SystemClock::new()),
            recording: Recording::default(),
        }
    }
}

impl Default for TestPushService {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TestPushService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestPushService")
            .field("origin", &self.0.origin)
            .field("recording", &self.0.recording)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

/// Refusals are rare and explain failures, so some are kept in any case.
const LATEST_REFUSALS: usize = 32;

fn default_origin() -> Origin {
    let uri = http::Uri::from_static("https://push.example.net");
    match Origin::of(&uri) {
        Some(origin) => origin,
        None => unreachable!("a constant, and every test of this module parses it"),
    }
}

/// Returns the start of an endpoint's path, in the form of each push service. WNS and Meta have the token in the
/// query, which a sender must not lose.
fn resource(origin: &Origin) -> &'static str {
    let host = origin.as_str().rsplit('/').next().unwrap_or_default();
    match PushService::of_host(host) {
        PushService::Fcm => "/fcm/send/",
        PushService::Mozilla => "/wpush/v2/",
        PushService::Apple => "/Q",
        PushService::Wns => "/w/?token=",
        PushService::Meta => "/rl_push_send?notif_token=",
        _ => "/wpush/",
    }
}

/// Returns the path and query of an endpoint, wherever it is sent.
fn path(endpoint: &Endpoint) -> &str {
    endpoint
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str())
}

fn keep<T>(queue: &mut VecDeque<T>, item: T, limit: usize) {
    queue.push_back(item);
    while queue.len() > limit {
        queue.pop_front();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
