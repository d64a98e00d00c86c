//! From the Flask and SQLite server: its tables as SQLAlchemy creates them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tower_web_push::store::SqliteStore;
use tower_web_push::testing::UserAgent;
use tower_web_push::vapid::VapidKey;
use tower_web_push::{Subscription, WebPush};

use super::process::{dump, import, imports, minutes_ago, stats, wait_for};
use super::world::subscription;
use crate::examples::world::{TOKEN, World, next, vapid_key};
use crate::support::server_process::{self, finish};

const TABLES: &str = "
CREATE TABLE vapid_key (
	id INTEGER NOT NULL, 
	public_key VARCHAR(255) NOT NULL, 
	private_key VARCHAR(255) NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE settings (
	id INTEGER NOT NULL, 
	prev_notify_end_time VARCHAR(29), 
	running_notify_end_time VARCHAR(29), 
	PRIMARY KEY (id)
);
CREATE TABLE subscription (
	id INTEGER NOT NULL, 
	auth VARCHAR(255) NOT NULL, 
	created_date VARCHAR(29), 
	endpoint VARCHAR(500) NOT NULL, 
	message VARCHAR(100), 
	notify_time VARCHAR(5), 
	notify_type VARCHAR(32), 
	p256dh VARCHAR(255) NOT NULL, 
	vapid_key_id INTEGER, 
	PRIMARY KEY (id), 
	FOREIGN KEY(vapid_key_id) REFERENCES vapid_key (id)
);";

/// The server's database in a folder.
pub(crate) struct Theirs {
    path: PathBuf,
    pub(crate) conn: Connection,
}

impl Theirs {
    pub(crate) fn new(folder: &Path) -> Self {
        let path = folder.join("webpush.db");
        let conn = Connection::open(&path).unwrap();
        // Python's SQLite does not check foreign keys by default.
        conn.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        conn.execute_batch(TABLES).unwrap();
        Self { path, conn }
    }

    pub(crate) fn url(&self) -> String {
        format!("sqlite://{}", self.path.display())
    }

    /// base64 with the standard alphabet and padding, of the point and of PKCS#8.
    pub(crate) fn key(&self, id: i64) -> VapidKey {
        let key = VapidKey::generate().unwrap();
        let pem = key.secret_to_pkcs8_pem();
        let lines = pem.lines().filter(|line| !line.starts_with("-----"));
        let private: String = lines.collect();
        let public = key.public_key().to_base64url();
        let public = format!("{}=", public.replace('-', "+").replace('_', "/"));
        self.conn
            .execute(
                "INSERT INTO vapid_key VALUES (?1, ?2, ?3)",
                params![id, public, private],
            )
            .unwrap();
        key
    }

    fn settings(&self, prev: Option<&str>, running: Option<&str>) {
        self.conn
            .execute("INSERT INTO settings VALUES (1, ?1, ?2)", [prev, running])
            .unwrap();
    }

    /// Adds a row: its time, type and text, and its creation time.
    fn row(
        &self,
        id: i64,
        subscription: &Subscription,
        key: Option<i64>,
        [time, notify_type, message, created]: [Option<&str>; 4],
    ) {
        self.conn
            .execute(
                "INSERT INTO subscription VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    id,
                    subscription.auth().secret_to_base64url(),
                    created,
                    subscription.endpoint().as_str(),
                    message,
                    time,
                    notify_type,
                    subscription.ua_public().to_base64url(),
                    key
                ],
            )
            .unwrap();
    }
}

const DAILY: Option<&str> = Some("DAILY_CHECK");
const DIRECT: Option<&str> = Some("DIRECT_NOTIFICATION");

