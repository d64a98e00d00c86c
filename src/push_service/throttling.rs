//! What a push service may ask for when it limits the sender.

use std::time::Duration;

use super::PushService;

/// The scope of a 429 response of a push service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PauseScope {
    /// It limits the sender: everything to this origin waits.
    Origin,
    /// It limits one subscription: only that row waits.
    Subscription,
}

impl PushService {
    /// The scope of a 429 response.
    pub(crate) const fn pause_scope(self) -> PauseScope {
        match self {
            Self::Apple | Self::Wns => PauseScope::Subscription,
            Self::Fcm | Self::Mozilla | Self::Meta | Self::Other => PauseScope::Origin,
        }
    }

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
    fn a_limit_reaches_the_origin_but_for_apple_and_wns() {
        for &service in PushService::ALL {
            let row = matches!(service, PushService::Apple | PushService::Wns);
            assert_eq!(
                service.pause_scope() == PauseScope::Subscription,
                row,
                "{service}"
            );
        }
    }
}
