//! Bodies from a push service to a user agent, with any header and any record.
//!
//! The first octet chooses how much of the body is genuine, so that the fuzzer reaches beyond the
//! authentication.
//!
//! Invariants: nothing panics; a header that decodes encodes to the octets it came from; what opens
//! can be encrypted again and opens to the same; nothing opens that was not sealed for these keys.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tower_web_push::ece::{self, Delimiter, Header, Keys};
use tower_web_push::encryption::{MAX_BODY, OVERHEAD, decrypt, encrypt};
use tower_web_push::message::{Message, Padding};
use tower_web_push::p256::{RustCrypto, UaSecretKey};
use tower_web_push::subscription::{AuthSecret, Subscription};

struct UserAgent {
    secret: UaSecretKey,
    auth: AuthSecret,
    subscription: Subscription,
}

static USER_AGENT: LazyLock<UserAgent> = LazyLock::new(|| {
    let secret = UaSecretKey::from_bytes(&[0x41; 32]).expect("a number below the order");
    let auth = AuthSecret::from_bytes(&[0x42; 16]).expect("16 octets");
    let endpoint = "https://push.example.net/p/1".parse().expect("a URL");
    let subscription = Subscription::new(endpoint, *secret.public(), auth.clone());
    UserAgent {
        secret,
        auth,
        subscription,
    }
});

fuzz_target!(|input: &[u8]| {
    let Some((mode, input)) = input.split_first() else {
        return;
    };
    header(input);
    match mode % 4 {
        0 => opens_nothing(input),
        1 => changed_message(input),
        2 => content_coding(input),
        _ => forged_records(input),
    }
});

fn header(body: &[u8]) {
    let Ok((header, records)) = Header::decode(body) else {
        return;
    };
    let mut encoded = Vec::new();
    header.encode(&mut encoded);
    assert_eq!(encoded.len(), header.encoded_len());
    assert_eq!([&encoded, records].concat(), body);
}

/// Sealing for these keys needs the authentication secret.
fn opens_nothing(body: &[u8]) {
    let to = &*USER_AGENT;
    assert!(decrypt(&RustCrypto, &to.secret, &to.auth, body).is_err());
    assert!(ece::decrypt(&[0x43; 16], body).is_err());
}

/// `input` is where to change a genuine message, how, and its payload.
fn changed_message(input: &[u8]) {
    let Some((&[high, low, change], plaintext)) = input.split_first_chunk() else {
        return;
    };
    let to = &*USER_AGENT;
    let sealed = encrypt(&RustCrypto, &to.subscription, plaintext, Padding::None);
    let Ok(sealed) = sealed else {
        assert!(plaintext.len() > Message::MAX_PAYLOAD);
        return;
    };
    assert_eq!(sealed.len(), plaintext.len() + OVERHEAD);
    assert!(sealed.len() <= MAX_BODY);
    let mut body = sealed.to_vec();
    let at = usize::from(u16::from_be_bytes([high, low])) % body.len();
    body[at] ^= change;
    match decrypt(&RustCrypto, &to.secret, &to.auth, &body) {
        // The record size is not authenticated (RFC 8188 section 4.6).
        Ok(opened) => {
            assert!(change == 0 || (16..20).contains(&at));
            assert_eq!(opened, plaintext);
        }
        Err(_) => assert_ne!(change, 0),
    }
}

/// `input` is a record size and a plaintext: both ways through any number of records.
fn content_coding(input: &[u8]) {
    let Some((size, plaintext)) = input.split_first_chunk() else {
        return;
    };
    let record_size = u32::from(u16::from_be_bytes(*size));
    let Ok(body) = ece::encrypt(&[0x43; 16], b"key", record_size, plaintext) else {
        assert!(record_size < ece::MIN_RECORD_SIZE);
        return;
    };
    assert_eq!(ece::decrypt(&[0x43; 16], &body).expect("ours"), plaintext);
    assert!(ece::decrypt(&[0x43; 16], &body[..body.len() - 1]).is_err());
}

/// `input` is the content of an authentic record, delimiter and padding included: what a hostile
/// sender who knows the keys can send. It opens exactly when it ends in `0x02` and zeros.
fn forged_records(input: &[u8]) {
    let keys = Keys::derive(&[0x43; 16], &[0x44; 16]);
    let end = input.iter().rposition(|octet| *octet != 0);
    let (data, delimiter, padding) =
        match end.map(|end| (&input[..end], input[end], input.len() - end - 1)) {
            Some((data, 1, padding)) => (data, Delimiter::More, padding),
            Some((data, 2, padding)) => (data, Delimiter::Last, padding),
            // `seal` writes no other delimiter.
            _ => return,
        };
    let mut body = Vec::new();
    Header::new([0x44; 16], u32::MAX, &[])
        .expect("within the limits")
        .encode(&mut body);
    keys.seal(0, data, delimiter, padding, &mut body)
        .expect("short");
    match ece::decrypt(&[0x43; 16], &body) {
        Ok(opened) => {
            assert_eq!(delimiter, Delimiter::Last);
            assert_eq!(opened, data);
        }
        Err(_) => assert_eq!(delimiter, Delimiter::More),
    }
}
