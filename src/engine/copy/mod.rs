//! Copying all subscriptions from one store to another, of any two kinds, while servers use both.
//!
//! The [guide](crate::guide::moving_between_stores) has the steps of a move, and says what is copied and what is not.
//!
//! # Examples
//!
//! ```
//! use tower_web_push::copy::Copy;
//! use tower_web_push::store::MemoryStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let journal = folder.path().join("copy.journal");
//! let (old, new) = (MemoryStore::new(), MemoryStore::new());
//! let copy = Copy::new(old, new, journal);
//! // Everything; then what has changed meanwhile.
//! copy.pass(|_| {}).await?;
//! let report = copy.pass(|progress| println!("{} of {}", progress.read, progress.total)).await?;
//! assert!(report.is_unchanged());
//! # Ok(())
//! # }
//! ```

mod error;
mod export;
mod handed_over;
mod journal;
mod keys;
mod lines;
mod page;
mod report;
mod restore;
mod row;
mod schedules;

pub use error::{CopyError, CopyErrorKind};
pub use export::{ExportReport, Secrets, export};
pub use report::CopyReport;
pub use restore::{RestoreInto, restore};

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use self::error::{source, target};
use self::handed_over::remove_former;
use self::journal::Journal;
use self::schedules::{Ledgers, Pair};
use crate::broadcast::Audience;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::engine::records::{Record, records};
use crate::store::{
    CountFilter, Liveness, PortableStore, ScheduleStore, StoreError, StoreErrorKind,
    SubscriptionRecord, Unreachable, VapidKeyStore,
};
use crate::subscription::EndpointKey;
use crate::vapid::KeyId;

/// The rows of one page, and of one transaction of the target: less than a [`STEP`](crate::store::STEP), so that servers that
/// use the target do not wait for long.
const PAGE: usize = 250;

/// A copy of one store to another.
///
/// Each [`pass`](Self::pass) walks through the source. It writes what the target does not have, or has in an older version,
/// and deletes in the target what the source has deleted since the last pass. A row that the target has in a newer version
/// stays, and one that the target has deleted is not written again, unless the source has it as retired or stale. So the first pass copies everything, and each later one
/// what has changed since, in both directions of time: servers may use the source, the target, or both. A user and tags that were
/// [assigned](crate::WebPush::assign) in the source since the last pass are assigned in the target, unless they were changed there
/// too. Schedules of the
/// application are copied by the same rule, except that one which both have changed stays as it is in the target.
///
/// # What is copied
///
/// VAPID keys, sealed as they are: the target needs the same key-encryption keys. Subscriptions in every state, with ids, users,
/// tags and times; those that have expired and are not retired yet are left out. Daily notifications, with the time at which they are due,
/// except those of a user whose browser another user has registered since, in either store. The number of live subscriptions of each day, where the target
/// has none of that day. Messages that
/// are pending in the source are not: a server that still runs on it sends them, and [`CopyReport::pending`] counts them.
///
/// # The journal
///
/// A file that records what a pass has read: 49 octets for each subscription and each schedule of the application, hashes and times
/// without secrets. A pass that was
/// interrupted continues where it was, and the next pass compares with it. It belongs to these two stores: another copy needs
/// another file.
pub struct Copy {
    from: Side,
    to: Side,
    journal: PathBuf,
    clock: SystemClock,
}

/// A store, seen through the traits that a copy uses.
pub(super) struct Side {
    subscriptions: Arc<dyn PortableStore>,
    vapid_keys: Arc<dyn VapidKeyStore>,
    ledger: Arc<dyn ScheduleStore>,
}

impl Side {
    fn new<S>(store: S) -> Self
    where
        S: PortableStore + VapidKeyStore + ScheduleStore,
    {
        let store = Arc::new(store);
        Self {
            subscriptions: Arc::clone(&store) as _,
            vapid_keys: Arc::clone(&store) as _,
            ledger: store,
        }
    }

    async fn count(&self, now: Timestamp) -> Result<u64, StoreError> {
        let all = CountFilter::new(Audience::All, Liveness::Any);
        self.subscriptions.count(&all, now).await
    }
}

