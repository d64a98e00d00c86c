//! A callback that composes daily notifications when they are due.

use std::fmt;

use async_trait::async_trait;

use super::Schedule;
use crate::error::BoxError;
use crate::message::Message;

/// A callback that composes a daily notification when it is due, for example if there is something unread.
///
/// # Examples
///
/// ```
/// use async_trait::async_trait;
/// use tower_web_push::error::BoxError;
/// use tower_web_push::schedule::{Compose, Schedule};
/// use tower_web_push::{Message, Notification};
///
/// #[derive(Debug)]
/// struct Digest(/* the application's database */);
///
/// #[async_trait]
/// impl Compose for Digest {
///     async fn compose(&self, _: &Schedule, _: Message) -> Result<Option<Message>, BoxError> {
///         let unread = 3; // asked of the database
///         let digest = Notification::new(format!("{unread} unread messages"));
///         Ok((unread > 0).then(|| digest.into()))
///     }
/// }
/// ```
#[async_trait]
pub trait Compose: fmt::Debug + Send + Sync + 'static {
    /// Returns the message of an occurrence, or `None` to skip it.
    ///
    /// `message` is the message without this callback. Its TTL ends with the next occurrence; that of the returned
    /// message is cut to that, too. It may be called for an occurrence that another replica has sent by then, and for
    /// up to 64 occurrences at once.
    ///
    /// # Errors
    ///
    /// If it returns an error, takes longer than 10 s or panics, the occurrence is skipped, logged and counted.
    async fn compose(
        &self,
        schedule: &Schedule,
        message: Message,
    ) -> Result<Option<Message>, BoxError>;
}
