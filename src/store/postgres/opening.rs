//! Opening broadcasts in PostgreSQL, one or many at a time.

use std::collections::HashSet;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::attempts::in_transaction;
use super::broadcasts::{BY_ID, Stored, cursor_bytes, stored_columns};
use super::connection::{Database, Tx};
use super::error::{Failed, corrupt, without_origins};
use super::origins::MAKE;
use super::rows::{band_number, first, integer};
use super::{content, enqueue};
use crate::clock::Timestamp;
use crate::message::Topic;
use crate::store::rules::band;
use crate::store::{Cursor, NewBroadcast, Opened, StoreError};

pub(super) const BY_IDEMPOTENCY_KEY: &str = concat!(
    "SELECT ",
    stored_columns!(),
    ", fingerprint FROM web_push.broadcast WHERE idempotency_key = $1"
);
/// Inserts any number of broadcasts with their content and the rows of their first pages. Skips known ones, and opens nothing
/// if an origin is unknown. The rows are the first of their broadcasts, so that no turn was given before. Locks, marks and
/// orders origins as writing a page does.
pub(super) const OPEN: &str = "WITH place AS MATERIALIZED (SELECT id, origin, ready, turns FROM web_push.origin \
         WHERE id = ANY(ARRAY(SELECT id FROM web_push.origin WHERE origin = ANY($2))) ORDER BY id FOR KEY SHARE), \
     fresh AS MATERIALIZED (SELECT * FROM unnest($3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], \
             $8::bytea[], $9::boolean[], $10::smallint[], $11::bigint[], $12::boolean[], $13::bytea[], $14::text[], \
             $15::bytea[], $16::bigint[], $17::text[], $18::text[], $19::text[], $23::bigint[], $24::text[], $1::bigint[]) \
         AS fresh (id, send_at, deadline, expected, idempotency_key, fingerprint, forget, band, written, expanding, cursor, \
             audience, payload, ttl, urgency, topic, padding, pace, trace_parent, created_at)), \
     opened AS (INSERT INTO web_push.broadcast (id, created_at, send_at, due_at, deadline, expected, expand_at, \
             idempotency_key, fingerprint, forget_when_over, band, written, expanding, cursor, pace) \
         SELECT id, created_at, send_at, greatest(send_at, created_at), deadline, expected, greatest(send_at, created_at), idempotency_key, \
             fingerprint, forget, band, written, expanding, cursor, pace \
         FROM fresh WHERE (SELECT count(*) FROM place) = cardinality($2) \
         ORDER BY idempotency_key, id ON CONFLICT DO NOTHING \
         RETURNING seq, id, due_at, band, written > 1 OR expanding AS has_flow), \
     content AS (INSERT INTO web_push.content (broadcast, audience, payload, ttl, urgency, topic, padding, trace_parent) \
         SELECT seq, audience, payload, ttl, urgency, topic, padding, trace_parent FROM opened JOIN fresh ON fresh.id = opened.id), \
     recipient AS MATERIALIZED (SELECT opened.*, place.id AS origin, page.key, \
             least(place.turns[opened.band + 1], 4611686018427387904) \
             + row_number() OVER (PARTITION BY opened.seq, place.id ORDER BY page.number) AS turn \
         FROM unnest($20::bytea[], $21::text[], $22::bytea[]) WITH ORDINALITY AS page (broadcast, origin, key, number) \
         JOIN opened ON opened.id = page.broadcast JOIN place ON place.origin = page.origin), \
     written AS (INSERT INTO web_push.delivery (broadcast, key, origin, at, turn, band) \
         SELECT seq, key, origin, due_at, turn, band FROM recipient), \
     flow AS (INSERT INTO web_push.flow (broadcast, origin, turn) \
         SELECT seq, origin, max(turn) FROM recipient WHERE has_flow GROUP BY seq, origin), \
     marked AS (UPDATE web_push.origin SET ready = true WHERE id = ANY(ARRAY(SELECT place.id FROM place \
         WHERE NOT place.ready AND EXISTS (SELECT 1 FROM recipient WHERE recipient.origin = place.id)))) \
     SELECT ARRAY(SELECT id FROM opened), (SELECT count(*) FROM place)";

