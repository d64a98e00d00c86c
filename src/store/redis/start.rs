//! Checks of the server at start.

use redis::Value;
use redis::aio::ConnectionLike as _;

use super::address::Address;
use super::link::Link;
use super::reply::{Reply, bytes, parse, text};
use super::script::{Args, BEGIN, INSPECT};
use super::{Inner, RedisStore, StoreError};
use crate::observe;
use crate::store::layout;
use crate::store::reason::misconfigured;

/// The version of what is stored under a prefix. Versions 1 to 6 were in use before the first release.
pub(super) const FORMAT: i64 = 7;
/// The oldest server that has all the commands.
const OLDEST: (u32, u32) = (6, 2);

/// Checks the server and the version of its data. Writes the version if there is none, or refuses that.
pub(super) async fn check(store: &RedisStore, existing_only: bool) -> Result<(), StoreError> {
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
    let begin = match existing_only {
        true => Args::default(),
        false => Args::default().number(FORMAT),
    };
    let format = store.run(&BEGIN, &begin).await?;
    if format == Value::Nil {
        return Err(misconfigured("there is no store under this prefix"));
    }
    layout::check(parse(&bytes(format)?)?, FORMAT)
}

/// Where the data are: server and database, or a cluster. The application's connection does not say to which server it
/// connects: it is the one to listen on, or what the server itself says.
pub(super) async fn place(store: &RedisStore) -> String {
    let Inner {
        link,
        listen,
        limits,
        ..
    } = &*store.inner;
    let listens = listen.as_ref().map(Address::server);
    let said = async |command: [&str; 2], servers: fn(&str) -> Vec<String>| {
        let mut cmd = redis::cmd(command[0]);
        cmd.arg(command[1]);
        let answer = link.send(&cmd, *limits).await.ok()?;
        let text = text(bytes(answer).ok()?).ok()?;
        let mut servers = servers(&text);
        servers.sort_unstable();
        Some(servers.join(",")).filter(|servers| !servers.is_empty())
    };
    let (server, database) = match link {
        Link::Own(own) => (Some(own.address.server()), own.address.settings.db()),
        Link::Manager(manager) => {
            let server = match listens {
                None => said(["CLIENT", "INFO"], own_address).await,
                listens => listens,
            };
            (server, manager.get_db())
        }
        Link::Cluster(_) => {
            let server = match listens {
                None => said(["CLUSTER", "NODES"], nodes).await,
                listens => listens,
            };
            (server, 0)
        }
    };
    let server = server.unwrap_or_else(|| "an unknown server".to_owned());
    format!("{server}/{database}")
}

/// The server's address in the answer to CLIENT INFO.
fn own_address(answer: &str) -> Vec<String> {
    let parts = answer.split_whitespace();
    let addresses = parts.filter_map(|part| part.strip_prefix("laddr="));
    addresses.map(str::to_owned).collect()
}

/// The addresses in the answer to CLUSTER NODES: one node in each line, `id host:port@bus-port,name …`.
fn nodes(answer: &str) -> Vec<String> {
    let addresses = answer.lines().filter_map(|line| {
        let address = line.split(' ').nth(1)?;
        address.split('@').next()
    });
    addresses.map(str::to_owned).collect()
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
    fn addresses_of_servers_are_found() {
        let info = "id=3 addr=127.0.0.1:6 laddr=[::1]:6379 fd=8 name= db=2 user=default\n";
        assert_eq!(own_address(info), ["[::1]:6379"]);
        let cluster = "07c3 10.0.0.2:30004@31004,name slave e7d1 0 1426 4 connected\n\
             67ed 10.0.0.1:30002@31002 myself,master - 0 0 2 connected 0-5460\n";
        assert_eq!(nodes(cluster), ["10.0.0.2:30004", "10.0.0.1:30002"]);
        assert!(own_address("").is_empty() && nodes("").is_empty());
    }

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
