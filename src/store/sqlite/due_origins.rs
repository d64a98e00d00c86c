//! The origins that can be claimed from, and when others can.
//!
//! An origin with ready rows waits until its pause is over. Then it has a place in the order of turns of origins, by the
//! fence of the last claim of its rows. Claims read the first ones. What is stored may be too early (a row was deleted, a
//! pause was written), never too late: an origin that is not due when it is read waits again.

use rusqlite::params;

use super::broadcasts::ORIGIN_ID;
use super::connection::Connection;
use super::liveness;
use super::query::{Columns, all, execute, first, integer};
use crate::clock::Timestamp;
use crate::store::oldest_due::always_told;
use crate::store::readable::{
    UNREADABLE_ORIGIN, UNREADABLE_REASON, readable_or_none, report_unreadable_origins,
};
use crate::store::rules::{BANDS, aside_sql};
use crate::store::{ClaimRequest, OldestDue, PauseReason, STEP, StoreError};
use crate::subscription::Origin;

/// Origins read by one statement.
const PAGE: usize = 256;
/// Claims of an origin's rows are counted up to this number, and then from 0 again.
const TAKES: u64 = 1 << 30;

pub(super) const FIRST: &str = "SELECT 1 FROM delivery INDEXED BY delivery_ready WHERE origin = ?1 AND turn IS NOT NULL LIMIT 1";
pub(super) const WAKE: &str = "UPDATE origin INDEXED BY origin_waiting SET turn = served \
     WHERE turn IS NULL AND ready = 1 AND resumes_at <= ?1 AND id IN (SELECT id FROM origin INDEXED BY origin_waiting \
     WHERE turn IS NULL AND ready = 1 AND resumes_at <= ?1 ORDER BY resumes_at LIMIT ?2)";
pub(super) const READY: &str = "SELECT id, paused_until, turn, origin, pause_reason, takes FROM origin INDEXED BY origin_ready \
     WHERE turn IS NOT NULL AND (turn, id) > (?1, ?2) ORDER BY turn, id LIMIT ?3";
pub(super) const READY_NAMED: &str = "SELECT id, paused_until, turn, origin, pause_reason, takes FROM origin \
     WHERE origin = ?1 AND turn IS NOT NULL";
pub(super) const PAUSED: &str = "SELECT id, resumes_at FROM origin INDEXED BY origin_waiting \
     WHERE turn IS NULL AND ready = 1 ORDER BY resumes_at LIMIT ?1";
pub(super) const PLACE: &str = "UPDATE origin SET ready = ?2, turn = ?3 WHERE id = ?1";
pub(super) const SERVED: &str = "UPDATE origin SET served = ?2, takes = ?3, high = max(high, ?4), \
     normal = max(normal, ?5), low = max(low, ?6) WHERE id = ?1";
pub(super) const BRING_FORWARD: &str = "UPDATE origin SET ready = 1 WHERE id = ?1 AND ready = 0";
pub(super) const PARK: &str =
    "UPDATE origin SET paused_until = ?2, pause_reason = ?3, turn = NULL WHERE id = ?1";
/// Waiting rows whose time has come, and the pause of their origin.
pub(super) const WAITING: &str = "SELECT at, (SELECT paused_until FROM origin WHERE origin.id = delivery.origin) \
     FROM delivery INDEXED BY delivery_waiting \
     WHERE delivery.turn IS NULL AND leased = ?1 AND at <= ?2 ORDER BY at LIMIT ?3";
pub(super) const LATER: &str = concat!(
    "SELECT min(at) FROM delivery INDEXED BY delivery_waiting WHERE turn IS NULL AND leased = ?1 AND at > ?2 AND at < ",
    aside_sql!()
);
pub(super) const LONGEST: &str = "SELECT at, origin FROM delivery INDEXED BY delivery_waiting \
     WHERE turn IS NULL AND leased = ?1 ORDER BY at LIMIT 1";
pub(super) const NAME: &str = "SELECT origin FROM origin WHERE id = ?1";
pub(super) const HEAD: &str = "SELECT at FROM delivery INDEXED BY delivery_ready WHERE origin = ?1 AND band = ?2 AND turn IS NOT NULL \
     ORDER BY turn, broadcast, key LIMIT 1";

