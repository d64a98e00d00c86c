//! Taking ready rows in PostgreSQL: what is asked of each origin and band, and what comes of it.

use std::collections::HashMap;

use tokio_postgres::Row;

use super::content;
use super::error::corrupt;
use super::ready::Head;
use super::rows::{Columns, band_number, integer, read};
use crate::broadcast::BroadcastId;
use crate::clock::Timestamp;
use crate::store::message_parts::only_for;
use crate::store::readable::ReadablePage;
use crate::store::rules::{BANDS, shares};
use crate::store::{ClaimToken, Claimed, ClaimedMessage, Claims, STEP, StoreError};
use crate::subscription::EndpointKey;

/// Takes the wanted number of rows of each origin and band, in the order of their turns. Skips rows that concurrent claims
/// take, and passes over rows of cancelled and paused broadcasts, which may be very many: it looks at a bounded number of
/// rows. A row that has changed since the statement began has no turn or another one. Damage of one row's attempts must not end
/// all claims.
macro_rules! leased {
    () => {
        "WITH taken AS MATERIALIZED (SELECT asked.place, asked.origin, asked.band, row.* \
     FROM unnest($1::bigint[], $2::smallint[], $3::bigint[]) WITH ORDINALITY AS asked (origin, band, wanted, place) \
     CROSS JOIN LATERAL (SELECT locked.ctid, next.turn \
         FROM (SELECT ctid, turn, broadcast FROM web_push.delivery \
             WHERE origin = asked.origin AND band = asked.band AND turn IS NOT NULL \
             ORDER BY turn LIMIT asked.wanted + $5) AS next \
         CROSS JOIN LATERAL (SELECT d.ctid FROM web_push.delivery AS d WHERE d.ctid = next.ctid AND d.turn = next.turn \
             FOR UPDATE SKIP LOCKED) AS locked \
         WHERE coalesce((SELECT NOT (b.is_cancelled OR b.is_held) OR b.ended_at IS NOT NULL FROM web_push.broadcast AS b \
             WHERE b.seq = next.broadcast), true) \
         ORDER BY next.turn LIMIT asked.wanted) AS row), \
     leased AS (UPDATE web_push.delivery AS d SET turn = NULL, leased = true, at = $4, \
         fence = nextval('web_push.fence'), worker = $6, attempt = least(greatest(d.attempt, 0), 4294967294) + 1 \
     FROM taken WHERE d.ctid = taken.ctid \
     RETURNING taken.place, taken.origin, taken.band, taken.turn, d.broadcast, d.key, d.fence, d.attempt)"
    };
}
macro_rules! message_columns {
    () => {
        "b.id, least(b.expected, b.written, b.accepted, b.gone, b.key_mismatch, b.sender_fault, b.too_large, \
         b.bad_request, b.refused, b.expired, b.failed, b.cancelled) >= 0 \
         AND coalesce(b.pace BETWEEN 1 AND 4294967295, true), b.due_at, b.deadline, \
         content.payload, content.ttl, content.urgency, content.topic, content.padding, \
         CASE WHEN left(content.audience, 7) <> '{\"ids\":' THEN content.audience END, content.trace_parent"
    };
}
macro_rules! join_content {
    () => {
        " LEFT JOIN LATERAL (SELECT * FROM web_push.content WHERE content.broadcast = b.seq OFFSET 0) AS content ON true"
    };
}

