//! Opening, expanding and ending broadcasts in Redis.

use std::sync::atomic::Ordering;

use redis::Value;

use super::claims::WAKES;
use super::content::{audience, cursor_text, push_broadcast, push_page};
use super::reply::{Fields, Reply, bytes, number, parse, unexpected};
use super::script::{
    Args, CANCEL, ENQUEUE, EXPANDABLE, EXPIRE, HOLD, LAPSE, PRUNE, PULL, UNDERWAY,
};
use super::{RedisStore, StoreError};
use crate::broadcast::{BroadcastId, BroadcastStatus, Counts, FinalOutcome};
use crate::clock::Timestamp;
use crate::store::message_parts::trace_parent;
use crate::store::readable::readable_or_none;
use crate::store::reason::corrupt;
use crate::store::rules::{BroadcastProgress, LONGEST_PAGE, shares};
use crate::store::{
    Cursor, Expansion, LONGEST_WAIT, NewBroadcast, NewDelivery, Opened, PageWrite, Pruned, STEP,
};
use crate::subscription::EndpointKey;

/// Rows that one script ends. A script runs for a few milliseconds.
const ENDED_AT_ONCE: u64 = 1000;
/// Broadcasts that one script lists.
const LISTED_AT_ONCE: usize = 200;

impl RedisStore {
    pub(super) async fn open_broadcast(
        &self,
        new: &NewBroadcast,
        now: Timestamp,
    ) -> Result<Opened, StoreError> {
        let args = push_broadcast(Args::default(), new, now)?;
        let rows = new.page.as_ref().map_or(0, |page| page.rows.len());
        match self.open_shared(args, rows).await? {
            known @ Value::Array(_) => {
                let mut known = Reply::of(known)?;
                Ok(Opened::Repeat(status(&mut known, now)?))
            }
            answer => match bytes(answer)?.as_slice() {
                b"new" => Ok(Opened::New),
                b"conflict" => Ok(Opened::Conflict),
                _ => Err(unexpected()),
            },
        }
    }

    /// Urgent broadcasts come first, and leave others a share (L3). `take` is the number of the list, which decides where the
    /// shares of short ones are rounded up.
    pub(super) async fn expandable_broadcasts(
        &self,
        limit: usize,
        take: u64,
        now: Timestamp,
    ) -> Result<Vec<Expansion>, StoreError> {
        let mut kinds = [Listed::default(), Listed::default()];
        // Broadcasts past their deadline have to be skipped until they are expired.
        while kinds.iter().any(|kind| kind.left(limit) > 0) {
            let times = Args::at(now).time(now + LONGEST_PAGE);
            let args = kinds.iter().fold(times, |args, kind| {
                args.number(kind.left(limit))
                    .number(kind.new)
                    .number(kind.run)
            });
            let mut answer = Reply::of(self.run(&EXPANDABLE, &args).await?)?;
            for (kind, is_urgent) in kinds.iter_mut().zip([true, false]) {
                let is_asked = kind.left(limit) > 0;
                let part = answer.list()?;
                if is_asked {
                    kind.read(part, is_urgent)?;
                }
            }
        }
        let [urgent, others] = kinds.map(|kind| kind.found);
        let [first, rest, _] = shares(limit, take, [urgent.len(), others.len(), 0]);
        let urgent = urgent.into_iter().take(first);
        Ok(urgent.chain(others.into_iter().take(rest)).collect())
    }

    pub(super) async fn enqueue(
        &self,
        id: BroadcastId,
        expected: &Cursor,
        rows: &[NewDelivery],
        next: &Cursor,
        now: Timestamp,
    ) -> Result<PageWrite, StoreError> {
        let args = Args::at(now)
            .number(LONGEST_PAGE.as_millis())
            .with(*id.as_bytes())
            .with(cursor_text(expected));
        let args = push_page(args, rows, next);
        Ok(match number(self.run(&ENQUEUE, &args).await?)? {
            0 => PageWrite::Stale,
            _ => PageWrite::Stored,
        })
    }

