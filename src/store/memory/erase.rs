//! Erasing a user's pending deliveries in memory.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::ledger_state::{Ledger, Seq};
use crate::broadcast::{FinalOutcome, Principal};
use crate::clock::Timestamp;
use crate::store::{Erased, STEP, SubscriptionRecord};

impl Ledger {
    /// Erases pending deliveries from the next open broadcasts (L17). Returns the last one if there may be more.
    pub(super) fn erase_step(
        &mut self,
        after: Option<(Timestamp, Seq)>,
        user: &Principal,
        subscriptions: &[SubscriptionRecord],
        now: Timestamp,
        erased: &mut Erased,
    ) -> Option<(Timestamp, Seq)> {
        let ids: Vec<_> = subscriptions.iter().map(|row| row.id).collect();
        let limit = (STEP / subscriptions.len().max(1)).max(1);
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let open = self.open.range((after, Bound::Unbounded));
        let open: Vec<_> = open.take(limit).copied().collect();
        for &(_, seq) in &open {
            let keys = subscriptions
                .iter()
                .map(|row| row.subscription.endpoint().key());
            // Once, also if a subscription is named twice.
            let keys: BTreeSet<_> = keys
                .filter(|key| self.rows.contains_key(&(seq, *key)))
                .collect();
            for key in &keys {
                self.end_probe(seq, *key, now);
            }
            let broadcast = self.broadcasts.get(&seq);
            let is_theirs =
                broadcast.is_some_and(|broadcast| broadcast.audience.is_only_for(user, &ids));
            // Cancelled before its rows end: a broadcast without rows would be over.
            if is_theirs && self.stop(seq) {
                self.end_unleased(seq, STEP, FinalOutcome::Cancelled, now);
                erased.broadcasts += 1;
            }
            for key in &keys {
                self.finish(seq, *key, FinalOutcome::Cancelled);
            }
            erased.deliveries += keys.len() as u64;
            self.close_if_over(seq, now);
        }
        open.last().copied().filter(|_| open.len() == limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::Audience;
    use crate::message::Message;
    use crate::store::{Cursor, DeliveryLedger as _, MemoryStore, NewBroadcast, NewDelivery};
    use crate::subscription::{AuthSecret, Endpoint, Subscription, SubscriptionId, UaPublicKey};
    use crate::vapid::KeyId;

    /// The user agent's key of RFC 8291 appendix A.
    const P256DH: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";

    fn row(number: usize) -> SubscriptionRecord {
        let endpoint = Endpoint::parse(&format!("https://push.example/{number}")).unwrap();
        let auth = AuthSecret::from_bytes(&[1; AuthSecret::LEN]).unwrap();
        let subscription = Subscription::new(endpoint, UaPublicKey::parse(P256DH).unwrap(), auth);
        let key = KeyId::from_bytes([1; KeyId::LEN]);
        let now = Timestamp::from_secs(0);
        SubscriptionRecord::new(SubscriptionId::random(), subscription, key, now)
    }

    /// The limit of subscriptions per user is the application's to set.
    #[tokio::test]
    async fn a_user_may_have_more_subscriptions_than_one_step_has_rows() {
        let rows: Vec<_> = (0..=STEP).map(row).collect();
        let (store, now) = (MemoryStore::new(), Timestamp::from_secs(0));
        for row in &rows[STEP - 1..] {
            let deadline = Timestamp::from_secs(100);
            let new = NewBroadcast::new(Audience::All, Message::new("x"), deadline);
            store.open(&new, now).await.unwrap();
            let endpoint = row.subscription.endpoint();
            let rows = [NewDelivery::new(endpoint.key(), endpoint.origin().clone())];
            let page = store.enqueue_page(new.id, &Cursor::Start, &rows, &Cursor::End, now);
            page.await.unwrap();
        }
        let erased = store.erase(&Principal::from("alice"), &rows, now).await;
        assert_eq!(erased.unwrap().deliveries, 2);
    }
}
