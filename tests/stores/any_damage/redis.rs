//! Of Redis: the keys of a prefix are put back for each case.

use proptest::test_runner::TestCaseError;
use tower_web_push::store::RedisStore;
use tower_web_push::store::redis_rs::aio::MultiplexedConnection;
use tower_web_push::store::redis_rs::{Cmd, FromRedisValue, RedisResult, cmd};

use super::calls::{Reads, reads};
use super::{Damage, Done, Part, Value, check, examine, runtime};
use crate::redis::world::{connection, fresh_prefix, store};
use crate::support::servers::{Kind, shared};
use crate::support::stored;

/// Not content: the version of the keys, and the signs of life of the store that the cases use.
const LEFT_ALONE: [&[u8]; 2] = [b"format", b"workers"];

struct World {
    store: RedisStore,
    connection: MultiplexedConnection,
    namespace: Vec<u8>,
    /// Each key with its content, as `DUMP` writes it.
    kept: Vec<(Vec<u8>, Vec<u8>)>,
    before: Reads,
}

pub(super) fn run(cases: u32) {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let runtime = runtime();
    let world = runtime.block_on(World::new(&url));
    check(cases, |damages| runtime.block_on(world.case(&damages)));
    runtime.block_on(world.clear());
}

impl World {
    async fn new(url: &str) -> Self {
        let prefix = fresh_prefix();
        let store = store(url, &prefix).await;
        stored::fill(&store).await;
        let mut world = Self {
            before: reads(&store).await.unwrap(),
            store,
            connection: connection(url).await,
            namespace: format!("{{{prefix}}}:").into_bytes(),
            kept: Vec::new(),
        };
        for key in world.keys().await {
            let content: Vec<u8> = world.ask(cmd("DUMP").arg(&key)).await.unwrap();
            world.kept.push((key, content));
        }
        world
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        command.query_async(&mut self.connection.clone()).await
    }

    async fn keys(&self) -> Vec<Vec<u8>> {
        let mut pattern = self.namespace.clone();
        pattern.push(b'*');
        let mut keys: Vec<Vec<u8>> = self.ask(cmd("KEYS").arg(pattern)).await.unwrap();
        keys.retain(|key| !LEFT_ALONE.contains(&&key[self.namespace.len()..]));
        keys.sort();
        keys
    }

    async fn clear(&self) {
        for key in self.keys().await {
            let _: i64 = self.ask(cmd("DEL").arg(key)).await.unwrap();
        }
    }

    async fn case(&self, damages: &[Damage]) -> Result<(), TestCaseError> {
        self.clear().await;
        for (key, content) in &self.kept {
            let mut restore = cmd("RESTORE");
            let _: () = self
                .ask(restore.arg(key).arg(0).arg(content))
                .await
                .unwrap();
        }
        let mut done = Vec::new();
        for damage in damages {
            done.extend(self.damage(damage).await);
        }
        examine(&self.store, &self.before, &done).await
    }

