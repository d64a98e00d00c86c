//! A clock that differs from the store's by more than leases allow for.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::clock::Clock;
use crate::store::{ScheduleStore, StoreError};

/// A clock that differs by more from the database server's would end the leases of others.
const ALLOWED: Duration = Duration::from_secs(10);

/// How far this machine's clock is from the database server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClockSkew {
    by: Duration,
    is_ahead: bool,
}

impl ClockSkew {
    /// Compares the clocks; `None` where they agree well enough, or where there is only one.
    pub(crate) async fn of(
        clock: &dyn Clock,
        store: &dyn ScheduleStore,
    ) -> Result<Option<Self>, StoreError> {
        let asked = clock.now();
        let Some(server) = store.server_time().await? else {
            return Ok(None);
        };
        // The server read its clock between these two: how long it took to answer is no skew.
        let answered = clock.now();
        let (ahead, behind) = (asked.since(server), server.since(answered));
        let by = ahead.max(behind);
        Ok((by > ALLOWED).then_some(Self {
            by,
            is_ahead: ahead > behind,
        }))
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
