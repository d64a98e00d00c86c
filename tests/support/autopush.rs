//! A push service for a real Firefox: Mozilla's WebSocket protocol on one side, RFC 8030 on the other.
//!
//! It cannot decrypt, like a real one, and shares no code with the crate: what both sides get wrong would
//! otherwise pass.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64ct::{Base64UrlUnpadded, Encoding as _};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{AUTHORIZATION, CONTENT_ENCODING, HeaderMap, LOCATION};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{
    Request as Handshake, Response as HandshakeAnswer,
};

const LIMIT: Duration = Duration::from_secs(90);

/// One push service, for one browser.
#[derive(Clone)]
pub(crate) struct Autopush {
    socket_port: u16,
    http_port: u16,
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<()>>,
}

/// What has happened so far.
#[derive(Default)]
pub(crate) struct State {
    /// How often a browser has said hello.
    pub(crate) hellos: usize,
    /// By the token in the endpoint; `None` once the browser has unsubscribed.
    pub(crate) channels: HashMap<String, Option<Channel>>,
    /// Every push request and how it was answered.
    pub(crate) pushes: Vec<Recorded>,
    /// `(version, code)` of every acknowledgement.
    pub(crate) acks: Vec<(String, i64)>,
    /// Codes of what a service worker failed at.
    pub(crate) nacks: Vec<i64>,
    /// How often the browser was forgotten; part of the name that it is given.
    forgotten: usize,
    /// To the browser that said hello last; its connection ends when this is dropped.
    browser: Option<mpsc::UnboundedSender<Value>>,
}

#[derive(Clone)]
pub(crate) struct Channel {
    id: String,
    /// The applicationServerKey, 65 octets.
    key: Vec<u8>,
}

pub(crate) struct Recorded {
    pub(crate) status: u16,
    /// What was wrong with it; empty when it was accepted.
    pub(crate) why: String,
}

