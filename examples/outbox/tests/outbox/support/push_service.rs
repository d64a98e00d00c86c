//! A push service on a loopback port, which reads what it gets.

use std::convert::Infallible;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tower_service::Service as _;
use tower_web_push::clock::Timestamp;
use tower_web_push::subscription::{Origin, Subscription};
use tower_web_push::testing::{ReceivedPush, TestPushService, UserAgent};
use tower_web_push::vapid::VapidPublicKey;

use super::world::LIMIT;

/// Long enough for requests to be in flight whenever a worker is killed.
const ANSWERS_AFTER: Duration = Duration::from_millis(20);

pub(crate) struct PushService {
    service: TestPushService,
    browsers: Vec<UserAgent>,
}

/// A message that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// The tag of its notification.
    pub(crate) tag: String,
    pub(crate) at: Timestamp,
}

impl PushService {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let service = TestPushService::builder()
            .origin(Origin::parse(&origin).unwrap())
            .build();
        tokio::spawn(serve(listener, service.clone()));
        let browsers = Vec::new();
        Self { service, browsers }
    }

    /// Subscribes another browser.
    pub(crate) fn subscribe(&mut self, key: &VapidPublicKey) -> Subscription {
        let browser = self.service.user_agent();
        let subscription = browser.subscribe(key).unwrap();
        self.browsers.push(browser);
        subscription
    }

    /// Waits until this number of messages has arrived, repeated ones included.
    pub(crate) async fn wait_for(&self, messages: usize) {
        let enough = self
            .service
            .wait_until(|counts| counts.accepted >= messages as u64);
        let enough = timeout(LIMIT, enough).await;
        assert!(enough.is_ok(), "{:?} of {messages}", self.service.counts());
    }

    /// Returns the messages that each browser has got.
    pub(crate) fn told(&self) -> Vec<Vec<Told>> {
        assert!(self.service.refusals().is_empty());
        let told = |push: &ReceivedPush| {
            let message: serde_json::Value = push.json().unwrap();
            let tag = message["tag"].as_str().unwrap().to_owned();
            let at = push.at();
            Told { tag, at }
        };
        let browsers = self.browsers.iter();
        browsers
            .map(|browser| browser.messages().iter().map(told).collect())
            .collect()
    }
}

async fn serve(listener: TcpListener, service: TestPushService) {
    while let Ok((tcp, _)) = listener.accept().await {
        tcp.set_nodelay(true).unwrap();
        let mounted = service.mount();
        let serve = service_fn(move |request| {
            let mut mounted = mounted.clone();
            async move {
                let answer = mounted.call(request).await?;
                // A worker that is killed meanwhile does not know that its message was accepted.
                sleep(ANSWERS_AFTER).await;
                Ok::<_, Infallible>(answer)
            }
        });
        // A client may go away at any time.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(tcp), serve));
    }
}
