//! The latest answers of an origin, counted.

/// The number of an origin's latest answers that accepted a message, and of those that said that the subscription is
/// gone.
///
/// A push service that suddenly answers "gone" for a large share of its subscriptions usually has a fault, so these
/// counts are checked before subscriptions are retired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct Tally {
    /// Accepted messages.
    pub accepted: u64,
    /// Subscriptions that are gone, or to be retired for another [`RetireReason`](crate::store::RetireReason).
    pub gone: u64,
}

impl Tally {
    /// Above this number of answers both counts are halved, so that old answers lose weight.
    pub const WINDOW: u64 = 1_000;

    /// A tally with these counts.
    #[must_use]
    pub const fn new(accepted: u64, gone: u64) -> Self {
        Self { accepted, gone }
    }

    /// The sum of both counts.
    #[must_use]
    pub const fn answers(self) -> u64 {
        self.accepted.saturating_add(self.gone)
    }

    /// The sum of a stored tally and a new one (L15), halved until it is not above [`WINDOW`](Self::WINDOW).
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
