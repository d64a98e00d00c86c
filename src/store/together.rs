//! Calls of one kind that wait at the same time share a statement: alone, each would cost the database a transaction, or a
//! script.

use std::mem::take;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::reason::because;
use super::{StoreError, StoreErrorKind};

/// The most calls, and the most rows of them, of one statement. A call with more rows than that goes alone.
const CALLS: usize = 64;
pub(super) const ROWS: usize = 1_000;

/// A store whose calls share statements.
pub(super) trait Sharing: Send + Sync + 'static {
    /// The longest wait for one answer.
    fn longest_answer(&self) -> Duration;

    /// The error for an answer that exceeds it.
    fn too_late() -> StoreError;
}

/// What happens to the calls of a statement that failed.
pub(super) enum Unshared {
    /// Each goes alone. Nothing was sent, the server has refused it, or its answer could not be read: a call that was done
    /// changes nothing when it is made again.
    Alone(StoreError),
    /// It may have been done: it is for the callers to decide, as it is for one call.
    Failed(StoreError),
}

/// A call that may share a statement with others of its kind.
pub(super) trait Shared: Sized + Send + Sync + 'static {
    type Store: Sharing;
    type Answer: Send + 'static;
    type Error: Into<Unshared> + Send;

    /// Where calls of this kind wait.
    fn together(store: &Self::Store) -> &Together<Self>;

    /// The number of its rows.
    fn rows(&self) -> usize;

    /// Runs one statement for calls. Returns their answers, in order; `None` for a call for which nothing was done: it goes alone.
    /// An error is for all of them.
    fn run(
        store: &Arc<Self::Store>,
        calls: &[Self],
    ) -> impl Future<Output = Result<Vec<Option<Self::Answer>>, Self::Error>> + Send;
}

/// The calls that wait for the next statement.
pub(super) struct Together<S: Shared>(Mutex<Waiting<S>>);

struct Waiting<S: Shared> {
    calls: Vec<Call<S>>,
    /// When the task that works on them began its statement; `None` without a task.
    running_since: Option<Instant>,
}

struct Call<S: Shared> {
    of: S,
    answer: oneshot::Sender<Answer<S::Answer>>,
}

enum Answer<T> {
    Done(T),
    /// Nothing was done, or what was done is known to one who makes the call again: it is to be made alone. With the error of the
    /// shared statement, if there is one.
    Alone(Option<StoreError>),
    Failed(StoreError),
}

impl<S: Shared> Default for Together<S> {
    fn default() -> Self {
        Self(Mutex::new(Waiting {
            calls: Vec::new(),
            running_since: None,
        }))
    }
}

impl<S: Shared> Together<S> {
    fn lock(&self) -> MutexGuard<'_, Waiting<S>> {
        // Nothing that holds the lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a call. Returns whether a task has to be started: if there is none, or if nothing drives its runtime.
    fn add(&self, call: Call<S>, limit: Duration) -> bool {
        let mut waiting = self.lock();
        waiting.calls.push(call);
        let is_running = waiting
            .running_since
            .is_some_and(|since| since.elapsed() < limit);
        if !is_running {
            waiting.running_since = Some(Instant::now());
        }
        !is_running
    }

    /// Takes the calls of the next statement. If there are none, the task is over.
    fn next(&self) -> Vec<Call<S>> {
        let mut waiting = self.lock();
        // Nothing was done for a call that was dropped.
        waiting.calls.retain(|call| !call.answer.is_closed());
        let mut rows = 0;
        let mut fits = |call: &Call<S>| {
            rows += call.of.rows();
            rows <= ROWS
        };
        let calls = waiting.calls.iter().take(CALLS);
        let number = calls.take_while(|call| fits(call)).count();
        // One that is too large goes without others.
        let number = number.max(1).min(waiting.calls.len());
        waiting.running_since = (number > 0).then(Instant::now);
        waiting.calls.drain(..number).collect()
    }
}

/// Makes a call together with others that wait. Returns `None` if it is to be made alone.
///
/// # Errors
///
/// Returns an error if the shared statement failed, or if there is no answer within `patience`.
pub(super) async fn ask<S: Shared>(
    store: &Arc<S::Store>,
    of: S,
    patience: Duration,
) -> Result<Option<S::Answer>, StoreError> {
    let longest = store.longest_answer();
    let began = Instant::now();
    let (answer, answered) = oneshot::channel();
    if S::together(store).add(Call { of, answer }, 2 * longest) {
        // A task, so that a call that is dropped does not take the others with it.
        tokio::spawn(work::<S>(Running {
            store: Arc::clone(store),
            is_over: false,
        }));
    }
    match timeout(patience, answered).await {
        Ok(Ok(Answer::Done(answer))) => Ok(Some(answer)),
        // No call waits for two timeouts.
        Ok(Ok(Answer::Alone(_))) if began.elapsed() < longest / 2 => Ok(None),
        Ok(Ok(Answer::Alone(Some(error)))) => Err(error),
        Ok(Ok(Answer::Alone(None))) | Err(_) => Err(S::Store::too_late()),
        Ok(Ok(Answer::Failed(error))) => Err(error),
        Ok(Err(_)) => {
            let why = "the runtime of another call has ended, whose statement was shared";
            Err(because(StoreErrorKind::Unavailable, why))
        }
    }
}

