//! Tests of the stored form of VAPID keys.

use super::*;

fn keys(octets: &[u8]) -> KeyEncryptionKeys {
    KeyEncryptionKeys::new(octets.iter().map(|octet| key(*octet)))
}

/// A key that is neither random nor a pattern.
fn key(octet: u8) -> KeyEncryptionKey {
    KeyEncryptionKey::new(&Sha256::digest([octet]).into()).unwrap()
}

fn kind(result: Result<VapidKey, VapidError>) -> VapidErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn a_sealed_key_opens_to_the_same_key() {
    let key = VapidKey::generate().unwrap();
    for (keys, encrypted) in [(keys(&[1]), true), (KeyEncryptionKeys::none(), false)] {
        let sealed = keys.seal(&key).unwrap();
        assert_eq!(sealed.is_encrypted(), encrypted);
        assert!(keys.is_current(&sealed));
        let opened = keys.open(&sealed, key.public_key()).unwrap();
        assert_eq!(opened.public_key(), key.public_key());
        assert_eq!(*opened.secret_bytes(), *key.secret_bytes());
    }
}

#[test]
fn the_first_encrypts_and_all_decrypt() {
    let key = VapidKey::generate().unwrap();
    let old = keys(&[1]).seal(&key).unwrap();
    let both = keys(&[2, 1]);
    assert!(both.open(&old, key.public_key()).is_ok());
    assert!(!both.is_current(&old));
    let new = both.seal(&key).unwrap();
    assert!(keys(&[2]).open(&new, key.public_key()).is_ok());
    assert_eq!(
        kind(keys(&[1]).open(&new, key.public_key())),
        VapidErrorKind::UnknownEncryptionKey
    );
}

#[test]
fn a_clear_key_is_refused_once_keys_are_configured_unless_it_is_to_be_sealed() {
    let key = VapidKey::generate().unwrap();
    let clear = KeyEncryptionKeys::none().seal(&key).unwrap();
    assert_eq!(
        kind(keys(&[1]).open(&clear, key.public_key())),
        VapidErrorKind::ClearKey
    );
    let sealing = keys(&[1]).seal_clear_keys(true);
    assert!(sealing.open(&clear, key.public_key()).is_ok());
    assert!(!sealing.is_current(&clear));
    let sealing = sealing.seal_clear_keys(false);
    assert!(sealing.open(&clear, key.public_key()).is_err());
    let sealed = keys(&[1]).seal(&key).unwrap();
    assert!(!KeyEncryptionKeys::none().is_current(&sealed));
    assert_eq!(
        kind(KeyEncryptionKeys::none().open(&sealed, key.public_key())),
        VapidErrorKind::UnknownEncryptionKey
    );
}

#[test]
fn nonces_are_fresh() {
    let key = VapidKey::generate().unwrap();
    let [one, two] = [(); 2].map(|()| keys(&[1]).seal(&key).unwrap());
    assert_ne!(one.secret_str(), two.secret_str());
}

#[test]
fn any_change_is_noticed() {
    let key = VapidKey::generate().unwrap();
    let sealed = keys(&[1]).seal(&key).unwrap();
    let text = sealed.secret_str();
    for at in 0..text.len() {
        let (before, after) = text.split_at(at);
        let other = if after.starts_with('A') { "B" } else { "A" };
        let changed = SealedVapidKey::new(format!("{before}{other}{}", &after[1..]));
        assert!(keys(&[1]).open(&changed, key.public_key()).is_err(), "{at}");
        let cut = SealedVapidKey::new(&text[..at]);
        assert!(keys(&[1]).open(&cut, key.public_key()).is_err(), "{at}");
    }
    let longer = SealedVapidKey::new(format!("{text}."));
    assert!(keys(&[1]).open(&longer, key.public_key()).is_err());
}

#[test]
fn a_row_does_not_open_as_another_key() {
    let key = VapidKey::generate().unwrap();
    let other = VapidKey::generate().unwrap();
    for keys in [keys(&[1]), KeyEncryptionKeys::none()] {
        let sealed = keys.seal(&key).unwrap();
        assert_eq!(
            kind(keys.open(&sealed, other.public_key())),
            VapidErrorKind::UnreadableKey
        );
    }
}

