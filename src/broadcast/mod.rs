//! A message to many: whom it is for, what became of it.

mod audience;
mod open;
mod report;
mod status;

pub use audience::{Audience, Principal, Tag, TagError};
pub(crate) use open::{BroadcastRequest, Opening, open};
pub use open::{SendError, SendErrorKind};
pub use report::{Failure, Queued, Report};
pub use status::{
    BroadcastId, BroadcastIdError, BroadcastState, BroadcastStatus, Counts, FinalOutcome,
};
