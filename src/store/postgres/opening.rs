//! Opening broadcasts in PostgreSQL, one or many at a time.

use std::collections::HashMap;

use super::broadcasts::{BY_ID, Stored, stored_columns};
use super::connection::Tx;
use super::content;
use super::error::{Failed, corrupt};
use super::rows::{band_number, first, integer, read};
use crate::clock::Timestamp;
use crate::message::Topic;
use crate::store::rules::band;
use crate::store::{NewBroadcast, Opened, StoreError};

pub(super) const BY_IDEMPOTENCY_KEY: &str = concat!(
    "SELECT ",
    stored_columns!(),
    ", fingerprint FROM web_push.broadcast WHERE idempotency_key = $1"
);
/// Inserts any number of broadcasts. Skips known ones.
pub(super) const OPEN: &str = "INSERT INTO web_push.broadcast (id, created_at, send_at, due_at, deadline, expected, \
         expand_at, idempotency_key, fingerprint, forget_when_over, band, pace) \
     SELECT id, $1, send_at, greatest(send_at, $1), deadline, expected, greatest(send_at, $1), idempotency_key, \
         fingerprint, forget, band, pace \
     FROM unnest($2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bytea[], $8::boolean[], \
         $9::smallint[], $10::bigint[]) \
         AS fresh (id, send_at, deadline, expected, idempotency_key, fingerprint, forget, band, pace) \
     ORDER BY idempotency_key, id ON CONFLICT DO NOTHING RETURNING seq, id";
pub(super) const CONTENT: &str = "INSERT INTO web_push.content \
     (broadcast, audience, payload, ttl, urgency, topic, padding) \
     SELECT * FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::bigint[], $5::text[], $6::text[], $7::text[])";

/// Stores the broadcasts that are unknown, with their content. Returns their number.
pub(super) async fn open_all(
    tx: &mut Tx<'_>,
    broadcasts: &[&NewBroadcast],
    now: Timestamp,
) -> Result<usize, Failed> {
    let column = |read: fn(&NewBroadcast) -> i64| -> Vec<i64> {
        broadcasts.iter().map(|fresh| read(fresh)).collect()
    };
    let mut by_id = HashMap::new();
    let (mut ids, mut send_at, mut forget) = (Vec::new(), Vec::new(), Vec::new());
    let (mut keys, mut fingerprints) = (Vec::new(), Vec::new());
    for fresh in broadcasts {
        by_id.entry(*fresh.id.as_bytes()).or_insert(*fresh);
        ids.push(fresh.id.as_bytes().as_slice());
        send_at.push(fresh.send_at.map(Timestamp::as_millis));
        forget.push(fresh.forget_when_over);
        let idempotency = fresh.idempotency.as_ref();
        keys.push(idempotency.map(|idempotency| idempotency.key.as_str()));
        fingerprints.push(idempotency.map(|idempotency| idempotency.fingerprint.as_slice()));
    }
    let bands: Vec<_> = broadcasts
        .iter()
        .map(|fresh| band_number(band(fresh.message.urgency())))
        .collect();
    let paces: Vec<_> = broadcasts
        .iter()
        .map(|fresh| fresh.pace.map(|pace| i64::from(pace.get())))
        .collect();
    let deadlines = column(|fresh| fresh.deadline.as_millis());
    let expected = column(|fresh| integer(fresh.recipients));
    let now = now.as_millis();
    let rows = tx
        .query(
            OPEN,
            &[
                &now,
                &ids,
                &send_at,
                &deadlines,
                &expected,
                &keys,
                &fingerprints,
                &forget,
                &bands,
                &paces,
            ],
        )
        .await?;
    let opened = read(&rows, |columns| {
        Ok((columns.get()?, columns.bytes::<16>()?))
    })?;
    if opened.is_empty() {
        return Ok(0);
    }
    let mut contents = Contents::default();
    for (seq, id) in &opened {
        let fresh = by_id.get(id);
        contents.push(*seq, fresh.ok_or_else(|| corrupt("a broadcast's id"))?)?;
    }
    contents.write(tx).await?;
    Ok(opened.len())
}

/// The columns of content rows as arrays.
#[derive(Default)]
struct Contents<'a> {
    seqs: Vec<i64>,
    audiences: Vec<String>,
    payloads: Vec<Option<&'a [u8]>>,
    ttls: Vec<i64>,
    urgencies: Vec<&'a str>,
    topics: Vec<Option<&'a str>>,
    paddings: Vec<String>,
}

impl<'a> Contents<'a> {
    fn push(&mut self, seq: i64, of: &'a NewBroadcast) -> Result<(), StoreError> {
        let message = &of.message;
        self.seqs.push(seq);
        self.audiences.push(content::audience_text(&of.audience)?);
        self.payloads
            .push(message.payload().map(|payload| payload.as_ref()));
        self.ttls.push(integer(message.ttl().as_secs()));
        self.urgencies.push(message.urgency().as_str());
        self.topics.push(message.topic().map(Topic::as_str));
        self.paddings.push(message.padding().to_string());
        Ok(())
    }

    async fn write(&self, tx: &mut Tx<'_>) -> Result<u64, Failed> {
        tx.execute(
            CONTENT,
            &[
                &self.seqs,
                &self.audiences,
                &self.payloads,
                &self.ttls,
                &self.urgencies,
                &self.topics,
                &self.paddings,
            ],
        )
        .await
    }
}

pub(super) async fn open(
    tx: &mut Tx<'_>,
    new: &NewBroadcast,
    now: Timestamp,
) -> Result<Opened, Failed> {
    loop {
        if open_all(tx, &[new], now).await? > 0 {
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
