//! Reading several subscriptions, of which the store may be unable to read some.

use crate::store::{
    StoreError, StoreErrorKind, SubscriptionRecord, SubscriptionRef, SubscriptionStore,
};

/// A subscription, as far as it could be read.
#[derive(Debug)]
pub(super) enum Record {
    Found(Box<SubscriptionRecord>),
    /// There is none: it was deleted.
    Missing,
    /// The store cannot read it.
    Unreadable,
}

/// Reads subscriptions, in order. One that the store cannot read does not keep the others from being
/// read.
///
/// # Errors
///
/// Any error but that a row cannot be read.
pub(super) async fn records(
    subscriptions: &dyn SubscriptionStore,
    which: &[SubscriptionRef],
) -> Result<Vec<Record>, StoreError> {
    let mut records = Vec::with_capacity(which.len());
    // The parts to read, the next one last.
    let mut parts = vec![which];
    while let Some(part) = parts.pop() {
        match subscriptions.get(part).await {
            Ok(read) => records.extend(read.into_iter().map(|record| match record {
                Some(record) => Record::Found(Box::new(record)),
                None => Record::Missing,
            })),
            Err(error) if error.kind() != StoreErrorKind::Corrupt => return Err(error),
            Err(_) if part.len() <= 1 => records.push(Record::Unreadable),
            Err(_) => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
        }
    }
    Ok(records)
}
