//! The outbox in PostgreSQL: what applications enqueued in transactions of their own.
//!
//! Entries are taken because they are there, and not from a place where an earlier look ended: numbers are given before the
//! transactions of entries commit, and in any order.

use std::collections::HashSet;

use tokio_postgres::Transaction;
use tokio_postgres::types::{ToSql, Type};

use super::PostgresStore;
use super::attempts::in_transaction;
use super::connection::{Database, Quiet, Tx};
use super::error::Failed;
use super::opening::{Openings, open_all, open_in};
use super::rows::{Columns, first, integer, read};
use crate::broadcast::{Broadcast, BroadcastId, OutboxDialect, Principal};
use crate::clock::Timestamp;
use crate::store::{
    Opened, OutboxEntry, OutboxRefusal, OutboxSettled, OutboxSettlement, OutboxStats, RefusedEntry,
    StoreError,
};

pub(super) const WAITING: &str = "SELECT seq, uuid_send(id), audience::text, message::text, opts::text \
     FROM web_push.outbox ORDER BY seq LIMIT $1";
/// Passes over those that another process settles now.
pub(super) const LOCK: &str =
    "SELECT seq FROM web_push.outbox WHERE seq = ANY($1) ORDER BY seq FOR UPDATE SKIP LOCKED";
pub(super) const REMOVE: &str = "DELETE FROM web_push.outbox WHERE seq = ANY($1)";
pub(super) const REFUSE: &str = "WITH taken AS (DELETE FROM web_push.outbox AS o \
         USING unnest($1::bigint[], $2::text[], $3::text[]) AS refused (seq, code, detail) \
         WHERE o.seq = refused.seq RETURNING o.*, refused.code, refused.detail) \
     INSERT INTO web_push.outbox_refused (seq, id, audience, message, opts, at, code, detail, refused_at) \
     SELECT seq, id, audience, message, opts, at, code, detail, $4 FROM taken";
pub(super) const REFUSED: &str = "SELECT seq, uuid_send(id), audience::text, message::text, opts::text, code, detail, \
     refused_at FROM web_push.outbox_refused ORDER BY seq LIMIT $1";
pub(super) const RETRY: &str = "WITH back AS (DELETE FROM web_push.outbox_refused WHERE seq = $1 RETURNING *) \
     INSERT INTO web_push.outbox (seq, id, audience, message, opts, at) OVERRIDING SYSTEM VALUE \
     SELECT seq, id, audience, message, opts, at FROM back";
pub(super) const DROP: &str = "DELETE FROM web_push.outbox_refused WHERE seq = $1";
pub(super) const STATS: &str = "SELECT (SELECT count(*) FROM web_push.outbox), \
     (SELECT count(*) FROM web_push.outbox_refused)";
const ERASE: &str = "DELETE FROM web_push.outbox WHERE audience = $1::text::jsonb";
const ERASE_REFUSED: &str = "DELETE FROM web_push.outbox_refused WHERE audience = $1::text::jsonb";

impl PostgresStore {
    /// Enqueues a broadcast in a transaction of the application's own, of its own pool or connection to the database of this
    /// store: it is sent if and only if the transaction commits. See [the guide](crate::guide::in_your_own_transaction).
    ///
    /// It is one `INSERT`, by the function `enqueue` in the schema of the store: the role of the connection needs the rights
    /// that the guide names. A transaction of `deadpool_postgres` derefs to one of `tokio_postgres`. The TTL counts from
    /// the moment, after the commit, at which a worker opens the broadcast, or from its time.
    ///
    /// # Errors
    ///
    /// Returns an error if the server refuses it, or is out of reach. The transaction can only be rolled back then, to a
    /// savepoint if there is one. A message above [`Message::MAX_PAYLOAD`](crate::Message::MAX_PAYLOAD) and a malformed
    /// idempotency key are refused as [`Misconfigured`](crate::store::StoreErrorKind::Misconfigured). What else is wrong
    /// shows in [`WebPush::refused_outbox`](crate::WebPush::refused_outbox).
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have written the entry. Roll the transaction back.
    pub async fn enqueue_in(
        &self,
        transaction: &Transaction<'_>,
        broadcast: &Broadcast,
    ) -> Result<BroadcastId, StoreError> {
        let schema = self.database().schema.name();
        let statement = broadcast.outbox_statement(OutboxDialect::Postgres { schema });
        let [audience, message, opts] = statement.parameters.each_ref().map(|text| Quiet(text));
        let values: [(&(dyn ToSql + Sync), Type); 3] = [
            (&audience, Type::TEXT),
            (&message, Type::TEXT),
            (&opts, Type::TEXT),
        ];
        let done = transaction.query_typed(&statement.sql, &values).await;
        done.map_err(|error| Failed::from(error).error)?;
        Ok(statement.id)
    }

    /// Tells workers, of this and of other processes, that a transaction with an entry of the outbox was committed: they look
    /// at once, and not up to a second later. Nothing depends on it.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have told none.
    pub async fn announce(&self) {
        self.tell().await;
    }
}

