//! A push service as application servers see it (RFC 8030): push resources on a loopback port. `autopush` and
//! `gcm` are its other side, to real browsers.
//! It cannot decrypt, as a real one, and shares no code with the crate, so that an error on one side is found.
//! otherwise pass.

use std::collections::HashMap;
use std::convert::Infallible;
use std::mem;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64ct::{Base64UrlUnpadded, Encoding as _};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, HeaderMap, LOCATION};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);

/// The path of push resources; the last segment names the subscription.
const PATH: &str = "/push/";

/// One push service, for one browser.
#[derive(Clone)]
pub(crate) struct PushService {
    port: u16,
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<()>>,
}

/// The state of the push service.
#[derive(Default)]
pub(crate) struct State {
    /// The number of logins of browsers.
    pub(crate) logins: usize,
    /// By the token in the endpoint; `None` once the browser has unsubscribed.
    pub(crate) channels: HashMap<String, Option<Channel>>,
    /// Every push request with its response.
    pub(crate) pushes: Vec<Recorded>,
    /// `(version, code)` of every acknowledgement, from browsers that send one.
    pub(crate) acks: Vec<(String, i64)>,
    /// Error codes of a service worker, from browsers that report them.
    pub(crate) nacks: Vec<i64>,
    /// The number of times the browser was forgotten.
    pub(crate) forgotten: usize,
    /// Messages stored for the browser's return.
    stored: Vec<Delivery>,
    /// Logins wait until this is over.
    offline: bool,
    /// Whether an octet of the next message's ciphertext is changed.
    flip: bool,
    /// To the browser that logged in last. Dropping it ends the connection.
    browser: Option<mpsc::UnboundedSender<Delivery>>,
}

#[derive(Clone)]
pub(crate) struct Channel {
    /// The browser's name of it.
    pub(crate) id: String,
    /// The applicationServerKey, 65 octets.
    pub(crate) key: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) status: u16,
    /// The reason of a refusal; empty if it was accepted.
    pub(crate) why: String,
    /// When it was received.
    pub(crate) at: SystemTime,
}

/// A message to the browser.
#[derive(Clone)]
pub(crate) struct Delivery {
    pub(crate) channel: Channel,
    pub(crate) version: String,
    pub(crate) body: Bytes,
    pub(crate) ttl: u64,
    token: String,
    topic: Option<String>,
}

impl PushService {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = Self {
            port: listener.local_addr().unwrap().port(),
            state: Arc::default(),
            changed: Arc::new(watch::channel(()).0),
        };
        let senders = service.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let senders = senders.clone();
                tokio::spawn(async move {
                    let answer = service_fn(move |request| senders.clone().push(request));
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
        });
        service
    }

    /// Returns a subscription's endpoint.
    pub(crate) fn endpoint(&self, token: &str) -> String {
        format!("{}{PATH}{token}", self.origin())
    }

    /// Waits until something can be found in the state.
    pub(crate) async fn wait_for<T>(
        &self,
        what: &str,
        mut find: impl FnMut(&State) -> Option<T>,
    ) -> T {
        let mut changes = self.changed.subscribe();
        timeout(LIMIT, async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = find(&self.state.lock().unwrap()) {
                    return found;
                }
                changes.changed().await.unwrap();
            }
        })
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"))
    }

    /// Reads the state without waiting.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap())
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock().unwrap());
        self.changed.send_replace(());
        result
    }

    // ---- Events of a test

    /// Disconnects, and accepts the browser again only after [`come_back`](Self::come_back).
    pub(crate) fn go_offline(&self) {
        self.change(|state| {
            state.offline = true;
            state.browser = None;
        });
    }

    pub(crate) fn come_back(&self) {
        self.change(|state| state.offline = false);
    }

    /// Changes one octet of the next message's ciphertext.
    pub(crate) fn flip_next(&self) {
        self.change(|state| state.flip = true);
    }

    /// Forgets the browser, as push services sometimes do: its subscriptions end, and it has to log in again.
    pub(crate) fn forget_the_browser(&self) {
        self.change(|state| {
            state.forgotten += 1;
            state.browser = None;
            state
                .channels
                .values_mut()
                .for_each(|channel| *channel = None);
        });
    }

    // ---- The browser's side, for its protocols

    /// Logs the browser in, once it is not offline. Returns its messages from now on, stored ones first.
    pub(crate) async fn log_in(&self) -> mpsc::UnboundedReceiver<Delivery> {
        let (sender, messages) = mpsc::unbounded_channel();
        let mut changes = self.changed.subscribe();
        while self.look(|state| state.offline) {
            changes.changed().await.unwrap();
        }
        self.change(|state| {
            for stored in state.stored.drain(..) {
                let _ = sender.send(stored);
            }
            state.logins += 1;
            state.browser = Some(sender);
        });
        messages
    }

    /// Adds a subscription. Returns its token.
    pub(crate) fn subscribed(&self, channel: Channel) -> String {
        self.change(|state| {
            let token = format!("token{}", state.channels.len());
            state.channels.insert(token.clone(), Some(channel));
            token
        })
    }

    /// Removes a subscription. Returns its token.
    pub(crate) fn unsubscribed(&self, channel_id: &str) -> Option<String> {
        self.change(|state| {
            let mut channels = state.channels.iter_mut();
            let (token, channel) = channels.find(|(_, channel)| {
                let channel = channel.as_ref();
                channel.is_some_and(|channel| channel.id == channel_id)
            })?;
            *channel = None;
            Some(token.clone())
        })
    }

    // ---- The application server's side

    fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    async fn push(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let token = head.uri.path().strip_prefix(PATH).unwrap_or("");
        let channel = self.look(|state| state.channels.get(token).cloned());
        let checked = match channel {
            None => Err((StatusCode::NOT_FOUND, "no such subscription".to_owned())),
            Some(None) => Err((StatusCode::GONE, "the browser has unsubscribed".to_owned())),
            Some(Some(_)) if head.method != Method::POST => {
                Err((StatusCode::METHOD_NOT_ALLOWED, "not a POST".to_owned()))
            }
            Some(Some(channel)) => check(&head.headers, &body, &channel.key, &self.origin())
                .map(|(ttl, topic)| (channel, ttl, topic)),
        };
        let (status, why) = match &checked {
            Ok(_) => (StatusCode::CREATED, String::new()),
            Err((status, why)) => (*status, why.clone()),
        };
        let mut answer = Response::builder().status(status);
        self.change(|state| {
            let version = format!("version{}", state.pushes.len());
            state.pushes.push(Recorded {
                status: status.as_u16(),
                why: why.clone(),
                at: SystemTime::now(),
            });
            if let Ok((channel, ttl, topic)) = checked {
                let headers = answer.headers_mut().unwrap();
                let location = format!("{}/m/{version}", self.origin());
                headers.insert(LOCATION, location.parse().unwrap());
                headers.insert("ttl", ttl.into());
                state.take(Delivery {
                    channel,
                    version,
                    body,
                    ttl,
                    token: token.to_owned(),
                    topic,
                });
            }
        });
        Ok(answer.body(Full::from(why)).unwrap())
    }
}

