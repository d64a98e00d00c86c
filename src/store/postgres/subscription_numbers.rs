//! The numbers that counts of subscriptions read, kept in PostgreSQL by the transactions that change rows.

use std::collections::BTreeMap;

use super::connection::Tx;
use super::error::Failed;
use super::rows::{Columns, Values, read};
use crate::broadcast::Tag;
use crate::push_service::PushService;
use crate::store::{StoreError, SubscriptionRecord};
use crate::subscription::EndpointKey;

/// The parts of each number.
const PARTS: u8 = 32;

/// The same condition as [`SubscriptionRecord::is_unproven`] (S16).
macro_rules! unproven {
    () => {
        "(s.principal IS NULL AND s.last_success_at IS NULL AND s.retired_at IS NULL AND s.stale_since IS NULL)"
    };
}
pub(super) use unproven;

/// The columns that [`Counted::read`] reads, from a table named `s`, the key first.
macro_rules! counted_columns {
    () => {
        concat!(
            "s.key, CASE WHEN s.retired_at IS NOT NULL THEN 'retired' WHEN s.stale_since IS NOT NULL THEN 'stale' \
             ELSE 'live' END, s.push_service, encode(s.vapid_key, 'hex'), array_remove(s.tags, NULL), ",
            $crate::store::postgres::subscription_numbers::unproven!()
        )
    };
}
pub(super) use counted_columns;

pub(super) const COUNTED: &str = concat!(
    "SELECT ",
    counted_columns!(),
    " FROM web_push.subscription AS s WHERE s.key = ANY($1)"
);
/// The numbers in one order, then the totals: PostgreSQL runs a statement in `WITH` that nothing reads after the main one. The
/// totals have sixteen parts, chosen by server process, so that concurrent writers rarely share one.
pub(super) const ADD: &str = "WITH total AS (UPDATE web_push.subscription_count \
         SET number = number + $1::bigint, unproven = unproven + $2::bigint \
         WHERE part = pg_backend_pid() % 16 AND ($1::bigint <> 0 OR $2::bigint <> 0)) \
     INSERT INTO web_push.subscription_number AS n (kind, name, part, number) \
     SELECT kind, name, part, number \
         FROM unnest($3::text[], $4::text[], $5::integer[], $6::bigint[]) AS change (kind, name, part, number) \
         ORDER BY kind, name, part \
     ON CONFLICT (kind, name, part) DO UPDATE SET number = n.number + excluded.number";
/// Deletes numbers of 0 among those that this transaction has changed, and so has locked.
pub(super) const FORGET_ZEROS: &str = "DELETE FROM web_push.subscription_number AS n \
     USING unnest($1::text[], $2::text[], $3::integer[]) AS change (kind, name, part) \
     WHERE n.kind = change.kind AND n.name = change.name AND n.part = change.part AND n.number = 0";

/// What a row is counted as.
#[derive(Clone, Debug)]
pub(super) struct Counted {
    part: i32,
    state: String,
    push_service: String,
    /// In hexadecimal.
    vapid_key: String,
    tags: Vec<String>,
    is_unproven: bool,
}

impl Counted {
    /// Reads [`counted_columns!`]. Returns the row's key too.
    pub(super) fn read(columns: &mut Columns<'_>) -> Result<(EndpointKey, Self), StoreError> {
        let key = EndpointKey::from_bytes(columns.bytes()?);
        let counted = Self {
            part: part(&key),
            state: columns.get()?,
            push_service: columns.get()?,
            vapid_key: columns.get()?,
            tags: columns.get()?,
            is_unproven: columns.get()?,
        };
        Ok((key, counted))
    }

    pub(super) const fn is_unproven(&self) -> bool {
        self.is_unproven
    }

    /// What a row will be counted as that is `written`, in place of what `standing` is counted as.
    pub(super) fn of(
        key: &EndpointKey,
        written: &SubscriptionRecord,
        standing: Option<&Self>,
    ) -> Self {
        let service = PushService::of(written.subscription.endpoint()).as_str();
        let state = match (written.retired, written.stale_since) {
            (Some(_), _) => "retired",
            (None, Some(_)) => "stale",
            (None, None) => "live",
        };
        Self {
            part: part(key),
            state: state.to_owned(),
            // The stored one never changes, though a later version may know the host as another one's.
            push_service: standing
                .map_or(service, |row| row.push_service.as_str())
                .to_owned(),
            vapid_key: format!(
                "{:032x}",
                u128::from_be_bytes(*written.vapid_key.as_bytes())
            ),
            tags: written
                .tags
                .iter()
                .map(Tag::as_str)
                .map(str::to_owned)
                .collect(),
            is_unproven: written.is_unproven(),
        }
    }

