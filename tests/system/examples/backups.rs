//! Files of the servers, and copies of them on which a server starts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Output, Stdio};

use http::{Method, StatusCode};
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;
use tower_web_push::testing::{Answer, When};

use super::restarts::wait_until_nothing_is_leased;
use super::world::{TOKEN, World, next, notify, subscription, vapid_key};
use crate::support::server_process::{command, example, finish};

/// Returns the names in the folder of the store, in order. The lock files of workers are empty and stay: at most two here.
fn names(world: &World) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(world.folder.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let (locks, names): (Vec<_>, Vec<_>) = names
        .into_iter()
        .partition(|name| name.starts_with("push.db-worker-"));
    assert!(locks.len() <= 2, "{locks:?}");
    for lock in locks {
        let file = fs::metadata(world.folder.path().join(lock)).unwrap();
        assert_eq!(file.len(), 0);
    }
    names
}

pub(crate) async fn a_stop_leaves_one_file(name: &str) {
    let world = World::new().await;
    for _ in 0..3 {
        let (server, client) = world.start(name, &[]).await;
        let browser = world.push_service.user_agent();
        let body = subscription(&client, &browser, json!({})).await;
        client.post("/web-push/subscribe", &body).await;
        assert_eq!(server.terminate().await.code(), Some(0));
        assert_eq!(names(&world), ["push.db"]);
    }
    let fresh = format!(
        "sqlite://{}",
        world.folder.path().join("fresh.db").display()
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    for (setting, files) in [
        // A start that fails before the store is opened, and one that fails after it.
        (("BIND", taken.as_str()), &["push.db"][..]),
        (("SEAL_CLEAR_KEYS", "true"), &["fresh.db", "push.db"]),
    ] {
        let mut settings = vec![("STORE_URL", fresh.as_str()), setting];
        if setting.0 != "BIND" {
            settings.push(("BIND", "127.0.0.1:0"));
        }
        let output = finish(command(name, &settings)).await;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert_eq!(names(&world), files);
    }
}

/// Only the store is set, and the umask is the least private one.
async fn backup(name: &str, store_url: &str, to: &Path) -> Output {
    let mut command = Command::new("sh");
    command
        .args(["-c", "umask 0; exec \"$0\" backup \"$1\""])
        .arg(example(name))
        .arg(to)
        .env_clear()
        .env("STORE_URL", store_url)
        .env("BIND", "0.0.0.0:80")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    finish(command).await
}

pub(crate) async fn a_server_starts_on_every_kind_of_backup(name: &str) {
    let world = World::new().await;
    let (server, client) = world.start(name, &[]).await;
    let key = vapid_key(&client).await;
    let browser = world.push_service.user_agent();
    let body = subscription(&client, &browser, json!({})).await;
    client.post("/web-push/subscribe", &body).await;
    world.push_service.script(
        When::any(),
        Answer::status(StatusCode::SERVICE_UNAVAILABLE).with_retry_after(5),
    );
    let sent = notify(&client, "/web-push/notify", &json!({"title": "Pending"})).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED, "{sent:?}");
    // A row leased by an attempt would wait until its lease expires, 45 s.
    wait_until_nothing_is_leased(&world, &client).await;

    // While the server runs.
    let folder = world.folder.path();
    let file = folder.join("push.db");
    let mut copies = vec![folder.join("command.db"), folder.join("vacuum.db")];
    let output = backup(name, &world.store_url(), &copies[0]).await;
    assert!(output.status.success(), "{output:?}");
    let mode = fs::metadata(&copies[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let conn = Connection::open(&file).unwrap();
    let into = format!("VACUUM INTO '{}'", copies[1].display());
    conn.execute_batch(&into).unwrap();
    drop(conn);
    // The shell of SQLite.
    let to = folder.join("dot.db");
    let shell = Command::new("sqlite3")
        .arg(&file)
        .arg(format!(".backup '{}'", to.display()))
        .output();
    match shell.await {
        Ok(output) => {
            assert!(output.status.success(), "{output:?}");
            copies.push(to);
        }
        Err(error) => {
            assert!(
                std::env::var_os("WEB_PUSH_REQUIRE_PEERS").is_none(),
                "sqlite3: {error}, and WEB_PUSH_REQUIRE_PEERS is set: ./test --install"
            );
            eprintln!("SKIPPED: .backup, since there is no sqlite3");
        }
    }
    assert_eq!(server.terminate().await.code(), Some(0));
    world.push_service.clear_script();

    for copy in copies {
        let url = format!("sqlite://{}", copy.display());
        let (server, client) = world.start(name, &[("STORE_URL", &url)]).await;
        assert_eq!(vapid_key(&client).await, key, "{url}");
        let stats = client.call(Method::GET, "/web-push/stats").bearer(TOKEN);
        let stats = stats.send().await.json();
        assert_eq!(stats["subscriptions"]["total"], 1, "{url}");
        let received = next(&browser).await.json::<Value>().unwrap();
        assert_eq!(received["title"], "Pending", "{url}");
        assert_eq!(server.terminate().await.code(), Some(0));
    }
}

pub(crate) async fn a_backup_that_cannot_be_made_is_one_line(name: &str) {
    let world = World::new().await;
    let to = world.folder.path().join("copy.db");
    let refused = async |store_url: &str, code: i32, reason: &str| {
        let output = backup(name, store_url, &to).await;
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{errors}");
        assert!(
            errors.starts_with("error: ") && errors.contains(reason),
            "{errors}"
        );
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(!errors.contains("hunter2"), "{errors}");
    };
    for (other, reason) in [
        ("memory:", "memory: belongs to one process"),
        (
            "postgres://push:hunter2@127.0.0.1:1/push",
            "the store is unavailable",
        ),
        ("redis://:hunter2@127.0.0.1:1", "the store is unavailable"),
    ] {
        refused(other, 1, reason).await;
    }
    refused("sqlite:", 2, "no file follows sqlite").await;
    refused(&world.store_url(), 1, "push.db: No such file").await;
    assert!(names(&world).is_empty());
    let (server, _) = world.start(name, &[]).await;
    fs::write(&to, "mine").unwrap();
    refused(&world.store_url(), 1, "copy.db: the file exists already").await;
    assert_eq!(fs::read(&to).unwrap(), b"mine");
    assert_eq!(server.terminate().await.code(), Some(0));
}
