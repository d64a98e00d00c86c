//! Rows with any values in any columns: each is imported or refused, as a second judgement has it, and no output shows
//! what was in them.

use std::fs;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use redis::AsyncCommands as _;
use rusqlite::types::Value as Cell;
use tower_web_push::subscription::SubscriptionId;
use tower_web_push::vapid::VapidKey;

use super::process::{Run, import};
use super::sqlite_server::Theirs;
use crate::support::redis_client;
use crate::support::servers::{Kind, Server};

const ROWS: u32 = 1_500;
const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

/// A value, and whether a row with it can be imported.
type Judged<T> = (T, bool);

fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

/// One of the good values, or, in one case of twelve, one of the bad ones.
fn column(good: Vec<Cell>, bad: Vec<Cell>) -> BoxedStrategy<Judged<Cell>> {
    prop_oneof![
        11 => prop::sample::select(good).prop_map(|value| (value, true)),
        1 => prop::sample::select(bad).prop_map(|value| (value, false)),
    ]
    .boxed()
}

fn samples<S: Strategy>(strategy: &S) -> impl Iterator<Item = S::Value> {
    let mut runner = TestRunner::deterministic();
    std::iter::from_fn(move || Some(strategy.new_tree(&mut runner).unwrap().current()))
}

/// Checks the report and what else was printed.
fn check(run: &Run, created: u32, refused: u32, secrets: &[String]) {
    assert_eq!(run.code, Some(3), "{run:?}");
    let report = format!(
        "Subscriptions: {created} created, 0 updated, 0 unchanged, 0 superseded, {refused} refused"
    );
    assert!(run.out.contains(&report), "{report}: {run:?}");
    let printed = run.all();
    assert!(!printed.contains("panicked"), "{printed}");
    for secret in secrets {
        assert!(!printed.contains(secret.as_str()), "{secret}: {printed}");
    }
}

#[tokio::test]
async fn of_the_sqlite_servers_tables() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = Theirs::new(folder.path());
    theirs.key(1);
    theirs.key(2);
    let bad_keys = [("x", "x"), ("", ""), (P256DH, "AAAA"), (P256DH, P256DH)];
    for (id, (public, private)) in (3..).zip(bad_keys) {
        let sql = "INSERT INTO vapid_key VALUES (?1, ?2, ?3)";
        theirs.conn.execute(sql, (id, public, private)).unwrap();
    }
    let blob = |octets: &[u8]| Cell::Blob(octets.to_vec());
    let auth = column(
        vec![text(AUTH), text("BTBZMqHH6r4Tts7J/aSIgg==")],
        vec![
            text(""),
            text("BTBZMqHH6r4Tts7J_aSIgg="),
            text("\u{0}secret of a row"),
            blob(&[5; 16]),
            Cell::Integer(7),
        ],
    );
    let p256dh = column(
        vec![text(P256DH)],
        vec![
            text(AUTH),
            text(&P256DH[1..]),
            blob(&[4; 65]),
            Cell::Real(0.5),
            text("\u{1F512}secret of a row"),
        ],
    );
    let endpoint = column(
        vec![text("https://fcm.googleapis.com/fcm/send/")],
        vec![
            text("http://fcm.googleapis.com/fcm/send/"),
            text("https://127.0.0.1/"),
            text("https://push.example.net/"),
            text("https://fcm.googleapis.com/v1/"),
            text("javascript:"),
            text("\u{e4}"),
        ],
    );
    let time = column(
        vec![
            text("08:30"),
            text("8:5"),
            text("23:59"),
            text(""),
            Cell::Null,
            blob(b"08:30"),
        ],
        vec![
            text("24:00"),
            text("08:60"),
            text("8"),
            text("+8:00"),
            text("008:00"),
            text(" 8:00"),
            text("a:b"),
            text("1:2:3"),
            text("\u{661}:00"),
        ],
    );
    let notify_type = column(
        vec![
            text("DAILY_CHECK"),
            text("DIRECT_NOTIFICATION"),
            text(""),
            Cell::Null,
        ],
        vec![text("daily_check "), text("?"), Cell::Integer(1)],
    );
    let message = column(
        vec![Cell::Null, text(""), text("secret of a row"), blob(&[0xff])],
        vec![text(&"secret of a row".repeat(400))],
    );
    // A time that cannot be read is none.
    let created = column(
        vec![
            Cell::Null,
            text("2024-02-29T08:00:00"),
            text("2024-02-30"),
            text("now"),
            Cell::Real(1e300),
            blob(b"\xff"),
            text("-999999-01-01T00:00:00Z"),
        ],
        vec![Cell::Null],
    )
    .prop_map(|(value, _)| (value, true));
    let key = column(
        vec![Cell::Integer(1), Cell::Integer(2), Cell::Null],
        vec![
            Cell::Integer(3),
            Cell::Integer(99),
            Cell::Integer(i64::MIN),
            text("one"),
            blob(b"1"),
            Cell::Real(0.5),
        ],
    );
    let columns = (
        auth,
        created,
        endpoint,
        message,
        time,
        notify_type,
        p256dh,
        key,
    );
    let (mut imported, mut refused) = (0, bad_keys.len() as u32);
    for (id, row) in (0..ROWS).zip(samples(&columns)) {
        let (auth, created, endpoint, message, time, notify_type, p256dh, key) = row;
        let Cell::Text(base) = endpoint.0 else {
            unreachable!("all are texts")
        };
        let url = text(&format!("{base}secret-{id}"));
        let values = [
            Cell::Integer(id.into()),
            auth.0,
            created.0,
            url,
            message.0,
            time.0,
            notify_type.0,
            p256dh.0,
            key.0,
        ];
        let sql = "INSERT INTO subscription VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        theirs
            .conn
            .execute(sql, rusqlite::params_from_iter(values))
            .unwrap();
        let parts = [
            auth.1,
            endpoint.1,
            message.1,
            time.1,
            notify_type.1,
            p256dh.1,
            key.1,
        ];
        match parts.iter().all(|is_good| *is_good) {
            true => imported += 1,
            false => refused += 1,
        }
    }
    let to = format!("sqlite://{}", folder.path().join("push.db").display());
    let run = import(&["--from", &theirs.url(), "--to", &to], &[]).await;
    let secrets = ["secret", AUTH, P256DH, "aSIgg", &P256DH[1..]].map(str::to_owned);
    check(&run, imported, refused, &secrets);
}

