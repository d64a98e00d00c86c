//! The difference between this machine's clock and the store's.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::store::{ScheduleStore, StoreError};

/// A difference between this machine's clock and the database server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClockSkew {
    by: Duration,
    is_ahead: bool,
}

impl ClockSkew {
    /// The largest difference allowed: a larger one would end the leases of other workers.
    pub(super) const ALLOWED: Duration = Duration::from_secs(10);

    /// Compares the clocks. Returns `None` if they agree, or if the store has no clock of its own.
    pub(crate) async fn of(
        clock: &dyn Clock,
        store: &dyn ScheduleStore,
    ) -> Result<Option<Self>, StoreError> {
        let asked = clock.now();
        let Some(server) = store.server_time().await? else {
            return Ok(None);
        };
        Ok(Self::between(asked, server, clock.now()))
    }

    /// Compares two readings of this machine's clock with the server's in between, so that the time it took to respond
    /// does not count.
    pub(super) fn between(
        asked: Timestamp,
        server: Timestamp,
        answered: Timestamp,
    ) -> Option<Self> {
        let (ahead, behind) = (asked.since(server), server.since(answered));
        let by = ahead.max(behind);
        (by > Self::ALLOWED).then_some(Self {
            by,
            is_ahead: ahead > behind,
        })
    }
}

impl fmt::Display for ClockSkew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.is_ahead { "ahead of" } else { "behind" };
        let seconds = self.by.as_secs_f64().round();
        write!(
            f,
            "this machine's clock is {seconds} s {direction} the database server's"
        )
    }
}

impl Error for ClockSkew {}
