//! The origins that can be claimed from.
//!
//! An origin is marked as `ready` if it has ready rows. A transaction that makes rows ready locks their origins with
//! `FOR KEY SHARE` until it commits, and then marks those that are not marked. A mark is removed under a lock that excludes
//! this, by a statement that begins when it holds the lock and looks for rows again. So no row is ever without a mark. A mark
//! without rows does no harm. Of those a few stay, so that an origin to which a message is sent now and then is not written
//! for each. A claim moves an origin that is paused out of the order of turns (`held`), and back when its pause is over.

use super::attempts::in_transaction;
use super::connection::{Database, Tx};
use super::error::Failed;
use super::origins::read_origin;
use super::rows::{Columns, integer, read};
use crate::clock::Timestamp;
use crate::store::readable::{
    UNREADABLE_ORIGIN, UNREADABLE_REASON, readable_or_none, report_unreadable_origins,
};
use crate::store::rules::BANDS;
use crate::store::{ClaimRequest, PauseReason, STEP, StoreError};
use crate::subscription::Origin;

/// Origins that one statement reads.
const PAGE: usize = 256;
/// The marks without rows that one claim leaves in place.
const IDLE: usize = 32;

/// Marked origins in the order of their turns: the least recently served first. One index lookup for each band: with
/// `OFFSET 0` the planner cannot read all ready rows instead.
pub(super) const FRONT: &str = "SELECT o.id, o.served, o.origin, o.pause_reason, coalesce(o.paused_until > $1, false), o.takes, \
         EXISTS (SELECT 1 FROM web_push.delivery AS d WHERE d.origin = o.id AND d.band = 0 AND d.turn IS NOT NULL OFFSET 0), \
         EXISTS (SELECT 1 FROM web_push.delivery AS d WHERE d.origin = o.id AND d.band = 1 AND d.turn IS NOT NULL OFFSET 0), \
         EXISTS (SELECT 1 FROM web_push.delivery AS d WHERE d.origin = o.id AND d.band = 2 AND d.turn IS NOT NULL OFFSET 0) \
     FROM (SELECT * FROM web_push.origin WHERE ready AND NOT held AND (served, id) > ($2, $3) \
         ORDER BY served, id LIMIT $4) AS o ORDER BY o.served, o.id";
/// Those of them with these names. One index lookup for each: with `OFFSET 0` the planner cannot read all that are marked.
pub(super) const FRONT_NAMED: &str = "SELECT o.id, o.served, o.origin, o.pause_reason, coalesce(o.paused_until > $1, false), o.takes, \
         EXISTS (SELECT 1 FROM web_push.delivery AS d WHERE d.origin = o.id AND d.band = 0 AND d.turn IS NOT NULL OFFSET 0), \
         EXISTS (SELECT 1 FROM web_push.delivery AS d WHERE d.origin = o.id AND d.band = 1 AND d.turn IS NOT NULL OFFSET 0), \
         EXISTS (SELECT 1 FROM web_push.delivery AS d WHERE d.origin = o.id AND d.band = 2 AND d.turn IS NOT NULL OFFSET 0) \
     FROM (SELECT found.* FROM unnest($2::text[]) AS named (origin) CROSS JOIN LATERAL ( \
             SELECT * FROM web_push.origin WHERE origin.origin = named.origin OFFSET 0) AS found \
         WHERE found.ready AND NOT found.held ORDER BY found.served, found.id LIMIT $3) AS o ORDER BY o.served, o.id";
/// Locks as a foreign key does, which excludes the removal of marks.
pub(super) const SHARE: &str =
    "SELECT id, ready FROM web_push.origin WHERE id = ANY($1) ORDER BY id FOR KEY SHARE";
/// Locks in one order, so that there are no deadlocks.
pub(super) const MARK: &str = "UPDATE web_push.origin SET ready = true WHERE id = ANY(ARRAY( \
     SELECT id FROM web_push.origin WHERE id = ANY($1) AND NOT ready ORDER BY id FOR NO KEY UPDATE))";
pub(super) const HOLD: &str = "UPDATE web_push.origin SET held = true WHERE id = ANY(ARRAY(SELECT id FROM web_push.origin \
     WHERE id = ANY($1) AND ready AND paused_until > $2 FOR NO KEY UPDATE SKIP LOCKED))";
pub(super) const PARK: &str = "UPDATE web_push.origin SET held = true, paused_until = $2, pause_reason = $3 WHERE id = ANY(ARRAY( \
     SELECT id FROM web_push.origin WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED))";
pub(super) const LET_GO: &str = "UPDATE web_push.origin SET held = false WHERE id = ANY(ARRAY(SELECT id FROM web_push.origin \
     WHERE held AND paused_until <= $1 ORDER BY paused_until LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED))";
/// Excludes writers of rows. Skips origins at which rows are being written.
pub(super) const LOCK_IDLE: &str =
    "SELECT id FROM web_push.origin WHERE id = ANY($1) AND ready FOR UPDATE SKIP LOCKED";
/// A second statement, whose snapshot includes all rows written before the locks were taken.
pub(super) const UNMARK: &str = "UPDATE web_push.origin AS o SET ready = false, held = false WHERE o.id = ANY($1) \
     AND NOT EXISTS (SELECT 1 FROM web_push.delivery AS d WHERE d.origin = o.id AND d.turn IS NOT NULL OFFSET 0)";

