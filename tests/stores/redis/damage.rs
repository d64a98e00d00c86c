//! Damage of one broadcast's content does not hold up the others (L3, L5).

use std::collections::HashMap;

use tower_web_push::broadcast::Audience;
use tower_web_push::message::Message;
use tower_web_push::store::{ClaimRequest, DeliveryLedger as _, NewBroadcast, redis_rs};

use super::world::{LEASE, at, connection, fresh_prefix, sending, store};
use crate::support::servers::{self, Kind};

#[tokio::test]
async fn a_damaged_broadcast_is_named_and_the_others_are_expanded_and_claimed() {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let store = store(&url, &prefix).await;
    let damaged = sending(&store, 2, 1).await;
    let healthy = sending(&store, 3, 1).await;
    let open = || NewBroadcast::new(Audience::All, Message::new("x"), at(9999));
    let (unread, read) = (open(), open());
    for new in [&unread, &read] {
        store.open(new, at(0)).await.unwrap();
    }
    let mut connection = connection(&url).await;
    for (id, field) in [(damaged, "urgency"), (unread.id, "audience")] {
        let mut key = format!("{{{prefix}}}:c:").into_bytes();
        key.extend_from_slice(id.as_bytes());
        let mut set = redis_rs::cmd("HSET");
        set.arg(key).arg(field).arg("?");
        let added: i64 = set.query_async(&mut connection).await.unwrap();
        assert_eq!(added, 0, "the field exists");
    }
    let expandable = store.expandable(10, at(1)).await.unwrap();
    let found: HashMap<_, _> = expandable
        .into_iter()
        .map(|one| (one.id, one.audience))
        .collect();
    let expected = [(unread.id, None), (read.id, Some(Audience::All))];
    assert_eq!(found, HashMap::from(expected));
    let request = ClaimRequest::new(10, LEASE);
    let claims = store.claim(&request, at(1)).await.unwrap();
    assert_eq!(claims.rows.len(), 5);
    let messages: Vec<_> = claims.messages.keys().copied().collect();
    assert_eq!(messages, [healthy]);
}
