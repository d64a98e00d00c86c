//! A store as a file of lines.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::time::Duration;

use super::error::{CopyError, CopyErrorKind, source};
use super::lines::{Daily, End, Head, Key, Line, Row, VERSION};
use super::{PAGE, Side};
use crate::broadcast::Audience;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::engine::schedules_of::schedules_of;
use crate::error::BoxError;
use crate::store::{PortableStore, ScheduleStore, SubscriptionRecord, Unreachable, VapidKeyStore};
use crate::subscription::EndpointKey;
use crate::vapid::KeyId;

/// Servers whose clocks are behind by less write no registration that looks older than the export.
pub(super) const CLOCKS: Duration = Duration::from_secs(5 * 60);

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
    /// key-encryption key. Who has the file can send to all subscribers. [`restore`](super::restore()) needs them.
    Included,
    /// Ids, push services, users and states only. Such a file cannot be restored. With an id one can unsubscribe.
    LeftOut,
}

/// Writes VAPID keys, subscriptions, and daily notifications of subscribers as JSON, an object in each line, page
/// by page, while servers use the store. Calls `progress` with the numbers after each page. Subscriptions that have expired and are
/// not retired yet are left out.
///
/// The first line is `{"webPushExport":{"version":1,…}}`, and the last one, `{"end":…}`, has the numbers of the others. Times are
/// milliseconds since the Unix epoch. A subscription that is registered again meanwhile may be in it twice, in an older and a newer
/// version, of which the restoration keeps the newer one. [`restore`](super::restore()) reads it. Pending messages are not in it, nor are schedules of the application,
/// which it makes again when it starts.
///
/// # Errors
///
/// Returns an error if the store is unavailable or the writer fails.
///
/// # Cancel safety
///
/// Dropped, it leaves a file without its last line, which [`restore`](super::restore()) refuses.
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

pub(super) fn file(error: impl Into<BoxError>) -> CopyError {
    CopyError::with_source(CopyErrorKind::File, error)
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
