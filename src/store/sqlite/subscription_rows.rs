//! Rows of the table `subscription`.

use rusqlite::params;

use super::connection::Connection;
use super::error::corrupt;
use super::query::{Columns, execute, first, integer};
use crate::broadcast::{Principal, Tag};
use crate::push_service::PushService;
use crate::store::{
    RetireReason, Retired, StoreError, StoreErrorKind, SubscriptionRecord, SubscriptionRef,
};
use crate::subscription::{
    AuthSecret, Endpoint, EndpointKey, Subscription, SubscriptionError, SubscriptionId, UaPublicKey,
};
use crate::vapid::KeyId;

/// The columns that [`record`] reads, from a table named `s`.
macro_rules! record_columns {
    () => {
        "s.id, s.endpoint, s.p256dh, s.auth, s.expires_at, s.principal, s.vapid_key, s.created_at, \
         s.keys_changed_at, s.last_seen_at, s.last_success_at, s.failure_streak, s.failing_since, s.stale_since, \
         s.retired_at, s.retire_reason, (SELECT group_concat(tag, ' ') FROM subscription_tag t WHERE t.key = s.key)"
    };
}
pub(super) use record_columns;

const BY_KEY: &str = concat!(
    "SELECT ",
    record_columns!(),
    " FROM subscription s WHERE s.key = ?1"
);
const BY_ID: &str = concat!(
    "SELECT ",
    record_columns!(),
    " FROM subscription s WHERE s.id = ?1"
);
const INSERT: &str = "INSERT INTO subscription (key, id, endpoint, p256dh, auth, expires_at, principal, \
     vapid_key, push_service, created_at, keys_changed_at, last_seen_at, last_success_at, failure_streak) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
/// Endpoint, push service and key never change.
const UPDATE: &str = "UPDATE subscription SET id = ?2, p256dh = ?3, auth = ?4, expires_at = ?5, \
     principal = ?6, vapid_key = ?7, created_at = ?8, keys_changed_at = ?9, last_seen_at = ?10, \
     failure_streak = ?11, failing_since = ?12, stale_since = ?13, retired_at = ?14, retire_reason = ?15 WHERE key = ?1";

/// Reads a row by its key or id.
pub(super) fn find(
    conn: &Connection,
    which: SubscriptionRef,
) -> Result<Option<SubscriptionRecord>, StoreError> {
    match which {
        SubscriptionRef::Key(key) => first(conn, BY_KEY, [key.as_bytes()], record),
        SubscriptionRef::Id(id) => first(conn, BY_ID, [id.as_bytes()], record),
    }
}

/// Reads [`record_columns!`].
pub(super) fn record(columns: &mut Columns<'_, '_>) -> Result<SubscriptionRecord, StoreError> {
    let unreadable = |error: SubscriptionError| StoreError::new(StoreErrorKind::Corrupt, error);
    let id = SubscriptionId::from_bytes(columns.bytes()?);
    let endpoint = Endpoint::parse(&columns.get::<String>()?).map_err(unreadable)?;
    let ua_public =
        UaPublicKey::from_bytes(&columns.bytes::<{ UaPublicKey::LEN }>()?).map_err(unreadable)?;
    let auth = AuthSecret::from_bytes(&columns.get::<Vec<u8>>()?).map_err(unreadable)?;
    let expires_at = columns.time_or_null()?;
    let subscription =
        Subscription::new(endpoint, ua_public, auth).with_expiration_time(expires_at);
    let principal: Option<String> = columns.get()?;
    let vapid_key = KeyId::from_bytes(columns.bytes()?);
    let created_at = columns.time()?;
    let mut record = SubscriptionRecord::new(id, subscription, vapid_key, created_at);
    record.principal = principal.map(Principal::from);
    record.keys_changed_at = columns.time()?;
    record.last_seen_at = columns.time()?;
    record.last_success_at = columns.time_or_null()?;
    record.failure_streak = u32::try_from(columns.count()?).unwrap_or(u32::MAX);
    record.failing_since = columns.time_or_null()?;
    record.stale_since = columns.time_or_null()?;
    let retired_at = columns.time_or_null()?;
    let reason: Option<String> = columns.get()?;
    record.retired = match (retired_at, reason) {
        (None, None) => None,
        (Some(at), Some(reason)) => {
            let reason = RetireReason::from_name(&reason);
            let reason = reason.ok_or_else(|| corrupt("the reason why a row is retired"))?;
            Some(Retired::new(at, reason))
        }
        _ => return Err(corrupt("a row that is half retired")),
    };
    // Tags contain no spaces.
    let tags: Option<String> = columns.get()?;
    for tag in tags.iter().flat_map(|tags| tags.split(' ')) {
        let tag = Tag::parse(tag).map_err(|_| corrupt("a tag"))?;
        record.tags.insert(tag);
    }
    Ok(record)
}

/// Writes a row made by [`merge`](crate::store::rules::merge): a new and live one, or any instead of the stored one.
pub(super) fn write(
    conn: &Connection,
    key: &EndpointKey,
    record: &SubscriptionRecord,
    is_new: bool,
) -> Result<(), StoreError> {
    let subscription = &record.subscription;
    let (ua_public, auth) = (subscription.ua_public(), subscription.auth());
    let expires_at = subscription.expiration_time().map(|at| at.as_millis());
    let principal = record.principal.as_ref().map(Principal::as_str);
    if is_new {
        let values = params![
            key.as_bytes(),
            record.id.as_bytes(),
            subscription.endpoint().as_str(),
            ua_public.as_bytes(),
            auth.secret_bytes(),
            expires_at,
            principal,
            record.vapid_key.as_bytes(),
            PushService::of(subscription.endpoint()).as_str(),
            record.created_at.as_millis(),
            record.keys_changed_at.as_millis(),
            record.last_seen_at.as_millis(),
            record.last_success_at.map(|at| at.as_millis()),
            record.failure_streak,
        ];
        execute(conn, INSERT, values)?;
    } else {
        let values = params![
            key.as_bytes(),
            record.id.as_bytes(),
            ua_public.as_bytes(),
            auth.secret_bytes(),
            expires_at,
            principal,
            record.vapid_key.as_bytes(),
            record.created_at.as_millis(),
            record.keys_changed_at.as_millis(),
            record.last_seen_at.as_millis(),
            record.failure_streak,
            record.failing_since.map(|at| at.as_millis()),
            record.stale_since.map(|at| at.as_millis()),
            record.retired.map(|retired| retired.at.as_millis()),
            record.retired.map(|retired| retired.reason.as_str()),
        ];
        execute(conn, UPDATE, values)?;
        let forget = "DELETE FROM subscription_tag WHERE key = ?1";
        execute(conn, forget, [key.as_bytes()])?;
    }
    for tag in &record.tags {
        let insert = "INSERT INTO subscription_tag (key, tag) VALUES (?1, ?2)";
        execute(conn, insert, params![key.as_bytes(), tag.as_str()])?;
    }
    Ok(())
}

/// Converts a limit for SQLite.
pub(super) fn limit(limit: usize) -> i64 {
    integer(limit)
}
