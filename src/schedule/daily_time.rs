//! A time of day, and its next occurrence.

use std::fmt;
use std::time::Duration;

use crate::clock::Timestamp;

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// A time of day in UTC, to the minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DailyTime {
    hour: u8,
    minute: u8,
}

impl DailyTime {
    /// A time of day.
    ///
    /// # Errors
    ///
    /// When the hour is above 23 or the minute above 59.
    pub const fn new(hour: u8, minute: u8) -> Result<Self, DailyTimeError> {
        if hour > 23 || minute > 59 {
            return Err(DailyTimeError(()));
        }
        Ok(Self { hour, minute })
    }

    /// The hour, 0 to 23.
    #[must_use]
    pub const fn hour(self) -> u8 {
        self.hour
    }

    /// The minute, 0 to 59.
    #[must_use]
    pub const fn minute(self) -> u8 {
        self.minute
    }

    /// Its first occurrence after a moment, at most a day later.
    #[must_use]
    pub fn next_after(self, now: Timestamp) -> Timestamp {
        let of_day = (i64::from(self.hour) * 60 + i64::from(self.minute)) * MINUTE;
        let ahead = (of_day - now.as_millis().rem_euclid(DAY)).rem_euclid(DAY);
        let ahead = if ahead == 0 { DAY } else { ahead };
        now + Duration::from_millis(ahead.unsigned_abs())
    }
}

impl fmt::Display for DailyTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.hour, self.minute)
    }
}

/// A time of day that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DailyTimeError(());

impl fmt::Display for DailyTimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the hour is 0 to 23, the minute 0 to 59")
    }
}

impl std::error::Error for DailyTimeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_occurrence_is_later_and_within_a_day() {
        let midnight = Timestamp::from_secs(1_700_006_400);
        let at = |hour, minute| DailyTime::new(hour, minute).unwrap().next_after(midnight);
        assert_eq!(at(0, 1), midnight + Duration::from_secs(60));
        assert_eq!(at(23, 59), midnight + Duration::from_secs(86_340));
        assert_eq!(at(0, 0), midnight + Duration::from_secs(86_400));
    }

    #[test]
    fn it_works_before_the_epoch_too() {
        let before = Timestamp::from_millis(-1);
        let next = DailyTime::new(0, 0).unwrap().next_after(before);
        assert_eq!(next, Timestamp::from_millis(0));
    }

    #[test]
    fn there_is_no_25th_hour() {
        assert!(DailyTime::new(24, 0).is_err());
        assert!(DailyTime::new(0, 60).is_err());
        assert_eq!(DailyTime::new(7, 5).unwrap().to_string(), "07:05");
    }
}
