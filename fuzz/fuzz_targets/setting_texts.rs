//! Texts that an operator or an application writes: contacts, endpoint policies, key-encryption keys, stored VAPID keys,
//! moments and trace parents.
//!
//! The first octet chooses which of them.
//!
//! Invariants: nothing panics; what parses prints as text that parses to the same; no error repeats the text; a second
//! implementation, written here, agrees: what a policy admits, which octets are a key, which moment a text is, which span a
//! trace parent names; a sealed key opens only as it was sealed.
#![no_main]

use std::collections::BTreeSet;
use std::fmt::{Debug, Display};
use std::net::IpAddr;
use std::sync::{LazyLock, Mutex};

use base64ct::{Base64, Base64Unpadded, Base64Url, Base64UrlUnpadded, Encoding as _};
use libfuzzer_sys::fuzz_target;
use tower_web_push::broadcast::TraceParent;
use tower_web_push::clock::Timestamp;
use tower_web_push::deliver::{EndpointPolicy, PushService};
use tower_web_push::fuzzing;
use tower_web_push::subscription::Endpoint;
use tower_web_push::vapid::{
    Contact, KeyEncryptionKeys, SealedVapidKey, VapidErrorKind, VapidKey, VapidPublicKey,
};

/// The first octets from here on are for trace parents, which came last: the others keep their meaning for the corpus.
const TRACE_PARENTS: u8 = 0xf0;

fuzz_target!(|input: &[u8]| {
    let Some((choice, input)) = input.split_first() else {
        return;
    };
    if choice % 5 == 3 && *choice < TRACE_PARENTS {
        return sealed_key(input);
    }
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match choice % 5 {
        _ if *choice >= TRACE_PARENTS => trace_parent(text),
        0 => contact(text),
        1 => policy(text),
        2 => key_encryption_keys(text),
        _ => moment(text),
    }
});

/// More texts than there are kinds of errors here.
const FIXED: usize = 64;
/// What no error says by itself.
const MARK: &str = "\u{2603}zq7";

/// Errors are fixed texts. A fixed text holds some inputs by chance, but never the mark before or after them.
fn repeats_nothing<E: Debug + Display>(text: &str, parse: impl Fn(&str) -> Option<E>) {
    let said = |text: &str| parse(text).map(|error| format!("{error} {error:?}"));
    for marked in [format!("{MARK}{text}"), format!("{text}{MARK}")] {
        assert!(said(&marked).is_none_or(|said| !said.contains(MARK)));
    }
    // Of those that only this text causes there are few, too.
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut all = SAID.lock().expect("no panic goes on");
    all.extend(said(text));
    assert!(all.len() <= FIXED, "{all:#?}");
}

fn contact(text: &str) {
    let contact = match Contact::parse(text) {
        Ok(contact) => contact,
        Err(_) => return repeats_nothing(text, |text| Contact::parse(text).err()),
    };
    let printed = contact.as_str();
    assert!(printed.len() <= Contact::MAX_LEN);
    assert!(printed.eq_ignore_ascii_case(text));
    assert_eq!(Contact::parse(printed).expect("our own text"), contact);
    assert_eq!(
        Contact::insecure_allow_local(text).expect("is laxer"),
        contact
    );
    // It goes into JSON and into the log as it is.
    let is_plain = |octet: u8| octet.is_ascii_graphic() && !b"\"\\<>".contains(&octet);
    assert!(printed.bytes().all(is_plain));

    let (scheme, rest) = printed.split_once(':').expect("it has a scheme");
    let host = match scheme {
        "mailto" => rest.rsplit_once('@').expect("an address").1,
        "https" => {
            let authority = rest.strip_prefix("//").expect("an absolute URL");
            let authority = authority.split(['/', '?', '#']).next().expect("one");
            assert!(!authority.contains('@'));
            authority.split(':').next().expect("one")
        }
        other => panic!("{other}"),
    };
    assert!(host.parse::<IpAddr>().is_err());
    let labels: Vec<_> = host.split('.').collect();
    assert!(labels.len() > 1 && labels.iter().all(|label| !label.is_empty()));
    let last = labels[labels.len() - 1].to_ascii_lowercase();
    assert!(!["localhost", "local", "internal", "test", "invalid"].contains(&last.as_str()));
}

