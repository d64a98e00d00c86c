//! The stored keys and values, octet by octet.

use std::collections::BTreeMap;

use super::world::{connection, fresh_prefix, store};
use crate::support::servers::{Kind, shared};
use crate::support::stored;

use tower_web_push::store::redis_rs::{FromRedisValue, cmd};

#[tokio::test]
async fn what_is_stored_has_the_known_form() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let Some(url) = shared(kind) else {
            continue;
        };
        let prefix = fresh_prefix();
        stored::fill(&store(&url, &prefix).await).await;
        stored::is(
            &dump(&url, &prefix).await,
            include_str!("../stored/redis.txt"),
        );
    }
}

/// Prints one line for each member of each key.
async fn dump(url: &str, prefix: &str) -> Vec<String> {
    let namespace = format!("{{{prefix}}}:");
    let pattern = format!("{namespace}*");
    let mut keys: Vec<Vec<u8>> = ask(url, &[b"KEYS", pattern.as_bytes()]).await;
    keys.sort();
    let mut lines = Vec::new();
    for key in keys {
        let kind: String = ask(url, &[b"TYPE", &key]).await;
        let parts: BTreeMap<Vec<u8>, Vec<u8>> = match kind.as_str() {
            "hash" => ask(url, &[b"HGETALL", &key]).await,
            "zset" => ask(url, &[b"ZRANGE", &key, b"0", b"-1", b"WITHSCORES"]).await,
            "set" => {
                let members: Vec<Vec<u8>> = ask(url, &[b"SMEMBERS", &key]).await;
                members
                    .into_iter()
                    .map(|member| (member, Vec::new()))
                    .collect()
            }
            _ => [(Vec::new(), ask(url, &[b"GET", &key]).await)].into(),
        };
        let name = key[namespace.len()..].escape_ascii();
        for (part, value) in parts {
            // The server's time.
            let value = match key.ends_with(b":workers") {
                true => b"BEAT".to_vec(),
                false => value,
            };
            let (part, value) = (part.escape_ascii(), value.escape_ascii());
            lines.push(match kind.as_str() {
                "set" => format!("set {name} {part}"),
                _ => format!("{kind} {name} {part} = {value}"),
            });
        }
    }
    lines
}

async fn ask<T: FromRedisValue>(url: &str, words: &[&[u8]]) -> T {
    let mut command = cmd(std::str::from_utf8(words[0]).unwrap());
    for word in &words[1..] {
        command.arg(*word);
    }
    let mut connection = connection(url).await;
    command.query_async(&mut connection).await.unwrap()
}
