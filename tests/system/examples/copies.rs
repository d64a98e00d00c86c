//! `copy`, `export` and `restore`, as processes.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::{Instant, sleep};
use tower_web_push::broadcast::Audience;
use tower_web_push::clock::Timestamp;
use tower_web_push::store::{
    CountFilter, Liveness, PortableStore as _, SqliteStore, SubscriptionRecord,
    SubscriptionStore as _, VapidKeyStore as _,
};
use tower_web_push::subscription::{
    AuthSecret, Endpoint, Subscription, SubscriptionId, UaPublicKey,
};

use super::world::{World, next, notify, subscription};
use crate::support::server_process::{command, example, finish};
use crate::support::servers::{Kind, shared};

const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
/// Many enough that a copy takes a while.
const ROWS: usize = 10_000;

fn url_of(path: &Path) -> String {
    format!("sqlite://{}", path.display())
}

/// Adds rows to the store of a server, which has its VAPID key.
async fn fill(path: &Path, rows: usize) {
    let store = SqliteStore::open(path).await.unwrap();
    let key = store.keys().await.unwrap()[0].id;
    let numbers: Vec<_> = (0..rows).collect();
    for numbers in numbers.chunks(1_000) {
        let page = numbers.iter().map(|number| {
            let endpoint = format!("https://updates.push.services.mozilla.com/wpush/v2/{number}");
            let subscription = Subscription::new(
                Endpoint::parse(&endpoint).unwrap(),
                UaPublicKey::parse(P256DH).unwrap(),
                AuthSecret::from_bytes(&[7; AuthSecret::LEN]).unwrap(),
            );
            let at = Timestamp::from_secs(1_700_000_000);
            let mut row = SubscriptionRecord::new(SubscriptionId::random(), subscription, key, at);
            row.principal = Some("nobody".into());
            row
        });
        store.put(&page.collect::<Vec<_>>()).await.unwrap();
    }
    store.close().await.unwrap();
}

async fn count(path: &Path) -> u64 {
    let store = SqliteStore::open(path).await.unwrap();
    let all = CountFilter::new(Audience::All, Liveness::Any);
    let count = store.count(&all, Timestamp::from_secs(0)).await.unwrap();
    store.close().await.unwrap();
    count
}

