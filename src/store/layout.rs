//! The version of the tables or keys that a back end keeps.

use super::StoreError;
use super::reason::misconfigured;

/// Returns an error if the version found is not `known`.
///
/// Versions before the first release are not migrated. From the first release on, a back end that changes its tables
/// raises its version and migrates the previous one.
pub(super) fn check(found: i64, known: i64) -> Result<(), StoreError> {
    match found.cmp(&known) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(misconfigured(format!(
            "a newer version of this crate has written here: the layout is {found}, this version knows {known}"
        ))),
        std::cmp::Ordering::Less => Err(misconfigured(format!(
            "the layout is {found}, from before the first release of this crate, which reads {known}: start with an \
             empty store"
        ))),
    }
}
