//! Missing or misspelt settings must not open anything, and only trusted proxies are believed.

use std::fs;

use http::{Method, StatusCode};
use serde_json::json;
use tower_web_push::vapid::VapidKey;

use super::world::{PASSWORD, TOKEN, World, notify, subscription, vapid_key};

pub(crate) async fn without_a_contact_nothing_is_sent(name: &str) {
    let world = World::new().await;
    for policy in ["public", "local"] {
        let no_contact = [("VAPID_SUBJECT", ""), ("ENDPOINT_POLICY", policy)];
        let (server, client) = world.start(name, &no_contact).await;
        let browser = world.push_service.user_agent();
        let mut body = subscription(&client, &browser, json!({})).await;
        let local = client.post("/web-push/subscribe", &body).await;
        assert_eq!(local.json()["code"], "endpoint_not_allowed", "{local:?}");
        body["endpoint"] = json!("https://updates.push.services.mozilla.com/wpush/v2/x");
        let public = client.post("/web-push/subscribe", &body).await;
        assert_eq!(public.json()["code"], "endpoint_not_allowed");
        let ready = client.get("/web-push/ready").await;
        assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ready.json()["contact"], false);
        let printed = server.terminate_and_read().await;
        assert!(printed.contains("VAPID_SUBJECT is not set"), "{printed}");
    }
    assert_eq!(world.push_service.counts().requests, 0);
}

pub(crate) async fn local_endpoints_need_a_local_host(name: &str) {
    let world = World::new().await;
    let (server, client) = world.start(name, &[]).await;
    let port = server.url.rsplit(':').next().unwrap().to_owned();
    let get = |path: &'static str, host: String| {
        client.call(Method::GET, path).header("host", &host).send()
    };
    for host in [
        "localhost",
        "LOCALHOST",
        "push.localhost",
        "127.0.0.1",
        "127.1.2.3",
        "[::1]",
    ] {
        for host in [host.to_owned(), format!("{host}:{port}")] {
            let answer = get("/web-push/vapid", host.clone()).await;
            assert_eq!(answer.status, StatusCode::OK, "{host}");
        }
    }
    // A page of another site whose name now resolves to this machine.
    for path in [
        "/",
        "/app.js",
        "/nothing",
        "/metrics",
        "/api/vapid",
        "/web-push/subscribe",
    ] {
        for host in [
            "rebound.example",
            "localhost.example",
            "notlocalhost",
            "127.0.0.1.example",
            "192.168.0.1",
            "[2001:db8::1]",
            "[::ffff:192.0.2.1]",
        ] {
            let answer = get(path, format!("{host}:{port}")).await;
            assert_eq!(
                answer.status,
                StatusCode::MISDIRECTED_REQUEST,
                "{path} {host}"
            );
            assert!(answer.text().contains("ENDPOINT_POLICY=local"));
        }
    }
    // If no loopback endpoint is allowed, the operator chooses the name.
    let (_server, client) = world.start(name, &[("ENDPOINT_POLICY", "known")]).await;
    let call = client.call(Method::GET, "/").header("host", "push.example");
    assert_eq!(call.send().await.status, StatusCode::OK);
}

