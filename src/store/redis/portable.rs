//! Whole rows in Redis.

use async_trait::async_trait;

use super::error::outrun;
use super::reply::{Reply, array, bytes, bytes_or_nil, number, time};
use super::rows::{pack_row, unpack_row};
use super::script::{Args, PUT, UNREACHABLE};
use super::{RedisStore, StoreError};
use crate::clock::Timestamp;
use crate::store::readable::{ReadablePage, readable_or_none};
use crate::store::reason::corrupt;
use crate::store::rules::is_newer;
use crate::store::{PortableStore, SubscriptionRecord, SubscriptionRef, Unreachable};
use crate::subscription::EndpointKey;

/// The number of attempts. Each failure means that a concurrent change of a row succeeded.
const TRIES: usize = 100;
/// Rows that one script reads.
const READ_AT_ONCE: usize = 500;

impl RedisStore {
    /// Compares rows with the stored ones and writes them. Returns `None` if one of those has changed meanwhile: then
    /// nothing is written.
    async fn try_put(&self, rows: &[SubscriptionRecord]) -> Result<Option<Vec<bool>>, StoreError> {
        let names = rows.iter().flat_map(|row| {
            let key = row.subscription.endpoint().key();
            [SubscriptionRef::Key(key), SubscriptionRef::Id(row.id)]
        });
        let names: Vec<_> = names.collect();
        let mut stored = self.raw_rows(&names).await?.into_iter();
        let mut args = Args::default();
        let mut written = Vec::with_capacity(rows.len());
        for row in rows {
            let (of_key, of_id) = (stored.next().flatten(), stored.next().flatten());
            let unpack = |raw: &Option<Vec<u8>>| match raw {
                Some(raw) => readable_or_none(unpack_row(raw)),
                None => Ok(None),
            };
            let (standing, named) = (unpack(&of_key)?, unpack(&of_id)?);
            let is_older = |stored: &Option<SubscriptionRecord>| {
                stored.as_ref().is_none_or(|stored| is_newer(row, stored))
            };
            // The index of ids may name a row that has another one.
            let named = named.filter(|named| named.id == row.id);
            let holds = is_older(&standing) && is_older(&named);
            written.push(holds);
            if holds {
                let key = row.subscription.endpoint().key();
                // Most rows are both, which need not be sent twice.
                let other = of_id.filter(|other| of_key.as_ref() != Some(other));
                args = args
                    .with(*key.as_bytes())
                    .with(of_key.unwrap_or_default())
                    .with(other.unwrap_or_default())
                    .with(pack_row(row));
            }
        }
        if args.len() > 0 && number(self.run(&PUT, &args).await?)? == 0 {
            return Ok(None);
        }
        Ok(Some(written))
    }
}

#[async_trait]
impl PortableStore for RedisStore {
    async fn unreachable(
        &self,
        state: Unreachable,
        after: Option<(Timestamp, EndpointKey)>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let set = match state {
            Unreachable::Retired => "retired",
            Unreachable::Stale => "stale",
        };
        let mut after = after;
        let mut page = ReadablePage::new(limit);
        while page.missing() > 0 {
            let wanted = READ_AT_ONCE.min(page.missing());
            let args = match &after {
                Some((since, key)) => Args::default().with(set).time(*since).with(*key.as_bytes()),
                None => Args::default().with(set).with("-inf").with(""),
            };
            let answer = self.run(&UNREACHABLE, &args.number(wanted)).await?;
            let mut answer = Reply::of(answer)?;
            let (keys, times, rows) = (answer.list()?, answer.list()?, answer.list()?);
            let mut seen = 0;
            for ((key, since), raw) in keys.zip(times).zip(rows) {
                seen += 1;
                let key = EndpointKey::from_bytes(array(&bytes(key)?)?);
                after = Some((time(&bytes(since)?)?, key));
                let raw = bytes_or_nil(raw)?.ok_or_else(|| corrupt("an index of rows"));
                page.push(raw.and_then(|raw| unpack_row(&raw)))?;
            }
            if seen < wanted {
                break;
            }
        }
        Ok(page.finish("subscriptions"))
    }

    async fn put(&self, rows: &[SubscriptionRecord]) -> Result<Vec<bool>, StoreError> {
        for _ in 0..TRIES {
            if let Some(written) = self.try_put(rows).await? {
                return Ok(written);
            }
        }
        Err(outrun())
    }
}
