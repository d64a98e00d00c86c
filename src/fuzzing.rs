//! What is private and has a fuzz target. Only with `--cfg fuzzing`, which `cargo fuzz` sets: no user sees it.

use crate::broadcast::{Broadcast, BroadcastId};
use crate::clock::Timestamp;
use crate::store::OutboxRefusal;
use crate::vapid::{KeyEncryptionKeys, SealedVapidKey, VapidError, VapidKey, VapidPublicKey};

/// Parses a moment (RFC 3339).
#[must_use]
pub fn rfc3339(text: &str) -> Option<Timestamp> {
    crate::moment::rfc3339(text)
}

/// Writes a moment.
#[must_use]
pub fn iso8601(at: Timestamp) -> String {
    crate::moment::iso8601(at)
}

/// Seals a VAPID key for a store.
///
/// # Errors
///
/// As [`KeyEncryptionKeys::seal`].
pub fn seal(keys: &KeyEncryptionKeys, key: &VapidKey) -> Result<SealedVapidKey, VapidError> {
    keys.seal(key)
}

/// Opens the stored form of a VAPID key.
///
/// # Errors
///
/// As [`KeyEncryptionKeys::open`].
pub fn open(
    keys: &KeyEncryptionKeys,
    sealed: &SealedVapidKey,
    public_key: &VapidPublicKey,
) -> Result<VapidKey, VapidError> {
    keys.open(sealed, public_key)
}

/// Reads an entry of an outbox as a worker does.
///
/// # Errors
///
/// Returns why a worker would refuse the entry.
pub fn read_outbox_entry(
    audience: &str,
    message: &str,
    opts: &str,
) -> Result<(Broadcast, Option<BroadcastId>), OutboxRefusal> {
    let read = Broadcast::from_outbox(audience, message, opts);
    read.map_err(|refusal| OutboxRefusal::new(refusal.code(), refusal.detail()))
}
