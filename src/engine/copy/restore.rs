//! A store from a file of lines.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufRead, Seek};

use super::error::{CopyError, CopyErrorKind, target};
use super::export::{CLOCKS, ExportReport, file};
use super::handed_over::remove_former;
use super::lines::{End, Line, VERSION};
use super::{PAGE, Side};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::engine::records::{Record, records};
use crate::schedule::{Plan, Schedule};
use crate::store::{
    PortableStore, ScheduleStore, StoredVapidKey, SubscriptionRecord, VapidKeyStore,
};
use crate::subscription::SubscriptionId;
use crate::vapid::KeyId;

/// The longest line that is read, in octets: an endpoint has at most 2,048, and a user has a name.
const LONGEST_LINE: u64 = 64 * 1024;

/// Which store [`restore`] writes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum RestoreInto {
    /// One without subscriptions and VAPID keys. Any other is refused.
    Empty,
    /// Any. A subscription stays that is newer there, with its daily notifications, and so does the active VAPID key.
    Existing,
}

/// Writes what [`export`](super::export()) has written with its secrets into a store. The whole file is read first, so that a damaged one changes
/// nothing. Calls `progress` with the numbers after each page.
///
/// # Errors
///
/// [`NotEmpty`](CopyErrorKind::NotEmpty), [`File`](CopyErrorKind::File) if the file is incomplete, of another version, damaged or
/// without secrets: then nothing was changed. Also if the store fails. What was written by then stays, and the call can be repeated
/// with [`RestoreInto::Existing`].
///
/// # Cancel safety
///
/// As after an error of the store.
pub async fn restore<S>(
    store: S,
    lines: &mut (impl BufRead + Seek + Send),
    into: RestoreInto,
    progress: impl FnMut(&ExportReport) + Send,
) -> Result<ExportReport, CopyError>
where
    S: PortableStore + VapidKeyStore + ScheduleStore,
{
    restore_to(&Side::new(store), lines, into, progress).await
}

pub(super) async fn restore_to(
    to: &Side,
    lines: &mut (impl BufRead + Seek + Send),
    into: RestoreInto,
    mut progress: impl FnMut(&ExportReport) + Send,
) -> Result<ExportReport, CopyError> {
    let keys = to.vapid_keys.keys().await.map_err(target)?;
    let rows = to.count(SystemClock::new().now()).await.map_err(target)?;
    if into == RestoreInto::Empty && (rows > 0 || !keys.is_empty()) {
        return Err(CopyErrorKind::NotEmpty.into());
    }
    let has_schedules = to.ledger.next_fire_at().await.map_err(target)?.is_some();
    check(lines)?;
    let mut report = ExportReport::default();
    let mut rows = Rows::default();
    let mut has_made_first = false;
    while let Some(line) = next(lines)? {
        match line {
            Line::VapidKey(key) => {
                let mut key = key.read().map_err(file)?;
                let is_first = to.vapid_keys.insert_first(&key).await.map_err(target)?;
                has_made_first |= is_first;
                if !is_first {
                    // Of the file, the active one is the first; another one is if there was a rotation during the export.
                    key.active &= has_made_first;
                    to.vapid_keys.insert(&key).await.map_err(target)?;
                }
                report.vapid_keys += 1;
                rows.keys.push(key);
            }
            Line::Subscription(row) => {
                let row = row.read().map_err(file)?;
                if rows.waiting.len() == PAGE || rows.has_another_version(&row) {
                    rows.put(to, &mut report).await?;
                    progress(&report);
                }
                rows.waiting.push(row);
            }
            Line::Schedule(daily) => {
                if !rows.waiting.is_empty() {
                    rows.put(to, &mut report).await?;
                    progress(&report);
                }
                let schedule = daily.read().map_err(file)?;
                if rows.take(&schedule, to).await? {
                    to.ledger.put_schedule(&schedule).await.map_err(target)?;
                    report.schedules += 1;
                }
            }
            Line::WebPushExport(head) => {
                rows.may_be_known = match into {
                    // Daily notifications may be there without rows.
                    RestoreInto::Empty if !has_schedules => {
                        Some(Timestamp::from_millis(head.at) - CLOCKS)
                    }
                    RestoreInto::Empty | RestoreInto::Existing => None,
                };
            }
            Line::End(_) => break,
        }
    }
    rows.put(to, &mut report).await?;
    progress(&report);
    Ok(report)
}

/// The subscriptions of the file that are being restored.
#[derive(Default)]
struct Rows {
    waiting: Vec<SubscriptionRecord>,
    /// Those of the last two calls of [`put`](Self::put) which the store has as the file has them, and whether they were written.
    /// The daily notifications of a page of the export follow its subscriptions, which are in no more calls.
    put: VecDeque<HashMap<SubscriptionId, bool>>,
    /// The VAPID keys of the file.
    keys: Vec<StoredVapidKey>,
    /// From which registration on the store may have an older version of a row; `None`: of any.
    may_be_known: Option<Timestamp>,
}

impl Rows {
    /// Whether a row of this endpoint or id waits: one call takes one version of it (C2).
    fn has_another_version(&self, row: &SubscriptionRecord) -> bool {
        self.waiting.iter().any(|waiting| {
            waiting.id == row.id || waiting.subscription.endpoint() == row.subscription.endpoint()
        })
    }