pub(super) async fn waiting(
    database: &Database,
    limit: usize,
) -> Result<Vec<OutboxEntry>, StoreError> {
    let rows = database.query(WAITING, &[&integer(limit)]).await?;
    read(&rows, entry)
}

fn entry(columns: &mut Columns<'_>) -> Result<OutboxEntry, StoreError> {
    Ok(OutboxEntry {
        seq: columns.get()?,
        id: BroadcastId::from_bytes(columns.bytes()?),
        audience: columns.get()?,
        message: columns.get()?,
        opts: columns.get()?,
    })
}

/// Settles entries in one transaction. The order of locks is entries, and then those of opening broadcasts.
pub(super) async fn settle(
    database: &Database,
    entries: &[(i64, OutboxSettlement)],
    now: Timestamp,
) -> Result<Vec<OutboxSettled>, StoreError> {
    in_transaction!(database, |tx| settle_in(tx, entries, now))
}

async fn settle_in(
    tx: &mut Tx<'_>,
    entries: &[(i64, OutboxSettlement)],
    now: Timestamp,
) -> Result<Vec<OutboxSettled>, Failed> {
    let seqs: Vec<_> = entries.iter().map(|(seq, _)| *seq).collect();
    let rows = tx.query(LOCK, &[&seqs]).await?;
    let mut locked: HashSet<i64> = read(&rows, |columns| columns.get::<i64>())?
        .into_iter()
        .collect();
    if locked.is_empty() {
        return Ok(vec![OutboxSettled::Taken; entries.len()]);
    }
    let mine: Vec<_> = entries
        .iter()
        .map(|(seq, settlement)| locked.remove(seq).then_some(settlement))
        .collect();
    let fresh = mine.iter().filter_map(|settlement| match settlement {
        Some(OutboxSettlement::Open(new)) => Some(&**new),
        Some(OutboxSettlement::Refuse(_)) | None => None,
    });
    let openings = Openings::new(fresh, now)?;
    let mut opened = match openings.is_empty() {
        true => HashSet::new(),
        false => open_all(tx, &openings, now).await?,
    };
    let mut settled = Vec::with_capacity(entries.len());
    let (mut removed, mut refused) = (Vec::new(), Vec::new());
    for (seq, settlement) in seqs.iter().zip(mine) {
        let (answer, refusal) = match settlement {
            None => {
                settled.push(OutboxSettled::Taken);
                continue;
            }
            Some(OutboxSettlement::Refuse(refusal)) => {
                (OutboxSettled::Refused, Some(refusal.clone()))
            }
            Some(OutboxSettlement::Open(new)) if opened.remove(new.id.as_bytes()) => {
                (OutboxSettled::Opened, None)
            }
            // It is known, or was a moment ago.
            Some(OutboxSettlement::Open(new)) => {
                let alone = Openings::new([&**new], now)?;
                match open_in(tx, &alone, new, now).await? {
                    Opened::New => (OutboxSettled::Opened, None),
                    Opened::Repeat(_) => (OutboxSettled::Repeat, None),
                    Opened::Conflict => (OutboxSettled::Conflict, Some(OutboxRefusal::conflict())),
                }
            }
        };
        match refusal {
            Some(refusal) => refused.push((*seq, refusal)),
            None => removed.push(*seq),
        }
        settled.push(answer);
    }
    let seqs: Vec<_> = refused.iter().map(|(seq, _)| *seq).collect();
    let codes: Vec<_> = refused.iter().map(|(_, why)| why.code.as_str()).collect();
    let details: Vec<_> = refused.iter().map(|(_, why)| why.detail.as_str()).collect();
    let now = now.as_millis();
    tx.finish(
        (REFUSE, &[&seqs, &codes, &details, &now]),
        (REMOVE, &[&removed]),
    )
    .await?;
    Ok(settled)
}

pub(super) async fn refused(
    database: &Database,
    limit: usize,
) -> Result<Vec<RefusedEntry>, StoreError> {
    let rows = database.query(REFUSED, &[&integer(limit)]).await?;
    read(&rows, |columns| {
        let entry = entry(columns)?;
        let refusal = OutboxRefusal {
            code: columns.get()?,
            detail: columns.get()?,
        };
        Ok(RefusedEntry::new(entry, refusal, columns.time()?))
    })
}

pub(super) async fn stats(database: &Database) -> Result<OutboxStats, StoreError> {
    let rows = database.query(STATS, &[]).await?;
    let stats = first(&rows, |columns| {
        Ok(OutboxStats::new(columns.count()?, columns.count()?))
    })?;
    Ok(stats.unwrap_or_default())
}

/// Removes the entries to a user alone. Returns their number.
pub(super) async fn erase(database: &Database, user: &Principal) -> Result<u64, StoreError> {
    if user.as_str().contains('\0') {
        // No `jsonb` contains it.
        return Ok(0);
    }
    let audience = serde_json::json!({ "user": user }).to_string();
    let waiting = database.execute(ERASE, &[&audience]).await?;
    Ok(waiting + database.execute(ERASE_REFUSED, &[&audience]).await?)
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
