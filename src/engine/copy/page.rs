//! One page of a pass.

use std::collections::{BTreeMap, HashSet};

use super::error::{CopyError, CopyErrorKind, source, target};
use super::handed_over::remove_former;
use super::journal::{Entry, Journal};
use super::row::{Row, owner};
use super::{Copy, CopyReport, PAGE};
use crate::broadcast::Audience;
use crate::clock::Clock as _;
use crate::engine::records::{Record, records};
use crate::store::{
    Assignment, Change, NewSubscription, StoreErrorKind, SubscriptionLimits, SubscriptionRecord,
    SubscriptionRef, Upserted,
};
use crate::subscription::EndpointKey;
use crate::vapid::KeyId;

/// The fewest rows of a page that the last pass saw for which it matters how many of them the target has lost.
const FEWEST_KNOWN: usize = 20;

/// A row that no page of the source lists any more.
#[derive(Default)]
struct Other {
    /// What the last pass saw of it.
    before: Option<Entry>,
    /// What interrupted passes were writing of it.
    begun: Vec<Entry>,
}

impl Copy {
    /// Copies the next page of live rows. Returns the key up to which all is copied, or `None` at the end.
    pub(super) async fn copy_page(
        &self,
        after: Option<EndpointKey>,
        journal: &mut Journal,
        known: &mut HashSet<KeyId>,
        report: &mut CopyReport,
    ) -> Result<Option<EndpointKey>, CopyError> {
        let now = self.clock.now();
        let page = self
            .from
            .subscriptions
            .page(&Audience::All, after.as_ref(), PAGE, now);
        let page = page.await.map_err(source)?;
        let is_last = page.len() < PAGE;
        let mut page: BTreeMap<_, _> = page
            .into_iter()
            .map(|row| (row.subscription.endpoint().key(), row))
            .collect();
        let mut until = match is_last {
            true => None,
            false => page.keys().next_back().copied(),
        };
        let seen = journal.seen_until(until.as_ref(), 2 * PAGE)?;
        if seen.is_cut {
            // The source has lost more than a page in this range: it is copied in parts.
            until = seen.entries.last().map(|entry| entry.key);
            page.retain(|key, _| until.is_none_or(|until| *key <= until));
        }
        let mut before: BTreeMap<_, _> = seen
            .entries
            .into_iter()
            .map(|entry| (entry.key, entry))
            .collect();
        let mut begun = journal.begun_until(until.as_ref());
        let mut rows: Vec<_> = page
            .into_iter()
            .map(|(key, record)| Row {
                key,
                record,
                before: before.remove(&key),
                begun: begun.remove(&key).unwrap_or_default(),
                there: Record::Missing,
                is_listed: true,
                is_written: false,
            })
            .collect();
        // The others are in no page any more: retired, stale, expired, unreadable, or deleted.
        let mut others: BTreeMap<_, Other> = BTreeMap::new();
        for (key, before) in before {
            others.entry(key).or_default().before = Some(before);
        }
        for (key, begun) in begun {
            others.entry(key).or_default().begun = begun;
        }
        let gone = self.find_others(others, &mut rows).await?;
        self.look(&mut rows).await?;
        // What is assigned in the source after an interruption is told from what is assigned in the target.
        let begun = rows.iter().filter(|row| row.is_listed);
        let begun: Vec<_> = begun.map(Row::begin).collect();
        journal.begin(&begun)?;
        self.write(&mut rows, known, report).await?;
        self.look_again(&mut rows).await?;
        let entries = self.copy_schedules(&rows, report).await?;
        self.delete(&gone, report).await?;
        report.read += entries.len() as u64;
        journal.append(&entries, until.as_ref())?;
        Ok(until)
    }

