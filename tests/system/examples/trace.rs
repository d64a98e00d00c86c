//! The whole log of a busy server, at level trace and of every target, on each store: nothing in it is secret.

use std::fs;
use std::io;
use std::sync::{Arc, OnceLock};

use base64ct::{Base64, Encoding as _};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower_service::Service as _;
use tower_web_push::subscription::Origin;
use tower_web_push::testing::{Answer, MountedPushService, TestPushService, UserAgent, When};
use tower_web_push::vapid::VapidKey;

use super::world::{PASSWORD, TOKEN, World, next, notify, subscription};
use crate::support::http_client::HttpClient;
use crate::support::push_server::{BOTH, PushServer};
use crate::support::servers::{Kind, Server};

const KEKS: [&str; 2] = [
    "qXV4Yv1RHMbKn0gTzCZ2PjBdW8EJ_Ut3hsOl5r-Qa7k",
    "c9Wm2RkX0tYv8LqZbN4hJ6uGfP1sDaE7oIiTzVxKwMg",
];
const USER: &str = "carol.jones@mail.example";
const STORE_PASSWORD: &str = "pa55w0rd-of-the-store";
const WRONG: [&str; 2] = ["hunter2-hunter2-hunter2", "letmein-letmein"];
const TEXTS: [&str; 5] = [
    "A title for nobody else",
    "A text for nobody else",
    "a-raw-payload-for-nobody-else",
    "a daily text for nobody else",
    "a-test-for-nobody-else",
];
const BROWSERS: usize = 8;

/// The push service behind TLS and HTTP/2, as a browser vendor runs it: the client's libraries log as well.
async fn push_service() -> (TestPushService, PushServer) {
    // The port is needed before the service is made, since endpoints contain it.
    let mounted: Arc<OnceLock<MountedPushService>> = Arc::default();
    let server = PushServer::start(BOTH, {
        let mounted = Arc::clone(&mounted);
        move |request| {
            let mut service = mounted.get().expect("there is no subscription yet").clone();
            Box::pin(async move {
                let answer = service.call(request).await.unwrap();
                answer.map(|body| body.map_err(io::Error::other).boxed())
            })
        }
    })
    .await;
    let origin = Origin::parse(&format!("https://localhost:{}", server.port())).unwrap();
    let service = TestPushService::builder().origin(origin).build();
    mounted.set(service.mount()).unwrap();
    (service, server)
}

pub(crate) async fn on_memory_nothing_secret_is_logged_at_any_level(name: &str) {
    busy(name, "memory").await;
}

pub(crate) async fn on_sqlite_nothing_secret_is_logged_at_any_level(name: &str) {
    busy(name, "").await;
}

pub(crate) async fn on_postgres_nothing_secret_is_logged_at_any_level(name: &str) {
    if let Some(server) = Server::start(Kind::Postgres, &[]).await {
        let url = server.url();
        // The server asks for none, and the URL has one.
        let url = url.replace("postgres@", &format!("postgres:{STORE_PASSWORD}@"));
        busy(name, &url).await;
    }
}

pub(crate) async fn on_redis_nothing_secret_is_logged_at_any_level(name: &str) {
    if let Some(server) = Server::start(Kind::Redis, &[]).await {
        busy(name, &server.url()).await;
    }
}

/// Does everything with a server that has to do with a secret, twice, and reads its log.
async fn busy(name: &str, store_url: &str) {
    let world = World::new().await;
    let (service, tls) = push_service().await;
    let ca = world.folder.path().join("ca.pem");
    fs::write(&ca, &tls.ca_pem).unwrap();
    let key = VapidKey::generate().unwrap();
    let pem = key.secret_to_pkcs8_pem();
    let own_file = world.store_url();
    let store_url = if store_url.is_empty() {
        &own_file
    } else {
        store_url
    };
    // At the second start the stored keys are sealed again.
    let rotated = [KEKS[0].to_owned(), format!("{},{}", KEKS[1], KEKS[0])];
    let mut secrets = Secrets::of(&key);
    let mut printed = String::new();
    for kek in &rotated {
        let settings = [
            ("RUST_LOG", "trace"),
            ("STORE_URL", store_url),
            ("EXTRA_ROOT_CA", ca.to_str().unwrap()),
            ("VAPID_PRIVATE_KEY", pem.as_str()),
            ("KEY_ENCRYPTION_KEY", kek),
            ("PRINCIPAL_HEADER", "remote-user"),
            ("TRUSTED_PROXIES", "1"),
            ("PUBLIC_TAGS", "news"),
            ("PUBLIC_REQUESTS_PER_MINUTE", "0"),
        ];
        let (server, client) = world.start(name, &settings).await;
        let page = Page(client);
        let mut browsers = Vec::new();
        for number in 0..BROWSERS {
            let browser = service.user_agent();
            page.subscribe(&browser, number).await;
            secrets.add(&browser);
            browsers.push(browser);
        }
        page.send(&service, &browsers).await;
        page.leave(&service, browsers, &mut secrets).await;
        page.administer().await;
        page.intrude().await;
        printed += &server.terminate_and_read().await;
    }
    for (what, expected) in [
        ("lines", 500),
        ("TRACE ", 100),
        ("DEBUG ", 20),
        ("tower_web_push", 20),
        // Spans, of which the lines inside of them show the fields.
        ("attempt{broadcast=", 5),
    ] {
        let found = match what {
            "lines" => printed.lines().count(),
            word => printed.matches(word).count(),
        };
        assert!(
            found >= expected,
            "{found} {what}, so the log says little: {printed}"
        );
    }
    secrets.are_not_in(&printed);
}

