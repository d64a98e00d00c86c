//! The function and the parser of the worker agree, and with `POST /notify`.

use tokio_postgres::error::DbError;

use crate::broadcast::Broadcast;
use crate::store::PostgresStore;
use crate::store::servers;

const ALL: Option<&str> = Some("\"all\"");
const TITLE: Option<&str> = Some(r#"{"title":"a"}"#);

/// Who refuses an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The function, and the parser.
    Function,
    /// The parser alone.
    Worker,
    Nobody,
}

/// Audience, message and options; `None` is SQL's NULL.
type Entry = (By, &'static str, [Option<&'static str>; 3]);

const ENTRIES: &[Entry] = &[
    (By::Nobody, "", [ALL, TITLE, Some("{}")]),
    // The default of `opts`.
    (By::Nobody, "", [ALL, TITLE, None]),
    (By::Nobody, "", [Some(r#"{"user":""}"#), TITLE, None]),
    (By::Nobody, "", [Some(r#"{"tag":"news"}"#), TITLE, None]),
    (By::Nobody, "", [Some(r#"{"ids":[]}"#), TITLE, None]),
    (By::Nobody, "", [ALL, Some(r#"{"payload":null}"#), None]),
    (
        By::Nobody,
        "",
        [ALL, Some(r#"{"payload":{"a":[1]},"x":1}"#), None],
    ),
    (By::Nobody, "", [ALL, Some(r#"{"serialized":{}}"#), None]),
    (
        By::Nobody,
        "",
        [
            ALL,
            TITLE,
            Some(r#"{"sendAt":null,"pace":null,"idempotencyKey":null,"id":null,"notify":null}"#),
        ],
    ),
    (
        By::Nobody,
        "",
        [
            ALL,
            TITLE,
            Some(
                r#"{"sendAt":"2030-01-01T00:00:00Z","pace":{"perSecond":5},"idempotencyKey":"!~","id":"67E55044-10b1-426f-9247-bb680e5fe0c8","notify":false}"#,
            ),
        ],
    ),
    // As an application writes it in a span.
    (
        By::Nobody,
        "",
        [
            ALL,
            TITLE,
            Some(r#"{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}"#),
        ],
    ),
    (By::Function, "invalid_audience", [None, TITLE, None]),
    (
        By::Function,
        "invalid_audience",
        [Some("null"), TITLE, None],
    ),
    (
        By::Function,
        "invalid_audience",
        [Some("\"everybody\""), TITLE, None],
    ),
    (By::Function, "invalid_audience", [Some("{}"), TITLE, None]),
    (
        By::Function,
        "invalid_audience",
        [Some(r#"{"user":7}"#), TITLE, None],
    ),
    (
        By::Function,
        "invalid_audience",
        [Some(r#"{"user":null}"#), TITLE, None],
    ),
    (
        By::Function,
        "invalid_audience",
        [Some(r#"{"ids":"x"}"#), TITLE, None],
    ),
    (
        By::Function,
        "invalid_audience",
        [Some(r#"["all"]"#), TITLE, None],
    ),
    (
        By::Worker,
        "invalid_audience",
        [Some(r#"{"tag":"a b"}"#), TITLE, None],
    ),
    (
        By::Worker,
        "invalid_audience",
        [Some(r#"{"ids":["x"]}"#), TITLE, None],
    ),
    (
        By::Worker,
        "invalid_audience",
        [Some(r#"{"user":"a","tag":"b"}"#), TITLE, None],
    ),
    (By::Function, "invalid_json", [ALL, None, None]),
    (By::Function, "invalid_json", [ALL, Some("null"), None]),
    (By::Function, "invalid_json", [ALL, Some("\"title\""), None]),
    (
        By::Function,
        "invalid_json",
        [ALL, Some(r#"["title"]"#), None],
    ),
    (By::Function, "invalid_json", [ALL, TITLE, Some("[]")]),
    (By::Function, "invalid_json", [ALL, TITLE, Some("null")]),
    (By::Function, "missing_content", [ALL, Some("{}"), None]),
    (
        By::Function,
        "missing_content",
        [ALL, Some(r#"{"body":"x"}"#), None],
    ),
    (
        By::Function,
        "ambiguous_content",
        [ALL, Some(r#"{"title":"a","payload":1}"#), None],
    ),
    (
        By::Function,
        "ambiguous_content",
        [ALL, Some(r#"{"title":"a","serialized":{}}"#), None],
    ),
    (
        By::Worker,
        "invalid_member",
        [ALL, Some(r#"{"title":7}"#), None],
    ),
    (
        By::Worker,
        "invalid_member",
        [ALL, Some(r#"{"title":"a","topic":7}"#), None],
    ),
    (
        By::Worker,
        "invalid_member",
        [ALL, Some(r#"{"serialized":{"a":1}}"#), None],
    ),
    (
        By::Worker,
        "invalid_member",
        [ALL, Some(r#"{"serialized":null}"#), None],
    ),
    (
        By::Worker,
        "invalid_ttl",
        [ALL, Some(r#"{"title":"a","ttl":-1}"#), None],
    ),
    (
        By::Worker,
        "invalid_urgency",
        [ALL, Some(r#"{"title":"a","urgency":"now"}"#), None],
    ),
    (
        By::Worker,
        "invalid_topic",
        [ALL, Some(r#"{"title":"a","topic":"a b"}"#), None],
    ),
    // A number that PostgreSQL holds and no other language does.
    (
        By::Worker,
        "invalid_json",
        [ALL, Some(r#"{"title":"a","data":1e400}"#), None],
    ),
    (
        By::Function,
        "invalid_member",
        [ALL, TITLE, Some(r#"{"send_at":"x"}"#)],
    ),
    (
        By::Function,
        "invalid_member",
        [ALL, TITLE, Some(r#"{"notify":"yes"}"#)],
    ),
    (
        By::Function,
        "invalid_send_at",
        [ALL, TITLE, Some(r#"{"sendAt":1}"#)],
    ),
    (
        By::Worker,
        "invalid_send_at",
        [ALL, TITLE, Some(r#"{"sendAt":"tomorrow"}"#)],
    ),
    (
        By::Function,
        "invalid_pace",
        [ALL, TITLE, Some(r#"{"pace":5}"#)],
    ),
    (
        By::Function,
        "invalid_pace",
        [ALL, TITLE, Some(r#"{"pace":{"perSecond":"5"}}"#)],
    ),
    (
        By::Worker,
        "invalid_pace",
        [ALL, TITLE, Some(r#"{"pace":{"perSecond":0.5}}"#)],
    ),
    (
        By::Function,
        "invalid_idempotency_key",
        [ALL, TITLE, Some(r#"{"idempotencyKey":7}"#)],
    ),
    (
        By::Function,
        "invalid_idempotency_key",
        [ALL, TITLE, Some(r#"{"idempotencyKey":""}"#)],
    ),
    (
        By::Function,
        "invalid_idempotency_key",
        [ALL, TITLE, Some(r#"{"idempotencyKey":"a b"}"#)],
    ),
    (
        By::Function,
        "invalid_idempotency_key",
        [ALL, TITLE, Some(r#"{"idempotencyKey":"a\n"}"#)],
    ),
    (
        By::Function,
        "invalid_idempotency_key",
        [ALL, TITLE, Some(r#"{"idempotencyKey":"ä"}"#)],
    ),
    (
        By::Function,
        "invalid_id",
        [ALL, TITLE, Some(r#"{"id":7}"#)],
    ),
    (
        By::Function,
        "invalid_id",
        [ALL, TITLE, Some(r#"{"id":"7"}"#)],
    ),
    (
        By::Function,
        "invalid_id",
        [
            ALL,
            TITLE,
            Some(r#"{"id":"67e55044-10b1-426f-9247-bb680e5fe0c8\n"}"#),
        ],
    ),
];

/// What the parser says of the texts as they were written. SQL's NULL is JSON's, and that of `opts` its default.
fn parsed(entry: [Option<&str>; 3]) -> &'static str {
    let [audience, message, opts] = entry;
    let (audience, message) = (audience.unwrap_or("null"), message.unwrap_or("null"));
    let read = Broadcast::from_outbox(audience, message, opts.unwrap_or("{}"));
    read.err().map_or("", |refusal| refusal.code())
}

/// What `POST /notify` says of the same members.
#[cfg(feature = "api")]
fn notified(entry: [Option<&str>; 3]) -> Option<&'static str> {
    use serde_json::{Map, Value};

    let [audience, message, opts] = entry;
    // There an absent audience is everybody.
    let audience = audience.filter(|audience| *audience != "null")?;
    let mut members: Map<String, Value> = serde_json::from_str(message?).ok()?;
    let opts: Map<String, Value> = serde_json::from_str(opts.unwrap_or("{}")).ok()?;
    let is_its_own = |key: &String| ["sendAt", "pace"].contains(&key.as_str());
    if members.contains_key("serialized") || !opts.keys().all(is_its_own) {
        return None;
    }
    members.insert("audience".to_owned(), serde_json::from_str(audience).ok()?);
    members.extend(opts);
    // It refuses names that it does not know, which the outbox passes over.
    if crate::broadcast::check_names(&members).is_err() {
        return None;
    }
    let text = serde_json::to_vec(&members).unwrap();
    let read = Broadcast::from_members(&members, &text);
    Some(read.err().map_or("", |refusal| refusal.code()))
}

#[tokio::test]
async fn the_function_refuses_what_the_worker_would_refuse() {
    let Some(url) = servers::shared(servers::Kind::Postgres) else {
        return;
    };
    let name = format!("outbox_{}", uuid::Uuid::new_v4().simple());
    let store = PostgresStore::builder().schema(&name);
    let store = store.connect(&url).await.unwrap();
    let object = store.database().pool.get().await.unwrap();
    let sql = format!("SELECT {name}.enqueue($1::text::jsonb, $2::text::jsonb, $3::text::jsonb)");
    let mut compared = 0;
    for (by, code, entry) in ENTRIES {
        let [audience, message, opts] = entry;
        assert_eq!(parsed(*entry), *code, "{entry:?}");
        let called = object.query(&sql, &[audience, message, opts]).await;
        match called {
            Ok(_) => assert_ne!(*by, By::Function, "{entry:?}"),
            Err(error) => {
                let error: &DbError = error.as_db_error().unwrap();
                assert_eq!(*by, By::Function, "{entry:?}: {error:?}");
                assert_eq!(error.code().code(), "WP400");
                assert_eq!(error.message(), *code, "{entry:?}");
                assert!(error.detail().is_some_and(|detail| detail.ends_with('.')));
            }
        }
        #[cfg(feature = "api")]
        if let Some(notified) = notified(*entry) {
            assert_eq!(notified, *code, "{entry:?}");
            compared += 1;
        }
    }
    assert!(compared > 25 || !cfg!(feature = "api"), "{compared}");
    // Sizes. What is one octet shorter is accepted.
    for (code, message) in [
        (
            "payload_too_large",
            format!(r#"{{"payload":"{}"}}"#, "x".repeat(3992)),
        ),
        ("", format!(r#"{{"payload":"{}"}}"#, "x".repeat(3991))),
        (
            "payload_too_large",
            format!(r#"{{"serialized":{{"payload":"{}"}}}}"#, "A".repeat(5326)),
        ),
        (
            "",
            format!(r#"{{"serialized":{{"payload":"{}"}}}}"#, "A".repeat(5324)),
        ),
        (
            "body_too_large",
            format!(r#"{{"title":"{}"}}"#, "x".repeat(65_536)),
        ),
    ] {
        let entry = [ALL, Some(message.as_str()), Some("{}")];
        assert_eq!(parsed(entry), code);
        let called = object
            .query(&sql, &[&ALL, &Some(&message), &Some("{}")])
            .await;
        match called {
            Ok(_) => assert_eq!(code, ""),
            Err(error) => assert_eq!(error.as_db_error().unwrap().message(), code),
        }
    }
    for (code, length) in [("", 255), ("invalid_idempotency_key", 256)] {
        let opts = format!(r#"{{"idempotencyKey":"{}"}}"#, "k".repeat(length));
        assert_eq!(parsed([ALL, TITLE, Some(&opts)]), code);
        let called = object.query(&sql, &[&ALL, &TITLE, &Some(&opts)]).await;
        match called {
            Ok(_) => assert_eq!(code, ""),
            Err(error) => assert_eq!(error.as_db_error().unwrap().message(), code),
        }
    }
    // The entries that were accepted are read back as they were written.
    let entries = crate::store::DeliveryLedger::outbox(&store, 999)
        .await
        .unwrap();
    let accepted = ENTRIES.iter().filter(|(by, ..)| *by != By::Function);
    let codes: Vec<_> = accepted
        .map(|(_, code, _)| *code)
        .chain(["", "", ""])
        .collect();
    let read = entries.iter().map(|entry| {
        let texts = [&entry.audience, &entry.message, &entry.opts];
        parsed(texts.map(|text| Some(text.as_str())))
    });
    assert_eq!(read.collect::<Vec<_>>(), codes);
    let drop = format!("DROP SCHEMA \"{name}\" CASCADE");
    object.batch_execute(&drop).await.unwrap();
}
