//! An application with users and a database of its own.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, NoTls};
use tower_web_push::subscription::Origin;
use tower_web_push::testing::TestPushService;
use tower_web_push::vapid::VapidPublicKey;

use crate::support::http_client::{Call, HttpClient};
use crate::support::server_process::ServerProcess;
use crate::support::servers::{Kind, Server as Database};

const OPERATORS: &str = "h9Jm3pXq7vTz2LkB";

struct App {
    process: ServerProcess,
    public: HttpClient,
    database: Database,
}

impl App {
    /// Returns `None`, with a message, if PostgreSQL is not installed.
    async fn start() -> Option<Self> {
        let database = Database::start(Kind::Postgres, &[]).await?;
        let url = database.url();
        let settings = [
            ("BIND", "127.0.0.1:0"),
            ("INTERNAL_BIND", "127.0.0.1:0"),
            ("OPERATOR_TOKEN", OPERATORS),
            ("DATABASE_URL", &url),
        ];
        let process = ServerProcess::start("existing_app", &settings).await;
        let public = HttpClient::new(&process.url);
        Some(Self {
            process,
            public,
            database,
        })
    }

    fn alice(&self, method: Method, path: &str) -> Call {
        self.public.call(method, path).bearer("alice-session")
    }

    /// Subscribes a browser of Alice. The application sends to the push services of browsers only, so nothing is sent.
    async fn subscribe_alice(&self) {
        let key = self
            .alice(Method::GET, "/web-push/vapid")
            .send()
            .await
            .json();
        let key = VapidPublicKey::parse(key["vapidKey"].as_str().unwrap()).unwrap();
        let push_service = TestPushService::builder()
            .origin(Origin::parse("https://updates.push.services.mozilla.com").unwrap())
            .build();
        let subscription = push_service.user_agent().subscribe(&key).unwrap();
        let subscription = serde_json::to_value(subscription).unwrap();
        let subscribe = self.alice(Method::POST, "/web-push/subscribe");
        let subscribed = subscribe.json(&subscription).send().await;
        assert_eq!(subscribed.status, StatusCode::OK, "{subscribed:?}");
    }

    async fn ship(&self, order: i64) -> StatusCode {
        let path = format!("/orders/{order}/ship");
        self.alice(Method::POST, &path).send().await.status
    }

    async fn connect(&self) -> Client {
        let url = self.database.url();
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

#[tokio::test]
async fn existing_app_authenticates_its_users() {
    let Some(app) = App::start().await else {
        return;
    };
    let nobody = app.public.get("/web-push/vapid").await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
    app.subscribe_alice().await;
}

#[tokio::test]
async fn existing_app_ships_an_order_and_enqueues_its_message_or_does_neither() {
    let Some(app) = App::start().await else {
        return;
    };
    let database = app.connect().await;
    // Whatever fails up to the end of the transaction.
    let fails = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'out of stock'; END $$; \
         CREATE CONSTRAINT TRIGGER fails AFTER UPDATE ON orders DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION fail()";
    database.batch_execute(fails).await.unwrap();
    assert_eq!(app.ship(7).await, StatusCode::SERVICE_UNAVAILABLE);
    database
        .batch_execute("DROP TRIGGER fails ON orders")
        .await
        .unwrap();
    let number = async |query: &str| -> i64 {
        let query = format!("SELECT count(*) FROM {query}");
        database.query_one(&query, &[]).await.unwrap().get(0)
    };
    assert_eq!(number("orders WHERE state = 'shipped'").await, 0);

    assert_eq!(app.ship(7).await, StatusCode::OK);
    assert_eq!(app.ship(7).await, StatusCode::NOT_FOUND);
    let is_taken = async {
        while number("web_push.broadcast").await == 0 || number("web_push.outbox").await > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let taken = timeout(Duration::from_secs(60), is_taken).await;
    taken.expect("its message is in the queue");
    assert_eq!(number("web_push.broadcast").await, 1);
    assert_eq!(number("orders WHERE state = 'shipped'").await, 1);
}

#[tokio::test]
async fn existing_app_has_a_public_and_an_internal_mount_with_rules_of_their_own() {
    let Some(app) = App::start().await else {
        return;
    };
    let printed = app.process.printed();
    let internal = printed
        .lines()
        .find_map(|line| line.strip_prefix("Operators on "));
    let internal = HttpClient::new(format!("http://{}", internal.unwrap()));
    let notify = |client: &HttpClient, token: &str| {
        let notification = json!({"title": "Sale", "audience": {"user": "alice"}});
        client
            .call(Method::POST, "/web-push/notify")
            .bearer(token)
            .json(&notification)
    };

    // A user is no administrator, and the operators' token is no user's session.
    let refused = notify(&app.public, "alice-session").send().await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(refused.json()["code"], "admin_not_configured");
    let unknown = notify(&app.public, OPERATORS).send().await;
    assert_eq!(unknown.status, StatusCode::UNAUTHORIZED);

    // A user's session is no operator's token.
    let refused = notify(&internal, "alice-session").send().await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let accepted = notify(&internal, OPERATORS).send().await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");

    // One store: both mounts have the same VAPID key.
    let keys = [
        app.alice(Method::GET, "/web-push/vapid"),
        internal.call(Method::GET, "/web-push/vapid"),
    ];
    let [one, other] = keys.map(|call| async { call.send().await.json() });
    assert_eq!(one.await, other.await);
}
