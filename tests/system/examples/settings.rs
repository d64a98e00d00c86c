//! The effect of settings, and errors for wrong ones.

use std::fs;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::world::{TOKEN, World, next, notify, subscription};
use crate::support::server_process::{command, finish};

pub(crate) async fn a_new_token_is_printed_where_only_this_machine_can_connect(name: &str) {
    let world = World::new().await;
    let nobody = [("ADMIN_TOKEN", ""), ("ADMIN_PASSWORD", "")];
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let (server, client) = world.start(name, &nobody).await;
        let printed = server.printed();
        let mut lines = printed
            .lines()
            .filter_map(|line| line.strip_prefix("Admin token: "));
        let token = lines.next().expect("no token printed").to_owned();
        assert_eq!(lines.next(), None, "printed once");
        let call = client.call(Method::GET, "/web-push/stats");
        assert_eq!(call.bearer(&token).send().await.status, StatusCode::OK);
        tokens.push(token);
        server.terminate().await;
    }
    assert_ne!(tokens[0], tokens[1]);
    let (server, _) = world.start(name, &[]).await;
    assert!(!server.printed().contains("Admin token"));
    assert!(!server.printed().contains(TOKEN));
}

pub(crate) async fn pages_of_listed_origins_may_call(name: &str) {
    let world = World::new().await;
    let origins = "https://shop.example, https://app.example:8443";
    let (_server, client) = world.start(name, &[("ALLOWED_ORIGINS", origins)]).await;
    let preflight = |origin: &'static str| {
        client
            .call(Method::OPTIONS, "/web-push/subscribe")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type")
            .send()
    };
    for origin in ["https://shop.example", "https://app.example:8443"] {
        let answer = preflight(origin).await;
        assert_eq!(answer.header("access-control-allow-origin"), origin);
        // Without it, browsers do not send the cookie of a sign-in in front of the server.
        assert_eq!(answer.header("access-control-allow-credentials"), "true");
        assert!(
            answer
                .header("access-control-allow-headers")
                .contains("content-type")
        );
        let methods = answer.header("access-control-allow-methods");
        for method in ["GET", "POST", "PATCH", "DELETE"] {
            assert!(methods.contains(method), "{methods}");
        }
    }
    let answer = preflight("https://other.example").await;
    assert_eq!(answer.header("access-control-allow-origin"), "");

    let browser = world.push_service.user_agent();
    let body = subscription(&client, &browser, json!({})).await;
    let post = |site: &'static str, origin: Option<&'static str>| {
        let mut call = client
            .call(Method::POST, "/web-push/subscribe")
            .header("cookie", "sid=1")
            .header("sec-fetch-site", site);
        if let Some(origin) = origin {
            call = call.header("origin", origin);
        }
        call.json(&body).send()
    };
    for site in ["same-site", "cross-site"] {
        let listed = post(site, Some("https://shop.example")).await;
        assert_eq!(listed.status, StatusCode::OK, "{listed:?}");
        for origin in [Some("https://other.example"), None] {
            let refused = post(site, origin).await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
            assert_eq!(refused.json()["code"], "cross_site");
        }
    }
}

pub(crate) async fn a_daily_subscription_is_confirmed_unless_switched_off(name: &str) {
    let world = World::new().await;
    let (_server, client) = world
        .start(
            name,
            &[("CONFIRMATION", "false"), ("PUBLIC_TAGS", "news, sport")],
        )
        .await;
    let browser = world.push_service.user_agent();
    let wanted = json!({"notifyTime": {"utcHour": 0, "minute": 0}, "tags": ["news"]});
    let body = subscription(&client, &browser, wanted).await;
    let subscribed = client.post("/web-push/subscribe", &body).await;
    assert_eq!(subscribed.status, StatusCode::OK, "{subscribed:?}");
    let content = json!({"title": "The first to arrive", "audience": {"tag": "news"}});
    let sent = notify(&client, "/web-push/notify", &content).await;
    assert_eq!(sent.json()["recipients"], 1, "{sent:?}");
    let first = next(&browser).await.json::<Value>().unwrap();
    assert_eq!(first["title"], "The first to arrive");

    let mut other = body.clone();
    other["tags"] = json!(["staff"]);
    let refused = client.post("/web-push/subscribe", &other).await;
    assert_eq!(
        refused.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "{refused:?}"
    );
}

