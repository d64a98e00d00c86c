//! Calls of the store that took long, for the log.

use std::time::Duration;

use crate::observe::{self, Lasting, ToldOfLasting};

/// A call that takes longer is told of. It is a fifth of the shortest time limit of a back end (Redis 5 s, SQLite 10 s,
/// PostgreSQL 15 s), hundreds of times what a call takes on a slow disk, and the bound of the alert `WebPushStoreSlow`.
const SLOW: Duration = Duration::from_secs(1);

/// The slow calls of a process by operation.
#[derive(Debug, Default)]
pub(crate) struct SlowCalls(Lasting<&'static str>);

impl SlowCalls {
    /// Notes a call. The log is told if it took long: of the first one of an operation, then once a minute.
    pub(super) fn note(&self, operation: &'static str, elapsed: Duration) {
        if elapsed >= SLOW
            && let Some(told) = self.0.add(operation, elapsed)
        {
            tell(told);
        }
    }

    /// Tells of calls that came after the last line, once their minute is over.
    pub(crate) fn tell_due(&self) {
        self.0.due().into_iter().for_each(tell);
    }
}

fn tell(((operation, calls), longest): ToldOfLasting<&'static str>) {
    let operation = operation.unwrap_or("others");
    observe::event!(
        WARN,
        operation,
        calls,
        longest = ?longest,
        "calls of the store took long"
    );
    let _ = (operation, calls, longest);
}