    /// Adds those that the source still has to the rows. Returns those that it has deleted, each as the latest that the target
    /// may have of it from the source.
    async fn find_others(
        &self,
        others: BTreeMap<EndpointKey, Other>,
        rows: &mut Vec<Row>,
    ) -> Result<Vec<Entry>, CopyError> {
        let names: Vec<_> = others
            .keys()
            .map(|key| SubscriptionRef::Key(*key))
            .collect();
        let found = records(&*self.from.subscriptions, &names).await;
        let mut gone = Vec::new();
        for ((key, other), found) in others.into_iter().zip(found.map_err(source)?) {
            match found {
                Record::Found(record) => rows.push(Row {
                    key,
                    record: *record,
                    before: other.before,
                    begun: other.begun,
                    there: Record::Missing,
                    is_listed: false,
                    is_written: false,
                }),
                Record::Missing => {
                    let versions = other.before.into_iter().chain(other.begun);
                    gone.extend(versions.max_by_key(|entry| entry.last_seen_at));
                }
                // Not known to be deleted.
                Record::Unreadable => {}
            }
        }
        Ok(gone)
    }

    /// Reads what the target has of the rows.
    async fn look(&self, rows: &mut [Row]) -> Result<(), CopyError> {
        let names: Vec<_> = rows
            .iter()
            .map(|row| SubscriptionRef::Key(row.key))
            .collect();
        let there = records(&*self.to.subscriptions, &names).await;
        for (row, there) in rows.iter_mut().zip(there.map_err(target)?) {
            row.there = there;
        }
        self.has_lost_none(rows)
    }

    /// Reads rows that were not written again: another user may have registered them with the target meanwhile.
    async fn look_again(&self, rows: &mut [Row]) -> Result<(), CopyError> {
        let mut left: Vec<_> = rows.iter_mut().filter(|row| !row.is_written).collect();
        if left.is_empty() || !self.ledgers().have_any().await? {
            return Ok(());
        }
        let names = left.iter().map(|row| SubscriptionRef::Key(row.key));
        let names: Vec<_> = names.collect();
        let there = records(&*self.to.subscriptions, &names).await;
        for (row, there) in left.iter_mut().zip(there.map_err(target)?) {
            row.there = there;
        }
        Ok(())
    }

