//! Days of the week.

use std::fmt;

use crate::error::unit_error;

/// Days of the week: at least one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Weekdays(u8);

/// Their names, Monday first.
const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Weekdays {
    /// Every day.
    pub const ALL: Self = Self(0b111_1111);

    /// The days of these names: `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`.
    ///
    /// # Errors
    ///
    /// Returns an error for an empty list or an unknown name.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, WeekdaysError> {
        let mut days = 0;
        for name in names {
            let day = NAMES.iter().position(|day| *day == name);
            days |= 1 << day.ok_or(WeekdaysError(()))?;
        }
        Self::from_bits(days).ok_or(WeekdaysError(()))
    }

    /// Makes a value of a number with Monday as its lowest bit. Returns `None` for 0, or more than seven bits.
    #[must_use]
    pub const fn from_bits(days: u8) -> Option<Self> {
        if days == 0 || days > Self::ALL.0 {
            return None;
        }
        Some(Self(days))
    }

    /// The number with Monday as its lowest bit.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The names, Monday first.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let names = NAMES.into_iter().enumerate();
        names.filter_map(move |(day, name)| (self.0 >> day & 1 == 1).then_some(name))
    }

    pub(super) fn has(self, day: jiff::civil::Weekday) -> bool {
        self.0 >> day.to_monday_zero_offset() & 1 == 1
    }
}

impl fmt::Debug for Weekdays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

unit_error! {
    /// An empty list, or a name that is not a day of the week.
    WeekdaysError, "the weekdays are at least one of mon, tue, wed, thu, fri, sat and sun"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_in_and_come_out_in_order() {
        let days = Weekdays::parse(["sun", "mon", "sun"]).unwrap();
        assert_eq!(days.names().collect::<Vec<_>>(), ["mon", "sun"]);
        assert_eq!(days.bits(), 0b100_0001);
        assert_eq!(Weekdays::from_bits(days.bits()), Some(days));
        assert_eq!(Weekdays::parse(NAMES), Ok(Weekdays::ALL));
    }

    #[test]
    fn no_day_and_no_name_are_refused() {
        assert!(Weekdays::parse([]).is_err());
        for name in ["", "Mon", "monday", "1"] {
            assert!(Weekdays::parse(["mon", name]).is_err(), "{name}");
        }
        assert_eq!(Weekdays::from_bits(0), None);
        assert_eq!(Weekdays::from_bits(128), None);
    }
}
