//! What is known of the connections of each origin: the protocol, and when to open the next one after failures.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, Scheme};
use lru::LruCache;
use tokio::time::Instant;

use super::Jitter;
use crate::error::BoxError;

/// The protocol that each origin chose, and its failed connections. Cheap to clone; clones share the state.
#[derive(Clone)]
pub(super) struct Dialled(Arc<Mutex<LruCache<Authority, Last>>>);

#[derive(Default)]
struct Last {
    protocol: Option<(Protocol, Instant)>,
    /// Connections in a row that failed, and when the next may be opened.
    failures: u32,
    not_before: Option<Instant>,
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
        Self(Arc::new(Mutex::new(LruCache::new(Self::CAPACITY))))
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
        self.update(authority, |last| {
            last.failures = 0;
            last.not_before = None;
        });
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
