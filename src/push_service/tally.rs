//! What an origin said of its subscriptions of late.

/// How many of an origin's latest answers took a message, and how many said that the subscription is gone.
///
/// A push service that suddenly says "gone" of a large share of its subscriptions has a fault of its own more often
/// than not: whoever retires subscriptions looks here first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle all of it: see `store`"
)]
pub struct Tally {
    /// Messages taken.
    pub accepted: u64,
    /// Subscriptions said to be gone, or to be retired for another [`RetireReason`](crate::store::RetireReason).
    pub gone: u64,
}

impl Tally {
    /// Above so many answers both numbers are halved, so that old answers fade.
    pub const WINDOW: u64 = 1_000;

    /// So many of each.
    #[must_use]
    pub const fn new(accepted: u64, gone: u64) -> Self {
        Self { accepted, gone }
    }

    /// Both together.
    #[must_use]
    pub const fn answers(self) -> u64 {
        self.accepted.saturating_add(self.gone)
    }

    /// What is stored when these come on top (L15): halved until they are not above [`WINDOW`](Self::WINDOW).
    #[must_use]
    pub const fn plus(self, new: Self) -> Self {
        let mut sum = Self {
            accepted: self.accepted.saturating_add(new.accepted),
            gone: self.gone.saturating_add(new.gone),
        };
        while sum.answers() > Self::WINDOW {
            sum.accepted /= 2;
            sum.gone /= 2;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_answers_fade() {
        let all_gone = Tally::default().plus(Tally::new(0, 1_000));
        assert_eq!(all_gone, Tally::new(0, 1_000));
        let recovered = (0..4).fold(all_gone, |tally, _| tally.plus(Tally::new(600, 0)));
        assert!(recovered.gone * 10 < recovered.answers(), "{recovered:?}");
        assert!(Tally::new(u64::MAX, 1).plus(Tally::new(1, 1)).answers() <= Tally::WINDOW);
    }
}
