//! `erase-user USER`: a user is erased by a command.

use serde_json::json;

use tower_web_push::subscription::SubscriptionId;

use super::world::{World, subscription};
use crate::support::server_process::{command, finish};
use crate::support::servers::{Kind, shared};

pub(crate) async fn a_user_is_erased_from_the_store_of_a_running_server(name: &str) {
    let world = World::new().await;
    let more = [
        ("TRUSTED_PROXIES", "1"),
        ("PRINCIPAL_HEADER", "Remote-User"),
    ];
    let (server, client) = world.start(name, &more).await;
    for user in ["alice", "alice", "bob"] {
        let browser = world.push_service.user_agent();
        let daily = json!({"notifyTime": {"utcHour": 3, "minute": 7}});
        let body = subscription(&client, &browser, daily).await;
        let call = client.call(http::Method::POST, "/web-push/subscribe");
        let call = call
            .header("remote-user", user)
            .header("x-forwarded-for", "192.0.2.1");
        let answer = call.json(&body).send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let store_url = world.store_url();
    let forget = async |user: &str| {
        let mut command = command(name, &World::settings(&store_url));
        command.args(["erase-user", user]);
        let output = finish(command).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let erased = forget("alice").await;
    assert!(
        erased.starts_with("erased alice: 2 subscriptions, 2 daily notifications, "),
        "{erased}"
    );
    assert!(
        forget("alice")
            .await
            .starts_with("erased alice: 0 subscriptions, 0 daily")
    );
    assert!(
        forget("bob")
            .await
            .starts_with("erased bob: 1 subscriptions, 1 daily")
    );
    assert_eq!(server.terminate().await.code(), Some(0));
}

/// It has begun, so it has to be repeated: the settings are not at fault.
pub(crate) async fn an_erasure_that_fails_on_its_way_says_so(name: &str) {
    let world = World::new().await;
    let more = [
        ("TRUSTED_PROXIES", "1"),
        ("PRINCIPAL_HEADER", "Remote-User"),
    ];
    let (server, client) = world.start(name, &more).await;
    let browser = world.push_service.user_agent();
    let body = subscription(&client, &browser, json!({})).await;
    let call = client.call(http::Method::POST, "/web-push/subscribe");
    let call = call
        .header("remote-user", "alice")
        .header("x-forwarded-for", "192.0.2.1");
    assert_eq!(call.json(&body).send().await.status, 200);
    assert_eq!(server.terminate().await.code(), Some(0));
    let conn = rusqlite::Connection::open(world.folder.path().join("push.db")).unwrap();
    conn.execute_batch(
        "CREATE TRIGGER refuse BEFORE DELETE ON subscription BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    .unwrap();
    let store_url = world.store_url();
    let erase = async || {
        let mut command = command(name, &World::settings(&store_url));
        command.args(["erase-user", "alice"]);
        finish(command).await
    };
    let output = erase().await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("it is not complete: run it again"), "{said}");
    conn.execute_batch("DROP TRIGGER refuse").unwrap();
    drop(conn);
    let output = erase().await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

pub(crate) async fn nothing_is_created_for_an_erasure(name: &str) {
    let world = World::new().await;
    let store_url = world.store_url();
    let mut command = command(name, &World::settings(&store_url));
    command.args(["erase-user", "alice"]);
    let output = finish(command).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("there is no file"), "{said}");
    assert!(!world.folder.path().join("push.db").exists());
}

/// A misspelt schema or prefix is another store, which nobody has begun: no command makes it one, and no server that must not.
pub(crate) async fn a_misspelt_schema_or_prefix_is_not_made_a_store(name: &str) {
    for (kind, parameter, none) in [
        (Kind::Postgres, "schema", "there is no store in this schema"),
        (Kind::Redis, "prefix", "there is no store under this prefix"),
    ] {
        let Some(url) = shared(kind) else {
            continue;
        };
        let namespace = SubscriptionId::random().to_string().replace('-', "");
        let separator = if url.contains('?') { '&' } else { '?' };
        let store_url = format!("{url}{separator}{parameter}=typo_{namespace}");
        let settings = World::settings(&store_url);
        let run = async |more: &[(&str, &str)], arguments: &[&str]| {
            let mut settings = settings.clone();
            settings.extend(more);
            let mut command = command(name, &settings);
            command.args(arguments);
            let output = finish(command).await;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{said}");
            said
        };
        let key = "AAAAAAAAAAAAAAAAAAAAAA";
        for (arguments, more, why) in [
            (
                &["erase-user", "alice"][..],
                &[][..],
                "this command creates none",
            ),
            (&["give-up-key", key], &[], "this command creates none"),
            (&[], &[("CREATE_STORE", "false")], "CREATE_STORE=false"),
        ] {
            // Each finds as little as the one before.
            let said = run(more, arguments).await;
            let expected = format!("{none} ({why})");
            assert!(said.contains(&expected), "{kind:?} {arguments:?}: {said}");
        }
    }
}
