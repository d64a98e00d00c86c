//! What a daily notification says, decided when it is due.

use std::fmt;

use async_trait::async_trait;

use super::Schedule;
use crate::error::BoxError;
use crate::message::Message;

/// Builds the message of a daily notification at the moment it is due: to look first whether there is anything to
/// say.
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
    /// The message of an occurrence; `None` where there is nothing to say this time.
    ///
    /// `message` is what would be sent without this callback. Its TTL ends with the next occurrence; that of the
    /// answer is cut to that, too. It may be called for an occurrence that another replica has sent by then, and for up
    /// to 64 occurrences at once.
    ///
    /// # Errors
    ///
    /// Whatever kept it from finding out: the occurrence is skipped, logged and counted. So is one that takes longer
    /// than 10 seconds, and one that panics.
    async fn compose(
        &self,
        schedule: &Schedule,
        message: Message,
    ) -> Result<Option<Message>, BoxError>;
}