fn copy(name: &str, from: &Path, to: &str, journal: &Path) -> Command {
    let mut command = command(name, &[]);
    command.args(["copy", "--from", &url_of(from), "--to", to]);
    command.arg("--journal").arg(journal);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

/// Kills a copy in the middle of its first pass. One that was faster is begun anew.
async fn kill_a_copy(name: &str, from: &Path, to: &Path, journal: &Path) {
    let part = journal.with_extension("part");
    for _ in 0..20 {
        let mut killed = copy(name, from, &url_of(to), journal)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let is_halfway = || fs::metadata(&part).is_ok_and(|file| file.len() >= 49 * 1_000);
        let began = Instant::now();
        while !is_halfway() && killed.try_wait().unwrap().is_none() {
            assert!(
                began.elapsed() < Duration::from_secs(120),
                "it does not begin"
            );
            sleep(Duration::from_millis(2)).await;
        }
        // It may have ended.
        let _ = killed.start_kill();
        let ended = killed.wait().await.unwrap();
        if !journal.exists() && count(to).await < ROWS as u64 {
            assert_eq!(ended.code(), None, "it has failed");
            return;
        }
        for file in fs::read_dir(to.parent().unwrap()).unwrap() {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            if name.starts_with("new.db") || name.starts_with("journal") {
                fs::remove_file(file.path()).unwrap();
            }
        }
    }
    panic!("each copy was too fast to be killed");
}

pub(crate) async fn a_killed_copy_goes_on_while_messages_are_sent(name: &str) {
    let world = World::new().await;
    let (server, client) = world.start(name, &[]).await;
    let browser = world.push_service.user_agent();
    let body = subscription(&client, &browser, json!({"notifyTime": {"utcHour": 3}})).await;
    let answer = client.post("/web-push/subscribe", &body).await;
    assert_eq!(answer.status, StatusCode::OK);
    next(&browser).await;
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let from = world.folder.path().join("push.db");
    fill(&from, ROWS).await;
    let (to, journal) = (
        world.folder.path().join("new.db"),
        world.folder.path().join("journal"),
    );
    kill_a_copy(name, &from, &to, &journal).await;
    let message = json!({"title": "Meanwhile", "audience": {"ids": [id]}});
    let sent = notify(&client, "/web-push/notify", &message).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED, "{sent:?}");
    let output = finish(copy(name, &from, &url_of(&to), &journal)).await;
    assert!(output.status.success(), "{}", said(&output));
    let received = next(&browser).await.json::<Value>().unwrap();
    assert_eq!(received["title"], "Meanwhile");
    assert!(
        said(&output).contains(&format!(
            "what has changed meanwhile: {} subscriptions read",
            ROWS + 1
        )),
        "{}",
        said(&output)
    );
    assert_eq!(count(&to).await, ROWS as u64 + 1);

    // Servers move to the copy.
    let (moved, client) = world.start(name, &[("STORE_URL", &url_of(&to))]).await;
    let sent = notify(&client, "/web-push/notify", &message).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED, "{sent:?}");
    next(&browser).await;
    // The user leaves there, and the last copy does not bring them back.
    let body = json!({"client_uuid": id});
    let left = client.post("/web-push/unsubscribe", &body).await;
    assert_eq!(left.status, StatusCode::OK);
    let output = finish(copy(name, &from, &url_of(&to), &journal)).await;
    assert!(
        said(&output).contains("1 subscriptions were not written"),
        "{}",
        said(&output)
    );
    assert_eq!(count(&to).await, ROWS as u64);
    assert!(!said(&output).contains("what has changed meanwhile"));
    // As if a later run had been killed: what it had read before may have changed.
    let mut passed = fs::read(&journal).unwrap();
    let head = passed.split_inclusive(|octet| *octet == b'\n').take(3);
    let head: usize = head.map(<[u8]>::len).sum();
    passed.truncate(head + 49 * 100);
    fs::write(journal.with_extension("part"), passed).unwrap();
    let output = finish(copy(name, &from, &url_of(&to), &journal)).await;
    assert!(
        said(&output).contains("what has changed meanwhile"),
        "{}",
        said(&output)
    );
    for server in [server, moved] {
        assert_eq!(server.terminate().await.code(), Some(0));
    }
}

pub(crate) async fn a_full_or_dead_target_loses_nothing(name: &str) {
    let world = World::new().await;
    let (server, _) = world.start(name, &[]).await;
    assert_eq!(server.terminate().await.code(), Some(0));
    let from = world.folder.path().join("push.db");
    fill(&from, ROWS).await;
    let journal = world.folder.path().join("journal");
    for dead in [
        "postgres://push:hunter2@127.0.0.1:1/push",
        "redis://:hunter2@127.0.0.1:1",
    ] {
        let output = finish(copy(name, &from, dead, &journal)).await;
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(
            said(&output).contains("error: --to: the store is unavailable"),
            "{}",
            said(&output)
        );
        assert!(!said(&output).contains("hunter2"));
    }
    // A file system with room for a few megabytes.
    let to = world.folder.path().join("new.db");
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 3000; exec \"$0\" \"$@\""])
        .arg(example(name))
        .args([
            "copy",
            "--from",
            &url_of(&from),
            "--to",
            &url_of(&to),
            "--journal",
        ])
        .arg(&journal)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = finish(limited).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("error: the target of the copy failed: "),
        "{}",
        said(&output)
    );
    assert!(said(&output).contains("Run it again to continue."));
    let copied = count(&to).await;
    assert!((1..ROWS as u64).contains(&copied), "{copied}");
    let output = finish(copy(name, &from, &url_of(&to), &journal)).await;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(count(&to).await, ROWS as u64);
    assert_eq!(count(&from).await, ROWS as u64);
}

