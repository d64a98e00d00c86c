//! What is known of the connections of each origin: the protocol, and when to open the next one after failures.

use std::fmt;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, Scheme};
use lru::LruCache;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::Jitter;
use crate::error::BoxError;

/// The protocol that each origin chose, and its failed connections. Cheap to clone; clones share the state.
#[derive(Clone)]
pub(super) struct Dialled(Arc<State>);

struct State {
    origins: Mutex<LruCache<Authority, Last>>,
    /// Notified when a turn ends, and at the first response after failures.
    changed: Notify,
}

#[derive(Default)]
struct Last {
    protocol: Option<(Protocol, Instant)>,
    /// Connections in a row that failed, and when the next may be opened.
    failures: u32,
    not_before: Option<Instant>,
    /// Why the last turn failed.
    error: Option<DialError>,
    is_dialling: bool,
}

/// The right to open an HTTP/1.1 connection. After a failure only one of an origin has it.
pub(super) struct Turn {
    dialled: Dialled,
    authority: Authority,
    /// The failures before it.
    failures: u32,
}

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http2,
    Http1,
}

impl Dialled {
    const CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);
    /// An origin that chose HTTP/1.1 is offered HTTP/2 again after this time.
    const KEPT: Duration = Duration::from_secs(3600);
    /// The longest pauses after the first failure and after many.
    const FIRST_PAUSE: Duration = Duration::from_millis(100);
    const LONGEST_PAUSE: Duration = Duration::from_secs(2);

    pub(super) fn new() -> Self {
        Self(Arc::new(State {
            origins: Mutex::new(LruCache::new(Self::CAPACITY)),
            changed: Notify::new(),
        }))
    }

    /// Waits for the time of the next connection if there were failures, and for the only one that is opened then.
    ///
    /// # Errors
    ///
    /// Returns the error of the connection that it waited for.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the wait and nothing else.
    pub(super) async fn turn(&self, authority: &Authority) -> Result<Turn, DialError> {
        let failures_of = |last: &Last| last.failures;
        let seen = self.lock().peek(authority).map_or(0, failures_of);
        loop {
            let mut changed = pin!(self.0.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            let until = {
                let mut origins = self.lock();
                let last = origins.get_or_insert_mut(authority.clone(), Last::default);
                if last.failures > seen
                    && let Some(error) = &last.error
                {
                    return Err(error.clone());
                }
                let at = last.not_before.filter(|at| *at > Instant::now());
                if last.failures == 0 || (at.is_none() && !last.is_dialling) {
                    last.is_dialling = last.failures > 0;
                    return Ok(Turn {
                        dialled: self.clone(),
                        authority: authority.clone(),
                        failures: last.failures,
                    });
                }
                at
            };
            match until {
                Some(at) => drop(timeout_at(at, changed).await),
                None => changed.await,
            }
        }
    }

    /// The protocol to use, or `None` if it is not known. Plain `http` is always HTTP/1.1: nothing is negotiated.
    pub(super) fn protocol(&self, uri: &Uri) -> Option<Protocol> {
        if uri.scheme() == Some(&Scheme::HTTP) {
            return Some(Protocol::Http1);
        }
        match self.lock().get(uri.authority()?)?.protocol? {
            (Protocol::Http1, since) if since.elapsed() > Self::KEPT => None,
            (protocol, _) => Some(protocol),
        }
    }

    /// Records the protocol that was negotiated.
    pub(super) fn speaks(&self, authority: &Authority, protocol: Protocol) {
        self.update(authority, |last| {
            last.protocol = Some((protocol, Instant::now()));
        });
    }

    /// Records that a connection could not be opened, or ended before its first response.
    pub(super) fn failed(&self, authority: &Authority) {
        self.update(authority, |last| {
            let longest = Self::FIRST_PAUSE.saturating_mul(1 << last.failures.min(16));
            let half = longest.min(Self::LONGEST_PAUSE) / 2;
            last.failures = last.failures.saturating_add(1);
            last.not_before = Some(Instant::now() + half + Jitter::random().of(half));
        });
    }

    /// Records the first response on a connection.
    pub(super) fn answered(&self, authority: &Authority) {
        let mut failures = 0;
        self.update(authority, |last| {
            failures = std::mem::take(&mut last.failures);
            last.not_before = None;
            last.error = None;
        });
        if failures > 0 {
            self.0.changed.notify_waiters();
        }
    }

    /// When the next connection may be opened, if there were failures.
    pub(super) fn not_before(&self, authority: &Authority) -> Option<Instant> {
        self.lock().get(authority)?.not_before
    }

    fn update(&self, authority: &Authority, change: impl FnOnce(&mut Last)) {
        change(
            self.lock()
                .get_or_insert_mut(authority.clone(), Last::default),
        );
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Authority, Last>> {
        self.0
            .origins
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// The connection could not be opened. Returns the error, which those that wait get too.
    pub(super) fn failed(self, error: BoxError) -> DialError {
        let error = DialError::new(error);
        let mut is_first = false;
        self.dialled.update(&self.authority, |last| {
            last.error = Some(error.clone());
            // Connections that were opened side by side and failed are one failure.
            is_first = last.failures == self.failures;
        });
        if is_first {
            self.dialled.failed(&self.authority);
        }
        error
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.failures > 0 {
            self.dialled
                .update(&self.authority, |last| last.is_dialling = false);
            self.dialled.0.changed.notify_waiters();
        }
    }
}

impl fmt::Debug for Dialled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialled(..)")
    }
}

