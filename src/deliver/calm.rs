//! Whether a server asked for fewer requests instead of answering one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// An extension of a request, by which the client says that the server asked for fewer requests (RFC 9113 section 7) and did
/// not process this one. A client that repeats the request may never have a response that could say so.
#[derive(Clone, Debug, Default)]
pub(super) struct Calm(Arc<AtomicBool>);

impl Calm {
    #[cfg(feature = "client")]
    pub(super) fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