pub(crate) async fn an_export_is_restored_into_another_store(name: &str) {
    let world = World::new().await;
    let (server, client) = world.start(name, &[]).await;
    let browser = world.push_service.user_agent();
    let body = subscription(&client, &browser, json!({})).await;
    let answer = client.post("/web-push/subscribe", &body).await;
    assert_eq!(answer.status, StatusCode::OK);
    let folder = world.folder.path();
    let run = async |store: &Path, arguments: &[&str]| {
        let mut command = command(name, &[("STORE_URL", &url_of(store))]);
        command.args(arguments);
        finish(command).await
    };
    let (old, new) = (folder.join("push.db"), folder.join("new.db"));
    let (export, bare) = (folder.join("export.jsonl"), folder.join("bare.jsonl"));
    let (export, bare) = (export.to_str().unwrap(), bare.to_str().unwrap());
    for arguments in [
        &["export", export][..],
        &["export", "--without-secrets", bare],
    ] {
        let output = run(&old, arguments).await;
        assert!(output.status.success(), "{}", said(&output));
    }
    // It is not replaced.
    assert_eq!(run(&old, &["export", export]).await.status.code(), Some(1));
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(export).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let bare_text = fs::read_to_string(bare).unwrap();
    assert!(!bare_text.contains(body["endpoint"].as_str().unwrap()));
    assert!(!bare_text.contains("sealed"));
    let output = run(&new, &["restore", bare]).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let output = run(&new, &["restore", export]).await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("restored: 1 subscriptions, 1 VAPID keys"),
        "{}",
        said(&output)
    );
    let output = run(&new, &["restore", export]).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("the store is not empty"));

    let (moved, client) = world.start(name, &[("STORE_URL", &url_of(&new))]).await;
    let sent = notify(&client, "/web-push/notify", &json!({"title": "Moved"})).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED);
    let received = next(&browser).await.json::<Value>().unwrap();
    assert_eq!(received["title"], "Moved");
    for server in [server, moved] {
        assert_eq!(server.terminate().await.code(), Some(0));
    }
    // A backup of an SQLite file is restored as it was, or into another store.
    let (backup, third) = (folder.join("backup.db"), folder.join("third.db"));
    let backup = backup.to_str().unwrap();
    let output = run(&old, &["backup", backup]).await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(run(&third, &["restore", backup]).await.status.success());
    assert_eq!(count(&third).await, 1);
    assert_eq!(
        run(&third, &["restore", backup]).await.status.code(),
        Some(1)
    );
    let output = run(&new, &["restore", "--into-others", backup]).await;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(count(&new).await, 1);
}

/// As `docker compose exec -T web-push axum_server backup - >FILE` does.
pub(crate) async fn a_backup_to_standard_output_can_be_restored(name: &str) {
    let world = World::new().await;
    let folder = world.folder.path();
    for (kind, parameter) in [(Kind::Redis, "prefix"), (Kind::Postgres, "schema")] {
        let Some(url) = shared(kind) else {
            continue;
        };
        let separator = if url.contains('?') { '&' } else { '?' };
        let space = SubscriptionId::random().to_string().replace('-', "_");
        let store_url = format!("{url}{separator}{parameter}=backup_{space}");
        let (server, client) = world.start(name, &[("STORE_URL", &store_url)]).await;
        let browser = world.push_service.user_agent();
        let body = subscription(&client, &browser, json!({})).await;
        let answer = client.post("/web-push/subscribe", &body).await;
        assert_eq!(answer.status, StatusCode::OK);
        let mut backup = command(name, &[("STORE_URL", &store_url)]);
        backup.args(["backup", "-"]);
        let output = finish(backup).await;
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(server.terminate().await.code(), Some(0));
        let file = folder.join(format!("{kind:?}.jsonl"));
        fs::write(&file, &output.stdout).unwrap();
        let to = folder.join(format!("{kind:?}.db"));
        let mut restore = command(name, &[("STORE_URL", &url_of(&to))]);
        restore.arg("restore").arg(&file);
        let output = finish(restore).await;
        assert!(output.status.success(), "{kind:?}: {}", said(&output));
        assert_eq!(count(&to).await, 1);
    }
    // An SQLite file is copied as it is: not as a stream.
    let (server, _) = world.start(name, &[]).await;
    let mut backup = command(name, &[("STORE_URL", &world.store_url())]);
    backup.args(["backup", "-"]).current_dir(folder);
    let output = finish(backup).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("export -"), "{}", said(&output));
    assert!(!folder.join("-").exists());
    assert_eq!(server.terminate().await.code(), Some(0));
}

