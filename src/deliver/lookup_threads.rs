//! Threads for lookups by the operating system, which cannot be interrupted.

use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::local_error::{Lack, LocalError};
use super::open_files;
use super::resolver::{ResolveError, ResolveErrorKind};
use super::shares::{Held, Pool, Shares, registrable_domain};
use crate::push_service::PushService;

/// The threads of this process: resolvers of the operating system share them.
pub(super) static LOOKUP_THREADS: LazyLock<LookupThreads> =
    LazyLock::new(|| LookupThreads::new(open_files::soft_limit() / 16));

/// A limited number of threads, one for each lookup.
///
/// They are not tokio's: `getaddrinfo` may take minutes if a name server is silent, and would block the application's own
/// blocking tasks and the end of the runtime for as long. A thread ends with its lookup or with the process.
#[derive(Debug)]
pub(super) struct LookupThreads {
    known: Arc<Pool>,
    others: Arc<Pool>,
    domains: Shares<Box<str>>,
}

impl LookupThreads {
    /// The limits of the number of threads. Each uses a socket.
    const RANGE: (usize, usize) = (8, 64);
    /// The threads that lookups below one registrable domain may use: a silent name server takes this many.
    const PER_DOMAIN: usize = 4;
    /// The limit on the time that a lookup waits for a thread.
    const WAIT: Duration = Duration::from_secs(1);

    /// A number of threads, of which a quarter is for the push services of the browsers.
    pub(super) fn new(threads: usize) -> Self {
        let (least, most) = Self::RANGE;
        let threads = threads.clamp(least, most);
        let known = threads / 4;
        Self {
            known: Pool::new(known),
            others: Pool::new(threads.saturating_sub(known)),
            domains: Shares::new(Self::PER_DOMAIN),
        }
    }

    /// Runs a lookup of a host in a thread of its own.
    ///
    /// # Errors
    ///
    /// [`Temporary`](ResolveErrorKind::Temporary) if no thread is free in time. If the threads of the host's domain are in
    /// use it is the host's failure, otherwise a [`LocalError`] is the source.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lookup goes on, and keeps its thread until it returns.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        host: &str,
        lookup: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ResolveError> {
        let held = self.take(host).await?;
        let (sender, result) = oneshot::channel();
        let thread = thread::Builder::new().name("lookup".to_owned());
        let spawned = thread.spawn(move || {
            let result = lookup();
            drop(held);
            // The caller may have stopped waiting.
            let _ = sender.send(result);
        });
        spawned.map_err(|error| local(LocalError::new(Lack::LookupThreads, error)))?;
        // An error means that the lookup panicked.
        let temporary = |error| ResolveError::new(ResolveErrorKind::Temporary, error);
        result.await.map_err(temporary)
    }

    async fn take(&self, host: &str) -> Result<Vec<Held>, ResolveError> {
        let within = |pool: Arc<Pool>| timeout(Self::WAIT, async move { pool.take(|| {}).await });
        let no_thread = |_| local(Lack::LookupThreads.into());
        if PushService::of_host(host) != PushService::Other {
            return Ok(vec![
                within(Arc::clone(&self.known)).await.map_err(no_thread)?,
            ]);
        }
        let domain = registrable_domain(host).unwrap_or_else(|| host.into());
        let share = within(self.domains.of(domain)).await;
        let share = share.map_err(|error| ResolveError::new(ResolveErrorKind::Temporary, error))?;
        let thread = within(Arc::clone(&self.others)).await;
        Ok(vec![share, thread.map_err(no_thread)?])
    }
}

fn local(error: LocalError) -> ResolveError {
    ResolveError::new(ResolveErrorKind::Temporary, error)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::deliver::error::find_source;

    /// Starts lookups that do not return while the sender lives.
    fn hang(
        threads: &Arc<LookupThreads>,
        hosts: impl Iterator<Item = String>,
    ) -> mpsc::SyncSender<()> {
        let (sender, receiver) = mpsc::sync_channel::<()>(0);
        let receiver = Arc::new(std::sync::Mutex::new(receiver));
        for host in hosts {
            let (threads, receiver) = (Arc::clone(threads), Arc::clone(&receiver));
            tokio::spawn(async move {
                let lookup = move || receiver.lock().unwrap().recv();
                let _ = threads.run(&host, lookup).await;
            });
        }
        sender
    }

    async fn settled() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    fn is_local(error: &ResolveError) -> bool {
        find_source::<LocalError>(error).is_some_and(|error| error.lack() == Lack::LookupThreads)
    }

    #[tokio::test(start_paused = true)]
    async fn a_domain_that_hangs_has_its_share_of_the_threads() {
        let threads = Arc::new(LookupThreads::new(64));
        let _hanging = hang(&threads, (0..3000).map(|n| format!("h{n}.silent.example")));
        settled().await;
        let error = threads.run("h.silent.example", || ()).await.unwrap_err();
        assert!(!is_local(&error), "{error:?}");
        for host in ["push.example.net", "fcm.googleapis.com"] {
            assert_eq!(threads.run(host, || 1).await.unwrap(), 1, "{host}");
        }
    }

    /// The caller has a limit of its own on a lookup, after which the next one would take one more thread.
    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_hangs_keeps_its_thread_after_its_caller_is_gone() {
        let threads = LookupThreads::new(64);
        let (sender, receiver) = mpsc::sync_channel::<()>(0);
        let receiver = Arc::new(std::sync::Mutex::new(receiver));
        for _ in 0..LookupThreads::PER_DOMAIN {
            let receiver = Arc::clone(&receiver);
            let lookup = move || receiver.lock().unwrap().recv();
            let hanging = threads.run("h.silent.example", lookup);
            assert!(hanging.now_or_never().is_none());
        }
        assert!(threads.run("h.silent.example", || ()).await.is_err());
        drop(sender);
        // The threads end in their own time.
        let began = std::time::Instant::now();
        while threads.run("h.silent.example", || ()).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(60));
            thread::yield_now();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_domains_that_hang_leave_threads_for_known_push_services() {
        let threads = Arc::new(LookupThreads::new(64));
        let hanging = hang(&threads, (0..300).map(|n| format!("a.silent{n}.example")));
        settled().await;
        let error = threads.run("push.example.net", || ()).await.unwrap_err();
        assert!(is_local(&error), "{error:?}");
        assert_eq!(threads.run("fcm.googleapis.com", || 1).await.unwrap(), 1);
        drop(hanging);
        // The threads end in their own time.
        while threads.run("push.example.net", || ()).await.is_err() {}
    }

    #[tokio::test]
    async fn a_lookup_that_panics_is_temporary_and_returns_its_thread() {
        let threads = LookupThreads::new(0);
        for _ in 0..20 {
            let error = threads.run("push.example.net", || panic!("a bug")).await;
            let error: ResolveError = error.unwrap_err();
            assert_eq!(error.kind(), ResolveErrorKind::Temporary);
        }
    }
}
