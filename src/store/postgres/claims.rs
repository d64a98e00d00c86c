//! Claiming rows in PostgreSQL.

use super::connection::{Database, Tx, in_transaction};
use super::content;
use super::ending;
use super::error::{Failed, corrupt};
use super::origins::read_origin;
use super::rows::{Columns, integer, read};
use crate::broadcast::BroadcastId;
use crate::clock::Timestamp;
use crate::store::rules::Rounds;
use crate::store::{
    ClaimRequest, ClaimToken, Claimed, ClaimedMessage, Claims, PauseReason, StoreError,
};
use crate::subscription::{EndpointKey, Origin};

/// Each origin with rows, and the time of its first row: one index lookup each, never a scan of the backlog.
macro_rules! heads {
    () => {
        "WITH RECURSIVE heads AS ( \
             (SELECT origin, at FROM web_push.delivery ORDER BY origin, at LIMIT 1) \
             UNION ALL \
             SELECT following.origin, following.at FROM heads CROSS JOIN LATERAL ( \
                 SELECT origin, at FROM web_push.delivery WHERE delivery.origin > heads.origin \
                 ORDER BY origin, at LIMIT 1) AS following) "
    };
}
pub(super) use heads;

pub(super) const CLAIMABLE_ORIGINS: &str = concat!(
    heads!(),
    "SELECT o.id, o.origin, o.pause_reason FROM heads JOIN web_push.origin AS o ON o.id = heads.origin \
     WHERE heads.at <= $1 AND (o.paused_until IS NULL OR o.paused_until <= $1) ORDER BY o.served, heads.at, o.id"
);
/// One of several concurrent claims gets the probe. The others do not wait.
pub(super) const LOCK_PROBED: &str = "SELECT id FROM web_push.origin WHERE id = ANY($1) AND paused_until <= $2 \
     AND pause_reason = ANY($3) FOR NO KEY UPDATE SKIP LOCKED";
/// Takes the wanted number of rows of each origin, the oldest first. Skips rows that concurrent claims take.
pub(super) const TAKE: &str = "WITH taken AS MATERIALIZED (SELECT asked.place, due.* \
     FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS asked (origin, wanted, place) \
     CROSS JOIN LATERAL (SELECT d.ctid, d.at FROM web_push.delivery AS d \
         WHERE d.origin = asked.origin AND d.at <= $3 AND NOT EXISTS (SELECT 1 FROM web_push.broadcast AS b \
             WHERE b.seq = d.broadcast AND b.is_cancelled AND b.ended_at IS NULL) \
         ORDER BY d.at LIMIT asked.wanted FOR UPDATE OF d SKIP LOCKED) AS due) \
     UPDATE web_push.delivery AS d SET leased = true, at = $4, fence = nextval('web_push.fence'), attempt = d.attempt + 1 \
     FROM taken WHERE d.ctid = taken.ctid \
     RETURNING taken.place, taken.at, d.broadcast, d.key, d.fence, d.attempt";
pub(super) const MESSAGES: &str = "SELECT seq, id, least(expected, written, accepted, gone, key_mismatch, sender_fault, \
         too_large, bad_request, refused, expired, failed, cancelled) >= 0, due_at, deadline, \
         payload, ttl, urgency, topic, padding \
     FROM web_push.broadcast AS b LEFT JOIN LATERAL ( \
         SELECT * FROM web_push.content WHERE content.broadcast = b.seq OFFSET 0) AS content ON true WHERE b.seq = ANY($1)";
/// Moves served origins to the end of the turn order. Best effort: locked origins are skipped.
pub(super) const SERVED: &str = "UPDATE web_push.origin SET served = $2 WHERE id IN \
     (SELECT id FROM web_push.origin WHERE id = ANY($1) FOR NO KEY UPDATE SKIP LOCKED)";
/// Pauses the origin until the probe's lease ends, so that there is one probe at a time.
pub(super) const PROBED: &str = "UPDATE web_push.origin AS o SET paused_until = $1, probe_fence = probe.fence, \
     probe_key = probe.key \
     FROM unnest($2::bigint[], $3::bigint[], $4::bytea[]) AS probe (origin, fence, key) WHERE o.id = probe.origin";

/// An origin with rows to claim.
struct Head {
    id: i64,
    origin: Origin,
    is_probed: bool,
}

impl Head {
    fn read(columns: &mut Columns<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            id: columns.get()?,
            origin: read_origin(columns)?,
            is_probed: columns
                .get::<Option<&str>>()?
                .and_then(PauseReason::from_name)
                .is_some_and(PauseReason::is_probed),
        })
    }
}

/// A claimed row.
struct Taken {
    place: usize,
    at: i64,
    seq: i64,
    key: [u8; 32],
    fence: u64,
    attempt: u64,
}

impl Taken {
    fn read(columns: &mut Columns<'_>) -> Result<Self, StoreError> {
        let place: i64 = columns.get()?;
        Ok(Self {
            place: usize::try_from(place - 1).map_err(|_| corrupt("a row's place"))?,
            at: columns.get()?,
            seq: columns.get()?,
            key: columns.bytes()?,
            fence: columns.count()?,
            attempt: columns.count()?,
        })
    }
}

