//! A new VAPID key for the deployment.

use super::Engine;
use crate::observe;
use crate::vapid::{KeyId, VapidError};

impl Engine {
    /// Makes a new active VAPID key, and has the push services asked again that refused us as a sender.
    pub(crate) async fn rotate_vapid_key(&self) -> Result<KeyId, VapidError> {
        let id = self.key_ring.rotate(self.now()).await?.id();
        // The key is made: whether the push services are asked at once or by the next probe is of less weight.
        if let Err(error) = self.lift_sender_faults(|_| true).await {
            observe::event!(WARN, error = %observe::causes(&error), "cannot lift the pauses of refused senders");
            let _ = error;
        }
        Ok(id)
    }
}