/// An origin with ready rows.
pub(super) struct Head {
    pub(super) id: i64,
    pub(super) origin: Origin,
    pub(super) is_probed: bool,
    /// The number of claims of its rows.
    pub(super) takes: u64,
    /// Whether each band has rows.
    pub(super) has: [bool; BANDS],
    served: i64,
    is_paused: bool,
}

/// A marked origin, or one whose name cannot be read.
enum Marked {
    Head(Head),
    Unreadable { id: i64, served: i64 },
}

impl Marked {
    fn read(columns: &mut Columns<'_>) -> Result<Self, StoreError> {
        let (id, served) = (columns.get()?, columns.get()?);
        let Some(origin) = readable_or_none(read_origin(columns))? else {
            return Ok(Self::Unreadable { id, served });
        };
        Ok(Self::Head(Head {
            id,
            served,
            origin,
            is_probed: columns
                .get::<Option<&str>>()?
                .and_then(PauseReason::from_name)
                .is_some_and(PauseReason::is_probed),
            is_paused: columns.get()?,
            // Only counted on: damage must not end all claims.
            takes: columns.get::<i64>()?.unsigned_abs(),
            has: [columns.get()?, columns.get()?, columns.get()?],
        }))
    }
}

/// The first origins in the order of turns.
#[derive(Default)]
pub(super) struct Front {
    pub(super) heads: Vec<Head>,
    /// Whether there may be more.
    pub(super) is_cut: bool,
}

/// Returns origins with ready rows that the request admits, those served longest ago first.
///
/// Reads at most about as many origins as there are rows to claim, origins in the request, and [`STEP`], and those that
/// it does not admit, any number of which may stand in front: if it admits named origins only, it reads those. Those that
/// cannot be claimed from leave the order.
pub(super) async fn front(
    database: &Database,
    request: &ClaimRequest,
    now: Timestamp,
) -> Result<Front, StoreError> {
    let mut front = Front::default();
    let (mut paused, mut idle, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
    let most = request.limit.saturating_add(request.origins.len()) + STEP;
    let (mut reads, mut last) = (0, (i64::MIN, i64::MIN));
    let named = (request.per_origin == 0).then(|| {
        let named = request.origins.iter().filter(|(_, room)| **room > 0);
        named.map(|(origin, _)| origin.as_str()).collect::<Vec<_>>()
    });
    if named.as_ref().is_some_and(Vec::is_empty) {
        return Ok(front);
    }
    loop {
        let now = now.as_millis();
        let (page, rows) = match &named {
            Some(named) => {
                let page = most;
                let values = &[&now as _, &named as _, &integer(page) as _];
                (page, database.query(FRONT_NAMED, values).await?)
            }
            None => {
                // An answer of the usual size needs one statement.
                let page = PAGE.min(request.limit - front.heads.len() + IDLE);
                let values = &[&now as _, &last.0 as _, &last.1 as _, &integer(page) as _];
                (page, database.query(FRONT, values).await?)
            }
        };
        front.is_cut = rows.len() == page;
        for marked in read(&rows, Marked::read)? {
            reads += 1;
            let head = match marked {
                Marked::Head(head) => head,
                Marked::Unreadable { id, served } => {
                    last = (served, id);
                    unreadable.push(id);
                    continue;
                }
            };
            last = (head.served, head.id);
            if !head.has.contains(&true) {
                idle.push(head.id);
            } else if head.is_paused {
                paused.push(head.id);
            } else if request.most_of(&head.origin) > 0 {
                if front.heads.len() == request.limit {
                    front.is_cut = true;
                    break;
                }
                front.heads.push(head);
            } else {
                reads -= 1;
            }
        }
        if !front.is_cut || reads >= most || front.heads.len() == request.limit {
            break;
        }
    }
    if !unreadable.is_empty() {
        let until = (now + UNREADABLE_ORIGIN).as_millis();
        let values = &[&unreadable as _, &until as _, &UNREADABLE_REASON as _];
        database.execute(PARK, values).await?;
        report_unreadable_origins(unreadable.len());
    }
    if !paused.is_empty() {
        database.execute(HOLD, &[&paused, &now.as_millis()]).await?;
    }
    if idle.len() > IDLE {
        in_transaction!(database, |tx| unmark(tx, &idle))?;
    }
    Ok(front)
}

async fn unmark(tx: &mut Tx<'_>, idle: &[i64]) -> Result<(), Failed> {
    let rows = tx.query(LOCK_IDLE, &[&idle]).await?;
    let locked: Vec<i64> = read(&rows, |columns| columns.get())?;
    if !locked.is_empty() {
        tx.execute(UNMARK, &[&locked]).await?;
    }
    Ok(())
}

/// Marks origins at which this transaction has made rows ready, if they are not marked.
pub(super) async fn mark(tx: &mut Tx<'_>, origins: &[i64]) -> Result<(), Failed> {
    let rows = tx.query(SHARE, &[&origins]).await?;
    let shared = read(&rows, |columns| {
        Ok((columns.get::<i64>()?, columns.get::<bool>()?))
    })?;
    let unmarked = shared.into_iter().filter(|(_, is_ready)| !is_ready);
    let unmarked: Vec<_> = unmarked.map(|(id, _)| id).collect();
    mark_unmarked(tx, &unmarked).await
}

/// Marks origins that this transaction has locked and seen without a mark.
pub(super) async fn mark_unmarked(tx: &mut Tx<'_>, unmarked: &[i64]) -> Result<(), Failed> {
    if !unmarked.is_empty() {
        tx.execute(MARK, &[&unmarked]).await?;
    }
    Ok(())
}
