//! Pauses, recent outcome counts, the next due time and statistics, in PostgreSQL.

use super::connection::{Database, Tx};
use super::error::{Failed, corrupt};
use super::rows::{Columns, Values, first, integer, read};
use super::{origins, waking};
use crate::clock::Timestamp;
use crate::store::oldest_due::always_told;
use crate::store::readable::{ReadablePage, readable_or_none};
use crate::store::rules::{LONGEST_PAGE, aside_sql};
use crate::store::{LedgerStats, OldestDue, Pause, PauseReason, STEP, StoreError, Tally};
use crate::subscription::Origin;

pub(super) const PAUSE: &str = "UPDATE web_push.origin SET paused_until = $2, pause_reason = $3, closures = $4, \
     pause_contact = $5, probe_fence = NULL, probe_key = NULL WHERE origin = $1";
pub(super) const LIFT: &str = "UPDATE web_push.origin SET paused_until = NULL, pause_reason = NULL, probe_fence = NULL, \
     probe_key = NULL, held = false WHERE origin = $1 AND paused_until IS NOT NULL";
/// Returns few rows: pauses that are over are overwritten or pruned.
pub(super) const PAUSES: &str = "SELECT origin, paused_until, pause_reason, closures, pause_contact \
     FROM web_push.origin WHERE paused_until IS NOT NULL ORDER BY origin";
pub(super) const LOCK_PAUSES: &str = "SELECT origin, paused_until, pause_reason, closures, pause_contact \
     FROM web_push.origin WHERE origin = ANY($1) FOR NO KEY UPDATE";
pub(super) const READ_TALLIES: &str =
    "SELECT origin, accepted, gone FROM web_push.origin WHERE origin = ANY($1)";
pub(super) const LOCK_TALLIES: &str = "SELECT origin, accepted, gone FROM web_push.origin WHERE id = ANY(ARRAY( \
         SELECT id FROM web_push.origin WHERE origin = ANY($1))) ORDER BY id FOR NO KEY UPDATE";
pub(super) const SAVE_TALLIES: &str = "UPDATE web_push.origin AS o SET accepted = tally.accepted, gone = tally.gone, \
     tallied_at = $1 FROM unnest($2::text[], $3::bigint[], $4::bigint[]) AS tally (origin, accepted, gone) \
     WHERE o.origin = tally.origin AND o.origin = ANY($2)";
pub(super) const TALLIES: &str =
    "SELECT origin, accepted, gone FROM web_push.origin WHERE gone > 0 ORDER BY origin";
