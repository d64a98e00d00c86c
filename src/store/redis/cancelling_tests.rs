//! The state between two steps of a cancellation, also if the second one never comes.

use std::collections::HashMap;
use std::time::Duration;

use super::RedisStore;
use super::reply::Reply;
use super::script::{Args, CANCEL};
use crate::broadcast::{Audience, BroadcastId, BroadcastState, BroadcastStatus};
use crate::clock::Timestamp;
use crate::message::Message;
use crate::store::servers;
use crate::store::{
    ClaimRequest, Claims, Cursor, DeliveryLedger as _, NewBroadcast, NewDelivery, PageWrite,
};
use crate::subscription::{EndpointKey, Origin};

/// More origins than one step handles.
pub(super) const ORIGINS: u16 = 600;

pub(super) async fn store() -> Option<RedisStore> {
    let url = servers::shared(servers::Kind::Redis)?;
    let builder = RedisStore::builder().prefix(BroadcastId::random().to_string());
    Some(builder.connect(&url).await.unwrap())
}

pub(super) fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + secs)
}

pub(super) fn delivery(number: u16) -> NewDelivery {
    let mut key = [7; 32];
    key[..2].copy_from_slice(&number.to_be_bytes());
    let origin = format!("https://push{number}.example");
    NewDelivery::new(
        EndpointKey::from_bytes(key),
        Origin::parse(&origin).unwrap(),
    )
}

/// One row at each origin.
pub(super) async fn sending(store: &RedisStore) -> BroadcastId {
    let new = NewBroadcast::new(Audience::All, Message::new("x"), at(100));
    store.open(&new, at(0)).await.unwrap();
    let rows: Vec<_> = (0..ORIGINS).map(delivery).collect();
    let (start, end) = (Cursor::Start, Cursor::End);
    let page = store.enqueue_page(new.id, &start, &rows, &end, at(0));
    assert_eq!(page.await.unwrap(), PageWrite::Stored);
    new.id
}

/// Does the first step, after which the caller is gone.
async fn begin_to_cancel(store: &RedisStore, id: BroadcastId) {
    let args = Args::at(at(1)).with(*id.as_bytes());
    let mut answer = Reply::of(store.run(&CANCEL, &args).await.unwrap()).unwrap();
    assert!(answer.flag().unwrap(), "one step was enough");
    let half = status(store, id, 1).await;
    assert_eq!(half.state, BroadcastState::Cancelled);
    assert!(
        half.counts.cancelled > 0 && half.counts.pending > 0,
        "{half:?}"
    );
}

async fn status(store: &RedisStore, id: BroadcastId, secs: i64) -> BroadcastStatus {
    let status = store.status(id, at(secs)).await.unwrap().unwrap();
    let counts = status.counts;
    assert_eq!(counts.pending + counts.finished(), status.recipients);
    status
}

async fn is_over(store: &RedisStore, id: BroadcastId, secs: i64) {
    let end = status(store, id, secs).await;
    let ended = (end.counts.cancelled, end.counts.pending);
    assert_eq!(ended, (u64::from(ORIGINS), 0), "{end:?}");
    assert_eq!(store.stats(at(secs)).await.unwrap().depth, 0);
    assert_eq!(store.next_due(at(secs)).await.unwrap(), None);
}

#[tokio::test]
async fn the_next_claim_ends_what_a_canceller_left_and_takes_none_of_it() {
    let Some(store) = store().await else {
        return;
    };
    let (cancelled, other) = (sending(&store).await, sending(&store).await);
    begin_to_cancel(&store, cancelled).await;
    let request = ClaimRequest::new(10_000, Duration::from_secs(45));
    let claims = store.claim(&request, at(2)).await.unwrap();
    assert_eq!(claims.rows.len(), usize::from(ORIGINS));
    assert!(claims.rows.iter().all(|row| row.token.broadcast == other));
    store.cancel(other, at(2)).await.unwrap();
    let tokens: Vec<_> = claims.rows.iter().map(|row| row.token).collect();
    store.release(&tokens, at(3)).await.unwrap();
    is_over(&store, cancelled, 3).await;
    is_over(&store, other, 3).await;
}

#[tokio::test]
async fn polling_expiring_and_cancelling_continue_a_cancellation() {
    let Some(store) = store().await else {
        return;
    };
    let id = sending(&store).await;
    begin_to_cancel(&store, id).await;
    let next = store.next_due(at(2)).await.unwrap();
    assert_eq!(next, None);
    is_over(&store, id, 2).await;
    let id = sending(&store).await;
    begin_to_cancel(&store, id).await;
    // Cancelled rows do not count as expired.
    assert_eq!(store.expire(10_000, at(100)).await.unwrap(), 0);
    is_over(&store, id, 100).await;
    let id = sending(&store).await;
    begin_to_cancel(&store, id).await;
    store.cancel(id, at(2)).await.unwrap();
    let again = store.cancel(id, at(2)).await.unwrap().unwrap();
    assert_eq!(again.counts.cancelled, u64::from(ORIGINS));
    is_over(&store, id, 2).await;
}

/// A claim that read the origins before the cancellation began, and takes rows after that.
#[tokio::test]
async fn a_claim_under_way_takes_nothing_of_what_is_cancelled() {
    let Some(store) = store().await else {
        return;
    };
    let (cancelled, other) = (sending(&store).await, sending(&store).await);
    begin_to_cancel(&store, cancelled).await;
    let origins: Vec<_> = (0..ORIGINS).map(|number| delivery(number).origin).collect();
    let shares: Vec<_> = origins.iter().map(|origin| (origin, 2)).collect();
    let request = ClaimRequest::new(10_000, Duration::from_secs(45));
    let (mut taken, mut claims) = (HashMap::new(), Claims::default());
    let claim = store.take(&shares, &request, (None, at(1)), &mut taken, &mut claims);
    claim.await.unwrap();
    assert_eq!(claims.rows.len(), usize::from(ORIGINS));
    assert!(claims.rows.iter().all(|row| row.token.broadcast == other));
    let end = status(&store, cancelled, 1).await;
    assert_eq!(end.counts.cancelled, u64::from(ORIGINS));
}
