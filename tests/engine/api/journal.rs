//! The lines of the log: what administrators do, what is refused, and what fails.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tracing::subscriber::DefaultGuard;

use super::{World, post};
use crate::support::tampered_store::TamperedStore;

/// The lines that are logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn begin() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let guard = tracing::subscriber::set_default(subscriber.finish());
        (log, guard)
    }

    /// Takes the lines so far that have this text.
    fn take(&self, text: &str) -> Vec<String> {
        let lines = std::mem::take(&mut *self.0.lock().unwrap());
        let lines = String::from_utf8(lines).unwrap();
        let lines = lines.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What only reads is no line, except for an export of all users.
#[tokio::test]
async fn what_an_administrator_did_is_one_line_with_what_it_was_about() {
    let (log, _guard) = Log::begin();
    let world = World::new().await;
    world.subscriber().await;
    let message = json!({"title": "a"});
    log.take("");
    for (method, path, body, parts) in [
        (Method::GET, "/stats", &Value::Null, [""; 0].as_slice()),
        (Method::GET, "/subscriptions", &Value::Null, &[]),
        (
            Method::GET,
            "/subscriptions?format=csv",
            &Value::Null,
            &["status=200", "about=\"all that match, as CSV\""],
        ),
        (
            Method::POST,
            "/notify",
            &message,
            &["status=202", "broadcast="],
        ),
        (
            Method::POST,
            "/notify",
            &Value::Null,
            &["status=400", "code=\"invalid_json\""],
        ),
    ] {
        let _ = world.admin(method, path, body).await;
        let told = log.take("administrator");
        assert_eq!(
            told.len(),
            usize::from(!parts.is_empty()),
            "{path}: {told:?}"
        );
        for part in parts {
            assert!(told[0].contains(part), "{part}: {told:?}");
        }
    }
    let answer = world
        .admin(Method::POST, "/regenerate-vapid", &Value::Null)
        .await;
    let about = format!("about={:?}", answer.json()["keyId"].as_str().unwrap());
    let told = log.take("administrator");
    assert!(told.len() == 1 && told[0].contains(&about), "{told:?}");
}

/// An attack may end with a request, and no other one follows.
#[tokio::test(start_paused = true)]
async fn the_worker_tells_how_many_refusals_there_were() {
    let (log, _guard) = Log::begin();
    let world = World::new().await;
    for _ in 0..5 {
        let mut request = post("/stats", &Value::Null);
        *request.method_mut() = Method::GET;
        let guessed = "Bearer guessed".parse().unwrap();
        request.headers_mut().insert("authorization", guessed);
        assert_eq!(world.call(request).await.status, 401);
    }
    assert_eq!(log.take("requests were refused").len(), 1);
    tokio::time::sleep(Duration::from_secs(61)).await;
    world.push.tick().await.unwrap();
    let told = log.take("requests were refused");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("requests=4"), "{told:?}");
}

/// The response does not say why.
#[tokio::test(start_paused = true)]
async fn requests_that_fail_are_a_line_a_minute_with_the_cause() {
    let (log, _guard) = Log::begin();
    let store = Arc::new(TamperedStore::default());
    let world = World::with(|builder| builder.store(Arc::clone(&store))).await;
    store.fail("stats");
    for _ in 0..5 {
        let answer = world.admin(Method::GET, "/stats", &Value::Null).await;
        answer.is(503, "store_unavailable");
    }
    store.fail(None);
    let parts = [
        "ERROR",
        "route=\"stats\"",
        "code=\"store_unavailable\"",
        "error=\"the store is unavailable\"",
    ];
    for requests in [1, 4] {
        let told = log.take("requests failed");
        assert_eq!(told.len(), 1, "{told:?}");
        let number = format!("requests={requests}");
        for part in parts.into_iter().chain([number.as_str()]) {
            assert!(told[0].contains(part), "{part}: {told:?}");
        }
        tokio::time::sleep(Duration::from_secs(61)).await;
        world.push.tick().await.unwrap();
    }
}
