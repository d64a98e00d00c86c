//! Log lines that are due without another event: their cause may have stopped, and their number is still to be told.

use std::fmt;
#[cfg(feature = "api")]
use std::sync::Arc;
use std::sync::{Mutex, PoisonError, Weak};

/// A part that holds lines back to tell their number later.
pub(crate) trait HoldsLines: Send + Sync {
    /// Tells those that are due.
    fn tell_due(&self);
}

/// The parts of this process that hold lines back. The worker tells what is due.
#[derive(Default)]
pub(crate) struct Reminders(Mutex<Vec<Weak<dyn HoldsLines>>>);

impl Reminders {
    /// Adds a part, until it is dropped.
    #[cfg(feature = "api")]
    pub(crate) fn add<T: HoldsLines + 'static>(&self, part: &Arc<T>) {
        let part: Weak<T> = Arc::downgrade(part);
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.retain(|part| part.strong_count() > 0);
        parts.push(part);
    }

    pub(super) fn tell_due(&self) {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let parts: Vec<_> = parts.iter().filter_map(Weak::upgrade).collect();
        for part in parts {
            part.tell_due();
        }
    }
}

impl fmt::Debug for Reminders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reminders").finish_non_exhaustive()
    }
}
