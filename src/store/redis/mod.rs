//! A store in Redis or Valkey, shared by any number of processes.

mod address;
#[cfg(test)]
mod between_tests;
mod broadcasts;
mod builder;
#[cfg(test)]
mod cancelling_tests;
mod claims;
mod content;
mod erase;
mod error;
mod hints;
mod ledger;
mod link;
mod listing;
mod needed;
mod origins;
mod pack;
mod pages;
mod portable;
mod reply;
mod rows;
mod schedules;
mod script;
#[cfg(test)]
mod share_tests;
mod sharing;
mod start;
mod subscriptions;
mod vapid_keys;
mod workers;

pub use self::builder::RedisBuilder;
pub use ::redis as redis_rs;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};

use redis::{ErrorKind, ServerErrorKind, ToRedisArgs, Value};
use tokio::sync::watch;

use self::address::Address;
use self::link::{Limits, Link, LinkError};
use self::script::{Args, Operation};
use self::sharing::Waiting;
use super::heartbeat::Heartbeat;
use super::readable::KnownDamage;
use super::{StoreError, StoreErrorKind};

/// Keeps everything in Redis (6.2 and newer) or Valkey, shared by any number of handles, processes and machines.
///
/// Each change is one Lua script and therefore atomic. Scripts are short however many rows there are: long work is split
/// into many. All keys begin with the hash tag `{prefix}`, so that the store can share a database with other data and
/// runs on a cluster, where it uses one node. While a cluster moves their slot to another node, operations that need a
/// script return [`Unavailable`](super::StoreErrorKind::Unavailable). A user for it needs
/// `~{web-push}* &{web-push}* +@all -@dangerous +info`: a script without permission for its second command does not undo
/// the first.
///
/// The handle is cheap to clone and reconnects by itself. While the server is away, calls return
/// [`Unavailable`](super::StoreErrorKind::Unavailable) within the sum of both
/// [timeouts](RedisBuilder::response_timeout). No change that may have been made is sent again.
///
/// # Durability
///
/// A change that a call returned as stored is as durable as the server's settings make it:
///
/// | setting | a crash of the server | a loss of power |
/// |---|---|---|
/// | `appendonly yes`, `appendfsync always` | keeps everything | keeps everything |
/// | `appendonly yes`, `appendfsync everysec` (its default) | may lose two seconds where the disk is slow | may lose the last two seconds |
/// | snapshots (RDB) only | loses what came after the last one | the same |
/// | neither | loses everything | loses everything |
///
/// Replication is asynchronous: a failover may lose acknowledged writes, and `WAIT` only makes that rarer. Lost writes
/// cause messages to be sent twice or not at all, and a lost VAPID key makes its subscriptions useless: keep the key pair
/// elsewhere too. Use `always` if nothing may be lost, and `noeviction`, which is checked at start (`volatile-*` is
/// harmless, since no key here ever expires).
///
/// # A full server
///
/// Above `maxmemory` operations that add data return [`Full`](super::StoreErrorKind::Full) and change nothing. Starting,
/// claiming, settling, pausing and cancelling still work and free memory. A waiting row takes about 160 octets, a claimed
/// one about 340 more, and a subscription of a principal, with an endpoint of 190 characters, about 920 with all its
/// indexes (Redis 7.0 on 64 bits, measured with 100,000 rows and 20,000 subscriptions).
///
/// # A worker that ends
///
/// A store that claims writes a sign of life every 250 ms, from a thread of its own, which ends with the store: the other
/// workers make the rows of one that has died due within 5 seconds, long before its leases end (L19). A server that was
/// restarted, stood still or was flushed is the end of no worker. A worker that was silent for 1.5 seconds and lives begins no
/// request, see [`epoch`](super::DeliveryLedger::epoch). It has one more connection for it, made by the first claim. Signs of
/// life of a store on the application's connection or on a cluster go over that, which the application's runtime drives.
/// If none can be written, leases end by their time, and the log has one warning.
///
/// # Lost answers
///
/// A call whose answer was lost may have succeeded. Called again, [`open`](super::DeliveryLedger::open) answers
/// [`Repeat`](super::Opened::Repeat), [`enqueue_page`](super::DeliveryLedger::enqueue_page)
/// [`Stale`](super::PageWrite::Stale), [`settle`](super::DeliveryLedger::settle) [`Lost`](super::Settled::Lost) and
/// [`fire`](super::ScheduleStore::fire) [`Stale`](super::Fired::Stale), all of which mean that it is done. Rows of a lost
/// claim become claimable when their lease ends. An upsert is an update the second time, and tallies and
/// [`Failed`](super::Change::Failed) count twice. The store itself never repeats a command. A cluster connection of
/// yours repeats commands as configured.
///
/// # Large calls
///
/// Broadcasts that are accepted at the same time share a script, up to 64 of them with up to 1,000 recipients, and so do reads of
/// users' subscriptions.
///
/// Up to 1,000 settlements or changes and 256 firings are one script; more are several, in order. Purging, expiring and
/// pruning are scripts of at most a few hundred rows each. A claim reads as many origins as it wants rows, 500 in a script
/// of about 10 ms, and never those that are paused or not due. A cancellation takes effect with its first script. Each
/// script ends the rows of 250 origins, however many those are; repeated calls and claims do the rest. Listing pauses and
/// tallies reads all of them with one command.
///
/// # Cancel safety
///
/// A dropped future has made all of its change or none of it; of a large call, whole scripts. One that shares a script may make its
/// change afterwards. A cancellation takes effect with its first script, see above.
///
/// # Security
///
/// The server, its files and its network traffic contain endpoints, message payloads and sealed VAPID keys: use
/// `rediss://` beyond the machine. Passwords are in no error and no debug output.
#[derive(Clone)]
pub struct RedisStore {
    inner: Arc<Inner>,
}