pub(super) const TAKE: &str = concat!(
    leased!(),
    " SELECT place, turn, broadcast, key, fence, attempt FROM leased"
);
/// Records the claims of origins and their highest turns too, as [`SERVED`](super::claims::SERVED) does, and returns the
/// messages: in rows without a place, each once. The origins are found by an array of their ids, so that no plan reads all
/// origins, whatever the statistics say.
pub(super) const TAKE_AT_ONCE: &str = concat!(
    leased!(),
    ", fresh AS MATERIALIZED (SELECT origin, coalesce(max(turn) FILTER (WHERE band = 0), 0) AS high, \
         coalesce(max(turn) FILTER (WHERE band = 1), 0) AS normal, \
         coalesce(max(turn) FILTER (WHERE band = 2), 0) AS low FROM leased GROUP BY origin), \
     served AS (UPDATE web_push.origin AS o SET takes = o.takes % 1073741824 + 1, \
         turns = ARRAY[greatest(o.turns[1], fresh.high), greatest(o.turns[2], fresh.normal), \
             greatest(o.turns[3], fresh.low)], \
         served = CASE WHEN $7::boolean OR (SELECT count(*) FROM fresh) < $8::bigint \
             THEN (SELECT max(fence) FROM leased) ELSE o.served END \
     FROM fresh WHERE o.id = fresh.origin AND o.id = ANY(ARRAY( \
         SELECT locked.id FROM fresh AS claimed CROSS JOIN LATERAL (SELECT of.id FROM web_push.origin AS of \
             WHERE of.id = claimed.origin FOR NO KEY UPDATE SKIP LOCKED) AS locked))) \
     SELECT place, turn, broadcast, key, fence, attempt, NULL::bytea, NULL::boolean, NULL::bigint, NULL::bigint, \
         NULL::bytea, NULL::bigint, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text FROM leased \
     UNION ALL SELECT NULL, NULL, b.seq, NULL, NULL, NULL, ",
    message_columns!(),
    " FROM (SELECT DISTINCT broadcast FROM leased) AS theirs \
     CROSS JOIN LATERAL (SELECT * FROM web_push.broadcast WHERE broadcast.seq = theirs.broadcast OFFSET 0) AS b",
    join_content!()
);
pub(super) const MESSAGES: &str = concat!(
    "SELECT b.seq, ",
    message_columns!(),
    " FROM web_push.broadcast AS b",
    join_content!(),
    " WHERE b.seq = ANY($1)"
);

/// The rows of cancelled broadcasts that a claim passes over in each band of each origin, however many these are.
pub(super) const PASSED_AT_LEAST: usize = 32;

/// A claimed row.
pub(super) struct Taken {
    place: usize,
    band: usize,
    turn: i64,
    pub(super) seq: i64,
    pub(super) key: [u8; 32],
    pub(super) fence: u64,
    attempt: u64,
}

impl Taken {
    /// Reads a row's columns after its place.
    fn read(place: i64, columns: &mut Columns<'_>) -> Result<Self, StoreError> {
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

    /// Reads the rows of [`TAKE`] that can be read, as [`read_at_once`] does.
    pub(super) fn read_all(rows: &[Row]) -> Result<Vec<Self>, StoreError> {
        let mut page = ReadablePage::new(rows.len());
        for row in rows {
            let mut columns = Columns::of(row);
            let place = columns.get()?;
            page.push(Self::read(place, &mut columns))?;
        }
        Ok(page.finish("deliveries"))
    }
}

/// A broadcast with its id and message, as far as they can be read.
pub(super) struct Of {
    seq: i64,
    id: Option<BroadcastId>,
    message: Option<ClaimedMessage>,
}

impl Of {
    fn read(columns: &mut Columns<'_>) -> Result<Self, StoreError> {
        let seq = columns.get()?;
        Self::at(seq, columns)
    }

    fn at(seq: i64, columns: &mut Columns<'_>) -> Result<Self, StoreError> {
        let id = columns.bytes().map(BroadcastId::from_bytes).ok();
        let is_countable: bool = columns.get()?;
        let (due_at, deadline) = (columns.time()?, columns.time()?);
        // One that cannot be read is left out, and its rows are claimed all the same (L5). With damaged counts their
        // outcome could not be counted.
        let message = content::read_message(columns).and_then(|message| {
            let audience: Option<&str> = columns.get()?;
            let message = ClaimedMessage::new(message, due_at, deadline);
            Ok(ClaimedMessage {
                only_for: only_for(audience.map(str::as_bytes))?,
                trace_parent: content::trace_parent(columns),
                ..message
            })
        });
        let message = message.ok().filter(|_| is_countable);
        Ok(Self { seq, id, message })
    }