    /// Writes those that wait.
    async fn put(&mut self, to: &Side, report: &mut ExportReport) -> Result<(), CopyError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let may_be_known = |row: &SubscriptionRecord| {
            let since = self.may_be_known;
            since.is_none_or(|since| row.last_seen_at >= since)
        };
        let known = self.waiting.iter().filter(|row| may_be_known(row));
        let known: Vec<_> = known.cloned().collect();
        remove_former(to, &known).await?;
        let written = to.subscriptions.put(&self.waiting).await;
        let written = written.map_err(target)?;
        let ids: Vec<_> = self.waiting.iter().map(|row| row.id.into()).collect();
        let there = records(&*to.subscriptions, &ids).await.map_err(target)?;
        self.keep_keys(to).await?;
        let has_schedules = to.ledger.next_fire_at().await.map_err(target)?.is_some();
        let mut put = HashMap::new();
        for ((row, is_written), there) in self.waiting.drain(..).zip(written).zip(there) {
            // Another one is newer, or of another endpoint, whose row the store has kept.
            let is_there = match there {
                Record::Found(there) => there.last_seen_at == row.last_seen_at,
                Record::Missing | Record::Unreadable => false,
            };
            report.subscriptions += u64::from(is_written);
            if is_written && may_be_known(&row) && has_schedules {
                // Its daily notifications follow. Others are of an older version, which had them.
                let removed = to.ledger.remove_schedules(row.id).await;
                removed.map_err(target)?;
            }
            if is_written || is_there {
                put.insert(row.id, is_written);
            }
        }
        self.put.push_front(put);
        self.put.truncate(2);
        Ok(())
    }

    /// Writes the VAPID keys of the rows that wait again, if the store has lost them: a server that uses it removes a key without
    /// rows after a while, and these are written now.
    async fn keep_keys(&self, to: &Side) -> Result<(), CopyError> {
        let there = to.vapid_keys.keys().await.map_err(target)?;
        let is_used = |key: &KeyId| self.waiting.iter().any(|row| row.vapid_key == *key);
        let is_there = |id: &KeyId| there.iter().any(|key| key.id == *id);
        for key in &self.keys {
            if !is_there(&key.id) && is_used(&key.id) {
                let mut key = key.clone();
                key.active = false;
                to.vapid_keys.insert(&key).await.map_err(target)?;
            }
        }
        Ok(())
    }

    /// Whether a daily notification is to be written. Those of a subscription that is newer in the store stay as they are. One
    /// that was restored before, by a call that failed later, gets those that it has not.
    async fn take(&self, schedule: &Schedule, to: &Side) -> Result<bool, CopyError> {
        let Plan::Subscriber { subscription, .. } = &schedule.plan else {
            return Ok(false);
        };
        match self.put.iter().find_map(|put| put.get(subscription)) {
            None => Ok(false),
            Some(true) => Ok(true),
            Some(false) => {
                let there = to.ledger.schedules(Some(*subscription)).await;
                let there = there.map_err(target)?;
                Ok(there.iter().all(|there| there.name() != schedule.name()))
            }
        }
    }
}

/// Reads everything once, and goes back to the beginning.
fn check(lines: &mut (impl BufRead + Seek)) -> Result<(), CopyError> {
    let mut found = End::default();
    match next(lines)? {
        Some(Line::WebPushExport(head)) if head.version != VERSION => {
            return Err(file(format!(
                "it is of version {}, and this program reads version {VERSION}",
                head.version
            )));
        }
        Some(Line::WebPushExport(head)) if head.secrets => {}
        Some(Line::WebPushExport(_)) => {
            return Err(file(
                "it was written without secrets, which a restoration needs",
            ));
        }
        _ => return Err(file("it is no export")),
    }
    loop {
        let read = match next(lines)? {
            Some(Line::VapidKey(key)) => {
                found.vapid_keys += 1;
                key.read().map(|_| ())
            }
            Some(Line::Subscription(row)) => {
                found.subscriptions += 1;
                row.read().map(|_| ())
            }
            Some(Line::Schedule(daily)) => {
                found.schedules += 1;
                daily.read().map(|_| ())
            }
            Some(Line::End(end)) if end == found => match next(lines)? {
                None => break,
                Some(_) => Err("there are lines behind its last one".into()),
            },
            Some(Line::End(_) | Line::WebPushExport(_)) => Err("lines are missing".into()),
            None => Err("it is incomplete: its last line is missing".into()),
        };
        read.map_err(file)?;
    }
    lines.rewind().map_err(file)
}

fn next(lines: &mut impl BufRead) -> Result<Option<Line>, CopyError> {
    let mut line = Vec::new();
    let read = io::Read::take(&mut *lines, LONGEST_LINE).read_until(b'\n', &mut line);
    match read.map_err(file)? {
        0 => Ok(None),
        // The text of the error would have a part of the line, which may be a secret.
        _ => match serde_json::from_slice(&line) {
            Ok(line) => Ok(Some(line)),
            Err(error) => Err(file(format!(
                "a line is no line of an export (column {})",
                error.column()
            ))),
        },
    }
}