/// A browser's page behind a proxy that signs its user in.
struct Page(HttpClient);

impl Page {
    async fn post(&self, path: &str, body: &Value) -> StatusCode {
        let call = self.0.call(Method::POST, &format!("/web-push{path}"));
        let call = call.header("x-forwarded-for", "192.0.2.1");
        let call = call.header("remote-user", USER);
        call.json(body).send().await.status
    }

    async fn subscribe(&self, browser: &UserAgent, number: usize) {
        let more = match number % 3 {
            0 => json!({"tags": ["news"]}),
            1 => json!({"notifyTime": {"utcHour": 3}, "message": TEXTS[3]}),
            _ => json!({}),
        };
        let body = subscription(&self.0, browser, more).await;
        assert_eq!(self.post("/subscribe", &body).await, StatusCode::OK);
    }

    /// Broadcasts, with every kind of answer.
    async fn send(&self, service: &TestPushService, browsers: &[UserAgent]) {
        let endpoint = |number: usize| browsers[number].subscription().unwrap().endpoint().clone();
        let refusal = |status: StatusCode| Answer::status(status).with_body("refused");
        for (number, answer) in [
            (0, refusal(StatusCode::BAD_REQUEST)),
            (1, refusal(StatusCode::INTERNAL_SERVER_ERROR)),
            (
                2,
                refusal(StatusCode::TOO_MANY_REQUESTS).with_retry_after(1),
            ),
            (3, Answer::disconnect()),
            (4, refusal(StatusCode::PAYLOAD_TOO_LARGE)),
        ] {
            service.script(When::endpoint(&endpoint(number)).times(1), answer);
        }
        let to_all = json!({"title": TEXTS[0], "body": TEXTS[1], "url": "https://example.com/"});
        let raw = json!({"payload": TEXTS[2], "audience": {"user": USER}, "urgency": "high"});
        for content in [to_all, raw] {
            let queued = notify(&self.0, "/web-push/notify", &content).await;
            assert_eq!(queued.status, StatusCode::ACCEPTED, "{queued:?}");
        }
        for browser in &browsers[6..] {
            next(browser).await;
        }
        let mut test = serde_json::to_value(browsers[5].subscription().unwrap()).unwrap();
        test["title"] = TEXTS[4].into();
        assert_eq!(self.post("/send-test", &test).await, StatusCode::OK);
    }

    /// Some are gone, one is renewed, and one unsubscribes.
    async fn leave(
        &self,
        service: &TestPushService,
        browsers: Vec<UserAgent>,
        secrets: &mut Secrets,
    ) {
        let known = |number: usize| browsers[number].subscription().unwrap();
        service.expire(known(6).endpoint());
        let content = json!({"title": TEXTS[0], "ttl": 60, "topic": "late"});
        notify(&self.0, "/web-push/notify", &content).await;
        let other = service.user_agent();
        let renewed = subscription(&self.0, &other, json!({})).await;
        secrets.add(&other);
        let renewal = json!({
            "oldEndpoint": known(5).endpoint().as_str(),
            "oldAuth": known(5).auth().secret_to_base64url(),
            "subscription": renewed,
        });
        assert_eq!(self.post("/renew", &renewal).await, StatusCode::OK);
        let gone = json!({"endpoint": known(4).endpoint().as_str()});
        assert_eq!(self.post("/unsubscribe", &gone).await, StatusCode::OK);
        let devices = self.0.call(Method::GET, "/web-push/devices");
        let devices = devices
            .header("x-forwarded-for", "192.0.2.1")
            .header("remote-user", USER);
        let devices = devices.send().await.json();
        let path = format!(
            "/web-push/devices/{}",
            devices["devices"][0]["id"].as_str().unwrap()
        );
        let remove = self.0.call(Method::DELETE, &path);
        let remove = remove
            .header("x-forwarded-for", "192.0.2.1")
            .header("remote-user", USER);
        assert_eq!(remove.send().await.status, StatusCode::OK);
    }