struct Inner {
    link: Link,
    /// The address to listen on for hints.
    listen: Option<Address>,
    /// Hints within this process.
    own: watch::Sender<()>,
    limits: Limits,
    /// `{prefix}`, with which all keys begin.
    namespace: String,
    /// The server or the nodes, and the database, for the description.
    place: OnceLock<String>,
    /// Calls that share a script.
    waiting: Waiting,
    heartbeat: Heartbeat,
    /// The place of the walk that prunes origins: the number of the set, and the cursor in it.
    pruned_origins: Mutex<(usize, u64)>,
    /// The number of broadcasts whose rows were looked at for moments that are too late.
    pulled: AtomicU64,
    /// The number of lists of broadcasts to expand, for their rotation.
    listings: AtomicU64,
    /// The numbers of days that cannot be read.
    damaged_days: KnownDamage,
}

impl Inner {
    fn of(link: Link, listen: Option<Address>, limits: Limits, namespace: String) -> Self {
        Self {
            link,
            listen,
            own: watch::Sender::default(),
            limits,
            namespace,
            place: OnceLock::new(),
            waiting: Waiting::default(),
            heartbeat: Heartbeat::new(),
            pruned_origins: Mutex::default(),
            pulled: AtomicU64::default(),
            listings: AtomicU64::default(),
            damaged_days: KnownDamage::default(),
        }
    }

    /// Runs an operation of a script.
    async fn run(&self, operation: &Operation, args: &Args) -> Result<Value, StoreError> {
        let Self {
            link,
            limits,
            namespace,
            ..
        } = self;
        match link
            .send(&operation.by_hash(namespace, args), *limits)
            .await
        {
            // The script was not run: a restarted server does not know it.
            Err(LinkError::Redis(error))
                if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) =>
            {
                let whole = operation.whole(namespace, args);
                Ok(link.send(&whole, *limits).await?)
            }
            answer => Ok(answer?),
        }
    }
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

    /// Returns a builder for another prefix, root certificate or timeouts, the application's own connection, or a cluster.
    pub fn builder() -> RedisBuilder {
        RedisBuilder::new()
    }

    const fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Runs an operation of a script.
    async fn run(&self, operation: &Operation, args: &Args) -> Result<Value, StoreError> {
        self.inner.run(operation, args).await
    }

    /// Reads with a single command.
    async fn read(
        &self,
        command: &str,
        key: &str,
        args: impl ToRedisArgs,
    ) -> Result<Value, StoreError> {
        let inner = &*self.inner;
        let mut cmd = redis::cmd(command);
        cmd.arg(format!("{}:{key}", inner.namespace));
        cmd.arg(args);
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
