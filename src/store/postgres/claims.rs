//! Claiming rows in PostgreSQL.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::connection::{Database, Tx, in_transaction};
use super::content;
use super::error::{Failed, corrupt};
use super::ready::{Front, Head};
use super::rows::{Columns, band_number, integer, read};
use super::{ending, holding, ready, waking};
use crate::broadcast::BroadcastId;
use crate::clock::Timestamp;
use crate::store::heartbeat::WorkerId;
use crate::store::rules::{BANDS, Rounds, shares};
use crate::store::{
    ClaimRequest, ClaimToken, Claimed, ClaimedMessage, Claims, PauseReason, STEP, StoreError,
};
use crate::subscription::EndpointKey;

/// One of several concurrent claims gets the probe. The others do not wait.
pub(super) const LOCK_PROBED: &str = "SELECT id FROM web_push.origin WHERE id = ANY($1) AND paused_until <= $2 \
     AND pause_reason = ANY($3) FOR NO KEY UPDATE SKIP LOCKED";
/// Takes the wanted number of rows of each origin and band, in the order of their turns. Skips rows that concurrent claims
/// take, and passes over rows of cancelled and paused broadcasts, which may be very many: it looks at a bounded number of
/// rows. A row
/// that has changed since the statement began has no turn or another one.
pub(super) const TAKE: &str = "WITH taken AS MATERIALIZED (SELECT asked.place, row.* \
     FROM unnest($1::bigint[], $2::smallint[], $3::bigint[]) WITH ORDINALITY AS asked (origin, band, wanted, place) \
     CROSS JOIN LATERAL (SELECT locked.ctid, next.turn \
         FROM (SELECT ctid, turn, broadcast FROM web_push.delivery \
             WHERE origin = asked.origin AND band = asked.band AND turn IS NOT NULL \
             ORDER BY turn LIMIT asked.wanted + $5) AS next \
         CROSS JOIN LATERAL (SELECT d.ctid FROM web_push.delivery AS d WHERE d.ctid = next.ctid AND d.turn = next.turn \
             FOR UPDATE SKIP LOCKED) AS locked \
         WHERE coalesce((SELECT NOT (b.is_cancelled OR b.is_held) OR b.ended_at IS NOT NULL FROM web_push.broadcast AS b \
             WHERE b.seq = next.broadcast), true) \
         ORDER BY next.turn LIMIT asked.wanted) AS row) \
     UPDATE web_push.delivery AS d SET turn = NULL, leased = true, at = $4, fence = nextval('web_push.fence'), \
         worker = $6, attempt = d.attempt + 1 \
     FROM taken WHERE d.ctid = taken.ctid \
     RETURNING taken.place, taken.turn, d.broadcast, d.key, d.fence, d.attempt";
pub(super) const MESSAGES: &str = "SELECT seq, id, least(expected, written, accepted, gone, key_mismatch, sender_fault, \
         too_large, bad_request, refused, expired, failed, cancelled) >= 0 \
         AND coalesce(pace BETWEEN 1 AND 4294967295, true), due_at, deadline, \
         payload, ttl, urgency, topic, padding \
     FROM web_push.broadcast AS b LEFT JOIN LATERAL ( \
         SELECT * FROM web_push.content WHERE content.broadcast = b.seq OFFSET 0) AS content ON true WHERE b.seq = ANY($1)";
/// Records the claims of origins and their highest turns, and moves origins to the end of the turn order if `$5` is given.
/// Best effort: locked origins are skipped.
pub(super) const SERVED: &str = "UPDATE web_push.origin AS o SET takes = o.takes + 1, \
     turns = ARRAY[greatest(o.turns[1], fresh.high), greatest(o.turns[2], fresh.normal), greatest(o.turns[3], fresh.low)], \
     served = coalesce($5, o.served) \
     FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS fresh (id, high, normal, low) \
     WHERE o.id = fresh.id AND o.id IN (SELECT id FROM web_push.origin WHERE id = ANY($1) FOR NO KEY UPDATE SKIP LOCKED)";
/// Pauses the origin until the probe's lease ends, so that there is one probe at a time.
pub(super) const PROBED: &str = "UPDATE web_push.origin AS o SET paused_until = $1, probe_fence = probe.fence, \
     probe_key = probe.key \
     FROM unnest($2::bigint[], $3::bigint[], $4::bytea[]) AS probe (origin, fence, key) WHERE o.id = probe.origin";

/// The rows of cancelled broadcasts that a claim passes over in each band of each origin, however many these are.
pub(super) const PASSED_AT_LEAST: usize = 32;

/// A claimed row.
struct Taken {
    place: usize,
    band: usize,
    turn: i64,
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
            band: 0,
            turn: columns.get()?,
            seq: columns.get()?,
            key: columns.bytes()?,
            fence: columns.count()?,
            attempt: columns.count()?,
        })
    }
}

/// What a claim takes at one origin.
struct Serving<'a> {
    head: &'a Head,
    /// The most rows that a band may have.
    ready: [usize; BANDS],
    /// The rows of this round.
    wanted: usize,
    got: [usize; BANDS],
    /// The highest turns of the claim.
    turns: [i64; BANDS],
    /// Whether a band had fewer rows than it was asked for.
    is_short: bool,
}