impl Copy {
    /// Makes a copy from one store to another. Nothing is read before the first [`pass`](Self::pass).
    #[must_use]
    pub fn new<A, B>(from: A, to: B, journal: impl Into<PathBuf>) -> Self
    where
        A: PortableStore + VapidKeyStore + ScheduleStore,
        B: PortableStore + VapidKeyStore + ScheduleStore,
    {
        Self {
            from: Side::new(from),
            to: Side::new(to),
            journal: journal.into(),
            clock: SystemClock::new(),
        }
    }

    /// Makes one pass, page by page with bounded memory, and calls `progress` after each page.
    ///
    /// A pass that [continues](CopyReport::is_continued) an interrupted one reads what follows only: changes of what was read
    /// before the interruption are found by another pass, as after the first one.
    ///
    /// The journal is read and written with blocking calls, which take microseconds on a local disk.
    ///
    /// # Errors
    ///
    /// Returns an error if a store or the journal fails. What was copied by then stays. The call can be repeated, and
    /// continues after the last page that was copied.
    ///
    /// # Cancel safety
    ///
    /// As after an error.
    pub async fn pass(
        &self,
        mut progress: impl FnMut(&CopyReport) + Send,
    ) -> Result<CopyReport, CopyError> {
        let header = format!(
            "tower-web-push copy 4\n{}\n{}\n",
            self.from.ledger.description().escape_default(),
            self.to.ledger.description().escape_default()
        );
        let mut journal = Journal::open(&self.journal, &header)?;
        let mut report = self.begin(&journal).await?;
        let mut known = keys::copy(&self.from, &self.to, &mut report).await?;
        progress(&report);
        let mut after = journal.cursor();
        loop {
            after = self
                .copy_page(after, &mut journal, &mut known, &mut report)
                .await?;
            progress(&report);
            if after.is_none() {
                break;
            }
        }
        for state in [Unreachable::Stale, Unreachable::Retired] {
            self.copy_unreachable(state, &mut known, &mut report, &mut progress)
                .await?;
        }
        let now = self.clock.now();
        if let Some(at) = self.from.ledger.last_run().await.map_err(source)? {
            self.to.ledger.record_run(at).await.map_err(target)?;
        }
        // A history that is damaged is not worth a copy that never ends.
        let days = match self.from.ledger.days(now).await {
            Err(error) if error.kind() == StoreErrorKind::Corrupt => Vec::new(),
            days => days.map_err(source)?,
        };
        self.to.ledger.record_days(&days).await.map_err(target)?;
        let stats = self.from.ledger.stats(now).await.map_err(source)?;
        report.pending = stats.depth;
        // The last call: what the target removes from then on is not written again.
        let ledgers = self.ledgers();
        let copied = ledgers.copy_those_of_the_application(journal.planned(), now);
        let (planned, changed) = copied.await?;
        report.schedules += changed;
        journal.finish(&planned)?;
        progress(&report);
        Ok(report)
    }

    /// Compares the journal with the stores.
    async fn begin(&self, journal: &Journal) -> Result<CopyReport, CopyError> {
        let now = self.clock.now();
        let there = self.from.count(now).await.map_err(source)?;
        let here = self.to.count(now).await.map_err(target)?;
        let last_pass = journal.rows_of_last_pass();
        let named = last_pass.unwrap_or(journal.rows());
        // An empty table, or another database, would be taken for one whose subscribers have all unsubscribed.
        if there.min(here) < named / 2 {
            let why = format!(
                "{0} names {named} subscriptions, of which the source has {there} and the target {here}: if that is right, \
                 delete {0} and {0}.part and copy everything anew",
                self.journal.display()
            );
            return Err(CopyError::with_source(CopyErrorKind::LostRows, why));
        }
        Ok(CopyReport {
            total: there,
            read: journal.rows(),
            is_first: last_pass.is_none(),
            is_continued: journal.cursor().is_some(),
            ..CopyReport::default()
        })
    }

    fn ledgers(&self) -> Ledgers {
        Ledgers {
            from: Arc::clone(&self.from.ledger),
            to: Arc::clone(&self.to.ledger),
        }
    }

