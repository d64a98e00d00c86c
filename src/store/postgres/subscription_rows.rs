//! Rows of the table `subscription`.

use tokio_postgres::types::ToSql;

use super::connection::Tx;
use super::error::{Failed, corrupt};
use super::rows::{Columns, Values, integer};
use crate::broadcast::{Principal, Tag};
use crate::clock::Timestamp;
use crate::push_service::PushService;
use crate::store::{
    Failure, LastFailure, ReasonWord, RetireReason, Retired, StoreError, StoreErrorKind,
    SubscriptionRecord,
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
         s.retired_at, s.retire_reason, s.failed_at, s.failure_status, s.failure_reason, s.tags"
    };
}
pub(super) use record_columns;

/// Waits only for concurrent inserts of the same key.
pub(super) const INSERT: &str = "INSERT INTO web_push.subscription (key, id, endpoint, p256dh, auth, expires_at, principal, \
     tags, vapid_key, push_service, created_at, keys_changed_at, last_seen_at, last_success_at, failure_streak) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
     ON CONFLICT (key) DO NOTHING";
/// Endpoint, push service and key never change. Tags that stay are not written again.
pub(super) const UPDATE: &str = "WITH old AS MATERIALIZED \
         (SELECT s.key, unnest(s.tags) AS tag FROM web_push.subscription AS s WHERE s.key = $1), \
     forgotten AS (DELETE FROM web_push.subscription_tag AS t USING old \
         WHERE t.tag = old.tag AND t.key = old.key AND old.tag <> ALL ($7::text[])), \
     added AS (INSERT INTO web_push.subscription_tag (tag, key) \
         SELECT tag, $1 FROM unnest($7::text[]) AS fresh (tag) ORDER BY tag ON CONFLICT DO NOTHING) \
     UPDATE web_push.subscription SET id = $2, p256dh = $3, auth = $4, expires_at = $5, \
     principal = $6, tags = $7, vapid_key = $8, created_at = $9, keys_changed_at = $10, last_seen_at = $11, \
     failure_streak = $12, failing_since = $13, stale_since = $14, retired_at = $15, retire_reason = $16 WHERE key = $1";
pub(super) const DELETE: &str = "DELETE FROM web_push.subscription WHERE key = ANY($1)";
/// Deletes the tags of rewritten or deleted rows, found by the rows' own tags.
pub(super) const FORGET_TAGS: &str = "DELETE FROM web_push.subscription_tag AS t \
     USING (SELECT s.key, unnest(s.tags) AS tag FROM web_push.subscription AS s WHERE s.key = ANY($1)) AS old \
     WHERE t.tag = old.tag AND t.key = old.key";
pub(super) const INSERT_TAGS: &str = "INSERT INTO web_push.subscription_tag (tag, key) \
     SELECT tag, $1 FROM unnest($2::text[]) AS fresh (tag) ORDER BY tag ON CONFLICT DO NOTHING";

/// Reads [`record_columns!`].
pub(super) fn record(columns: &mut Columns<'_>) -> Result<SubscriptionRecord, StoreError> {
    let unreadable = |error: SubscriptionError| StoreError::new(StoreErrorKind::Corrupt, error);
    let id = SubscriptionId::from_bytes(columns.bytes()?);
    let endpoint = Endpoint::parse(columns.get()?).map_err(unreadable)?;
    let ua_public =
        UaPublicKey::from_bytes(&columns.bytes::<{ UaPublicKey::LEN }>()?).map_err(unreadable)?;
    let auth = AuthSecret::from_bytes(columns.get()?).map_err(unreadable)?;
    let expires_at = columns.time_or_null()?;
    let subscription =
        Subscription::new(endpoint, ua_public, auth).with_expiration_time(expires_at);
    let principal: Option<&[u8]> = columns.get()?;
    let principal = principal.map(std::str::from_utf8).transpose();
    let vapid_key = KeyId::from_bytes(columns.bytes()?);
    let created_at = columns.time()?;
    let mut record = SubscriptionRecord::new(id, subscription, vapid_key, created_at);
    record.principal = principal
        .map_err(|_| corrupt("a principal"))?
        .map(Principal::from);
    record.keys_changed_at = columns.time()?;
    record.last_seen_at = columns.time()?;
    record.last_success_at = columns.time_or_null()?;
    record.failure_streak = u32::try_from(columns.count()?).unwrap_or(u32::MAX);
    record.failing_since = columns.time_or_null()?;
    record.stale_since = columns.time_or_null()?;
    let retired_at = columns.time_or_null()?;
    let reason: Option<&str> = columns.get()?;
    record.retired = match (retired_at, reason) {
        (None, None) => None,
        (Some(at), Some(reason)) => {
            let reason = RetireReason::from_name(reason);
            let reason = reason.ok_or_else(|| corrupt("the reason why a row is retired"))?;
            Some(Retired::new(at, reason))
        }
        _ => return Err(corrupt("a row that is half retired")),
    };
    let failed_at = columns.time_or_null()?;
    let status: Option<i32> = columns.get()?;
    let reason: Option<&str> = columns.get()?;
    record.last_failure = failed_at.map(|at| {
        let failure = Failure {
            status: status.and_then(|status| u16::try_from(status).ok()),
            reason: reason.and_then(ReasonWord::of),
        };
        LastFailure::new(at, failure)
    });
    for tag in columns.get::<Vec<&str>>()? {
        let tag = Tag::parse(tag).map_err(|_| corrupt("a tag"))?;
        record.tags.insert(tag);
    }
    Ok(record)
}