/// An origin with ready rows.
pub(super) struct Head {
    pub(super) id: i64,
    pub(super) origin: Origin,
    pub(super) is_probed: bool,
    /// The number of claims of its rows so far.
    pub(super) takes: u64,
}

/// The first origins in the order of turns.
#[derive(Default)]
pub(super) struct Front {
    pub(super) heads: Vec<Head>,
    /// The number of origins that were read of those that the request admits.
    pub(super) reads: usize,
    /// Whether others may stand behind them.
    pub(super) is_cut: bool,
}

/// What a claim took of one origin.
pub(super) struct Served {
    /// The number of claims of its rows so far.
    pub(super) takes: u64,
    /// The highest turn claimed in each band, or 0.
    pub(super) claimed: [i64; BANDS],
}

/// The place of an origin that is ready.
struct Ready {
    id: i64,
    paused_until: Option<Timestamp>,
    turn: i64,
    /// `None` if it cannot be read.
    origin: Option<Origin>,
    is_probed: bool,
    takes: u64,
}

impl Ready {
    fn read(columns: &mut Columns<'_, '_>) -> Result<Self, StoreError> {
        let id = columns.get()?;
        // Damage of one origin must not end all claims. In an application's file a column may have a value of any type.
        let paused_until = readable_or_none(columns.time_or_null())?;
        let turn = readable_or_none(columns.get::<i64>())?;
        let origin = readable_or_none(columns.get::<String>())?;
        let origin = origin.and_then(|name| Origin::parse(&name).ok());
        let reason = readable_or_none(columns.get::<Option<String>>())?.flatten();
        let is_readable = paused_until.is_some() && turn.is_some();
        Ok(Self {
            id,
            paused_until: paused_until.flatten(),
            // Values of other types stand behind all numbers.
            turn: turn.unwrap_or(i64::MAX),
            origin: origin.filter(|_| is_readable),
            is_probed: reason
                .and_then(|reason| PauseReason::from_name(&reason))
                .is_some_and(PauseReason::is_probed),
            // Only counted on.
            takes: readable_or_none(columns.get::<i64>())?
                .unwrap_or_default()
                .unsigned_abs()
                % TAKES,
        })
    }
}

/// Whether an origin has ready rows.
fn has_ready(conn: &Connection, origin: i64) -> Result<bool, StoreError> {
    Ok(first(conn, FIRST, [origin], |_| Ok(()))?.is_some())
}

fn place(
    conn: &Connection,
    origin: i64,
    is_ready: bool,
    turn: Option<i64>,
) -> Result<(), StoreError> {
    execute(conn, PLACE, params![origin, is_ready, turn]).map(|_| ())
}

/// Leaves an origin out of the order of turns that cannot be read.
fn park(conn: &Connection, origin: i64, now: Timestamp) -> Result<(), StoreError> {
    let until = (now + UNREADABLE_ORIGIN).as_millis();
    execute(conn, PARK, params![origin, until, UNREADABLE_REASON])?;
    report_unreadable_origins(1);
    Ok(())
}

/// Gives origins their turn whose pause is over, in one step. Returns whether there may be more.
pub(super) fn wake(conn: &Connection, now: Timestamp) -> Result<bool, StoreError> {
    let woken = execute(conn, WAKE, params![now.as_millis(), integer(STEP)])?;
    Ok(woken == STEP)
}

/// Returns origins with ready rows that the request admits, those served longest ago first. Of these
/// it reads at most as many as there are rows to claim, origins in the request, and [`STEP`]. The others stay in
/// front, any number of them.
pub(super) fn ready(
    conn: &Connection,
    request: &ClaimRequest,
    now: Timestamp,
) -> Result<Front, StoreError> {
    if request.per_origin == 0 {
        return ready_named(conn, request, now);
    }
    let most = request.limit.saturating_add(request.origins.len()) + STEP;
    let mut front = Front {
        is_cut: request.limit > 0,
        ..Front::default()
    };
    let mut last = (i64::MIN, i64::MIN);
    while front.is_cut && front.reads < most && front.heads.len() < request.limit {
        let page = PAGE.min(request.limit - front.heads.len());
        let values = params![last.0, last.1, integer(page)];
        let origins = all(conn, READY, values, Ready::read)?;
        front.is_cut = origins.len() == page;
        for origin in origins {
            last = (origin.turn, origin.id);
            let name = origin.origin.as_ref();
            if name.is_none_or(|name| request.most_of(name) > 0) {
                front.read(conn, origin, now)?;
            }
        }
    }
    Ok(front)
}

