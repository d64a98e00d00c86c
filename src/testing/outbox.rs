//! What a worker reads in an entry of an outbox.

use crate::broadcast::{Broadcast, BroadcastId};
use crate::store::OutboxRefusal;

/// Reads an entry of an [outbox](crate::guide::in_your_own_transaction) as a worker does: for tests of an application that
/// writes entries in SQL. Returns the broadcast, and its id if `opts` names one.
///
/// Whether `sendAt` is too far ahead is for the worker to say, by its clock.
///
/// # Errors
///
/// Returns why a worker would refuse the entry.
///
/// # Examples
///
/// ```
/// use tower_web_push::testing::read_outbox_entry;
///
/// let read = read_outbox_entry(r#"{"user":"alice"}"#, r#"{"title":"Shipped"}"#, "{}");
/// assert!(read.is_ok());
/// let refused = read_outbox_entry("null", r#"{"title":"Shipped"}"#, "{}").unwrap_err();
/// assert_eq!(refused.code, "invalid_audience");
/// ```
pub fn read_outbox_entry(
    audience: &str,
    message: &str,
    opts: &str,
) -> Result<(Broadcast, Option<BroadcastId>), OutboxRefusal> {
    let read = Broadcast::from_outbox(audience, message, opts);
    read.map_err(|refusal| OutboxRefusal::new(refusal.code(), refusal.detail()))
}
