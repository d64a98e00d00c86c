//! The default client against connections that a test makes.

use std::future::poll_fn;

use http::uri::Authority;
use http_body_util::BodyExt as _;
use hyper_rustls::MaybeHttpsStream;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use super::super::error::find_source;
use super::super::http2_pool::tests::connect;
use super::super::local_error::{Lack, LocalError};
use super::super::{Deliver, ResolveError, ResolveErrorKind};
use super::*;
use crate::message::Message;
use crate::p256::UaSecretKey;
use crate::push_request::Push;
use crate::subscription::{AuthSecret, Subscription};
use crate::vapid::{Contact, VapidKey};

/// Until it was sent for the last time. The time after that is the server's.
#[tokio::test(start_paused = true)]
async fn the_delay_of_a_request_that_was_repeated_ends_with_the_last_repeat() {
    const REFUSED: Duration = Duration::from_secs(3);
    const ANSWERED: Duration = Duration::from_secs(1);
    let client = HttpClient::builder().build().unwrap();
    let authority = Authority::from_static("push.example.com");
    let (server, _connection) = connect(&client.0.http2, &authority).await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut server = h2::server::handshake(server).await.unwrap();
        for number in 0.. {
            let Some(request) = server.accept().await else {
                return;
            };
            let mut respond = request.unwrap().1;
            if (1..=2).contains(&number) {
                sleep(REFUSED).await;
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            } else {
                sleep(ANSWERED).await;
                drop(respond.send_response(Response::new(()), true));
            }
        }
    });
    let mut delays = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        let request = Request::post("https://push.example.com/p");
        let request = request.body(PushBody::new("x")).unwrap();
        let response = client.clone().call(request).await.unwrap();
        assert!(began.elapsed() >= ANSWERED);
        let delay = response.extensions().get::<Delayed>();
        delays.push(delay.map(|Delayed(delay)| delay.as_secs_f64()));
    }
    let [None, Some(delay), None] = delays[..] else {
        panic!("{delays:?}");
    };
    // The pause before the second repeat has 2 ms at most.
    let expected = (2 * REFUSED).as_secs_f64();
    assert!((expected..expected + 0.1).contains(&delay), "{delay}");
}

/// A server that refuses requests for a while is not asked as often as it can refuse them.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_refused_again_is_repeated_after_a_pause() {
    const REFUSED: usize = 7;
    let client = HttpClient::builder().build().unwrap();
    let authority = Authority::from_static("push.example.com");
    let (server, _connection) = connect(&client.0.http2, &authority).await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut server = h2::server::handshake(server).await.unwrap();
        for number in 0.. {
            let Some(request) = server.accept().await else {
                return;
            };
            let mut respond = request.unwrap().1;
            if number < REFUSED {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            } else {
                drop(respond.send_response(Response::new(()), true));
            }
        }
    });
    let began = Instant::now();
    let request = Request::post("https://push.example.com/p");
    let request = request.body(PushBody::new("x")).unwrap();
    client.clone().call(request).await.unwrap();
    // The first repeat is at once, and the pauses before the others are random, of 126 ms in all at most.
    let pauses = began.elapsed();
    assert!(pauses > Duration::from_millis(2), "{pauses:?}");
}

/// The reasons of push services are there.
#[tokio::test]
async fn the_body_of_a_response_is_passed_on() {
    let client = HttpClient::builder().build().unwrap();
    let authority = Authority::from_static("push.example.com");
    let (server, _connection) = connect(&client.0.http2, &authority).await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut server = h2::server::handshake(server).await.unwrap();
        while let Some(request) = server.accept().await {
            let head = Response::builder().status(403).body(()).unwrap();
            let mut body = request.unwrap().1.send_response(head, false).unwrap();
            body.send_data("Mismatch".into(), false).unwrap();
            body.send_data("SenderId".into(), true).unwrap();
        }
    });
    let request = Request::post("https://push.example.com/p");
    let request = request.body(PushBody::new("x")).unwrap();
    let response = client.clone().call(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "MismatchSenderId");
}

/// A request is small. It must not wait for the acknowledgement of the one before.
#[tokio::test]
async fn connections_send_at_once() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.unwrap();
    let client = HttpClient::builder().policy(EndpointPolicy::insecure_allow_local());
    let client = client.build().unwrap();
    let tls = tls::client_config(&[]).unwrap();
    let connector = Connector::http1(tls, Arc::clone(&client.0.shared));
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    let dialled = connector.dial(uri.parse().unwrap(), false).await;
    let MaybeHttpsStream::Http(socket) = dialled.unwrap().0 else {
        panic!("without TLS");
    };
    assert!(socket.tcp().nodelay().unwrap());
}

#[test]
fn a_file_without_a_certificate_is_refused() {
    let error = HttpClient::builder().extra_root_ca_pem("").build();
    let kind = error.unwrap_err().kind();
    assert_eq!(kind, HttpClientErrorKind::InvalidRootCa);
}

#[test]
fn an_origin_has_one_spelling() {
    for (uri, expected) in [
        (
            "https://push.example.com/p?q=1",
            "https://push.example.com/p?q=1",
        ),
        (
            "https://Push.Example.com:443/P",
            "https://push.example.com/P",
        ),
        (
            "https://push.example.com:0443/",
            "https://push.example.com/",
        ),
        (
            "https://push.example.com:08443/",
            "https://push.example.com:8443/",
        ),
        ("http://LOCALHOST:80/", "http://localhost/"),
        ("http://localhost:443/", "http://localhost:443/"),
        ("https://[::1]:443/", "https://[::1]/"),
    ] {
        let uri = in_one_spelling(&uri.parse().unwrap()).unwrap();
        assert_eq!(uri.to_string(), expected);
    }
    assert_eq!(in_one_spelling(&Uri::from_static("/p")), None);
}