/// Endpoints that no policy for the open internet admits.
const NEVER: [&str; 9] = [
    "https://127.0.0.1/x",
    "https://[::1]/x",
    "https://169.254.169.254/latest/meta-data",
    "https://0x7f.1/x",
    "https://localhost/x",
    "https://printer.local/x",
    "https://intranet/x",
    "http://fcm.googleapis.com/fcm/send/x",
    "https://fcm.googleapis.com/v1/projects/x",
];

/// The first line is a policy, the second an endpoint.
fn policy(text: &str) {
    let (list, url) = text.split_once('\n').unwrap_or((text, ""));
    let policy: EndpointPolicy = match list.parse() {
        Ok(policy) => policy,
        Err(_) => return repeats_nothing(list, |list| list.parse::<EndpointPolicy>().err()),
    };
    let printed = policy.to_string();
    assert_eq!(
        printed.parse::<EndpointPolicy>().expect("our own text"),
        policy
    );
    assert_eq!(policy.allows_local(), list.trim() == "local");
    let is_admitted = |url: &str| policy.check(&Endpoint::parse(url).expect("a URL")).is_ok();
    let local = [
        "10.0.0.1",
        "169.254.169.254",
        "fd00::1",
        "0.0.0.0",
        "100.64.0.1",
    ];
    assert!(
        local
            .map(|addr| policy.check_addr(addr.parse().expect("an address")))
            .iter()
            .all(Result::is_err)
    );
    if policy.allows_local() {
        return;
    }
    assert!(!NEVER.iter().any(|url| is_admitted(url)));
    assert!(policy.check_addr(IpAddr::from([127, 0, 0, 1])).is_err());

    let Ok(endpoint) = Endpoint::parse(url) else {
        return;
    };
    let (origin, host) = (
        endpoint.origin().as_str(),
        endpoint.host().to_ascii_lowercase(),
    );
    let is_https = origin.starts_with("https://");
    let port = origin
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse::<u16>().ok())
        .unwrap_or(443);
    let service = PushService::of(&endpoint);
    let (mut is_listed, mut is_named) = (false, false);
    for entry in list.split(',').map(str::trim) {
        let (name, listed) = match entry.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().expect("the list was accepted")),
            None => (entry, 443),
        };
        let name = name.to_ascii_lowercase();
        let matches = match name.as_str() {
            "public" => true,
            "known" => service != PushService::Other,
            _ => match name.strip_prefix('*') {
                Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
                None => host == name,
            },
        };
        is_listed |= matches && listed == port;
        is_named |= host == name && listed == port;
    }
    if policy.check(&endpoint).is_ok() {
        assert!(is_https && is_listed);
    }
    if is_https && is_named && service == PushService::Other {
        assert!(policy.check(&endpoint).is_ok());
    }
}

static KEY: LazyLock<VapidKey> =
    LazyLock::new(|| VapidKey::from_secret_bytes(&[0x41; 32]).expect("below the order"));
const KEK: &str = "qXV4Yv1RHMbKn0gTzCZ2PjBdW8EJ_Ut3hsOl5r-Qa7k";

/// The 32 octets of a key-encryption key, by another library's decoders.
fn octets(text: &str) -> Option<[u8; 32]> {
    let text = text.trim_ascii();
    let hex = || {
        let digit = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
        let is_hex = text.len() == 64 && text.bytes().all(|octet| octet.is_ascii_hexdigit());
        let octets: Option<Vec<u8>> = (0..text.len()).step_by(2).map(digit).collect();
        octets.filter(|_| is_hex)
    };
    let decoded = [
        Base64::decode_vec(text).ok(),
        Base64Unpadded::decode_vec(text).ok(),
        Base64Url::decode_vec(text).ok(),
        Base64UrlUnpadded::decode_vec(text).ok(),
        hex(),
    ];
    let mut keys = decoded.into_iter().flatten();
    keys.find_map(|octets| <[u8; 32]>::try_from(octets).ok())
}