/// The columns of new broadcasts, their contents and the rows of their first pages, as arrays.
#[derive(Default)]
pub(super) struct Openings<'a> {
    created_at: Vec<i64>,
    origins: Vec<&'a str>,
    ids: Vec<&'a [u8]>,
    send_at: Vec<Option<i64>>,
    deadlines: Vec<i64>,
    expected: Vec<i64>,
    idempotency_keys: Vec<Option<&'a str>>,
    fingerprints: Vec<Option<&'a [u8]>>,
    forget: Vec<bool>,
    bands: Vec<i16>,
    written: Vec<i64>,
    expanding: Vec<bool>,
    cursors: Vec<Option<&'a [u8]>>,
    audiences: Vec<String>,
    payloads: Vec<Option<&'a [u8]>>,
    ttls: Vec<i64>,
    urgencies: Vec<&'a str>,
    topics: Vec<Option<&'a str>>,
    paddings: Vec<String>,
    paces: Vec<Option<i64>>,
    trace_parents: Vec<Option<String>>,
    /// The rows.
    broadcasts: Vec<&'a [u8]>,
    at: Vec<&'a str>,
    keys: Vec<&'a [u8]>,
    /// Broadcasts whose first page has no rows: writing it ends them, which the statement does not.
    empty: Vec<&'a NewBroadcast>,
}

impl<'a> Openings<'a> {
    pub(super) fn new(
        broadcasts: impl IntoIterator<Item = &'a NewBroadcast>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        Self::at_their_times(broadcasts.into_iter().map(|fresh| (fresh, now)))
    }