/// As [`ready`], where the request admits named origins only: others are not read, of which there may be any number.
fn ready_named(
    conn: &Connection,
    request: &ClaimRequest,
    now: Timestamp,
) -> Result<Front, StoreError> {
    let mut named = Vec::new();
    for (origin, room) in &request.origins {
        if *room > 0 {
            named.extend(first(conn, READY_NAMED, [origin.as_str()], Ready::read)?);
        }
    }
    named.sort_unstable_by_key(|origin| (origin.turn, origin.id));
    let mut named = named.into_iter();
    let mut front = Front::default();
    while front.heads.len() < request.limit
        && let Some(origin) = named.next()
    {
        front.read(conn, origin, now)?;
    }
    front.is_cut = named.len() > 0;
    Ok(front)
}

impl Front {
    /// Adds an origin if it can be claimed from. Otherwise it loses its turn.
    fn read(&mut self, conn: &Connection, origin: Ready, now: Timestamp) -> Result<(), StoreError> {
        self.reads += 1;
        let Some(name) = origin.origin else {
            return park(conn, origin.id, now);
        };
        let is_ready = has_ready(conn, origin.id)?;
        if !is_ready || origin.paused_until.is_some_and(|until| until > now) {
            return place(conn, origin.id, is_ready, None);
        }
        self.heads.push(Head {
            id: origin.id,
            origin: name,
            is_probed: origin.is_probed,
            takes: origin.takes,
        });
        Ok(())
    }
}

/// Gives an origin its next turn, after a claim of its rows.
pub(super) fn serve(
    conn: &Connection,
    origin: i64,
    fence: u64,
    served: &Served,
) -> Result<(), StoreError> {
    let ([high, normal, low], takes) = (served.claimed, integer(served.takes));
    let values = params![origin, integer(fence), takes, high, normal, low];
    execute(conn, SERVED, values)?;
    let is_ready = has_ready(conn, origin)?;
    place(conn, origin, is_ready, is_ready.then(|| integer(fence)))
}

/// Makes sure that an origin with ready rows is read.
pub(super) fn bring_forward(conn: &Connection, origin: i64) -> Result<(), StoreError> {
    execute(conn, BRING_FORWARD, [origin]).map(|_| ())
}

/// The time from which this worker can claim a row; `now` or earlier if one can be now.
pub(super) fn next(
    conn: &Connection,
    worker: Option<i64>,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let mut next: Option<Timestamp> = None;
    let values = params![i64::MIN, i64::MIN, integer(STEP)];
    let ready = all(conn, READY, values, |row| {
        Ok((row.get::<i64>()?, row.time_or_null()?))
    })?;
    // There may be more: a claim reads further, and moves those that cannot be claimed from.
    let is_cut = ready.len() == STEP;
    for (id, paused_until) in ready {
        if has_ready(conn, id)? {
            let at = paused_until.unwrap_or(now);
            if at <= now {
                return Ok(Some(now));
            }
            next = next.into_iter().chain([at]).min();
        }
    }
    if is_cut {
        return Ok(Some(now));
    }
    let paused = all(conn, PAUSED, [integer(STEP)], |row| {
        Ok((row.get::<i64>()?, row.time()?))
    })?;
    // Too early if they have no rows, and not too late for those that follow.
    if paused.len() == STEP {
        next = next
            .into_iter()
            .chain(paused.last().map(|(_, at)| *at))
            .min();
    }
    for (id, resumes_at) in paused {
        if next.is_some_and(|next| next <= resumes_at) {
            break;
        }
        if has_ready(conn, id)? {
            next = next.into_iter().chain([resumes_at]).min();
        }
    }
    for leased in [true, false] {
        let values = params![leased, now.as_millis(), integer(STEP)];
        let due = all(conn, WAITING, values, |row| {
            let (at, paused_until) = (row.time()?, row.time_or_null()?);
            Ok(paused_until.map_or(at, |until| until.max(at)))
        })?;
        // A claim makes this many rows ready at most: if all of them wait for the end of a pause, it has work.
        if due.len() == STEP {
            return Ok(Some(now));
        }
        let later = first(conn, LATER, params![leased, now.as_millis()], |row| {
            row.time_or_null()
        })?;
        let look = match (later.flatten(), leased) {
            (Some(_), true) => liveness::next_look(conn, worker, now)?,
            _ => None,
        };
        let later = later.flatten();
        next = next.into_iter().chain(due).chain(later).chain(look).min();
    }
    Ok(next)
}

