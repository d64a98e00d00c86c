//! Claiming rows in PostgreSQL.

use tokio_postgres::types::ToSql;

use super::attempts::in_transaction;
use super::connection::{Database, Tx};
use super::error::Failed;
use super::ready::{Front, Head};
use super::rows::{integer, read};
use super::taking::{Asks, MESSAGES, Of, Serving, TAKE, TAKE_AT_ONCE, Taken, answer, read_at_once};
use super::{ending, holding, ready, waking};
use crate::clock::Timestamp;
use crate::store::heartbeat::WorkerId;
use crate::store::rules::{BANDS, Rounds};
use crate::store::{ClaimRequest, Claims, PauseReason, StoreError};

/// One of several concurrent claims gets the probe. The others do not wait.
pub(super) const LOCK_PROBED: &str = "SELECT id FROM web_push.origin WHERE id = ANY($1) AND paused_until <= $2 \
     AND pause_reason = ANY($3) FOR NO KEY UPDATE SKIP LOCKED";
/// Records the claims of origins and their highest turns, and moves origins to the end of the turn order if `$5` is given.
/// Best effort: locked origins are skipped.
pub(super) const SERVED: &str = "UPDATE web_push.origin AS o SET takes = o.takes % 1073741824 + 1, \
     turns = ARRAY[greatest(o.turns[1], fresh.high), greatest(o.turns[2], fresh.normal), greatest(o.turns[3], fresh.low)], \
     served = coalesce($5, o.served) \
     FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS fresh (id, high, normal, low) \
     WHERE o.id = fresh.id AND o.id = ANY(ARRAY(SELECT id FROM web_push.origin WHERE id = ANY($1) \
     FOR NO KEY UPDATE SKIP LOCKED))";
/// Pauses the origin until the probe's lease ends, so that there is one probe at a time.
pub(super) const PROBED: &str = "UPDATE web_push.origin AS o SET paused_until = $1, probe_fence = probe.fence, \
     probe_key = probe.key \
     FROM unnest($2::bigint[], $3::bigint[], $4::bytea[]) AS probe (origin, fence, key) \
     WHERE o.id = probe.origin AND o.id = ANY($2)";

pub(super) async fn claim(
    database: &Database,
    request: &ClaimRequest,
    worker: Option<WorkerId>,
    now: Timestamp,
) -> Result<Claims, StoreError> {
    // Usually nothing has to become ready first, and one round trip is enough for both.
    let (prepared, front) = tokio::join!(
        waking::prepare(database, now),
        ready::front(database, request, now)
    );
    let prepared = prepared?;
    let mut more = prepared.more;
    if request.limit == 0 {
        return Ok(Claims::default());
    }
    let front = match prepared.is_changed {
        true => ready::front(database, request, now).await?,
        false => front?,
    };
    if front.heads.is_empty() {
        return Ok(Claims {
            more: more || front.is_cut,
            ..Claims::default()
        });
    }
    let lease = (now + request.lease, worker);
    let (mut claims, short) = match whole_round(&front, request) {
        Some(round) => claim_at_once(database, &front, &round, lease).await?,
        None => in_transaction!(database, |tx| claim_of(tx, &front, request, lease, now))?,
    };
    if prepared.is_unswept && !short.is_empty() {
        let swept = ending::sweep_front(database, &short, now).await;
        // The claimed rows would be lost until their lease ends.
        if claims.rows.is_empty() {
            swept?;
        }
    }
    if prepared.has_held && !short.is_empty() {
        match holding::put_aside(database, &short).await {
            // Others may stand behind them.
            Ok(rows) => more |= rows > 0,
            Err(error) if claims.rows.is_empty() => return Err(error),
            Err(_) => {}
        }
    }
    claims.more = more || (front.is_cut && claims.rows.len() < request.limit);
    Ok(claims)
}

/// What to take of each origin, if one statement can take all that there is: each origin has rows in one band, gets all
/// that it admits in the first round, and is not probed.
fn whole_round(front: &Front, request: &ClaimRequest) -> Option<Vec<(usize, usize)>> {
    let is_simple =
        |head: &Head| !head.is_probed && head.has.iter().filter(|has| **has).count() == 1;
    if !front.heads.iter().all(is_simple) {
        return None;
    }
    let rooms: Vec<_> = front
        .heads
        .iter()
        .map(|head| request.most_of(&head.origin))
        .collect();
    let round = Rounds::new(&rooms, request.limit).next_round()?;
    let is_whole = match rooms.as_slice() {
        [_] => true,
        rooms => {
            rooms.len() == round.len()
                && round
                    .iter()
                    .zip(rooms)
                    .all(|((_, wanted), room)| wanted == room)
        }
    };
    is_whole.then_some(round)
}

/// Claims in one statement, and so in one round trip. Returns the same as [`claim_of`].
async fn claim_at_once(
    database: &Database,
    front: &Front,
    round: &[(usize, usize)],
    (leased_until, worker): (Timestamp, Option<WorkerId>),
) -> Result<(Claims, Vec<i64>), StoreError> {
    let mut servings: Vec<_> = front.heads.iter().map(Serving::new).collect();
    for (index, wanted) in round {
        if let Some(serving) = servings.get_mut(*index) {
            serving.begin_round(*wanted);
        }
    }
    let indexes: Vec<_> = round.iter().map(|(index, _)| *index).collect();
    let asks = Asks::of(&indexes, &servings);
    let (until, passed) = (leased_until.as_millis(), asks.passed());
    let origins = integer(round.len());
    let values: [&(dyn ToSql + Sync); 8] = [
        &asks.ids,
        &asks.bands,
        &asks.wanted,
        &until,
        &passed,
        &worker,
        &front.is_cut,
        &origins,
    ];
    let (taken, messages) = read_at_once(&database.query(TAKE_AT_ONCE, &values).await?)?;
    let mut all = Vec::new();
    asks.took(taken, &mut servings, &mut all);
    let short = servings.iter().filter(|serving| serving.is_short);
    let short = short.map(|serving| serving.head.id).collect();
    let all = all
        .into_iter()
        .filter_map(|(index, row)| Some((servings.get(index)?.head, row)));
    Ok((answer(messages, all.collect(), leased_until), short))
}

