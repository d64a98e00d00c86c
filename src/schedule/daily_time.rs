//! A time of day in a zone, and its occurrences.

use std::fmt;

use jiff::ToSpan as _;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

use super::{Weekdays, Zone};
use crate::clock::Timestamp;
use crate::error::unit_error;

/// A time of day to the minute, in a time zone, on some days of the week.
///
/// The wall clock's time is stored, and each occurrence is derived from it. A time that a clock change skips is later by
/// the length of the gap. Of a time that occurs twice, the first one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DailyTime {
    hour: u8,
    minute: u8,
    zone: Zone,
    weekdays: Weekdays,
}

/// No zone skips this number of days.
const DAYS_LOOKED_AT: usize = 16;

impl DailyTime {
    /// Makes a time of day in UTC, every day.
    ///
    /// # Errors
    ///
    /// Returns an error if the hour is above 23 or the minute above 59.
    pub fn new(hour: u8, minute: u8) -> Result<Self, DailyTimeError> {
        if hour > 23 || minute > 59 {
            return Err(DailyTimeError(()));
        }
        Ok(Self {
            hour,
            minute,
            zone: Zone::utc(),
            weekdays: Weekdays::ALL,
        })
    }

    /// Sets the zone.
    #[must_use]
    pub fn in_zone(self, zone: Zone) -> Self {
        Self { zone, ..self }
    }

    /// Sets the days of the week.
    #[must_use]
    pub fn on(self, weekdays: Weekdays) -> Self {
        Self { weekdays, ..self }
    }

    /// The hour, 0 to 23.
    #[must_use]
    pub const fn hour(&self) -> u8 {
        self.hour
    }

    /// The minute, 0 to 59.
    #[must_use]
    pub const fn minute(&self) -> u8 {
        self.minute
    }

    /// The zone.
    #[must_use]
    pub const fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The days of the week.
    #[must_use]
    pub const fn weekdays(&self) -> Weekdays {
        self.weekdays
    }

    /// Returns its first occurrence after a moment. `None` if the zone is unknown, or at the end of time.
    #[must_use]
    pub fn first_after(&self, moment: Timestamp) -> Option<Timestamp> {
        // An occurrence that the clocks skip may fall on the day after its own.
        let from = self.date_of(moment)?.yesterday().ok()?;
        self.occurrences(from).find(|at| *at > moment)
    }

    /// Returns the occurrence that follows one: the first on a later local date, also across clock changes. `None` as
    /// in [`first_after`](Self::first_after).
    ///
    /// `occurrence` may be up to 59 seconds later than the minute is.
    #[must_use]
    pub fn next_after(&self, occurrence: Timestamp) -> Option<Timestamp> {
        self.occurrences(self.date_of(occurrence)?.tomorrow().ok()?)
            .next()
    }

    /// Returns its last occurrence that is not after a moment. `None` if the zone is unknown.
    pub(super) fn last_until(&self, moment: Timestamp) -> Option<Timestamp> {
        // Of a date and the two weeks before it.
        let from = self.date_of(moment)?.checked_sub(14.days()).ok()?;
        self.occurrences(from).take_while(|at| *at <= moment).last()
    }

    /// Returns the number of its occurrences from the local date of a moment to the date before that of another one. `None` as
    /// in [`first_after`](Self::first_after).
    pub(super) fn number_between(&self, from: Timestamp, until: Timestamp) -> Option<u64> {
        let (from, until) = (self.date_of(from)?, self.date_of(until)?);
        let days = usize::try_from(from.until(until).ok()?.get_days()).ok()?;
        let rest = from.series(1.day()).take(days % 7);
        let rest = rest.filter(|date| self.weekdays.has(date.weekday()));
        let number = days / 7 * self.weekdays.names().count() + rest.count();
        u64::try_from(number).ok()
    }

    fn date_of(&self, moment: Timestamp) -> Option<Date> {
        let moment = jiff::Timestamp::from_millisecond(moment.as_millis()).ok()?;
        Some(moment.to_zoned(self.rules()?.clone()).date())
    }

    /// Returns its occurrences from a local date on, for a bounded number of days.
    fn occurrences(&self, from: Date) -> impl Iterator<Item = Timestamp> {
        from.series(1.day())
            .take(DAYS_LOOKED_AT)
            .filter(|date| self.weekdays.has(date.weekday()))
            .filter_map(|date| self.on_date(date))
    }

    fn on_date(&self, date: Date) -> Option<Timestamp> {
        let (hour, minute) = (
            i8::try_from(self.hour).ok()?,
            i8::try_from(self.minute).ok()?,
        );
        let time = Time::new(hour, minute, 0, 0).ok()?;
        // jiff's "compatible": a gap shifts forward by its length, a fold is the first.
        let rules = self.rules()?.clone();
        let zoned = date.to_datetime(time).to_zoned(rules).ok()?;
        Some(Timestamp::from_millis(zoned.timestamp().as_millisecond()))
    }

    fn rules(&self) -> Option<&TimeZone> {
        self.zone.rules()
    }
}

impl fmt::Display for DailyTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02} {}", self.hour, self.minute, self.zone)
    }
}

unit_error! {
    /// A time of day that does not exist.
    DailyTimeError, "the hour is 0 to 23, the minute 0 to 59"
}

#[cfg(test)]
#[path = "daily_time_tests.rs"]
mod tests;
