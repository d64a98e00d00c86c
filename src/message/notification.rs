//! Typed content. (to be written)
/// Placeholder.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Notification {}
/// Placeholder.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Action {}
/// Placeholder.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Direction {}