    /// The same, each with the time of its call.
    pub(super) fn at_their_times(
        broadcasts: impl IntoIterator<Item = (&'a NewBroadcast, Timestamp)>,
    ) -> Result<Self, StoreError> {
        let mut openings = Self::default();
        let (mut seen, mut keys) = (HashSet::new(), HashSet::new());
        for (fresh, now) in broadcasts {
            // The statement compares ids and keys with those of stored broadcasts only, and inserts in an order of its own:
            // of several the first one is left.
            let key = fresh.idempotency.as_ref().map(|of| of.key.as_str());
            if seen.insert(fresh.id) && key.is_none_or(|key| keys.insert(key)) {
                openings.push(fresh, now)?;
            }
        }
        openings.origins = openings.at.clone();
        openings.origins.sort_unstable();
        openings.origins.dedup();
        Ok(openings)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    fn push(&mut self, fresh: &'a NewBroadcast, now: Timestamp) -> Result<(), StoreError> {
        let (id, message) = (fresh.id.as_bytes().as_slice(), &fresh.message);
        let idempotency = fresh.idempotency.as_ref();
        self.created_at.push(now.as_millis());
        self.ids.push(id);
        self.send_at.push(fresh.send_at.map(Timestamp::as_millis));
        self.deadlines.push(fresh.deadline.as_millis());
        self.expected.push(integer(fresh.recipients));
        self.idempotency_keys
            .push(idempotency.map(|idempotency| idempotency.key.as_str()));
        self.fingerprints
            .push(idempotency.map(|idempotency| idempotency.fingerprint.as_slice()));
        self.forget.push(fresh.forget_when_over);
        self.bands.push(band_number(band(message.urgency())));
        self.audiences
            .push(content::audience_text(&fresh.audience)?);
        self.payloads
            .push(message.payload().map(|payload| payload.as_ref()));
        self.ttls.push(integer(message.ttl().as_secs()));
        self.urgencies.push(message.urgency().as_str());
        self.topics.push(message.topic().map(Topic::as_str));
        self.paddings.push(message.padding().to_string());
        self.paces
            .push(fresh.pace.map(|pace| i64::from(pace.get())));
        self.trace_parents
            .push(fresh.trace_parent.map(|parent| parent.to_string()));
        let page = fresh.first_page(now);
        let mut written = HashSet::new();
        for row in page.iter().flat_map(|page| &page.rows) {
            if written.insert(row.key) {
                self.broadcasts.push(id);
                self.at.push(row.origin.as_str());
                self.keys.push(row.key.as_bytes());
            }
        }
        let mut next = page.map_or(&Cursor::Start, |page| &page.next);
        if page.is_some() && written.is_empty() {
            self.empty.push(fresh);
            next = &Cursor::Start;
        }
        self.written.push(integer(written.len()));
        self.expanding.push(*next != Cursor::End);
        self.cursors.push(cursor_bytes(next));
        Ok(())
    }

    /// The values of [`OPEN`].
    fn values(&self) -> [&(dyn ToSql + Sync); 24] {
        [
            &self.created_at,
            &self.origins,
            &self.ids,
            &self.send_at,
            &self.deadlines,
            &self.expected,
            &self.idempotency_keys,
            &self.fingerprints,
            &self.forget,
            &self.bands,
            &self.written,
            &self.expanding,
            &self.cursors,
            &self.audiences,
            &self.payloads,
            &self.ttls,
            &self.urgencies,
            &self.topics,
            &self.paddings,
            &self.broadcasts,
            &self.at,
            &self.keys,
            &self.paces,
            &self.trace_parents,
        ]
    }

    /// The ids of opened broadcasts; `None` if an origin is unknown.
    fn opened(&self, rows: &[Row]) -> Result<Option<HashSet<[u8; 16]>>, StoreError> {
        let answer = first(rows, |columns| {
            let ids: Vec<&[u8]> = columns.get()?;
            Ok((
                columns.count()?,
                ids.into_iter()
                    .map(<[u8; 16]>::try_from)
                    .collect::<Result<_, _>>(),
            ))
        })?;
        let (known, ids) = answer.ok_or_else(|| corrupt("an answer"))?;
        let ids = ids.map_err(|_| corrupt("a broadcast's id"))?;
        Ok((known == self.origins.len() as u64).then_some(ids))
    }
}

/// Stores the broadcasts that are unknown, with their contents and first pages. Returns their ids.
pub(super) async fn open_all(
    tx: &mut Tx<'_>,
    openings: &Openings<'_>,
    now: Timestamp,
) -> Result<HashSet<[u8; 16]>, Failed> {
    let rows = tx.query(OPEN, &openings.values()).await?;
    let opened = openings.opened(&rows)?;
    let opened = opened.ok_or_else(|| without_origins(&openings.origins))?;
    for fresh in &openings.empty {
        if opened.contains(fresh.id.as_bytes()) {
            let page = enqueue::Page {
                of: fresh.id,
                expected: &Cursor::Start,
                rows: &[],
                next: fresh
                    .first_page(now)
                    .map_or(&Cursor::Start, |page| &page.next),
            };
            enqueue::enqueue_page(tx, &page, now).await?;
        }
    }
    Ok(opened)
}

/// Opens broadcasts of several calls, in one round trip that waits for each lock for a moment only. Returns the ids of those that were unknown;
/// `None` if an origin is.
pub(super) async fn open_shared(
    database: &Database,
    openings: &Openings<'_>,
) -> Result<Option<HashSet<[u8; 16]>>, Failed> {
    let rows = database.query_shared(OPEN, &openings.values()).await?;
    Ok(openings.opened(&rows)?)
}

/// Opens a broadcast: in one round trip, unless it is known, empty or the first one with a recipient of an origin.
pub(super) async fn open(
    database: &Database,
    new: &NewBroadcast,
    now: Timestamp,
) -> Result<Opened, StoreError> {
    let openings = Openings::new([new], now)?;
    if openings.empty.is_empty() {
        let rows = database.query(OPEN, &openings.values()).await?;
        match openings.opened(&rows)? {
            Some(opened) if !opened.is_empty() => return Ok(Opened::New),
            Some(_) => {}
            None => {
                database.execute(MAKE, &[&openings.origins]).await?;
            }
        }
    }
    in_transaction!(database, |tx| open_in(tx, &openings, new, now))
}

/// Opens a broadcast, of which these are the columns, in a transaction.
pub(super) async fn open_in(
    tx: &mut Tx<'_>,
    openings: &Openings<'_>,
    new: &NewBroadcast,
    now: Timestamp,
) -> Result<Opened, Failed> {
    loop {
        if !open_all(tx, openings, now).await?.is_empty() {
            return Ok(Opened::New);
        }
        if let Some(known) = known(tx, new, now).await? {
            return Ok(known);
        }
        // The known broadcast was deleted meanwhile.
    }
}

/// Returns the answer for a known broadcast (L2).
async fn known(
    tx: &mut Tx<'_>,
    new: &NewBroadcast,
    now: Timestamp,
) -> Result<Option<Opened>, Failed> {
    let rows = tx.query(BY_ID, &[&new.id.as_bytes().as_slice()]).await?;
    if let Some(stored) = first(&rows, Stored::read)? {
        return Ok(Some(Opened::Repeat(stored.progress.status(now))));
    }
    let Some(idempotency) = &new.idempotency else {
        return Ok(None);
    };
    let rows = tx.query(BY_IDEMPOTENCY_KEY, &[&idempotency.key]).await?;
    let found = first(&rows, |columns| {
        Ok((Stored::read(columns)?, columns.bytes::<32>()?))
    })?;
    Ok(found.map(|(stored, fingerprint)| {
        if fingerprint == idempotency.fingerprint {
            Opened::Repeat(stored.progress.status(now))
        } else {
            Opened::Conflict
        }
    }))
}