impl<'a> Serving<'a> {
    fn new(head: &'a Head) -> Self {
        let ready = head.has.map(|has| if has { usize::MAX } else { 0 });
        Self {
            head,
            ready,
            wanted: 0,
            got: [0; BANDS],
            turns: [0; BANDS],
            is_short: false,
        }
    }

    fn begin_round(&mut self, wanted: usize) {
        self.wanted = wanted;
        for (ready, got) in self.ready.iter_mut().zip(&mut self.got) {
            // A band that had fewer rows than it was asked for has no more.
            *ready = ready.saturating_sub(std::mem::take(got));
        }
    }

    /// The rows that each band has to give yet.
    fn asks(&self) -> impl Iterator<Item = (usize, usize)> {
        // The probe of a paused origin is the most urgent row.
        let take = match self.head.is_probed {
            true => 0,
            false => self.head.takes,
        };
        let shares = shares(self.wanted, take, self.ready);
        let left = shares.into_iter().zip(self.got);
        let left = left.map(|(share, got)| share.saturating_sub(got));
        left.enumerate().filter(|(_, left)| *left > 0)
    }

    fn took(&mut self, band: usize, asked: usize, rows: &[&Taken]) {
        let (Some(ready), Some(got), Some(turn)) = (
            self.ready.get_mut(band),
            self.got.get_mut(band),
            self.turns.get_mut(band),
        ) else {
            return;
        };
        *got += rows.len();
        if rows.len() < asked {
            *ready = *got;
            self.is_short = true;
        }
        *turn = rows.iter().map(|row| row.turn).fold(*turn, i64::max);
    }
}

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
            more,
            ..Claims::default()
        });
    }
    let (mut claims, short) =
        in_transaction!(database, |tx| claim_of(tx, &front, request, worker, now))?;
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
    claims.more = more;
    Ok(claims)
}

/// Returns the claimed rows, and origins that had fewer than they were asked for.
async fn claim_of(
    tx: &mut Tx<'_>,
    front: &Front,
    request: &ClaimRequest,
    worker: Option<WorkerId>,
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
            false => request.room_for(&head.origin),
        })
        .collect();
    let leased_until = now + request.lease;
    let lease = (leased_until, worker);
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
            let got = servings
                .get(index)
                .map_or(0, |serving| serving.got.iter().sum());
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
    Ok((answer(&messages, all, leased_until)?, short))
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
        let mut asks = Vec::new();
        for index in indexes {
            let Some(serving) = servings.get(*index) else {
                continue;
            };
            asks.extend(
                serving
                    .asks()
                    .map(|(band, asked)| (*index, serving.head.id, band, asked)),
            );
        }
        if asks.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = asks.iter().map(|(_, id, ..)| *id).collect();
        let bands: Vec<_> = asks
            .iter()
            .map(|(.., band, _)| band_number(*band))
            .collect();
        let asked: Vec<_> = asks.iter().map(|(.., asked)| integer(*asked)).collect();
        // Of all origins and bands together.
        let passed = integer((STEP / asks.len()).max(PASSED_AT_LEAST));
        let until = leased_until.as_millis();
        let values: [&(dyn ToSql + Sync); 6] = [&ids, &bands, &asked, &until, &passed, &worker];
        let taken = read(&tx.query(TAKE, &values).await?, Taken::read)?;
        for (place, (index, _, band, asked)) in asks.iter().enumerate() {
            let rows: Vec<_> = taken.iter().filter(|row| row.place == place).collect();
            if let Some(serving) = servings.get_mut(*index) {
                serving.took(*band, *asked, &rows);
            }
        }
        for mut row in taken {
            if let Some((index, _, band, _)) = asks.get(row.place) {
                row.band = *band;
                all.push((*index, row));
            }
        }
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

/// Sorts the rows and reads their messages.
fn answer(
    messages: &[Row],
    mut taken: Vec<(&Head, Taken)>,
    leased_until: Timestamp,
) -> Result<Claims, StoreError> {
    let mut ids = std::collections::HashMap::new();
    let mut claims = Claims::default();
    for (seq, id, message) in read(messages, |columns| {
        let seq: i64 = columns.get()?;
        let id = columns.bytes().map(BroadcastId::from_bytes).ok();
        let is_countable: bool = columns.get()?;
        let (due_at, deadline) = (columns.time()?, columns.time()?);
        // One that cannot be read is left out, and its rows are claimed all the same (L5). With damaged counts their
        // outcome could not be counted.
        let message = content::read_message(columns).ok();
        let message = message.filter(|_| is_countable);
        let message = message.map(|message| ClaimedMessage::new(message, due_at, deadline));
        Ok((seq, id, message))
    })? {
        // Without a readable id no call can name its rows. An error would lose the others, which are leased already.
        let Some(id) = id else { continue };
        ids.insert(seq, id);
        if let Some(message) = message {
            claims.messages.insert(id, message);
        }
    }
    // Urgent ones first, in the order of turns.
    taken.sort_by_key(|(_, row)| (row.band, row.turn, row.seq));
    for (head, row) in taken {
        // A row without a broadcast, as after a partial restore, does not keep the others from being claimed.
        let Some(id) = ids.get(&row.seq).copied() else {
            continue;
        };
        let token = ClaimToken::new(id, EndpointKey::from_bytes(row.key), row.fence);
        let attempt = u32::try_from(row.attempt).unwrap_or(u32::MAX);
        let claimed = Claimed::new(token, head.origin.clone(), attempt, leased_until);
        claims.rows.push(claimed);
    }
    Ok(claims)
}
