use base64ct::{Base64, Encoding as _};
use p256::SecretKey;
use p256::pkcs8::{EncodePrivateKey as _, LineEnding};

use super::*;
use crate::encoding::base64url;

/// Made by OpenSSL 3, for these tests only; its number and point are `SECRET` and `PUBLIC`.
const SEC1: &str = "-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIDZ+Wv4Bw6JP60vqGkPrRKP57dZS5Ae+29De4QmtxeBgoAoGCCqGSM49
AwEHoUQDQgAEQE9+s3KkhXGcNbwqsTgdo9o1pXN8uRIwc2r+g2j44ZEOD9L/wcMi
86huXbFAWkGtkfTq/e3B2NLzRy5utWBidQ==
-----END EC PRIVATE KEY-----
";
const SEC1_NO_PUBLIC: &str = "-----BEGIN EC PRIVATE KEY-----
MDECAQEEIDZ+Wv4Bw6JP60vqGkPrRKP57dZS5Ae+29De4QmtxeBgoAoGCCqGSM49
AwEH
-----END EC PRIVATE KEY-----
";
const PKCS8: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgNn5a/gHDok/rS+oa
Q+tEo/nt1lLkB77b0N7hCa3F4GChRANCAARAT36zcqSFcZw1vCqxOB2j2jWlc3y5
EjBzav6DaPjhkQ4P0v/BwyLzqG5dsUBaQa2R9Or97cHY0vNHLm61YGJ1
-----END PRIVATE KEY-----
";
const PKCS8_NO_PUBLIC: &str = "-----BEGIN PRIVATE KEY-----
MEECAQAwEwYHKoZIzj0CAQYIKoZIzj0DAQcEJzAlAgEBBCA2flr+AcOiT+tL6hpD
60Sj+e3WUuQHvtvQ3uEJrcXgYA==
-----END PRIVATE KEY-----
";
const SPKI: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEQE9+s3KkhXGcNbwqsTgdo9o1pXN8
uRIwc2r+g2j44ZEOD9L/wcMi86huXbFAWkGtkfTq/e3B2NLzRy5utWBidQ==
-----END PUBLIC KEY-----
";
const PARAMETERS: &str = "-----BEGIN EC PARAMETERS-----
BggqhkjOPQMBBw==
-----END EC PARAMETERS-----
";
const SECRET: &str = "Nn5a_gHDok_rS-oaQ-tEo_nt1lLkB77b0N7hCa3F4GA";
const PUBLIC: &str =
    "BEBPfrNypIVxnDW8KrE4HaPaNaVzfLkSMHNq_oNo-OGRDg_S_8HDIvOobl2xQFpBrZH06v3twdjS80cubrVgYnU";
const X: &str = "QE9-s3KkhXGcNbwqsTgdo9o1pXN8uRIwc2r-g2j44ZE";
const Y: &str = "Dg_S_8HDIvOobl2xQFpBrZH06v3twdjS80cubrVgYnU";