impl State {
    /// Delivers it, or stores it for the time that RFC 8030 says.
    fn take(&mut self, mut delivery: Delivery) {
        if mem::take(&mut self.flip) {
            let mut body = delivery.body.to_vec();
            // The last octet is the authentication tag's.
            *body.last_mut().unwrap() ^= 1;
            delivery.body = body.into();
        }
        let undelivered = match &self.browser {
            Some(browser) => browser.send(delivery).err().map(|refused| refused.0),
            None => Some(delivery),
        };
        let Some(delivery) = undelivered else { return };
        // RFC 8030 section 5.2: with a TTL of 0 it is delivered at once or never.
        if delivery.ttl == 0 {
            return;
        }
        // RFC 8030 section 5.4: it replaces the one of the same topic and subscription.
        if delivery.topic.is_some() {
            self.stored
                .retain(|old| old.topic != delivery.topic || old.token != delivery.token);
        }
        self.stored.push(delivery);
    }
}

type Refusal = (StatusCode, String);

/// Checks as strictly as RFC 8030 and RFC 8292 allow. Returns the TTL and the topic.
fn check(
    headers: &HeaderMap,
    body: &[u8],
    key: &[u8],
    origin: &str,
) -> Result<(u64, Option<String>), Refusal> {
    let refuse = |status, why: &str| Err((status, why.to_owned()));
    let once = |name: &str| -> Result<Option<&str>, Refusal> {
        let values: Vec<_> = headers.get_all(name).iter().collect();
        match values[..] {
            [] => Ok(None),
            [value] => Ok(Some(value.to_str().unwrap())),
            _ => Err((StatusCode::BAD_REQUEST, format!("{name} more than once"))),
        }
    };
    let ttl = once("ttl")?.and_then(|ttl| ttl.parse().ok());
    let Some(ttl) = ttl else {
        return refuse(StatusCode::BAD_REQUEST, "no TTL, or not digits");
    };
    if let Some(urgency) = once("urgency")?
        && !["very-low", "low", "normal", "high"].contains(&urgency)
    {
        return refuse(StatusCode::BAD_REQUEST, "no such urgency");
    }
    let topic = once("topic")?;
    if let Some(topic) = topic
        && !((1..=32).contains(&topic.len())
            && topic
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)))
    {
        return refuse(StatusCode::BAD_REQUEST, "not a topic");
    }
    if body.len() > 4096 {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "more than 4096 octets");
    }
    if !body.is_empty() && once(CONTENT_ENCODING.as_str())? != Some("aes128gcm") {
        return refuse(StatusCode::BAD_REQUEST, "not aes128gcm");
    }
    let Some(authorization) = once(AUTHORIZATION.as_str())? else {
        return refuse(StatusCode::UNAUTHORIZED, "no Authorization");
    };
    match vapid(authorization, key, origin) {
        Some(()) => Ok((ttl, topic.map(str::to_owned))),
        None => refuse(StatusCode::FORBIDDEN, "the VAPID token is not right"),
    }
}

/// Checks a token by RFC 8292 sections 2 and 3.1, without a library.
fn vapid(authorization: &str, key: &[u8], origin: &str) -> Option<()> {
    let parameters: HashMap<_, _> = authorization
        .strip_prefix("vapid ")?
        .split(',')
        .filter_map(|parameter| parameter.trim().split_once('='))
        .collect();
    let decode = |text: &str| Base64UrlUnpadded::decode_vec(text).ok();
    let (signed, signature) = parameters.get("t")?.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
    let claims: Value = serde_json::from_slice(&decode(claims)?).ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    let expires = claims["exp"].as_u64()?;
    let contact = claims["sub"].as_str()?;
    let right = header["alg"] == "ES256"
        && decode(parameters.get("k")?)? == key
        && claims["aud"] == origin
        && expires > now
        && expires <= now + 24 * 60 * 60
        && (contact.starts_with("mailto:") || contact.starts_with("https:"));
    let verified = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
        .verify(signed.as_bytes(), &decode(signature)?);
    (right && verified.is_ok()).then_some(())
}
