//! What a push service may ask for when it limits the sender.

use std::time::Duration;

use super::PushService;

impl PushService {
    /// The longest wait that a response of this service may ask for; a longer one is cut to it.
    ///
    /// A day for services whose responses are known. An hour for any other host, since the subscriber chose it.
    pub(crate) const fn longest_wait(self) -> Duration {
        match self {
            Self::Meta | Self::Other => Duration::from_secs(3600),
            _ => Duration::from_secs(24 * 3600),
        }
    }
}
