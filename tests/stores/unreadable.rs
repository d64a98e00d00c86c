//! The content of one broadcast cannot be read: it holds up no others.

use std::collections::HashMap;
use std::time::Duration;

use tower_web_push::broadcast::{Audience, BroadcastId};
use tower_web_push::clock::Timestamp;
use tower_web_push::message::Message;
use tower_web_push::store::{ClaimRequest, DeliveryLedger, NewBroadcast};

/// Broadcasts of a store of which some are damaged.
pub(crate) struct Damaged {
    /// Its audience is unreadable.
    pub(crate) unread: BroadcastId,
    /// It can be expanded.
    pub(crate) read: BroadcastId,
    /// The only one with rows whose message can be read.
    pub(crate) healthy: BroadcastId,
    /// All rows, those of unreadable messages too.
    pub(crate) rows: usize,
}

/// The others are expanded (L3) and claimed (L5), and users are erased (L17).
pub(crate) async fn holds_up_no_others(
    store: &dyn DeliveryLedger,
    damaged: &Damaged,
    now: Timestamp,
) {
    let expandable = store.expandable(10, now).await.unwrap();
    let found: HashMap<_, _> = expandable
        .into_iter()
        .map(|one| (one.id, one.audience))
        .collect();
    let expected = [(damaged.unread, None), (damaged.read, Some(Audience::All))];
    assert_eq!(found, HashMap::from(expected));
    let request = ClaimRequest::new(10, Duration::from_secs(45));
    let claims = store.claim(&request, now).await.unwrap();
    assert_eq!(claims.rows.len(), damaged.rows);
    let messages: Vec<_> = claims.messages.keys().copied().collect();
    assert_eq!(messages, [damaged.healthy]);

    let deadline = now + Duration::from_secs(60);
    let alice = Audience::user("alice");
    let theirs = NewBroadcast::new(alice, Message::new("x"), deadline);
    store.open(&theirs, now).await.unwrap();
    let erased = store.erase(&"alice".into(), &[], now).await.unwrap();
    assert_eq!(erased.broadcasts, 1);
}