fn key_encryption_keys(text: &str) {
    let keys = match KeyEncryptionKeys::parse(text) {
        Ok(keys) => keys,
        Err(error) => {
            let are_keys = text.split(',').all(|key| octets(key).is_some());
            match error.kind() {
                VapidErrorKind::WeakEncryptionKey => {}
                VapidErrorKind::InvalidEncryptionKey => assert!(!are_keys),
                other => panic!("{other:?}"),
            }
            return repeats_nothing(text, |text| KeyEncryptionKeys::parse(text).err());
        }
    };
    let public_key = KEY.public_key();
    let sealed = fuzzing::seal(&keys, &KEY).expect("there is randomness");
    let opened = fuzzing::open(&keys, &sealed, public_key).expect("sealed by these keys");
    assert_eq!(*opened.secret_bytes(), *KEY.secret_bytes());
    let clear = fuzzing::seal(&KeyEncryptionKeys::none(), &KEY).expect("there is randomness");
    let is_clear = text.trim_ascii().is_empty();
    assert_eq!(sealed.secret_str() == clear.secret_str(), is_clear);
    if is_clear {
        return;
    }
    let refused = fuzzing::open(&keys, &clear, public_key).expect_err("in the clear");
    assert_eq!(refused.kind(), VapidErrorKind::ClearKey);
    let shown = format!("{keys:?}");
    assert!(text.split(',').all(|key| !shown.contains(key.trim_ascii())));
    // Under any of the listed keys alone: each one of them opens.
    for key in text.split(',') {
        let alone = KeyEncryptionKeys::parse(key).expect("one of the list");
        let sealed = fuzzing::seal(&alone, &KEY).expect("there is randomness");
        assert!(fuzzing::open(&keys, &sealed, public_key).is_ok());
    }
}

struct Stored {
    keys: [KeyEncryptionKeys; 3],
    clear: SealedVapidKey,
    sealed: SealedVapidKey,
    other: VapidPublicKey,
}

static STORED: LazyLock<Stored> = LazyLock::new(|| {
    let none = KeyEncryptionKeys::none();
    let keys = KeyEncryptionKeys::parse(KEK).expect("a key");
    let other = VapidKey::from_secret_bytes(&[0x42; 32]).expect("below the order");
    Stored {
        clear: fuzzing::seal(&none, &KEY).expect("there is randomness"),
        sealed: fuzzing::seal(&keys, &KEY).expect("there is randomness"),
        other: *other.public_key(),
        keys: [none, keys.clone(), keys.seal_clear_keys(true)],
    }
});

/// The first octet chooses the configuration, and whether the rest is the stored text itself or a change of a genuine one.
fn sealed_key(input: &[u8]) {
    let Some((mode, input)) = input.split_first() else {
        return;
    };
    let stored = &*STORED;
    let number = usize::from(mode % 3);
    let keys = &stored.keys[number];
    let genuine = if mode & 0x40 == 0 {
        &stored.sealed
    } else {
        &stored.clear
    };
    let is_encrypted = mode & 0x40 == 0;
    let text = if mode & 0x80 == 0 {
        String::from_utf8_lossy(input).into_owned()
    } else {
        let Some((&[at, new], _)) = input.split_first_chunk() else {
            return;
        };
        let mut text = genuine.secret_str().as_bytes().to_vec();
        let at = usize::from(at) % text.len();
        text[at] = new & 0x7f;
        String::from_utf8(text).expect("ASCII")
    };
    let sealed = SealedVapidKey::new(text.as_str());
    assert_eq!(format!("{sealed:?}"), "SealedVapidKey(..)");
    assert!(fuzzing::open(keys, &sealed, &stored.other).is_err());
    match fuzzing::open(keys, &sealed, KEY.public_key()) {
        Ok(key) => {
            assert_eq!(*key.secret_bytes(), *KEY.secret_bytes());
            let wanted = if text.starts_with("v0.") {
                &stored.clear
            } else {
                &stored.sealed
            };
            assert_eq!(text, wanted.secret_str());
            let is_allowed = match number {
                0 => text.starts_with("v0."),
                1 => text.starts_with("v1."),
                _ => true,
            };
            assert!(is_allowed);
        }
        Err(error) => {
            let is_genuine = text == genuine.secret_str();
            let opens = if is_encrypted {
                number > 0
            } else {
                number != 1
            };
            assert!(!(is_genuine && opens), "{error:?}");
            repeats_nothing(&text, |text| {
                fuzzing::open(keys, &SealedVapidKey::new(text), KEY.public_key()).err()
            });
        }
    }
}

