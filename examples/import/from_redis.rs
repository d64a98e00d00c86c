//! The Flask and Redis demo: a set of UUIDs, and a JSON text for each.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult, cmd};
use serde_json::Value;
use tower_web_push::import::{ImportedSubscription, RefusedRow};
use tower_web_push::subscription::{Subscription, SubscriptionId};

use super::{BoxError, Row};

const SET: &str = "webpush:subscriptions";
const INFO: &str = "webpush:subscription:info:";
/// The number of elements that Redis scans in one step.
const STEP: u32 = 500;

/// A walk over the set, and then over the texts, to find those that are not in the set.
pub(crate) struct FromRedis {
    redis: MultiplexedConnection,
    walk: Option<Walk>,
    cursor: u64,
}

enum Walk {
    Set,
    Texts,
}

impl FromRedis {
    pub(crate) async fn open(url: &str) -> RedisResult<Self> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(10)))
            .set_response_timeout(Some(Duration::from_secs(30)));
        let client = Client::open(url)?;
        Ok(Self {
            redis: client
                .get_multiplexed_async_connection_with_config(&config)
                .await?,
            walk: Some(Walk::Set),
            cursor: 0,
        })
    }

    /// Returns some rows, which may be none: a step of Redis may find nothing. A member that stays in the set during
    /// the walk is returned at least once.
    pub(crate) async fn next_page(&mut self) -> Result<Option<Vec<Row>>, BoxError> {
        let (page, next) = match self.walk {
            None => return Ok(None),
            Some(Walk::Set) => (self.step_of_set().await?, Some(Walk::Texts)),
            Some(Walk::Texts) => (self.step_of_texts().await?, None),
        };
        if self.cursor == 0 {
            self.walk = next;
        }
        Ok(Some(page))
    }

    async fn step_of_set(&mut self) -> RedisResult<Vec<Row>> {
        let mut step = cmd("SSCAN");
        step.arg(SET).arg(self.cursor).arg("COUNT").arg(STEP);
        let (cursor, ids): (u64, Vec<Vec<u8>>) = step.query_async(&mut self.redis).await?;
        let texts: Vec<Option<Vec<u8>>> = if ids.is_empty() {
            Vec::new()
        } else {
            let mut get = cmd("MGET");
            for id in &ids {
                get.arg([INFO.as_bytes(), id].concat());
            }
            get.query_async(&mut self.redis).await?
        };
        self.cursor = cursor;
        let rows = ids.iter().zip(texts);
        Ok(rows
            .map(|(id, text)| {
                let id = String::from_utf8_lossy(id);
                let text = text.ok_or("its webpush:subscription:info is missing");
                text.map_err(BoxError::from)
                    .and_then(|text| row(&id, &text))
                    .map_err(|why| RefusedRow::new(id, why))
            })
            .collect())
    }

    /// The demo does not send to a UUID outside the set, and deletes its text first when it unsubscribes: a text
    /// without a member was never subscribed.
    async fn step_of_texts(&mut self) -> RedisResult<Vec<Row>> {
        let mut step = cmd("SCAN");
        step.arg(self.cursor);
        step.arg("MATCH").arg(format!("{INFO}*"));
        step.arg("COUNT").arg(STEP);
        let (cursor, names): (u64, Vec<Vec<u8>>) = step.query_async(&mut self.redis).await?;
        let mut ask = redis::pipe();
        for name in &names {
            ask.sismember(SET, name.get(INFO.len()..).unwrap_or_default());
        }
        let known: Vec<bool> = if names.is_empty() {
            Vec::new()
        } else {
            ask.query_async(&mut self.redis).await?
        };
        self.cursor = cursor;
        let strays = names.iter().zip(known).filter(|(_, known)| !known);
        Ok(strays
            .map(|(name, _)| {
                let name = String::from_utf8_lossy(name);
                Err(RefusedRow::new(name, "it is not in webpush:subscriptions"))
            })
            .collect())
    }
}

/// `{"endpoint", "keys": {"p256dh", "auth"}, "expiration_time"}`: the browser's JSON except for the last name.
fn row(id: &str, text: &[u8]) -> Result<ImportedSubscription, BoxError> {
    let id: SubscriptionId = id.parse()?;
    let mut value: Value = serde_json::from_slice(text)?;
    if let Some(object) = value.as_object_mut()
        && let Some(expiration) = object.remove("expiration_time")
    {
        object.insert("expirationTime".to_owned(), expiration);
    }
    let mut row = ImportedSubscription::new(Subscription::from_value(&value)?);
    row.row = Some(id.to_string());
    row.id = Some(id);
    Ok(row)
}
