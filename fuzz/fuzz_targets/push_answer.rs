//! Any response of a push service: status, headers and body, classified as one of each known service.
//!
//! The first octet chooses the service; two more the status. Then lines of headers (`name: value`) up to an empty line,
//! and the body. With its highest bit set, the first octet asks for a wait: `Retry-After` is made of the rest of the input.
//!
//! Invariants: nothing panics; the outcome is that of a second implementation, written here; only 404 and 410 are "gone",
//! whatever the body says; a wait is only asked of what is retried, and is within its limit; the reason is short printable
//! text; what follows after 8 KiB of body, and the case of letters, change nothing; a wait that was made of a number is
//! read as that number, in each of the four forms.
#![no_main]

use std::time::Duration;

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tower_web_push::clock::Timestamp;
use tower_web_push::deliver::{Outcome, PushService, Verdict, classify};

const NOW: i64 = 1_600_000_000;
const BODY_LIMIT: usize = 8 * 1024;

fuzz_target!(|input: &[u8]| {
    let Some((&[choice, high, low], rest)) = input.split_first_chunk() else {
        return;
    };
    let services = PushService::ALL;
    let service = services[usize::from(choice & 0x7f) % services.len()];
    if choice & 0x80 != 0 {
        wait(service, [high, low], rest);
        return;
    }
    let status = 100 + u16::from_be_bytes([high, low]) % 900;
    let status = StatusCode::from_u16(status).expect("from 100 to 999");
    let (headers, body) = head_and_body(rest);
    answer(service, status, &headers, body);
});

/// Lines that are no headers are left out.
fn head_and_body(mut rest: &[u8]) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    while let Some(end) = rest.iter().position(|octet| *octet == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        let mut parts = line.splitn(2, |octet| *octet == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
            continue;
        };
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name),
            HeaderValue::from_bytes(value.trim_ascii()),
        ) {
            headers.append(name, value);
        }
    }
    (headers, rest)
}

fn judge(service: PushService, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Verdict {
    classify(service, status, headers, body, Timestamp::from_secs(NOW))
}

fn answer(service: PushService, status: StatusCode, headers: &HeaderMap, body: &[u8]) {
    let verdict = judge(service, status, headers, body);
    let of_status = by_status(status.as_u16());
    let read = &body[..body.len().min(BODY_LIMIT)];
    match service {
        PushService::Fcm => assert_eq!(verdict.outcome, fcm(status.as_u16(), read)),
        PushService::Mozilla => assert_eq!(verdict.outcome, mozilla(status.as_u16(), read)),
        PushService::Wns => assert_eq!(verdict.outcome, wns(status.as_u16(), headers)),
        PushService::Apple => {
            if verdict.outcome != of_status {
                let said = apple(status.as_u16(), read);
                assert!(said.contains(&verdict.outcome), "{verdict:?}");
            }
        }
        _ => {
            assert_eq!(verdict.outcome, of_status);
            assert_eq!(verdict.reason, None);
        }
    }
    // A body must never cost a subscription that the status does not.
    assert!(verdict.outcome != Outcome::Gone || matches!(status.as_u16(), 404 | 410));

    if let Some(reason) = &verdict.reason {
        assert!((1..=128).contains(&reason.len()));
        assert!(reason.bytes().all(|octet| (0x20..0x7f).contains(&octet)));
    }
    match verdict.retry_after {
        Some(wait) => {
            assert!(verdict.outcome.is_retryable());
            assert!(wait <= longest(service));
            let asked = headers.contains_key(RETRY_AFTER);
            let continued = headers.contains_key("x-wns-continue-after");
            assert!(asked || (continued && service == PushService::Wns));
        }
        None if verdict.outcome.is_retryable() => assert_eq!(seconds(headers), None),
        None => {}
    }
    if let (Some(wait), Some(least)) = (verdict.retry_after, seconds(headers)) {
        assert!(wait >= least.min(longest(service)));
    }

    assert_eq!(judge(service, status, headers, read), verdict);
    if service == PushService::Fcm {
        let upper = body.to_ascii_uppercase();
        assert_eq!(judge(service, status, headers, &upper), verdict);
    }
}

fn longest(service: PushService) -> Duration {
    Duration::from_secs(match service {
        PushService::Meta | PushService::Other => 3_600,
        _ => 86_400,
    })
}

/// The largest number of seconds among the values of `Retry-After`.
fn seconds(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(RETRY_AFTER).iter();
    let numbers = values.filter_map(|value| {
        let digits = value.as_bytes().trim_ascii();
        let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let plus = |sum: u64, digit: &u8| {
            let digit = u64::from(digit - b'0');
            sum.saturating_mul(10).saturating_add(digit)
        };
        is_number.then(|| digits.iter().fold(0, plus))
    });
    numbers.max().map(Duration::from_secs)
}

fn by_status(status: u16) -> Outcome {
    match status {
        404 | 410 => Outcome::Gone,
        413 => Outcome::TooLarge,
        429 => Outcome::RateLimited,
        401 | 403 => Outcome::SenderFault,
        408 | 425 => Outcome::Transient,
        _ if status / 100 == 2 => Outcome::Accepted,
        _ if status >= 500 => Outcome::Transient,
        _ => Outcome::BadRequest,
    }
}

/// Whether a body has a text, in any case of letters. What is not UTF-8 is no part of any.
fn says(body: &[u8], text: &str) -> bool {
    let body = String::from_utf8_lossy(body).to_ascii_lowercase();
    body.contains(&text.to_ascii_lowercase())
}

fn fcm(status: u16, body: &[u8]) -> Outcome {
    let mismatch = [
        "UnauthorizedRegistration",
        "MismatchSenderId",
        "do not correspond",
    ];
    let too_large = "binary data passed in the request must be less than";
    if status == 400 && says(body, too_large) {
        Outcome::TooLarge
    } else if matches!(status, 400 | 403) && mismatch.iter().any(|text| says(body, text)) {
        Outcome::KeyMismatch
    } else {
        by_status(status)
    }
}

fn mozilla(status: u16, body: &[u8]) -> Outcome {
    match status {
        401 if says(body, "key mismatch") => Outcome::KeyMismatch,
        _ => by_status(status),
    }
}

fn wns(status: u16, headers: &HeaderMap) -> Outcome {
    let dropped = ["dropped", "channelthrottled", "appthrottled"];
    let said = headers.get("x-wns-status").map(HeaderValue::as_bytes);
    let is_dropped = |said: &[u8]| {
        dropped
            .iter()
            .any(|it| said.eq_ignore_ascii_case(it.as_bytes()))
    };
    match status {
        406 => Outcome::RateLimited,
        _ if status / 100 == 2 && said.is_some_and(is_dropped) => Outcome::RateLimited,
        _ => by_status(status),
    }
}

/// What the reasons in a body can mean. Which of its members is the reason is left to the crate.
fn apple(status: u16, body: &[u8]) -> Vec<Outcome> {
    let mut texts = Vec::new();
    if let Ok(value) = serde_json::from_slice(body) {
        collect(&value, &mut texts);
    }
    let meaning = |text: &String| {
        Some(match (status, text.to_ascii_lowercase().as_str()) {
            (400 | 401 | 403, "vapidpkhashmismatch") => Outcome::KeyMismatch,
            (400, "badvapidpublickey" | "badauthorizationheader" | "badjwttoken") => {
                Outcome::SenderFault
            }
            (400..=499, "idletimeout") => Outcome::Transient,
            _ => return None,
        })
    };
    texts.iter().filter_map(meaning).collect()
}

fn collect(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| collect(value, texts)),
        Value::Object(members) => members.values().for_each(|value| collect(value, texts)),
        _ => {}
    }
}