    /// Returns what rows are counted as now, by key.
    pub(super) async fn find(
        tx: &mut Tx<'_>,
        keys: impl IntoIterator<Item = &EndpointKey>,
    ) -> Result<Vec<(EndpointKey, Self)>, Failed> {
        let keys: Vec<_> = keys
            .into_iter()
            .map(|key| key.as_bytes().as_slice())
            .collect();
        match keys.as_slice() {
            [] => Ok(Vec::new()),
            _ => Ok(read(&tx.query(COUNTED, &[&keys]).await?, Self::read)?),
        }
    }
}

fn part(key: &EndpointKey) -> i32 {
    let [first, ..] = key.as_bytes();
    i32::from(first % PARTS)
}

/// Changes to the numbers.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    rows: i64,
    unproven: i64,
    /// By kind, name and part.
    others: BTreeMap<(String, String, i32), i64>,
}

impl Numbers {
    pub(super) fn plus(&mut self, row: &Counted) {
        self.change(row, 1);
    }

    pub(super) fn minus(&mut self, row: &Counted) {
        self.change(row, -1);
    }

    fn change(&mut self, row: &Counted, by: i64) {
        self.rows += by;
        self.unproven += by * i64::from(row.is_unproven);
        let group = format!("{}:{}", row.push_service, row.vapid_key);
        let group = (row.state.clone(), group, row.part);
        *self.others.entry(group).or_default() += by;
        if row.state == "live" {
            for tag in &row.tags {
                let tag = ("tag".to_owned(), tag.clone(), row.part);
                *self.others.entry(tag).or_default() += by;
            }
        }
    }

    /// The change of the number of all rows.
    pub(super) const fn rows(&self) -> i64 {
        self.rows
    }

    /// Whether there is nothing to write.
    pub(super) fn are_unchanged(&self) -> bool {
        self.rows == 0 && self.unproven == 0 && self.others.values().all(|by| *by == 0)
    }

    /// The changes of the numbers by kind, name and part, as arrays.
    pub(super) fn columns(&mut self) -> NumberColumns<'_> {
        self.others.retain(|_, by| *by != 0);
        let mut columns = NumberColumns::default();
        for ((kind, name, part), by) in &self.others {
            columns.kinds.push(kind);
            columns.names.push(name);
            columns.parts.push(*part);
            columns.changes.push(*by);
        }
        columns
    }

    /// Writes the changes and commits. Called last in a transaction, so that the locks are held shortly.
    pub(super) async fn write_last(self, tx: &mut Tx<'_>) -> Result<(), Failed> {
        self.put(tx, true).await
    }

    /// Writes the changes. Called last in a transaction, so that the locks are held shortly.
    pub(super) async fn write(self, tx: &mut Tx<'_>) -> Result<(), Failed> {
        self.put(tx, false).await
    }

    async fn put(mut self, tx: &mut Tx<'_>, is_last: bool) -> Result<(), Failed> {
        if self.are_unchanged() {
            return Ok(());
        }
        let (rows, unproven) = (self.rows, self.unproven);
        let NumberColumns {
            kinds,
            names,
            parts,
            changes,
        } = &self.columns();
        let add: Values<'_> = &[&rows, &unproven, kinds, names, parts, changes];
        let has_zeros = changes.iter().any(|by| *by < 0);
        match is_last && !has_zeros {
            true => tx.execute_last(ADD, add).await?,
            false => tx.execute(ADD, add).await?,
        };
        if has_zeros {
            let named: Values<'_> = &[kinds, names, parts];
            match is_last {
                true => tx.execute_last(FORGET_ZEROS, named).await?,
                false => tx.execute(FORGET_ZEROS, named).await?,
            };
        }
        Ok(())
    }
}

/// Changes to numbers, as arrays for a statement.
#[derive(Default)]
pub(super) struct NumberColumns<'a> {
    pub(super) kinds: Vec<&'a str>,
    pub(super) names: Vec<&'a str>,
    pub(super) parts: Vec<i32>,
    pub(super) changes: Vec<i64>,
}
