//! The builder of a store: prefix, certificates, timeouts and connection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::ConnectionManager;
use redis::cluster_async::ClusterConnection;

use super::address::Address;
use super::link::{Limits, Link, Own};
use super::{Inner, RedisStore, start};
use crate::store::StoreError;
use crate::store::reason::misconfigured;

/// The settings of a [`RedisStore`].
///
/// ```no_run
/// # async fn example() -> Result<(), tower_web_push::store::StoreError> {
/// use tower_web_push::store::RedisStore;
///
/// let store = RedisStore::builder()
///     .prefix("shop-push")
///     .connect("rediss://push:password@redis.example.com/2")
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "it connects with `connect`, `with_connection` or `with_cluster`"]
pub struct RedisBuilder {
    prefix: String,
    extra_roots: Vec<Vec<u8>>,
    limits: Limits,
    listen: Option<String>,
    existing_only: bool,
}

impl RedisBuilder {
    const PREFIX: &str = "web-push";
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
    const LONGEST_PREFIX: usize = 64;

    pub(super) fn new() -> Self {
        Self {
            prefix: Self::PREFIX.to_owned(),
            extra_roots: Vec::new(),
            limits: Limits {
                connect: Self::CONNECT_TIMEOUT,
                answer: Self::RESPONSE_TIMEOUT,
            },
            listen: None,
            existing_only: false,
        }
    }

    /// Sets the prefix of all keys, which appears in braces: 1 to 64 visible ASCII characters without braces. Each of
    /// several stores in one database has its own. Default: `web-push`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Trusts the certificates of a PEM file beside the Mozilla roots, for `rediss://`.
    pub fn extra_root_ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.extra_roots.push(pem.into());
        self
    }

    /// Sets the timeout of connecting, with TLS and login. Default: 5 s.
    pub const fn connect_timeout(mut self, limit: Duration) -> Self {
        self.limits.connect = limit;
        self
    }

    /// Sets the timeout of an answer. Default: 5 s. No command takes longer than the sum of both timeouts.
    pub const fn response_timeout(mut self, limit: Duration) -> Self {
        self.limits.answer = limit;
        self
    }

    /// Listens for [hints](crate::store::DeliveryLedger::changes) on a connection to this URL. Needed if the store uses the
    /// application's connection or a cluster. Any node of a cluster will do.
    pub fn listen(mut self, url: impl Into<String>) -> Self {
        self.listen = Some(url.into());
        self
    }

    /// Refuses a prefix under which nothing is stored, instead of beginning a store there: for what reads only, where a wrong
    /// prefix or number of a database is more likely than a new store.
    pub const fn existing_only(mut self) -> Self {
        self.existing_only = true;
        self
    }

    /// Connects to a server: `redis://[[user]:password@]host[:port][/database]`, or `rediss://` with TLS; `valkey://` and
    /// `valkeys://` mean the same. User and password may be percent-encoded. The only parameter is `?protocol=2` or `3`;
    /// others, and a fragment, are refused.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::store::StoreErrorKind::Misconfigured) if the URL or the prefix is invalid, the certificate
    /// or the password is refused, or the server is older than 6.2, is a replica, evicts keys
    /// (`maxmemory-policy allkeys-*`) or holds data of a newer version of this crate or from before its first release, or, after
    /// [`existing_only`](Self::existing_only), if there is no store under the prefix.
    /// [`Unavailable`](crate::store::StoreErrorKind::Unavailable) if it is out of reach or still loading.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have written the version of its format.
    pub async fn connect(self, url: &str) -> Result<RedisStore, StoreError> {
        let address = Address::parse(url, &self.extra_roots)?;
        let link = Link::Own(Box::new(Own::new(address.clone())));
        self.over(link, Some(address)).await
    }

    /// Uses the application's own connection.
    ///
    /// It should have response and connection timeouts of its own, shorter than those here. The store replaces a
    /// connection of its own when it does not answer or its server has become a replica; this one is yours to renew.
    /// Hints need [`listen`](Self::listen). With TLS the driver uses the process' rustls provider, and panics if none is
    /// installed and several are compiled in: install one before making the connection.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn with_connection(
        self,
        connection: ConnectionManager,
    ) -> Result<RedisStore, StoreError> {
        self.over(Link::Manager(connection), None).await
    }

    /// Uses a connection to a cluster. Hints need [`listen`](Self::listen). For TLS see
    /// [`with_connection`](Self::with_connection).
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn with_cluster(
        self,
        connection: ClusterConnection,
    ) -> Result<RedisStore, StoreError> {
        self.over(Link::Cluster(connection), None).await
    }

    async fn over(self, link: Link, address: Option<Address>) -> Result<RedisStore, StoreError> {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'{' && byte != b'}';
        if self.prefix.is_empty()
            || self.prefix.len() > Self::LONGEST_PREFIX
            || !self.prefix.bytes().all(is_plain)
        {
            return Err(misconfigured(
                "a prefix is 1 to 64 visible ASCII characters without braces",
            ));
        }
        let listen = match &self.listen {
            Some(url) => Some(Address::parse(url, &self.extra_roots)?),
            None => address,
        };
        let namespace = format!("{{{}}}", self.prefix);
        let inner = Inner::of(link, listen, self.limits, namespace);
        let store = RedisStore::new(Arc::new(inner));
        start::check(&store, self.existing_only).await?;
        let place = start::place(&store).await;
        store.inner.place.get_or_init(|| place);
        Ok(store)
    }
}

impl fmt::Debug for RedisBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBuilder")
            .field("prefix", &self.prefix)
            .field("extra_roots", &self.extra_roots.len())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeouts_are_as_documented() {
        let limits = RedisBuilder::new().limits;
        let five = Duration::from_secs(5);
        assert_eq!((limits.connect, limits.answer), (five, five));
    }
}
