//! The outbox in SQLite (L22): a table in the application's file that the application writes to.

use rusqlite::types::{FromSql, FromSqlResult, ValueRef};
use rusqlite::{Transaction, params};

use super::SqliteStore;
use super::broadcasts;
use super::connection::Connection;
use super::error::{failed, misconfigured};
use super::query::{Columns, all, execute, first, integer};
use crate::broadcast::{Audience, Broadcast, BroadcastId, OutboxDialect, Principal};
use crate::clock::Timestamp;
use crate::store::{
    Opened, OutboxEntry, OutboxRefusal, OutboxSettled, OutboxSettlement, OutboxStats, RefusedEntry,
    STEP, StoreError,
};

pub(super) const WAITING: &str =
    "SELECT seq, id, audience, message, opts FROM outbox WHERE seq > ?1 ORDER BY seq LIMIT ?2";
pub(super) const REFUSED: &str = "SELECT seq, id, audience, message, opts, code, detail, refused_at FROM outbox_refused \
     WHERE seq > ?1 ORDER BY seq LIMIT ?2";
pub(super) const IS_WAITING: &str = "SELECT 1 FROM outbox WHERE seq = ?1";
pub(super) const REMOVE: &str = "DELETE FROM outbox WHERE seq = ?1";
const REFUSE: &str = "INSERT INTO outbox_refused (seq, id, audience, message, opts, code, detail, refused_at) \
     SELECT seq, id, audience, message, opts, ?2, ?3, ?4 FROM outbox WHERE seq = ?1";
const RETRY: &str = "INSERT INTO outbox (seq, id, audience, message, opts) \
     SELECT seq, id, audience, message, opts FROM outbox_refused WHERE seq = ?1";
pub(super) const DROP: &str = "DELETE FROM outbox_refused WHERE seq = ?1";
pub(super) const COUNT_WAITING: &str = "SELECT count(*) FROM outbox";
pub(super) const COUNT_REFUSED: &str = "SELECT count(*) FROM outbox_refused";

impl SqliteStore {
    /// Writes a broadcast into the outbox in a transaction of the application: it is sent if, and only if, the transaction
    /// commits. Returns the broadcast's id, whose status is known as soon as a worker has read the entry: some milliseconds
    /// after the commit.
    ///
    /// For a store in the application's file ([`open_in`](Self::open_in)); the transaction is one of a connection to this
    /// file. Rolling it back, or a savepoint around this call, takes the entry back. With another driver use
    /// [`Broadcast::outbox_statement`]. What a worker cannot accept it refuses: see
    /// [`DeliveryLedger::refused_outbox`](crate::store::DeliveryLedger::refused_outbox).
    ///
    /// Blocks, as the transaction does.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::store::StoreErrorKind::Misconfigured) if the store has a file of its own, if the transaction is not one of
    /// the store's file, or if the message is larger than 64 KiB. [`Unavailable`](crate::store::StoreErrorKind::Unavailable) if the database is
    /// locked for longer than the connection's busy timeout.
    pub fn enqueue_in(
        &self,
        transaction: &Transaction<'_>,
        broadcast: &Broadcast,
    ) -> Result<BroadcastId, StoreError> {
        if self.prefix.is_empty() {
            return Err(misconfigured(
                "the store has a file of its own: an outbox is in an application's file (`SqliteStore::open_in`)",
            ));
        }
        let prefix = self.prefix.to_string();
        let statement = broadcast.outbox_statement(OutboxDialect::Sqlite { prefix: &prefix });
        let mut insert = transaction.prepare_cached(&statement.sql).map_err(failed)?;
        insert.execute(statement.parameters).map_err(failed)?;
        Ok(statement.id)
    }

    /// Removes entries for a user alone (L22). Returns their number.
    pub(super) async fn erase_from_outbox(&self, user: &Principal) -> Result<u64, StoreError> {
        let mut erased = 0;
        for (list, remove) in [(WAITING, REMOVE), (REFUSED, DROP)] {
            let mut last = Some(i64::MIN);
            while let Some(after) = last {
                let user = user.clone();
                let step = self.write(move |conn| erase(conn, &user, list, remove, after));
                let (removed, after) = step.await?;
                erased += removed;
                last = after;
            }
        }
        Ok(erased)
    }
}

/// Whether any entry waits.
pub(super) fn has_entries(conn: &Connection) -> Result<bool, StoreError> {
    let values = params![i64::MIN, 1];
    Ok(first(conn, WAITING, values, |_| Ok(()))?.is_some())
}

pub(super) fn waiting(conn: &Connection, limit: usize) -> Result<Vec<OutboxEntry>, StoreError> {
    let values = params![i64::MIN, integer(limit)];
    all(conn, WAITING, values, entry)
}

pub(super) fn refused(conn: &Connection, limit: usize) -> Result<Vec<RefusedEntry>, StoreError> {
    let values = params![i64::MIN, integer(limit)];
    all(conn, REFUSED, values, |columns| {
        let entry = entry(columns)?;
        let refusal = OutboxRefusal::new(columns.get::<String>()?, columns.get::<String>()?);
        Ok(RefusedEntry::new(entry, refusal, columns.time()?))
    })
}