/// Another curve each: secp256k1 in both PEM forms, P-384; and P-256 with its parameters spelled out.
const OTHER_CURVES: [&str; 4] = [
    "-----BEGIN EC PRIVATE KEY-----
MHQCAQEEIMEPVLg1l1Xs84tX4Vkf01Tj4Eg54DdY44u89SUcpN2joAcGBSuBBAAK
oUQDQgAEJsR5Q5nNXcngWhcbqmUUkXdNwcaUrhcV0az5qGJ6vD85b4E7h7+BMHSi
Or5p+tFz7+HLgEfogOMwV0GbHsCxHg==
-----END EC PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----
MIGEAgEAMBAGByqGSM49AgEGBSuBBAAKBG0wawIBAQQgwQ9UuDWXVezzi1fhWR/T
VOPgSDngN1jji7z1JRyk3aOhRANCAAQmxHlDmc1dyeBaFxuqZRSRd03BxpSuFxXR
rPmoYnq8PzlvgTuHv4EwdKI6vmn60XPv4cuAR+iA4zBXQZsewLEe
-----END PRIVATE KEY-----",
    "-----BEGIN EC PRIVATE KEY-----
MIGkAgEBBDCJo3+6JkSrCic6OXhANL4mbPIrFsPhNpfK/cbV4V+iktj9lPHRW68u
9u11MyWfSyugBwYFK4EEACKhZANiAAS8uDvzzvS4NUzhze3tFqIu7I45pBRN2E9T
EsEEExHnSIfNigTg1QWmnmVcfRP15H5J8XyGKSMWULdoXMm9kSfx4qZLFgw69SQz
PwqOnEFONPgO3vpgJ89pJqc5f3z3sr8=
-----END EC PRIVATE KEY-----",
    "-----BEGIN EC PRIVATE KEY-----
MIIBaAIBAQQgNn5a/gHDok/rS+oaQ+tEo/nt1lLkB77b0N7hCa3F4GCggfowgfcC
AQEwLAYHKoZIzj0BAQIhAP////8AAAABAAAAAAAAAAAAAAAA////////////////
MFsEIP////8AAAABAAAAAAAAAAAAAAAA///////////////8BCBaxjXYqjqT57Pr
vVV2mIa8ZR0GsMxTsPY7zjw+J9JgSwMVAMSdNgiG5wSTamZ44ROdJreBn36QBEEE
axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54W
K84zV2sxXs7LtkBoN79R9QIhAP////8AAAAA//////////+85vqtpxeehPO5ysL8
YyVRAgEBoUQDQgAEQE9+s3KkhXGcNbwqsTgdo9o1pXN8uRIwc2r+g2j44ZEOD9L/
wcMi86huXbFAWkGtkfTq/e3B2NLzRy5utWBidQ==
-----END EC PRIVATE KEY-----",
];

/// Ed25519 and X25519.
const OTHER_ALGORITHMS: [&str; 2] = [
    "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAtiTDHMUy6PgtWbPjZIsWmLcHfejt+8AebMsMJ45LKK
-----END PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VuBCIEIMjdcrzKden6JeuDuS5pLWENHvszGQhE37FHwaVKn7VJ
-----END PRIVATE KEY-----",
];

const PROTECTED: [&str; 2] = [
    "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjbiu5NgfTRJAICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEMOFcLELXakdOCkaUZg4YxoEgZAK
aOoNgqE/VX+K8h5Jqmx191VOaV+KTMle38AkdwEOsNpbMySZFgg670WhX86mx5H5
li6GQkZ2tA43SmrhV1F9alIMCrxR5I0d11qVbhgDYBPmB8YcK1y66YOd9wQjfHfO
aVxfBvSYDqh91V2kbNxYHETspDsLIaBADSfRdmwYkXdMG/sZZ0H8DLcc8NsPzhU=
-----END ENCRYPTED PRIVATE KEY-----",
    "-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,B087775C0E352A7DBD6A96B015CA7C3A

/uZnMaFlamSlS9/jVVGise4eYvc7brk3tH866rA1gm6XXlXu6wmxswyE19wX6moI
-----END EC PRIVATE KEY-----",
];

fn body(pem: &str) -> String {
    pem.lines().filter(|line| !line.starts_with('-')).collect()
}

fn der(pem: &str) -> Vec<u8> {
    base64_any(&body(pem)).unwrap().to_vec()
}

fn kind(key: impl AsRef<[u8]>) -> VapidErrorKind {
    VapidKey::parse(key).unwrap_err().kind()
}

#[track_caller]
fn assert_is_the_key(key: impl AsRef<[u8]>) {
    let key = VapidKey::parse(key).unwrap();
    assert_eq!(key.public_key().to_base64url(), PUBLIC);
    assert_eq!(*key.secret_to_raw_base64url(), SECRET);
}

#[test]
fn openssl_pem_is_read_with_and_without_the_public_key() {
    for pem in [SEC1, SEC1_NO_PUBLIC, PKCS8, PKCS8_NO_PUBLIC] {
        assert_is_the_key(pem);
        assert_is_the_key(pem.replace('\n', "\r\n"));
        assert_is_the_key(pem.replace('\n', "\\n"));
        assert_is_the_key(pem.replace('\n', " "));
        assert_is_the_key(format!("\u{feff}# the key\n{PARAMETERS}{pem}{SPKI}"));
    }
}