/// The earliest due time of the rows that are next in turn at each known push service and at some other origins, and of those that
/// wait longest.
pub(super) fn oldest(conn: &Connection) -> Result<OldestDue, StoreError> {
    let ready = all(
        conn,
        READY,
        params![i64::MIN, i64::MIN, integer(STEP)],
        |row| row.get::<i64>(),
    )?;
    let left = integer(STEP - ready.len());
    let paused = all(conn, PAUSED, [left], |row| row.get::<i64>())?;
    let mut oldest = OldestDue::default();
    let mut known = Vec::new();
    for origin in always_told() {
        known.extend(first(conn, ORIGIN_ID, [origin], |row| row.get::<i64>())?);
    }
    for id in known.into_iter().chain(ready).chain(paused) {
        let mut heads = Vec::new();
        for band in 0..BANDS {
            heads.extend(first(conn, HEAD, params![id, integer(band)], |row| {
                row.time()
            })?);
        }
        if let Some(head) = heads.into_iter().min() {
            oldest.note(name(conn, id)?.as_ref(), head);
        }
    }
    for leased in [true, false] {
        let longest = first(conn, LONGEST, [leased], |row| {
            Ok((row.time()?, row.get::<i64>()?))
        })?;
        if let Some((at, id)) = longest {
            oldest.note(name(conn, id)?.as_ref(), at);
        }
    }
    Ok(oldest)
}