/// The next due times: whether a broadcast is expandable now; whether an origin can be claimed from now, which is assumed if
/// the first ones were not enough to tell; the first time of waiting rows, of pauses, of expansions and of deadlines.
pub(super) const NEXT_DUE: &str = concat!(
    "WITH front AS MATERIALIZED (SELECT id, paused_until FROM web_push.origin \
         WHERE ready AND NOT held ORDER BY served, id LIMIT $2), \
     filled AS MATERIALIZED (SELECT paused_until FROM front WHERE EXISTS ( \
         SELECT 1 FROM web_push.delivery AS d WHERE d.origin = front.id AND d.turn IS NOT NULL OFFSET 0)) \
     SELECT EXISTS (SELECT 1 FROM web_push.broadcast WHERE expanding AND NOT is_held AND band = 0 AND expand_at <= $1 AND deadline > $1 \
             AND octet_length(id) = 16) \
         OR EXISTS (SELECT 1 FROM web_push.broadcast WHERE expanding AND NOT is_held AND band > 0 AND expand_at <= $1 AND deadline > $1 \
             AND octet_length(id) = 16) \
         OR EXISTS (SELECT 1 FROM web_push.broadcast WHERE expanding AND NOT is_held AND cursor IS NOT NULL AND expand_at > $1 \
             AND due_at <= $1 AND deadline > $1 AND (pace IS NULL OR expand_at > $3) AND octet_length(id) = 16) \
         OR EXISTS (SELECT 1 FROM web_push.broadcast WHERE resuming), \
     EXISTS (SELECT 1 FROM filled WHERE paused_until IS NULL OR paused_until <= $1) \
         OR (SELECT count(*) FROM front) = $2, \
     least((SELECT min(at) FROM web_push.delivery WHERE turn IS NULL AND leased AND at < ",
    aside_sql!(),
    "), (SELECT min(at) FROM web_push.delivery WHERE turn IS NULL AND NOT leased AND at < ",
    aside_sql!(),
    ")), \
     least((SELECT min(paused_until) FROM filled), \
         (SELECT o.paused_until FROM web_push.origin AS o WHERE o.held AND EXISTS ( \
             SELECT 1 FROM web_push.delivery AS d WHERE d.origin = o.id AND d.turn IS NOT NULL OFFSET 0) \
             ORDER BY o.paused_until LIMIT 1)), \
     least((SELECT min(expand_at) FROM web_push.broadcast WHERE expanding AND NOT is_held AND band = 0 AND expand_at > $1), \
         (SELECT min(expand_at) FROM web_push.broadcast WHERE expanding AND NOT is_held AND band > 0 AND expand_at > $1)), \
     (SELECT min(deadline) FROM web_push.broadcast WHERE ended_at IS NULL AND deadline > $1)"
);
/// Damaged counts make the first number wrong, not an error.
pub(super) const STATS: &str = concat!(
    "WITH front AS MATERIALIZED ((SELECT id, origin FROM web_push.origin WHERE ready AND NOT held \
         ORDER BY served, id LIMIT $2) \
         UNION ALL (SELECT id, origin FROM web_push.origin WHERE held ORDER BY paused_until LIMIT $2)), \
     known AS MATERIALIZED (SELECT found.id, found.origin FROM unnest($3::text[]) AS named (origin) CROSS JOIN LATERAL ( \
         SELECT id, origin FROM web_push.origin WHERE origin.origin = named.origin OFFSET 0) AS found), \
     waiting AS ((SELECT origin, at FROM web_push.delivery WHERE turn IS NULL AND leased AND at <= $1 ORDER BY at LIMIT 1) \
         UNION ALL (SELECT origin, at FROM web_push.delivery WHERE turn IS NULL AND NOT leased AND at <= $1 \
             ORDER BY at LIMIT 1)), \
     oldest AS (SELECT o.origin, (SELECT min(first.at) \
             FROM (VALUES (0::smallint), (1::smallint), (2::smallint)) AS bands (band) \
             CROSS JOIN LATERAL (SELECT d.at FROM web_push.delivery AS d WHERE d.origin = o.id AND d.band = bands.band \
                 AND d.turn IS NOT NULL ORDER BY d.turn LIMIT 1) AS first) AS at \
             FROM (SELECT * FROM known UNION ALL (SELECT id, origin FROM front LIMIT $2)) AS o \
         UNION ALL SELECT (SELECT o.origin FROM web_push.origin AS o WHERE o.id = waiting.origin), at FROM waiting) \
     SELECT (SELECT least(greatest(coalesce(sum(written::numeric - accepted - gone - key_mismatch - sender_fault \
         - too_large - bad_request - refused - expired - failed - cancelled), 0), 0), 9223372036854775807)::bigint \
         FROM web_push.broadcast WHERE ended_at IS NULL), \
     (SELECT count(*) FROM web_push.delivery WHERE turn IS NULL AND leased AND at > $1 AND at < ",
    aside_sql!(),
    "), \
     (SELECT array_agg(origin) FROM oldest), (SELECT array_agg(at) FROM oldest)"
);
/// The steps of waking that one call does.
const WAKES: u32 = 4;
pub(super) const SERVER_TIME: &str =
    "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";