#[tokio::test]
async fn all_rows_are_imported_and_a_second_run_changes_nothing() {
    let world = World::new().await;
    let theirs = Theirs::new(world.folder.path());
    let (old, new) = (theirs.key(1), theirs.key(7));
    theirs.settings(Some(&minutes_ago(90, "%FT%T.123456")), None);
    let browser = |key: &VapidKey| {
        let browser = world.push_service.user_agent();
        let subscription = browser.subscribe(key.public_key()).unwrap();
        (browser, subscription)
    };
    let (two_types, subscription_1) = browser(&new);
    let (no_time, subscription_2) = browser(&old);
    let (late, subscription_3) = browser(&new);
    let created = |day: u32| format!("2025-03-{day:02}T08:15:30.000123");
    theirs.row(
        1,
        &subscription_1,
        Some(7),
        [Some("08:15"), DAILY, None, Some(&created(2))],
    );
    theirs.row(
        2,
        &subscription_1,
        Some(7),
        [Some("23:59"), DIRECT, Some("Grüße"), Some(&created(3))],
    );
    // A row older than times and types, and an older one with other keys.
    theirs.row(
        3,
        &subscription_2,
        Some(1),
        [None, None, None, Some(&created(2))],
    );
    let mut other = subscription(0, 9);
    other = Subscription::new(
        subscription_2.endpoint().clone(),
        *other.ua_public(),
        other.auth().clone(),
    );
    theirs.row(
        9,
        &other,
        Some(7),
        [Some("01:00"), DIRECT, None, Some(&created(1))],
    );
    // An hour ago: after the last run.
    let hour_ago = minutes_ago(60, "%H:%M");
    theirs.row(
        4,
        &subscription_3,
        Some(7),
        [Some(&hour_ago), DIRECT, Some("late"), None],
    );
    // Rows that cannot be imported.
    let good = subscription(1, 1);
    theirs.row(5, &good, Some(99), [Some("08:00"), DAILY, None, None]);
    theirs.row(6, &good, Some(7), [Some("24:00"), DAILY, None, None]);
    theirs.row(
        7,
        &good,
        Some(7),
        [Some("08:00"), Some("HOURLY"), None, None],
    );
    let long = "x".repeat(101);
    theirs.row(
        8,
        &good,
        Some(7),
        [Some("08:00"), DIRECT, Some(&long), None],
    );
    theirs
        .conn
        .execute_batch(
            "INSERT INTO subscription VALUES (10, 'c2hvcnQ', NULL, 'https://push.example.net/x', NULL, '08:00', \
             'DAILY_CHECK', 'BAAA', 7); \
             INSERT INTO subscription VALUES (11, 'c2hvcnQ', NULL, 'http://10.0.0.1/x', NULL, '08:00', \
             'DAILY_CHECK', 'BAAA', 7)",
        )
        .unwrap();
    theirs.row(12, &inside(), Some(7), [Some("08:00"), DAILY, None, None]);
    // It is in use, and another process is about to write.
    theirs.conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    let source = fs::read(&theirs.path).unwrap();

    let store_url = world.store_url();
    let settings = [("ENDPOINT_POLICY", "local")];
    let arguments = ["--from", &theirs.url(), "--to", &store_url];
    let first = import(&arguments, &settings).await;
    assert_eq!(first.code, Some(3), "{first:?}");
    let says = |line: &str| assert!(first.out.contains(line), "{line}: {}", first.out);
    says("VAPID keys: 2 read");
    says(&new.public_key().to_base64url());
    says("Subscriptions: 3 created, 0 updated, 0 unchanged, 0 superseded, 7 refused");
    says("Daily notifications: 5 new");
    says("Refused: subscription 5: it cannot be imported: its vapid_key is not there");
    says("Refused: subscription 6: it cannot be imported: notify_time is not HH:MM");
    says("Refused: subscription 7: it cannot be imported: the type is neither");
    says("Refused: subscription 8: it cannot be imported: the message is longer than 100");
    says("Refused: subscription 10: it cannot be imported: keys.p256dh is not");
    says(
        "Refused: subscription 12: the endpoint policy refuses it: the endpoint's host is a literal",
    );
    says(
        "Note: subscription 9 has the endpoint of subscription 3, which is newer and has other keys",
    );
    for subscription in [&subscription_1, &other, &good] {
        let auth = subscription.auth().secret_to_base64url();
        assert!(!first.all().contains(&auth));
        assert!(!first.all().contains(subscription.endpoint().as_str()));
    }
    let before = dump(&world);
    sleep(Duration::from_millis(5)).await;
    let second = import(&arguments, &settings).await;
    assert_eq!(second.code, Some(3));
    let line = "Subscriptions: 0 created, 0 updated, 3 unchanged, 0 superseded, 7 refused";
    assert!(second.out.contains(line), "{}", second.out);
    assert!(second.out.contains("Daily notifications: 0 new"));
    assert_eq!(dump(&world), before);
    assert_eq!(fs::read(&theirs.path).unwrap(), source, "it is only read");

    // The new server continues where the old one stopped.
    let (server, client) = world
        .start("axum_server", &[("KEY_ENCRYPTION_KEY", "")])
        .await;
    assert_eq!(vapid_key(&client).await, *new.public_key());
    let received = next(&late).await;
    let expected = json!({"title": "DIRECT_NOTIFICATION", "message": "late"});
    assert_eq!(received.json::<Value>().unwrap(), expected);
    assert_eq!(received.vapid().unwrap().public_key(), new.public_key());
    let counted = stats(&client).await;
    assert_eq!(counted["subscriptions"]["live"], 3, "{counted}");
    let of_key = |key: &VapidKey| &counted["subscriptions"]["byVapidKey"][key.id().to_string()];
    assert_eq!(
        (of_key(&old), of_key(&new)),
        (&json!(1), &json!(2)),
        "{counted}"
    );

    let notify = client.call(Method::POST, "/web-push/notify").bearer(TOKEN);
    notify.json(&json!({"title": "To all"})).send().await;
    for (browser, key) in [(&two_types, &new), (&no_time, &old), (&late, &new)] {
        let received = next_titled(browser, "To all").await;
        assert_eq!(received, *key.public_key());
    }
    // Its pages unsubscribe by the endpoint, from one type or from all.
    let of_type =
        json!({"endpoint": subscription_1.endpoint().as_str(), "notifyType": "DAILY_CHECK"});
    for (body, live) in [
        (of_type, 3),
        (json!({"endpoint": subscription_1.endpoint().as_str()}), 2),
    ] {
        let answer = client.post("/web-push/unsubscribe", &body).await;
        assert_eq!(
            answer.json()["message"],
            "Subscription deleted successfully"
        );
        assert_eq!(stats(&client).await["subscriptions"]["live"], live);
    }
    assert_eq!(server.terminate().await.code(), Some(0));
}