    async fn administer(&self) {
        let call = |method, path: &str| self.0.call(method, path).bearer(TOKEN);
        for path in ["/web-push/stats", "/metrics"] {
            assert_eq!(call(Method::GET, path).send().await.status, StatusCode::OK);
        }
        let basic = Base64::encode_string(format!("admin:{PASSWORD}").as_bytes());
        let stats = self.0.call(Method::GET, "/web-push/stats");
        let stats = stats.header("authorization", &format!("Basic {basic}"));
        assert_eq!(stats.send().await.status, StatusCode::OK);
        let in_an_hour = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
        let late = json!({"title": TEXTS[0], "sendAt": in_an_hour.to_string()});
        let queued = notify(&self.0, "/web-push/notify", &late).await.json();
        let path = format!(
            "/web-push/broadcasts/{}",
            queued["broadcast"].as_str().unwrap()
        );
        let paused = call(Method::PATCH, &path).json(&json!({"state": "paused"}));
        assert_eq!(paused.send().await.status, StatusCode::OK);
        assert_eq!(
            call(Method::DELETE, &path).send().await.status,
            StatusCode::OK
        );
        let made = call(Method::POST, "/web-push/regenerate-vapid")
            .send()
            .await;
        assert_eq!(made.status, StatusCode::OK);
    }

    /// Wrong credentials, and bodies that are refused with what is in them.
    async fn intrude(&self) {
        let stats = || self.0.call(Method::GET, "/web-push/stats");
        let bearer = stats().bearer(WRONG[0]).send().await;
        assert_eq!(bearer.status, StatusCode::UNAUTHORIZED);
        let basic = Base64::encode_string(format!("admin:{}", WRONG[1]).as_bytes());
        let basic = stats()
            .header("authorization", &format!("Basic {basic}"))
            .send()
            .await;
        assert_eq!(basic.status, StatusCode::UNAUTHORIZED);
        let endpoint = format!("https://10.1.2.3/{}", TEXTS[2]);
        for body in [
            json!({"endpoint": endpoint, "keys": {"p256dh": TEXTS[2], "auth": TEXTS[2]}}),
            json!({"endpoint": TEXTS[2], "keys": TEXTS[2]}),
            json!([TEXTS[2]]),
            json!(TEXTS[2]),
        ] {
            for path in ["/subscribe", "/renew", "/send-test", "/unsubscribe"] {
                // To unsubscribe what is not there is no error.
                assert!(!self.post(path, &body).await.is_server_error());
            }
            let refused = notify(&self.0, "/web-push/notify", &body).await;
            assert!(refused.status.is_client_error(), "{refused:?}");
        }
    }
}

/// Texts that no line of a log may have.
struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    fn of(key: &VapidKey) -> Self {
        let octets = key.secret_bytes();
        let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        let pem = key.secret_to_pkcs8_pem();
        let longest = pem.lines().max_by_key(|line| line.len()).unwrap();
        let mut secrets = vec![
            (
                "VAPID private key",
                key.secret_to_raw_base64url().to_string(),
            ),
            ("VAPID private key", hex),
            ("VAPID private key", longest.to_owned()),
            ("VAPID private key", list(&octets[..8])),
            ("administrator's token", TOKEN.to_owned()),
            ("administrator's password", PASSWORD.to_owned()),
            (
                "administrator's credentials",
                Base64::encode_string(format!("admin:{PASSWORD}").as_bytes()),
            ),
            ("user", USER.to_owned()),
            ("user", "carol.jones".to_owned()),
            ("password of the store", STORE_PASSWORD.to_owned()),
            // `{"typ":"JWT"` and `{"alg":`, as every token begins.
            ("VAPID token", "eyJ0eXAi".to_owned()),
            ("VAPID token", "eyJhbGci".to_owned()),
        ];
        secrets.extend(KEKS.map(|kek| ("key-encryption key", kek.to_owned())));
        secrets.extend(TEXTS.map(|text| ("text of a message", text.to_owned())));
        secrets.extend(WRONG.map(|wrong| ("wrong password", wrong.to_owned())));
        Self(secrets)
    }

    fn add(&mut self, browser: &UserAgent) {
        let subscription = browser.subscription().unwrap();
        let endpoint = subscription.endpoint().as_str();
        let (_, path) = endpoint.rsplit_once('/').unwrap();
        let auth = subscription.auth();
        let public = subscription.ua_public();
        self.0.extend([
            ("endpoint", path.to_owned()),
            ("auth", auth.secret_to_base64url()),
            ("auth", list(&auth.secret_bytes()[..8])),
            ("p256dh", public.to_base64url()),
            ("p256dh", list(&public.as_bytes()[1..9])),
        ]);
    }

    fn are_not_in(&self, printed: &str) {
        let mut found = Vec::new();
        for (what, secret) in &self.0 {
            assert!(secret.len() > 2, "{what}");
            found.extend(
                printed
                    .lines()
                    .filter(|line| line.contains(secret.as_str()))
                    .map(|line| format!("{what}: {line}")),
            );
        }
        found.sort();
        found.dedup();
        let more = found.len().saturating_sub(20);
        found.truncate(20);
        assert!(found.is_empty(), "{}\nand {more} more", found.join("\n"));
    }
}

/// Octets as `Debug` prints them, without the brackets.
fn list(octets: &[u8]) -> String {
    let list = format!("{octets:?}");
    list.trim_matches(['[', ']']).to_owned()
}
