//! Numbers of permits, in all and per domain or block of addresses.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

use super::endpoint_policy::literal_addr;

/// A number of permits, lent in the order of the requests.
#[derive(Debug)]
pub(super) struct Pool {
    permits: Semaphore,
    waiting: AtomicUsize,
}

/// A permit of a pool, returned on drop.
#[derive(Debug)]
pub(super) struct Held(Arc<Pool>);

impl Pool {
    pub(super) fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            permits: Semaphore::new(permits),
            waiting: AtomicUsize::new(0),
        })
    }

    /// A permit, if one is free and nothing waits for one.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<Held> {
        self.permits.try_acquire().ok()?.forget();
        Some(Held(Arc::clone(self)))
    }

    /// Waits for a permit. `is_waiting` is called once [`waiting`](Self::waiting) counts this call.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped takes no permit and no longer counts.
    pub(super) async fn take(self: &Arc<Self>, is_waiting: impl FnOnce()) -> Held {
        if let Some(held) = self.try_take() {
            return held;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let waiting = Waiting(self);
        is_waiting();
        // An error means that the semaphore was closed, which nothing does.
        if let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
        drop(waiting);
        Held(Arc::clone(self))
    }

    /// The number of tasks that wait for a permit.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

impl Held {
    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.permits.add_permits(1);
    }
}

struct Waiting<'a>(&'a Pool);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A pool for each key, all of one size. A pool is kept as long as it is used.
#[derive(Debug)]
pub(super) struct Shares<K> {
    size: usize,
    pools: Mutex<HashMap<K, Weak<Pool>>>,
}

impl<K: Eq + Hash> Shares<K> {
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            pools: Mutex::default(),
        }
    }

    /// The pool of a key.
    pub(super) fn of(&self, key: K) -> Arc<Pool> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&key).and_then(Weak::upgrade) {
            return pool;
        }
        pools.retain(|_, pool| pool.strong_count() > 0);
        let pool = Pool::new(self.size);
        pools.insert(key, Arc::downgrade(&pool));
        pool
    }
}

/// The registrable domain of a host by the public suffix list, in lower case: the name that one owner has. `None` for a
/// literal address and a single label. The list's private section is used, so each customer of a dynamic DNS provider has
/// a domain.
pub(super) fn registrable_domain(host: &str) -> Option<Box<str>> {
    if literal_addr(host).is_some() || !host.contains('.') {
        return None;
    }
    let host = host.to_ascii_lowercase();
    Some(psl::domain_str(&host).unwrap_or(&host).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_told_apart_by_the_public_suffix_list() {
        for (host, domain) in [
            ("a.b.Example.com", Some("example.com")),
            ("push.example.co.uk", Some("example.co.uk")),
            ("co.uk", Some("co.uk")),
            ("x.me.duckdns.org", Some("me.duckdns.org")),
            ("duckdns.org", Some("duckdns.org")),
            ("h1.d7.localhost", Some("d7.localhost")),
            ("localhost", None),
            ("127.0.0.1", None),
            ("[::1]", None),
        ] {
            assert_eq!(registrable_domain(host).as_deref(), domain, "{host}");
        }
    }

    #[test]
    fn a_pool_is_kept_as_long_as_it_is_used() {
        let shares = Shares::new(1);
        let held = shares.of("a").try_take().unwrap();
        assert!(shares.of("a").try_take().is_none());
        assert!(shares.of("b").try_take().is_some());
        drop(held);
        assert!(shares.of("a").try_take().is_some());
        let _c = shares.of("c");
        assert_eq!(shares.pools.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_permit_is_lent_again_when_it_is_returned() {
        let pool = Pool::new(1);
        let held = pool.try_take().unwrap();
        let waiter = Arc::clone(&pool);
        let (told, is_waiting) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            waiter.take(|| told.send(()).unwrap()).await;
        });
        is_waiting.await.unwrap();
        assert_eq!(pool.waiting(), 1);
        drop(held);
        task.await.unwrap();
        assert_eq!(pool.waiting(), 0);
        assert!(pool.try_take().is_some());
    }
}