fn moment(text: &str) {
    let last = Timestamp::from_millis(LAST);
    let expected = rfc3339(text).map(|millis| Timestamp::from_millis(millis).min(last));
    let parsed = fuzzing::rfc3339(text);
    assert_eq!(parsed, expected);
    if let Some(at) = parsed {
        // Before the year 0 there are no texts in RFC 3339.
        let printed = fuzzing::iso8601(at);
        assert!(printed.starts_with('-') || fuzzing::rfc3339(&printed) == Some(at));
    }
    if let Some((octets, _)) = text.as_bytes().split_first_chunk() {
        let at = Timestamp::from_millis(i64::from_be_bytes(*octets));
        let printed = fuzzing::iso8601(at);
        let again = fuzzing::rfc3339(&printed);
        assert!(
            printed.starts_with('-') || again == Some(at.min(last)),
            "{printed}"
        );
    }
}

/// 9999-12-30T22:00:00.999Z, the last moment of the crate's library for time.
const LAST: i64 = 253_402_207_200_999;

/// Milliseconds since 1970 of a text in the grammar of RFC 3339 section 5.6, rounded down; a leap second is the one before it.
fn rfc3339(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| {
        let digits = text.as_bytes().get(from..to)?;
        let is_number = digits.iter().all(u8::is_ascii_digit);
        let sum = |sum: i64, digit: &u8| sum * 10 + i64::from(digit - b'0');
        is_number.then(|| digits.iter().fold(0, sum))
    };
    let is = |at: usize, wanted: u8| {
        text.as_bytes()
            .get(at)
            .is_some_and(|octet| octet.eq_ignore_ascii_case(&wanted))
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let parted = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !parted.iter().all(|(at, wanted)| is(*at, *wanted)) {
        return None;
    }
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut at = 19;
    let mut millis = 0;
    if is(at, b'.') {
        let digits = text.as_bytes()[at + 1..]
            .iter()
            .take_while(|octet| octet.is_ascii_digit());
        let digits: Vec<i64> = digits.map(|octet| i64::from(octet - b'0')).collect();
        if digits.is_empty() {
            return None;
        }
        for place in 0..3 {
            millis = millis * 10 + digits.get(place).unwrap_or(&0);
        }
        at += 1 + digits.len();
    }
    let offset = if is(at, b'Z') {
        at += 1;
        0
    } else {
        let sign = if is(at, b'+') {
            1
        } else if is(at, b'-') {
            -1
        } else {
            return None;
        };
        let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
        if !is(at + 3, b':') || hours > 23 || minutes > 59 {
            return None;
        }
        at += 6;
        sign * (hours * 3_600 + minutes * 60)
    };
    if at != text.len() {
        return None;
    }
    // Days since 0000-03-01, by counting the leap days of whole years.
    let (years, months) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = years.div_euclid(4) - years.div_euclid(100) + years.div_euclid(400);
    let days = years * 365 + leap_days + (153 * months + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second.min(59) - offset;
    Some(seconds * 1_000 + millis)
}

/// W3C Trace Context section 3.2, with positions instead of parts.
fn trace_parent(text: &str) {
    let octets = text.as_bytes();
    let is_hex = |from: usize, to: usize| {
        let part = octets.get(from..to);
        part.is_some_and(|part| part.iter().all(|octet| b"0123456789abcdef".contains(octet)))
    };
    let is_zero = |from: usize, to: usize| octets[from..to].iter().all(|octet| *octet == b'0');
    let is_dash = |at: usize| octets.get(at) == Some(&b'-');
    let has_form = is_hex(0, 2)
        && is_dash(2)
        && is_hex(3, 35)
        && is_dash(35)
        && is_hex(36, 52)
        && is_dash(52)
        && is_hex(53, 55);
    let is_valid = has_form
        && !is_zero(3, 35)
        && !is_zero(36, 52)
        && !text.starts_with("ff")
        && (text.len() == 55 || !text.starts_with("00") && is_dash(55));
    match TraceParent::parse(text) {
        Ok(parent) => {
            assert!(is_valid);
            let printed = parent.to_string();
            assert_eq!(TraceParent::parse(&printed).expect("our own text"), parent);
            assert_eq!(printed[3..52], text[3..52]);
            let is_sampled = u8::from_str_radix(&text[53..55], 16).expect("hex") & 1 == 1;
            assert_eq!(parent.is_sampled(), is_sampled);
        }
        Err(_) => {
            assert!(!is_valid);
            repeats_nothing(text, |text| TraceParent::parse(text).err());
        }
    }
}