#[tokio::test]
async fn of_the_demos_texts() {
    let Some(server) = Server::start(Kind::Redis, &[]).await else {
        return;
    };
    let mut redis = redis_client::connect(&server.url()).await;
    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("private_key.pem");
    let key = VapidKey::generate().unwrap();
    fs::write(&pem, key.secret_to_pkcs8_pem().as_bytes()).unwrap();

    let member = |good: &[&'static str], bad: &[&'static str]| {
        let (good, bad) = (good.to_vec(), bad.to_vec());
        prop_oneof![
            11 => prop::sample::select(good).prop_map(|value| (value, true)),
            1 => prop::sample::select(bad).prop_map(|value| (value, false)),
        ]
    };
    let endpoint = member(
        &["https://fcm.googleapis.com/fcm/send/"],
        &[
            "https://10.0.0.1/",
            "https://fcm.googleapis.com/",
            "ftp://fcm.googleapis.com/fcm/send/",
            "",
        ],
    );
    let keys = member(
        &[
            r#"{"p256dh": "PPP", "auth": "AAA"}"#,
            r#"{"auth": "AAA", "p256dh": "PPP", "x": [{}]}"#,
        ],
        &[
            "null",
            "[]",
            r#"{"p256dh": "PPP"}"#,
            r#"{"p256dh": "AAA", "auth": "PPP"}"#,
            r#"{"p256dh": 5, "auth": "AAA"}"#,
        ],
    );
    let expiration = member(
        &["null", "4102444800000", "4102444800000.0"],
        &["0", "-1", "1", "\"soon\"", "{}"],
    );
    let end = member(&["}"], &["", "}}", "}x", "\u{0}}", ", }", "]"]);
    let is_known = prop_oneof![19 => Just(true), 1 => Just(false)];
    let has_uuid = prop_oneof![19 => Just(true), 1 => Just(false)];
    let (mut imported, mut refused) = (0, 0);
    let rows = (endpoint, keys, expiration, end, is_known, has_uuid);
    for (number, row) in (0..ROWS).zip(samples(&rows)) {
        let (endpoint, keys, expiration, end, is_known, has_uuid) = row;
        let id = match has_uuid {
            true => SubscriptionId::random().to_string(),
            false => format!("row {number}"),
        };
        let keys_text = keys.0.replace("PPP", P256DH).replace("AAA", AUTH);
        let text = format!(
            r#"{{"endpoint": "{}secret-{number}", "keys": {keys_text}, "expiration_time": {}{}"#,
            endpoint.0, expiration.0, end.0
        );
        let _: () = redis
            .set(format!("webpush:subscription:info:{id}"), text)
            .await
            .unwrap();
        if is_known {
            let _: () = redis.sadd("webpush:subscriptions", id).await.unwrap();
        }
        match endpoint.1 && keys.1 && expiration.1 && end.1 && is_known && has_uuid {
            true => imported += 1,
            false => refused += 1,
        }
    }
    let to = format!("sqlite://{}", folder.path().join("push.db").display());
    let pem = pem.to_str().unwrap();
    let from = server.url();
    let arguments = ["--from", &from, "--vapid-private-key", pem, "--to", &to];
    let run = import(&arguments, &[]).await;
    let secrets = ["secret", AUTH, P256DH].map(str::to_owned);
    check(&run, imported, refused, &secrets);
}
