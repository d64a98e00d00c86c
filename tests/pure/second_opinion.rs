//! Both P-256 backends against each other, and the whole of RFC 8291 against a second implementation: straight from the
//! RFCs, on the primitives of AWS-LC alone. Scalars and points are random, at the ends of their ranges, or broken.
//!
//! `PROPTEST_CASES=1000000 cargo test --release --all-features --test pure second_opinion` runs for a long time.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use proptest::prelude::*;
use tower_web_push::encryption::{decrypt, encrypt};
use tower_web_push::message::{Message, Padding};
use tower_web_push::p256::{AwsLc, P256, RustCrypto, UaSecretKey};
use tower_web_push::subscription::{AuthSecret, Subscription, UaPublicKey};

const BACKENDS: [&dyn P256; 2] = [&RustCrypto, &AwsLc];

/// The order of the group, and the prime of the field (SEC 2, section 2.4.2), big-endian.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
const PRIME: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
];

/// Adds a small number to one of 32 octets, modulo 2^256.
fn plus(number: [u8; 32], small: i16) -> [u8; 32] {
    let mut sum = number;
    let mut carry = small;
    for octet in sum.iter_mut().rev() {
        let next = i16::from(*octet) + carry;
        *octet = next.rem_euclid(256) as u8;
        carry = next.div_euclid(256);
    }
    sum
}

fn any_number() -> impl Strategy<Value = [u8; 32]> {
    prop_oneof![
        4 => any::<[u8; 32]>(),
        1 => (-3_i16..=3).prop_map(|small| plus([0; 32], small)),
        1 => (-3_i16..=3).prop_map(|small| plus(ORDER, small)),
        1 => (-3_i16..=3).prop_map(|small| plus(PRIME, small)),
        1 => (0_usize..256).prop_map(|bit| {
            let mut power = [0; 32];
            power[31 - bit / 8] = 1 << (bit % 8);
            power
        }),
    ]
}

fn any_secret() -> impl Strategy<Value = UaSecretKey> {
    any_number().prop_filter_map("a scalar", |number| UaSecretKey::from_bytes(&number).ok())
}

fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    let lengths = [
        0,
        1,
        15,
        16,
        17,
        Message::MAX_PAYLOAD - 1,
        Message::MAX_PAYLOAD,
    ];
    let length = prop_oneof![
        prop::sample::select(lengths.to_vec()),
        0..=Message::MAX_PAYLOAD
    ];
    length.prop_flat_map(|length| prop::collection::vec(any::<u8>(), length))
}

struct Octets(usize);

impl KeyType for Octets {
    fn len(&self) -> usize {
        self.0
    }
}

fn hkdf<const N: usize>(salt: &[u8], ikm: &[u8], info: &[&[u8]]) -> [u8; N] {
    let prk = Salt::new(HKDF_SHA256, salt).extract(ikm);
    let mut out = [0; N];
    prk.expand(info, Octets(N)).unwrap().fill(&mut out).unwrap();
    out
}

/// The key and the nonce of RFC 8291 section 3.4.
fn key_and_nonce(
    own: &[u8; 32],
    [ua_public, as_public, peer]: [&[u8]; 3],
    auth: &[u8],
    salt: &[u8],
) -> (LessSafeKey, Nonce) {
    let own = PrivateKey::from_private_key(&ECDH_P256, own).unwrap();
    let peer = UnparsedPublicKey::new(&ECDH_P256, peer);
    let info: [&[u8]; 3] = [b"WebPush: info\0", ua_public, as_public];
    let ikm: [u8; 32] = agree(&own, peer, (), |secret| Ok(hkdf(auth, secret, &info))).unwrap();
    let cek: [u8; 16] = hkdf(salt, &ikm, &[b"Content-Encoding: aes128gcm\0"]);
    let nonce: [u8; 12] = hkdf(salt, &ikm, &[b"Content-Encoding: nonce\0"]);
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &cek).unwrap());
    (key, Nonce::assume_unique_for_key(nonce))
}

