//! Where subscriptions, keys, deliveries and schedules are kept: the traits and their contracts.
//!
//! Four traits, because applications bring their own table for the first one only:
//!
//! | trait | keeps | who implements it |
//! |---|---|---|
//! | [`SubscriptionStore`] | subscriptions | applications with a table of their own, and every back end |
//! | [`VapidKeyStore`] | VAPID keys, sealed | every back end |
//! | [`DeliveryLedger`] | broadcasts and what is left to deliver: the queue | every back end |
//! | [`ScheduleStore`] | daily notifications; a ledger too, since firing is one transaction | every back end |
//!
//! Four back ends are all four: [`MemoryStore`] and, with the features of their names, `SqliteStore`,
//! `PostgresStore` and `RedisStore`.
//!
//! Each trait's documentation numbers its contract sentences. The conformance suite (`store::conformance`, with
//! the feature `testing`) has a case for each number, is run by every back end here and is offered to third
//! parties.
//!
//! Common to all of them:
//!
//! - `now` is a parameter. A store never reads a clock of its own to decide anything.
//! - Uniqueness and claiming are one statement or one transaction, never a read and then a write.
//! - A call that returns an error has changed nothing.
//! - A future that is dropped has done all of its change or none of it.

mod changes;
#[cfg(feature = "testing")]
pub mod conformance;
mod error;
mod fair;
mod forward;
mod ledger;
mod ledger_values;
mod live_counts;
mod memory;
mod merge;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
mod message_parts;
#[cfg(feature = "postgres")]
mod postgres;
mod progress;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
mod reason;
#[cfg(feature = "redis")]
mod redis;
mod schedules;
#[cfg(test)]
#[cfg(any(feature = "postgres", feature = "redis"))]
#[path = "../../tests/support/servers.rs"]
mod servers;
#[cfg(feature = "sqlite")]
mod sqlite;
mod subscription_values;
mod subscriptions;
mod vapid_keys;

pub use crate::push_service::{Pause, PauseReason, Tally};
pub use changes::Changes;
pub use error::{StoreError, StoreErrorKind};
pub use ledger::DeliveryLedger;
pub use ledger_values::{
    ClaimRequest, ClaimToken, Claimed, ClaimedMessage, Claims, Cursor, Erased, Expansion,
    Idempotency, LedgerStats, NewBroadcast, NewDelivery, Opened, PageWrite, Settled, Settlement,
};
pub use live_counts::LiveCounts;
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresBuilder, PostgresStore, deadpool_postgres};
#[cfg(feature = "redis")]
pub use redis::{RedisBuilder, RedisStore, redis_rs};
pub use schedules::{Fired, Firing, ScheduleStore};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;
pub use subscription_values::{
    Change, CountFilter, Liveness, NewSubscription, RetireReason, Retired, SubscriptionLimits,
    SubscriptionRecord, SubscriptionRef, Upserted,
};
pub use subscriptions::SubscriptionStore;
pub use vapid_keys::{StoredVapidKey, VapidKeyStore};