    /// Returns the part that is damaged; none if the server refuses the value.
    async fn damage(&self, ((key, place, _), value): &Damage) -> Option<Done> {
        let keys = self.keys().await;
        let key = keys.get(usize::from(*key) % keys.len().max(1))?;
        let kind: String = self.ask(cmd("TYPE").arg(key)).await.unwrap();
        let members: Vec<Vec<u8>> = match kind.as_str() {
            "hash" => self.ask(cmd("HKEYS").arg(key)).await,
            "zset" => self.ask(cmd("ZRANGE").arg(key).arg(0).arg(-1)).await,
            "set" => self.ask(cmd("SMEMBERS").arg(key)).await,
            _ => Ok(vec![Vec::new()]),
        }
        .unwrap();
        let member = &members[usize::from(*place) % members.len()];
        let changed = match (kind.as_str(), value) {
            ("hash", Value::Null) => self
                .ask::<i64>(cmd("HDEL").arg(key).arg(member))
                .await
                .map(drop),
            ("zset", Value::Null) => self
                .ask::<i64>(cmd("ZREM").arg(key).arg(member))
                .await
                .map(drop),
            ("set", Value::Null) => self
                .ask::<i64>(cmd("SREM").arg(key).arg(member))
                .await
                .map(drop),
            (_, Value::Null) => self.ask::<i64>(cmd("DEL").arg(key)).await.map(drop),
            ("hash", Value::Copy(number)) => {
                let content: Vec<u8> = self.ask(cmd("HGET").arg(key).arg(member)).await.unwrap();
                let copy = copy(member, *number);
                let set = cmd("HSET").arg(key).arg(copy).arg(content).to_owned();
                self.ask::<i64>(&set).await.map(drop)
            }
            ("zset", Value::Copy(number)) => {
                let score: f64 = self.ask(cmd("ZSCORE").arg(key).arg(member)).await.unwrap();
                let copy = copy(member, *number);
                let add = cmd("ZADD").arg(key).arg(score).arg(copy).to_owned();
                self.ask::<i64>(&add).await.map(drop)
            }
            ("set", Value::Copy(number)) => {
                let add = cmd("SADD").arg(key).arg(copy(member, *number)).to_owned();
                self.ask::<i64>(&add).await.map(drop)
            }
            (_, Value::Copy(number)) => {
                let copy = copy(key, *number);
                self.ask::<i64>(cmd("COPY").arg(key).arg(copy))
                    .await
                    .map(drop)
            }
            (_, Value::OtherKind) => {
                let other = match kind.as_str() {
                    "hash" => cmd("SET").arg(key).arg("?").to_owned(),
                    _ => cmd("HSET").arg(key).arg("?").arg("?").to_owned(),
                };
                let _: i64 = self.ask(cmd("DEL").arg(key)).await.unwrap();
                self.ask::<()>(&other).await
            }
            ("hash", value) => {
                let old: Vec<u8> = self.ask(cmd("HGET").arg(key).arg(member)).await.unwrap();
                let new = octets(&old, value);
                self.ask::<i64>(cmd("HSET").arg(key).arg(member).arg(new))
                    .await
                    .map(drop)
            }
            ("zset", Value::Number(score)) => {
                let add = cmd("ZADD").arg(key).arg(*score).arg(member).to_owned();
                self.ask::<i64>(&add).await.map(drop)
            }
            ("zset", value) => {
                let new = octets(member, value);
                self.ask::<i64>(cmd("ZADD").arg(key).arg(0).arg(new))
                    .await
                    .map(drop)
            }
            ("set", value) => {
                let new = octets(member, value);
                self.ask::<i64>(cmd("SADD").arg(key).arg(new))
                    .await
                    .map(drop)
            }
            (_, value) => {
                let old: Vec<u8> = self.ask(cmd("GET").arg(key)).await.unwrap();
                self.ask::<()>(cmd("SET").arg(key).arg(octets(&old, value)))
                    .await
            }
        };
        let name = &key[self.namespace.len()..];
        let told = format!(
            "{kind} {} {}: {value:?}",
            name.escape_ascii(),
            member.escape_ascii()
        );
        let part = part(name);
        changed.is_ok().then(|| Done {
            part,
            told,
            is_shared: part == Part::All || name == b"numbers" || *value == Value::OtherKind,
        })
    }
}

/// Another name of the same length.
fn copy(name: &[u8], number: u8) -> Vec<u8> {
    let mut copy = name.to_vec();
    if let Some(last) = copy.last_mut() {
        *last ^= number | 1;
    }
    copy
}

fn octets(old: &[u8], value: &Value) -> Vec<u8> {
    match value {
        Value::Number(number) => number.to_string().into_bytes(),
        Value::Text(text) => text.clone().into_bytes(),
        Value::Octets(octets) => octets.clone(),
        Value::Cut(len) => old[..usize::from(*len) % (old.len() + 1)].to_vec(),
        Value::Null | Value::OtherKind | Value::Copy(_) => Vec::new(),
    }
}

fn part(name: &[u8]) -> Part {
    let name = String::from_utf8_lossy(name);
    match &*name {
        "meta" => Part::All,
        "vapid" | "active" => Part::Keys,
        "fires" | "days" => Part::Schedules,
        "all" | "dead" | "expires" | "ids" | "numbers" | "retired" | "rows" | "stale" => {
            Part::Subscriptions
        }
        _ if name.starts_with("d:") => Part::Schedules,
        _ if name.starts_with("t") && name.contains(':') => Part::Subscriptions,
        _ if name.starts_with("u:") => Part::Subscriptions,
        _ => Part::Ledger,
    }
}