    pub(super) async fn cancel_broadcast(
        &self,
        id: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        self.lapse(now).await?;
        self.cancel_step(id, now).await
    }

    /// Cancels a broadcast. Its rows whose lease has ended stay as they are.
    pub(super) async fn cancel_step(
        &self,
        id: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        let args = Args::at(now).with(*id.as_bytes());
        let mut answer = match self.run(&CANCEL, &args).await? {
            Value::Nil => return Ok(None),
            answer => Reply::of(answer)?,
        };
        let _has_more = answer.flag()?;
        status(&mut answer.list()?, now).map(Some)
    }

    pub(super) async fn hold_broadcast(
        &self,
        id: BroadcastId,
        is_held: bool,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        let args = Args::at(now).with(*id.as_bytes()).number(u8::from(is_held));
        match self.run(&HOLD, &args).await? {
            Value::Nil => Ok(None),
            answer => status(&mut Reply::of(answer)?, now).map(Some),
        }
    }

    pub(super) async fn broadcast_status(
        &self,
        id: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        let inner = &*self.inner;
        let mut key = format!("{}:b:", inner.namespace).into_bytes();
        key.extend(id.as_bytes());
        let mut cmd = redis::cmd("HGETALL");
        cmd.arg(key);
        let fields = Fields::of(inner.link.send(&cmd, inner.limits).await?)?;
        if fields.is_empty() {
            return Ok(None);
        }
        progress(id, fields).map(|progress| Some(progress.status(now)))
    }

