//! Several records, cut, swapped and changed. The RFC's own examples are in the vector tests.

use super::*;

const IKM: &[u8] = b"0123456789abcdef";

/// 21 octets of header, then records of 25 octets with 8 of data each.
fn body() -> Vec<u8> {
    encrypt(IKM, b"", 25, b"twenty octets of data").unwrap()
}

fn refused(body: &[u8]) -> bool {
    matches!(decrypt(IKM, body), Err(error) if error.kind() == EceErrorKind::NotAuthentic)
}

#[test]
fn plaintexts_around_a_record_boundary_survive() {
    for len in 0..60 {
        let plaintext = vec![b'x'; len];
        for record_size in [18, 25, 26, 4096, u32::MAX] {
            let body = encrypt(IKM, b"k", record_size, &plaintext).unwrap();
            assert_eq!(
                body.capacity(),
                body.len(),
                "one allocation of the right size"
            );
            assert_eq!(
                decrypt(IKM, &body).unwrap(),
                plaintext,
                "{len} {record_size}"
            );
        }
    }
}

#[test]
fn a_plaintext_that_ends_in_delimiters_and_zeros_survives() {
    for plaintext in [&[0_u8; 30][..], &[2, 0, 0], &[1, 0, 2, 0, 1, 2]] {
        let body = encrypt(IKM, b"", 20, plaintext).unwrap();
        assert_eq!(decrypt(IKM, &body).unwrap(), plaintext);
    }
}

#[test]
fn a_body_cut_anywhere_is_refused() {
    let body = body();
    for len in 21..body.len() {
        assert!(refused(&body[..len]), "{len}");
    }
}

#[test]
fn records_out_of_order_twice_or_left_out_are_refused() {
    let body = body();
    let (header, records) = body.split_at(21);
    let (first, rest) = records.split_at(25);
    let (second, last) = rest.split_at(25);
    for records in [
        [second, first, last].concat(),
        [first, first, last].concat(),
        [first, last].concat(),
        [second, last].concat(),
        [last].concat(),
    ] {
        assert!(refused(&[header, &records].concat()));
    }
}

#[test]
fn a_header_alone_is_refused() {
    assert!(refused(&body()[..21]));
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let body = body();
    for bit in 0..body.len() * 8 {
        let mut changed = body.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(decrypt(IKM, &changed).is_err(), "bit {bit}");
    }
}

#[test]
fn another_key_opens_nothing() {
    assert!(decrypt(b"0123456789abcdeF", &body()).is_err());
}

#[test]
fn every_body_has_its_own_salt() {
    assert_ne!(body()[..16], body()[..16]);
}

#[test]
fn a_failed_open_leaves_the_plaintext_as_it_was() {
    let keys = Keys::derive(IKM, &[0; 16]);
    let mut record = Vec::new();
    keys.seal(0, b"data", Delimiter::More, 3, &mut record)
        .unwrap();
    let mut plaintext = b"before".to_vec();
    assert!(
        keys.open(0, &record, Delimiter::Last, &mut plaintext)
            .is_err()
    );
    assert!(
        keys.open(1, &record, Delimiter::More, &mut plaintext)
            .is_err()
    );
    assert_eq!(plaintext, b"before");
    keys.open(0, &record, Delimiter::More, &mut plaintext)
        .unwrap();
    assert_eq!(plaintext, b"beforedata");
}

#[test]
fn limits_of_the_header_are_errors_of_encrypt() {
    assert_eq!(
        encrypt(IKM, b"", 17, b"").unwrap_err().kind(),
        EceErrorKind::InvalidRecordSize
    );
    assert_eq!(
        encrypt(IKM, &[0; 256], 18, b"").unwrap_err().kind(),
        EceErrorKind::KeyIdTooLong
    );
}

#[test]
fn keys_are_not_printed() {
    assert_eq!(format!("{:?}", Keys::derive(IKM, &[0; 16])), "Keys(..)");
}

/// It would be too much to reserve, let alone to encrypt.
#[test]
fn a_record_that_no_memory_holds_is_refused_and_changes_nothing() {
    let keys = Keys::derive(b"ikm", &[7; SALT_LEN]);
    for padding in [usize::MAX, usize::MAX - 1, 1 << 36, (1 << 36) - 36] {
        let mut body = b"before".to_vec();
        let error = keys.seal(0, b"data", Delimiter::Last, padding, &mut body);
        assert_eq!(error.unwrap_err().kind(), EceErrorKind::RecordTooLong);
        assert_eq!(body, b"before");
    }
}