/// Waits for the message with that title. Returns the key of its signature.
async fn next_titled(browser: &UserAgent, title: &str) -> tower_web_push::vapid::VapidPublicKey {
    loop {
        let received = next(browser).await;
        if received.json::<Value>().unwrap()["title"] == title {
            return *received.vapid().unwrap().public_key();
        }
    }
}

fn inside() -> Subscription {
    let good = subscription(1, 1);
    let endpoint = "https://10.0.0.1/x".parse().unwrap();
    Subscription::new(endpoint, *good.ua_public(), good.auth().clone())
}

#[tokio::test]
async fn a_dry_run_reports_the_same_and_makes_no_file() {
    let world = World::new().await;
    let theirs = Theirs::new(world.folder.path());
    let key = theirs.key(1);
    theirs.settings(None, None);
    theirs.row(
        1,
        &subscription(1, 1),
        Some(1),
        [Some("08:00"), DAILY, None, None],
    );
    let settings = [("ENDPOINT_POLICY", "public")];
    let (url, store_url) = (theirs.url(), world.store_url());
    let arguments = ["--from", &url, "--to", &store_url, "--dry-run"];
    let dry = import(&arguments, &settings).await;
    assert_eq!(dry.code, Some(0), "{dry:?}");
    assert!(dry.out.contains("1 created"), "{}", dry.out);
    assert!(dry.out.contains("dry run"));
    let active = format!("active here: {}", key.public_key());
    assert!(dry.out.contains(&active), "{}", dry.out);
    assert!(!world.folder.path().join("push.db").exists());

    // Into an existing store.
    assert_eq!(import(&arguments[..4], &settings).await.code, Some(0));
    theirs.row(
        2,
        &subscription(2, 1),
        Some(1),
        [Some("08:00"), DAILY, None, None],
    );
    let before = dump(&world);
    let dry = import(&arguments, &settings).await;
    assert!(
        dry.out.contains("1 created, 0 updated, 1 unchanged"),
        "{}",
        dry.out
    );
    assert_eq!(dump(&world), before);
}

