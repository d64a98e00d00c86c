//! A read of the store that many callers share, for routes without a limit on callers and calls.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

/// Time limit of the store: shorter than the timeouts of load balancers.
const STORE_RESPONDS_WITHIN: Duration = Duration::from_secs(3);
/// A read begins at most once in this time, and what it found is good for as long.
const EVERY: Duration = Duration::from_secs(1);

/// A read that is under way or was just done. Callers wait for the same one, and none of them has to stay: the next goes on
/// with it. It ends with its last caller.
pub(crate) struct SharedRead<T>(Mutex<Option<Latest<T>>>);

struct Latest<T> {
    began: Instant,
    read: Weak<Read<T>>,
    found: Option<Found<T>>,
}

/// `None` if the store did not answer in time.
type Found<T> = Option<T>;

/// The caller that has the lock polls the read, and the others wait for the lock.
type Read<T> = tokio::sync::Mutex<State<T>>;

enum State<T> {
    UnderWay(Pin<Box<dyn Future<Output = Found<T>> + Send>>),
    Done(Found<T>),
}

/// What a caller does.
enum Turn<T> {
    Take(Found<T>),
    Join(Arc<Read<T>>),
    /// All callers of the last read left before its end.
    Wait(Instant),
}

impl<T> Default for SharedRead<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone + Send + 'static> SharedRead<T> {
    /// Returns what the last read found, or reads. `None` if the store does not answer in time.
    pub(crate) async fn get<F>(&self, read: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        timeout(STORE_RESPONDS_WITHIN, self.find(read)).await.ok()?
    }

    async fn find<F>(&self, read: impl Fn() -> F) -> Found<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let read = loop {
            match self.turn(&read) {
                Turn::Take(found) => return found,
                Turn::Join(read) => break read,
                Turn::Wait(until) => sleep_until(until).await,
            }
        };
        let mut state = read.lock().await;
        let found = match &mut *state {
            State::UnderWay(future) => future.await,
            State::Done(found) => return found.clone(),
        };
        *state = State::Done(found.clone());
        // No other one has begun while this one was there to join.
        if let Some(latest) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            latest.found = Some(found.clone());
        }
        found
    }

    fn turn<F>(&self, read: impl Fn() -> F) -> Turn<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(latest) = &*latest {
            let again = latest.began + EVERY;
            match (&latest.found, latest.read.upgrade()) {
                (None, Some(read)) => return Turn::Join(read),
                (Some(found), _) if now < again => return Turn::Take(found.clone()),
                (None, None) if now < again => return Turn::Wait(again),
                _ => {}
            }
        }
        let limited = timeout(STORE_RESPONDS_WITHIN, read());
        let future = Box::pin(async { limited.await.ok() });
        let read = Arc::new(Read::new(State::UnderWay(future)));
        *latest = Some(Latest {
            began: now,
            read: Arc::downgrade(&read),
            found: None,
        });
        Turn::Join(read)
    }
}
