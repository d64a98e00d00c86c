//! What JSON from outside may look like without a change of its meaning.

use serde_json::Value;

/// The text without the byte order mark that .NET and PowerShell write in front of UTF-8. RFC 8259 section 8.1
/// lets a parser ignore it.
pub(crate) fn without_bom(json: &[u8]) -> &[u8] {
    json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json)
}

/// A whole number from 0, also where it is written as `60.0` or `6e1`: RFC 8259 section 6 has one type of
/// number, and some languages write each as a float. Larger numbers than `u64::MAX` count as that.
pub(crate) fn whole_number(value: &Value) -> Option<u64> {
    let Value::Number(number) = value else {
        return None;
    };
    number.as_u64().or_else(|| {
        let float = number.as_f64()?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it has neither a fraction nor a sign; `as` saturates"
        )]
        (float >= 0.0 && float.fract() == 0.0).then_some(float as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_may_be_written_as_a_float() {
        for (text, expected) in [
            ("60", Some(60)),
            ("60.0", Some(60)),
            ("6e1", Some(60)),
            ("6E+1", Some(60)),
            ("600e-1", Some(60)),
            ("0.0", Some(0)),
            ("-0", Some(0)),
            ("-0.0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", Some(u64::MAX)),
            ("1e300", Some(u64::MAX)),
            ("60.5", None),
            ("1e-1", None),
            ("-1", None),
            ("-1.0", None),
            ("true", None),
            ("null", None),
            ("\"60\"", None),
            ("[60]", None),
        ] {
            let value = serde_json::from_str(text).unwrap();
            assert_eq!(whole_number(&value), expected, "{text}");
        }
    }

    #[test]
    fn one_byte_order_mark_is_passed_over() {
        assert_eq!(without_bom(b"\xef\xbb\xbf{}"), b"{}");
        assert_eq!(without_bom(b"{}"), b"{}");
        assert_eq!(
            without_bom(b"\xef\xbb\xbf\xef\xbb\xbf{}"),
            b"\xef\xbb\xbf{}"
        );
        // UTF-16 is not JSON between systems (RFC 8259 section 8.1).
        assert_eq!(without_bom(b"\xff\xfe{\0}\0"), b"\xff\xfe{\0}\0");
    }
}
