//! Sample values, and direct access to the server.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower_web_push::broadcast::{Audience, BroadcastId, BroadcastStatus};
use tower_web_push::clock::Timestamp;
use tower_web_push::message::Message;
use tower_web_push::store::redis_rs::aio::MultiplexedConnection;
use tower_web_push::store::redis_rs::{FromRedisValue, cmd};
use tower_web_push::store::{
    ClaimRequest, Claimed, Cursor, DeliveryLedger, NewBroadcast, NewDelivery, NewSubscription,
    PageWrite, RedisStore,
};
use tower_web_push::subscription::{
    AuthSecret, Endpoint, EndpointKey, Origin, Subscription, UaPublicKey,
};
use tower_web_push::vapid::KeyId;

use crate::support::redis_client;

/// The user agent's key of RFC 8291 appendix A.
const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
pub(crate) const LEASE: Duration = Duration::from_secs(45);
pub(crate) const PAGE: usize = 500;

pub(crate) fn fresh_prefix() -> String {
    BroadcastId::random().to_string()
}

pub(crate) async fn store(url: &str, prefix: &str) -> RedisStore {
    RedisStore::builder()
        .prefix(prefix)
        .connect(url)
        .await
        .unwrap()
}

/// A store that has enlisted as a worker: the first claim waits for that for two seconds only.
pub(crate) async fn worker(url: &str, prefix: &str) -> RedisStore {
    let store = store(url, prefix).await;
    let (meta, workers) = (
        format!("{{{prefix}}}:meta"),
        format!("{{{prefix}}}:workers"),
    );
    let last = async || ask::<Option<u64>>(url, &["HGET", &meta, "worker"]).await;
    let before = last().await;
    assert!(claim(&store, 1, at(0)).await.is_empty());
    until(async || last().await != before).await;
    let number = last().await.unwrap().to_string();
    // Its claims name it from the answer to its first beat on.
    let beat = async || ask::<Option<u64>>(url, &["HGET", &workers, &number]).await;
    let first = beat().await;
    until(async || beat().await != first).await;
    store
}

/// The epoch, once there is one: there is none while beats are late.
pub(crate) async fn epoch(store: &RedisStore) -> u64 {
    let mut epoch = None;
    until(async || {
        epoch = store.epoch();
        epoch.is_some()
    })
    .await;
    epoch.unwrap()
}

/// Long, for a slow machine.
pub(crate) async fn until(mut wanted: impl AsyncFnMut() -> bool) {
    let is_so = async {
        while !wanted().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), is_so).await.unwrap();
}

pub(crate) fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + secs)
}

/// An endpoint as long as those of a real push service.
pub(crate) fn endpoint(number: usize) -> Endpoint {
    let token = "x".repeat(130);
    let url = format!("https://updates.push.services.mozilla.com/wpush/v2/{token}{number:08}");
    Endpoint::parse(&url).unwrap()
}

pub(crate) fn subscription(number: usize) -> NewSubscription {
    let auth = AuthSecret::from_bytes(&[7; AuthSecret::LEN]).unwrap();
    let ua_public = UaPublicKey::parse(P256DH).unwrap();
    let subscription = Subscription::new(endpoint(number), ua_public, auth);
    NewSubscription::new(subscription, KeyId::from_bytes([1; KeyId::LEN]))
}

pub(crate) fn recipient(number: usize) -> EndpointKey {
    let mut key = [0x5a; 32];
    key[..8].copy_from_slice(&(number as u64).to_be_bytes());
    EndpointKey::from_bytes(key)
}

pub(crate) fn delivery(number: usize, origins: usize) -> NewDelivery {
    let origin = format!("https://push{}.example", number % origins);
    NewDelivery::new(recipient(number), Origin::parse(&origin).unwrap())
}

/// Opens a broadcast and writes its rows page by page.
pub(crate) async fn sending(store: &RedisStore, rows: usize, origins: usize) -> BroadcastId {
    let new = NewBroadcast::new(Audience::All, Message::new("hello"), at(3600));
    store.open(&new, at(0)).await.unwrap();
    let mut cursor = Cursor::Start;
    let mut first = 0;
    while cursor != Cursor::End {
        let last = (first + PAGE).min(rows);
        let page: Vec<_> = (first..last).map(|n| delivery(n, origins)).collect();
        let next = if last == rows {
            Cursor::End
        } else {
            Cursor::After(recipient(last - 1))
        };
        let write = store
            .enqueue_page(new.id, &cursor, &page, &next, at(0))
            .await;
        assert_eq!(write.unwrap(), PageWrite::Stored);
        (cursor, first) = (next, last);
    }
    new.id
}

pub(crate) async fn claim(store: &RedisStore, limit: usize, now: Timestamp) -> Vec<Claimed> {
    let request = ClaimRequest::new(limit, LEASE);
    store.claim(&request, now).await.unwrap().rows
}

pub(crate) async fn status(store: &RedisStore, id: BroadcastId, now: Timestamp) -> BroadcastStatus {
    let status = store.status(id, now).await.unwrap().unwrap();
    let counts = status.counts;
    assert_eq!(counts.pending + counts.finished(), status.recipients);
    status
}

/// Opens a connection beside the store's.
pub(crate) async fn connection(url: &str) -> MultiplexedConnection {
    redis_client::connect(url).await
}

/// Sends a command given as words.
pub(crate) async fn ask<T: FromRedisValue>(url: &str, words: &[&str]) -> T {
    let mut command = cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    command
        .query_async(&mut connection(url).await)
        .await
        .unwrap()
}

/// Cancels in steps until no more rows end.
pub(crate) async fn cancel_all(
    store: &RedisStore,
    id: BroadcastId,
    now: Timestamp,
) -> BroadcastStatus {
    let mut status = store.cancel(id, now).await.unwrap().unwrap();
    loop {
        let next = store.cancel(id, now).await.unwrap().unwrap();
        if next == status {
            return status;
        }
        status = next;
    }
}

/// Returns the keys of a prefix, without the prefix, and without the workers that live.
pub(crate) async fn keys(url: &str, prefix: &str) -> Vec<String> {
    let pattern = format!("{{{prefix}}}:*");
    let keys: Vec<Vec<u8>> = ask(url, &["KEYS", &pattern]).await;
    let text = |key: Vec<u8>| String::from_utf8_lossy(&key[prefix.len() + 3..]).into_owned();
    let mut keys: Vec<_> = keys.into_iter().map(text).collect();
    keys.retain(|key| key != "workers");
    keys.sort_unstable();
    keys
}
