//! The request header `traceparent` of W3C Trace Context.

use http::{HeaderMap, HeaderName};

use crate::broadcast::TraceParent;

/// Reads the header. A wrong one is ignored, as are several: the request goes on without a trace (Trace Context section 3.2.4).
pub(crate) fn trace_parent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all(&TRACEPARENT).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    TraceParent::parse(value.to_str().ok()?).ok()
}

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(values: &[&[u8]]) -> Option<TraceParent> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&TRACEPARENT, HeaderValue::from_bytes(value).unwrap());
        }
        trace_parent(&headers)
    }

    #[test]
    fn one_header_is_read_and_a_wrong_one_ignored() {
        let parent = PARENT.parse().unwrap();
        assert_eq!(read(&[PARENT.as_bytes()]), Some(parent));
        let zeros = PARENT.replace("00f067aa0ba902b7", &"0".repeat(16));
        let wrong: [&[&[u8]]; 5] = [
            &[],
            &[b""],
            &[b"\xff"],
            &[zeros.as_bytes()],
            &[PARENT.as_bytes(), PARENT.as_bytes()],
        ];
        for values in wrong {
            assert_eq!(read(values), None, "{values:?}");
        }
    }
}
