//! Moments as text (RFC 3339).

use std::borrow::Cow;

use crate::clock::Timestamp;

/// Writes a moment as ISO 8601 in UTC. Moments beyond the year 9999 show as its last.
pub(crate) fn iso8601(at: Timestamp) -> String {
    let moment = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or({
        if at < Timestamp::from_millis(0) {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        }
    });
    moment.to_string()
}

/// Parses an RFC 3339 date and time with an offset. Returns `None` for anything else.
pub(crate) fn rfc3339(text: &str) -> Option<Timestamp> {
    if !is_rfc3339(text.as_bytes()) {
        return None;
    }
    let text = &*in_nanoseconds(text);
    let moment = text.parse().ok().or_else(|| at_the_end(text))?;
    // Rounded down, before 1970 too.
    let millis = moment.as_nanosecond().div_euclid(1_000_000);
    Some(Timestamp::from_millis(i64::try_from(millis).ok()?))
}

/// Leaves out the digits of a fraction that are smaller than a nanosecond: RFC 3339 allows any number of them, and jiff nine.
fn in_nanoseconds(text: &str) -> Cow<'_, str> {
    let Some((moment, rest)) = text.split_once('.') else {
        return Cow::Borrowed(text);
    };
    let offset = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
    match rest.get(..9) {
        Some(nanoseconds) if nanoseconds.len() + offset.len() < rest.len() => {
            Cow::Owned(format!("{moment}.{nanoseconds}{offset}"))
        }
        _ => Cow::Borrowed(text),
    }
}

/// jiff's moments end a day before the year 9999 does. The rest of it is valid, and that last moment for all purposes.
fn at_the_end(text: &str) -> Option<jiff::Timestamp> {
    let a_year_before = format!("9998{}", text.strip_prefix("9999")?);
    let is_valid = a_year_before.parse::<jiff::Timestamp>().is_ok();
    is_valid.then_some(jiff::Timestamp::MAX)
}

/// The grammar of RFC 3339 section 5.6. jiff accepts more than that. It checks the ranges of all numbers but those of the
/// offset, which may be 25 hours for it.
fn is_rfc3339(text: &[u8]) -> bool {
    let Some((moment, rest)) = text.split_at_checked(19) else {
        return false;
    };
    let follows = |pattern: &[u8], text: &[u8]| {
        pattern.len() == text.len()
            && pattern
                .iter()
                .zip(text)
                .all(|(pattern, byte)| match pattern {
                    b'0' => byte.is_ascii_digit(),
                    b'T' => matches!(byte, b'T' | b't'),
                    other => other == byte,
                })
    };
    if !follows(b"0000-00-00T00:00:00", moment) {
        return false;
    }
    let offset = match rest.strip_prefix(b".") {
        None => rest,
        Some(fraction) => {
            let digits = fraction
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            if digits == 0 {
                return false;
            }
            fraction.get(digits..).unwrap_or_default()
        }
    };
    let is_number = follows(b"+00:00", offset) || follows(b"-00:00", offset);
    // Digits compare as their numbers do.
    let is_below = |place, end: &[u8]| offset.get(place).is_some_and(|digits| digits < end);
    matches!(offset, b"Z" | b"z") || (is_number && is_below(1..3, b"24") && is_below(4..6, b"60"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_round_trips() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
        ] {
            assert_eq!(iso8601(Timestamp::from_millis(millis)), text);
            assert_eq!(rfc3339(text), Some(Timestamp::from_millis(millis)));
        }
        for text in [
            "2023-11-14T23:13:20.1230+01:00",
            "2023-11-15t22:12:20.123999999+23:59",
            // Any number of digits.
            "2023-11-14T22:13:20.1234567890z",
            "2023-11-14T22:13:20.12300000000000000000000001-00:00",
        ] {
            let moment = Timestamp::from_millis(1_700_000_000_123);
            assert_eq!(rfc3339(text), Some(moment), "{text}");
        }
    }

    #[test]
    fn parts_of_a_millisecond_are_rounded_down() {
        for (text, millis) in [
            ("1970-01-01T00:00:00.0019Z", 1),
            ("1969-12-31T23:59:59.9999Z", -1),
        ] {
            assert_eq!(
                rfc3339(text),
                Some(Timestamp::from_millis(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn the_ends_of_time_have_a_text() {
        assert!(iso8601(Timestamp::MAX).starts_with("9999-"));
        assert!(iso8601(Timestamp::MIN).starts_with("-009999-"));
    }

    #[test]
    fn the_last_day_of_all_is_a_moment() {
        let last = Timestamp::from_millis(jiff::Timestamp::MAX.as_millisecond());
        for text in [
            "9999-12-30T23:00:00Z",
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.999-23:59",
        ] {
            assert_eq!(rfc3339(text), Some(last), "{text}");
        }
        assert!(rfc3339("9999-12-30T21:59:59Z").unwrap() < last);
        for text in [
            "9999-02-29T00:00:00Z",
            "9999-12-32T00:00:00Z",
            "9999-12-31T24:00:00Z",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn what_has_no_offset_or_another_form_is_refused() {
        for text in [
            "",
            "2023-11-14",
            "2023-11-14T22:13:20",
            "2023-11-14 22:13:20Z",
            "20231114T221320Z",
            "2023-11-14T22:13Z",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20+01",
            "2023-11-14T22:13:20+24:00",
            "2023-11-14T22:13:20-25:00",
            "2023-11-14T22:13:20+01:60",
            "2023-11-14T22:13:20Z[UTC]",
            "2023-13-14T22:13:20Z",
            "2023-11-14T25:13:20Z",
            "2023-11-14T22:13:20Zä",
            "1700000000",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }
}