pub(super) async fn claim(
    database: &Database,
    request: &ClaimRequest,
    now: Timestamp,
) -> Result<Claims, StoreError> {
    // In transactions of their own: they wait for locks on broadcasts, which a claim never does.
    ending::sweep(database, now).await?;
    let rows = database
        .query(CLAIMABLE_ORIGINS, &[&now.as_millis()])
        .await?;
    let mut heads = read(&rows, Head::read)?;
    heads.retain(|head| request.room_for(&head.origin) > 0);
    if heads.is_empty() || request.limit == 0 {
        return Ok(Claims::default());
    }
    in_transaction!(database, |tx| claim_of(tx, &heads, request, now))
}

async fn claim_of(
    tx: &mut Tx<'_>,
    heads: &[Head],
    request: &ClaimRequest,
    now: Timestamp,
) -> Result<Claims, Failed> {
    let probed: Vec<_> = heads
        .iter()
        .filter(|head| head.is_probed)
        .map(|head| head.id)
        .collect();
    let ours = lock_probed(tx, &probed, now).await?;
    let rooms: Vec<_> = heads
        .iter()
        .map(|head| match head.is_probed {
            true => usize::from(ours.contains(&head.id)),
            false => request.room_for(&head.origin),
        })
        .collect();
    let leased_until = now + request.lease;
    let mut rounds = Rounds::new(&rooms, request.limit);
    let mut all: Vec<(&Head, Taken)> = Vec::new();
    while let Some(round) = rounds.next_round() {
        let asked: Vec<(usize, &Head, usize)> = round
            .into_iter()
            .filter_map(|(index, wanted)| heads.get(index).map(|head| (index, head, wanted)))
            .collect();
        let ids: Vec<_> = asked.iter().map(|(_, head, _)| head.id).collect();
        let wanted: Vec<_> = asked.iter().map(|(.., wanted)| integer(*wanted)).collect();
        let (now, until) = (now.as_millis(), leased_until.as_millis());
        let rows = tx.query(TAKE, &[&ids, &wanted, &now, &until]).await?;
        let taken = read(&rows, Taken::read)?;
        for (place, (index, _, wanted)) in asked.iter().enumerate() {
            let got = taken.iter().filter(|row| row.place == place).count();
            rounds.took(*index, *wanted, got);
        }
        let with_head = |row: Taken| Some((asked.get(row.place)?.1, row));
        all.extend(taken.into_iter().filter_map(with_head));
    }
    if all.is_empty() {
        return Ok(Claims::default());
    }
    note_probes(tx, &all, leased_until).await?;
    let mut served: Vec<_> = all.iter().map(|(head, _)| head.id).collect();
    served.sort_unstable();
    served.dedup();
    // Record turns only if an eligible origin got nothing.
    if served.len() < rooms.iter().filter(|room| **room > 0).count() {
        let fence = all.iter().map(|(_, row)| row.fence).max();
        let fence = integer(fence.unwrap_or(0));
        tx.execute(SERVED, &[&served, &fence]).await?;
    }
    answer(tx, all, leased_until).await
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

/// Sorts the rows and reads their messages.
async fn answer(
    tx: &mut Tx<'_>,
    mut taken: Vec<(&Head, Taken)>,
    leased_until: Timestamp,
) -> Result<Claims, Failed> {
    let mut seqs: Vec<_> = taken.iter().map(|(_, row)| row.seq).collect();
    seqs.sort_unstable();
    seqs.dedup();
    let mut ids = std::collections::HashMap::new();
    let mut claims = Claims::default();
    let rows = tx.query(MESSAGES, &[&seqs]).await?;
    for (seq, id, message) in read(&rows, |columns| {
        let seq: i64 = columns.get()?;
        let id = BroadcastId::from_bytes(columns.bytes()?);
        let is_countable: bool = columns.get()?;
        let (due_at, deadline) = (columns.time()?, columns.time()?);
        // One that cannot be read is left out, and its rows are claimed all the same (L5). With damaged counts their
        // outcome could not be counted.
        let message = content::read_message(columns).ok();
        let message = message.filter(|_| is_countable);
        let message = message.map(|message| ClaimedMessage::new(message, due_at, deadline));
        Ok((seq, id, message))
    })? {
        ids.insert(seq, id);
        if let Some(message) = message {
            claims.messages.insert(id, message);
        }
    }
    taken.sort_by(|(_, a), (_, b)| (a.at, a.seq, &a.key).cmp(&(b.at, b.seq, &b.key)));
    for (head, row) in taken {
        let id = ids.get(&row.seq);
        let id = *id.ok_or_else(|| corrupt("a row without a broadcast"))?;
        let token = ClaimToken::new(id, EndpointKey::from_bytes(row.key), row.fence);
        let attempt = u32::try_from(row.attempt).unwrap_or(u32::MAX);
        let claimed = Claimed::new(token, head.origin.clone(), attempt, leased_until);
        claims.rows.push(claimed);
    }
    Ok(claims)
}
