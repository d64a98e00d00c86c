//! Lists for operators in Redis.

use redis::Value;

use super::broadcasts::status;
use super::reply::{Reply, bytes, bytes_or_nil, time};
use super::rows::unpack_row;
use super::script::{Args, LIST, WALK_BOTH};
use super::{RedisStore, StoreError};
use crate::broadcast::BroadcastId;
use crate::clock::Timestamp;
use crate::store::listing::Listing;
use crate::store::reason::corrupt;
use crate::store::rules::lists;
use crate::store::{
    BroadcastCursor, BroadcastFilter, BroadcastPage, Liveness, SubscriptionFilter,
    SubscriptionPage, SubscriptionRecord,
};
use crate::subscription::EndpointKey;

/// A key, and its row as far as it can be read.
type Keyed = (EndpointKey, Result<SubscriptionRecord, StoreError>);

impl RedisStore {
    pub(super) async fn broadcasts_page(
        &self,
        filter: &BroadcastFilter,
        after: Option<&BroadcastCursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<BroadcastPage, StoreError> {
        let set = match filter.is_of_open() {
            true => "opened",
            false => "created",
        };
        let last = filter.created_after.map_or_else(
            || b"-".to_vec(),
            |at| [b"[", digits(at.as_millis().saturating_add(1)).as_bytes()].concat(),
        );
        let mut listing = Listing::new(limit, after.copied());
        while let Some((after, wanted)) = listing.wanted() {
            let (before, id) = filter.end(after.as_ref());
            let first = [b"(", digits(before.as_millis()).as_bytes(), id.as_slice()].concat();
            let args = Args::default().with(set).with(first).with(last.as_slice());
            let mut rows = Vec::new();
            for entry in Reply::of(self.run(&LIST, &args.number(wanted)).await?)? {
                let mut entry = Reply::of(entry)?;
                let place = place(&entry.bytes()?)?;
                let row = match entry.value()? {
                    Value::Nil => Err(corrupt("a broadcast's counts")),
                    counts => status(&mut Reply::of(counts)?, now),
                };
                rows.push((
                    place,
                    row.map(|status| filter.takes(&status).then_some(status)),
                ));
            }
            listing.take(rows, wanted)?;
        }
        let (broadcasts, next) = listing.finish("broadcasts");
        Ok(BroadcastPage { broadcasts, next })
    }

    pub(super) async fn subscriptions_page(
        &self,
        filter: &SubscriptionFilter,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<SubscriptionPage, StoreError> {
        let takes = |(key, row): Keyed| {
            let row = row.map(|row| lists(filter, &row, now).then_some(row));
            (key, row)
        };
        let mut listing = Listing::new(limit, after.copied());
        if let Some(user) = &filter.user {
            // Their number is bounded by the limit per principal.
            let rows = self.owned_page(user, after, usize::MAX).await?;
            let keyed = |row: SubscriptionRecord| (row.subscription.endpoint().key(), Ok(row));
            listing.take(rows.into_iter().map(keyed).map(takes), usize::MAX)?;
        }
        while let Some((after, wanted)) = listing.wanted() {
            let rows = self.next_keyed(filter, after, wanted).await?;
            listing.take(rows.into_iter().map(takes), wanted)?;
        }
        let (rows, next) = listing.finish("subscriptions");
        Ok(SubscriptionPage { rows, next })
    }

    /// Reads the next rows of the sets in which a filter's rows are, by key.
    async fn next_keyed(
        &self,
        filter: &SubscriptionFilter,
        after: Option<EndpointKey>,
        wanted: usize,
    ) -> Result<Vec<Keyed>, StoreError> {
        let (live, dead) = match &filter.tag {
            Some(tag) => (
                format!("t:{}", tag.as_str()),
                format!("tx:{}", tag.as_str()),
            ),
            None => ("all".to_owned(), "dead".to_owned()),
        };
        // The second one is empty.
        let (first, second) = match filter.liveness {
            Liveness::Any => (live, dead),
            Liveness::Live => (live, "nothing".to_owned()),
            Liveness::Stale | Liveness::Retired => (dead, "nothing".to_owned()),
        };
        let after = after.map_or_else(Vec::new, |key| key.as_bytes().to_vec());
        let args = Args::default().with(first).with(second).with(after);
        let mut answer = Reply::of(self.run(&WALK_BOTH, &args.number(wanted)).await?)?;
        let mut found = Vec::new();
        for _ in 0..2 {
            let (keys, rows) = (answer.list()?, answer.list()?);
            for (key, raw) in keys.zip(rows) {
                let key = bytes(key)?;
                let key = key.try_into().map_err(|_| corrupt("an index of rows"))?;
                let raw = bytes_or_nil(raw)?.ok_or_else(|| corrupt("an index of rows"));
                let row = raw.and_then(|raw| unpack_row(&raw));
                found.push((EndpointKey::from_bytes(key), row));
            }
        }
        found.sort_unstable_by_key(|(key, _)| *key);
        found.truncate(wanted);
        Ok(found)
    }
}

/// What is added to a time in milliseconds so that it is above 0: the times of 140,000 years before 1970 are.
const SHIFT: i64 = 1 << 52;

/// A time as the digits that sort as it does.
fn digits(millis: i64) -> String {
    format!("{:020}", millis.saturating_add(SHIFT).max(0))
}

/// Reads a member of `created`.
fn place(member: &[u8]) -> Result<BroadcastCursor, StoreError> {
    let unreadable = || corrupt("an index of broadcasts");
    let (at, id) = member.split_last_chunk().ok_or_else(unreadable)?;
    let millis = time(at)?.as_millis().saturating_sub(SHIFT);
    let at = Timestamp::from_millis(millis);
    Ok(BroadcastCursor::new(at, BroadcastId::from_bytes(*id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sort_as_their_digits() {
        let times = [i64::MIN, -2, -1, 0, 9, 10, 1_800_000_000_000, i64::MAX];
        assert!(times.map(digits).is_sorted());
        let member = [digits(1_800_000_000_000).as_bytes(), &[b'7'; 16]].concat();
        let cursor = place(&member).unwrap();
        assert_eq!(cursor.created_at.as_millis(), 1_800_000_000_000);
        assert_eq!(cursor.id, BroadcastId::from_bytes([b'7'; 16]));
        assert!(place(b"short").is_err());
    }
}
