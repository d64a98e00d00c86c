//! Checks of the server at start.

use redis::Value;

use super::link::Link;
use super::reply::{Reply, bytes, parse, text};
use super::script::{Args, BEGIN, INSPECT};
use super::{RedisStore, StoreError};
use crate::observe;
use crate::store::layout;
use crate::store::reason::misconfigured;

/// The version of what is stored under a prefix. Versions 1 to 4 were in use before the first release.
pub(super) const FORMAT: i64 = 5;
/// The oldest server that has all the commands.
const OLDEST: (u32, u32) = (6, 2);

/// Checks the server and the version of its data. Writes the version if there is none.
pub(super) async fn check(store: &RedisStore) -> Result<(), StoreError> {
    let info = match store.run(&INSPECT, &Args::default()).await? {
        // The user may not call INFO.
        Value::Nil => String::new(),
        value => text(bytes(value)?)?,
    };
    let of = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    if of("redis_version").is_some_and(is_too_old) {
        return Err(misconfigured("the server is older than Redis 6.2"));
    }
    if of("role").is_some_and(|role| role != "master") {
        return Err(misconfigured(
            "the server is a replica: writes go to its primary",
        ));
    }
    let policy = match of("maxmemory_policy") {
        Some(policy) => Some(policy.to_owned()),
        None => configured_policy(store).await,
    };
    match policy {
        // No key of the store ever expires, so `volatile-*` does not evict any.
        Some(policy) if policy.starts_with("allkeys") => {
            return Err(misconfigured(
                "the server evicts keys when memory runs out: set maxmemory-policy to noeviction",
            ));
        }
        Some(_) => {}
        None => {
            observe::event!(
                WARN,
                "maxmemory-policy of the server is unknown: it has to be noeviction"
            );
        }
    }
    let format = store.run(&BEGIN, &Args::default().number(FORMAT)).await?;
    layout::check(parse(&bytes(format)?)?, FORMAT)
}

/// Reads the policy from the configuration, if the user may.
async fn configured_policy(store: &RedisStore) -> Option<String> {
    if matches!(store.inner.link, Link::Cluster(_)) {
        return None;
    }
    let mut cmd = redis::cmd("CONFIG");
    cmd.arg("GET").arg("maxmemory-policy");
    let answer = store.inner.link.send(&cmd, store.inner.limits).await.ok()?;
    let mut answer = Reply::of(answer).ok()?;
    answer.value().ok()?;
    answer.text().ok()
}

fn is_too_old(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) < OLDEST,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_before_6_2_are_too_old() {
        for (version, expected) in [
            ("5.0.14", true),
            ("6.0.20", true),
            ("6.2.0", false),
            ("7.0.15", false),
            ("10.0", false),
            ("unstable", false),
        ] {
            assert_eq!(is_too_old(version), expected, "{version}");
        }
    }
}