pub(crate) async fn secrets_may_stand_in_files(name: &str) {
    let world = World::new().await;
    let file = |name: &str, content: &str| {
        let path = world.folder.path().join(name);
        fs::write(&path, format!("{content}\n")).unwrap();
        path.display().to_string()
    };
    let given = VapidKey::generate().unwrap();
    let (token, password) = (file("token", TOKEN), file("password", PASSWORD));
    let key = file("key", &given.secret_to_pkcs8_pem());
    let kek = file("kek", "oP2cXnT9b0sYFvJ4LqRk6uE1iDzH8wGmA3tN7yB5CQ0");
    let url = file("url", "memory:");
    let in_files = [
        ("ADMIN_TOKEN", ""),
        ("ADMIN_PASSWORD", ""),
        ("KEY_ENCRYPTION_KEY", ""),
        ("STORE_URL", ""),
        ("ADMIN_TOKEN_FILE", &token),
        ("ADMIN_PASSWORD_FILE", &password),
        ("KEY_ENCRYPTION_KEY_FILE", &kek),
        ("STORE_URL_FILE", &url),
        ("VAPID_PRIVATE_KEY_FILE", &key),
    ];
    let (server, client) = world.start(name, &in_files).await;
    assert_eq!(vapid_key(&client).await, *given.public_key());
    assert!(!world.folder.path().join("push.db").exists());
    // admin:correct horse battery staple
    let basic = "Basic YWRtaW46Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ==";
    for credentials in [basic.to_owned(), format!("Bearer {TOKEN}")] {
        let call = client.call(Method::GET, "/web-push/stats");
        let answer = call.header("authorization", &credentials).send().await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    let printed = server.terminate_and_read().await;
    assert!(!printed.contains("KEY_ENCRYPTION_KEY"), "{printed}");
    // Environment variables are trimmed in the same way.
    let (token, password) = (format!("{TOKEN}\n"), format!(" {PASSWORD}\r\n"));
    let with_newlines = [
        ("ADMIN_TOKEN", token.as_str()),
        ("ADMIN_PASSWORD", &password),
        ("STORE_URL", "memory:\n"),
    ];
    let (_server, client) = world.start(name, &with_newlines).await;
    for credentials in [basic.to_owned(), format!("Bearer {TOKEN}")] {
        let call = client.call(Method::GET, "/web-push/stats");
        let answer = call.header("authorization", &credentials).send().await;
        assert_eq!(answer.status, StatusCode::OK);
    }
}

pub(crate) async fn the_log_is_never_silenced_by_a_target(name: &str) {
    let world = World::new().await;
    for (filter, is_logged) in [
        ("hyper=debug", true),
        ("tower_web_psuh=trace", true),
        ("hyper=debug,WARN", true),
        ("error", false),
        ("off,tower_web_push=debug", false),
    ] {
        let settings = [("RUST_LOG", filter), ("VAPID_SUBJECT", "")];
        let (server, _) = world.start(name, &settings).await;
        let printed = server.terminate_and_read().await;
        let warned = printed.contains("VAPID_SUBJECT is not set");
        assert_eq!(warned, is_logged, "{filter}: {printed}");
    }
}

pub(crate) async fn the_proxy_names_the_user(name: &str) {
    let world = World::new().await;
    let behind_a_proxy = [
        ("TRUSTED_PROXIES", "1"),
        ("PRINCIPAL_HEADER", "Remote-User"),
        ("REQUIRE_PRINCIPAL", "true"),
    ];
    let (_server, client) = world.start(name, &behind_a_proxy).await;
    let browser = world.push_service.user_agent();
    let body = subscription(&client, &browser, json!({})).await;
    let subscribe = || client.call(Method::POST, "/web-push/subscribe").json(&body);
    let two = subscribe()
        .header("remote-user", "mallory")
        .header("remote-user", "alice");
    for call in [subscribe(), subscribe().header("remote-user", " "), two] {
        let refused = call.send().await;
        assert_eq!(refused.json()["code"], "principal_required", "{refused:?}");
    }
    let subscribed = subscribe().header("remote-user", "alice").send().await;
    assert_eq!(subscribed.status, StatusCode::OK, "{subscribed:?}");
    let to_alice = json!({"title": "Hello", "audience": {"user": "alice"}});
    let sent = notify(&client, "/web-push/notify", &to_alice).await;
    assert_eq!(sent.json()["recipients"], 1, "{sent:?}");
    // Without the setting the header has no meaning.
    let (_server, client) = world.start(name, &[]).await;
    let refused = client.call(Method::POST, "/web-push/subscribe");
    let refused = refused
        .header("remote-user", "bob")
        .json(&body)
        .send()
        .await;
    assert_eq!(refused.status, StatusCode::OK, "{refused:?}");
    let to_bob = json!({"title": "Hello", "audience": {"user": "bob"}});
    let sent = notify(&client, "/web-push/notify", &to_bob).await;
    assert_eq!(sent.json()["recipients"], 0, "{sent:?}");
}

pub(crate) async fn the_header_of_a_stranger_names_no_one(name: &str) {
    let world = World::new().await;
    for (addresses, is_proxy) in [
        ("192.0.2.7, 10.0.0.0/8", false),
        ("192.0.2.7, 127.0.0.0/8", true),
    ] {
        let behind_a_proxy = [
            ("TRUSTED_PROXIES", "1"),
            ("PROXY_ADDRESSES", addresses),
            ("PRINCIPAL_HEADER", "Remote-User"),
            ("PUBLIC_REQUESTS_PER_MINUTE", "2"),
        ];
        let (_server, client) = world.start(name, &behind_a_proxy).await;
        let browser = world.push_service.user_agent();
        let body = subscription(&client, &browser, json!({})).await;
        let subscribe = |client_address: &str| {
            let call = client.call(Method::POST, "/web-push/subscribe").json(&body);
            call.header("remote-user", "alice")
                .header("x-forwarded-for", client_address)
                .send()
        };
        let subscribed = subscribe("198.51.100.1").await;
        assert_eq!(subscribed.status, StatusCode::OK, "{subscribed:?}");
        let to_alice = json!({"title": "Hello", "audience": {"user": "alice"}});
        let sent = notify(&client, "/web-push/notify", &to_alice).await;
        assert_eq!(sent.json()["recipients"], u64::from(is_proxy), "{sent:?}");
        // Nor does it choose the address that it is counted by.
        subscribe("198.51.100.2").await;
        let third = subscribe("198.51.100.3").await;
        let is_limited = third.status == StatusCode::TOO_MANY_REQUESTS;
        assert_eq!(is_limited, !is_proxy, "{third:?}");
    }
}