impl Autopush {
    pub(crate) async fn start() -> Self {
        let sockets = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let requests = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = Self {
            socket_port: sockets.local_addr().unwrap().port(),
            http_port: requests.local_addr().unwrap().port(),
            state: Arc::default(),
            changed: Arc::new(watch::channel(()).0),
        };
        let browsers = service.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = sockets.accept().await {
                tokio::spawn(browsers.clone().talk(stream));
            }
        });
        let senders = service.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = requests.accept().await {
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

    /// What Firefox's `dom.push.serverURL` has to be.
    pub(crate) fn server_url(&self) -> String {
        format!("ws://127.0.0.1:{}/", self.socket_port)
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

    /// Loses what it knew of the browser, as push services do now and then: its subscriptions end, and when
    /// it comes back it is told so by another name.
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

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock().unwrap());
        self.changed.send_replace(());
        result
    }

    // ---- The browser's side

    async fn talk(self, stream: TcpStream) {
        // Firefox hangs up unless its subprotocol is echoed.
        #[expect(clippy::result_large_err, reason = "the callback's type is given")]
        let echo = |_: &Handshake, mut answer: HandshakeAnswer| {
            let protocol = "push-notification".parse().unwrap();
            answer
                .headers_mut()
                .insert("sec-websocket-protocol", protocol);
            Ok(answer)
        };
        let Ok(mut socket) = accept_hdr_async(stream, echo).await else {
            return;
        };
        let (sender, mut outbox) = mpsc::unbounded_channel();
        let mut sender = Some(sender);
        loop {
            tokio::select! {
                message = socket.next() => {
                    let Some(Ok(message)) = message else { return };
                    let Message::Text(text) = message else { continue };
                    let said: Value = serde_json::from_str(&text).unwrap();
                    if let Some(answer) = self.answer(&said, &mut sender) {
                        let _ = socket.send(Message::text(answer.to_string())).await;
                    }
                }
                notification = outbox.recv() => {
                    let Some(notification) = notification else { return };
                    let _ = socket.send(Message::text(notification.to_string())).await;
                }
            }
        }
    }

    fn answer(
        &self,
        said: &Value,
        sender: &mut Option<mpsc::UnboundedSender<Value>>,
    ) -> Option<Value> {
        let channel_id = said["channelID"].as_str();
        match said["messageType"].as_str() {
            Some("hello") => {
                let name = self.change(|state| {
                    state.hellos += 1;
                    state.browser = sender.take();
                    format!("browser{}", state.forgotten)
                });
                Some(json!({
                    "messageType": "hello", "uaid": name, "status": 200,
                    "use_webpush": true, "broadcasts": {},
                }))
            }
            Some("register") => {
                let id = channel_id.unwrap().to_owned();
                let token = self.change(|state| {
                    let token = format!("token{}", state.channels.len());
                    let key = said["key"].as_str().unwrap().trim_end_matches('=');
                    let key = Base64UrlUnpadded::decode_vec(key).unwrap();
                    let channel = Channel {
                        id: id.clone(),
                        key,
                    };
                    state.channels.insert(token.clone(), Some(channel));
                    token
                });
                Some(json!({
                    "messageType": "register", "channelID": id, "status": 200,
                    "pushEndpoint": format!("{}/wpush/v2/{token}", self.origin()),
                }))
            }
            Some("unregister") => {
                self.change(|state| {
                    for channel in state.channels.values_mut() {
                        if channel.as_ref().map(|channel| channel.id.as_str()) == channel_id {
                            *channel = None;
                        }
                    }
                });
                Some(json!({"messageType": "unregister", "channelID": channel_id, "status": 200}))
            }
            Some("ack") => {
                self.change(|state| {
                    for update in said["updates"].as_array().unwrap() {
                        let version = update["version"].as_str().unwrap().to_owned();
                        state.acks.push((version, update["code"].as_i64().unwrap()));
                    }
                });
                None
            }
            Some("nack") => {
                self.change(|state| state.nacks.push(said["code"].as_i64().unwrap()));
                None
            }
            Some("broadcast_subscribe") => None,
            // A ping is an empty object, and so is its answer.
            _ => Some(json!({})),
        }
    }

    // ---- The application server's side

    fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    async fn push(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let token = head.uri.path().strip_prefix("/wpush/v2/").unwrap_or("");
        let channel = self.state.lock().unwrap().channels.get(token).cloned();
        let checked = match channel {
            None => Err((StatusCode::NOT_FOUND, "no such subscription".to_owned())),
            Some(None) => Err((StatusCode::GONE, "the browser has unsubscribed".to_owned())),
            Some(Some(_)) if head.method != Method::POST => {
                Err((StatusCode::METHOD_NOT_ALLOWED, "not a POST".to_owned()))
            }
            Some(Some(channel)) => {
                check(&head.headers, &body, &channel.key, &self.origin()).map(|ttl| (channel, ttl))
            }
        };
        let (status, why) = match &checked {
            Ok(_) => (StatusCode::CREATED, String::new()),
            Err((status, why)) => (*status, why.clone()),
        };
        let version = self.change(|state| {
            let version = format!("version{}", state.pushes.len());
            let record = Recorded {
                status: status.as_u16(),
                why: why.clone(),
            };
            state.pushes.push(record);
            if let (Ok((channel, _)), Some(browser)) = (&checked, &state.browser) {
                let mut notification = json!({
                    "messageType": "notification", "channelID": channel.id, "version": version,
                });
                if !body.is_empty() {
                    notification["data"] = json!(Base64UrlUnpadded::encode_string(&body));
                    notification["headers"] = json!({"encoding": "aes128gcm"});
                }
                let _ = browser.send(notification);
            }
            version
        });
        let mut answer = Response::builder().status(status);
        if let Ok((_, ttl)) = checked {
            answer = answer
                .header(LOCATION, format!("{}/m/{version}", self.origin()))
                .header("ttl", ttl);
        }
        Ok(answer.body(Full::from(why)).unwrap())
    }
}

type Refusal = (StatusCode, String);

/// As strict as RFC 8030 and RFC 8292 allow; answers the TTL.
fn check(headers: &HeaderMap, body: &[u8], key: &[u8], origin: &str) -> Result<u64, Refusal> {
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
    if let Some(topic) = once("topic")?
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
        Some(()) => Ok(ttl),
        None => refuse(StatusCode::FORBIDDEN, "the VAPID token is not right"),
    }
}

/// RFC 8292 sections 2 and 3.1, by hand.
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
