//! A message to many: whom it is for, what became of it.

mod audience;
mod status;

pub use audience::{Audience, Principal, Tag, TagError};
pub use status::{
    BroadcastId, BroadcastIdError, BroadcastState, BroadcastStatus, Counts, FinalOutcome,
};