#[test]
fn der_is_read_bare_and_in_base64() {
    for pem in [SEC1, SEC1_NO_PUBLIC, PKCS8, PKCS8_NO_PUBLIC] {
        assert_is_the_key(der(pem));
        assert_is_the_key(body(pem));
        assert_is_the_key(format!(" {}\n", body(pem)));
        assert_is_the_key(base64url(&der(pem)));
    }
}

#[test]
fn the_bare_number_is_read() {
    assert_is_the_key(SECRET);
    assert_is_the_key(format!("\n{SECRET}=  "));
    assert_is_the_key(SECRET.replace('-', "+").replace('_', "/"));
    assert_is_the_key(base64_any(SECRET).unwrap().as_slice());
    let with_sign = [&[0], base64_any(SECRET).unwrap().as_slice()].concat();
    assert_is_the_key(base64url(&with_sign));
}

/// `openssl ec -text -noout` prints the number so, with a zero octet in front of this one where its first bit is set.
#[test]
fn hex_is_read() {
    let hex = |octets: &[u8], between: &str| {
        let octets: Vec<_> = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        octets.join(between)
    };
    let number = base64_any(SECRET).unwrap();
    let printed = hex(&number, "");
    assert_is_the_key(&printed);
    assert_is_the_key(printed.to_uppercase());
    assert_is_the_key(format!("0x{printed}\n"));
    assert_is_the_key(format!("00{printed}"));
    assert_is_the_key(hex(&number, ":").replacen(":", ":\n    ", 15));
    for pem in [SEC1, SEC1_NO_PUBLIC, PKCS8, PKCS8_NO_PUBLIC] {
        assert_is_the_key(hex(&der(pem), ""));
    }
    let lines: Vec<_> = printed.as_bytes().chunks(16).collect();
    assert_is_the_key(lines.join(&b"\n"[..]));
    for damaged in [&printed[2..60], &printed[1..], &format!("{printed}0")] {
        assert_eq!(
            kind(damaged),
            VapidErrorKind::InvalidPrivateKey,
            "{damaged}"
        );
    }
}

