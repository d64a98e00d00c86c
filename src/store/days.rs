//! Numbers of live subscriptions by day.

use crate::clock::Timestamp;

/// The number of days that a store keeps (D11): a year, and a month to compare with.
pub const DAYS: usize = 400;

/// A day, in milliseconds.
const DAY: i64 = 86_400_000;

/// The number of live subscriptions at the beginning of a day (D11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct DayCount {
    /// The day's midnight in UTC.
    pub day: Timestamp,
    /// The number of live subscriptions.
    pub live: u64,
}

impl DayCount {
    /// Makes a value for the UTC day of `now`.
    #[must_use]
    pub const fn new(live: u64, now: Timestamp) -> Self {
        let day = now.as_millis().div_euclid(DAY).saturating_mul(DAY);
        Self {
            day: Timestamp::from_millis(day),
            live,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_also_before_1970() {
        for (now, day) in [
            (0, 0),
            (DAY - 1, 0),
            (DAY, DAY),
            (-1, -DAY),
            (-DAY, -DAY),
            (i64::MIN, i64::MIN),
        ] {
            let count = DayCount::new(3, Timestamp::from_millis(now));
            assert_eq!(count.day.as_millis(), day, "{now}");
        }
    }
}
