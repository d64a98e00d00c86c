//! Erasing a user's pending deliveries in Redis.

use super::content::audience;
use super::reply::{Reply, array, bytes, bytes_or_nil};
use super::script::{AUDIENCES, Args, ERASE};
use super::{RedisStore, StoreError};
use crate::broadcast::{BroadcastId, Principal};
use crate::clock::Timestamp;
use crate::store::{Erased, STEP, SubscriptionRecord};

impl RedisStore {
    /// L17, in as many steps as it takes.
    pub(super) async fn erase_user(
        &self,
        user: &Principal,
        subscriptions: &[SubscriptionRecord],
        now: Timestamp,
    ) -> Result<Erased, StoreError> {
        // As before any cancellation: rows whose lease has ended are ended by it.
        self.lapse(now).await?;
        let mut common = Args::at(now).number(subscriptions.len());
        for row in subscriptions {
            let endpoint = row.subscription.endpoint();
            common.push(*endpoint.key().as_bytes());
            common.push(endpoint.origin().as_str());
        }
        let ids: Vec<_> = subscriptions.iter().map(|row| row.id).collect();
        let mut erased = Erased::default();
        let limit = (STEP / subscriptions.len().max(1)).max(1);
        let mut cursor = 0;
        loop {
            let place = cursor.to_string();
            let scan = [place.as_str(), "COUNT", "200"];
            let mut answer = Reply::of(self.read("ZSCAN", "open", &scan).await?)?;
            cursor = answer.number()?;
            let open: Vec<_> = answer.fields()?.into_iter().map(|(id, _)| id).collect();
            for some in open.chunks(limit) {
                let asked = some.iter().cloned().fold(Args::default(), Args::with);
                let audiences = Reply::of(self.run(&AUDIENCES, &asked).await?)?;
                let mut args = common.clone();
                for (id, text) in some.iter().zip(audiences) {
                    let is_theirs = match bytes_or_nil(text)? {
                        // One that cannot be read holds up no erasure: it is not expanded either.
                        Some(text) => {
                            audience(&text).is_ok_and(|audience| audience.is_only_for(user, &ids))
                        }
                        None => false,
                    };
                    args = args.with(id.clone()).number(u8::from(is_theirs));
                }
                let mut answer = Reply::of(self.run(&ERASE, &args).await?)?;
                erased.deliveries += answer.number()?;
                for id in answer.list()? {
                    let id = BroadcastId::from_bytes(array(&bytes(id)?)?);
                    erased.broadcasts += 1;
                    self.cancel_step(id, now).await?;
                }
            }
            if cursor == 0 {
                return Ok(erased);
            }
        }
    }
}
