//! The contracts of the stores, as tests: run them against a store of your own.
//!
//! One public async function for each contract sentence, named by its number. Each needs a fresh store. The macros
//! [`store_conformance!`](crate::store_conformance) and
//! [`subscription_store_conformance!`](crate::subscription_store_conformance) make a named test of each, and
//! [`outbox_conformance!`](crate::outbox_conformance) of those of a ledger with an outbox,
//! [`portable_conformance!`](crate::portable_conformance) of those of a table that can be copied.
//! The crate that uses them needs `tokio` with the features `macros` and `rt`.
//!
//! # Examples
//!
//! ```
//! use tower_web_push::store::MemoryStore;
//! use tower_web_push::store::conformance::Handles;
//!
//! async fn fresh() -> Handles<MemoryStore> {
//!     Handles::one(MemoryStore::new())
//! }
//!
//! tower_web_push::store_conformance!(memory, fresh);
//! # fn main() {}
//! ```
//!
//! # Stability
//!
//! Cases may be added in patch releases, when a contract sentence turns out to be untested: a store that then fails has a
//! bug, which is not a breaking change here. Call the cases through the macros.
#![expect(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "tests: every case panics where the store breaks its contract"
)]

mod ledger_claim;
mod ledger_due;
mod ledger_end;
mod ledger_erase;
mod ledger_first_page;
mod ledger_hold;
mod ledger_list;
mod ledger_living;
mod ledger_moments;
mod ledger_open;
mod ledger_outbox;
mod ledger_pace;
mod ledger_pause;
mod ledger_prune;
mod ledger_samples;
mod ledger_settle_with;
mod ledger_trace;
mod ledger_turns;
mod macros;
mod portable;
mod sample;
mod schedules;
mod subscription_assign;
mod subscription_changes;
mod subscription_counts;
mod subscription_list;
mod subscription_pages;
mod subscription_replace;
mod subscription_unproven;
mod subscriptions;
mod vapid_keys;

pub use ledger_claim::*;
pub use ledger_due::*;
pub use ledger_end::*;
pub use ledger_erase::*;
pub use ledger_first_page::*;
pub use ledger_hold::*;
pub use ledger_list::*;
pub use ledger_living::*;
pub use ledger_moments::*;
pub use ledger_open::*;
pub use ledger_outbox::*;
pub use ledger_pace::*;
pub use ledger_pause::*;
pub use ledger_prune::*;
pub use ledger_samples::*;
pub use ledger_settle_with::*;
pub use ledger_trace::*;
pub use ledger_turns::*;
pub use portable::*;
pub use schedules::*;
pub use subscription_assign::*;
pub use subscription_changes::*;
pub use subscription_counts::*;
pub use subscription_list::*;
pub use subscription_pages::*;
pub use subscription_replace::*;
pub use subscription_unproven::*;
pub use subscriptions::*;
pub use vapid_keys::*;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use tokio::task::JoinSet;

/// A fresh store under test: two handles of it, and a guard that lives as long.
///
/// If two processes can share the store's database, pass two stores on the same database: races then run across them.
pub struct Handles<S: ?Sized> {
    first: Arc<S>,
    second: Arc<S>,
    _keep: Option<Box<dyn Any + Send + Sync>>,
}

impl<S> Handles<S> {
    /// Uses one fresh store for both handles.
    #[must_use]
    pub fn one(store: S) -> Self {
        let store = Arc::new(store);
        Self {
            first: Arc::clone(&store),
            second: store,
            _keep: None,
        }
    }

    /// Uses two handles of one fresh store.
    #[must_use]
    pub fn two(first: S, second: S) -> Self {
        Self {
            first: Arc::new(first),
            second: Arc::new(second),
            _keep: None,
        }
    }
}

impl<S: ?Sized> Handles<S> {
    /// Keeps `guard` (a temporary folder, a container) until the handles are dropped.
    #[must_use]
    pub fn keeping(mut self, guard: impl Any + Send + Sync) -> Self {
        self._keep = Some(Box::new(guard));
        self
    }

    /// Returns the first handle.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.first
    }

    /// Returns the second handle.
    #[must_use]
    pub fn second(&self) -> &S {
        &self.second
    }
}

/// Converts the result of a maker.
#[doc(hidden)]
pub fn made<S: ?Sized>(handles: impl Into<Option<Handles<S>>>) -> Option<Handles<S>> {
    handles.into()
}

impl<S: Send + Sync + ?Sized + 'static> Handles<S> {
    /// Runs `n` concurrent tasks, half of them on each handle. Returns their results.
    async fn race<T, F>(&self, n: usize, task: impl Fn(Arc<S>, usize) -> F) -> Vec<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        for number in 0..n {
            let handle = if number % 2 == 0 {
                &self.first
            } else {
                &self.second
            };
            tasks.spawn(task(Arc::clone(handle), number));
        }
        tasks.join_all().await
    }
}

impl<S: ?Sized> fmt::Debug for Handles<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handles").finish_non_exhaustive()
    }
}