    pub(super) fn read_all(rows: &[Row]) -> Result<Vec<Self>, StoreError> {
        read(rows, Self::read)
    }
}

/// Reads the rows of [`TAKE_AT_ONCE`]. Those that cannot be read are left out and end at their deadline: all are leased, and an
/// error would cost the others an attempt.
pub(super) fn read_at_once(rows: &[Row]) -> Result<(Vec<Taken>, Vec<Of>), StoreError> {
    let (mut taken, mut messages) = (ReadablePage::new(rows.len()), Vec::new());
    for row in rows {
        let mut columns = Columns::of(row);
        match columns.get()? {
            Some(place) => taken.push(Taken::read(place, &mut columns))?,
            None => {
                columns.skip(1);
                let seq = columns.get()?;
                columns.skip(3);
                messages.push(Of::at(seq, &mut columns)?);
            }
        }
    }
    Ok((taken.finish("deliveries"), messages))
}

/// What a claim takes at one origin.
pub(super) struct Serving<'a> {
    pub(super) head: &'a Head,
    /// The most rows that a band may have.
    ready: [usize; BANDS],
    /// The rows of this round.
    wanted: usize,
    got: [usize; BANDS],
    /// The highest turns of the claim.
    pub(super) turns: [i64; BANDS],
    /// Whether a band had fewer rows than it was asked for.
    pub(super) is_short: bool,
}

impl<'a> Serving<'a> {
    pub(super) fn new(head: &'a Head) -> Self {
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

    pub(super) fn begin_round(&mut self, wanted: usize) {
        self.wanted = wanted;
        for (ready, got) in self.ready.iter_mut().zip(&mut self.got) {
            // A band that had fewer rows than it was asked for has no more.
            *ready = ready.saturating_sub(std::mem::take(got));
        }
    }

    /// The rows of this round.
    pub(super) fn got(&self) -> usize {
        self.got.iter().sum()
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

/// The values of one [`TAKE`].
pub(super) struct Asks {
    /// The index of the serving, the band and the number of rows, by place.
    asks: Vec<(usize, usize, usize)>,
    pub(super) ids: Vec<i64>,
    pub(super) bands: Vec<i16>,
    pub(super) wanted: Vec<i64>,
}

impl Asks {
    /// What these servings have to get yet.
    pub(super) fn of(indexes: &[usize], servings: &[Serving<'_>]) -> Self {
        let mut of = Self {
            asks: Vec::new(),
            ids: Vec::new(),
            bands: Vec::new(),
            wanted: Vec::new(),
        };
        for index in indexes {
            let Some(serving) = servings.get(*index) else {
                continue;
            };
            for (band, asked) in serving.asks() {
                of.asks.push((*index, band, asked));
                of.ids.push(serving.head.id);
                of.bands.push(band_number(band));
                of.wanted.push(integer(asked));
            }
        }
        of
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.asks.is_empty()
    }

    /// The rows of cancelled and paused broadcasts to pass over in each band, of about [`STEP`] of all together.
    pub(super) fn passed(&self) -> i64 {
        integer((STEP / self.asks.len().max(1)).max(PASSED_AT_LEAST))
    }

    /// Adds rows to `all`, with the indexes of their servings.
    pub(super) fn took(
        &self,
        taken: Vec<Taken>,
        servings: &mut [Serving<'_>],
        all: &mut Vec<(usize, Taken)>,
    ) {
        for (place, (index, band, asked)) in self.asks.iter().enumerate() {
            let rows: Vec<_> = taken.iter().filter(|row| row.place == place).collect();
            if let Some(serving) = servings.get_mut(*index) {
                serving.took(*band, *asked, &rows);
            }
        }
        for mut row in taken {
            if let Some((index, band, _)) = self.asks.get(row.place) {
                row.band = *band;
                all.push((*index, row));
            }
        }
    }
}

/// Sorts the rows, and adds the messages.
pub(super) fn answer(
    messages: Vec<Of>,
    mut taken: Vec<(&Head, Taken)>,
    leased_until: Timestamp,
) -> Claims {
    let mut ids = HashMap::new();
    let mut claims = Claims::default();
    for Of { seq, id, message } in messages {
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
    claims
}