/// The files that it has begun hold secrets under names that `ls` does not show.
pub(crate) async fn a_command_that_is_interrupted_leaves_no_file(name: &str) {
    let world = World::new().await;
    let (server, _) = world.start(name, &[]).await;
    assert_eq!(server.terminate().await.code(), Some(0));
    let from = world.folder.path().join("push.db");
    fill(&from, 3 * ROWS).await;
    let folder = world.folder.path().join("copies");
    fs::create_dir(&folder).unwrap();
    let names = || -> Vec<_> {
        let files = fs::read_dir(&folder).unwrap();
        files.map(|file| file.unwrap().file_name()).collect()
    };
    for (task, signal) in [("export", "INT"), ("backup", "TERM")] {
        let mut was_interrupted = false;
        for _ in 0..20 {
            let to = folder.join(task);
            let mut command = command(name, &[("STORE_URL", &url_of(&from))]);
            let mut running = command.arg(task).arg(&to).spawn().unwrap();
            while names().is_empty() && running.try_wait().unwrap().is_none() {
                sleep(Duration::from_millis(1)).await;
            }
            if let Some(id) = running.id() {
                let mut kill = Command::new("kill");
                kill.args(["-s", signal, &id.to_string()]);
                kill.stderr(Stdio::null()).status().await.unwrap();
            }
            let status = running.wait().await.unwrap();
            if status.success() {
                // It was faster.
                assert_eq!(names(), [task]);
                fs::remove_file(&to).unwrap();
                continue;
            }
            assert_eq!(status.code(), Some(130), "{task}");
            assert!(names().is_empty(), "{:?}", names());
            was_interrupted = true;
            break;
        }
        assert!(was_interrupted, "{task}");
    }
    let mut conn = command(name, &[("STORE_URL", &url_of(&from))]);
    conn.arg("export").arg(folder.join("whole"));
    assert!(finish(conn).await.status.success());
}

/// What was copied stays, and the next run goes on.
pub(crate) async fn a_full_journal_is_an_interruption(name: &str) {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let world = World::new().await;
    let (server, _) = world.start(name, &[]).await;
    assert_eq!(server.terminate().await.code(), Some(0));
    let from = world.folder.path().join("push.db");
    fill(&from, ROWS).await;
    let separator = if url.contains('?') { '&' } else { '?' };
    let to = format!("{url}{separator}prefix=copy-{}", SubscriptionId::random());
    let journal = world.folder.path().join("journal");
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 200; exec \"$0\" \"$@\""])
        .arg(example(name))
        .args(["copy", "--from", &url_of(&from), "--to", &to, "--journal"])
        .arg(&journal)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = finish(limited).await;
    let said = said(&output);
    assert!(
        said.contains("the journal of the copy cannot be used"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Run it again to continue."), "{said}");
    // At the beginning it is no interruption.
    fs::write(
        world.folder.path().join("other.part"),
        "of another program\n",
    )
    .unwrap();
    let other = world.folder.path().join("other");
    let output = finish(copy(name, &from, &to, &other)).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = finish(copy(name, &from, &to, &journal)).await;
    assert!(output.status.success(), "{output:?}");
}