/// Opens a body of one record (RFC 8188 section 2.1).
fn open(secret: &UaSecretKey, auth: &AuthSecret, body: &[u8]) -> Option<Vec<u8>> {
    let (salt, rest) = body.split_at(16);
    let (head, rest) = rest.split_at(5);
    assert_eq!(
        (head[4], u32::from_be_bytes(head[..4].try_into().unwrap())),
        (65, 4096)
    );
    let (as_public, record) = rest.split_at(65);
    let ua_public = secret.public().as_bytes();
    let publics: [&[u8]; 3] = [ua_public, as_public, as_public];
    let (key, nonce) = key_and_nonce(secret.secret_bytes(), publics, auth.secret_bytes(), salt);
    let mut record = record.to_vec();
    let opened = key.open_in_place(nonce, Aad::empty(), &mut record).ok()?;
    let end = opened.iter().rposition(|octet| *octet != 0)?;
    assert_eq!(opened[end], 2, "the delimiter of the last record");
    Some(opened[..end].to_vec())
}

/// Seals as a sender with this key pair and salt.
fn seal(
    own: &UaSecretKey,
    (to, auth): (&UaPublicKey, &AuthSecret),
    salt: &[u8; 16],
    (payload, padding): (&[u8], usize),
) -> Vec<u8> {
    let (ua_public, as_public) = (to.as_bytes(), own.public().as_bytes());
    let publics: [&[u8]; 3] = [ua_public, as_public, ua_public];
    let (key, nonce) = key_and_nonce(own.secret_bytes(), publics, auth.secret_bytes(), salt);
    let mut record = payload.to_vec();
    record.push(2);
    record.resize(record.len() + padding, 0);
    key.seal_in_place_append_tag(nonce, Aad::empty(), &mut record)
        .unwrap();
    [
        salt.as_slice(),
        &4096_u32.to_be_bytes(),
        &[65],
        as_public,
        &record,
    ]
    .concat()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_number_is_a_scalar_if_it_lies_between_zero_and_the_order(number in any_number()) {
        let is_scalar = number != [0; 32] && number < ORDER;
        prop_assert_eq!(UaSecretKey::from_bytes(&number).is_ok(), is_scalar);
    }

    #[test]
    fn a_second_implementation_opens_what_each_backend_seals(
        secret in any_secret(),
        auth in any::<[u8; 16]>(),
        payload in any_payload(),
        padding in prop::sample::select(vec![Padding::None, Padding::DEFAULT, Padding::Max]),
    ) {
        let auth = AuthSecret::from_bytes(&auth).unwrap();
        let endpoint = "https://push.example.net/p/1".parse().unwrap();
        let to = Subscription::new(endpoint, *secret.public(), auth.clone());
        for backend in BACKENDS {
            let body = encrypt(backend, &to, &payload, padding).unwrap();
            let opened = open(&secret, &auth, &body);
            prop_assert_eq!(opened.as_ref(), Some(&payload));
        }
    }

    #[test]
    fn each_backend_opens_what_a_second_implementation_seals(
        (secret, own) in (any_secret(), any_secret()),
        (auth, salt) in any::<([u8; 16], [u8; 16])>(),
        payload in any_payload(),
        padding in 0_usize..300,
    ) {
        let auth = AuthSecret::from_bytes(&auth).unwrap();
        let padding = padding.min(Message::MAX_PAYLOAD - payload.len());
        let body = seal(&own, (secret.public(), &auth), &salt, (&payload, padding));
        for backend in BACKENDS {
            let opened = decrypt(backend, &secret, &auth, &body);
            prop_assert_eq!(&opened.unwrap(), &payload);
        }
    }

    /// A point is changed in one octet, or has any number, also one that is not below the prime, for a coordinate.
    #[test]
    fn the_backends_accept_the_same_points_and_agree_on_them(
        (own, peer) in (any_secret(), any_secret()),
        change in prop::option::of((0_usize..65, any::<u8>())),
        coordinate in prop::option::of((any::<bool>(), any_number())),
    ) {
        let mut point = *peer.public().as_bytes();
        if let Some((at, octet)) = change {
            point[at] = octet;
        }
        if let Some((is_y, number)) = coordinate {
            let at = if is_y { 33 } else { 1 };
            point[at..at + 32].copy_from_slice(&number);
        }
        let [one, other] = BACKENDS.map(|backend| backend.agree_with(&own, &point));
        prop_assert_eq!(&one, &other);
        let key = UaPublicKey::from_bytes(&point);
        prop_assert_eq!(key.is_ok(), one.is_ok());
        if point == *peer.public().as_bytes() {
            prop_assert_eq!(one, RustCrypto.agree_with(&peer, own.public().as_bytes()));
        }
    }
}