/// `rest` is when to try again, and what the response's own clock says, if it does.
fn wait(service: PushService, [form, dated]: [u8; 2], rest: &[u8]) {
    let Some((&[a, b, c, d, e, f, g, h], _)) = rest.split_first_chunk() else {
        return;
    };
    // Years 1970 to 2038: those that two digits name without doubt.
    let moment = |octets| i64::from(u32::from_be_bytes(octets) >> 1);
    let (at, date) = (moment([a, b, c, d]), moment([e, f, g, h]));
    let mut headers = HeaderMap::new();
    let mut put = |name: HeaderName, text: String| {
        let value = HeaderValue::try_from(text).expect("ASCII");
        headers.append(name, value);
    };
    let (text, wait) = match form % 4 {
        0 => (at.to_string(), at),
        form => (
            http_date(at, form),
            at - if dated & 1 == 0 { NOW } else { date },
        ),
    };
    put(RETRY_AFTER, text);
    if dated & 1 != 0 {
        put(DATE, http_date(date, 1 + (dated >> 1) % 3));
    }
    let expected = Duration::from_secs(wait.max(0).unsigned_abs()).min(longest(service));
    let busy = judge(service, StatusCode::TOO_MANY_REQUESTS, &headers, b"");
    assert_eq!(busy.retry_after, Some(expected));
    let gone = judge(service, StatusCode::GONE, &headers, b"");
    assert_eq!(gone.retry_after, None);
}

/// The three forms of RFC 9110 section 5.6.7, by Howard Hinnant's algorithm for dates.
fn http_date(at: i64, form: u8) -> String {
    let (days, second) = (at.div_euclid(86_400), at.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let leap = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = year_of_era + era * 400 + i64::from(month < 2);
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let weekdays = [
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
        "Monday",
        "Tuesday",
        "Wednesday",
    ];
    let month = months[usize::try_from(month).expect("below 12")];
    let weekday = weekdays[usize::try_from(days.rem_euclid(7)).expect("below 7")];
    let short = &weekday[..3];
    let time = format!(
        "{:02}:{:02}:{:02}",
        second / 3_600,
        second / 60 % 60,
        second % 60
    );
    match form {
        1 => format!("{short}, {day:02} {month} {year} {time} GMT"),
        2 => format!("{weekday}, {day:02}-{month}-{:02} {time} GMT", year % 100),
        _ => format!("{short} {month} {day:>2} {time} {year}"),
    }
}