/// Returns the claimed rows, and origins that had fewer than they were asked for.
async fn claim_of(
    tx: &mut Tx<'_>,
    front: &Front,
    request: &ClaimRequest,
    lease: (Timestamp, Option<WorkerId>),
    now: Timestamp,
) -> Result<(Claims, Vec<i64>), Failed> {
    let probed: Vec<_> = front
        .heads
        .iter()
        .filter(|head| head.is_probed)
        .map(|head| head.id)
        .collect();
    let ours = lock_probed(tx, &probed, now).await?;
    let rooms: Vec<_> = front
        .heads
        .iter()
        .map(|head| match head.is_probed {
            true => usize::from(ours.contains(&head.id)),
            false => request.most_of(&head.origin),
        })
        .collect();
    let mut servings: Vec<_> = front.heads.iter().map(Serving::new).collect();
    let mut rounds = Rounds::new(&rooms, request.limit);
    let mut all: Vec<(usize, Taken)> = Vec::new();
    while let Some(round) = rounds.next_round() {
        for (index, wanted) in &round {
            if let Some(serving) = servings.get_mut(*index) {
                serving.begin_round(*wanted);
            }
        }
        let indexes: Vec<_> = round.iter().map(|(index, _)| *index).collect();
        take(tx, &indexes, &mut servings, lease, &mut all).await?;
        for (index, wanted) in round {
            let got = servings.get(index).map_or(0, Serving::got);
            rounds.took(index, wanted, got);
        }
    }
    let short = servings.iter().filter(|serving| serving.is_short);
    let short: Vec<_> = short.map(|serving| serving.head.id).collect();
    if all.is_empty() {
        return Ok((Claims::default(), short));
    }
    let all = all
        .into_iter()
        .filter_map(|(index, row)| Some((servings.get(index)?.head, row)));
    let all: Vec<_> = all.collect();
    let (leased_until, _) = lease;
    note_probes(tx, &all, leased_until).await?;
    // Origins move in the order of turns only if another one got nothing.
    let served = servings
        .iter()
        .filter(|serving| serving.turns != [0; BANDS]);
    let is_behind = served.clone().count() < rooms.iter().filter(|room| **room > 0).count();
    let fence = all.iter().map(|(_, row)| row.fence).max().map(integer);
    let fence = fence.filter(|_| is_behind || front.is_cut);
    let (mut ids, mut high, mut normal, mut low): (Vec<_>, Vec<_>, Vec<_>, Vec<_>) =
        Default::default();
    for serving in served {
        let [first, second, third] = serving.turns;
        ids.push(serving.head.id);
        high.push(first);
        normal.push(second);
        low.push(third);
    }
    let served: [&(dyn ToSql + Sync); 5] = [&ids, &high, &normal, &low, &fence];
    let mut seqs: Vec<_> = all.iter().map(|(_, row)| row.seq).collect();
    seqs.sort_unstable();
    seqs.dedup();
    let messages = tx.finish((SERVED, &served), (MESSAGES, &[&seqs])).await?;
    let messages = Of::read_all(&messages)?;
    Ok((answer(messages, all, leased_until), short))
}

/// Takes the wanted rows of origins. What one band does not have is taken from others.
async fn take(
    tx: &mut Tx<'_>,
    indexes: &[usize],
    servings: &mut [Serving<'_>],
    (leased_until, worker): (Timestamp, Option<WorkerId>),
    all: &mut Vec<(usize, Taken)>,
) -> Result<(), Failed> {
    loop {
        let asks = Asks::of(indexes, servings);
        if asks.is_empty() {
            return Ok(());
        }
        let (until, passed) = (leased_until.as_millis(), asks.passed());
        let values: [&(dyn ToSql + Sync); 6] = [
            &asks.ids,
            &asks.bands,
            &asks.wanted,
            &until,
            &passed,
            &worker,
        ];
        let taken = Taken::read_all(&tx.query(TAKE, &values).await?)?;
        asks.took(taken, servings, all);
    }
}

/// Returns the origins among these that this claim probes.
async fn lock_probed(tx: &mut Tx<'_>, probed: &[i64], now: Timestamp) -> Result<Vec<i64>, Failed> {
    if probed.is_empty() {
        return Ok(Vec::new());
    }
    let reasons: Vec<_> = PauseReason::ALL
        .iter()
        .copied()
        .filter(|reason| reason.is_probed())
        .map(PauseReason::as_str)
        .collect();
    let rows = tx
        .query(LOCK_PROBED, &[&probed, &now.as_millis(), &reasons])
        .await?;
    Ok(read(&rows, |columns| columns.get())?)
}

async fn note_probes(
    tx: &mut Tx<'_>,
    taken: &[(&Head, Taken)],
    until: Timestamp,
) -> Result<(), Failed> {
    let probes = taken.iter().filter(|(head, _)| head.is_probed);
    let (mut origins, mut fences, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for (head, row) in probes {
        origins.push(head.id);
        fences.push(integer(row.fence));
        keys.push(row.key.as_slice());
    }
    if !origins.is_empty() {
        let until = until.as_millis();
        tx.execute(PROBED, &[&until, &origins, &fences, &keys])
            .await?;
    }
    Ok(())
}
