//! A store as a file of lines, and back.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, BufRead, Seek, Write};
use std::time::Duration;

use super::error::{CopyError, CopyErrorKind, source, target};
use super::lines::{Daily, End, Head, Key, Line, Row, VERSION};
use super::{PAGE, Side};
use crate::broadcast::Audience;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::engine::records::{Record, records};
use crate::engine::schedules_of::schedules_of;
use crate::error::BoxError;
use crate::schedule::{Plan, Schedule};
use crate::store::{
    PortableStore, ScheduleStore, StoredVapidKey, SubscriptionRecord, Unreachable, VapidKeyStore,
};
use crate::subscription::{EndpointKey, SubscriptionId};
use crate::vapid::KeyId;

/// The longest line that is read, in octets: an endpoint has at most 2,048, and a user has a name.
const LONGEST_LINE: u64 = 64 * 1024;

/// Servers whose clocks are behind by less write no registration that looks older than the export.
const CLOCKS: Duration = Duration::from_secs(5 * 60);

/// The numbers of an export, or of its restoration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportReport {
    /// VAPID keys.
    pub vapid_keys: u64,
    /// Subscriptions, with those that are in it twice. Of a restoration: those that were written.
    pub subscriptions: u64,
    /// Daily notifications of subscribers.
    pub schedules: u64,
}

/// Whether an export has what is needed to send to its subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum Secrets {
    /// Endpoints, secrets of subscriptions, and VAPID private keys as they are stored: sealed, or in the clear if the store has no
    /// key-encryption key. Who has the file can send to all subscribers. [`restore`] needs them.
    Included,
    /// Ids, push services, users and states only. Such a file cannot be restored. With an id one can unsubscribe.
    LeftOut,
}

/// Which store [`restore`] writes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum RestoreInto {
    /// One without subscriptions and VAPID keys. Any other is refused.
    Empty,
    /// Any. A subscription stays that is newer there, with its daily notifications, and so does the active VAPID key.
    Existing,
}

/// Writes VAPID keys, subscriptions, and daily notifications of subscribers as JSON, an object in each line, page
/// by page, while servers use the store. Calls `progress` with the numbers after each page. Subscriptions that have expired and are
/// not retired yet are left out.
///
/// The first line is `{"webPushExport":{"version":1,…}}`, and the last one, `{"end":…}`, has the numbers of the others. Times are
/// milliseconds since the Unix epoch. A subscription that is registered again meanwhile may be in it twice, in an older and a newer
/// version, of which the restoration keeps the newer one. [`restore`] reads it. Pending messages are not in it, nor are schedules of the application,
/// which it makes again when it starts.
///
/// # Errors
///
/// Returns an error if the store is unavailable or the writer fails.
///
/// # Cancel safety
///
/// Dropped, it leaves a file without its last line, which [`restore`] refuses.
///
/// # Security
///
/// With [`Secrets::Included`] the file is as secret as the store.
pub async fn export<S>(
    store: S,
    out: &mut (impl Write + Send),
    secrets: Secrets,
    mut progress: impl FnMut(&ExportReport) + Send,
) -> Result<ExportReport, CopyError>
where
    S: PortableStore + VapidKeyStore + ScheduleStore,
{
    let secrets = secrets == Secrets::Included;
    let from = Side::new(store);
    let clock = SystemClock::new();
    let began = clock.now();
    let mut report = ExportReport::default();
    write(
        out,
        &Line::WebPushExport(Head {
            version: VERSION,
            at: began.as_millis(),
            secrets,
        }),
    )?;
    let mut keys = HashSet::new();
    write_keys(&from, out, &mut keys, secrets).await?;
    report.vapid_keys = keys.len() as u64;
    let mut recent = Recent {
        since: began - CLOCKS,
        written: HashMap::new(),
    };
    let mut after = None;
    loop {
        let page = live_page(&from, after, clock.now()).await?;
        write_rows(&from, out, &page, secrets, &mut report).await?;
        for row in &page {
            recent.note(row);
        }
        progress(&report);
        after = next_after(&page);
        if after.is_none() {
            break;
        }
    }
    for state in [Unreachable::Retired, Unreachable::Stale] {
        let mut after = None;
        loop {
            let page = from.subscriptions.unreachable(state, after, PAGE);
            let page = page.await.map_err(source)?;
            let place = |row: &SubscriptionRecord| {
                Some((state.since(row)?, row.subscription.endpoint().key()))
            };
            let (last, is_last) = (page.last().and_then(place), page.len() < PAGE);
            // The others were listed as retired.
            let rows: Vec<_> = page
                .into_iter()
                .filter(|row| state == Unreachable::Retired || row.retired.is_none())
                .collect();
            write_rows(&from, out, &rows, secrets, &mut report).await?;
            progress(&report);
            if is_last {
                break;
            }
            after = last;
        }
    }
    // Those that were registered meanwhile. A renewal moves a row to another key, from before a walk to behind it.
    loop {
        let page = live_page(&from, after, clock.now()).await?;
        after = next_after(&page);
        let rows: Vec<_> = page.into_iter().filter(|row| recent.note(row)).collect();
        if !rows.is_empty() {
            write_rows(&from, out, &rows, secrets, &mut report).await?;
            progress(&report);
        }
        if after.is_none() {
            break;
        }
    }
    // A rotation meanwhile: subscriptions above may have the new one.
    write_keys(&from, out, &mut keys, secrets).await?;
    report.vapid_keys = keys.len() as u64;
    let end = End {
        vapid_keys: report.vapid_keys,
        subscriptions: report.subscriptions,
        schedules: report.schedules,
    };
    write(out, &Line::End(end))?;
    out.flush().map_err(file)?;
    Ok(report)
}

