//! Calls that wait at the same time share a script: alone, a message to one user would cost the server's one thread two scripts,
//! and the disk a write.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::time::timeout;

use super::error::too_slow;
use super::reply::Reply;
use super::script::{Args, OPEN, OWNED, Operation};
use super::{Inner, RedisStore, StoreError, StoreErrorKind};
use crate::store::together::{Shared, Sharing, Together, Unshared, ask};

/// The calls that wait for the next script of their kind.
#[derive(Default)]
pub(super) struct Waiting {
    openings: Together<Opening>,
    readings: Together<Reading>,
}

impl Sharing for Inner {
    fn longest_answer(&self) -> Duration {
        self.limits.call()
    }

    fn too_late() -> StoreError {
        too_slow()
    }
}

/// A broadcast to open: its arguments, and the number of its rows.
struct Opening(Args, usize);

impl Shared for Opening {
    type Store = Inner;
    type Answer = Value;
    type Error = Unshared;

    fn together(store: &Inner) -> &Together<Self> {
        &store.waiting.openings
    }

    fn rows(&self) -> usize {
        self.1
    }

    async fn run(store: &Arc<Inner>, calls: &[Self]) -> Result<Vec<Option<Value>>, Unshared> {
        let answers = run(store, &OPEN, calls.iter().map(|call| &call.0)).await;
        // Those before an error may be open.
        let answers = answers.map_err(Unshared::Failed)?;
        if answers.iter().flatten().any(is_new) {
            store.tell_own();
        }
        Ok(answers)
    }
}

/// A set of subscriptions to read: its argument.
struct Reading(Args);

impl Shared for Reading {
    type Store = Inner;
    type Answer = Value;
    type Error = Unshared;

    fn together(store: &Inner) -> &Together<Self> {
        &store.waiting.readings
    }

    fn rows(&self) -> usize {
        1
    }

    async fn run(store: &Arc<Inner>, calls: &[Self]) -> Result<Vec<Option<Value>>, Unshared> {
        let answers = run(store, &OWNED, calls.iter().map(|call| &call.0)).await;
        answers.map_err(|error| match error.kind() {
            // One of the sets is damaged.
            StoreErrorKind::Corrupt => Unshared::Alone(error),
            _ => Unshared::Failed(error),
        })
    }
}

fn is_new(answer: &Value) -> bool {
    matches!(answer, Value::BulkString(text) if text == b"new")
}

/// Runs an operation for calls. Returns the answer of each, `None` for one that has to go alone.
async fn run(
    store: &Inner,
    operation: &Operation,
    calls: impl Iterator<Item = &Args>,
) -> Result<Vec<Option<Value>>, StoreError> {
    let args = calls.cloned().fold(Args::default(), Args::and);
    let answers = Reply::of(store.run(operation, &args).await?)?;
    let is_alone = |answer: &Value| matches!(answer, Value::BulkString(text) if text == b"alone");
    Ok(answers
        .map(|answer| (!is_alone(&answer)).then_some(answer))
        .collect())
}

impl RedisStore {
    /// Opens a broadcast, together with those of other calls that wait. Returns the answer of the script.
    pub(super) async fn open_shared(&self, args: Args, rows: usize) -> Result<Value, StoreError> {
        let call = Opening(args.clone(), rows);
        self.run_shared(call, &OPEN, &args).await
    }

    /// Reads the subscriptions of a set, together with those of other calls that wait. Returns the answer of the script.
    pub(super) async fn owned_shared(&self, set: String) -> Result<Value, StoreError> {
        let args = Args::default().with(set);
        self.run_shared(Reading(args.clone()), &OWNED, &args).await
    }

    async fn run_shared<S>(
        &self,
        call: S,
        operation: &Operation,
        args: &Args,
    ) -> Result<Value, StoreError>
    where
        S: Shared<Store = Inner, Answer = Value>,
    {
        let patience = self.inner.longest_answer();
        let answered = async {
            match ask(&self.inner, call, patience).await? {
                Some(answer) => Ok(answer),
                None => Reply::of(self.run(operation, args).await?)?.value(),
            }
        };
        // Also for one that went alone after it had waited.
        let answered = timeout(patience, answered).await;
        answered.unwrap_or_else(|_| Err(too_slow()))
    }
}