/// Reads an entry, whatever the application wrote. A value that is not text is shown as `null`, which is refused.
fn entry(columns: &mut Columns<'_, '_>) -> Result<OutboxEntry, StoreError> {
    let seq = columns.get()?;
    let id = id(seq, &columns.get::<Loose>()?);
    let mut text = |absent: &str| {
        Ok::<_, StoreError>(match columns.get()? {
            Loose::Text(text) => text,
            Loose::Null => absent.to_owned(),
            Loose::Blob(_) | Loose::Other => "null".to_owned(),
        })
    };
    let (audience, message, opts) = (text("null")?, text("null")?, text("{}")?);
    Ok(OutboxEntry::new(seq, id, audience, message, opts))
}

/// A value of any type.
enum Loose {
    Text(String),
    Blob(Vec<u8>),
    Null,
    Other,
}

impl FromSql for Loose {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(match value {
            ValueRef::Text(text) => {
                String::from_utf8(text.to_vec()).map_or(Self::Other, Self::Text)
            }
            ValueRef::Blob(blob) => Self::Blob(blob.to_vec()),
            ValueRef::Null => Self::Null,
            ValueRef::Integer(_) | ValueRef::Real(_) => Self::Other,
        })
    }
}

/// The id of an entry: that of its row, or else one that only this entry has.
fn id(seq: i64, stored: &Loose) -> BroadcastId {
    let octets = match stored {
        Loose::Blob(blob) => <[u8; 16]>::try_from(&**blob).ok(),
        _ => None,
    };
    let octets = octets.unwrap_or_else(|| u128::from(seq.unsigned_abs()).to_be_bytes());
    BroadcastId::from_bytes(octets)
}

pub(super) fn settle(
    conn: &Connection,
    entries: &[(i64, OutboxSettlement)],
    now: Timestamp,
) -> Result<Vec<OutboxSettled>, StoreError> {
    let settle = |(seq, settlement): &(i64, OutboxSettlement)| {
        if first(conn, IS_WAITING, [seq], |_| Ok(()))?.is_none() {
            return Ok(OutboxSettled::Taken);
        }
        let new = match settlement {
            OutboxSettlement::Open(new) => new,
            OutboxSettlement::Refuse(refusal) => {
                refuse(conn, *seq, refusal, now)?;
                return Ok(OutboxSettled::Refused);
            }
        };
        let settled = match broadcasts::open(conn, new, now)? {
            Opened::New => OutboxSettled::Opened,
            Opened::Repeat(_) => OutboxSettled::Repeat,
            Opened::Conflict => {
                refuse(conn, *seq, &OutboxRefusal::conflict(), now)?;
                return Ok(OutboxSettled::Conflict);
            }
        };
        execute(conn, REMOVE, [seq])?;
        Ok(settled)
    };
    entries.iter().map(settle).collect()
}

fn refuse(
    conn: &Connection,
    seq: i64,
    refusal: &OutboxRefusal,
    now: Timestamp,
) -> Result<(), StoreError> {
    let values = params![seq, refusal.code, refusal.detail, now.as_millis()];
    execute(conn, REFUSE, values)?;
    execute(conn, REMOVE, [seq]).map(|_| ())
}

/// Lets a refused entry wait again, under its number.
pub(super) fn retry(conn: &Connection, seq: i64) -> Result<bool, StoreError> {
    let is_refused = execute(conn, RETRY, [seq])? > 0;
    execute(conn, DROP, [seq])?;
    Ok(is_refused)
}

pub(super) fn drop_refused(conn: &Connection, seq: i64) -> Result<bool, StoreError> {
    Ok(execute(conn, DROP, [seq])? > 0)
}

pub(super) fn stats(conn: &Connection) -> Result<OutboxStats, StoreError> {
    let count = |sql| first(conn, sql, [], |row| row.count());
    let waiting = count(COUNT_WAITING)?.unwrap_or_default();
    Ok(OutboxStats::new(
        waiting,
        count(COUNT_REFUSED)?.unwrap_or_default(),
    ))
}

/// Removes entries for a user alone in one step over those after `after`. Returns their number, and the last one of the step;
/// `None` if there are no more.
fn erase(
    conn: &Connection,
    user: &Principal,
    list: &'static str,
    remove: &'static str,
    after: i64,
) -> Result<(u64, Option<i64>), StoreError> {
    let entries = all(conn, list, params![after, integer(STEP)], entry)?;
    let mut removed = 0;
    for entry in &entries {
        // One that cannot be read is refused by a worker.
        let audience = serde_json::from_str(&entry.audience).ok();
        if audience.is_some_and(|audience: Audience| audience == Audience::User(user.clone())) {
            removed += execute(conn, remove, [entry.seq])? as u64;
        }
    }
    let last = entries.last().filter(|_| entries.len() == STEP);
    Ok((removed, last.map(|entry| entry.seq)))
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