#[tokio::test]
async fn without_a_key_no_row_is_imported() {
    let world = World::new().await;
    let theirs = Theirs::new(world.folder.path());
    theirs.settings(Some("no moment"), None);
    theirs.row(1, &subscription(1, 1), None, [None; 4]);
    theirs.row(2, &subscription(2, 1), Some(1), [None; 4]);
    let (url, store_url) = (theirs.url(), world.store_url());
    let mut arguments = vec!["--from", &url, "--to", &store_url];
    let settings = [("ENDPOINT_POLICY", "public")];
    let none = import(&arguments, &settings).await;
    assert_eq!(none.code, Some(3), "{none:?}");
    assert!(
        none.out
            .contains("0 created, 0 updated, 0 unchanged, 0 superseded, 2 refused")
    );
    // An invalid key is reported, too.
    let broken = "INSERT INTO vapid_key VALUES (1, 'BAAA', 'c2VjcmV0')";
    theirs.conn.execute_batch(broken).unwrap();
    let none = import(&arguments, &settings).await;
    assert!(none.out.contains("Refused: vapid_key 1: "), "{none:?}");
    assert!(!none.all().contains("c2VjcmV0"));
    // One from a file.
    let key = VapidKey::generate().unwrap();
    let file = world.folder.path().join("key.txt");
    fs::write(&file, key.secret_to_raw_base64url().as_bytes()).unwrap();
    let file = file.display().to_string();
    arguments.extend(["--vapid-private-key", &file]);
    let some = import(&arguments, &settings).await;
    assert!(
        some.out
            .contains("1 created, 0 updated, 0 unchanged, 0 superseded, 2 refused")
    );
}

#[tokio::test]
async fn a_killed_import_can_be_repeated() {
    const ROWS: u32 = 3000;
    let world = World::new().await;
    let theirs = Theirs::new(world.folder.path());
    theirs.key(1);
    theirs.settings(None, None);
    theirs.conn.execute_batch("BEGIN").unwrap();
    for number in 0..ROWS {
        let subscription = subscription(number, 1);
        for (type_id, notify_type) in [DAILY, DIRECT].into_iter().enumerate() {
            let id = i64::from(number) * 2 + i64::try_from(type_id).unwrap();
            theirs.row(
                id,
                &subscription,
                Some(1),
                [Some("08:00"), notify_type, None, None],
            );
        }
    }
    theirs.conn.execute_batch("COMMIT").unwrap();
    let (url, store_url) = (theirs.url(), world.store_url());
    let arguments = ["--from", &url, "--to", &store_url];
    let settings = [("ENDPOINT_POLICY", "public")];
    let count = |ours: &Connection| -> u32 {
        let sql = "SELECT count(*) FROM subscription";
        ours.query_row(sql, [], |row| row.get(0)).unwrap_or(0)
    };
    let path = world.folder.path().join("push.db");
    let mut was_killed = false;
    for _ in 0..20 {
        let mut running = server_process::command("import", &settings)
            .args(arguments)
            .spawn()
            .unwrap();
        // While the test locks the file, it waits.
        let mut held = None;
        wait_for(|| {
            let mut ours = Connection::open(&path).unwrap();
            let wait = |_: i32| {
                std::thread::sleep(Duration::from_millis(1));
                true
            };
            ours.busy_handler(Some(wait)).unwrap();
            let is_ours = ours.execute_batch("BEGIN IMMEDIATE").is_ok();
            held = (is_ours && count(&ours) > 100).then_some(ours);
            held.is_some()
        })
        .await;
        let halfway = held.as_ref().map_or(ROWS, count);
        running.kill().await.unwrap();
        drop(held);
        was_killed = halfway < ROWS;
        if was_killed {
            break;
        }
        // It was faster.
        for file in fs::read_dir(world.folder.path()).unwrap() {
            let file = file.unwrap();
            if file.file_name().to_str().unwrap().starts_with("push.db") {
                fs::remove_file(file.path()).unwrap();
            }
        }
    }
    assert!(was_killed, "each import was too fast to be killed");

    let again = import(&arguments, &settings).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    let ours = Connection::open(world.folder.path().join("push.db")).unwrap();
    let counted = |sql: &str| ours.query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap();
    assert_eq!(counted("SELECT count(*) FROM subscription"), ROWS);
    assert_eq!(counted("SELECT count(*) FROM schedule"), 2 * ROWS);
    assert_eq!(counted("SELECT count(*) FROM vapid_key"), 1);

    let before = dump(&world);
    assert_eq!(import(&arguments, &settings).await.code, Some(0));
    assert_eq!(dump(&world), before);
}