pub(super) async fn pause(tx: &mut Tx<'_>, pause: &Pause, now: Timestamp) -> Result<(), Failed> {
    let name = pause.origin.as_str();
    if pause.until <= now {
        return tx.execute(LIFT, &[&name]).await.map(|_| ());
    }
    let rows = origins::lock(tx, [&pause.origin], LOCK_PAUSES, read_row).await?;
    // One that cannot be read is replaced.
    let stored = rows.get(&pause.origin).and_then(Option::as_ref);
    let stored = stored.and_then(|stored| stored.as_ref().ok());
    let Some(merged) = pause.on_top_of(stored, now) else {
        return tx.execute(LIFT, &[&name]).await.map(|_| ());
    };
    let (until, reason) = (merged.until.as_millis(), merged.reason.as_str());
    let closures = integer(merged.closures);
    tx.execute(PAUSE, &[&name, &until, &reason, &closures, &merged.contact])
        .await
        .map(|_| ())
}

pub(super) async fn pauses(database: &Database, now: Timestamp) -> Result<Vec<Pause>, StoreError> {
    let rows = database.query(PAUSES, &[]).await?;
    let rows = read(&rows, |columns| Ok(read_row(columns)))?;
    let mut pauses = ReadablePage::new(0);
    for row in rows {
        match row {
            Ok((_, Some(pause))) => pauses.push(pause)?,
            Ok((_, None)) => {}
            Err(error) => pauses.push(Err(error))?,
        }
    }
    let mut pauses = pauses.finish("pauses");
    pauses.retain(|pause| !pause.is_over(now));
    Ok(pauses)
}

/// Reads an origin and its pause, if it has one.
fn read_row(
    columns: &mut Columns<'_>,
) -> Result<(Origin, Option<Result<Pause, StoreError>>), StoreError> {
    let origin = origins::read_origin(columns)?;
    let pause = read_pause(&origin, columns).transpose();
    Ok((origin, pause))
}

fn read_pause(origin: &Origin, columns: &mut Columns<'_>) -> Result<Option<Pause>, StoreError> {
    let until = columns.time_or_null()?;
    let reason: Option<&str> = columns.get()?;
    let closures = u32::try_from(columns.count()?).unwrap_or(u32::MAX);
    let contact = columns.get()?;
    let Some((until, reason)) = until.zip(reason) else {
        return Ok(None);
    };
    let reason = PauseReason::from_name(reason);
    let reason = reason.ok_or_else(|| corrupt("the reason of a pause"))?;
    let mut pause = Pause::new(origin.clone(), until, reason);
    pause.closures = closures;
    pause.contact = contact;
    Ok(Some(pause))
}

/// Reads counts without adding to them.
pub(super) async fn read_tallies(
    database: &Database,
    counts: &[(Origin, Tally)],
) -> Result<Vec<Tally>, StoreError> {
    let names: Vec<_> = counts.iter().map(|(origin, _)| origin.as_str()).collect();
    let rows = database.query(READ_TALLIES, &[&names]).await?;
    let stored = read(&rows, read_tally_or_none)?;
    let of = |origin: &Origin| stored.iter().find(|(stored, _)| stored == origin);
    Ok(counts
        .iter()
        .map(|(origin, _)| of(origin).map_or_else(Tally::default, |(_, tally)| *tally))
        .collect())
}

pub(super) async fn tally(
    tx: &mut Tx<'_>,
    counts: &[(Origin, Tally)],
    now: Timestamp,
) -> Result<Vec<Tally>, Failed> {
    let origins = counts.iter().map(|(origin, _)| origin);
    let mut stored = origins::lock(tx, origins, LOCK_TALLIES, read_tally_or_none).await?;
    let mut sums = Vec::with_capacity(counts.len());
    for (origin, fresh) in counts {
        let sum = stored.entry(origin.clone()).or_default();
        *sum = sum.plus(*fresh);
        sums.push(*sum);
    }
    let names: Vec<_> = stored.keys().map(Origin::as_str).collect();
    let accepted: Vec<_> = stored.values().map(|sum| integer(sum.accepted)).collect();
    let gone: Vec<_> = stored.values().map(|sum| integer(sum.gone)).collect();
    let now = now.as_millis();
    tx.execute(SAVE_TALLIES, &[&now, &names, &accepted, &gone])
        .await?;
    Ok(sums)
}

