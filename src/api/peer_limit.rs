//! Token buckets, one for each peer.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use lru::LruCache;
use tokio::time::Instant;

use super::PeerAddr;

/// A limit of requests by peer: a number a minute, which may also come at once.
pub(super) struct PeerLimit(Option<Limiter>);

type Limiter = RateLimiter<PeerAddr, Buckets, TokioClock, NoOpMiddleware<Duration>>;

impl PeerLimit {
    /// Makes a limit of `per_minute`. 0: no limit.
    pub(super) fn per_minute(per_minute: u32) -> Self {
        Self(NonZeroU32::new(per_minute).map(|most| {
            RateLimiter::new(
                Quota::per_minute(most),
                Buckets::default(),
                TokioClock(Instant::now()),
            )
        }))
    }

    /// Takes a token of this peer, or returns how long to wait for the next one. A request without an address needs
    /// none.
    pub(super) fn take(&self, peer: Option<PeerAddr>) -> Result<(), Duration> {
        let (Some(limiter), Some(peer)) = (&self.0, peer) else {
            return Ok(());
        };
        let wait =
            |until: governor::NotUntil<Duration>| until.wait_time_from(limiter.clock().now());
        limiter.check_key(&peer).map_err(wait)
    }
}

impl fmt::Debug for PeerLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerLimit").finish_non_exhaustive()
    }
}

/// The time when each peer's bucket is full again.
struct Buckets(Mutex<LruCache<PeerAddr, Nanos>>);

impl Buckets {
    /// At about 100 octets each, 6.5 MB. A peer that is forgotten starts with a full bucket: a sender with more
    /// addresses than this is bounded by [`SubscriptionLimits`](crate::store::SubscriptionLimits) only.
    const MAX_PEERS: usize = 65_536;
}

impl Default for Buckets {
    fn default() -> Self {
        // Unbounded, because a bounded one allocates all its memory at once. `measure_and_replace` bounds it.
        Self(Mutex::new(LruCache::unbounded()))
    }
}

impl StateStore for Buckets {
    type Key = PeerAddr;

    fn measure_and_replace<T, F, E>(&self, peer: &PeerAddr, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // `get` makes it the most recent one even if it is refused, so a flooding peer stays in the cache.
        let (answer, full_at) = decide(buckets.get(peer).copied())?;
        buckets.put(*peer, full_at);
        if buckets.len() > Self::MAX_PEERS {
            buckets.pop_lru();
        }
        Ok(answer)
    }
}

/// The runtime's monotonic clock, which tests can pause.
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn peer(number: u32) -> Option<PeerAddr> {
        Some(PeerAddr::new(Ipv4Addr::from(number).into()))
    }

    #[tokio::test(start_paused = true)]
    async fn each_peer_has_a_burst_and_then_a_rate() {
        let limit = PeerLimit::per_minute(4);
        tokio::time::advance(Duration::from_secs(5)).await;
        for _ in 0..4 {
            assert_eq!(limit.take(peer(1)), Ok(()));
        }
        assert_eq!(limit.take(peer(1)), Err(Duration::from_secs(15)));
        assert_eq!(limit.take(peer(2)), Ok(()));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(limit.take(peer(1)), Err(Duration::from_secs(5)));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(limit.take(peer(1)), Ok(()), "a refusal costs nothing");
        assert_eq!(limit.take(peer(1)), Err(Duration::from_secs(15)));
    }

    #[tokio::test(start_paused = true)]
    async fn no_address_and_a_limit_of_0_are_no_limit() {
        let limit = PeerLimit::per_minute(1);
        let none = PeerLimit::per_minute(0);
        for _ in 0..100 {
            assert_eq!(limit.take(None), Ok(()));
            assert_eq!(none.take(peer(1)), Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_peers_are_bounded_and_the_busy_ones_stay() {
        let limit = PeerLimit::per_minute(1);
        limit.take(peer(0)).unwrap();
        for number in 1..70_000 {
            limit.take(peer(number)).unwrap();
            if number % 10_000 == 0 {
                assert!(limit.take(peer(0)).is_err());
            }
        }
        let limiter = limit.0.unwrap();
        let buckets = limiter.into_state_store().0.into_inner().unwrap();
        assert_eq!(buckets.len(), Buckets::MAX_PEERS);
    }
}