/// The name of an origin; `None` if it cannot be read.
fn name(conn: &Connection, id: i64) -> Result<Option<Origin>, StoreError> {
    let name = readable_or_none(first(conn, NAME, [id], |row| row.get::<String>()))?;
    Ok(name.flatten().and_then(|name| Origin::parse(&name).ok()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rusqlite::StatementStatus;

    use super::super::{claims, connection};
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    /// One broadcast with a ready row at each of `origins` origins, and the same number of origins that are paused, and
    /// of those that have no ready row.
    fn filled(origins: usize) -> Connection {
        let conn = connection::in_memory().unwrap();
        let sql = format!(
            "BEGIN;
             INSERT INTO broadcast (seq, id, created_at, due_at, deadline, band, expected, written, expanding, expand_at)
                 VALUES (1, x'000102030405060708090a0b0c0d0e0f', 0, 0, 9000, 1, 0, {origins}, 0, 0);
             INSERT INTO content (broadcast, audience, ttl, urgency, padding, forget_when_over)
                 VALUES (1, '\"all\"', 60, 'normal', 'none', 0);
             WITH RECURSIVE many(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many LIMIT 3 * {origins})
                 INSERT INTO origin (id, origin, ready, paused_until, pause_reason)
                 SELECT n, 'https://push' || n || '.example', n % 3 <> 2,
                     CASE n % 3 WHEN 0 THEN 5000 END, CASE n % 3 WHEN 0 THEN 'rate_limited' END FROM many;
             INSERT INTO delivery (broadcast, key, origin, band, turn, at)
                 SELECT 1, CAST(printf('%032d', id) AS BLOB), id, 1, iif(ready, 1, NULL), iif(ready, 1, 5000)
                 FROM origin;
             COMMIT"
        );
        conn.execute_batch(&sql).unwrap();
        conn
    }

    #[test]
    fn a_claim_reads_as_many_origins_with_ten_as_with_ten_thousand() {
        let mut reads = Vec::new();
        for origins in [10, 10_000] {
            let conn = filled(origins);
            let request = ClaimRequest::new(8, Duration::from_secs(45));
            // All that are due become ready, in steps.
            for _ in 0..origins.div_ceil(STEP) {
                execute(&conn, WAKE, params![4000, integer(STEP)]).unwrap();
            }
            let now = at(4000);
            let Front {
                heads, reads: read, ..
            } = ready(&conn, &request, now).unwrap();
            assert_eq!(heads.len(), 8);
            assert!(oldest(&conn).unwrap().earliest() == Some(at(1)));
            assert_eq!(next(&conn, None, now).unwrap(), Some(now));
            let claims = claims::claim(&conn, &request, None, now).unwrap();
            assert_eq!(claims.rows.len(), 8);
            reads.push(read);
        }
        assert_eq!(reads, [8, 8]);
    }

    /// The steps of the database's virtual machine in the statements that read origins so far.
    fn steps(conn: &Connection) -> i32 {
        let steps = [READY, READY_NAMED, FIRST].map(|sql| {
            let statement = conn.prepare_cached(sql).unwrap();
            statement.get_status(StatementStatus::VmStep)
        });
        steps.iter().sum()
    }

    #[test]
    fn a_claim_for_named_origins_costs_the_same_whatever_the_number_of_others() {
        let mut costs = Vec::new();
        for origins in [10, 10_000] {
            let conn = filled(origins);
            for _ in 0..origins.div_ceil(STEP) {
                execute(&conn, WAKE, params![4000, integer(STEP)]).unwrap();
            }
            let mut request = ClaimRequest::new(8, Duration::from_secs(45));
            request.per_origin = 0;
            // One ready, one paused, one without rows, one that is not admitted, one unknown.
            for (number, room) in [(1, 5), (3, 5), (2, 5), (4, 0), (999_999, 5)] {
                let origin = Origin::parse(&format!("https://push{number}.example"));
                request.origins.insert(origin.unwrap(), room);
            }
            let claims = claims::claim(&conn, &request, None, at(4000)).unwrap();
            assert_eq!(claims.rows.len(), 1);
            assert_eq!(claims.rows[0].origin.as_str(), "https://push1.example");
            assert!(!claims.more);
            costs.push(steps(&conn));
        }
        // The depth of the indexes is not in it.
        assert_eq!(costs[0], costs[1]);
        assert!(costs[0] > 0);
    }

    #[test]
    fn a_named_origin_without_room_takes_no_place_of_another() {
        let conn = filled(10);
        execute(&conn, WAKE, params![4000, integer(STEP)]).unwrap();
        let mut request = ClaimRequest::new(1, Duration::from_secs(45));
        request.per_origin = 0;
        for (number, room) in [(1, 0), (4, 5)] {
            let origin = Origin::parse(&format!("https://push{number}.example"));
            request.origins.insert(origin.unwrap(), room);
        }
        let claims = claims::claim(&conn, &request, None, at(4000)).unwrap();
        assert_eq!(claims.rows.len(), 1);
    }

    #[test]
    fn a_claim_that_finds_nothing_says_that_others_stand_behind() {
        let conn = filled(10);
        let idle = i64::try_from(2 * STEP).unwrap();
        // Their rows have ended.
        let sql = format!(
            "WITH RECURSIVE many(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many LIMIT {idle})
                 INSERT INTO origin (id, origin, ready, turn) SELECT 1000 + n, 'https://idle' || n || '.example', 1, -1 FROM many"
        );
        conn.execute_batch(&sql).unwrap();
        let request = ClaimRequest::new(8, Duration::from_secs(45));
        let mut claims = claims::claim(&conn, &request, None, at(4000)).unwrap();
        assert_eq!(claims.rows.len(), 0);
        while claims.rows.is_empty() {
            assert!(claims.more, "nothing says that there are rows");
            claims = claims::claim(&conn, &request, None, at(4000)).unwrap();
        }
        assert_eq!(claims.rows.len(), 8);
    }
}
