//! A pause of an origin.

use crate::clock::Timestamp;
use crate::subscription::Origin;

/// A period in which no requests are sent to an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct Pause {
    /// The origin that is paused.
    pub origin: Origin,
    /// The end of the pause.
    pub until: Timestamp,
    /// The reason.
    pub reason: PauseReason,
    /// The number of consecutive pauses for this reason, from 1. The next pause grows with it.
    pub closures: u32,
    /// The refused sender, if the reason is [`PauseReason::SenderFault`]: its contact (the `sub` claim of the token), and
    /// after a space the id of its active VAPID key, if that is known.
    pub contact: Option<String>,
}

impl Pause {
    /// The first pause of an origin for a reason.
    #[must_use]
    pub const fn new(origin: Origin, until: Timestamp, reason: PauseReason) -> Self {
        Self {
            origin,
            until,
            reason,
            closures: 1,
            contact: None,
        }
    }

    /// Whether it is over at `now`. A pause that is probed ends only when it is lifted.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.until <= now && !self.reason.is_probed()
    }

    /// The merge of this pause with a stored one of the same origin (L11).
    #[must_use]
    pub fn on_top_of(&self, stored: Option<&Self>, now: Timestamp) -> Option<Self> {
        if self.until <= now {
            return None;
        }
        let Some(stored) = stored.filter(|stored| !stored.is_over(now)) else {
            return Some(self.clone());
        };
        let keeps_stored = match (stored.reason.is_probed(), self.reason.is_probed()) {
            (true, false) => true,
            (false, true) => false,
            _ => stored.until >= self.until,
        };
        let mut merged = if keeps_stored { stored } else { self }.clone();
        merged.until = stored.until.max(self.until);
        if stored.reason == self.reason {
            merged.closures = stored.closures.max(self.closures);
        }
        Some(merged)
    }
}

/// Why an origin is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PauseReason {
    /// The origin asked for it (429, 406, `Retry-After`).
    RateLimited,
    /// No answers, or only server errors.
    Unreachable,
    /// The origin refuses the sender: its VAPID key, contact or clock.
    SenderFault,
}

impl PauseReason {
    /// Every reason.
    pub const ALL: &'static [Self] = &[Self::RateLimited, Self::Unreachable, Self::SenderFault];

    /// Whether a single request probes if the reason still holds before the others are sent.
    #[must_use]
    pub const fn is_probed(self) -> bool {
        match self {
            Self::RateLimited => false,
            Self::Unreachable | Self::SenderFault => true,
        }
    }

    /// The name that stores and JSON use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Unreachable => "unreachable",
            Self::SenderFault => "sender_fault",
        }
    }

    /// The reason of a stored name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::PauseReason::{RateLimited, SenderFault, Unreachable};
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn pause(until: i64, reason: PauseReason, closures: u32) -> Pause {
        let origin = Origin::parse("https://push.example.net").unwrap();
        let mut pause = Pause::new(origin, at(until), reason);
        pause.closures = closures;
        pause
    }

    fn merged(stored: Pause, new: Pause) -> (Timestamp, PauseReason, u32) {
        let merged = new.on_top_of(Some(&stored), at(10)).unwrap();
        (merged.until, merged.reason, merged.closures)
    }

    #[test]
    fn the_later_end_holds_with_its_reason() {
        for (stored, new) in [(30, 60), (60, 30)] {
            let both = merged(pause(stored, SenderFault, 2), pause(new, SenderFault, 1));
            assert_eq!(both, (at(60), SenderFault, 2));
        }
        let both = merged(pause(60, Unreachable, 3), pause(30, SenderFault, 1));
        assert_eq!(both, (at(60), Unreachable, 3));
        let both = merged(pause(30, Unreachable, 3), pause(60, SenderFault, 1));
        assert_eq!(both, (at(60), SenderFault, 1));
    }

    #[test]
    fn of_two_that_end_together_the_stored_one_holds_with_the_larger_number() {
        let both = merged(pause(60, Unreachable, 3), pause(60, SenderFault, 1));
        assert_eq!(both, (at(60), Unreachable, 3));
        let both = merged(pause(60, SenderFault, 1), pause(60, SenderFault, 2));
        assert_eq!(both, (at(60), SenderFault, 2));
    }

    #[test]
    fn a_probed_reason_outlives_a_plain_one_whatever_ends_later() {
        for (stored, new) in [(30, 60), (60, 30), (5, 60)] {
            let both = merged(pause(stored, SenderFault, 4), pause(new, RateLimited, 1));
            assert_eq!(both, (at(60), SenderFault, 4));
        }
        let both = merged(pause(60, RateLimited, 1), pause(30, Unreachable, 1));
        assert_eq!(both, (at(60), Unreachable, 1));
    }

    #[test]
    fn what_is_over_leaves_nothing_and_a_past_end_lifts() {
        let both = merged(pause(10, RateLimited, 7), pause(20, RateLimited, 1));
        assert_eq!(both, (at(20), RateLimited, 1));
        let stored = pause(60, SenderFault, 4);
        let lift = pause(10, RateLimited, 1);
        assert_eq!(lift.on_top_of(Some(&stored), at(10)), None);
    }
}
