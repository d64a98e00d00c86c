//! Verified tokens: a sender uses one for thousands of messages (RFC 8292 section 5).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;

use crate::clock::Timestamp;
use crate::subscription::Origin;
use crate::vapid::{self, VapidErrorKind, Verified};

/// Verified tokens by credentials and origin.
#[derive(Default)]
pub(super) struct VapidCache(Mutex<HashMap<(HeaderValue, Origin), Verified>>);

impl VapidCache {
    /// Returns the result of [`vapid::verify`], without verifying the same signature again.
    pub(super) fn verify(
        &self,
        authorization: &HeaderValue,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<Verified, VapidErrorKind> {
        let key = (authorization.clone(), origin.clone());
        let known = self.lock().get(&key).cloned();
        if let Some(verified) = known.filter(|verified| is_current(verified, now)) {
            return Ok(verified);
        }
        let verified = vapid::verify(authorization, origin, now).map_err(|error| error.kind())?;
        let mut cache = self.lock();
        if cache.len() >= CAPACITY {
            cache.clear();
        }
        cache.insert(key, verified.clone());
        Ok(verified)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(HeaderValue, Origin), Verified>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const CAPACITY: usize = 64;

/// Both bounds of RFC 8292 section 2: the clock may have been set since.
fn is_current(verified: &Verified, now: Timestamp) -> bool {
    let expires = verified.expires();
    now <= expires && expires.since(now) <= Duration::from_secs(24 * 3600)
}
