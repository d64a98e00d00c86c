//! The push service for a real Chromium: the parts of Google's check-in, registration and MCS that a subscription and
//! its messages need.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use base64ct::{Base64, Base64UrlUnpadded, Encoding as _};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::PublicKeyData as _;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::protobuf::{Fields, Message};
use super::push_service::{Channel, Delivery, PushService};

/// The id that the check-in gives to the browser, with which it logs in.
const ANDROID_ID: u64 = 0x5EED_0000_0000_0001;
const SECURITY_TOKEN: u64 = 0x5EED_0000_0000_0002;

/// The version of MCS, the first octet of either side.
const VERSION: u8 = 41;

// Tags of MCS.
const HEARTBEAT_PING: u8 = 0;
const HEARTBEAT_ACK: u8 = 1;
const LOGIN_REQUEST: u8 = 2;
const LOGIN_RESPONSE: u8 = 3;
const CLOSE: u8 = 4;
const IQ_STANZA: u8 = 7;
const DATA_MESSAGE: u8 = 8;

/// Accepts one browser.
#[derive(Clone)]
pub(crate) struct Gcm {
    service: PushService,
    http: SocketAddr,
    mcs: SocketAddr,
    spki: String,
}

impl Gcm {
    pub(crate) async fn start(service: PushService) -> Self {
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mcs = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let spki = Sha256::digest(certified.signing_key.subject_public_key_info());
        let gcm = Self {
            service,
            http: http.local_addr().unwrap(),
            mcs: mcs.local_addr().unwrap(),
            spki: Base64::encode_string(&spki),
        };

        let browsers = gcm.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = http.accept().await {
                let browsers = browsers.clone();
                tokio::spawn(async move {
                    let answer = service_fn(move |request| browsers.clone().answer(request));
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
        });

        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(tls));
        let browsers = gcm.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = mcs.accept().await {
                tokio::spawn(browsers.clone().talk(tls.clone(), stream));
            }
        });
        gcm
    }

    /// Returns the switches with which Chromium has to be started.
    pub(crate) fn switches(&self) -> [String; 4] {
        let Self {
            http, mcs, spki, ..
        } = self;
        [
            format!("--gcm-checkin-url=http://{http}/checkin"),
            format!("--gcm-registration-url=http://{http}/register"),
            format!("--gcm-mcs-endpoint=https://{mcs}"),
            format!("--ignore-certificate-errors-spki-list={spki}"),
        ]
    }

    // ---- Check-in and registration

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let answer = match (&head.method, head.uri.path()) {
            (&Method::POST, "/checkin") => Some(Bytes::from(checked_in())),
            (&Method::POST, "/register") => {
                let credentials = format!("AidLogin {ANDROID_ID}:{SECURITY_TOKEN}");
                let given = head.headers.get("authorization").unwrap();
                assert_eq!(given.to_str().unwrap(), credentials);
                Some(self.register(str::from_utf8(&body).unwrap()).into())
            }
            _ => None,
        };
        let status = match answer {
            Some(_) => StatusCode::OK,
            None => StatusCode::NOT_FOUND,
        };
        let mut response = Response::new(Full::new(answer.unwrap_or_default()));
        *response.status_mut() = status;
        Ok(response)
    }

    /// Registers a subscription. Chromium makes each one an app of its own, named by `X-subtype`, for the sender
    /// named by the VAPID key.
    fn register(&self, form: &str) -> String {
        let member = |name: &str| {
            let mut members = form.split('&').filter_map(|member| member.split_once('='));
            let (_, value) = members.find(|(key, _)| *key == name)?;
            Some(percent_decoded(value))
        };
        let app = member("app");
        let Some(subtype) = member("X-subtype").filter(|subtype| subtype.starts_with("wp:")) else {
            // Chromium's own subscription, which gets no messages.
            return "token=own".to_owned();
        };
        assert_eq!(member("device"), Some(ANDROID_ID.to_string()), "{form}");
        let id = format!("{} {subtype}", app.unwrap());
        // An unsubscribe asks for the end of everything that the app has, from any sender.
        let token = if member("delete").is_some() {
            self.service.unsubscribed(&id).unwrap_or_default()
        } else {
            assert_eq!(member("scope").as_deref(), Some("GCM"), "{form}");
            self.service.subscribed(Channel {
                id,
                key: Base64UrlUnpadded::decode_vec(&member("sender").unwrap()).unwrap(),
            })
        };
        format!("token={token}")
    }

    // ---- MCS

    async fn talk(self, tls: TlsAcceptor, stream: TcpStream) {
        let Ok(stream) = tls.accept(stream).await else {
            return;
        };
        let (mut reader, mut writer) = split(stream);
        let (heard, mut stanzas) = mpsc::unbounded_channel();
        // Dropped with this function: the connection is closed once neither half of it is left.
        let mut reading = JoinSet::new();
        reading.spawn(async move {
            let Ok(VERSION) = reader.read_u8().await else {
                return;
            };
            while let Some(stanza) = stanza(&mut reader).await {
                let _ = heard.send(stanza);
            }
        });

        let Some((LOGIN_REQUEST, login)) = stanzas.recv().await else {
            return;
        };
        let login = Fields::read(&login);
        assert_eq!(login.text(2), "mcs.android.com");
        assert_eq!(login.text(3), ANDROID_ID.to_string());
        assert_eq!(login.text(5), SECURITY_TOKEN.to_string());
        assert_eq!(login.text(6), format!("android-{ANDROID_ID:x}"));
        let mut messages = self.service.log_in().await;
        let response = Message::new().text(1, "login");
        let mut sent = vec![VERSION];
        sent.extend(framed(LOGIN_RESPONSE, response));
        loop {
            if writer.write_all(&sent).await.is_err() || writer.flush().await.is_err() {
                return;
            }
            sent = tokio::select! {
                stanza = stanzas.recv() => match stanza {
                    Some((HEARTBEAT_PING, _)) => framed(HEARTBEAT_ACK, Message::new()),
                    // Acknowledgements of the stream, and other messages without a response.
                    Some((HEARTBEAT_ACK | IQ_STANZA, _)) => Vec::new(),
                    Some((CLOSE, _)) | None => return,
                    Some((tag, _)) => panic!("Chromium sent an MCS stanza of kind {tag}"),
                },
                message = messages.recv() => match message {
                    Some(message) => framed(DATA_MESSAGE, data_message(&message)),
                    None => return,
                },
            };
        }
    }
}