    /// Makes sure that the target has these VAPID keys: the source may have got one since the beginning.
    async fn know(
        &self,
        keys: impl Iterator<Item = KeyId> + Send,
        known: &mut HashSet<KeyId>,
        report: &mut CopyReport,
    ) -> Result<(), CopyError> {
        let unknown: Vec<_> = keys.filter(|key| !known.contains(key)).collect();
        if !unknown.is_empty() {
            *known = keys::copy(&self.from, &self.to, report).await?;
            // One that the source does not have either: such a row is stale, and asking again would not help.
            known.extend(unknown);
        }
        Ok(())
    }

    /// Makes sure that the target has the VAPID keys of rows that were written: a server that uses it removes a key without rows
    /// after a while, and may have done so shortly before.
    async fn keep(
        &self,
        keys: impl Iterator<Item = KeyId> + Send,
        known: &mut HashSet<KeyId>,
        report: &mut CopyReport,
    ) -> Result<(), CopyError> {
        let there = self.to.vapid_keys.keys().await.map_err(target)?;
        *known = there.iter().map(|key| key.id).collect();
        self.know(keys, known, report).await
    }

    /// Copies the rows that no page has, since they are in no audience.
    async fn copy_unreachable(
        &self,
        state: Unreachable,
        known: &mut HashSet<KeyId>,
        report: &mut CopyReport,
        progress: &mut (impl FnMut(&CopyReport) + Send),
    ) -> Result<(), CopyError> {
        let mut after: Option<(Timestamp, EndpointKey)> = None;
        loop {
            let rows = self.from.subscriptions.unreachable(state, after, PAGE);
            let rows = rows.await.map_err(source)?;
            let Some(last) = rows.last() else {
                return Ok(());
            };
            let is_last = rows.len() < PAGE;
            after = state
                .since(last)
                .map(|since| (since, last.subscription.endpoint().key()));
            // The others are copied with those that are retired.
            let rows: Vec<_> = rows
                .into_iter()
                .filter(|row| state == Unreachable::Retired || row.retired.is_none())
                .collect();
            report.read += rows.len() as u64;
            self.know(rows.iter().map(|row| row.vapid_key), known, report)
                .await?;
            report.schedules += remove_former(&self.to, &rows).await?;
            let written = self.to.subscriptions.put(&rows).await.map_err(target)?;
            report.written += written.iter().filter(|written| **written).count() as u64;
            self.keep(rows.iter().map(|row| row.vapid_key), known, report)
                .await?;
            self.copy_their_schedules(&rows, report).await?;
            progress(report);
            if is_last {
                return Ok(());
            }
        }
    }
}

impl Copy {
    /// Copies the daily notifications of unreachable rows, which a browser that registers again finds as they were. One that
    /// the target has registered again, or has not taken, stays as it is there.
    async fn copy_their_schedules(
        &self,
        rows: &[SubscriptionRecord],
        report: &mut CopyReport,
    ) -> Result<(), CopyError> {
        let ledgers = self.ledgers();
        if !ledgers.have_any().await? {
            return Ok(());
        }
        let ids: Vec<_> = rows.iter().map(|row| row.id.into()).collect();
        let there = records(&*self.to.subscriptions, &ids).await;
        let pairs: Vec<_> = rows
            .iter()
            .zip(there.map_err(target)?)
            .map(|(row, there)| match there {
                Record::Found(there) if there.last_seen_at == row.last_seen_at => Some(Pair {
                    from: row.id,
                    to: row.id,
                    before: 0,
                    is_newer_there: false,
                }),
                Record::Found(_) | Record::Missing | Record::Unreadable => None,
            })
            .collect();
        for done in ledgers.copy_all(&pairs, self.clock.now()).await? {
            report.schedules += done.changed;
        }
        Ok(())
    }
}

impl fmt::Debug for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copy")
            .field("from", &self.from.ledger)
            .field("to", &self.to.ledger)
            .field("journal", &self.journal)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod handed_over_tests;
#[cfg(test)]
mod schedules_tests;
#[cfg(test)]
mod stopped_tests;
#[cfg(test)]
mod test_world;
#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