/// The task, or what is left of it.
struct Running<S: Shared> {
    store: Arc<S::Store>,
    is_over: bool,
}

impl<S: Shared> Drop for Running<S> {
    fn drop(&mut self) {
        if !self.is_over {
            // Its runtime has ended. Those that wait may have others.
            let mut waiting = S::together(&self.store).lock();
            waiting.running_since = None;
            let left = take(&mut waiting.calls);
            drop(waiting);
            for call in left {
                answer(call.answer, Answer::Alone(None));
            }
        }
    }
}

async fn work<S: Shared>(mut running: Running<S>) {
    let store = Arc::clone(&running.store);
    loop {
        let (calls, senders): (Vec<_>, Vec<_>) = S::together(&store)
            .next()
            .into_iter()
            .map(|call| (call.of, call.answer))
            .unzip();
        if calls.is_empty() {
            running.is_over = true;
            return;
        }
        match S::run(&store, &calls).await.map_err(Into::into) {
            Ok(answers) => {
                let mut answers = answers.into_iter();
                for sender in senders {
                    let done = answers.next().flatten();
                    answer(sender, done.map_or(Answer::Alone(None), Answer::Done));
                }
            }
            Err(unshared) => {
                let (error, is_alone) = match unshared {
                    Unshared::Alone(error) => (error, true),
                    Unshared::Failed(error) => (error, false),
                };
                let error = Arc::new(error);
                for sender in senders {
                    let error = StoreError::new(error.kind(), Arc::clone(&error));
                    let what = match is_alone {
                        true => Answer::Alone(Some(error)),
                        false => Answer::Failed(error),
                    };
                    answer(sender, what);
                }
            }
        }
    }
}

fn answer<T>(sender: oneshot::Sender<Answer<T>>, what: Answer<T>) {
    // A caller that has gone away needs none.
    let _ = sender.send(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that does nothing for a call that is shared, and takes this time to say so.
    struct Slow {
        longest: Duration,
        takes: Duration,
        /// Whether it says so by an error.
        fails: bool,
        calls: Together<Asked>,
        runs: Mutex<usize>,
    }

    struct Asked;

    impl Sharing for Slow {
        fn longest_answer(&self) -> Duration {
            self.longest
        }

        fn too_late() -> StoreError {
            StoreErrorKind::Unavailable.into()
        }
    }

    impl From<StoreErrorKind> for Unshared {
        fn from(kind: StoreErrorKind) -> Self {
            Self::Alone(kind.into())
        }
    }

    impl Shared for Asked {
        type Store = Slow;
        type Answer = ();
        type Error = StoreErrorKind;

        fn together(store: &Slow) -> &Together<Self> {
            &store.calls
        }

        fn rows(&self) -> usize {
            1
        }

        async fn run(store: &Arc<Slow>, calls: &[Self]) -> Result<Vec<Option<()>>, StoreErrorKind> {
            *store.runs.lock().unwrap() += 1;
            tokio::time::sleep(store.takes).await;
            match store.fails {
                true => Err(StoreErrorKind::Full),
                false => Ok(calls.iter().map(|_| None).collect()),
            }
        }
    }

    /// It may be made alone if there is time for that: two timeouts are twice the load of a slow store.
    #[tokio::test]
    async fn no_call_is_made_again_after_most_of_its_time() {
        const MILLIS: Duration = Duration::from_millis(1);
        const MINUTE: Duration = Duration::from_secs(60);
        let late = StoreErrorKind::Unavailable;
        for (longest, takes, fails, expected) in [
            (MINUTE, MILLIS, false, Ok(None)),
            (MINUTE, MILLIS, true, Ok(None)),
            (40 * MILLIS, 30 * MILLIS, false, Err(late)),
            (40 * MILLIS, 30 * MILLIS, true, Err(StoreErrorKind::Full)),
        ] {
            let store = Arc::new(Slow {
                longest,
                takes,
                fails,
                calls: Together::default(),
                runs: Mutex::default(),
            });
            let answer = ask(&store, Asked, MINUTE).await;
            let answer = answer.map_err(|error| error.kind());
            assert_eq!(answer, expected, "{longest:?} {fails}");
            assert_eq!(*store.runs.lock().unwrap(), 1);
        }
    }
}