/// Serializes a principal.
pub(super) fn principal_bytes(principal: &Principal) -> &[u8] {
    principal.as_str().as_bytes()
}

/// The columns of a row as it is inserted.
pub(super) struct Inserted<'a> {
    key: &'a [u8],
    id: &'a [u8],
    endpoint: &'a str,
    p256dh: &'a [u8],
    auth: &'a [u8],
    expires_at: Option<i64>,
    principal: Option<&'a [u8]>,
    tags: Vec<&'a str>,
    vapid_key: &'a [u8],
    push_service: &'static str,
    created_at: i64,
    keys_changed_at: i64,
    last_seen_at: i64,
    last_success_at: Option<i64>,
    failure_streak: i64,
}

impl<'a> Inserted<'a> {
    pub(super) fn of(key: &'a EndpointKey, record: &'a SubscriptionRecord) -> Self {
        let subscription = &record.subscription;
        Self {
            key: key.as_bytes(),
            id: record.id.as_bytes(),
            endpoint: subscription.endpoint().as_str(),
            p256dh: subscription.ua_public().as_bytes(),
            auth: subscription.auth().secret_bytes(),
            expires_at: subscription.expiration_time().map(|at| at.as_millis()),
            principal: record.principal.as_ref().map(principal_bytes),
            tags: record.tags.iter().map(Tag::as_str).collect(),
            vapid_key: record.vapid_key.as_bytes(),
            push_service: PushService::of(subscription.endpoint()).as_str(),
            created_at: record.created_at.as_millis(),
            keys_changed_at: record.keys_changed_at.as_millis(),
            last_seen_at: record.last_seen_at.as_millis(),
            last_success_at: record.last_success_at.map(|at| at.as_millis()),
            failure_streak: integer(record.failure_streak),
        }
    }

    /// The values of [`INSERT`].
    pub(super) fn values(&self) -> [&(dyn ToSql + Sync); 15] {
        [
            &self.key,
            &self.id,
            &self.endpoint,
            &self.p256dh,
            &self.auth,
            &self.expires_at,
            &self.principal,
            &self.tags,
            &self.vapid_key,
            &self.push_service,
            &self.created_at,
            &self.keys_changed_at,
            &self.last_seen_at,
            &self.last_success_at,
            &self.failure_streak,
        ]
    }
}

/// Inserts a row made by [`merge`](crate::store::rules::merge), which is live. Returns `false` if a concurrent transaction has
/// inserted it.
pub(super) async fn insert(
    tx: &mut Tx<'_>,
    key: &EndpointKey,
    record: &SubscriptionRecord,
) -> Result<bool, Failed> {
    let columns = Inserted::of(key, record);
    if tx.execute(INSERT, &columns.values()).await? == 0 {
        return Ok(false);
    }
    if !columns.tags.is_empty() {
        tx.execute(INSERT_TAGS, &[&columns.key, &columns.tags])
            .await?;
    }
    Ok(true)
}

/// Writes a row made by [`merge`](crate::store::rules::merge) in place of the stored one, which is locked. `is_last` says that
/// nothing follows: then the transaction is committed in the same round trip.
pub(super) async fn update(
    tx: &mut Tx<'_>,
    key: &EndpointKey,
    record: &SubscriptionRecord,
    is_last: bool,
) -> Result<(), Failed> {
    let columns = Inserted::of(key, record);
    let millis = |at: Option<Timestamp>| at.map(|at| at.as_millis());
    let values: Values<'_> = &[
        &columns.key,
        &columns.id,
        &columns.p256dh,
        &columns.auth,
        &columns.expires_at,
        &columns.principal,
        &columns.tags,
        &columns.vapid_key,
        &columns.created_at,
        &columns.keys_changed_at,
        &columns.last_seen_at,
        &columns.failure_streak,
        &millis(record.failing_since),
        &millis(record.stale_since),
        &millis(record.retired.map(|retired| retired.at)),
        &record.retired.map(|retired| retired.reason.as_str()),
    ];
    match is_last {
        true => tx.execute_last(UPDATE, values).await?,
        false => tx.execute(UPDATE, values).await?,
    };
    Ok(())
}

/// Deletes locked rows with their tags. Returns their number.
pub(super) async fn delete(tx: &mut Tx<'_>, keys: &[&[u8]]) -> Result<u64, Failed> {
    if keys.is_empty() {
        return Ok(0);
    }
    tx.execute(FORGET_TAGS, &[&keys]).await?;
    tx.execute(DELETE, &[&keys]).await
}
