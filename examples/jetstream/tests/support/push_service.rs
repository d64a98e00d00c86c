//! A push service on a loopback port that records requests and answers as the test says.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::subscription::Origin;
use tower_web_push::vapid;

/// The longest wait of a test.
const LIMIT: Duration = Duration::from_secs(40);

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) path: String,
    /// The `sub` of its token: the worker that sent it.
    pub(crate) sender: String,
    pub(crate) has_topic: bool,
    pub(crate) ttl: u64,
    pub(crate) body: Bytes,
    pub(crate) at: Instant,
    /// The answer; `None` before it is sent.
    pub(crate) answer: Option<StatusCode>,
}

/// An answer of the test.
pub(crate) enum Answer {
    Now(StatusCode),
    /// With `Retry-After`, in seconds.
    Later(StatusCode, u32),
    /// No answer before [`PushService::release`], then 201.
    Held,
}

type Rule = dyn Fn(&Arrival, &[Arrival]) -> Answer + Send + Sync;

/// Cheap to clone; clones share everything.
#[derive(Clone)]
pub(crate) struct PushService(Arc<Inner>);

struct Inner {
    origin: Origin,
    arrivals: Mutex<Vec<Arrival>>,
    /// Verified tokens: one for each sender.
    senders: Mutex<HashMap<Bytes, String>>,
    changed: watch::Sender<()>,
    released: watch::Sender<bool>,
    rule: Box<Rule>,
}

impl PushService {
    /// Starts it. `rule` gets each request and all earlier ones.
    pub(crate) async fn start<R>(rule: R) -> Self
    where
        R: Fn(&Arrival, &[Arrival]) -> Answer + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let service = Self(Arc::new(Inner {
            origin: Origin::parse(&origin).unwrap(),
            arrivals: Mutex::default(),
            senders: Mutex::default(),
            changed: watch::Sender::default(),
            released: watch::Sender::new(false),
            rule: Box::new(rule),
        }));
        tokio::spawn(service.clone().serve(listener));
        service
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.0.origin
    }

    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.0.arrivals.lock().unwrap().clone()
    }

    /// Waits until the requests are as wanted.
    pub(crate) async fn wait_until(&self, what: &str, wanted: impl Fn(&[Arrival]) -> bool) {
        let mut changed = self.0.changed.subscribe();
        let wait = async {
            while !wanted(&self.0.arrivals.lock().unwrap()) {
                changed.changed().await.unwrap();
            }
        };
        timeout(LIMIT, wait).await.expect(what);
    }

    /// Answers the held requests.
    pub(crate) fn release(&self) {
        self.0.released.send_replace(true);
    }

    async fn serve(self, listener: TcpListener) {
        while let Ok((tcp, _)) = listener.accept().await {
            tcp.set_nodelay(true).unwrap();
            let service = self.clone();
            tokio::spawn(async move {
                let serve = service_fn(|request| service.clone().answer(request));
                // A client may go away at any time.
                let _gone = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(tcp), serve)
                    .await;
            });
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let header = |name| head.headers[name].to_str().unwrap();
        let mut arrival = Arrival {
            path: head.uri.path().to_owned(),
            sender: self.sender(head.headers["authorization"].as_bytes()),
            has_topic: head.headers.contains_key("topic"),
            ttl: header("ttl").parse().unwrap(),
            body: body.collect().await.unwrap().to_bytes(),
            at: Instant::now(),
            answer: None,
        };
        let (number, answer) = {
            let mut arrivals = self.0.arrivals.lock().unwrap();
            let answer = (self.0.rule)(&arrival, &arrivals);
            if let Answer::Now(status) | Answer::Later(status, _) = answer {
                arrival.answer = Some(status);
            }
            arrivals.push(arrival);
            (arrivals.len() - 1, answer)
        };
        self.0.changed.send_replace(());
        let mut response = Response::new(Full::default());
        *response.status_mut() = match answer {
            Answer::Now(status) => status,
            Answer::Later(status, secs) => {
                response.headers_mut().insert("retry-after", secs.into());
                status
            }
            Answer::Held => {
                // A client that disconnected gets no answer: its connection drops this future.
                let _ = self
                    .0
                    .released
                    .subscribe()
                    .wait_for(|released| *released)
                    .await;
                self.0.arrivals.lock().unwrap()[number].answer = Some(StatusCode::CREATED);
                self.0.changed.send_replace(());
                StatusCode::CREATED
            }
        };
        Ok(response)
    }

    fn sender(&self, authorization: &[u8]) -> String {
        let mut senders = self.0.senders.lock().unwrap();
        let sender = senders
            .entry(Bytes::copy_from_slice(authorization))
            .or_insert_with(|| {
                let now = SystemClock::new().now();
                let verified = vapid::verify(authorization, &self.0.origin, now).unwrap();
                verified.subject().unwrap().to_owned()
            });
        sender.clone()
    }
}
