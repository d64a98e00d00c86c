//! Rows that cannot be read, among others that can.

use super::{StoreError, StoreErrorKind};

/// Returns the values that could be read. One that is damaged does not keep the others from being returned.
///
/// # Errors
///
/// [`Corrupt`](StoreErrorKind::Corrupt) if there are values and none could be read, and any error of another kind.
pub(super) fn readable<T>(
    values: impl IntoIterator<Item = Result<T, StoreError>>,
) -> Result<Vec<T>, StoreError> {
    let (mut read, mut damaged) = (Vec::new(), None);
    for value in values {
        match value {
            Ok(value) => read.push(value),
            Err(error) if error.kind() == StoreErrorKind::Corrupt => {
                damaged.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    match damaged {
        Some(error) if read.is_empty() => Err(error),
        _ => Ok(read),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_others_are_returned_and_no_other_error_is_hidden() {
        let corrupt = || Err(StoreErrorKind::Corrupt.into());
        let unavailable = || Err(StoreErrorKind::Unavailable.into());
        let kind = |result: Result<Vec<u8>, StoreError>| result.map_err(|error| error.kind());
        assert_eq!(kind(readable([])), Ok(vec![]));
        assert_eq!(kind(readable([Ok(1), corrupt(), Ok(2)])), Ok(vec![1, 2]));
        let none = kind(readable([corrupt(), corrupt()]));
        assert_eq!(none, Err(StoreErrorKind::Corrupt));
        let failed = kind(readable([Ok(1), unavailable()]));
        assert_eq!(failed, Err(StoreErrorKind::Unavailable));
    }
}
