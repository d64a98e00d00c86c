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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_a_subscriber_chose_hold_nobody_up_for_a_day() {
        for service in [PushService::Meta, PushService::Other] {
            assert_eq!(service.longest_wait(), Duration::from_secs(3_600));
        }
        for service in [
            PushService::Fcm,
            PushService::Mozilla,
            PushService::Apple,
            PushService::Wns,
        ] {
            assert_eq!(service.longest_wait(), Duration::from_secs(86_400));
        }
    }
}
