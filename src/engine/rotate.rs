//! A new VAPID key for the deployment.

use super::Engine;
use crate::observe;
use crate::vapid::{KeyId, VapidError};

impl Engine {
    /// Makes a new active VAPID key, and lifts the pauses of push services that refused this sender.
    pub(crate) async fn rotate_vapid_key(&self) -> Result<KeyId, VapidError> {
        let id = self.key_ring.rotate(self.now()).await?.id();
        observe::count_rotation();
        observe::event!(INFO, key = %id, "a new VAPID key is active; the others stay usable");
        // The key is stored. Without this the push services are asked again by the next probe.
        if let Err(error) = self.lift_sender_faults(|_| true).await {
            observe::event!(WARN, error = %observe::causes(&error), "cannot lift the sender fault pauses");
            let _ = error;
        }
        Ok(id)
    }
}
