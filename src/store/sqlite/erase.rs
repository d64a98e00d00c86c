//! Erasing a user's pending deliveries in SQLite.

use rusqlite::params;

use super::broadcasts::{DELETE, Stored};
use super::claims::END_PROBE;
use super::connection::Connection;
use super::content;
use super::query::{all, execute, first, integer};
use crate::broadcast::{Audience, FinalOutcome, Principal};
use crate::clock::Timestamp;
use crate::store::readable::readable_or_none;
use crate::store::{Erased, STEP, StoreError, SubscriptionRecord};
use crate::subscription::{EndpointKey, SubscriptionId};

/// The next open broadcasts: others have no content.
pub(super) const OPEN: &str = "SELECT broadcast, audience FROM content \
     WHERE broadcast > ?1 ORDER BY broadcast LIMIT ?2";
pub(super) const ROW: &str = "SELECT fence FROM delivery WHERE broadcast = ?1 AND key = ?2";

/// What to erase (L17), in steps over the open broadcasts.
pub(super) struct Erasure {
    user: Principal,
    ids: Vec<SubscriptionId>,
    keys: Vec<EndpointKey>,
    now: Timestamp,
}

/// The result of one step.
pub(super) struct Step {
    pub(super) erased: Erased,
    /// The last broadcast; `None` if there are no more.
    pub(super) last: Option<i64>,
}

impl Erasure {
    pub(super) fn new(
        user: &Principal,
        subscriptions: &[SubscriptionRecord],
        now: Timestamp,
    ) -> Self {
        let keys = subscriptions
            .iter()
            .map(|row| row.subscription.endpoint().key());
        Self {
            user: user.clone(),
            ids: subscriptions.iter().map(|row| row.id).collect(),
            keys: keys.collect(),
            now,
        }
    }

    /// Erases from the next open broadcasts. One step looks for at most about [`STEP`] rows.
    pub(super) fn step(&self, conn: &Connection, after: i64) -> Result<Step, StoreError> {
        let limit = (STEP / self.keys.len().max(1)).max(1);
        let open = all(conn, OPEN, params![after, integer(limit)], |row| {
            // One that cannot be read holds up no erasure: it is not expanded either.
            Ok((row.get::<i64>()?, content::audience(row).ok()))
        })?;
        let mut erased = Erased::default();
        for (seq, audience) in &open {
            self.erase_from(conn, *seq, audience.as_ref(), &mut erased)?;
        }
        let last = open.last().filter(|_| open.len() == limit);
        Ok(Step {
            erased,
            last: last.map(|(seq, _)| *seq),
        })
    }

    fn erase_from(
        &self,
        conn: &Connection,
        seq: i64,
        audience: Option<&Audience>,
        erased: &mut Erased,
    ) -> Result<(), StoreError> {
        let mut rows = 0;
        for key in &self.keys {
            let row = params![seq, key.as_bytes()];
            let Some(fence) = first(conn, ROW, row, |row| row.get::<i64>())? else {
                continue;
            };
            execute(conn, DELETE, params![seq, key.as_bytes()])?;
            let probe = params![fence, key.as_bytes(), self.now.as_millis()];
            execute(conn, END_PROBE, probe)?;
            rows += 1;
        }
        let is_theirs =
            audience.is_some_and(|audience| audience.is_only_for(&self.user, &self.ids));
        if rows == 0 && !is_theirs {
            return Ok(());
        }
        // Without readable counts there is nothing to count in, and its other rows end at its deadline.
        let Some(mut stored) = readable_or_none(Stored::by_seq(conn, seq))? else {
            erased.deliveries += rows;
            return Ok(());
        };
        // Cancelled before its rows are counted: a broadcast without rows would be over.
        if is_theirs && stored.progress.cancel() {
            stored.end_unleased(conn, STEP, FinalOutcome::Cancelled, self.now)?;
            erased.broadcasts += 1;
        }
        stored.progress.counts.add(FinalOutcome::Cancelled, rows);
        erased.deliveries += rows;
        stored.save(conn, self.now)
    }
}