#[test]
fn base64_of_a_whole_file_is_read() {
    let pair = format!(r#"{{"publicKey":"{PUBLIC}","privateKey":"{SECRET}"}}"#);
    let files = [SEC1, SEC1_NO_PUBLIC, PKCS8, PKCS8_NO_PUBLIC].map(str::to_owned);
    let files = files.into_iter().chain([
        format!("\u{feff}{PARAMETERS}{SEC1}{SPKI}"),
        PKCS8.replace('\n', "\r\n"),
        jwk(SECRET, X, Y, ""),
        pair,
    ]);
    for file in files {
        let standard = Base64::encode_string(file.as_bytes());
        assert_is_the_key(&standard);
        assert_is_the_key(base64url(file.as_bytes()));
        let wrapped: Vec<_> = standard.as_bytes().chunks(76).collect();
        assert_is_the_key(wrapped.join(&b"\n"[..]));
        assert_is_the_key(wrapped.join(&b"\\n"[..]));
    }
    // The errors are those of the file itself.
    for (file, expected) in [
        (PROTECTED[0], VapidErrorKind::PasswordProtected),
        (SPKI, VapidErrorKind::PublicKeyGiven),
        (OTHER_CURVES[0], VapidErrorKind::NotP256),
        (PARAMETERS, VapidErrorKind::InvalidPrivateKey),
    ] {
        assert_eq!(kind(base64url(file.as_bytes())), expected, "{file}");
    }
    // Once is enough.
    let twice = base64url(base64url(SEC1.as_bytes()).as_bytes());
    assert_eq!(kind(twice), VapidErrorKind::InvalidPrivateKey);
}

#[test]
fn a_public_key_is_named_as_one() {
    let point = VapidPublicKey::parse(PUBLIC).unwrap();
    let hex: String = point
        .as_bytes()
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    let jwk = format!(r#"{{"kty":"EC","crv":"P-256","x":"{X}","y":"{Y}"}}"#);
    for public in [
        PUBLIC,
        SPKI,
        &format!("{PARAMETERS}{SPKI}"),
        &body(SPKI),
        &hex,
        &jwk,
        &format!(r#"{{"publicKey":{jwk},"privateKey":{jwk}}}"#),
    ] {
        assert_eq!(kind(public), VapidErrorKind::PublicKeyGiven, "{public}");
    }
    assert_eq!(kind(der(SPKI)), VapidErrorKind::PublicKeyGiven);
    assert_eq!(kind(point.as_bytes()), VapidErrorKind::PublicKeyGiven);
    // 65 octets that are no point are nothing.
    let mut no_point = *point.as_bytes();
    no_point[64] ^= 1;
    assert_eq!(kind(no_point), VapidErrorKind::InvalidPrivateKey);
}

#[test]
fn json_is_read() {
    assert_is_the_key(jwk(SECRET, X, Y, ""));
    assert_is_the_key(jwk(
        SECRET,
        X,
        Y,
        r#","key_ops":["sign"],"ext":true,"alg":"ES256","use":"sig""#,
    ));
    assert_is_the_key(format!(
        "{{\"publicKey\":\"{PUBLIC}\",\"privateKey\":\"{SECRET}\"}}\n"
    ));
    // Of each member either form; blanks, members of no meaning and an escaped slash do not matter.
    let private = jwk(SECRET, X, Y, r#","key_ops":["sign"],"ext":true"#);
    let public =
        format!(r#"{{"kty":"EC","crv":"P-256","x":"{X}","y":"{Y}","key_ops":["verify"]}}"#);
    let escaped = SECRET.replace('-', "+").replace('_', "\\/");
    for pair in [
        format!(r#"{{"publicKey":{public},"privateKey":{private}}}"#),
        format!("{{\n \"privateKey\" : {private},\n \"publicKey\" : \"{PUBLIC}\", \"kid\": 1 }}"),
        format!(r#"{{"publicKey":{public},"privateKey":"{escaped}"}}"#),
    ] {
        assert_is_the_key(pair);
    }
}

fn jwk(d: &str, x: &str, y: &str, more: &str) -> String {
    format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}","d":"{d}"{more}}}"#)
}

/// `x` and `y` of a JWK.
fn coordinates(key: &VapidPublicKey) -> (String, String) {
    let (x, y) = key.as_bytes()[1..].split_at(32);
    (base64url(x), base64url(y))
}

#[test]
fn a_jwk_of_another_kind_is_refused() {
    let good = jwk(SECRET, X, Y, "");
    for other in [
        good.replace("\"EC\"", "\"OKP\""),
        good.replace("P-256", "P-384"),
        r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.to_owned(),
    ] {
        assert_eq!(kind(&other), VapidErrorKind::NotP256, "{other}");
        let pair = format!(r#"{{"publicKey":{other},"privateKey":{good}}}"#);
        assert_eq!(kind(&pair), VapidErrorKind::NotP256, "{pair}");
    }
    for bad in [
        good.replace("\"y\"", "\"z\""),
        format!(r#"{{"publicKey":null,"privateKey":{good}}}"#),
        format!(r#"{{"publicKey":{good},"privateKey":[]}}"#),
        format!(r#"{{"privateKey":{good}}}"#),
        jwk(SECRET, X, Y, r#","use":"enc""#),
        jwk(SECRET, X, Y, r#","alg":"ECDH-ES""#),
        jwk(SECRET, X, Y, &format!(r#","d":"{SECRET}""#)),
        good[..good.len() - 1].to_owned(),
        "{}".to_owned(),
    ] {
        assert_eq!(kind(&bad), VapidErrorKind::InvalidPrivateKey, "{bad}");
    }
    assert_eq!(
        kind(jwk(SECRET, &X[2..], Y, "")),
        VapidErrorKind::InvalidPublicKey
    );
}

#[test]
fn a_public_key_of_another_pair_is_refused() {
    let other = VapidKey::generate().unwrap();
    let (x, y) = coordinates(other.public_key());
    let mismatch = VapidErrorKind::KeyPairMismatch;
    assert_eq!(kind(jwk(SECRET, &x, &y, "")), mismatch);
    let pair = format!(
        "{{\"publicKey\":\"{}\",\"privateKey\":\"{SECRET}\"}}",
        other.public_key()
    );
    assert_eq!(kind(pair), mismatch);
    let pair = format!(
        r#"{{"publicKey":{},"privateKey":{}}}"#,
        jwk(&other.secret_to_raw_base64url(), &x, &y, ""),
        jwk(SECRET, X, Y, "")
    );
    assert_eq!(kind(pair), mismatch);
    let pem = format!("{}{SPKI}", *other.secret_to_pkcs8_pem());
    assert_eq!(kind(pem), mismatch);
    let error = VapidKey::parse_pair(SEC1, &other.public_key().to_base64url()).unwrap_err();
    assert_eq!(error.kind(), mismatch);
    assert!(VapidKey::parse_pair(SEC1, &format!("{PUBLIC}=")).is_ok());
    // Inside the DER, where `p256` itself compares.
    for pem in [SEC1, PKCS8] {
        let mut der = der(pem);
        let at = der.len() - 65;
        der[at..].copy_from_slice(other.public_key().as_bytes());
        assert_eq!(kind(&der), VapidErrorKind::InvalidPrivateKey);
    }
}

#[test]
fn a_public_key_at_the_end_of_pkcs8_is_compared() {
    let other = VapidKey::generate().unwrap();
    let with = |public_key: &VapidPublicKey| {
        let version_1 = der(PKCS8_NO_PUBLIC);
        let mut der = vec![0x30, 0x81, 0x85, 0x02, 0x01, 0x01];
        der.extend_from_slice(&version_1[5..]);
        der.extend_from_slice(&[0x81, 0x42, 0x00]);
        der.extend_from_slice(public_key.as_bytes());
        der
    };
    assert_is_the_key(with(&VapidPublicKey::parse(PUBLIC).unwrap()));
    assert_eq!(
        kind(with(other.public_key())),
        VapidErrorKind::KeyPairMismatch
    );
}

#[test]
fn another_curve_is_refused() {
    let [named @ .., spelled_out] = OTHER_CURVES;
    for pem in named.into_iter().chain(OTHER_ALGORITHMS) {
        assert_eq!(kind(pem), VapidErrorKind::NotP256, "{pem}");
        assert_eq!(kind(der(pem)), VapidErrorKind::NotP256, "{pem}");
    }
    assert_eq!(kind(spelled_out), VapidErrorKind::InvalidPrivateKey);
    assert_eq!(kind(der(spelled_out)), VapidErrorKind::InvalidPrivateKey);
    // By its label: the DER of RSA names no algorithm.
    let rsa = "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----";
    assert_eq!(kind(rsa), VapidErrorKind::NotP256);
}

#[test]
fn a_password_protected_key_says_so() {
    for pem in PROTECTED {
        assert_eq!(kind(pem), VapidErrorKind::PasswordProtected, "{pem}");
    }
    assert_eq!(kind(der(PROTECTED[0])), VapidErrorKind::PasswordProtected);
}

/// By chance, or by the choice of the one that made it.
#[test]
fn a_key_whose_base64_spells_the_word_is_not_protected() {
    let mut number = [7; 32];
    let spelled = base64_any("AENCRYPTEDAA").unwrap();
    number[..spelled.len()].copy_from_slice(&spelled);
    let key = VapidKey::from_secret_bytes(&number).unwrap();
    let pem = key.secret_to_pkcs8_pem();
    assert!(pem.contains("ENCRYPTED"), "{}", *pem);
    let again = VapidKey::parse(pem.as_str()).unwrap();
    assert_eq!(*again.secret_bytes(), number);
}

#[test]
fn a_key_that_looks_protected_is_still_a_key() {
    let mut number = [7; 32];
    number[..11].copy_from_slice(b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d");
    let key = VapidKey::from_secret_bytes(&number).unwrap();
    let sec1 = key.secret.to_sec1_der().unwrap();
    for der in [sec1.as_slice(), &key.secret_to_pkcs8_der()] {
        let again = VapidKey::parse(der).unwrap();
        assert_eq!(again.public_key(), key.public_key());
    }
}

#[test]
fn two_private_keys_are_refused() {
    assert_eq!(
        kind(format!("{SEC1}{PKCS8}")),
        VapidErrorKind::InvalidPrivateKey
    );
}

#[test]
fn damaged_text_is_refused() {
    for text in [
        "",
        "   ",
        "hello",
        PARAMETERS,
        &SECRET[..40],
        &SECRET[..42],
        &SEC1.replace("-----END EC", "-----END"),
        &SEC1.replace("MHcC", "MH!C"),
        &SEC1[..SEC1.len() - 20],
        &format!("{}A", body(SEC1)),
        &"A".repeat(MAX_TEXT + 1),
    ] {
        assert_eq!(kind(text), VapidErrorKind::InvalidPrivateKey, "{text}");
    }
    let der = der(PKCS8);
    // Any 32 octets are a key.
    for len in (0..der.len()).filter(|len| *len != VapidKey::SECRET_LEN) {
        assert!(VapidKey::parse(&der[..len]).is_err(), "{len}");
    }
    assert!(VapidKey::parse([&der[..], &[0]].concat()).is_err());
}

#[test]
fn zero_and_numbers_from_the_order_up_are_refused() {
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let mut order: Vec<u8> = (0..64)
        .step_by(2)
        .map(|at| u8::from_str_radix(&order[at..at + 2], 16).unwrap())
        .collect();
    assert!(VapidKey::from_secret_bytes(&order).is_err());
    assert!(VapidKey::from_secret_bytes(&[0; 32]).is_err());
    assert!(VapidKey::from_secret_bytes(&[0; 33]).is_err());
    assert!(VapidKey::from_secret_bytes(&[1; 33]).is_err());
    assert!(VapidKey::from_secret_bytes(&[]).is_err());
    assert!(VapidKey::from_secret_bytes(&[0xff; 32]).is_err());
    order[31] -= 1;
    assert!(VapidKey::from_secret_bytes(&order).is_ok());
}

#[test]
fn a_short_key_gets_its_zeros_back_in_front() {
    let mut number = [7; 32];
    number[0] = 0;
    let whole = VapidKey::from_secret_bytes(&number).unwrap();
    let short = VapidKey::parse(base64url(&number[1..])).unwrap();
    assert_eq!(short.public_key(), whole.public_key());
    assert_eq!(*short.secret_bytes(), number);
    let (x, y) = coordinates(whole.public_key());
    let json = jwk(&base64url(&number[1..]), &x, &y, "");
    assert_eq!(
        VapidKey::parse(json).unwrap().public_key(),
        whole.public_key()
    );
}

#[test]
fn every_form_written_is_read_back() {
    for _ in 0..8 {
        let key = VapidKey::generate().unwrap();
        for again in [
            VapidKey::from_pem(&key.secret_to_pkcs8_pem()),
            VapidKey::from_pkcs8_der(&key.secret_to_pkcs8_der()),
            VapidKey::from_raw_base64(&key.secret_to_raw_base64url()),
            VapidKey::from_secret_bytes(key.secret_bytes().as_slice()),
        ] {
            assert_eq!(again.unwrap().public_key(), key.public_key());
        }
    }
}

#[test]
fn what_is_written_equals_what_openssl_and_p256_write() {
    let key = VapidKey::parse(SECRET).unwrap();
    assert_eq!(*key.secret_to_pkcs8_pem(), PKCS8);
    assert_eq!(*key.secret_to_pkcs8_der(), der(PKCS8));
    let p256 = SecretKey::from_slice(key.secret_bytes().as_slice()).unwrap();
    let pem = p256.to_pkcs8_pem(LineEnding::LF).unwrap();
    assert_eq!(*key.secret_to_pkcs8_pem(), *pem);
}

#[test]
fn debug_and_errors_show_no_secret() {
    let key = VapidKey::parse(SECRET).unwrap();
    assert_eq!(format!("{key:?}"), format!("VapidKey({})", key.id()));
    for text in [
        format!("{SECRET}AAAA"),
        jwk(SECRET, Y, X, ""),
        SEC1.replace("MHcC", "MHdC"),
    ] {
        let error = format!("{:?}", VapidKey::parse(text).unwrap_err());
        assert!(
            !error.contains(&SECRET[..8]) && !error.contains("Nn5a"),
            "{error}"
        );
    }
}
