//! The storage traits with their contracts, and the back ends.
//!
//! There are four traits, because most applications have a table of their own for the first one only:
//!
//! | trait | keeps | who implements it |
//! |---|---|---|
//! | [`SubscriptionStore`] | subscriptions | applications with a table of their own, and every back end |
//! | [`VapidKeyStore`] | VAPID keys, sealed | every back end |
//! | [`DeliveryLedger`] | broadcasts and what is left to deliver: the queue | every back end |
//! | [`ScheduleStore`] | daily notifications; a ledger too, since firing is one transaction | every back end |
//!
//! A fifth, [`PortableStore`], lets subscriptions be [copied](crate::copy) to another store with all that is known of them.
//!
//! Each back end implements all of them: [`MemoryStore`] and, with the features of their names, `SqliteStore`,
//! `PostgresStore` and `RedisStore`.
//!
//! # Implementing them
//!
//! No trait is sealed. Each trait's documentation numbers its contract sentences; the conformance suite
//! (`store::conformance`, with the feature `testing`) has a case for each number and runs against any implementation.
//! [`rules`] has what back ends share, as functions on values. Before 1.0 a minor version may add a required method
//! to any of the traits, and a field or a variant to any of the values below. The compiler and the changelog name it.
//!
//! The values that stores read and write are exhaustive: in a store that takes them apart without `..` and `_`, the
//! compiler reports each new field. They are read and built like this:
//!
//! | a store reads | a store builds |
//! |---|---|
//! | [`NewSubscription`], [`SubscriptionLimits`], [`SubscriptionRef`], [`Audience`], [`CountFilter`], [`Liveness`], [`Change`], [`Failure`], [`SubscriptionFilter`] | [`SubscriptionRecord`], [`Retired`], [`LastFailure`], [`Upserted`], [`LiveCounts`], [`SubscriptionPage`] |
//! | [`NewBroadcast`], [`Idempotency`], [`Page`], [`NewDelivery`], [`Cursor`], [`ClaimRequest`], [`Settlement`], [`FinalOutcome`], [`FailureCause`], [`BroadcastFilter`], [`BroadcastCursor`] | [`Opened`], [`Expansion`], [`PageWrite`], [`Claims`], [`Settled`], [`Pruned`], [`LedgerStats`], [`BroadcastPage`], [`FailureSample`]; [`BroadcastStatus`] and its [`Counts`], by [`BroadcastProgress`](rules::BroadcastProgress) |
//! | [`OutboxSettlement`], [`OutboxRefusal`] | [`OutboxEntry`], [`OutboxSettled`], [`RefusedEntry`], [`OutboxStats`] |
//! | [`ClaimToken`], [`Pause`], [`Tally`], [`StoredVapidKey`], [`Schedule`], [`Plan`], [`Firing`], [`DayCount`] | the same; [`Fired`] |
//!
//! [`RetireReason`], [`PauseReason`], [`PushService`] and [`NotifyType`] are stored by their names. A store does not
//! match on them.
//!
//! # Common to all of them
//!
//! - `now` is a parameter. A store never decides by a clock of its own.
//! - Uniqueness and claiming are one statement or one transaction, never a read and then a write.
//! - A call that returns an error has changed nothing.
//! - An error of the kind [`Unavailable`](StoreErrorKind::Unavailable) is about the store: a worker that settles or changes
//!   rows makes the same call again, with all of them. Any other may be about one row, and the worker looks for it by calls with
//!   fewer rows.
//! - A dropped future has done all of its change or none of it.
//! - The work of one transaction is bounded and does not grow with the tables: long work is done in steps of at most
//!   [`STEP`] rows, and other writers write between them. The last two rules hold for each step. Each contract says which
//!   calls are one step, and how their caller knows that there are more.

use std::time::Duration;

#[cfg(doc)]
use crate::broadcast::{Audience, BroadcastStatus, Counts, FinalOutcome};
#[cfg(doc)]
use crate::push_service::PushService;
#[cfg(doc)]
use crate::schedule::{NotifyType, Plan, Schedule};

/// The longest time from now to the moment at which a row is due or its lease ends: one day, the longest wait that is
/// obeyed, and one hour for the clocks of other replicas. A later one was written by a wrong clock (L12).
pub const LONGEST_WAIT: Duration = Duration::from_secs(25 * 3600);

/// The maximum number of rows that a store deletes or ends in one transaction of a purge, a cancellation or a pruning,
/// so that other writers do not wait for long: about 20 ms on SQLite.
pub const STEP: usize = 1_000;

mod changes;
#[cfg(feature = "testing")]
pub mod conformance;
mod days;
mod error;
mod failure;
mod failure_sample;
mod forward;
mod groups;
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) mod heartbeat;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
mod layout;
mod ledger;
#[cfg(test)]
mod ledger_protocol;
mod ledger_values;
mod listing;
mod live_counts;
#[cfg(any(feature = "metrics", feature = "tracing"))]
mod measured;
mod memory;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
mod message_parts;
mod oldest_due;
mod outbox;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod outcome_columns;
mod portable;
#[cfg(feature = "postgres")]
mod postgres;
mod readable;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
mod reason;
#[cfg(feature = "redis")]
mod redis;
pub mod rules;
mod schedules;
#[cfg(test)]
#[cfg(any(feature = "postgres", feature = "redis"))]
#[path = "../../tests/support/servers.rs"]
mod servers;
#[cfg(any(feature = "metrics", feature = "tracing"))]
mod slow_calls;
#[cfg(feature = "sqlite")]
mod sqlite;
mod subscription_values;
mod subscriptions;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod together;
mod vapid_keys;

pub use crate::push_service::{Pause, PauseReason, Tally};
pub use changes::Changes;
pub use days::{DAYS, DayCount};
pub use error::{StoreError, StoreErrorKind};
pub use failure::{Failure, LastFailure, ReasonWord};
pub use failure_sample::{FailureCause, FailureSample, SAMPLES};
pub use ledger::DeliveryLedger;
pub use ledger_values::{
    ClaimRequest, ClaimToken, Claimed, ClaimedMessage, Claims, Cursor, Erased, Expansion,
    Idempotency, LedgerStats, NewBroadcast, NewDelivery, Opened, Page, PageWrite, Pruned, Settled,
    Settlement,
};
pub use listing::{
    BroadcastCursor, BroadcastFilter, BroadcastPage, SubscriptionFilter, SubscriptionPage,
};
pub use live_counts::LiveCounts;
#[cfg(any(feature = "metrics", feature = "tracing"))]
pub(crate) use measured::Measured;
pub use memory::MemoryStore;
pub use oldest_due::OldestDue;
pub use outbox::{
    OutboxEntry, OutboxRefusal, OutboxSettled, OutboxSettlement, OutboxStats, RefusedEntry,
};
pub use portable::{PortableStore, Unreachable};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresBuilder, PostgresStore, deadpool_postgres};
#[cfg(feature = "redis")]
pub use redis::{RedisBuilder, RedisStore, redis_rs};
pub use schedules::{Fired, Firing, ScheduleStore};
#[cfg(any(feature = "metrics", feature = "tracing"))]
pub(crate) use slow_calls::SlowCalls;
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteStore, rusqlite};
pub use subscription_values::{
    Assignment, Change, CountFilter, Liveness, NewSubscription, RetireReason, Retired,
    SubscriptionLimits, SubscriptionRecord, SubscriptionRef, Upserted,
};
pub use subscriptions::SubscriptionStore;
pub use vapid_keys::{StoredVapidKey, VapidKeyStore};