pub(crate) async fn a_wrong_setting_is_one_line_and_exit_code_2(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let missing = folder.path().join("missing/push.db").display().to_string();
    let missing_store = format!("sqlite://{missing}");
    let no_certificate = file("ca.pem", "nothing");
    let own = rcgen::generate_simple_self_signed(["push.example".to_owned()]).unwrap();
    let certificate = file("certificate.pem", &own.cert.pem());
    let key = file("key.pem", &own.signing_key.serialize_pem());
    let other_key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let other_key = file("other.pem", &other_key);
    let no_database = format!(
        "sqlite://{}",
        file("push.db", &"no database at all\n".repeat(99))
    );
    let cases: &[(&[(&str, &str)], &str)] = &[
        (
            &[("BIND", "0.0.0.0:0")],
            "ADMIN_TOKEN or ADMIN_PASSWORD must be set",
        ),
        (
            &[("BIND", "nowhere")],
            "BIND: not an address and a port, as in ",
        ),
        (&[("ADMIN_PASSWORD", "admin")], "ADMIN_PASSWORD: "),
        (
            &[("MAX_UNPROVEN_SUBSCRIPTIONS", "-1")],
            "MAX_UNPROVEN_SUBSCRIPTIONS: not a whole number",
        ),
        (
            &[("PUBLIC_REQUESTS_PER_MINUTE", "5000000000")],
            "PUBLIC_REQUESTS_PER_MINUTE: not a whole number from 0, or too large",
        ),
        (&[("ADMIN_TOKEN", "with a blank")], "ADMIN_TOKEN: "),
        // A secret that is missing, or was quoted for a shell.
        (&[("ADMIN_TOKEN", "")], "ADMIN_TOKEN: empty"),
        (&[("ADMIN_PASSWORD", " \n")], "ADMIN_PASSWORD: empty"),
        (&[("KEY_ENCRYPTION_KEY", "")], "KEY_ENCRYPTION_KEY: empty"),
        (&[("VAPID_PRIVATE_KEY", "")], "VAPID_PRIVATE_KEY: empty"),
        (&[("STORE_URL", "")], "STORE_URL: empty"),
        (
            &[("ADMIN_PASSWORD", "'hunter2 hunter2'")],
            "ADMIN_PASSWORD: it starts and ends with a quotation mark",
        ),
        (
            &[("VAPID_SUBJECT", "\"mailto:ops@example.com\"")],
            "VAPID_SUBJECT: it starts and ends with a quotation mark",
        ),
        (&[("ADMIN_TOKEN_FILE", &missing)], "ADMIN_TOKEN_FILE="),
        (
            &[("STORE_URL", "memory:"), ("STORE_URL_FILE", &missing)],
            "STORE_URL and STORE_URL_FILE are both set",
        ),
        (
            &[
                ("BIND", "0.0.0.0:0"),
                ("ADMIN_TOKEN", TOKEN),
                ("ENDPOINT_POLICY", "local"),
            ],
            "ENDPOINT_POLICY=local needs a loopback BIND",
        ),
        (&[("ENDPOINT_POLICY", "")], "ENDPOINT_POLICY: "),
        (
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318")],
            "OTEL_EXPORTER_OTLP_ENDPOINT: not an address as http://",
        ),
        (
            &[(
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "http://me:hunter2@127.0.0.1/",
            )],
            "OTEL_EXPORTER_OTLP_ENDPOINT: credentials belong into",
        ),
        (
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,hunter2"),
            ],
            "OTEL_EXPORTER_OTLP_HEADERS: header 2 is not name=value",
        ),
        (&[("TRUSTED_PROXIES", "all")], "TRUSTED_PROXIES: "),
        (&[("TRUSTED_PROXIES", "-1")], "TRUSTED_PROXIES: "),
        (
            &[("PRINCIPAL_HEADER", "Remote-User")],
            "PRINCIPAL_HEADER needs TRUSTED_PROXIES",
        ),
        (
            &[("TRUSTED_PROXIES", "1"), ("PRINCIPAL_HEADER", "Cookie")],
            "PRINCIPAL_HEADER: cookie holds something else",
        ),
        (
            &[
                ("TRUSTED_PROXIES", "1"),
                ("PRINCIPAL_HEADER", "remote user"),
            ],
            "PRINCIPAL_HEADER: not the name of a header",
        ),
        (
            &[
                ("BIND", "0.0.0.0:0"),
                ("ADMIN_TOKEN", TOKEN),
                ("TRUSTED_PROXIES", "1"),
                ("PRINCIPAL_HEADER", "Remote-User"),
            ],
            "PRINCIPAL_HEADER needs PROXY_ADDRESSES",
        ),
        (
            &[("PROXY_ADDRESSES", "10.0.0.0/8")],
            "PROXY_ADDRESSES needs TRUSTED_PROXIES",
        ),
        (
            &[("TRUSTED_PROXIES", "1"), ("PROXY_ADDRESSES", "10.0.0.1/8")],
            "PROXY_ADDRESSES: neither an address nor a block",
        ),
        (
            &[("REQUIRE_PRINCIPAL", "true")],
            "REQUIRE_PRINCIPAL=true needs PRINCIPAL_HEADER or PRINCIPAL_TOKEN_KEY",
        ),
        (
            &[
                ("TRUSTED_PROXIES", "1"),
                ("PRINCIPAL_HEADER", "Remote-User"),
                ("PRINCIPAL_TOKEN_KEY", "hunter2hunter2hunter2hunter2hunter2"),
            ],
            "PRINCIPAL_HEADER and PRINCIPAL_TOKEN_KEY are both set",
        ),
        (
            &[("PRINCIPAL_TOKEN_KEY", "hunter2hunter2hunter2hunter2hun")],
            "PRINCIPAL_TOKEN_KEY: HS256 needs a secret of at least 32",
        ),
        (
            &[(
                "PRINCIPAL_TOKEN_KEY",
                "-----BEGIN PUBLIC KEY-----\nhunter2\n-----END PUBLIC KEY-----",
            )],
            "PRINCIPAL_TOKEN_KEY: it is a PEM file, and HS256 needs a secret",
        ),
        (
            &[
                ("PRINCIPAL_TOKEN_KEY", "hunter2hunter2hunter2hunter2hunter2"),
                ("PRINCIPAL_TOKEN_ALGORITHM", "ES256"),
            ],
            "PRINCIPAL_TOKEN_KEY: not a public key of P-256 in PEM",
        ),
        (
            &[("PRINCIPAL_TOKEN_ALGORITHM", "none")],
            "PRINCIPAL_TOKEN_ALGORITHM: neither HS256 nor ES256",
        ),
        (
            &[("PRINCIPAL_TOKEN_AUDIENCE", "")],
            "PRINCIPAL_TOKEN_AUDIENCE: empty",
        ),
        (
            &[
                ("PRINCIPAL_TOKEN_KEY", "hunter2hunter2hunter2hunter2hunter2"),
                ("ADMIN_TOKEN", "hunter2.hunter2.hunter2"),
            ],
            "ADMIN_TOKEN: it has the form of a user token",
        ),
        (&[("BIND", "unix:")], "BIND: no path follows unix:"),
        (
            &[("BIND", "unix:push.sock")],
            "ADMIN_TOKEN or ADMIN_PASSWORD must be set",
        ),
        (
            &[
                ("BIND", "unix:push.sock"),
                ("ADMIN_TOKEN", TOKEN),
                ("ENDPOINT_POLICY", "local"),
            ],
            "ENDPOINT_POLICY=local needs a loopback BIND",
        ),
        (
            &[("SOCKET_MODE", "rw")],
            "SOCKET_MODE: not the mode of a file in octal",
        ),
        (
            &[("WAIT_FOR_STORE", "86401")],
            "WAIT_FOR_STORE: not a whole number of seconds from 0 to 86400",
        ),
        (
            &[("TLS_CERTIFICATE", &missing)],
            "TLS_CERTIFICATE and TLS_PRIVATE_KEY: set both",
        ),
        (
            &[("TLS_CERTIFICATE", &missing), ("TLS_PRIVATE_KEY", &missing)],
            "TLS_CERTIFICATE=",
        ),
        (
            &[
                ("TLS_CERTIFICATE", &certificate),
                ("TLS_PRIVATE_KEY", &no_certificate),
            ],
            "no private key in PEM",
        ),
        (
            &[
                ("TLS_CERTIFICATE", &no_certificate),
                ("TLS_PRIVATE_KEY", &key),
            ],
            "no certificate in PEM",
        ),
        (
            &[
                ("TLS_CERTIFICATE", &certificate),
                ("TLS_PRIVATE_KEY", &other_key),
            ],
            "not the key of the certificate",
        ),
        (
            &[
                ("BIND", "unix:push.sock"),
                ("ADMIN_TOKEN", TOKEN),
                ("TLS_CERTIFICATE", &certificate),
                ("TLS_PRIVATE_KEY", &key),
            ],
            "TLS_CERTIFICATE needs a BIND to a port",
        ),
        (&[("REQUIRE_PRINCIPAL", "yes")], "REQUIRE_PRINCIPAL: "),
        (
            &[("ADMIN_TOKEN", "eleven-char")],
            "ADMIN_TOKEN: the admin token has fewer than 12 characters",
        ),
        // The port is closed.
        (
            &[("STORE_URL", "postgres://user:hunter2@127.0.0.1:1/push")],
            "error: STORE_URL: the store is unavailable",
        ),
        (
            &[("STORE_URL", "redis://:hunter2@127.0.0.1:1")],
            "error: STORE_URL: the store is unavailable",
        ),
        (
            &[("STORE_URL", "rediss://user:hunter2@127.0.0.1:1/0")],
            "error: STORE_URL: the store is unavailable",
        ),
        (
            &[("STORE_URL", "postgres://user:hunter2@127.0.0.1:port/push")],
            "error: STORE_URL: the store is misconfigured",
        ),
        (
            &[("STORE_URL", "redis://:hunter2@127.0.0.1:port")],
            "error: STORE_URL: the store is misconfigured",
        ),
        (&[("STORE_URL", "postgres://")], "STORE_URL: "),
        (
            &[(
                "STORE_URL",
                "postgres://u:hunter2@127.0.0.1:1/d?pgbouncer=true",
            )],
            "STORE_URL: the store is misconfigured: the URL's parameter `pgbouncer` ",
        ),
        (
            &[("STORE_URL", "redis://u:hunter2@127.0.0.1:1/0?db=1")],
            "STORE_URL: the store is misconfigured: the URL's parameter `db` ",
        ),
        (
            &[(
                "STORE_URL",
                "postgres://u:hunter2@127.0.0.1:1/d?schema=Shop",
            )],
            "error: STORE_URL: the store is misconfigured",
        ),
        (
            &[(
                "STORE_URL",
                "postgres://u:hunter2@127.0.0.1:1/d?schema=a&schema=b",
            )],
            "STORE_URL: the store is misconfigured: the URL's parameter `schema` ",
        ),
        (
            &[("STORE_URL", "redis://u:hunter2@127.0.0.1:1/0?prefix={shop}")],
            "error: STORE_URL: the store is misconfigured",
        ),
        (
            &[("STORE_URL", "redis://u:hunter2@127.0.0.1:1/0?schema=a")],
            "STORE_URL: the store is misconfigured: the URL's parameter `schema` ",
        ),
        (
            &[("STORE_URL", "sqlite://push.db?mode=ro")],
            "STORE_URL: the parameter mode ",
        ),
        (&[("STORE_URL", "mysql://db")], "STORE_URL: "),
        (&[("STORE_URL", &missing_store)], "STORE_URL: "),
        (&[("STORE_URL", &no_database)], "STORE_URL: "),
        (&[("VAPID_SUBJECT", "ops@example.com")], "VAPID_SUBJECT: "),
        (
            &[("VAPID_SUBJECT", "mailto:ops@localhost")],
            "VAPID_SUBJECT: ",
        ),
        (&[("VAPID_PRIVATE_KEY", "hunter2")], "VAPID_PRIVATE_KEY: "),
        (&[("KEY_ENCRYPTION_KEY", "hunter2")], "KEY_ENCRYPTION_KEY: "),
        (&[("SEAL_CLEAR_KEYS", "perhaps")], "SEAL_CLEAR_KEYS: "),
        (
            &[("SEAL_CLEAR_KEYS", "true")],
            "SEAL_CLEAR_KEYS: KEY_ENCRYPTION_KEY must be set",
        ),
        (&[("ENDPOINT_POLICY", "localhost")], "ENDPOINT_POLICY: "),
        (
            &[("ALLOWED_ORIGINS", "https://shop.example/path")],
            "ALLOWED_ORIGINS: ",
        ),
        (&[("PUBLIC_TAGS", "a tag")], "PUBLIC_TAGS: "),
        (&[("CONFIRMATION", "perhaps")], "CONFIRMATION: "),
        (&[("CONSOLE", "perhaps")], "CONSOLE: "),
        (&[("RETIRE_AT_MOST", "101")], "RETIRE_AT_MOST: "),
        (&[("EXTRA_ROOT_CA", &missing)], "EXTRA_ROOT_CA: "),
        (&[("EXTRA_ROOT_CA", &no_certificate)], "EXTRA_ROOT_CA: "),
        (
            &[("SECONDS_BETWEEN_NOTIFICATIONS", "0")],
            "SECONDS_BETWEEN_NOTIFICATIONS: ",
        ),
        (&[("RUST_LOG", "a=b=c")], "RUST_LOG: "),
        (
            &[("RUST_LOG", "inof")],
            "RUST_LOG: inof is none of the levels",
        ),
        (
            &[("RUST_LOG", "tower_web_push")],
            "RUST_LOG: tower_web_push is none of the levels",
        ),
        (&[("RUST_LOG", "tower_web_push=inof")], "RUST_LOG: "),
        (
            &[("LOG_FORMAT", "xml")],
            "LOG_FORMAT: neither text nor json",
        ),
    ];
    for (wrong, message) in cases {
        let mut settings = vec![
            ("STORE_URL", "memory:"),
            ("BIND", "127.0.0.1:0"),
            ("WAIT_FOR_STORE", "0"),
        ];
        settings.retain(|(name, _)| wrong.iter().all(|(other, _)| other != name));
        settings.extend_from_slice(wrong);
        // Warnings about misplaced settings appear at the default level.
        if wrong[0].0 != "RUST_LOG" {
            settings.push(("RUST_LOG", "off"));
        }
        let output = finish(command(name, &settings)).await;
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {errors}");
        assert!(
            errors.starts_with("error: ") && errors.contains(message),
            "{wrong:?}: {errors}"
        );
        assert_eq!(errors.lines().count(), 1, "{wrong:?}: {errors}");
        assert!(!errors.contains("hunter2"), "{wrong:?}: {errors}");
        assert!(output.stdout.is_empty(), "{wrong:?}");
    }
    for (arguments, error) in [
        (
            &["--unknown"][..],
            "error: unexpected argument '--unknown' found; see --help\n",
        ),
        // It may be a part of a secret.
        (
            &["--admin-password", "correct", "hunter2"],
            "error: a word that is no flag and no command; quote values that hold blanks; see --help\n",
        ),
        (
            &["--bind", "127.0.0.1:0", "--bind", "0.0.0.0:80"],
            "error: the argument '--bind <HOST:PORT>' cannot be used multiple times; see --help\n",
        ),
    ] {
        let mut wrong = command(name, &[]);
        wrong.args(arguments);
        let output = finish(wrong).await;
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(String::from_utf8(output.stderr).unwrap(), error);
    }
}

