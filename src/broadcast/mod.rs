//! A message to many: its audience, its state and its counts.

mod audience;
mod status;

pub use audience::{Audience, Principal, Tag, TagError};
pub use status::{
    BroadcastId, BroadcastIdError, BroadcastState, BroadcastStatus, Counts, FinalOutcome,
};