#[test]
fn a_client_is_built_without_a_runtime() {
    assert!(HttpClient::builder().build().is_ok());
}

/// Strangers' hosts that hang use up the connections of strangers.
#[tokio::test]
async fn hosts_that_the_policy_names_have_connections_of_their_own() {
    #[derive(Debug)]
    struct Down;
    #[async_trait::async_trait]
    impl Resolver for Down {
        async fn resolve(&self, _: &str) -> Result<Vec<std::net::IpAddr>, ResolveError> {
            Err(ResolveErrorKind::Temporary.into())
        }
    }
    let client = HttpClient::builder()
        .policy("known, public".parse().unwrap())
        .resolver(Arc::new(Down))
        .max_connections(4);
    let client = client.build().unwrap();
    let connector = Connector::http2(
        tls::client_config(&[]).unwrap(),
        Arc::clone(&client.0.shared),
    );
    let budget = &client.0.shared.budget;
    let mut held = Vec::new();
    for domain in ["d0.example", "d1.example", "d2.example"] {
        held.extend(budget.spare_place(Some(domain.into())));
    }
    assert_eq!(held.len(), 2);
    for (host, lack) in [
        ("fcm.googleapis.com", None),
        ("web.push.apple.com", None),
        ("push.stranger.example", Some(Lack::Connections)),
    ] {
        let uri = format!("https://{host}/").parse().unwrap();
        let error = connector.dial(uri, true).await.err().unwrap();
        let local = find_source::<LocalError>(error.as_ref()).map(LocalError::lack);
        assert_eq!(local.filter(|lack| *lack != Lack::Resolver), lack, "{host}");
        let was_looked_up = find_source::<ResolveError>(error.as_ref()).is_some();
        assert_eq!(was_looked_up, lack.is_none(), "{host}");
    }
}

/// The thread that drops a response reads only what is there, and a task of the runtime not much more.
#[tokio::test]
async fn of_a_response_that_is_dropped_16_kib_are_read() {
    const WINDOW: usize = 64 * 1024;
    let client = HttpClient::builder().build().unwrap();
    let authority = Authority::from_static("push.example.com");
    let (server, _connection) = connect(&client.0.http2, &authority).await;
    let (sent, mut reset) = tokio::sync::watch::channel((0, false));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut server = h2::server::handshake(server).await.unwrap();
        let (_, mut respond) = server.accept().await.unwrap().unwrap();
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        let sending = async move {
            loop {
                body.reserve_capacity(4096);
                let more = poll_fn(|cx| match body.poll_reset(cx) {
                    Poll::Ready(_) => Poll::Ready(None),
                    Poll::Pending => body.poll_capacity(cx),
                });
                let Some(Ok(octets)) = more.await else {
                    break;
                };
                if body.send_data(vec![0; octets].into(), false).is_err() {
                    break;
                }
                sent.send_modify(|(all, _)| *all += octets);
            }
            sent.send_modify(|(_, is_reset)| *is_reset = true);
        };
        // The connection goes on while there are requests.
        let accepting = async { while server.accept().await.is_some() {} };
        tokio::join!(sending, accepting);
    });
    let request = Request::post("https://push.example.com/p");
    let request = request.body(PushBody::new("x")).unwrap();
    drop(client.clone().call(request).await.unwrap());
    let seen = *reset.wait_for(|(_, is_reset)| *is_reset).await.unwrap();
    assert!(seen.0 <= 16 * 1024 + WINDOW, "{seen:?}");
}

/// A server that refuses all requests may never give a response that could say so.
#[tokio::test(start_paused = true)]
async fn a_request_that_times_out_after_the_server_asked_for_calm_lowers_the_limit() {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    /// GOAWAY: no stream was processed, ENHANCE_YOUR_CALM.
    const GO_AWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];
    for is_asked in [false, true] {
        let client = HttpClient::builder().build().unwrap();
        let authority = Authority::from_static("push.example.com");
        let (mut server, _connection) = connect(&client.0.http2, &authority).await;
        // Too short for all repeats.
        let deliver = Deliver::new(client, Contact::parse("mailto:ops@example.com").unwrap())
            .with_policy(EndpointPolicy::public_hosts())
            .with_timeout(Duration::from_secs(3));
        let secret = UaSecretKey::random().unwrap();
        let auth = AuthSecret::from_bytes(b"sixteen octets..").unwrap();
        let endpoint = "https://push.example.com/p".parse().unwrap();
        let subscription = Subscription::new(endpoint, *secret.public(), auth);
        let key = Arc::new(VapidKey::generate().unwrap());
        let push = Push::new(subscription, Message::new("x"), key);
        let sent = tokio::spawn(deliver.clone().call(push));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        server.write_all(&SETTINGS).await.unwrap();
        if is_asked {
            server.write_all(&GO_AWAY).await.unwrap();
        }
        let error = sent.await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some("timeout"));
        let origin = Origin::parse("https://push.example.com").unwrap();
        let limit = deliver.gates().gate(&origin).limit();
        assert_eq!(limit, if is_asked { 4 } else { 8 });
    }
}