pub(crate) async fn help_names_every_setting(name: &str) {
    let secrets = [
        "STORE_URL",
        "VAPID_PRIVATE_KEY",
        "ADMIN_TOKEN",
        "ADMIN_PASSWORD",
        "KEY_ENCRYPTION_KEY",
        "PRINCIPAL_TOKEN_KEY",
        "OTEL_EXPORTER_OTLP_HEADERS",
    ];
    let mut help = command(name, &secrets.map(|name| (name, "hunter2")));
    help.arg("--help");
    let output = finish(help).await;
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for (setting, default) in [
        ("BIND", "127.0.0.1:8080"),
        ("SOCKET_MODE", "660"),
        ("TLS_CERTIFICATE", ""),
        ("TLS_PRIVATE_KEY", ""),
        ("STORE_URL", "sqlite://web-push.db"),
        ("WAIT_FOR_STORE", "60"),
        ("VAPID_SUBJECT", ""),
        ("VAPID_PRIVATE_KEY", ""),
        ("ADMIN_TOKEN", ""),
        ("ADMIN_PASSWORD", ""),
        ("KEY_ENCRYPTION_KEY", ""),
        ("SEAL_CLEAR_KEYS", "false"),
        ("ENDPOINT_POLICY", "known"),
        ("ALLOWED_ORIGINS", ""),
        ("TRUSTED_PROXIES", "0"),
        ("PROXY_ADDRESSES", ""),
        ("PRINCIPAL_HEADER", ""),
        ("PRINCIPAL_TOKEN_KEY", ""),
        ("PRINCIPAL_TOKEN_ALGORITHM", "HS256"),
        ("PRINCIPAL_TOKEN_AUDIENCE", "web-push"),
        ("REQUIRE_PRINCIPAL", "false"),
        ("PUBLIC_TAGS", ""),
        ("CONFIRMATION", "true"),
        ("CONSOLE", "true"),
        ("MAX_SUBSCRIPTIONS", "10000000"),
        ("MAX_UNPROVEN_SUBSCRIPTIONS", "100000"),
        ("PUBLIC_REQUESTS_PER_MINUTE", "60"),
        ("PUBLIC_PUSHES_PER_MINUTE", "20"),
        ("RETIRE_AT_MOST", "30"),
        ("EXTRA_ROOT_CA", ""),
        ("SECONDS_BETWEEN_NOTIFICATIONS", "60"),
        ("PUSH_SERVER_VERSION", env!("CARGO_PKG_VERSION")),
        ("RUST_LOG", "info"),
        ("LOG_FORMAT", "text"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
        ("OTEL_EXPORTER_OTLP_HEADERS", ""),
    ] {
        assert!(text.contains(&format!("[env: {setting}")), "{setting}");
        assert!(text.contains(&format!("--{}", setting.to_lowercase().replace('_', "-"))));
        assert!(
            default.is_empty() || text.contains(&format!("[default: {default}]")),
            "{setting}"
        );
    }
    assert!(!text.contains("hunter2"));
    for secret in secrets {
        assert!(text.contains(&format!("[env: {secret}_FILE=]")), "{secret}");
    }
}