/// The error of a dial, shared by all requests that waited for it.
#[derive(Clone, Debug)]
pub(super) struct DialError(Arc<dyn std::error::Error + Send + Sync>);

impl DialError {
    pub(super) fn new(error: BoxError) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no connection to the push service")
    }
}

impl std::error::Error for DialError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const PUSH: &str = "https://push.example.com/";

    #[tokio::test(start_paused = true)]
    async fn the_pause_before_the_next_connection_grows_until_a_response() {
        let dialled = Dialled::new();
        let authority = Authority::from_static("push.example.com");
        assert_eq!(dialled.not_before(&authority), None);
        let mut longest = Dialled::FIRST_PAUSE;
        for _ in 0..20 {
            dialled.failed(&authority);
            let pause = dialled.not_before(&authority).unwrap() - Instant::now();
            assert!(pause >= longest / 2 && pause <= longest, "{pause:?}");
            longest = (longest * 2).min(Dialled::LONGEST_PAUSE);
        }
        // A connection that is open may still be one that answers nothing.
        dialled.speaks(&authority, Protocol::Http2);
        assert!(dialled.not_before(&authority).is_some());
        dialled.answered(&authority);
        assert_eq!(dialled.not_before(&authority), None);
        dialled.failed(&authority);
        let pause = dialled.not_before(&authority).unwrap() - Instant::now();
        assert!(pause <= Dialled::FIRST_PAUSE, "{pause:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_for_their_turn_go_on_at_the_first_response() {
        let dialled = Dialled::new();
        let authority = Authority::from_static("push.example.com");
        dialled.failed(&authority);
        let mut waiting = pin!(dialled.turn(&authority));
        assert!(waiting.as_mut().now_or_never().is_none());
        dialled.answered(&authority);
        assert!(waiting.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_response_none_waits_for_the_turn_of_another() {
        let dialled = Dialled::new();
        let authority = Authority::from_static("push.example.com");
        dialled.failed(&authority);
        let _turn = dialled.turn(&authority).await.unwrap();
        let mut waiting = pin!(dialled.turn(&authority));
        assert!(waiting.as_mut().now_or_never().is_none(), "one at a time");
        dialled.answered(&authority);
        assert!(waiting.now_or_never().is_some());
    }

    /// The error of a dial before the last response is not one of those that failed since.
    #[tokio::test(start_paused = true)]
    async fn those_that_wait_get_no_error_from_before_a_response() {
        let dialled = Dialled::new();
        let authority = Authority::from_static("push.example.com");
        let turn = dialled.turn(&authority).await.unwrap();
        turn.failed("the host is down".into());
        let mut waiting = pin!(dialled.turn(&authority));
        assert!(waiting.as_mut().now_or_never().is_none());
        dialled.answered(&authority);
        dialled.failed(&authority);
        dialled.failed(&authority);
        assert!(waiting.as_mut().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn http1_is_remembered_for_an_hour() {
        let dialled = Dialled::new();
        let uri = Uri::from_static(PUSH);
        assert_eq!(dialled.protocol(&uri), None);
        dialled.speaks(uri.authority().unwrap(), Protocol::Http1);
        tokio::time::advance(Dialled::KEPT).await;
        assert_eq!(dialled.protocol(&uri), Some(Protocol::Http1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(dialled.protocol(&uri), None);
    }

    #[test]
    fn plain_http_is_http1() {
        let uri = Uri::from_static("http://localhost:8080/");
        assert_eq!(Dialled::new().protocol(&uri), Some(Protocol::Http1));
    }
}