/// The rows registered since the export began, or shortly before: at which endpoint and when.
struct Recent {
    since: Timestamp,
    written: HashMap<EndpointKey, Timestamp>,
}

impl Recent {
    /// Whether a row is recent and was not written in this version; it is from now on.
    fn note(&mut self, row: &SubscriptionRecord) -> bool {
        row.last_seen_at >= self.since && {
            let key = row.subscription.endpoint().key();
            self.written.insert(key, row.last_seen_at) != Some(row.last_seen_at)
        }
    }
}

async fn live_page(
    from: &Side,
    after: Option<EndpointKey>,
    now: Timestamp,
) -> Result<Vec<SubscriptionRecord>, CopyError> {
    let page = from
        .subscriptions
        .page(&Audience::All, after.as_ref(), PAGE, now);
    page.await.map_err(source)
}

/// After which the next page begins; `None` after the last one.
fn next_after(page: &[SubscriptionRecord]) -> Option<EndpointKey> {
    let last = page.last().filter(|_| page.len() == PAGE);
    last.map(|last| last.subscription.endpoint().key())
}

/// Writes the VAPID keys that were not written yet, the active one first.
async fn write_keys(
    from: &Side,
    out: &mut (impl Write + Send),
    written: &mut HashSet<KeyId>,
    secrets: bool,
) -> Result<(), CopyError> {
    for key in from.vapid_keys.keys().await.map_err(source)? {
        if written.insert(key.id) {
            write(out, &Line::VapidKey(Key::of(&key, secrets)))?;
        }
    }
    Ok(())
}

async fn write_rows(
    from: &Side,
    out: &mut (impl Write + Send),
    rows: &[SubscriptionRecord],
    secrets: bool,
    report: &mut ExportReport,
) -> Result<(), CopyError> {
    for row in rows {
        write(out, &Line::Subscription(Box::new(Row::of(row, secrets))))?;
        report.subscriptions += 1;
    }
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let schedules = schedules_of(&from.ledger, &ids).await.map_err(source)?;
    for schedules in schedules {
        for daily in schedules.iter().filter_map(Daily::of) {
            write(out, &Line::Schedule(daily))?;
            report.schedules += 1;
        }
    }
    Ok(())
}

fn write(out: &mut impl Write, line: &Line) -> Result<(), CopyError> {
    serde_json::to_writer(&mut *out, line).map_err(file)?;
    out.write_all(b"\n").map_err(file)
}

/// Writes what [`export`] has written with its secrets into a store. The whole file is read first, so that a damaged one changes
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
    mut progress: impl FnMut(&ExportReport) + Send,
) -> Result<ExportReport, CopyError>
where
    S: PortableStore + VapidKeyStore + ScheduleStore,
{
    let to = Side::new(store);
    let keys = to.vapid_keys.keys().await.map_err(target)?;
    let rows = to.count(SystemClock::new().now()).await.map_err(target)?;
    if into == RestoreInto::Empty && (rows > 0 || !keys.is_empty()) {
        return Err(CopyErrorKind::NotEmpty.into());
    }
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
                    rows.put(&to, &mut report).await?;
                    progress(&report);
                }
                rows.waiting.push(row);
            }
            Line::Schedule(daily) => {
                rows.put(&to, &mut report).await?;
                let schedule = daily.read().map_err(file)?;
                if rows.take(&schedule, &to).await? {
                    to.ledger.put_schedule(&schedule).await.map_err(target)?;
                    report.schedules += 1;
                }
            }
            Line::WebPushExport(head) => {
                rows.may_be_known = match into {
                    RestoreInto::Empty => Some(Timestamp::from_millis(head.at) - CLOCKS),
                    RestoreInto::Existing => None,
                };
            }
            Line::End(_) => break,
        }
    }
    rows.put(&to, &mut report).await?;
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
        let written = to.subscriptions.put(&self.waiting).await;
        let written = written.map_err(target)?;
        let ids: Vec<_> = self.waiting.iter().map(|row| row.id.into()).collect();
        let there = records(&*to.subscriptions, &ids).await.map_err(target)?;
        self.keep_keys(to).await?;
        let has_schedules = to.ledger.next_fire_at().await.map_err(target)?.is_some();
        let mut put = HashMap::new();
        for ((row, is_written), there) in self.waiting.drain(..).zip(written).zip(there) {
            let is_newer_there = match there {
                Record::Found(there) => there.last_seen_at > row.last_seen_at,
                Record::Missing | Record::Unreadable => true,
            };
            report.subscriptions += u64::from(is_written);
            let may_be_known = self
                .may_be_known
                .is_none_or(|since| row.last_seen_at >= since);
            if is_written && may_be_known && has_schedules {
                // Its daily notifications follow. Others are of an older version, which had them.
                let removed = to.ledger.remove_schedules(row.id).await;
                removed.map_err(target)?;
            }
            if is_written || !is_newer_there {
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

fn file(error: impl Into<BoxError>) -> CopyError {
    CopyError::with_source(CopyErrorKind::File, error)
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
