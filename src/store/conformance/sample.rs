//! Sample values of the cases.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::broadcast::{Audience, BroadcastId, Principal, Tag};
use crate::clock::Timestamp;
use crate::message::Message;
use crate::store::{
    Change, ClaimRequest, Claimed, Cursor, DeliveryLedger, NewBroadcast, NewDelivery,
    NewSubscription, Opened, PageWrite, SubscriptionLimits, SubscriptionRecord, SubscriptionStore,
    Upserted,
};
use crate::subscription::{
    AuthSecret, Endpoint, EndpointKey, Origin, Subscription, SubscriptionId, UaPublicKey,
};
use crate::vapid::KeyId;

/// The user agent's key of RFC 8291 appendix A.
const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";

/// The lease of the cases' claims.
pub(super) const LEASE: Duration = Duration::from_secs(45);

/// A time this many seconds into the case.
pub(super) fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + secs)
}

pub(super) fn endpoint(number: u32) -> Endpoint {
    Endpoint::parse(&format!(
        "https://updates.push.services.mozilla.com/{number}"
    ))
    .unwrap()
}

/// A subscription with its own endpoint. `auth` determines its keys.
pub(super) fn subscription(number: u32, auth: u8) -> Subscription {
    let auth = AuthSecret::from_bytes(&[auth; AuthSecret::LEN]).unwrap();
    Subscription::new(endpoint(number), UaPublicKey::parse(P256DH).unwrap(), auth)
}

pub(super) fn key_id(number: u8) -> KeyId {
    KeyId::from_bytes([number; KeyId::LEN])
}

pub(super) fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

pub(super) fn tags(texts: &[&str]) -> BTreeSet<Tag> {
    texts.iter().map(|text| tag(text)).collect()
}

/// A subscription without principal and tags, with the default VAPID key 1.
pub(super) fn new(number: u32) -> NewSubscription {
    NewSubscription::new(subscription(number, 1), key_id(1))
}

pub(super) fn of(principal: &str, mut new: NewSubscription) -> NewSubscription {
    new.principal = Some(Principal::from(principal));
    new
}

pub(super) fn tagged(texts: &[&str], mut new: NewSubscription) -> NewSubscription {
    new.tags = Some(tags(texts));
    new
}

/// The same endpoint with other keys.
pub(super) fn rekeyed(mut new: NewSubscription) -> NewSubscription {
    let expiration = new.subscription.expiration_time();
    let auth = AuthSecret::from_bytes(&[0xee; AuthSecret::LEN]).unwrap();
    new.subscription = Subscription::new(
        new.subscription.endpoint().clone(),
        *new.subscription.ua_public(),
        auth,
    )
    .with_expiration_time(expiration);
    new
}

/// Upserts and expects success. Returns the row, and whether it is new.
pub(super) async fn put<S: SubscriptionStore + ?Sized>(
    store: &S,
    new: &NewSubscription,
    now: Timestamp,
) -> (SubscriptionRecord, bool) {
    let limits = SubscriptionLimits::default();
    match store.upsert(new, &limits, now).await.unwrap() {
        Upserted::Stored {
            record, created, ..
        } => (*record, created),
        Upserted::Conflict => panic!("the upsert was refused"),
    }
}

/// Deletes a row without a principal, whenever it was registered.
pub(super) fn delete(key: EndpointKey) -> Change {
    Change::Delete {
        key,
        principal: None,
        observed_at: Timestamp::MAX,
    }
}

/// Returns the row of an endpoint.
pub(super) async fn row<S: SubscriptionStore + ?Sized>(
    store: &S,
    number: u32,
) -> Option<SubscriptionRecord> {
    let which = crate::store::SubscriptionRef::Key(endpoint(number).key());
    let mut rows = store.get(&[which]).await.unwrap();
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

/// A broadcast to all that expires after an hour.
pub(super) fn broadcast() -> NewBroadcast {
    NewBroadcast::new(Audience::All, Message::new("hello"), at(3600))
}

/// A recipient at the origin with this name.
pub(super) fn delivery(origin: &str, number: u32) -> NewDelivery {
    NewDelivery::new(recipient(number), self::origin(origin))
}

pub(super) fn recipient(number: u32) -> EndpointKey {
    endpoint(number).key()
}

pub(super) fn origin(name: &str) -> Origin {
    Origin::parse(&format!("https://{name}.example")).unwrap()
}

/// Opens a broadcast and writes all of its recipients.
pub(super) async fn sending<L: DeliveryLedger + ?Sized>(
    ledger: &L,
    rows: &[NewDelivery],
    now: Timestamp,
) -> BroadcastId {
    let broadcast = broadcast();
    sending_as(ledger, &broadcast, rows, now).await;
    broadcast.id
}

/// Opens this broadcast and writes all of its recipients.
pub(super) async fn sending_as<L: DeliveryLedger + ?Sized>(
    ledger: &L,
    broadcast: &NewBroadcast,
    rows: &[NewDelivery],
    now: Timestamp,
) {
    let opened = ledger.open(broadcast, now).await.unwrap();
    assert_eq!(opened, Opened::New);
    let written = ledger
        .enqueue_page(broadcast.id, &Cursor::Start, rows, &Cursor::End, now)
        .await
        .unwrap();
    assert_eq!(written, PageWrite::Stored);
}

/// Claims rows of any origin for [`LEASE`].
pub(super) async fn claim<L: DeliveryLedger + ?Sized>(
    ledger: &L,
    limit: usize,
    now: Timestamp,
) -> Vec<Claimed> {
    claim_as(ledger, &ClaimRequest::new(limit, LEASE), now).await
}

/// Claims, and checks invariants of all claims.
pub(super) async fn claim_as<L: DeliveryLedger + ?Sized>(
    ledger: &L,
    request: &ClaimRequest,
    now: Timestamp,
) -> Vec<Claimed> {
    let claims = ledger.claim(request, now).await.unwrap();
    assert!(claims.rows.len() <= request.limit);
    for row in &claims.rows {
        assert_eq!(row.leased_until, now + request.lease);
        assert!(claims.messages.contains_key(&row.token.broadcast));
    }
    claims.rows
}

/// Deletes rows that are retired or stale since before this second, or expired before it.
pub(super) fn purge(before: i64) -> Change {
    Change::Purge {
        before: at(before),
        expired_before: at(before),
    }
}

pub(super) fn unknown_id() -> SubscriptionId {
    SubscriptionId::from_bytes([0xab; 16])
}