    /// Writes the rows that the target does not have, or has in an older version.
    async fn write(
        &self,
        rows: &mut [Row],
        known: &mut HashSet<KeyId>,
        report: &mut CopyReport,
    ) -> Result<(), CopyError> {
        let left_out = rows.iter().filter(|row| row.is_deleted_there());
        report.left_out += left_out.count() as u64;
        for row in rows.iter() {
            self.assign(row, report).await?;
        }
        let mut wanted: Vec<_> = rows.iter_mut().filter(|row| row.is_wanted()).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = wanted.iter().map(|row| row.record.vapid_key).collect();
        self.know(keys.iter().copied(), known, report).await?;
        let records: Vec<_> = wanted.iter().map(|row| row.version()).collect();
        report.schedules += remove_former(&self.to, &records).await?;
        // The endpoint has another id there, which names the daily notifications. The new one gets them first: whichever
        // call fails, the id that the row has names them all. A schedule without a row ends when it is due.
        let mut given = Vec::new();
        for row in &wanted {
            given.push(match &row.there {
                Record::Found(there) if there.id != row.record.id && !row.is_handed_over() => {
                    let ledgers = self.ledgers();
                    Some((there.id, ledgers.give(there.id, row.record.id).await?))
                }
                _ => None,
            });
        }
        let written = self.to.subscriptions.put(&records).await.map_err(target)?;
        self.keep(keys.into_iter(), known, report).await?;
        for ((row, is_written), given) in wanted.iter_mut().zip(written).zip(given) {
            row.is_written = is_written;
            report.written += u64::from(is_written);
            let ledger = &self.to.ledger;
            match given {
                Some((former, _)) if is_written => {
                    // Not only removed: a worker that met the new id's before their row has removed those.
                    let moved = ledger.move_schedules(former, row.record.id);
                    moved.await.map_err(target)?;
                }
                // Another row has the id.
                Some((_, given)) => {
                    for schedule in given {
                        // One that the other row's browser has put since is not that which was given.
                        let removed = ledger.remove_unchanged_schedule(&schedule);
                        removed.await.map_err(target)?;
                    }
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Gives a row of the target the user and the tags that it was assigned in the source. They make no newer version of it.
    async fn assign(&self, row: &Row, report: &mut CopyReport) -> Result<(), CopyError> {
        let Record::Found(there) = &row.there else {
            return Ok(());
        };
        if row.is_wanted() || !row.is_assigned_here(there) {
            return Ok(());
        }
        let assignment = Assignment {
            principal: Some(row.record.principal.clone()),
            tags: Some(row.record.tags.clone()),
        };
        let new = NewSubscription::assigning(there, assignment);
        // It removes no other device of the user.
        let limits = SubscriptionLimits::new(u64::MAX, u32::MAX).with_unproven(u64::MAX);
        let stored = self
            .to
            .subscriptions
            .upsert(&new, &limits, self.clock.now());
        if let Upserted::Stored { .. } = stored.await.map_err(target)? {
            report.written += 1;
        }
        Ok(())
    }

    /// Refuses a page of which the target has most rows no more. A server that acknowledged them and then lost them, by a
    /// crash or a failover, looks as if their users had left.
    fn has_lost_none(&self, rows: &[Row]) -> Result<(), CopyError> {
        let known = rows.iter().filter(|row| row.before.is_some()).count();
        let deleted = rows.iter().filter(|row| row.is_deleted_there()).count();
        if known < FEWEST_KNOWN || deleted <= known / 2 {
            return Ok(());
        }
        let why = format!(
            "the target had {known} subscriptions of one page, and {deleted} of them are gone: it seems to have lost them. \
             Delete {journal} and {journal}.part to copy all again, also those whose users have left the target",
            journal = self.journal.display()
        );
        Err(CopyError::with_source(CopyErrorKind::LostRows, why))
    }

    /// Copies the daily notifications of the rows. Returns what the journal records of those that the page lists.
    async fn copy_schedules(
        &self,
        rows: &[Row],
        report: &mut CopyReport,
    ) -> Result<Vec<Entry>, CopyError> {
        let ledgers = self.ledgers();
        let done = match ledgers.have_any().await? {
            true => {
                let pairs: Vec<_> = rows.iter().map(Row::pair).collect();
                Some(ledgers.copy_all(&pairs, self.clock.now()).await?)
            }
            false => None,
        };
        let mut entries = Vec::new();
        for (place, row) in rows.iter().enumerate() {
            let done = done.as_ref().and_then(|done| done.get(place));
            report.schedules += done.map_or(0, |done| done.changed);
            let types = match row.pair() {
                Some(_) => done.map_or(0, |done| done.types),
                None if row.is_handed_over() => 0,
                None => row.before.map_or(0, |before| before.types),
            };
            if row.is_listed {
                entries.push(Entry {
                    key: row.key,
                    last_seen_at: row.last_seen_at(),
                    types,
                    owner: owner(&row.record),
                });
            }
        }
        Ok(entries)
    }

    /// Deletes rows in the target that the source has deleted, unless the browser has registered them there since.
    async fn delete(&self, gone: &[Entry], report: &mut CopyReport) -> Result<(), CopyError> {
        if gone.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = gone
            .iter()
            .map(|entry| SubscriptionRef::Key(entry.key))
            .collect();
        let there = records(&*self.to.subscriptions, &names).await;
        for (entry, there) in gone.iter().zip(there.map_err(target)?) {
            let Record::Found(there) = there else {
                continue;
            };
            if there.last_seen_at > entry.last_seen_at || self.has_moved(&there).await? {
                continue;
            }
            let deletion = [Change::delete(&there)];
            let deleted = self.to.subscriptions.apply(&deletion, self.clock.now());
            if deleted.await.map_err(target)? > 0 {
                let removed = self.to.ledger.remove_schedules(there.id).await;
                report.schedules += removed.map_err(target)?;
                report.deleted += 1;
            }
        }
        Ok(())
    }

    /// Whether the source has given the id of a row to another endpoint: the subscription was renewed, and writing the other
    /// row removes this one.
    async fn has_moved(&self, row: &SubscriptionRecord) -> Result<bool, CopyError> {
        match self.from.subscriptions.get(&[row.id.into()]).await {
            Ok(found) => Ok(found.first().is_some_and(Option::is_some)),
            Err(error) if error.kind() == StoreErrorKind::Corrupt => Ok(true),
            Err(error) => Err(source(error)),
        }
    }
}
