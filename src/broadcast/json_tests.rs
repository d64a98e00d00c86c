use serde_json::json;

use super::*;

const TITLE: &str = r#"{"title":"Shipped"}"#;

fn read(audience: &str, message: &str, opts: &str) -> Result<Broadcast, Refusal> {
    Broadcast::from_outbox(audience, message, opts).map(|(broadcast, _)| broadcast)
}

#[test]
fn an_entry_of_an_outbox_is_a_broadcast() {
    let opts = json!({
        "sendAt": "2030-01-01T00:00:00Z",
        "pace": {"perSecond": 5},
        "idempotencyKey": "order-7",
        "id": "67e55044-10b1-426f-9247-bb680e5fe0c8",
        "notify": true,
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    });
    let message =
        r#"{"payload": {"b": 1, "a": [2]}, "ttl": 60, "urgency": "high", "topic": "orders"}"#;
    let (broadcast, id) =
        Broadcast::from_outbox(r#"{"user":"alice"}"#, message, &opts.to_string()).unwrap();
    assert_eq!(broadcast.audience, Audience::user("alice"));
    let payload = broadcast.message.payload().unwrap();
    assert_eq!(payload, br#"{"b": 1, "a": [2]}"#.as_slice());
    assert_eq!(broadcast.message.ttl(), Ttl::from_secs(60));
    assert_eq!(broadcast.message.urgency(), Urgency::High);
    assert_eq!(broadcast.message.topic().map(Topic::as_str), Some("orders"));
    assert_eq!(broadcast.send_at, Some(Timestamp::from_secs(1_893_456_000)));
    assert_eq!(broadcast.pace.map(NonZeroU32::get), Some(5));
    assert_eq!(broadcast.idempotency_key.as_deref(), Some("order-7"));
    let parent = opts["traceparent"].as_str().unwrap().parse().unwrap();
    assert_eq!(broadcast.trace_parent, Some(parent));
    let expected = "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap();
    assert_eq!(id, Some(expected));
    // Null counts as absent.
    let nothing = r#"{"sendAt":null,"pace":null,"idempotencyKey":null,"id":null,"notify":null}"#;
    for opts in ["{}", nothing] {
        let (broadcast, id) = Broadcast::from_outbox("\"all\"", TITLE, opts).unwrap();
        assert_eq!(broadcast.audience, Audience::All);
        assert_eq!((broadcast.send_at, broadcast.pace, id), (None, None, None));
        assert_eq!(broadcast.idempotency_key, None);
    }
}

#[test]
fn a_wrong_trace_parent_is_ignored() {
    for wrong in [
        json!(null),
        json!(7),
        json!({}),
        json!(""),
        json!("00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
        json!("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ] {
        let opts = json!({"traceparent": wrong, "pace": {"perSecond": 5}}).to_string();
        let broadcast = read("\"all\"", TITLE, &opts).unwrap();
        assert_eq!(broadcast.trace_parent, None, "{opts}");
        assert!(broadcast.pace.is_some());
    }
}

#[test]
fn what_is_wrong_in_an_outbox_is_refused_with_its_code() {
    let all = "\"all\"";
    let large = format!(r#"{{"payload":"{}"}}"#, "x".repeat(3992));
    let huge = format!(r#"{{"title":"{}"}}"#, "x".repeat(MAX_JSON));
    let binary = format!(r#"{{"serialized":{{"payload":"{}"}}}}"#, "A".repeat(5326));
    for (code, audience, message, opts) in [
        // Nobody sends to everybody by accident.
        ("invalid_audience", "null", TITLE, "{}"),
        ("invalid_audience", "", TITLE, "{}"),
        ("invalid_audience", r#"{"user":7}"#, TITLE, "{}"),
        ("invalid_audience", r#"{"tag":"a b"}"#, TITLE, "{}"),
        ("invalid_audience", r#"{"ids":["x"]}"#, TITLE, "{}"),
        ("invalid_audience", r#""everybody""#, TITLE, "{}"),
        ("invalid_json", all, "null", "{}"),
        ("invalid_json", all, "[]", "{}"),
        ("invalid_json", all, "{", "{}"),
        ("invalid_json", all, TITLE, "7"),
        ("body_too_large", all, &huge, "{}"),
        ("missing_content", all, "{}", "{}"),
        ("missing_content", all, r#"{"body":"x"}"#, "{}"),
        (
            "ambiguous_content",
            all,
            r#"{"title":"a","payload":1}"#,
            "{}",
        ),
        (
            "ambiguous_content",
            all,
            r#"{"title":"a","serialized":{}}"#,
            "{}",
        ),
        ("payload_too_large", all, &large, "{}"),
        ("payload_too_large", all, &binary, "{}"),
        ("invalid_member", all, r#"{"title":7}"#, "{}"),
        ("invalid_member", all, r#"{"title":null}"#, "{}"),
        ("invalid_member", all, r#"{"title":"a","topic":7}"#, "{}"),
        (
            "invalid_member",
            all,
            r#"{"serialized":{"payloda":""}}"#,
            "{}",
        ),
        ("invalid_member", all, r#"{"serialized":null}"#, "{}"),
        (
            "invalid_member",
            all,
            TITLE,
            r#"{"send_at":"2030-01-01T00:00:00Z"}"#,
        ),
        ("invalid_member", all, TITLE, r#"{"notify":"yes"}"#),
        ("invalid_ttl", all, r#"{"title":"a","ttl":-1}"#, "{}"),
        ("invalid_ttl", all, r#"{"title":"a","ttl":"60"}"#, "{}"),
        (
            "invalid_urgency",
            all,
            r#"{"title":"a","urgency":"now"}"#,
            "{}",
        ),
        ("invalid_topic", all, r#"{"title":"a","topic":"a b"}"#, "{}"),
        ("invalid_send_at", all, TITLE, r#"{"sendAt":1}"#),
        ("invalid_send_at", all, TITLE, r#"{"sendAt":"tomorrow"}"#),
        ("invalid_pace", all, TITLE, r#"{"pace":5}"#),
        ("invalid_pace", all, TITLE, r#"{"pace":{"perSecond":0}}"#),
        (
            "invalid_idempotency_key",
            all,
            TITLE,
            r#"{"idempotencyKey":7}"#,
        ),
        (
            "invalid_idempotency_key",
            all,
            TITLE,
            r#"{"idempotencyKey":"a b"}"#,
        ),
        ("invalid_id", all, TITLE, r#"{"id":"7"}"#),
        ("invalid_id", all, TITLE, r#"{"id":7}"#),
    ] {
        let refusal = read(audience, message, opts).unwrap_err();
        assert_eq!(refusal.code(), code, "{message} {opts}: {refusal:?}");
        assert!(refusal.detail().ends_with('.'), "{refusal:?}");
    }
}

/// The table of an outbox on SQLite takes an entry of this length.
#[test]
fn an_entry_of_an_outbox_may_have_64_kib() {
    let opts = "{}";
    let audience = |octets: usize| format!("{:octets$}", "\"all\"");
    let left = MAX_JSON - TITLE.len() - opts.len();
    assert!(read(&audience(left), TITLE, opts).is_ok());
    let refusal = read(&audience(left + 1), TITLE, opts).unwrap_err();
    assert_eq!(refusal.code(), "body_too_large");
}

#[test]
fn a_refusal_repeats_no_value() {
    for (audience, message, opts) in [
        (r#"{"user":["s3cret"]}"#, TITLE, "{}"),
        ("\"s3cret\"", TITLE, "{}"),
        ("\"all\"", "s3cret", "{}"),
        ("\"all\"", r#"{"title":["s3cret"]}"#, "{}"),
        ("\"all\"", r#"{"serialized":{"s3cret":1}}"#, "{}"),
        ("\"all\"", TITLE, r#"{"s3cret":1}"#),
        ("\"all\"", TITLE, r#"{"id":"s3cret"}"#),
    ] {
        let refusal = read(audience, message, opts).unwrap_err();
        assert!(!format!("{refusal:?} {}", refusal.detail()).contains("s3cret"));
    }
}

#[cfg(feature = "api")]
mod requests {
    use super::*;

    fn requested(body: &str) -> Result<Broadcast, Refusal> {
        let members = serde_json::from_str(body).unwrap();
        Broadcast::from_members(&members, body.as_bytes())
    }

    #[test]
    fn the_contract_lists_the_members_of_a_request() {
        let contract: Value = serde_json::from_str(include_str!("../api/openapi.json")).unwrap();
        let listed = &contract["components"]["schemas"]["Notify"]["properties"];
        let mut listed: Vec<_> = listed.as_object().unwrap().keys().collect();
        let mut known: Vec<_> = Notification::MEMBERS.into_iter().chain(REQUEST).collect();
        listed.sort_unstable();
        known.sort_unstable();
        assert_eq!(listed, known);
    }

    #[test]
    fn a_member_that_is_not_known_is_refused() {
        let all = requested(TITLE).unwrap();
        assert_eq!(all.audience, Audience::All);
        for (body, name) in [
            (r#"{"title":"a","user":"alice"}"#, Some("user")),
            (r#"{"title":"a","user":null}"#, Some("user")),
            (r#"{"title":"a","sendat":"x"}"#, Some("sendat")),
            (r#"{"titel":"a"}"#, Some("titel")),
            (r#"{"payload":1,"Audience":"all"}"#, Some("Audience")),
            (r#"{"title":"a","<b>":1}"#, None),
            (r#"{"title":"a","":1}"#, None),
            (
                r#"{"title":"a","abcdefghijklmnopqrstuvwxyz0123456":1}"#,
                None,
            ),
        ] {
            let Err(Refusal::InvalidMember(refused)) = requested(body) else {
                panic!("{body}");
            };
            assert_eq!(refused.name.as_deref(), name, "{body}");
            let is_named = refused.detail.starts_with(name.unwrap_or("A member"));
            assert!(is_named && refused.detail.contains("audience"), "{body}");
        }
    }
}
