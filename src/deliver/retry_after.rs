//! The wait that a response asks for: `Retry-After` (RFC 9110 section 10.2.3) and WNS's own header.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

use super::PushService;
use crate::clock::Timestamp;

/// The longest wait that the response asks for, at most [`PushService::longest_wait`].
///
/// `None` if it asks for none, or in a form that cannot be parsed. `now` is used if the response has no `Date`.
pub(super) fn retry_after(
    service: PushService,
    headers: &HeaderMap,
    now: Timestamp,
) -> Option<Duration> {
    let text = |value: &http::HeaderValue| value.to_str().ok().map(|text| text.trim().to_owned());
    // Relative to the response's own clock, a date is right even if the local clock is wrong.
    let date = || {
        let date = headers.get(DATE).and_then(text);
        date.and_then(|date| http_date(&date)).unwrap_or(now)
    };
    let standard = headers
        .get_all(RETRY_AFTER)
        .iter()
        .filter_map(text)
        .filter_map(|text| seconds(&text).or_else(|| Some(http_date(&text)?.since(date()))));
    let continue_after = headers
        .get_all("x-wns-continue-after")
        .iter()
        .filter(|_| service == PushService::Wns)
        .filter_map(text)
        .filter_map(|text| seconds(&text));
    standard
        .chain(continue_after)
        .max()
        .map(|wait| wait.min(service.longest_wait()))
}

/// `1*DIGIT`; a number that overflows is the longest wait, not an error.
fn seconds(text: &str) -> Option<Duration> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| Duration::from_secs(text.parse().unwrap_or(u64::MAX)))
}

/// Any of the three forms of RFC 9110 section 5.6.7.
fn http_date(text: &str) -> Option<Timestamp> {
    let time = httpdate::parse_http_date(text).ok()?;
    let since_epoch = time.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp::from_secs(
        i64::try_from(since_epoch.as_secs()).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(784_111_717);

    fn wait(service: PushService, headers: &[(&'static str, &str)]) -> Option<u64> {
        let headers = headers
            .iter()
            .map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    http::HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect();
        retry_after(service, &headers, NOW).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_and_all_three_date_forms_are_read() {
        for (value, secs) in [
            ("120", 120),
            (" 120 ", 120),
            ("0", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 60),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 60),
            ("Sun Nov  6 08:49:37 1994", 60),
        ] {
            assert_eq!(
                wait(PushService::Fcm, &[("retry-after", value)]),
                Some(secs),
                "{value}"
            );
        }
    }

    #[test]
    fn a_date_is_read_against_the_answers_own_clock() {
        let headers = [
            ("date", "Sun, 06 Nov 1994 08:49:30 GMT"),
            ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ];
        assert_eq!(wait(PushService::Mozilla, &headers), Some(7));
        let broken = [
            ("date", "yesterday"),
            ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ];
        assert_eq!(wait(PushService::Mozilla, &broken), Some(60));
    }

    #[test]
    fn a_date_in_the_past_means_now() {
        let headers = [("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")];
        assert_eq!(wait(PushService::Mozilla, &headers), Some(0));
    }

    #[test]
    fn what_cannot_be_parsed_is_ignored() {
        for value in [
            "",
            "-1",
            "1.5",
            "soon",
            "sun, 06 nov 1994 08:49:37 gmt",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 +0100",
            "\u{661}",
        ] {
            assert_eq!(
                wait(PushService::Fcm, &[("retry-after", value)]),
                None,
                "{value}"
            );
        }
        let both = [("retry-after", "soon"), ("retry-after", "5")];
        assert_eq!(wait(PushService::Fcm, &both), Some(5));
    }

    #[test]
    fn an_unknown_host_cannot_ask_for_more_than_an_hour() {
        for value in [
            "3601",
            "99999999999999999999999",
            "Fri, 31 Dec 9999 23:59:59 GMT",
        ] {
            let headers = [("retry-after", value)];
            assert_eq!(wait(PushService::Other, &headers), Some(3600), "{value}");
        }
        let headers = [("retry-after", "99999999999999999999999")];
        assert_eq!(wait(PushService::Wns, &headers), Some(86_400));
        assert_eq!(
            wait(PushService::Fcm, &[("retry-after", "3601")]),
            Some(3601)
        );
    }

    #[test]
    fn the_longer_of_the_two_headers_counts_on_wns() {
        let headers = [("retry-after", "60"), ("x-wns-continue-after", "900")];
        assert_eq!(wait(PushService::Wns, &headers), Some(900));
        assert_eq!(wait(PushService::Fcm, &headers), Some(60));
        assert_eq!(
            wait(PushService::Wns, &[("x-wns-continue-after", "30")]),
            Some(30)
        );
    }
}
