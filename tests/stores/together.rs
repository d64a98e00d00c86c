//! L23 for the stores that keep both: changes of subscriptions and outcomes are written in one transaction, or neither is.

use std::time::Duration;

use tower_web_push::broadcast::{Audience, FinalOutcome};
use tower_web_push::clock::Timestamp;
use tower_web_push::message::Message;
use tower_web_push::store::{
    Change, ClaimRequest, ClaimToken, Cursor, DeliveryLedger, Failure, MemoryStore, NewBroadcast,
    NewDelivery, NewSubscription, PageWrite, RetireReason, Settlement, SubscriptionLimits,
    SubscriptionRef, SubscriptionStore,
};
use tower_web_push::subscription::{EndpointKey, Subscription};
use tower_web_push::vapid::KeyId;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const GONE: Settlement = Settlement::Finished(FinalOutcome::Gone);

fn retired(key: EndpointKey) -> Change {
    Change::Retire {
        key,
        reason: RetireReason::Gone,
        observed_at: NOW,
        failure: Failure::default(),
    }
}

/// Sends a message to a new subscription.
async fn leased<S: DeliveryLedger + SubscriptionStore>(store: &S) -> ClaimToken {
    let json = serde_json::json!({
        "endpoint": "https://push.example.net/1",
        "keys": {
            "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            "auth": "BTBZMqHH6r4Tts7J_aSIgg",
        },
    });
    let subscription = Subscription::from_value(&json).unwrap();
    let endpoint = subscription.endpoint().clone();
    let new = NewSubscription::new(subscription, KeyId::from_bytes([1; KeyId::LEN]));
    let limits = SubscriptionLimits::default();
    store.upsert(&new, &limits, NOW).await.unwrap();
    let deadline = NOW + Duration::from_secs(3600);
    let broadcast = NewBroadcast::new(Audience::All, Message::new("x"), deadline);
    store.open(&broadcast, NOW).await.unwrap();
    let rows = [NewDelivery::new(endpoint.key(), endpoint.origin().clone())];
    let written = store
        .enqueue_page(broadcast.id, &Cursor::Start, &rows, &Cursor::End, NOW)
        .await
        .unwrap();
    assert_eq!(written, PageWrite::Stored);
    let request = ClaimRequest::new(1, Duration::from_secs(45));
    let claims = store.claim(&request, NOW).await.unwrap();
    claims.rows[0].token
}

/// The store writes both itself.
pub(crate) async fn both_are_written<S: DeliveryLedger + SubscriptionStore>(store: &S) {
    let token = leased(store).await;
    let changes = [retired(token.key)];
    let settled = store.settle_with(&changes, &[(token, GONE)], NOW).await;
    assert!(settled.unwrap().is_some());
}

/// Whatever makes it fail to settle rows, `breaks` switches on.
pub(crate) async fn neither_is_written<S: DeliveryLedger + SubscriptionStore>(
    store: &S,
    breaks: impl AsyncFnOnce(),
) {
    let token = leased(store).await;
    breaks().await;
    let changes = [retired(token.key)];
    let settled = store.settle_with(&changes, &[(token, GONE)], NOW).await;
    settled.unwrap_err();
    let rows = store.get(&[SubscriptionRef::Key(token.key)]).await.unwrap();
    assert_eq!(rows[0].as_ref().unwrap().retired, None);
    let status = store.status(token.broadcast, NOW).await.unwrap().unwrap();
    assert_eq!(status.counts.pending, 1);
}

#[tokio::test]
async fn the_memory_store_writes_both() {
    both_are_written(&MemoryStore::new()).await;
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use rusqlite::Connection;
    use tower_web_push::store::SqliteStore;

    use super::{both_are_written, neither_is_written};

    #[tokio::test]
    async fn sqlite_writes_both() {
        both_are_written(&SqliteStore::open_in_memory().await.unwrap()).await;
    }

    #[tokio::test]
    async fn sqlite_writes_neither_if_one_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("push.db");
        let store = SqliteStore::open(&path).await.unwrap();
        neither_is_written(&store, async || {
            let sql = "CREATE TRIGGER broken BEFORE DELETE ON delivery \
                       BEGIN SELECT RAISE(ABORT, 'broken'); END";
            Connection::open(&path).unwrap().execute(sql, []).unwrap();
        })
        .await;
    }
}