#[tokio::test]
async fn the_imported_key_becomes_active_in_an_unused_store() {
    let world = World::new().await;
    let theirs = Theirs::new(world.folder.path());
    let key = theirs.key(1);
    theirs.settings(None, None);
    theirs.row(
        1,
        &subscription(1, 1),
        Some(1),
        [Some("08:00"), DAILY, None, None],
    );
    // After a first start of the new server: a key that no subscription uses.
    let store = SqliteStore::open(world.folder.path().join("push.db")).await;
    let push = WebPush::builder("mailto:ops@example.com").store(store.unwrap());
    assert_ne!(
        push.build().await.unwrap().vapid_public_key(),
        *key.public_key()
    );

    let (url, store_url) = (theirs.url(), world.store_url());
    let arguments = ["--from", &url, "--to", &store_url];
    let active = format!("active here: {}", key.public_key());
    for _ in 0..2 {
        let done = import(&arguments, &[("ENDPOINT_POLICY", "public")]).await;
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(done.out.contains(&active), "{}", done.out);
    }
}

#[tokio::test]
async fn an_import_that_cannot_begin_prints_one_line_and_exits_with_2() {
    let world = World::new().await;
    let theirs = Theirs::new(world.folder.path());
    let url = theirs.url();
    let nowhere = format!("sqlite://{}", world.folder.path().join("none.db").display());
    let to = world.store_url();
    let file = |name: &str, content: &[u8]| {
        let path = world.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let no_key = file("no_key.pem", b"s3cret");
    let key = VapidKey::generate().unwrap().secret_to_pkcs8_pem();
    let key = file("key.pem", key.as_bytes());
    let other = format!("sqlite://{}", file("other.db", b""));
    let demo = ["--from", "redis://127.0.0.1:1", "--to", &to];
    for (arguments, why) in [
        (vec!["--from", &nowhere, "--to", &to], "unable to open"),
        (
            vec!["--from", &other, "--to", &to],
            "not a database of the Flask and SQLite server: no such table",
        ),
        (demo.to_vec(), "--vapid-private-key is needed"),
        (
            [&demo[..], &["--vapid-private-key", &no_key]].concat(),
            "--vapid-private-key: ",
        ),
        (
            [&demo[..], &["--vapid-private-key", &key]].concat(),
            "--from: ",
        ),
        (
            vec![
                "--from",
                &url,
                "--to",
                &to,
                "--key-encryption-key",
                "s3cret",
            ],
            "--key-encryption-key: ",
        ),
        (
            vec!["--from", "mysql://root:s3cret@db/x", "--to", &to],
            "--from",
        ),
        (
            vec!["--from", &url, "--to", "mysql://root:s3cret@db/x"],
            "--to",
        ),
        (vec!["--from", &url, "--to", "memory:"], "forgotten"),
        (
            vec!["--from", &url, "--to", &to, "--zone", "Europe/Atlantis"],
            "unknown zone",
        ),
        (
            vec!["--from", &url, "--to", &to, "--endpoint-policy", "a b"],
            "--endpoint-policy: ",
        ),
    ] {
        let failed = import(&arguments, &[]).await;
        assert_eq!(failed.code, Some(2), "{failed:?}");
        assert_eq!(failed.err.lines().count(), 1, "{failed:?}");
        assert!(failed.err.contains(why), "{failed:?}");
        assert!(!failed.err.contains("s3cret"), "{failed:?}");
        assert_eq!(failed.out, "");
    }
    let help = timeout(Duration::from_secs(60), finish(imports(&["--help"], &[])))
        .await
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for word in ["Exit codes", "prev_notify_end_time", "--dry-run"] {
        assert!(help.contains(word), "{help}");
    }
}