fn checked_in() -> Vec<u8> {
    Message::new()
        .number(1, 1)
        .fixed64(7, ANDROID_ID)
        .fixed64(8, SECURITY_TOKEN)
        .number(9, 1)
        .text(11, "1")
        .finish()
}

fn data_message(delivery: &Delivery) -> Message {
    let (app, subtype) = delivery.channel.id.split_once(' ').unwrap();
    let sender = Base64UrlUnpadded::encode_string(&delivery.channel.key);
    let data = |key, value| Message::new().text(1, key).text(2, value);
    let message = Message::new()
        .text(2, &delivery.version)
        .text(3, &sender)
        .text(5, app)
        .message(7, data("subtype", subtype))
        .text(9, &delivery.version)
        .number(17, delivery.ttl)
        .number(18, 1);
    if delivery.body.is_empty() {
        return message;
    }
    message
        .message(7, data("content-encoding", "aes128gcm"))
        .octets(21, &delivery.body)
}

fn framed(tag: u8, message: Message) -> Vec<u8> {
    let message = message.finish();
    let mut frame = vec![tag];
    super::protobuf::varint(&mut frame, message.len() as u64);
    frame.extend(message);
    frame
}

/// Reads the next tag and its message. Returns `None` once the browser has disconnected.
async fn stanza(reader: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    let tag = reader.read_u8().await.ok()?;
    let (mut length, mut shift) = (0, 0);
    loop {
        let octet = reader.read_u8().await.ok()?;
        length |= usize::from(octet & 0x7F) << shift;
        shift += 7;
        if octet & 0x80 == 0 {
            break;
        }
    }
    let mut message = vec![0; length];
    reader.read_exact(&mut message).await.ok()?;
    Some((tag, message))
}

fn percent_decoded(text: &str) -> String {
    let mut octets = Vec::new();
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            b'+' => b' ',
            octet => octet,
        });
    }
    String::from_utf8(octets).unwrap()
}
