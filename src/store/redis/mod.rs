//! A store in Redis or Valkey, shared by any number of machines.

mod address;
mod broadcasts;
mod builder;
#[cfg(test)]
mod cancelling;
mod claims;
mod content;
mod erase;
mod error;
mod hints;
mod ledger;
mod link;
mod origins;
mod pack;
mod pages;
mod reply;
mod rows;
mod schedules;
mod script;
mod start;
mod subscriptions;
mod vapid_keys;

pub use self::builder::RedisBuilder;
pub use ::redis as redis_rs;

use std::fmt;
use std::sync::Arc;

use redis::{ErrorKind, ServerErrorKind, Value};

use self::address::Address;
use self::link::{Limits, Link, LinkError};
use self::script::{Args, Operation};
use super::StoreError;

/// Keeps everything in Redis (6.2 and newer) or Valkey, shared by any number of handles, processes and machines.
///
/// Each change is one Lua script, so nobody sees half of it; scripts are short however many rows there are, and long
/// work is many of them. All keys begin with the hash tag `{prefix}`, so that the store runs on a cluster, where it
/// lives on one node, and beside other data. While a cluster moves their slot to another node, what needs a script
/// answers [`Unavailable`](super::StoreErrorKind::Unavailable). A user for it needs
/// `~{web-push}* &{web-push}* +@all -@dangerous +info`: a script that may not do its second step does not undo
/// its first.
///
/// The handle is cheap to clone. It connects anew by itself: what is called while the server is away answers
/// [`Unavailable`](super::StoreErrorKind::Unavailable), within the sum of both
/// [timeouts](RedisBuilder::response_timeout). No command is sent twice.
///
/// # Durability
///
/// What a call answered as stored survives what the server's settings let it survive:
///
/// | setting | a crash of the server | a loss of power |
/// |---|---|---|
/// | `appendonly yes`, `appendfsync always` | keeps everything | keeps everything |
/// | `appendonly yes`, `appendfsync everysec` (its default) | may lose two seconds where the disk is slow | may lose the last two seconds |
/// | snapshots (RDB) only | loses what came after the last one | the same |
/// | neither | loses everything | loses everything |
///
/// Replication is asynchronous: a failover may lose acknowledged writes, and `WAIT` only makes that rarer. What was
/// lost can be sent twice (its end was lost) or not at all (its beginning was), and a VAPID key that was lost takes its
/// subscribers along: keep the key pair elsewhere too. Take `always` where nothing may be lost, and `noeviction`, which
/// a start insists on as far as it matters (`volatile-*` does no harm, since no key here ever expires).
///
/// # A full server
///
/// Above `maxmemory` what adds something answers [`Full`](super::StoreErrorKind::Full) and changes nothing; starting,
/// claiming, settling, pausing and cancelling go on, which makes room. A waiting row takes about 160 octets, a claimed
/// one about 170 more, and a subscription of a principal, with an endpoint of 190 characters, about 920 with all its
/// indices (Redis 7.0 on 64 bits, of 100,000 rows and 20,000 subscriptions).
///
/// # Answers that were lost
///
/// A call whose answer was lost may have been done. Called again, [`open`](super::DeliveryLedger::open) answers
/// [`Repeat`](super::Opened::Repeat), [`enqueue_page`](super::DeliveryLedger::enqueue_page)
/// [`Stale`](super::PageWrite::Stale), [`settle`](super::DeliveryLedger::settle) [`Lost`](super::Settled::Lost) and
/// [`fire`](super::ScheduleStore::fire) [`Stale`](super::Fired::Stale), all of which mean that it is done; rows that a lost
/// claim took come back when their lease ends. An upsert is an update the second time, and tallies and
/// [`Failed`](super::Change::Failed) count twice. Only what is called again is done again: nothing here repeats a
/// command by itself. A cluster connection of yours repeats what it was told to.
///
/// # Large calls
///
/// Up to 1,000 settlements or changes and 256 firings are one script; more are several, in order. Purging, expiring and
/// pruning are scripts of at most a few hundred rows each. So are claims and cancellations at any number of origins: a claim
/// looks at as many origins as it wants rows, 500 in a script of some 10 ms, and never at those that are paused or wait for
/// later; a cancellation takes effect with its first script and goes on with 250 origins in each, however many rows they
/// have. Erasing a user is a script for each 1,000 pairs of a subscription and a broadcast that is not over, and then a
/// cancellation of each broadcast to this user alone; what an erasure that was interrupted has left, the next one ends.
/// Where the future of a cancellation is dropped, or its process ends, whoever looks for work next does the rest, and
/// nothing of it is sent. Listing pauses and tallies, and pruning, read all of them with one command.
///
/// # Cancel safety
///
/// A future that is dropped has done all of its change or none of it; of a large call, whole scripts. A cancellation is
/// done as soon as it is begun, as said above.
///
/// # Security
///
/// The server sees endpoints, message payloads, and VAPID keys as they were sealed, and so does who reads its files
/// and its network: use `rediss://` beyond the machine. Passwords are in no error and no debug output.
#[derive(Clone)]
pub struct RedisStore {
    inner: Arc<Inner>,
}

struct Inner {
    link: Link,
    /// Where to listen for hints.
    listen: Option<Address>,
    limits: Limits,
    /// `{prefix}`: what all keys begin with.
    namespace: String,
}

impl RedisStore {
    /// Connects to a server: `redis://[[user]:password@]host[:port][/database]`, or `rediss://` with TLS.
    ///
    /// # Errors
    ///
    /// As [`RedisBuilder::connect`].
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder().connect(url).await
    }

    /// For another prefix, root certificate or limits, a connection of the application's own, or a cluster.
    pub fn builder() -> RedisBuilder {
        RedisBuilder::new()
    }

    const fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Runs an operation of a script.
    async fn run(&self, operation: &Operation, args: &Args) -> Result<Value, StoreError> {
        let Inner {
            link,
            limits,
            namespace,
            ..
        } = &*self.inner;
        match link
            .send(&operation.by_hash(namespace, args), *limits)
            .await
        {
            // It was not run: a server that was started since has forgotten it.
            Err(LinkError::Redis(error))
                if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) =>
            {
                let whole = operation.whole(namespace, args);
                Ok(link.send(&whole, *limits).await?)
            }
            answer => Ok(answer?),
        }
    }

    /// Reads with a single command.
    async fn read(&self, command: &str, key: &str, args: &[&str]) -> Result<Value, StoreError> {
        let inner = &*self.inner;
        let mut cmd = redis::cmd(command);
        cmd.arg(format!("{}:{key}", inner.namespace));
        for arg in args {
            cmd.arg(*arg);
        }
        Ok(inner.link.send(&cmd, inner.limits).await?)
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("server", &self.inner.link)
            .field("namespace", &self.inner.namespace)
            .finish_non_exhaustive()
    }
}