pub(super) async fn tallies(database: &Database) -> Result<Vec<(Origin, Tally)>, StoreError> {
    let rows = database.query(TALLIES, &[]).await?;
    let mut tallies = ReadablePage::new(0);
    for tally in read(&rows, |columns| Ok(read_tally(columns)))? {
        tallies.push(tally)?;
    }
    Ok(tallies.finish("tallies"))
}

/// Reads an origin and its tally, zero if that is damaged.
fn read_tally_or_none(columns: &mut Columns<'_>) -> Result<(Origin, Tally), StoreError> {
    let origin = origins::read_origin(columns)?;
    let tally = columns
        .count()
        .and_then(|accepted| Ok(Tally::new(accepted, columns.count()?)));
    Ok((origin, readable_or_none(tally)?.unwrap_or_default()))
}

fn read_tally(columns: &mut Columns<'_>) -> Result<(Origin, Tally), StoreError> {
    let origin = origins::read_origin(columns)?;
    Ok((origin, Tally::new(columns.count()?, columns.count()?)))
}

/// Rows whose time has come become ready first, to tell which of them have to wait for the end of a pause.
pub(super) async fn next_due(
    database: &Database,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let longest = (now + LONGEST_PAGE).as_millis();
    let values: Values<'_> = &[&now.as_millis(), &integer(STEP), &longest];
    for _ in 0..WAKES {
        let rows = database.query(NEXT_DUE, values).await?;
        let found = first(&rows, |columns| {
            let (is_expandable, is_claimable): (bool, bool) = (columns.get()?, columns.get()?);
            let row = columns.time_or_null()?;
            let pause = columns.time_or_null()?;
            let expansion = columns.time_or_null()?;
            // At a deadline `expire` has work.
            let deadline = columns.time_or_null()?;
            let at_once = (is_expandable || is_claimable).then_some(now);
            let next = [at_once, row, pause, expansion, deadline];
            let next = next.into_iter().flatten().min();
            let wakes = at_once.is_none() && row.is_some_and(|row| row <= now);
            Ok((next.map(|next| next.max(now)), wakes))
        })?;
        let (next, wakes) = found.unwrap_or_default();
        if !wakes || waking::wake(database, now).await? == 0 {
            return Ok(next);
        }
    }
    Ok(Some(now))
}

pub(super) async fn stats(database: &Database, now: Timestamp) -> Result<LedgerStats, StoreError> {
    let known: Vec<_> = always_told().collect();
    let values: Values<'_> = &[&now.as_millis(), &integer(STEP), &known];
    let rows = database.query(STATS, values).await?;
    let stats = first(&rows, |columns| {
        let (depth, leased) = (columns.count()?, columns.count()?);
        let origins: Option<Vec<Option<&str>>> = columns.get()?;
        // An origin may have no ready row any more.
        let times: Option<Vec<Option<i64>>> = columns.get()?;
        let mut oldest = OldestDue::default();
        for (origin, at) in origins.iter().flatten().zip(times.iter().flatten()) {
            let origin = origin.and_then(|name| Origin::parse(name).ok());
            if let Some(at) = at {
                oldest.note(origin.as_ref(), Timestamp::from_millis(*at));
            }
        }
        Ok(LedgerStats::by_push_service(
            depth,
            leased,
            oldest.until(now),
        ))
    })?;
    Ok(stats.unwrap_or_default())
}

pub(super) async fn server_time(database: &Database) -> Result<Option<Timestamp>, StoreError> {
    first(&database.query(SERVER_TIME, &[]).await?, |columns| {
        columns.time()
    })
}
