//! The rules behind the contracts, as functions on values, for stores of your own.
//!
//! Every back end of this crate applies them. They do no I/O and read no clock. A store that works in Rust calls them
//! between reading its rows and writing them, in one transaction. A store that implements them in SQL can be tested
//! against them.
//!
//! | rule | contract | decides |
//! |---|---|---|
//! | [`merge`] | S2 to S5, S14 | the row that an upsert stores |
//! | [`Merged::check`], [`evicted`] | S6, S7, S16 | whether the limits permit it, and which rows are deleted for it |
//! | [`apply`] | S11 to S13, S18 | the effect of a change on a row |
//! | [`is_member`], [`takes`] | S9, S10 | the rows of an audience, and those that a filter counts |
//! | [`BroadcastProgress`] | L3, L4, L7 to L10, L12, L20, L21 | the state, the counts and the pace of a broadcast |
//! | [`deal`] | L5 | the shares of origins in a claim |
//! | [`band`], [`shares`] | L3, L18 | the shares of urgent and other messages at one origin |
//!
//! Two more are methods of their values: [`Pause::on_top_of`](crate::store::Pause::on_top_of) (L11) and
//! [`Tally::plus`](crate::store::Tally::plus) (L15).
//!
//! # Examples
//!
//! The `apply` of a table that is a map:
//!
//! ```
//! use std::collections::BTreeMap;
//! use tower_web_push::clock::Timestamp;
//! use tower_web_push::store::rules::{self, Applied};
//! use tower_web_push::store::{Change, SubscriptionRecord};
//! use tower_web_push::subscription::EndpointKey;
//!
//! fn apply(rows: &mut BTreeMap<EndpointKey, SubscriptionRecord>, change: &Change, now: Timestamp) -> u64 {
//!     let mut changed = 0;
//!     rows.retain(|key, row| {
//!         if change.key().is_some_and(|of| of != key) {
//!             return true;
//!         }
//!         let applied = rules::apply(change, row, now);
//!         changed += u64::from(applied != Applied::Unchanged);
//!         applied != Applied::Deleted
//!     });
//!     changed
//! }
//! ```

mod aside;
mod audience;
mod bands;
mod change;
mod fair;
mod merge;
mod pace;
mod progress;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use aside::aside_sql;
pub(crate) use aside::{aside, due_at, is_aside};
pub use audience::{is_member, takes};
pub use bands::{BANDS, band, shares};
pub use change::{Applied, apply};
#[cfg(feature = "postgres")]
pub(crate) use fair::Rounds;
pub use fair::deal;
pub use merge::{Merged, evicted, merge};
pub use pace::LONGEST_PAGE;
pub use progress::{AfterClaim, BroadcastProgress};
