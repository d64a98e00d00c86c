//! The user named by a token of the application's backend.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use http::{Method, StatusCode};
use jwt_simple::prelude::{
    Claims, Duration as Seconds, ECDSAP256KeyPairLike as _, ES256KeyPair, HS256Key, MACLike as _,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::world::{TOKEN, World, notify, subscription};
use crate::support::http_client::{Answer, HttpClient};
use crate::support::servers::Port;

const SECRET: &str = "5d1c6f1e0b7a4c3f9e2d8b6a7c5e4f3d";

/// The claims that the server needs, of a user.
fn claims(user: &str) -> jwt_simple::claims::JWTClaims<jwt_simple::claims::NoCustomClaims> {
    Claims::create(Seconds::from_mins(10))
        .with_subject(user)
        .with_audience("web-push")
}

fn unsigned(header: &str, claims: &Value) -> String {
    let [header, claims] = [header.to_owned(), claims.to_string()]
        .map(|text| Base64UrlUnpadded::encode_string(text.as_bytes()));
    format!("{header}.{claims}")
}

async fn subscribe(client: &HttpClient, body: &Value, token: &str) -> Answer {
    let call = client.call(Method::POST, "/web-push/subscribe").json(body);
    call.bearer(token).send().await
}

async fn recipients(client: &HttpClient, user: &str) -> Value {
    let content = json!({"title": "Hello", "audience": {"user": user}});
    notify(client, "/web-push/notify", &content).await.json()["recipients"].clone()
}

pub(crate) async fn a_token_names_the_user(name: &str) {
    let world = World::new().await;
    let settings = [
        ("PRINCIPAL_TOKEN_KEY", SECRET),
        ("REQUIRE_PRINCIPAL", "true"),
        ("ALLOWED_ORIGINS", "https://shop.example"),
    ];
    let (server, client) = world.start(name, &settings).await;
    let browser = world.push_service.user_agent();
    let body = subscription(&client, &browser, json!({})).await;
    let key = HS256Key::from_bytes(SECRET.as_bytes());
    let now = jwt_simple::prelude::Clock::now_since_epoch();
    let expired = |seconds| {
        let mut claims = claims("mallory");
        claims.issued_at = None;
        claims.expires_at = Some(now - Seconds::from_secs(seconds));
        key.authenticate(claims).unwrap()
    };
    let mut endless = claims("mallory");
    endless.expires_at = None;
    let mut early = claims("mallory");
    early.invalid_before = Some(now + Seconds::from_secs(600));
    let good = json!({"sub": "mallory", "aud": "web-push", "exp": now.as_secs() + 600});
    let es256 = ES256KeyPair::generate();
    let valid = key.authenticate(claims("alice")).unwrap();
    let (signed, _) = valid.rsplit_once('.').unwrap();
    for (why, token) in [
        (
            "another key",
            HS256Key::generate()
                .authenticate(claims("mallory"))
                .unwrap(),
        ),
        ("another algorithm", es256.sign(claims("mallory")).unwrap()),
        ("none", format!("{}.", unsigned(r#"{"alg":"none"}"#, &good))),
        (
            "none, spelled otherwise",
            format!("{}.", unsigned(r#"{"alg":"nOnE","typ":"JWT"}"#, &good)),
        ),
        ("no algorithm", format!("{}.", unsigned("{}", &good))),
        ("no signature", format!("{signed}.")),
        ("expired", expired(120)),
        ("no exp", key.authenticate(endless).unwrap()),
        ("not valid yet", key.authenticate(early).unwrap()),
        (
            "another audience",
            key.authenticate(
                Claims::create(Seconds::from_mins(10))
                    .with_subject("mallory")
                    .with_audience("shop"),
            )
            .unwrap(),
        ),
        (
            "no audience",
            key.authenticate(Claims::create(Seconds::from_mins(10)).with_subject("mallory"))
                .unwrap(),
        ),
        (
            "no user",
            key.authenticate(Claims::create(Seconds::from_mins(10)).with_audience("web-push"))
                .unwrap(),
        ),
        ("an empty user", key.authenticate(claims(" ")).unwrap()),
        ("no token", "a.b.c".to_owned()),
        ("the text of an error", "Unauthorized".to_owned()),
        ("two parts", "a.b".to_owned()),
        ("too long", format!("{valid}{}", "A".repeat(9000))),
    ] {
        let refused = subscribe(&client, &body, &token).await;
        assert_eq!(
            refused.status,
            StatusCode::UNAUTHORIZED,
            "{why}: {refused:?}"
        );
        assert_eq!(refused.json()["code"], "invalid_token", "{why}");
        assert_eq!(refused.header("content-type"), "application/problem+json");
        assert!(refused.header("www-authenticate").starts_with("Bearer "));
    }
    assert_eq!(recipients(&client, "mallory").await, 0);

    // A page of a listed origin can read the refusal.
    let call = client.call(Method::POST, "/web-push/subscribe").json(&body);
    let call = call
        .header("origin", "https://shop.example")
        .bearer("a.b.c");
    let refused = call.send().await;
    assert_eq!(
        refused.header("access-control-allow-origin"),
        "https://shop.example"
    );

    let without = client.post("/web-push/subscribe", &body).await;
    assert_eq!(without.json()["code"], "principal_required", "{without:?}");
    let subscribed = subscribe(&client, &body, &valid).await;
    assert_eq!(subscribed.status, StatusCode::OK, "{subscribed:?}");
    assert_eq!(recipients(&client, "alice").await, 1);
    // Clocks may differ by a minute. It is mallory's own endpoint.
    let other = world.push_service.user_agent();
    let body = subscription(&client, &other, json!({})).await;
    let late = subscribe(&client, &body, &expired(30)).await;
    assert_eq!(late.status, StatusCode::OK, "{late:?}");

    // The administrators' token is another one, and a user's token is none of theirs.
    for (token, status) in [
        (TOKEN, StatusCode::OK),
        (valid.as_str(), StatusCode::UNAUTHORIZED),
    ] {
        let stats = client.call(Method::GET, "/web-push/stats").bearer(token);
        assert_eq!(stats.send().await.status, status);
    }
    let printed = server.terminate_and_read().await;
    assert!(!printed.contains(SECRET) && !printed.contains(&valid));
}

pub(crate) async fn a_token_can_have_a_public_key(name: &str) {
    let world = World::new().await;
    let key = ES256KeyPair::generate();
    let pem = key.public_key().to_pem().unwrap();
    let file = world.folder.path().join("key.pem");
    fs::write(&file, &pem).unwrap();
    let settings = [
        ("PRINCIPAL_TOKEN_KEY_FILE", file.to_str().unwrap()),
        ("PRINCIPAL_TOKEN_ALGORITHM", "ES256"),
        ("PRINCIPAL_TOKEN_AUDIENCE", "https://push.example"),
    ];
    let (_server, client) = world.start(name, &settings).await;
    let browser = world.push_service.user_agent();
    let body = subscription(&client, &browser, json!({})).await;
    let claims = |user| {
        Claims::create(Seconds::from_mins(10))
            .with_subject(user)
            .with_audience("https://push.example")
    };
    // The public key is public: it must not be the secret of an HMAC.
    for secret in [pem.as_str(), pem.trim()] {
        let forged = HS256Key::from_bytes(secret.as_bytes());
        let forged = forged.authenticate(claims("mallory")).unwrap();
        let refused = subscribe(&client, &body, &forged).await;
        assert_eq!(refused.json()["code"], "invalid_token", "{refused:?}");
    }
    let subscribed = subscribe(&client, &body, &key.sign(claims("alice")).unwrap()).await;
    assert_eq!(subscribed.status, StatusCode::OK, "{subscribed:?}");
    assert_eq!(recipients(&client, "mallory").await, 0);
    assert_eq!(recipients(&client, "alice").await, 1);
}

/// The backends of the guide, as they stand there.
pub(crate) async fn the_backends_of_the_guide_make_tokens(name: &str) {
    let world = World::new().await;
    let key = ES256KeyPair::generate();
    let file = |name: &str, content: &str| {
        let path = world.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let private = file("private.pem", &key.to_pem().unwrap());
    let public = file("public.pem", &key.public_key().to_pem().unwrap());
    let python = file("backend.py", &program("python", "wsgiref"));
    let node = file("backend.cjs", &program("js", "createPrivateKey"));
    for (interpreter, script, variable, value, settings) in [
        (
            "python3",
            python,
            "PRINCIPAL_TOKEN_KEY",
            SECRET,
            [
                ("PRINCIPAL_TOKEN_KEY", SECRET),
                ("PRINCIPAL_TOKEN_ALGORITHM", "HS256"),
            ],
        ),
        (
            "node",
            node,
            "PRIVATE_KEY_FILE",
            private.as_str(),
            [
                ("PRINCIPAL_TOKEN_KEY_FILE", public.as_str()),
                ("PRINCIPAL_TOKEN_ALGORITHM", "ES256"),
            ],
        ),
    ] {
        let port = Port::free();
        let address = format!("127.0.0.1:{}", port.number());
        let backend = Command::new(interpreter)
            .arg(script)
            .env("PORT", port.number().to_string())
            .env(variable, value)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let Ok(mut process) = backend else {
            assert!(
                std::env::var_os("WEB_PUSH_REQUIRE_PEERS").is_none(),
                "{interpreter} is missing, and WEB_PUSH_REQUIRE_PEERS is set: ./test --install"
            );
            eprintln!("SKIPPED: {interpreter} is missing: ./test --install");
            continue;
        };
        while TcpStream::connect(&address).await.is_err() {
            assert_eq!(process.try_wait().unwrap(), None, "{interpreter} has ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let backend = HttpClient::new(format!("http://{address}"));
        let (_server, client) = world.start(name, &settings).await;
        let browser = world.push_service.user_agent();
        let body = subscription(&client, &browser, json!({})).await;
        let token = backend
            .call(Method::GET, "/")
            .header("cookie", "session=alice");
        let token = token.send().await.text().to_owned();
        let subscribed = subscribe(&client, &body, &token).await;
        assert_eq!(
            subscribed.status,
            StatusCode::OK,
            "{interpreter}: {subscribed:?}"
        );
        assert_ne!(recipients(&client, "alice").await, 0, "{interpreter}");
    }
}

/// A program in the guide: the block in this language that has this word.
fn program(language: &str, word: &str) -> String {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide/users_and_tags.md");
    let guide = fs::read_to_string(guide).unwrap();
    let fence = format!("```{language}\n");
    let mut blocks = guide.split(&fence).skip(1);
    let block = blocks.find_map(|rest| {
        rest.split("```")
            .next()
            .filter(|block| block.contains(word))
    });
    block.expect("the program is in the guide").to_owned()
}