    pub(super) async fn broadcasts_underway(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<BroadcastStatus>, StoreError> {
        let (mut found, mut seen) = (Vec::new(), 0);
        while found.len() < limit {
            let wanted = LISTED_AT_ONCE.min(limit - found.len());
            let args = Args::default().number(seen).number(seen + wanted - 1);
            let mut listed = 0;
            for answer in Reply::of(self.run(&UNDERWAY, &args).await?)? {
                listed += 1;
                // Those that cannot be read have no status. The worker parks them.
                found.extend(readable_or_none(status(&mut Reply::of(answer)?, now))?);
            }
            seen += listed;
            if listed < wanted {
                break;
            }
        }
        Ok(found)
    }

    pub(super) async fn expire_rows(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        self.lapse(now).await?;
        let limit = limit as u64;
        let (mut ended, mut skipped) = (0, 0);
        while ended < limit {
            let at_once = ENDED_AT_ONCE.min(limit - ended);
            let args = Args::at(now).number(at_once).number(skipped);
            let mut answer = Reply::of(self.run(&EXPIRE, &args).await?)?;
            ended += answer.number()?;
            skipped = answer.number()?;
            if !answer.flag()? {
                break;
            }
        }
        self.pull_rows(now).await?;
        Ok(ended)
    }

    /// Makes rows due whose moment is too late, among the next broadcasts of a walk (L12).
    async fn pull_rows(&self, now: Timestamp) -> Result<(), StoreError> {
        let skipped = &self.inner.pulled;
        let args = Args::at(now).time(now + LONGEST_WAIT);
        let args = args.number(skipped.load(Ordering::Relaxed));
        let next = number(self.run(&PULL, &args).await?)?;
        skipped.store(next, Ordering::Relaxed);
        Ok(())
    }

    pub(super) async fn prune_broadcasts(
        &self,
        ended_before: Timestamp,
    ) -> Result<Pruned, StoreError> {
        let mut broadcasts = 0;
        while broadcasts < STEP as u64 {
            let some = number(self.run(&PRUNE, &Args::at(ended_before)).await?)?;
            broadcasts += some;
            if some == 0 {
                break;
            }
        }
        let has_more_origins = self.prune_origins(ended_before).await?;
        Ok(Pruned {
            broadcasts,
            more: broadcasts >= STEP as u64 || has_more_origins,
        })
    }

    /// Makes rows ready whose lease has ended, in one step: claims make the rest ready.
    pub(super) async fn lapse(&self, now: Timestamp) -> Result<(), StoreError> {
        for _ in 0..WAKES {
            if number(self.run(&LAPSE, &Args::at(now)).await?)? == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// Broadcasts of one kind to expand, as far as they were read.
#[derive(Default)]
struct Listed {
    /// The members read of the two sets.
    new: u64,
    run: u64,
    found: Vec<Expansion>,
    is_all: bool,
}

impl Listed {
    fn left(&self, limit: usize) -> usize {
        match self.is_all {
            true => 0,
            false => limit.saturating_sub(self.found.len()),
        }
    }

    fn read(&mut self, mut part: Reply, is_urgent: bool) -> Result<(), StoreError> {
        let (new, run) = (part.number()?, part.number()?);
        self.is_all = part.flag()? || new + run == 0;
        self.new += new;
        self.run += run;
        for expansion in part.list()? {
            let mut parts = Reply::of(expansion)?;
            let id = BroadcastId::from_bytes(parts.array()?);
            let (text, cursor, pace) = (parts.bytes()?, parts.bytes()?, parts.bytes()?);
            let parent = parts.bytes()?;
            let read = audience(&text).and_then(|audience| {
                let pace = (!pace.is_empty()).then(|| parse(&pace)).transpose()?;
                let parent = str::from_utf8(&parent).ok();
                Ok(Expansion {
                    trace_parent: trace_parent(parent),
                    ..Expansion::new(id, audience, read_cursor(&cursor)?, pace)
                })
            });
            self.found.push(Expansion {
                is_urgent,
                ..read.unwrap_or_else(|_| Expansion::unreadable(id))
            });
        }
        Ok(())
    }
}

/// Reads an id and the counts of its broadcast.
pub(super) fn status(answer: &mut Reply, now: Timestamp) -> Result<BroadcastStatus, StoreError> {
    let id = BroadcastId::from_bytes(answer.array()?);
    Ok(progress(id, answer.fields()?)?.status(now))
}

fn progress(id: BroadcastId, mut fields: Fields) -> Result<BroadcastProgress, StoreError> {
    let missing = || corrupt("a broadcast without a part");
    let mut progress = BroadcastProgress {
        id,
        expected: fields.count("expected")?,
        written: fields.count("written")?,
        expanding: fields.count("expanding")? != 0,
        cancelled: fields.count("cancelled")? != 0,
        held: fields.count("held")? != 0,
        created_at: fields.time("created_at")?.ok_or_else(missing)?,
        send_at: fields.time("send_at")?,
        deadline: fields.time("deadline")?.ok_or_else(missing)?,
        pace: fields.take("pace").map(|pace| parse(&pace)).transpose()?,
        counts: Counts::default(),
    };
    for &outcome in FinalOutcome::ALL {
        let count = fields.count(&format!("outcome:{}", outcome.as_str()))?;
        progress.counts.add(outcome, count);
    }
    Ok(progress)
}

fn read_cursor(text: &[u8]) -> Result<Cursor, StoreError> {
    match text.split_first() {
        None => Ok(Cursor::Start),
        Some((b'A', key)) => {
            let key = key.try_into().map_err(|_| corrupt("a cursor"))?;
            Ok(Cursor::After(EndpointKey::from_bytes(key)))
        }
        Some((b'E', [])) => Ok(Cursor::End),
        Some(_) => Err(corrupt("a cursor")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back() {
        let key = EndpointKey::from_bytes([b'E'; 32]);
        for cursor in [Cursor::Start, Cursor::After(key), Cursor::End] {
            assert_eq!(read_cursor(&cursor_text(&cursor)).unwrap(), cursor);
        }
        assert!(read_cursor(b"A1").is_err());
    }
}