#[test]
fn a_key_encryption_key_is_32_octets_of_base64() {
    let one = "qXV4Yv1RHMbKn0gTzCZ2PjBdW8EJ_Ut3hsOl5r-Qa7k";
    let octets = base64_any(one).unwrap();
    let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    let list = format!(" {one} , {one}=\n, {hex},{}", hex.to_uppercase());
    let list = KeyEncryptionKeys::parse(&list).unwrap();
    assert_eq!(list.keys.len(), 4);
    assert!(
        list.keys
            .iter()
            .all(|key| key.key.secret_bytes()[..] == octets[..])
    );
    assert!(KeyEncryptionKeys::parse(" ").unwrap().is_empty());
    for text in [&one[1..], &hex[2..], "password", ",", &format!("{one},")] {
        let error = KeyEncryptionKeys::parse(text).unwrap_err();
        assert_eq!(error.kind(), VapidErrorKind::InvalidEncryptionKey, "{text}");
    }
}

#[test]
fn a_key_encryption_key_that_is_a_pattern_is_refused() {
    let of = |octet: fn(u8) -> u8| -> [u8; 32] { std::array::from_fn(|at| octet(at as u8)) };
    for weak in [
        [0; 32],
        [0xff; 32],
        of(|at| at + 1),
        of(|at| 200 - at),
        of(|at| at.wrapping_mul(37)),
        of(|at| at % 2),
        of(|at| (at % 7).wrapping_mul(31)),
        of(|at| at % 8),
        *b"0123456789abcdef0123456789abcdef",
    ] {
        let error = KeyEncryptionKey::new(&weak).unwrap_err();
        assert_eq!(error.kind(), VapidErrorKind::WeakEncryptionKey, "{weak:?}");
        let error = KeyEncryptionKeys::parse(&base64url(&weak)).unwrap_err();
        assert_eq!(error.kind(), VapidErrorKind::WeakEncryptionKey, "{weak:?}");
    }
    // The digits of `openssl rand -hex 16`, taken for the octets themselves: 128 bits all the same.
    assert!(KeyEncryptionKey::new(b"b71f0c2e9a4d5836e07fa1c4952bd368").is_ok());
}

#[test]
fn debug_shows_no_secret() {
    let key = VapidKey::generate().unwrap();
    let clear = KeyEncryptionKeys::none().seal(&key).unwrap();
    assert_eq!(format!("{clear:?}"), "SealedVapidKey(..)");
    let octets: [u8; 32] = Sha256::digest([1]).into();
    let debug = format!("{:?}", KeyEncryptionKey::new(&octets).unwrap());
    let shown = format!("KeyEncryptionKey({})", base64url(&self::key(1).id));
    assert_eq!(debug, shown);
}

/// Stored forms must stay readable. Made with another library: AES-256-GCM of PyCA cryptography.
#[test]
fn the_stored_forms_never_change() {
    let public_key = VapidPublicKey::parse(
        "BH_Nzidw9sRdQYPL7m_bS3tYBzM1e-nvE7rPbjx70VRFx_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    )
    .unwrap();
    assert_eq!(public_key.id().to_string(), "3NJEbKmIMMhDxJOmcjZLqQ");
    let keks = KeyEncryptionKeys::parse("qXV4Yv1RHMbKn0gTzCZ2PjBdW8EJ_Ut3hsOl5r-Qa7k").unwrap();
    let encrypted = "v1.Wxv76UvN.AAECAwQFBgcICQoL.VbLw4c3Uz1vejGIHB_BmUJY1405vEUVSFk3IyDkFFWydrzGqgBOKuJSKR3jKiCgO";
    let clear = "v0.jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI";
    for (keys, text) in [(&keks, encrypted), (&KeyEncryptionKeys::none(), clear)] {
        let key = keys.open(&SealedVapidKey::new(text), &public_key).unwrap();
        assert_eq!(format!("v0.{}", *key.secret_to_raw_base64url()), clear);
        // Except for the nonce and what depends on it, it is written in the same form.
        let again = keys.seal(&key).unwrap();
        let fixed = if keys.is_empty() {
            text.len()
        } else {
            "v1.01234567.".len()
        };
        assert_eq!(again.secret_str()[..fixed], text[..fixed]);
        assert_eq!(again.secret_str().len(), text.len());
    }
}

#[test]
fn sealed_keys_are_equal_when_every_octet_is() {
    let key = VapidKey::generate().unwrap();
    for keys in [keys(&[1]), KeyEncryptionKeys::none()] {
        let sealed = keys.seal(&key).unwrap();
        let text = sealed.secret_str();
        assert!(sealed == SealedVapidKey::new(text));
        for at in 0..text.len() {
            let mut other = text.as_bytes().to_vec();
            *other.get_mut(at).unwrap() ^= 1;
            let other = SealedVapidKey::new(String::from_utf8(other).unwrap());
            assert!(sealed != other, "octet {at}");
            assert!(sealed != SealedVapidKey::new(&text[..at]), "length {at}");
        }
        assert!(sealed != SealedVapidKey::new(format!("{text}A")));
    }
}
