//! Erasing a user's pending deliveries in Redis.

use super::content::audience;
use super::reply::{Reply, array, bytes, bytes_or_nil};
use super::script::{AUDIENCES, Args, ERASE};
use super::{RedisStore, StoreError};
use crate::broadcast::{BroadcastId, Principal};
use crate::clock::Timestamp;
use crate::store::{Erased, SubscriptionRecord};

/// Rows that one script searches for. A script runs for a few milliseconds.
const SOUGHT_AT_ONCE: usize = 1000;

impl RedisStore {
    /// L17, in as many steps as it takes.
    pub(super) async fn erase_user(
        &self,
        user: &Principal,
        subscriptions: &[SubscriptionRecord],
        now: Timestamp,
    ) -> Result<Erased, StoreError> {
        let mut common = Args::at(now).number(subscriptions.len());
        for row in subscriptions {
            let endpoint = row.subscription.endpoint();
            common.push(*endpoint.key().as_bytes());
            common.push(endpoint.origin().as_str());
        }
        let ids: Vec<_> = subscriptions.iter().map(|row| row.id).collect();
        let mut erased = Erased::default();
        // All at once, since their places change.
        let open = Reply::of(self.read("ZRANGE", "open", &["0", "-1"]).await?)?;
        let open: Vec<_> = open.map(bytes).collect::<Result<_, _>>()?;
        for some in open.chunks((SOUGHT_AT_ONCE / subscriptions.len().max(1)).max(1)) {
            let asked = some.iter().cloned().fold(Args::default(), Args::with);
            let audiences = Reply::of(self.run(&AUDIENCES, &asked).await?)?;
            let mut args = common.clone();
            for (id, text) in some.iter().zip(audiences) {
                let is_theirs = match bytes_or_nil(text)? {
                    Some(text) => audience(&text)?.is_only_for(user, &ids),
                    None => false,
                };
                args = args.with(id.clone()).number(u8::from(is_theirs));
            }
            let mut answer = Reply::of(self.run(&ERASE, &args).await?)?;
            erased.deliveries += answer.number()?;
            for id in answer.list()? {
                let id = BroadcastId::from_bytes(array(&bytes(id)?)?);
                erased.broadcasts += 1;
                self.cancel_broadcast(id, now).await?;
            }
        }
        Ok(erased)
    }
}
