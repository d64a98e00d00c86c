//! The result of the last dial of each origin.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::Uri;
use http::uri::{Authority, Scheme};
use lru::LruCache;

use crate::error::BoxError;

/// The protocol that each origin chose, and the error of its last dial. Cheap to clone; clones share the state.
#[derive(Clone)]
pub(super) struct Dialled(Arc<Mutex<LruCache<Authority, Last>>>);

#[derive(Default)]
struct Last {
    protocol: Option<(Protocol, Instant)>,
    failure: Option<(DialError, Instant)>,
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

    /// Records a successful dial.
    pub(super) fn speaks(&self, uri: &Uri, protocol: Protocol) {
        self.update(uri, |last| {
            last.protocol = Some((protocol, Instant::now()));
            last.failure = None;
        });
    }

    /// Records a failed dial.
    pub(super) fn failed(&self, uri: &Uri, error: DialError) {
        self.update(uri, |last| last.failure = Some((error, Instant::now())));
    }

    /// The error of the last dial if it failed at `start` or later.
    pub(super) fn failure_since(&self, uri: &Uri, start: Instant) -> Option<DialError> {
        let mut dialled = self.lock();
        let (error, at) = dialled.get(uri.authority()?)?.failure.as_ref()?;
        (*at >= start).then(|| error.clone())
    }

    fn update(&self, uri: &Uri, change: impl FnOnce(&mut Last)) {
        if let Some(authority) = uri.authority() {
            change(
                self.lock()
                    .get_or_insert_mut(authority.clone(), Last::default),
            );
        }
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

    #[test]
    fn a_failure_counts_until_the_next_success() {
        let dialled = Dialled::new();
        let uri = Uri::from_static("https://push.example.com/");
        let before = Instant::now();
        assert!(dialled.failure_since(&uri, before).is_none());
        dialled.failed(&uri, DialError::new("x".into()));
        assert!(dialled.failure_since(&uri, before).is_some());
        let after = Instant::now() + Duration::from_secs(1);
        assert!(dialled.failure_since(&uri, after).is_none());
        assert_eq!(dialled.protocol(&uri), None);
        dialled.speaks(&uri, Protocol::Http2);
        assert!(dialled.failure_since(&uri, before).is_none());
        assert_eq!(dialled.protocol(&uri), Some(Protocol::Http2));
    }

    #[test]
    fn plain_http_is_http1() {
        let uri = Uri::from_static("http://localhost:8080/");
        assert_eq!(Dialled::new().protocol(&uri), Some(Protocol::Http1));
    }
}
